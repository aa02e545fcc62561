//! The true invoice of a provider: what tests compare a ledger with. And use that never passed the gateway.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::bills::{Bill, Line, View, key_id};
use crate::books::{Account, Books, Used};
use crate::clock::{Day, Span};
use crate::money::dollars;
use crate::quirks::{Meter, Quirks};
use crate::usage::Billed;

/// Use outside of the gateway, entered into the books: somebody else has the key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leak {
    provider: String,
    credential: String,
    model: String,
    day: Day,
    requests: u64,
    #[serde(default)]
    tier: Option<String>,
    #[serde(default)]
    embeddings: bool,
    #[serde(default)]
    input: u64,
    #[serde(default)]
    cache_read: u64,
    #[serde(default)]
    cache_write_5m: u64,
    #[serde(default)]
    cache_write_1h: u64,
    #[serde(default)]
    output: u64,
    #[serde(default)]
    reasoning: u64,
}

impl Leak {
    /// Enters it, and tells the provider's id of the key.
    pub(crate) fn enter(self, books: &mut Books) -> Result<String, String> {
        let billed = Billed {
            input: self.input,
            cache_read: self.cache_read,
            cache_write_5m: self.cache_write_5m,
            cache_write_1h: self.cache_write_1h,
            output: self.output,
            reasoning: self.reasoning,
        };
        if !self.credential.starts_with("sk-sim-") {
            return Err("credential: begins with sk-sim-".to_owned());
        }
        if self.requests == 0 || billed == Billed::default() || self.reasoning > self.output {
            return Err(
                "a leak has requests and tokens, and reasoning is part of output".to_owned()
            );
        }
        let id = key_id(&self.provider, &self.credential);
        let account = Account {
            day: self.day,
            flavour: self.provider,
            credential: self.credential,
            embeddings: self.embeddings,
            model: self.model,
            tier: self.tier,
            leaked: true,
        };
        books.add(account, Used { requests: self.requests, billed });
        Ok(id)
    }
}

/// An amount and counts, and how much of both was leaked.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    count: u64,
    amount: i128,
    leaked: u64,
    leaked_amount: i128,
}

impl Sum {
    fn add(&mut self, line: &Line) {
        self.count += line.count;
        self.amount += line.amount;
        self.leaked += line.leaked;
        self.leaked_amount += line.leaked_amount;
    }
}

/// The invoice of the days as one JSON document; amounts are decimal text in US dollars.
pub(crate) fn document(books: &Books, quirks: &Quirks, span: Span) -> Value {
    let whole = Bill::new(books.used(), quirks, span, View::Final);
    let shown = Bill::new(books.used(), quirks, span, View::Shown);
    let days: Vec<Value> = span.days().map(|day| of_day(&whole, day)).collect();
    let metered: i128 = whole.lines.iter().map(|line| line.amount).sum();
    json!({
        "provider": quirks.provider,
        "account": quirks.account,
        "from": span.from,
        "to": span.to,
        "currency": "USD",
        "total": dollars(whole.total()),
        "shown": dollars(shown.total()),
        "metered": dollars(metered),
        "leaked": leaked(&whole),
        "keys": keys(&whole, quirks),
        "days": days,
    })
}

fn of_day(bill: &Bill, day: Day) -> Value {
    let mut sums: BTreeMap<(&str, &str, Meter), Sum> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| line.day == day) {
        sums.entry((&line.model, &line.tier, line.meter)).or_default().add(line);
    }
    let line = |((model, tier, meter), sum): ((&str, &str, Meter), Sum)| {
        json!({ "model": model, "tier": tier, "meter": meter, "count": sum.count,
            "amount": dollars(sum.amount), "leaked": sum.leaked,
            "leaked_amount": dollars(sum.leaked_amount) })
    };
    let lines: Vec<Value> = sums.into_iter().map(line).collect();
    let charge = |charge: &crate::bills::Charge| {
        json!({ "reason": charge.reason, "description": charge.description,
            "amount": dollars(charge.amount) })
    };
    let charges = bill.charges.iter().filter(|charge| charge.day == day);
    let charges: Vec<Value> = charges.map(charge).collect();
    json!({ "day": day, "total": dollars(bill.day_total(day)), "lines": lines, "charges": charges })
}

fn leaked(bill: &Bill) -> Value {
    let mut counts: BTreeMap<Meter, u64> = BTreeMap::new();
    for line in bill.lines.iter().filter(|line| line.leaked > 0) {
        *counts.entry(line.meter).or_default() += line.leaked;
    }
    let amount: i128 = bill.lines.iter().map(|line| line.leaked_amount).sum();
    json!({ "amount": dollars(amount), "counts": counts })
}

fn keys(bill: &Bill, quirks: &Quirks) -> Vec<Value> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for line in &bill.lines {
        sums.entry(&line.credential).or_default().add(line);
    }
    let key = |(credential, sum): (&str, Sum)| {
        json!({ "id": key_id(&quirks.provider, credential), "credential": credential,
            "amount": dollars(sum.amount), "leaked_amount": dollars(sum.leaked_amount) })
    };
    sums.into_iter().map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bills::tests::{books, quirks, span};

    const MODELS: [&str; 2] = ["claude-haiku-4-5", "claude-sonnet-5-5"];

    fn pico(value: &Value) -> i128 {
        crate::money::Usd::try_from(value.as_str().unwrap().to_owned()).unwrap().0
    }

    #[test]
    fn lines_and_charges_sum_to_the_total_and_leaks_are_told_apart() {
        let quirks = quirks(
            r#"{"provider": "anthropic", "account": "1", "late": [{"percent": 50}],
                "tax": [{"days": "2026-11-20", "basis_points": 333}]}"#,
        );
        let books = books("anthropic", MODELS);
        let invoice = document(&books, &quirks, span("2026-11-20/2026-11-22"));
        let mut sum = 0;
        for day in invoice["days"].as_array().unwrap() {
            let amounts =
                day["lines"].as_array().unwrap().iter().chain(day["charges"].as_array().unwrap());
            let of_day: i128 = amounts.map(|line| pico(&line["amount"])).sum();
            assert_eq!(of_day, pico(&day["total"]));
            sum += of_day;
        }
        assert_eq!(sum, pico(&invoice["total"]));
        assert!(pico(&invoice["shown"]) < sum);
        let of_keys: i128 =
            invoice["keys"].as_array().unwrap().iter().map(|key| pico(&key["amount"])).sum();
        assert_eq!(of_keys, pico(&invoice["metered"]));
        let counts =
            json!({ "input": 500, "cache_read": 166, "output": 41, "reasoning": 1, "requests": 2 });
        assert_eq!(invoice["leaked"]["counts"], counts);
        // Haiku: 1, 0.10 and 5 dollars a million.
        assert_eq!(invoice["leaked"]["amount"], "0.0007216");
    }

    #[test]
    fn a_leak_is_on_the_bill_as_any_other_use() {
        let mut books = Books::default();
        let leak = |credential: &str| -> Leak {
            serde_json::from_value(
                json!({ "provider": "openai", "credential": credential, "model": "gpt-6-sol",
                "day": "2026-11-20", "requests": 3, "input": 1_000_000, "output": 7 }),
            )
            .unwrap()
        };
        let id = leak("sk-sim-1").enter(&mut books).unwrap();
        let other = leak("sk-sim-1-stolen").enter(&mut books).unwrap();
        assert_ne!(id, other);
        assert!(leak("sk-live-1").enter(&mut books).is_err());
        let quirks = quirks(r#"{"provider": "openai", "account": "1"}"#);
        let invoice = document(&books, &quirks, span("2026-11-20"));
        assert_eq!(invoice["total"], "4.00014");
        assert_eq!(invoice["leaked"]["amount"], "4.00014");
        assert_eq!(invoice["keys"][0]["id"], id);
    }
}
