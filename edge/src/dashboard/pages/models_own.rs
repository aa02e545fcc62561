//! Models for a visitor who sees one owner's rows: made from the sums by owner, in the shape of the report on models. What
//! that report alone measures - latencies, retries, outcomes - is of everybody's requests, and left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::insights::each;
use tallygate_shared::money::Usd;

use super::{Period, Visit, number, text, usd};
use crate::dashboard::web::Ask;

/// The questions: by model, and by model and day. The API answers for the visitor's owner alone.
pub(super) fn asks(visit: &Visit<'_>, filters: &[&'static str]) -> Vec<Ask> {
    let ask = || {
        let ask = Period::of(visit).ask(Ask::get("/usage")).with_those(&visit.query, filters);
        ask.with("group_by", "provider,model,outcome")
    };
    vec![ask(), ask().with("bucket", "day")]
}

#[derive(Default)]
struct Sums {
    requests: u64,
    refused: u64,
    errors: u64,
    input: u64,
    cached: u64,
    output: u64,
    charged: Usd,
}

/// What rows stand for together: a day, a provider and a model, as far as they are told apart.
type Group = (String, String, String);

impl Sums {
    fn add(&mut self, row: &Value) {
        let requests = number(row, "requests");
        match text(row, "outcome") {
            // It stands for requests that are not known.
            "interrupted" => {}
            outcome => {
                self.requests = self.requests.saturating_add(requests);
                match outcome {
                    "completed" | "client_gone" => {}
                    "refused" => self.refused = self.refused.saturating_add(requests),
                    _ => self.errors = self.errors.saturating_add(requests),
                }
            }
        }
        self.input = self.input.saturating_add(number(row, "input_tokens"));
        self.cached = self.cached.saturating_add(number(row, "cached_tokens"));
        self.output = self.output.saturating_add(number(row, "output_tokens"));
        self.charged = self.charged.saturating_add(usd(row, "charged_usd"));
    }

    fn row(&self, (day, provider, model): &Group) -> Value {
        let share = |part: u64, whole: u64| {
            u128::from(part).saturating_mul(10_000).checked_div(u128::from(whole))
        };
        let tokens = self.input.saturating_add(self.output);
        let sent = self.requests.saturating_sub(self.refused);
        let million = self.charged.pico().checked_mul(1_000_000).map(Usd::from_pico);
        let nanos = |amount: Option<Usd>| amount.map(Usd::round_to_nanos);
        json!({
            "bucket_start": day, "provider": provider, "model": model, "requests": self.requests,
            "refused": self.refused, "errors": self.errors,
            "error_rate_basis_points": share(self.errors, sent),
            "cache_hit_rate_basis_points": share(self.cached, self.input),
            "total_tokens": tokens, "charged_usd": self.charged,
            "tokens": { "input": self.input.saturating_sub(self.cached), "cache_read": self.cached,
                        "output": self.output },
            "usd_per_million_tokens": nanos(million.and_then(|million| each(million, tokens))),
            "usd_per_request": nanos(each(self.charged, sent)),
        })
    }
}

/// Sums of rows that the group says belong together.
fn together(rows: &[Value], group: impl Fn(&Value) -> Group) -> Vec<Value> {
    let mut sums: BTreeMap<Group, Sums> = BTreeMap::new();
    for row in rows {
        sums.entry(group(row)).or_default().add(row);
    }
    sums.iter().map(|(group, sums)| sums.row(group)).collect()
}

/// A row for each model, and on each day where rows are of days.
pub(super) fn models(rows: &[Value]) -> Vec<Value> {
    together(rows, |row| {
        let named = |name| text(row, name).to_owned();
        (named("bucket_start"), named("provider"), named("model"))
    })
}

/// All of it in one row.
pub(super) fn all(rows: &[Value]) -> Vec<Value> {
    together(rows, |_| Group::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(model: &str, outcome: &str, requests: u64, charged: &str) -> Value {
        json!({ "provider": "openai", "model": model, "outcome": outcome, "requests": requests, "input_tokens": 900,
                "cached_tokens": 300, "output_tokens": 100, "cost_usd": charged, "charged_usd": charged })
    }

    #[test]
    fn rows_by_outcome_become_a_row_for_each_model() {
        let rows = [
            row("a", "completed", 6, "0.5"),
            row("a", "stalled", 2, "0.25"),
            row("b", "client_gone", 1, "1"),
            row("b", "interrupted", 9, "0"),
        ];
        let models = models(&rows);
        assert_eq!(models.len(), 2);
        let a = &models[0];
        assert_eq!((&a["requests"], &a["errors"]), (&json!(8), &json!(2)));
        assert_eq!(a["error_rate_basis_points"], 2_500);
        assert_eq!(a["cache_hit_rate_basis_points"], 3_333);
        assert_eq!((&a["total_tokens"], &a["charged_usd"]), (&json!(2_000), &json!("0.75")));
        assert_eq!(
            (&a["usd_per_million_tokens"], &a["usd_per_request"]),
            (&json!("375"), &json!("0.09375"))
        );
        assert_eq!(a["tokens"], json!({ "input": 1_200, "cache_read": 600, "output": 200 }));
        assert_eq!(models[1]["requests"], 1);
        let all = all(&rows);
        assert_eq!((all.len(), &all[0]["charged_usd"]), (1, &json!("1.75")));
    }

    #[test]
    fn what_was_refused_reached_nobody_and_costs_nothing_each() {
        let refused = json!({ "provider": null, "model": null, "outcome": "refused", "requests": 3,
                              "charged_usd": "0" });
        let found = models(&[refused]);
        let expected = (&json!(3), &json!(3), &Value::Null, &Value::Null);
        let it = &found[0];
        assert_eq!(
            (
                &it["requests"],
                &it["refused"],
                &it["usd_per_request"],
                &it["error_rate_basis_points"]
            ),
            expected
        );
    }
}
