//! A made-up provider: true usage, true prices, a leak, and bills of every grain made from them. Whatever the bill looks
//! like, the books add up to it, and the leak is found to the token.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use tallygate_shared::money::Usd;

use super::read::Estimate;
use super::settle_tests::{bill, estimate, line, measured, settled};
use super::*;
use crate::bill::{BillLine, ChargeKind, MeasuredUsage, Meter, Quantity};
use crate::ledger::{LineId, UNMETERED};

const METERS: [Meter; 3] = [Meter::Input, Meter::CacheRead, Meter::Output];
const TIERS: [&str; 2] = ["standard", "batch"];
/// Ours, and what a bill may call it.
const MODELS: [(&str, &str); 4] = [
    ("gpt-5", "gpt-5-2026-01-02"),
    ("claude-opus-5", "us.anthropic.claude-opus-5-20251101-v1:0"),
    ("gemini-3.8-flash", "models/gemini-3.8-flash"),
    ("sonar", "sonar"),
];

/// What a bill is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    /// Model, meter, tier and credential, with quantities.
    Everything,
    /// Model and meter, with quantities in thousands.
    Thousands,
    /// Model and meter; usage is reported apart, by credential.
    CostAndUsage,
    /// Model; usage is reported apart.
    Model,
    /// The day; usage is reported apart.
    Day,
}

#[derive(Clone, Debug)]
struct World {
    grain: Grain,
    /// (model, meter, tier) -> tokens by user; no model without any.
    used: BTreeMap<(usize, usize, usize), Vec<u64>>,
    leaked: BTreeMap<(usize, usize, usize), u64>,
    /// Whether the leak runs on a key of its own that the gateway does not hold.
    own_key: bool,
    /// Whether the gateway's keys are known.
    keys_known: bool,
    /// Cents for a million, ours and the provider's: by model and meter, the same in both tiers.
    prices: Vec<(u64, u64)>,
    dated: bool,
    cents: bool,
    tax: bool,
    credit: bool,
}

type Tokens = BTreeMap<(usize, usize, usize), u64>;

fn world() -> impl Strategy<Value = World> {
    let place = || (0..MODELS.len(), 0..METERS.len(), 0..TIERS.len());
    let grain = prop_oneof![
        Just(Grain::Everything),
        Just(Grain::Thousands),
        Just(Grain::CostAndUsage),
        Just(Grain::Model),
        Just(Grain::Day)
    ];
    let price = (1..5000_u64, 1..5000_u64, any::<bool>());
    let price = price.prop_map(|(ours, theirs, same)| (ours, if same { ours } else { theirs }));
    (
        grain,
        prop::collection::btree_map(place(), prop::collection::vec(1..5_000_000_u64, 1..5), 1..12),
        prop::collection::btree_map(place(), 1..5_000_000_u64, 0..4),
        any::<[bool; 6]>(),
        prop::collection::vec(price, MODELS.len() * METERS.len()),
    )
        .prop_map(|(grain, used, leaked, flags, prices)| {
            let [own_key, keys_known, dated, cents, tax, credit] = flags;
            World { grain, used, leaked, own_key, keys_known, prices, dated, cents, tax, credit }
        })
}

impl World {
    fn price(&self, (model, meter, _): (usize, usize, usize)) -> (u64, u64) {
        self.prices[model * METERS.len() + meter]
    }

    fn estimates(&self) -> Vec<Estimate> {
        let mut estimates = Vec::new();
        for (place, users) in &self.used {
            for (user, tokens) in users.iter().enumerate() {
                let pico = i128::from(self.price(*place).0) * 10_000 * i128::from(*tokens);
                let usd = Usd::from_pico(pico).round_to_nanos().to_string();
                let model = MODELS[place.0].0;
                let mut one = estimate(&format!("u{user}"), model, METERS[place.1], &usd, *tokens);
                one.line.tier = TIERS[place.2].to_owned();
                estimates.push(one);
            }
        }
        estimates
    }

    fn ours(&self) -> Tokens {
        self.used.iter().map(|(place, users)| (*place, users.iter().sum())).collect()
    }

    fn leak_key(&self) -> &'static str {
        if self.own_key { "leaked" } else { "ours" }
    }

    fn name(&self, model: usize) -> &'static str {
        if self.dated { MODELS[model].1 } else { MODELS[model].0 }
    }

    /// The charges: tokens by place, for each credential.
    fn lines(&self) -> Vec<BillLine> {
        let mut sums: BTreeMap<String, (Value, i128, u64)> = BTreeMap::new();
        for (key, tokens) in [("ours", self.ours()), (self.leak_key(), self.leaked.clone())] {
            for (place, count) in tokens {
                let pico = i128::from(self.price(place).1) * 10_000 * i128::from(count);
                let mut fields = json!({"meter": "whole"});
                if self.grain != Grain::Day {
                    fields["model"] = self.name(place.0).into();
                }
                if !matches!(self.grain, Grain::Day | Grain::Model) {
                    fields["meter"] = serde_json::to_value(METERS[place.1]).unwrap();
                }
                if self.grain == Grain::Everything {
                    fields["tier"] = TIERS[place.2].into();
                    fields["credential"] = key.into();
                }
                let sum = sums.entry(fields.to_string()).or_insert((fields, 0, 0));
                sum.1 += pico;
                sum.2 += count;
            }
        }
        let mut lines = Vec::new();
        let (mut exact, mut rounded) = (0, 0);
        for (mut fields, pico, count) in sums.into_values() {
            let cent = 10_000_000_000;
            let amount = if self.cents { (pico + cent / 2) / cent * cent } else { pico };
            (exact, rounded) = (exact + pico, rounded + amount);
            fields["amount"] = Usd::from_pico(amount).to_string().into();
            match self.grain {
                Grain::Everything => {
                    fields["quantity"] = count.to_string().into();
                    fields["unit"] = "Tokens".into();
                }
                Grain::Thousands => {
                    let thousands = Quantity::from_pico(i128::from(count) * 1_000_000_000);
                    fields["quantity"] = thousands.to_string().into();
                    fields["unit"] = "1000 Tokens".into();
                }
                Grain::CostAndUsage | Grain::Model | Grain::Day => {}
            }
            lines.push(line(fields));
        }
        let mut beside = |kind: &str, pico: i128| {
            let amount = Usd::from_pico(pico).to_string();
            lines.push(line(
                json!({"kind": kind, "meter": "whole", "service": kind, "amount": amount}),
            ));
        };
        if self.cents {
            beside("adjustment", exact - rounded);
        }
        if self.tax {
            beside("tax", exact * 19 / 100);
        }
        if self.credit {
            beside("credit", -exact / 3);
        }
        lines
    }

    fn usage(&self) -> Vec<MeasuredUsage> {
        if matches!(self.grain, Grain::Everything | Grain::Thousands) {
            return Vec::new();
        }
        let mut rows: BTreeMap<(&str, usize, usize), BTreeMap<&str, u64>> = BTreeMap::new();
        for (key, tokens) in [("ours", self.ours()), (self.leak_key(), self.leaked.clone())] {
            for ((model, meter, tier), count) in tokens {
                let name = ["input", "cache_read", "output"][meter];
                *rows.entry((key, model, tier)).or_default().entry(name).or_default() += count;
            }
        }
        let row = |((key, model, tier), tokens): (&(&str, usize, usize), &BTreeMap<&str, u64>)| {
            measured(json!({"model": self.name(*model), "credential": key, "tier": TIERS[*tier],
                "tokens": tokens}))
        };
        rows.iter().map(row).collect()
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        if self.keys_known {
            options.known_credentials.insert("ours".to_owned());
        }
        options
    }
}

fn sum<'a>(rows: impl Iterator<Item = &'a Usd>) -> i128 {
    rows.map(|usd| usd.pico()).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_books_agree_with_any_bill_and_find_the_leak(world in world(), turn in any::<usize>()) {
        let mut estimates = world.estimates();
        let mut lines = world.lines();
        for line in lines.iter_mut().skip(turn % 3).step_by(3) {
            line.list_amount = Some(Usd::from_pico(line.amount.pico() / 3 * 4 + 7));
        }
        let mut input = UnitInput { bill: bill(lines, world.usage()), estimates: estimates.clone() };
        let options = world.options();
        let outcome = settled(&input, &options);

        // To the last digit.
        let billed: Vec<Usd> = outcome.rows.iter().map(|(_, row)| row.billed.unwrap()).collect();
        prop_assert_eq!(sum(billed.iter()), sum(input.bill.lines.iter().map(|l| &l.amount)));
        prop_assert_eq!(sum(outcome.rows.iter().map(|(_, r)| &r.estimated)), sum(estimates.iter().map(|e| &e.estimated)));
        let use_billed = outcome.rows.iter().filter(|(line, _)| line.kind == ChargeKind::Usage);
        let use_lines = input.bill.lines.iter().filter(|l| l.kind == ChargeKind::Usage);
        prop_assert_eq!(
            use_billed.map(|(_, row)| row.billed.unwrap().pico()).sum::<i128>(),
            sum(use_lines.map(|l| &l.amount))
        );
        prop_assert!(outcome.rows.is_sorted_by(|a, b| a.0 < b.0));

        // The leak, to the token, by model and meter.
        let mut found: BTreeMap<(String, Meter), i128> = BTreeMap::new();
        for (line, row) in &outcome.rows {
            if line.owner.contains_key(UNMETERED) && line.kind == ChargeKind::Usage {
                let normal = names::normal_form(&line.model);
                *found.entry((normal, line.meter)).or_default() += row.billed_quantity.unwrap().pico();
            }
        }
        let mut leaked: BTreeMap<(String, Meter), i128> = BTreeMap::new();
        for (place, count) in &world.leaked {
            let normal = names::normal_form(MODELS[place.0].0);
            *leaked.entry((normal, METERS[place.1])).or_default() += Quantity::whole(*count).pico();
        }
        prop_assert_eq!(&found, &leaked);
        let told: i128 = outcome.findings.iter().filter_map(|finding| match finding {
            Finding::Unmetered(found) => found.quantity.map(Quantity::pico),
            _ => None,
        }).sum();
        prop_assert_eq!(told, leaked.values().sum::<i128>());
        // It is known by its key, where keys are told apart.
        if world.own_key && world.keys_known && world.grain != Grain::Thousands {
            let labels = outcome.rows.iter().filter_map(|(line, _)| line.owner.get(UNMETERED));
            prop_assert!(labels.into_iter().all(|label| label == "leaked"));
        }
        // Nobody is billed for tokens that are not theirs.
        for (line, row) in &outcome.rows {
            if line.owner.contains_key("user") && line.kind == ChargeKind::Usage {
                prop_assert_eq!(row.billed_quantity, Some(row.metered), "{:?}", line);
            }
        }

        // A line for each meter and its quantity, and no rounding: every other price is found, exactly.
        if world.grain == Grain::Everything && !world.cents {
            let mut expected: Vec<String> = Vec::new();
            for place in world.used.keys() {
                let (ours, theirs) = world.price(*place);
                let (model, meter, tier) = (MODELS[place.0].0, METERS[place.1], TIERS[place.2]);
                if ours != theirs {
                    let usd = |cents: u64| Usd::from_pico(i128::from(cents) * 10_000_000_000);
                    expected.push(format!("{model} {meter:?} {tier} {} {}", usd(ours), usd(theirs)));
                }
            }
            let mut told: Vec<String> = outcome.findings.iter().filter_map(|finding| match finding {
                Finding::Price(f) => Some(format!(
                    "{} {:?} {} {} {}", f.model, f.meter, f.tier, f.ours_per_million, f.billed_per_million
                )),
                _ => None,
            }).collect();
            expected.sort();
            told.sort();
            // What a handful of tokens cost may have more than one short price.
            let clear = world.used.values().all(|users| users.iter().sum::<u64>() > 100_000);
            if clear {
                prop_assert_eq!(told, expected);
            }
        }

        // Any order, any number of times: the same rows to the last byte.
        let hashes = |outcome: &UnitOutcome| -> Vec<(String, String)> {
            outcome.rows.iter().map(|(line, row)| (line.digest(), row.hash())).collect()
        };
        let turned = turn % estimates.len();
        estimates.rotate_left(turned);
        input.estimates = estimates;
        let lines = input.bill.lines.len();
        input.bill.lines.rotate_left(turn % lines);
        input.bill.previous = outcome.rows.iter().map(|(line, _)| line.clone()).collect();
        prop_assert_eq!(hashes(&settle_unit(input.clone(), &options).unwrap()), hashes(&outcome));

        // Another bill: what is not on it any more is stated as nothing, and the sum is the new bill's.
        let cut = input.bill.lines.len() / 2;
        input.bill.lines.truncate(cut.max(1));
        let again = settle_unit(input.clone(), &options).unwrap();
        let lines = |outcome: &UnitOutcome| -> Vec<LineId> {
            outcome.rows.iter().map(|(line, _)| line.clone()).collect()
        };
        let still: Vec<LineId> = lines(&again);
        prop_assert!(lines(&outcome).iter().all(|line| still.contains(line)));
        let billed: i128 = again.rows.iter().map(|(_, row)| row.billed.unwrap().pico()).sum();
        prop_assert_eq!(billed, sum(input.bill.lines.iter().map(|l| &l.amount)));
    }

    /// Lines, usage and estimates without any sense: an error or books that add up, never a panic.
    #[test]
    fn any_input_adds_up(
        lines in prop::collection::vec((0..5_usize, 0..6_usize, 0..3_usize, any::<i64>(), any::<Option<u32>>(), 0..9_usize), 1..12),
        usage in prop::collection::vec((0..5_usize, any::<u32>(), any::<u16>(), any::<bool>()), 0..6),
        known in prop::collection::vec((0..5_usize, 0..6_usize, 0..3_usize, any::<u32>(), any::<u16>(), any::<u32>()), 0..12),
    ) {
        let models = ["gpt-5", "gpt-5-2026-01-02", "gpt-5-latest", "other", ""];
        let meters = ["input", "cache_read", "cache_write", "output", "calls", "whole"];
        let tiers = ["standard", "batch", read::UNCERTAIN_TIER];
        let kinds = ["usage", "usage", "usage", "tax", "credit", "seat", "refund", "discount", "minimum_fee"];
        let lines = lines.iter().map(|(model, meter, tier, pico, tokens, kind)| {
            let mut fields = json!({"meter": meters[*meter], "kind": kinds[*kind],
                "amount": Usd::from_pico(i128::from(*pico)).to_string()});
            if *model < 4 { fields["model"] = models[*model].into(); }
            if *tier < 2 { fields["tier"] = tiers[*tier].into(); }
            if let Some(tokens) = tokens {
                fields["quantity"] = tokens.to_string().into();
                fields["unit"] = if *meter == 4 { "Requests" } else { "Tokens" }.into();
            }
            line(fields)
        }).collect();
        let usage = usage.iter().map(|(model, input, output, stranger)| measured(json!({
            "model": models[*model], "credential": if *stranger { "x" } else { "ours" },
            "tokens": {"input": input, "output": output}
        }))).collect();
        let meter = |at: usize| serde_json::from_value::<Meter>(json!(meters[at])).unwrap();
        let estimates = known.iter().enumerate().map(|(user, (model, at, tier, pico, tokens, bound))| {
            let usd = Usd::from_pico(i128::from(*pico)).to_string();
            let mut one = estimate(&user.to_string(), models[*model], meter(*at), &usd, u64::from(*tokens));
            one.line.tier = tiers[*tier].to_owned();
            one.uncertain = Usd::from_pico(i128::from(*bound));
            one
        }).collect();
        let options = Options { known_credentials: ["ours".to_owned()].into(), ..Options::default() };
        let input = UnitInput { bill: bill(lines, usage), estimates };
        let outcome = settled(&input, &options);
        prop_assert_eq!(outcome.totals.billed.unwrap().pico(), sum(input.bill.lines.iter().map(|l| &l.amount)));
        // Nothing is put down to requests of unknown use beyond their bounds.
        for (line, row) in &outcome.rows {
            if row.method == "uncertain" {
                let bound: i128 = input.estimates.iter().filter(|e| e.line == *line).map(|e| e.uncertain.pico()).sum();
                prop_assert!((0..=bound).contains(&row.billed.unwrap().pico()), "{:?}", line);
            }
        }
    }
}
