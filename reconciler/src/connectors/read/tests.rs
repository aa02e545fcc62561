use proptest::prelude::*;

use super::*;

#[derive(Debug, Deserialize)]
struct Row {
    value: Dollars,
}

#[derive(Debug, Deserialize)]
struct Page {
    rows: Vec<Row>,
}

const READER: Reader<'static> = Reader::new("test", "costs");

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

fn wrong<T: DeserializeOwned + std::fmt::Debug>(body: &str) -> (String, String) {
    match READER.json::<T>(body.as_bytes()).unwrap_err() {
        PullError::Unreadable { field, reason, .. } => (field, reason),
        other => panic!("{other}"),
    }
}

#[test]
fn numbers_of_dollars_keep_their_source_text() {
    let page: Page = READER
        .json(br#"{"rows":[{"value":0.1},{"value":-2.5e-7},{"value":12345678.123456789012}]}"#)
        .unwrap();
    let amounts: Vec<_> = page.rows.iter().map(|row| row.value.usd).collect();
    assert_eq!(amounts, [usd("0.1"), usd("-0.00000025"), usd("12345678.123456789012")]);
    assert!(page.rows.iter().all(|row| !row.value.rounded));
}

#[test]
fn floats_finer_than_money_are_rounded_half_to_even_and_counted() {
    for (text, expect) in [
        ("0.13080438340307526", "0.130804383403"),
        ("0.0000000000005", "0"),
        ("0.0000000000015", "0.000000000002"),
        ("-0.0000000000015", "-0.000000000002"),
        ("1.2345678901234567e-05", "0.000012345679"),
        ("5.293955920339377e-23", "0"),
        ("0E-6176", "0"),
        ("-0E0", "0"),
    ] {
        let read: Dollars = READER.json(text.as_bytes()).unwrap();
        assert_eq!(read.usd, usd(expect), "{text}");
        assert_eq!(read.rounded, !text.contains("0E"), "{text}");
    }
    let mut rounded = Rounded::default();
    assert_eq!(rounded.note("test"), None);
    rounded.dollars(READER.json(b"0.13080438340307526").unwrap());
    rounded.cents(READER.json(b"1.5").unwrap());
    assert!(rounded.note("test").unwrap().starts_with("test: 1 amounts"));
}

#[test]
fn cents_are_a_hundredth_exactly() {
    let number: Cents = READER.json(b"7").unwrap();
    assert_eq!((number.usd, number.rounded), (usd("0.07"), false));
    let text: CentsText = READER.json(br#""123.78912""#).unwrap();
    assert_eq!(text.0, usd("1.2378912"));
    let (_, reason) = wrong::<CentsText>(r#""0.00000000001""#);
    assert!(reason.contains("more than 12 decimal places"), "{reason}");
}

#[test]
fn only_the_documented_type_is_a_number() {
    for (body, expect) in [
        (r#"{"rows":[{"value":"0.1"}]}"#, "is text where a number is documented"),
        (r#"{"rows":[{"value":null}]}"#, "is null"),
        (r#"{"rows":[{"value":{}}]}"#, "is no number"),
        (r#"{"rows":[{"value":1e400}]}"#, "too large"),
        (r#"{"rows":[{"value":170141183460469231731687303.715884105728}]}"#, "too large"),
        (r#"{"rows":[{"value":NaN}]}"#, "expected"),
    ] {
        let (field, reason) = wrong::<Page>(body);
        assert!(field == "rows[0].value" && reason.contains(expect), "{field} {reason}");
    }
    let (_, reason) = wrong::<Page>(r#"{"rows":[{"value":1,"value":2}]}"#);
    assert!(reason.contains("duplicate field"), "{reason}");
    let (field, reason) = wrong::<Page>(r#"{"rows":[{}]}"#);
    assert!(field == "rows[0]" && reason.contains("missing field `value`"), "{field} {reason}");
    for (body, expect) in [("5", "is a number where"), ("null", "is null"), ("[]", "no decimal")] {
        let (_, reason) = wrong::<CentsText>(body);
        assert!(reason.contains(expect), "{reason}");
        assert!(wrong::<DollarsText>(body).1.contains(expect));
        assert!(wrong::<AmountText>(body).1.contains(expect));
    }
    assert!(wrong::<DollarsText>(r#""12,5""#).1.contains("decimal number"));
    assert!(wrong::<Amount>(r#""12""#).1.contains("is text"));
}

#[test]
fn what_is_no_whole_json_is_called_by_its_name() {
    for (body, expect) in [
        ("", "is empty"),
        ("  \n<!doctype html><html>", "HTML"),
        (r#"{"rows":[{"value":0.1},{"val"#, "ends in the middle"),
        (r#"{"rows":[]}{"rows":[]}"#, "trailing"),
    ] {
        let (field, reason) = wrong::<Page>(body);
        assert!(reason.contains(expect), "{body}: {field} {reason}");
    }
    let packed = READER.json::<Page>(b"\x1f\x8b\x08\0").unwrap_err().to_string();
    assert!(packed.contains("is packed"), "{packed}");
    let marked: Page = READER.json("\u{feff}{\"rows\":[]}\r\n".as_bytes()).unwrap();
    assert!(marked.rows.is_empty());
    let long = format!(r#"{{"rows":"{}"}}"#, "é".repeat(5_000));
    assert!(wrong::<Page>(&long).1.chars().count() < LONGEST_REASON + 4);
}

#[test]
fn times_are_utc_or_nothing() {
    let at = Timestamp::parse("2026-11-20").unwrap();
    for text in ["2026-11-20T00:00:00Z", "2026-11-20T00:00:00.000000+00:00"] {
        let read: Utc = READER.json(format!("\"{text}\"").as_bytes()).unwrap();
        assert_eq!(read.0, at, "{text}");
    }
    for text in ["2026-11-20T00:00:00+01:00", "2026-11-20", "2026-11-20T00:00:00", "1"] {
        assert!(wrong::<Utc>(&format!("\"{text}\"")).1.contains("RFC 3339"), "{text}");
    }
    let seconds: UnixSeconds = READER.json(b"1795132800").unwrap();
    assert_eq!(seconds.0, at);
    for bad in ["1795132800.5", "\"1795132800\"", "9223372036854775807"] {
        wrong::<UnixSeconds>(bad);
    }
    let day: Day = READER.json(b"\"2026-11-20\"").unwrap();
    assert_eq!((day.0.midnight(), next_day(day.0).to_string()), (at, "2026-11-21".into()));
    wrong::<Day>("\"2026-11-31\"");
}

#[test]
fn periods_stay_within_the_asked_days() {
    let days =
        Days { from: Date::parse("2026-11-19").unwrap(), to: Date::parse("2026-11-21").unwrap() };
    let (start, end) = (days.start(), days.end());
    READER.within(days, start, end, "data[0]").unwrap();
    for (start, end) in
        [(start.plus_ms(-1), end), (start, end.plus_ms(1)), (end, start), (start, start)]
    {
        let error = READER.within(days, start, end, "data[0]").unwrap_err().to_string();
        assert!(error.contains("`data[0]`") && error.contains("2026-11-19..2026-11-21"));
    }
    READER.within_a_day(days, start, start.plus_ms(86_400_000), "data[0]").unwrap();
    let error = READER.within_a_day(days, start, end, "data[0]").unwrap_err().to_string();
    assert!(error.contains("longer than its day"), "{error}");
    READER.us_dollars("usd", "currency").unwrap();
    assert!(READER.us_dollars("EUR", "c").unwrap_err().to_string().contains("EUR"));
}

#[test]
fn more_pages_need_a_cursor() {
    let next = |body: &str| {
        let paged: Paged = READER.json(body.as_bytes())?;
        paged.next(&READER).map(|cursor| cursor.map(str::to_owned))
    };
    assert_eq!(next(r#"{"has_more":true,"next_page":"p2"}"#), Ok(Some("p2".into())));
    assert_eq!(next(r#"{"has_more":false,"next_page":"p2"}"#), Ok(None));
    assert_eq!(next(r#"{"has_more":false,"next_page":null}"#), Ok(None));
    for bad in [r#"{"has_more":true,"next_page":null}"#, r#"{"has_more":"no"}"#, "{}"] {
        assert!(next(bad).is_err(), "{bad}");
    }
}

#[test]
fn lists_of_pages_must_be_whole() {
    let lists = |pages: &[(&'static str, bool)], expected: &[&str]| {
        let mut lists = Lists::new("test");
        pages.iter().try_for_each(|(label, more)| lists.page(label, *more))?;
        lists.finish(expected.iter().copied())
    };
    lists(&[("costs", true), ("keys", false), ("costs", false)], &["costs"]).unwrap();
    for (pages, expected) in [
        (&[("costs", true)][..], &["costs"][..]),
        (&[("costs", false), ("costs", false)], &["costs"]),
        (&[("keys", false)], &["costs"]),
    ] {
        assert!(lists(pages, expected).is_err(), "{pages:?}");
    }
}

proptest! {
    #[test]
    fn rounding_never_moves_an_amount_by_more_than_half_a_picodollar(
        digits in -99_999_999_999_999_999_i64..99_999_999_999_999_999,
        exponent in 9_usize..30,
    ) {
        // 17 significant digits, as a double has.
        let text = format!("{digits}e-{exponent}");
        let (pico, rounded) = parse_rounded(&text, PLACES).unwrap();
        // Both in units of 1e-30.
        let exact = parse_decimal(&text, 30).unwrap();
        let off = pico.checked_mul(10_i128.pow(18)).map(|read| (read - exact).abs());
        prop_assert_eq!(rounded, parse_decimal(&text, PLACES).is_err());
        if rounded {
            prop_assert!(off.unwrap() <= 5 * 10_i128.pow(17), "{}", text);
        }
    }
}
