//! Commitments over made-up hours at gpt-6-sol's list price: $2 a million in, $10 out.

use proptest::prelude::*;

use super::*;
use crate::insights::archetype::Archetype;
use crate::insights::market::Seller;
use crate::insights::savings::{Question, Savings, savings};

const FROM: &str = "2026-11-01";

fn at() -> Timestamp {
    Timestamp::parse("2026-11-20").unwrap()
}

fn market() -> Market {
    let seller = |models: &[(&str, &str)]| Seller {
        price_book: "openai".into(),
        models: models.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
    };
    let sellers = [
        ("reserved".to_owned(), seller(&[("sol-units", "gpt-6-sol")])),
        ("openai".to_owned(), seller(&[])),
    ];
    // Requests on the commitment are rated with nothing: they are paid for.
    let own: PriceRow = serde_json::from_str(
        r#"{"provider":"reserved","model":"gpt-6-sol","prices":{"standard":{"input":"0","output":"0"}}}"#,
    )
    .unwrap();
    Market { sellers: sellers.into(), own: vec![own] }
}

/// 10 units at $1 an hour; each takes 600,000 input tokens an hour, or 60,000 output tokens.
fn commitment() -> Commitment {
    Commitment {
        provider: "reserved".into(),
        model: "sol-units".into(),
        units: 10,
        usd_per_unit_hour: "1".parse().unwrap(),
        tokens_per_minute: TokensPerMinute { input: 10_000, output: 1_000 },
        shared_capacity: false,
        from: None,
        to: None,
    }
}

/// An hour of the commitment's own traffic.
fn hour(place: i64, input: u64, output: u64) -> Hour {
    let start = Timestamp::parse(FROM).unwrap();
    Hour {
        at_ms: start.plus_ms(place * HOUR_MS).ms(),
        provider: "reserved".into(),
        model: "sol-units".into(),
        input,
        output,
        ..Hour::default()
    }
}

fn elsewhere(place: i64, input: u64, charged: &str) -> Hour {
    Hour {
        provider: "openai".into(),
        model: "gpt-6-sol".into(),
        charged: charged.parse().unwrap(),
        ..hour(place, input, 0)
    }
}

fn report(terms: &Commitment, hours: &[Hour], from: &str) -> Savings {
    let (market, archetypes) = (market(), BTreeMap::<String, Archetype>::new());
    let commitments = BTreeMap::from([("ptu".to_owned(), terms.clone())]);
    let question = Question {
        rows: &[],
        market: &market,
        archetypes: &archetypes,
        commitments: &commitments,
        hours,
        since: Timestamp::parse(from).unwrap(),
        days: 19,
        at: at(),
    };
    savings(&question).unwrap()
}

fn found(terms: &Commitment, hours: &[Hour]) -> Vec<Opportunity> {
    report(terms, hours, FROM).data
}

#[test]
fn a_commitment_that_nothing_uses_is_given_up_whole() {
    let all = found(&commitment(), &[]);
    assert_eq!(all.len(), 1);
    let it = &all[0];
    assert_eq!((it.id.as_str(), it.kind), ("idle_commitment:ptu:give_back", Kind::IdleCommitment));
    // 10 units x $1 x 720 hours of a month.
    assert_eq!(it.saves_usd.to_string(), "7200");
    let figure = |name: &str| it.evidence.get(name).map(String::as_str);
    assert_eq!((figure("hours"), figure("idle_hours")), (Some("456"), Some("456")));
    assert_eq!((figure("units_to_keep"), figure("utilisation_percent")), (Some("0"), Some("0.00")));
    assert_eq!((figure("commitment_usd"), figure("then_usd")), (Some("4560"), Some("0")));
    assert_eq!(figure("busiest_hour"), None);
    assert_eq!(it.certainty, Certainty::High);
    assert!(it.caveat.contains("is not declared"), "{}", it.caveat);
}

#[test]
fn units_are_kept_as_far_as_they_are_cheaper_than_the_tokens_they_take() {
    // 3 million tokens of each hour need 5 units and cost $6 by the token; one hour needs 8.
    let mut hours: Vec<Hour> = (0..456).map(|place| hour(place, 3_000_000, 0)).collect();
    hours[100].input = 4_800_000;
    let all = found(&commitment(), &hours);
    let it = &all[0];
    assert_eq!(it.evidence["units_to_keep"], "5");
    assert_eq!((it.evidence["idle_hours"].as_str(), it.certainty), ("0", Certainty::Medium));
    assert_eq!(it.evidence["busiest_hour_percent"], "80.00");
    assert_eq!(it.evidence["busiest_hour"], "2026-11-05T04:00:00.000Z");
    assert_eq!(it.evidence["utilisation_percent"], "50.06");
    assert_eq!(it.evidence["on_demand_usd"], "2739.6");
    // 456 hours of 5 units, and 1.8 million tokens at $2.
    assert_eq!(it.evidence["then_usd"], "2283.6");
    let month = Usd::from_pico(2_276_400_000_000_000 * 720 / 456).round_down_to_nanos();
    assert_eq!(it.saves_usd, month);
    // Where all units are in use, there is nothing to give back.
    let full: Vec<Hour> = (0..456).map(|place| hour(place, 6_000_000, 0)).collect();
    assert_eq!(found(&commitment(), &full), Vec::new());
}

#[test]
fn input_and_output_have_each_their_own_capacity_or_one() {
    let need = |shared_capacity, input, output| {
        let terms = Commitment { shared_capacity, ..commitment() };
        terms.need(&Load { input, output, on_demand: 0 }).unwrap()
    };
    assert_eq!(need(false, 600_000, 30_000), 1_000_000);
    assert_eq!(need(true, 600_000, 30_000), 1_500_000);
    assert_eq!(need(false, 1, 0), 2);
    assert_eq!(need(true, 0, 0), 0);
}

#[test]
fn the_same_model_paid_by_the_token_moves_onto_the_idle_units() {
    // Half of each hour is free: 3 million tokens. Elsewhere 4.8 million go for $9.60 in ten hours.
    let mut hours: Vec<Hour> = (0..456).map(|place| hour(place, 3_000_000, 0)).collect();
    hours.extend((0..10).map(|place| elsewhere(place, 4_800_000, "9.6")));
    hours.push(Hour { model: "gpt-6-luna".into(), ..elsewhere(11, 1_000_000, "5") });
    let all = found(&commitment(), &hours);
    let moved = all.iter().find(|it| it.id.ends_with(":move")).unwrap();
    assert_eq!(moved.evidence["paid_by_the_token"], "openai/gpt-6-sol");
    assert_eq!(moved.evidence["paid_by_the_token_usd"], "96");
    assert_eq!(moved.evidence["of_it_fits_percent"], "62.50");
    let month = Usd::from_pico(60_000_000_000_000 * 720 / 456).round_down_to_nanos();
    assert_eq!(moved.saves_usd, month);
    // Both want the idle units: the larger one counts.
    let given = all.iter().find(|it| it.id.ends_with(":give_back")).unwrap();
    assert_eq!((given.counted, moved.counted), (true, false));
    assert_eq!(moved.excludes, std::slice::from_ref(&given.id));
    assert_eq!(report(&commitment(), &hours, FROM).total_usd, given.saves_usd);
    // What was charged less than the list price saves no more than that.
    let cheap: Vec<Hour> = (0..10).map(|place| elsewhere(place, 3_000_000, "1")).collect();
    let all = found(&commitment(), &cheap);
    let moved = all.iter().find(|it| it.id.ends_with(":move")).unwrap();
    assert_eq!(moved.evidence["paid_by_the_token_usd"], "10");
}

#[test]
fn only_the_days_of_the_commitment_and_of_the_workspace_count() {
    let day = |text: &str| Some(Day::try_from(text.to_owned()).unwrap());
    let over = Commitment { to: day("2026-11-20"), ..commitment() };
    assert_eq!(found(&over, &[]), Vec::new());
    let young = Commitment { from: day("2026-11-19"), to: day("2027-01-01"), ..commitment() };
    let all = found(&young, &[hour(0, 1_000, 0)]);
    assert_eq!((all[0].evidence["hours"].as_str(), all[0].certainty), ("24", Certainty::Low));
    // An hour from before its first day is none of its own; a month of it costs the same.
    assert_eq!(all[0].evidence["tokens"], "0");
    assert_eq!(all[0].saves_usd.to_string(), "7200");
    assert!(all[0].caveat.ends_with("ends on 2027-01-01."), "{}", all[0].caveat);
    let fresh = Commitment { from: day("2026-11-20"), ..commitment() };
    assert_eq!(found(&fresh, &[]), Vec::new());
    assert_eq!(report(&commitment(), &[], "2026-11-18").data[0].evidence["hours"], "48");
}

#[test]
fn without_a_list_price_the_busiest_hour_says_what_is_kept() {
    let terms = Commitment { model: "nobody-sells-it".into(), ..commitment() };
    let own = |input| Hour { model: "nobody-sells-it".into(), ..hour(3, input, 0) };
    let all = found(&terms, &[own(1_300_000)]);
    assert_eq!((all[0].evidence["units_to_keep"].as_str(), all.len()), ("3", 1));
    assert!(!all[0].evidence.contains_key("on_demand_usd"));
    assert_eq!(found(&terms, &[own(99_000_000)]), Vec::new());
}

#[test]
fn the_ledger_is_asked_for_every_name_of_the_model() {
    let commitments = BTreeMap::from([("ptu".to_owned(), commitment())]);
    let names: Vec<String> = models_of(&commitments, &market(), at()).into_iter().collect();
    assert_eq!(names, ["gpt-6-sol", "sol-units"]);
}

fn hours_of(tokens: &[(u64, u64)]) -> Vec<Hour> {
    let hours = (0_i64..).zip(tokens);
    hours.map(|(place, (input, output))| hour(place, *input, *output)).collect()
}

proptest! {
    #[test]
    fn no_other_number_of_units_is_cheaper(
        units in 1_u64..40, price in 0_i64..3_000_000_000, shared_capacity: bool,
        tokens in prop::collection::vec((0_u64..30_000_000, 0_u64..900_000), 0..60),
    ) {
        let terms = Commitment {
            units, usd_per_unit_hour: Usd::from_nanos(price), shared_capacity, ..commitment()
        };
        let (hours, market) = (hours_of(&tokens), market());
        let span = Span { market: &market, from: Timestamp::parse(FROM).unwrap(), at: at() };
        let used = Use::of("ptu", &terms, &hours, &span).unwrap().unwrap();
        let least = used.cost(used.best().unwrap()).unwrap();
        for other in 0..=units {
            // An hour's part is rounded to the picodollar.
            prop_assert!(used.cost(other).unwrap() >= least - 60, "{other} of {units}");
        }
    }

    #[test]
    fn nothing_saves_more_than_is_paid_and_each_is_counted_once(
        units in 1_u64..40, price in 0_i64..3_000_000_000,
        tokens in prop::collection::vec((0_u64..30_000_000, 0_u64..900_000), 0..60),
        others in prop::collection::vec(0_u64..30_000_000, 0..60),
    ) {
        let terms = Commitment { units, usd_per_unit_hour: Usd::from_nanos(price), ..commitment() };
        let mut hours = hours_of(&tokens);
        let charged = |tokens: u64| Usd::from_nanos(i64::try_from(tokens * 2_000).unwrap());
        hours.extend((0_i64..).zip(&others).map(|(place, tokens)| {
            elsewhere(place, *tokens, &charged(*tokens).to_string())
        }));
        let report = report(&terms, &hours, FROM);
        let month = |pico: i128| mul_div(pico, HOURS_PER_MONTH, 456).unwrap();
        let fixed = month(i128::from(price) * 1_000 * i128::from(units) * 456);
        let paid: i128 = month(others.iter().map(|tokens| charged(*tokens).pico()).sum());
        for it in &report.data {
            let most = if it.id.ends_with(":move") { paid } else { fixed };
            prop_assert!(it.saves_usd.pico() <= most + 1, "{it:?}");
        }
        let counted = report.data.iter().filter(|it| it.counted);
        let sum: i128 = counted.clone().map(|it| it.saves_usd.pico()).sum();
        prop_assert_eq!(report.total_usd.pico(), sum);
        prop_assert!(counted.count() <= 1);
    }
}
