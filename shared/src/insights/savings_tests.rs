//! Opportunities over made-up traffic at the price book's prices.

use super::*;
use crate::insights::market::Seller;
use proptest::prelude::*;

fn at() -> Timestamp {
    Timestamp::parse("2026-11-20").unwrap()
}

fn market() -> Market {
    let seller = Seller { price_book: "openai".into(), ..Seller::default() };
    Market { sellers: [("openai".to_owned(), seller)].into(), own: Vec::new() }
}

/// Traffic at gpt-6-sol ($2 in, $0.20 cached, $10 out a million), charged at list price.
fn traffic(requests: u64, input: u64, output: u64) -> Traffic {
    let usd = |tokens: u64, price: &str| at_price(tokens, price.parse().unwrap()).unwrap();
    let (input_usd, output_usd) = (usd(input, "2"), usd(output, "10"));
    Traffic {
        requests,
        streamed: requests,
        hours: requests.min(10),
        input,
        output,
        longest_input: input.checked_div(requests).unwrap_or(0),
        shortest_input: Some(100),
        input_usd,
        output_usd,
        charged: input_usd.checked_add(output_usd).unwrap(),
        ..Traffic::default()
    }
}

fn row(feature: &str, traffic: Traffic) -> Row {
    Row {
        feature: feature.to_owned(),
        provider: "openai".into(),
        model: "gpt-6-sol".into(),
        traffic,
        ..Row::default()
    }
}

fn found(rows: &[Row]) -> Savings {
    let market = market();
    let archetypes = [("chatty".to_owned(), Archetype::QaOrRag)].into();
    let question = Question {
        rows,
        market: &market,
        archetypes: &archetypes,
        commitments: &BTreeMap::new(),
        hours: &[],
        since: at(),
        days: 15,
        at: at(),
    };
    savings(&question).unwrap()
}

fn of(report: &Savings, kind: Kind) -> Option<&Opportunity> {
    report.data.iter().find(|it| it.kind == kind)
}

#[test]
fn a_cheaper_model_is_rated_with_the_traffic_s_own_tokens() {
    let report = found(&[row("answers", traffic(1_000, 4_000_000, 1_000_000))]);
    let it = of(&report, Kind::CheaperModel).unwrap();
    let candidate = it.evidence["candidate"].strip_prefix("openai/").unwrap();
    let market = market();
    let prices =
        market.price("openai", candidate, at()).unwrap().prices.get("standard").unwrap().clone();
    let then = rerate(&prices, &traffic(1_000, 4_000_000, 1_000_000)).unwrap();
    assert_eq!(
        (it.evidence["now_usd"].as_str(), it.evidence["then_usd"].clone()),
        ("18", then.to_string())
    );
    // 15 days of traffic: a month is twice of it.
    assert_eq!(it.saves_usd.pico(), 2 * ("18".parse::<Usd>().unwrap().pico() - then.pico()));
    assert!(then.pico() <= 18 * 1_000_000_000_000 * 4 / 5);
    assert_eq!(it.certainty, Certainty::Low);
    assert_eq!(it.requests["feature"], "answers");
    // A discount that is had already is not saved again.
    let mut cheap = traffic(1_000, 4_000_000, 1_000_000);
    cheap.charged = "0.001".parse().unwrap();
    assert_eq!(of(&found(&[row("answers", cheap)]), Kind::CheaperModel), None);
}

#[test]
fn what_can_wait_goes_to_the_batch_and_what_is_read_along_does_not() {
    let quiet = Traffic { streamed: 0, ..traffic(100, 4_000_000, 1_000_000) };
    let by_hour = [(2, 100)].into();
    let nightly = Row { purpose: "nightly index".into(), by_hour, ..row("search", quiet.clone()) };
    let report = found(&[nightly, row("search", traffic(100, 4_000_000, 1_000_000))]);
    let it = of(&report, Kind::Batch).unwrap();
    // Half of $18, twice a month; the streamed half stays.
    assert_eq!((it.saves_usd.to_string().as_str(), it.certainty), ("18", Certainty::High));
    assert_eq!(it.evidence["batchable_requests"], "100");
    let session = Traffic { turns: 100, sessions: 100, ..quiet };
    assert_eq!(of(&found(&[row("chat", session)]), Kind::Batch), None);
    assert_eq!(of(&found(&[row("chat", traffic(100, 4_000_000, 1))]), Kind::Batch), None);
}

#[test]
fn a_shared_prefix_pays_when_it_is_read_often_enough() {
    let base = Traffic { shortest_input: Some(3_000), ..traffic(1_000, 4_000_000, 1_000) };
    let report = found(&[row("rag", base.clone())]);
    let it = of(&report, Kind::PromptCaching).unwrap();
    // 990 reads x 3,000 at $1.80 less, 10 writes x 3,000 at $0.50 more; twice a month.
    assert_eq!(it.saves_usd.to_string(), "10.662");
    assert_eq!(it.evidence["break_even_reads_in_hundredths"], "27");
    for other in [
        Traffic { shortest_input: Some(900), ..base.clone() },
        Traffic { shortest_input: None, ..base.clone() },
        Traffic { hours: 1_000, ..base.clone() },
        Traffic { cache_read: 5_000_000, ..base },
    ] {
        assert_eq!(of(&found(&[row("rag", other)]), Kind::PromptCaching), None);
    }
}

#[test]
fn conversations_that_resend_are_found_by_their_turns() {
    let base =
        Traffic { turns: 100, sessions: 10, resent: 3_500_000, ..traffic(100, 4_000_000, 1_000) };
    let report = found(&[row("chat", base.clone())]);
    let it = of(&report, Kind::Resending).unwrap();
    // 3.5 million at $1.80 less, half a million at $0.50 more; twice a month.
    assert_eq!((it.saves_usd.to_string().as_str(), it.certainty), ("12.1", Certainty::Medium));
    let single = Traffic { sessions: 100, ..base };
    assert_eq!(of(&found(&[row("chat", single)]), Kind::Resending), None);
}

#[test]
fn output_far_beyond_its_kind_is_said() {
    let usual = |name: &str| row(name, traffic(1_000, 800_000, 200_000));
    let long = row("chatty", traffic(1_000, 7_200_000, 1_800_000));
    let report = found(&[usual("a"), usual("b"), long]);
    let it = report.data.iter().find(|it| it.kind == Kind::OverlongOutput);
    let it = it.unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(it.feature, "chatty");
    assert!(it.evidence["excess_tokens"].parse::<u64>().unwrap() > 0);
    assert!(report.data.iter().all(|it| it.kind != Kind::OverlongOutput || it.feature == "chatty"));
}

#[test]
fn the_same_tokens_are_never_counted_twice() {
    let base = Traffic {
        streamed: 0,
        shortest_input: Some(3_000),
        ..traffic(1_000, 4_000_000, 2_000_000)
    };
    let report = found(&[row("all", base.clone()), row("other", base)]);
    assert!(report.data.len() >= 6, "{report:?}");
    let by_feature = |name: &str| -> Vec<&Opportunity> {
        report.data.iter().filter(|it| it.counted && it.feature == name).collect()
    };
    for name in ["all", "other"] {
        let counted = by_feature(name);
        let inputs = counted.iter().filter(|it| it.kind.claims().0).count();
        let outputs = counted.iter().filter(|it| it.kind.claims().1).count();
        assert!(inputs <= 1 && outputs <= 1, "{counted:?}");
        // No more is saved than is spent.
        let saved: i128 = counted.iter().map(|it| it.saves_usd.pico()).sum();
        assert!(saved <= 2 * 28 * 1_000_000_000_000);
    }
    let total: i128 =
        report.data.iter().filter(|it| it.counted).map(|it| it.saves_usd.pico()).sum();
    assert_eq!(report.total_usd.pico(), total);
    let excluded = report.data.iter().find(|it| !it.counted).unwrap();
    assert!(report.data.iter().any(|it| it.counted && excluded.excludes.contains(&it.id)));
}

#[test]
fn an_unknown_model_and_small_change_are_left_out() {
    let unknown = Row { model: "nobody-knows".into(), ..row("x", traffic(1_000, 4_000_000, 1)) };
    let report = found(&[unknown, row("tiny", traffic(20, 2_000, 10))]);
    assert_eq!((report.data.len(), report.total_usd), (0, Usd::ZERO));
}

proptest! {
    #[test]
    fn no_stream_saves_more_than_it_costs(
        requests in 1_u64..10_000, input in 0_u64..50_000_000, output in 0_u64..9_000_000, hours in 1_u64..400,
        shortest in 0_u64..9_000, resent in 0_u64..50_000_000, sessions in 0_u64..500, quiet in any::<bool>(),
    ) {
        let sessions = sessions.min(requests);
        let base = Traffic {
            streamed: if quiet { 0 } else { requests },
            hours: hours.min(requests),
            shortest_input: Some(shortest.min(input / requests)),
            resent: resent.min(input),
            turns: if sessions > 0 { requests } else { 0 },
            sessions,
            ..traffic(requests, input, output)
        };
        let charged = base.charged;
        let report = found(&[row("f", base)]);
        prop_assert!(report.total_usd.pico() <= 2 * charged.pico());
    }
}
