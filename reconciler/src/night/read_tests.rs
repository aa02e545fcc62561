use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn options(max_lines: usize) -> ReadOptions {
    let providers = BTreeMap::from([("oa".into(), ("openai".into(), "org-1".into()))]);
    let directory = std::env::temp_dir();
    ReadOptions::new(providers, SpillOptions { max_lines, directory })
}

/// An event with the given fields instead of the usual ones.
fn event(fields: Value) -> UsageEvent {
    let mut event = json!({
        "v": 1, "id": format!("req_{:032x}", 7), "seq": 1, "workspace": "ws_acme",
        "key": "0123456789abcdef", "at": 0, "settled_at": 0, "key_name": "ci",
        "owner": "ann", "cost_centre": "", "purpose": "", "environment": "prod",
        "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "small",
        "provider": "oa", "model": "gpt", "response_model": "gpt-2026-01-02",
        "outcome": "completed", "status": 200, "actor": {"user": "u1", "session": "s"},
        "usage": {"source": "reported", "tally": {"tokens": {"input": 100, "output": 20, "reasoning": 30}}},
        "cost": {"total": "0.006", "parts": {"input": "0.001", "output": "0.002", "reasoning": "0.003"},
                 "price": {"row": "openai/gpt-5", "book": "b1", "tier": "flex"}},
        "charged": "0.006", "hold": "0.02", "duration_ms": 5,
    });
    for (name, value) in fields.as_object().unwrap() {
        event[name] = value.clone();
    }
    serde_json::from_value(event).unwrap()
}

fn read(events: &[UsageEvent], max_lines: usize) -> (Vec<Estimate>, Aggregated) {
    let mut aggregator = Aggregator::new(options(max_lines));
    for event in events {
        aggregator.add(event).unwrap();
    }
    let done = aggregator.finish().unwrap();
    let mut all = Vec::new();
    done.estimates
        .scan(None, &mut |estimate| {
            all.push(estimate.clone());
            Ok(())
        })
        .unwrap();
    (all, done)
}

/// Lines in short: `provider account model meter tier: money quantity requests uncertain`.
fn told(events: &[UsageEvent]) -> Vec<String> {
    let (all, _) = read(events, 1000);
    all.iter()
        .map(|e| {
            let line = &e.line;
            format!(
                "{} {} {} {:?} {}: {} {} {} {}",
                e.provider,
                line.account,
                line.model,
                line.meter,
                line.tier,
                e.estimated,
                e.metered,
                e.requests,
                e.uncertain
            )
        })
        .collect()
}

#[test]
fn a_request_is_counted_by_meter_and_its_reasoning_as_output() {
    assert_eq!(
        told(&[event(json!({}))]),
        [
            "openai org-1 gpt-5 Input flex: 0.001 100 1 0",
            "openai org-1 gpt-5 Output flex: 0.005 50 0 0"
        ]
    );
}

#[test]
fn owners_are_the_kept_dimensions_and_never_the_session() {
    let mut options = options(10);
    let owner = |options: ReadOptions| {
        let mut aggregator = Aggregator::new(options);
        aggregator.add(&event(json!({}))).unwrap();
        let mut owner = BTreeMap::new();
        let done = aggregator.finish().unwrap();
        done.estimates
            .scan(Some("openai"), &mut |e| {
                owner = e.line.owner.clone();
                Ok(())
            })
            .unwrap();
        owner.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
    };
    assert_eq!(
        owner(options.clone()),
        ["environment=prod", "key=0123456789abcdef", "owner=ann", "user=u1"]
    );
    options.dimensions = BTreeSet::from(["user".to_owned()]);
    assert_eq!(owner(options), ["user=u1"]);
}

#[test]
fn refusals_count_nothing_and_unbilled_failures_neither() {
    let refused = event(json!({"outcome": "refused", "usage": {"source": "absent"}, "cost": null,
        "provider": null, "model": null, "response_model": null, "charged": "0", "hold": "0", "sampled": 50}));
    let failed = event(json!({"outcome": "provider_error", "usage": {"source": "absent"},
        "cost": null, "charged": "0"}));
    let (all, done) = read(&[refused, failed], 10);
    assert_eq!((all.len(), done.events, done.facts.len()), (0, 2, 0));
}

#[test]
fn requests_of_unknown_usage_are_bounded_by_their_hold() {
    // Charged in full: nobody settled it, and nobody knows the model.
    let abandoned =
        event(json!({"outcome": "abandoned", "usage": {"source": "absent"}, "cost": null,
        "provider": null, "model": null, "response_model": null, "charged": "0.02"}));
    // Charged nothing: up to its hold.
    let interrupted = event(json!({"outcome": "interrupted", "usage": {"source": "absent"},
        "cost": null, "provider": null, "model": null, "response_model": null, "charged": "0",
        "hold": "0.5"}));
    assert_eq!(told(&[abandoned, interrupted]), ["openai org-1  Whole uncertain: 0.02 0 1 0.52"]);
    let guessed = |hold: &str| {
        let usage = json!({"source": "estimated", "tally": {"tokens": {"input": 9}}});
        let cost = json!({"total": "0.006", "parts": {"input": "0.006"}, "price": {"row": "openai/gpt-5"}});
        told(&[event(
            json!({"outcome": "client_gone", "usage": usage, "cost": cost, "hold": hold}),
        )])
    };
    let counted = "openai org-1 gpt-5 Input standard: 0.006 9 1 0";
    let bound = |bound: &str| format!("openai org-1 gpt-5 Whole uncertain: 0 0 0 {bound}");
    assert_eq!(guessed("0.02"), [counted.to_owned(), bound("0.006")]);
    assert_eq!(guessed("0.007"), [counted.to_owned(), bound("0.001")]);
    assert_eq!(guessed("0"), [counted.to_owned(), bound("0.006")]);
    assert_eq!(guessed("0.006"), [counted]);
}

#[test]
fn what_was_carried_over_midnight_is_a_bound_only() {
    let mut aggregator = Aggregator::new(options(10));
    aggregator.add_carried_over(&event(json!({}))).unwrap();
    aggregator.add_carried_over(&event(json!({"charged": "0", "cost": null}))).unwrap();
    let mut told = Vec::new();
    let done = aggregator.finish().unwrap();
    done.estimates
        .scan(None, &mut |e| {
            told.push((e.line.model.clone(), e.line.tier.clone(), e.estimated, e.requests));
            told.push((e.uncertain.to_string(), String::new(), Usd::ZERO, 0));
            Ok(())
        })
        .unwrap();
    let line = ("gpt-5".to_owned(), UNCERTAIN_TIER.to_owned(), Usd::ZERO, 0);
    assert_eq!(told, [line, ("0.006".to_owned(), String::new(), Usd::ZERO, 0)]);
    let negative = aggregator_error(&event(json!({"charged": "-1"})));
    assert!(negative.contains("is negative"), "{negative}");
}

fn aggregator_error(event: &UsageEvent) -> String {
    Aggregator::new(options(10)).add_carried_over(event).unwrap_err().to_string()
}

#[test]
fn a_request_that_failed_over_belongs_to_the_provider_it_reached() {
    let attempts = json!([{"provider": "oa", "model": "gpt-x", "started_ms": 0, "took_ms": 1}]);
    let lost =
        event(json!({"outcome": "provider_died", "usage": {"source": "absent"}, "cost": null,
        "provider": null, "model": null, "response_model": null, "attempts": attempts}));
    assert_eq!(told(&[lost]), ["openai org-1 gpt-x Whole uncertain: 0.006 0 1 0.02"]);
    let stranger =
        event(json!({"provider": "elsewhere", "usage": {"source": "absent"}, "cost": null}));
    assert_eq!(told(&[stranger]), ["elsewhere  gpt Whole uncertain: 0.006 0 1 0.02"]);
}

#[test]
fn other_models_and_stated_costs_keep_their_tokens() {
    let tally = json!({"tokens": {"input": 10}, "calls": {"web_search": 2},
        "other_models": [{"model": "mini", "tokens": {"output": 5}}]});
    let cost = json!({"total": "0.006", "parts": {"input": "0.001", "calls": "0.002", "other_models": "0.003"},
        "price": {"row": "openai/gpt-5"}});
    let advised = event(json!({"usage": {"source": "reported", "tally": tally}, "cost": cost}));
    assert_eq!(
        told(&[advised]),
        [
            "openai org-1 gpt-5 Input standard: 0.001 10 1 0",
            "openai org-1 gpt-5 Calls standard: 0.002 2 0 0",
            "openai org-1 mini Output standard: 0 5 0 0",
            "openai org-1 mini Whole standard: 0.003 0 0 0",
        ]
    );
    let cost = json!({"total": "0.006", "parts": {"stated": "0.006"},
        "price": {"row": "oa/openai/gpt-5", "tier": "stated"}});
    let stated = event(json!({"cost": cost}));
    assert_eq!(
        told(&[stated]),
        [
            "openai org-1 openai/gpt-5 Input standard: 0 100 1 0",
            "openai org-1 openai/gpt-5 Output standard: 0 50 0 0",
            "openai org-1 openai/gpt-5 Whole standard: 0.006 0 0 0",
        ]
    );
}

#[test]
fn a_request_stays_with_its_provider_whoever_priced_it() {
    let priced = |provider: &str, row: &str| {
        let cost = json!({"total": "0.006", "parts": {"output": "0.006"}, "price": {"row": row}});
        let usage = json!({"source": "reported", "tally": {"tokens": {"output": 50}}});
        told(&[event(json!({"provider": provider, "cost": cost, "usage": usage}))])
    };
    let line = |place: &str| [format!("{place} Output standard: 0.006 50 1 0")];
    assert_eq!(priced("oa", "openai/gpt-5"), line("openai org-1 gpt-5"), "the price book's");
    assert_eq!(priced("oa", "oa/gpt-5"), line("openai org-1 gpt-5"), "the workspace's own");
    assert_eq!(priced("oa", "any/model"), line("openai org-1 gpt"), "the default price");
    // A provider that the configuration has no more: the row is all there is to tell whose it was.
    assert_eq!(priced("gone", "openai/gpt-5"), line("openai  gpt-5"));
}

#[test]
fn unpriced_tokens_are_still_counted() {
    let free = event(json!({"cost": null, "charged": "0"}));
    assert_eq!(
        told(&[free]),
        [
            "openai org-1 gpt Input standard: 0 100 1 0",
            "openai org-1 gpt Output standard: 0 50 0 0"
        ]
    );
}

#[test]
fn answers_tell_the_models_other_names() {
    let (_, done) = read(&[event(json!({})), event(json!({"response_model": "gpt-5"}))], 10);
    let facts = &done.facts["openai"];
    let names: Vec<&str> = facts.aliases["gpt-5"].iter().map(String::as_str).collect();
    assert_eq!(names, ["gpt", "gpt-2026-01-02"]);
    assert_eq!((facts.requests, facts.price_version()), (2, "b1".to_owned()));
}

#[test]
fn parts_that_do_not_add_up_are_refused() {
    let cost =
        json!({"total": "0.007", "parts": {"input": "0.006"}, "price": {"row": "openai/gpt-5"}});
    let error = Aggregator::new(options(10)).add(&event(json!({"cost": cost}))).unwrap_err();
    assert!(error.to_string().contains("do not add up to 0.007"), "{error}");
}

#[test]
fn sums_beyond_the_books_are_an_error() {
    let mut aggregator = Aggregator::new(options(10));
    let huge = "160000000000000000000000000";
    let cost = json!({"total": huge, "parts": {"input": huge}, "price": {"row": "openai/gpt-5"}});
    aggregator.add(&event(json!({"cost": cost}))).unwrap();
    let error = aggregator.add(&event(json!({"cost": cost}))).unwrap_err();
    assert!(matches!(error, NightError::Overflow { what: "estimated" }), "{error}");
}

#[test]
fn a_spill_directory_that_is_not_there_is_named() {
    let mut options = options(1);
    options.spill.directory = "/nowhere/to/spill".into();
    let mut aggregator = Aggregator::new(options);
    let error = aggregator.add(&event(json!({}))).unwrap_err();
    assert!(error.to_string().contains("/nowhere/to/spill"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Spilled or not, and in whatever order: the same lines in the same order.
    #[test]
    fn spilling_and_order_change_nothing(
        uses in prop::collection::vec(("[a-c\u{0}]{0,2}", "[xy\u{0}]{1,2}", 0..50_u64), 1..150),
        max_lines in 1..40_usize,
    ) {
        let events: Vec<UsageEvent> = uses.iter().map(|(user, model, tokens)| {
            let usage = json!({"source": "reported", "tally": {"tokens": {"input": tokens, "output": 1}}});
            let cost = json!({"total": "0.01", "parts": {"input": "0.01"},
                "price": {"row": format!("openai/{model}")}});
            event(json!({"usage": usage, "cost": cost, "actor": {"user": user}}))
        }).collect();
        let (plain, _) = read(&events, 100_000);
        let backwards: Vec<UsageEvent> = events.into_iter().rev().collect();
        let (spilled, done) = read(&backwards, max_lines);
        prop_assert_eq!(&plain, &spilled);
        prop_assert_eq!(done.estimates.spilled(), plain.len() > max_lines);
        prop_assert!(plain.is_sorted_by(|a, b| (&a.provider, &a.line) < (&b.provider, &b.line)));
        let tokens: u64 = uses.iter().map(|(_, _, tokens)| tokens + 1).sum();
        let counted: i128 = plain.iter().map(|e| e.metered.pico()).sum();
        prop_assert_eq!(counted, i128::from(tokens) * Quantity::ONE);
    }
}

#[test]
fn settling_from_files_gives_the_rows_of_settling_from_memory() {
    use crate::night::{Options, ProviderEstimates, UnitInput, settle_stream, settle_unit};
    let events: Vec<UsageEvent> = (0..40_u64)
        .map(|at| {
            let usage =
                json!({"source": "reported", "tally": {"tokens": {"input": at, "output": 7 * at}}});
            let cost = json!({"total": "0.03", "parts": {"input": "0.01", "output": "0.02"},
                "price": {"row": format!("openai/gpt-{}", at % 3)}});
            let actor = json!({"user": format!("u{}", at % 7)});
            event(json!({"usage": usage, "cost": cost, "charged": "0.03", "actor": actor}))
        })
        .chain([event(json!({"cost": null, "usage": {"source": "absent"}, "model": "gpt-1"}))])
        .collect();
    let (all, done) = read(&events, 4);
    assert!(done.estimates.spilled());
    let mut bill = super::super::settle_tests::bill(Vec::new(), Vec::new());
    bill.unit.provider = "openai".into();
    let day = json!({"start": 1_795_132_800_000_i64, "end": 1_795_219_200_000_i64});
    let mut line = json!({"provider": "openai", "account": "org-1", "kind": "usage", "service": "API",
        "description": "", "model": "gpt-1", "meter": "input", "amount": "0.77", "quantity": "999",
        "unit": "Tokens", "start": day["start"], "end": day["end"]});
    bill.lines.push(serde_json::from_value(line.clone()).unwrap());
    line["kind"] = "tax".into();
    bill.lines.push(serde_json::from_value(line).unwrap());
    let mut rows = Vec::new();
    let source = ProviderEstimates { estimates: &done.estimates, provider: "openai" };
    let summary = settle_stream(&bill, &source, &Options::default(), &mut |line, content| {
        rows.push((line, content));
        Ok(())
    })
    .unwrap();
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    // Estimates whose lines are all over the place would be counted wrong.
    struct Jumbled(Vec<Estimate>);
    impl crate::night::EstimateSource for Jumbled {
        fn scan(
            &self,
            each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
        ) -> Result<(), NightError> {
            self.0.iter().rev().try_for_each(each)
        }
    }
    let jumbled = Jumbled(all.clone());
    let refused = settle_stream(&bill, &jumbled, &Options::default(), &mut |_, _| Ok(()));
    assert!(refused.unwrap_err().to_string().contains("are not in order"));
    let outcome = settle_unit(UnitInput { bill, estimates: all }, &Options::default()).unwrap();
    assert_eq!((rows, summary.totals), (outcome.rows, outcome.totals));
    // The request of unknown use explains a part of what goes beyond the counted.
    assert_eq!(summary.totals.uncertain.to_string(), "0.02");
    assert!(summary.totals.unmetered > Usd::ZERO);
}
