//! Whose a content is, and how tools write it.

use super::*;

#[tokio::test]
async fn the_same_content_is_two_bills_for_two_providers_accounts_or_months() {
    let month = json!({"month": {"column": "month", "format": "%Y-%m"}});
    let rule = |path: &str, provider: &str, account: &str, period: &Value| {
        json!({"path": path, "provider": provider, "account": account, "format": {"csv": {
            "period": period,
            "amount": {"column": "amount", "unit": "dollars", "currency": {"fixed": "USD"}},
        }}})
    };
    let first = json!({"fixed": {"start": "2026-11-01", "end": "2026-11-02"}});
    let second = json!({"fixed": {"start": "2026-11-02", "end": "2026-11-03"}});
    let document = json!({"files": [
        rule("groq/mine/*", "groq", "mine", &month),
        rule("groq/1/*", "groq", "acme", &first),
        rule("groq/2/*", "groq", "acme", &second),
        rule("groq/*", "groq", "acme", &month),
        rule("mistral/*", "mistral", "acme", &month),
    ]});
    let mapping = Mapping::parse(&document.to_string()).unwrap();
    let body = "month,amount\n2026-11,20.00\n";
    let names = ["groq/1/a", "groq/2/a", "groq/a", "groq/b", "groq/mine/a", "mistral/a"];
    let files = names.map(|name| (format!("inbox/{name}.csv"), body));
    let files: Vec<_> = files.iter().map(|(key, body)| (key.as_str(), *body)).collect();
    let sorted = sorted(mapping, &files).await;
    let whose: Vec<_> = sorted
        .bill
        .lines
        .iter()
        .map(|line| format!("{} {} {}", line.provider, line.account, line.start.date()))
        .collect();
    assert_eq!(
        whose,
        [
            "groq acme 2026-11-01",
            "groq acme 2026-11-02",
            "groq acme 2026-11-01",
            "groq mine 2026-11-01",
            "mistral acme 2026-11-01"
        ]
    );
    assert!(sorted.bill.lines.iter().all(|line| line.amount == usd("20")));
    let once: Vec<_> = sorted.bill.notes.iter().filter(|note| note.contains("same")).collect();
    assert_eq!(once, ["inbox/groq/b.csv: the same content as inbox/groq/a.csv, counted once"]);
}

#[tokio::test]
async fn numbers_and_line_ends_are_read_as_tools_write_them() {
    for (body, expected) in [
        ("\u{feff}Date,Cost\r\n2026-11-04,1.5\r\n2026-11-05,2\r\n", &["1.5", "2"][..]),
        ("Date,Cost\r2026-11-04,1.5\r2026-11-05,2", &["1.5", "2"]),
        ("Date, Cost ,Words\n2026-11-04, 1.5 ,\"two\nlines, \"\"quoted\"\"\"\n", &["1.5"]),
        ("Date,Cost\n2026-11-04,1E-12\n", &["0.000000000001"]),
        ("Date,Cost\n2026-11-04,-2.5e+3\n", &["-2500"]),
        ("Date,Cost\n2026-11-04,-0.000\n", &["0"]),
        ("Date,Cost\n2026-11-04,123456789012345678901234.5\n", &["123456789012345678901234.5"]),
    ] {
        let sorted = one(|_| {}, body).await;
        assert_eq!(
            (amounts(&sorted).as_slice(), &sorted.held[..]),
            (&expected.iter().map(ToString::to_string).collect::<Vec<_>>()[..], &[][..]),
            "{body}"
        );
    }
    for (body, expected) in [
        ("Date;Cost\n2026-11-04;1,5\n", "which has \"Date;Cost\""),
        ("Date,Cost\n2026-11-04,1234567890123456789012345678\n", "line 2, Cost` is too large"),
        ("Date,Cost\n2026-11-04,1e99999999999\n", "line 2, Cost` is not"),
        ("Date,Cost\n2026-11-04,(1.50)\n", "line 2, Cost` is not"),
        ("Date,Cost\n2026-11-04,NaN\n", "line 2, Cost` is not"),
        ("Date,Cost,Words\n2026-11-04,1,\"two\nlines\"\n2026-11-05,x,\n", "line 4, Cost` is not"),
    ] {
        let held = one(|_| {}, body).await;
        let text = held.held[0].to_string();
        assert!(text.contains(expected) && held.bill.lines.is_empty(), "{text}");
    }
    // Latin-1, and what spreadsheets call Unicode.
    let latin: &[u8] = b"Date,Cost,Words\n2026-11-04,1,Geb\xfchr\n";
    for body in [latin, b"\xff\xfeD\0a\0t\0e\0,\0C\0o\0s\0t\0\n\0"] {
        let files = BTreeMap::from([("inbox/groq/a.csv".into(), Bytes::copy_from_slice(body))]);
        let store = Objects { files, ..Objects::default() };
        let inbox = Inbox::new(Arc::new(store), mapping(|_| {}).unwrap());
        let pages = inbox.fetch(november()).await.unwrap();
        let held = inbox.held(november(), &pages).unwrap();
        assert!(held[0].to_string().contains("is not UTF-8"), "{held:?}");
    }
}

#[tokio::test]
async fn a_currency_is_the_same_in_small_letters() {
    let file = FOCUS_1_4.replace("USD", "usd");
    let all = sorted(focus(json!({})), &[("inbox/focus/1.csv", &file)]).await;
    assert_eq!((all.bill.lines.len(), all.held.len()), (4, 0));
}
