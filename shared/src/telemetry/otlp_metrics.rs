//! A workspace's counters as OpenTelemetry metrics: the histograms of the semantic conventions for generative AI, and
//! the gateway's own sums.
//!
//! Temporality is cumulative: a picture that is lost or sent twice changes no total, so a collector that was away
//! misses nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::counters::{Counters, Group, Totals};
use super::histogram::{DURATION_BOUNDS_MS, Histogram, TOKEN_BOUNDS, seconds};
use super::otlp::{Attributes, Speaker, double, nanos, usd};
use crate::time::Timestamp;

/// OTLP's number for cumulative temporality.
const CUMULATIVE: u8 = 2;

/// The body of `POST /v1/metrics`. `since` is when counting began.
pub fn encode(
    counters: &Counters,
    speaker: &Speaker<'_>,
    since: Timestamp,
    now: Timestamp,
) -> Value {
    let times = Times { since: nanos(since), now: nanos(now) };
    let mut metrics = times.conventional(counters, speaker);
    metrics.extend(times.own(counters, speaker));
    // A metric without points says nothing, and some collectors refuse it.
    metrics.retain(|metric| {
        ["sum", "histogram"]
            .iter()
            .any(|kind| metric.pointer(&format!("/{kind}/dataPoints/0")).is_some())
    });
    let scopes = json!([{ "scope": Speaker::scope(), "metrics": metrics }]);
    json!({ "resourceMetrics": [{ "resource": speaker.resource(), "scopeMetrics": scopes }] })
}

struct Times {
    since: String,
    now: String,
}

/// What the conventions' metrics go by: operation, provider, model, and one attribute more.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Times {
    fn point(&self, attributes: Attributes, fields: Value) -> Value {
        let mut point = json!({
            "attributes": attributes.0,
            "startTimeUnixNano": self.since,
            "timeUnixNano": self.now,
        });
        if let (Some(point), Value::Object(fields)) = (point.as_object_mut(), fields) {
            point.extend(fields);
        }
        point
    }

    fn histogram(
        &self,
        attributes: Attributes,
        of: &Histogram,
        bounds: &[Value],
        sum: Value,
    ) -> Value {
        let buckets: Vec<String> = of.buckets.iter().map(u64::to_string).collect();
        let fields = json!({
            "count": of.count().to_string(),
            "sum": sum,
            "bucketCounts": buckets,
            "explicitBounds": bounds,
        });
        self.point(attributes, fields)
    }

    /// The conventions' metrics. Teams are added up: the conventions have no such attribute.
    fn conventional(&self, counters: &Counters, speaker: &Speaker<'_>) -> Vec<Value> {
        let mut tokens: BTreeMap<Key<'_>, Histogram> = BTreeMap::new();
        let mut durations: BTreeMap<Key<'_>, Histogram> = BTreeMap::new();
        let mut first_bytes: BTreeMap<Key<'_>, Histogram> = BTreeMap::new();
        for (group, totals) in &counters.groups {
            let key = |more| {
                let provider = speaker.provider_name(&group.provider);
                (group.operation.as_str(), provider, group.model.as_str(), more)
            };
            for (kind, histogram) in
                [("input", &totals.input_tokens), ("output", &totals.output_tokens)]
            {
                add(&mut tokens, key(kind), histogram);
            }
            for (error, histogram) in &totals.duration_ms {
                add(&mut durations, key(error), histogram);
            }
            add(&mut first_bytes, key(""), &totals.first_byte_ms);
        }
        let counts: Vec<Value> = TOKEN_BOUNDS.map(|bound| json!(bound)).into();
        let lengths: Vec<Value> = DURATION_BOUNDS_MS.map(|bound| double(&seconds(bound))).into();
        let points = |of: &BTreeMap<Key<'_>, Histogram>, more: &str, in_seconds: bool| {
            let points = of.iter().map(|(key, histogram)| {
                if in_seconds {
                    let sum = double(&seconds(histogram.sum));
                    self.histogram(conventional_attributes(key, more), histogram, &lengths, sum)
                } else {
                    let attributes = conventional_attributes(key, more);
                    self.histogram(attributes, histogram, &counts, json!(histogram.sum))
                }
            });
            points.collect::<Vec<Value>>()
        };
        vec![
            histogram_metric(
                "gen_ai.client.token.usage",
                "Number of input and output tokens used.",
                "{token}",
                points(&tokens, "gen_ai.token.type", false),
            ),
            histogram_metric(
                "gen_ai.client.operation.duration",
                "GenAI operation duration.",
                "s",
                points(&durations, "error.type", true),
            ),
            histogram_metric(
                "gen_ai.client.operation.time_to_first_chunk",
                "Time to receive the first chunk of a streamed answer.",
                "s",
                points(&first_bytes, "", true),
            ),
        ]
    }

    /// The gateway's own sums, with the team.
    fn own(&self, counters: &Counters, speaker: &Speaker<'_>) -> Vec<Value> {
        type Words = fn(&Totals) -> &BTreeMap<String, u64>;
        let by_word: [(&str, &str, &str, &str, Words); 5] = [
            ("tallygate.requests", "Requests that ended.", "{request}", "tallygate.outcome", |t| {
                &t.requests
            }),
            ("tallygate.refusals", "Requests refused.", "{request}", "error.type", |t| &t.refusals),
            ("tallygate.errors", "Requests that failed.", "{request}", "error.type", |t| &t.errors),
            (
                "tallygate.provider.attempts",
                "Attempts at providers.",
                "{attempt}",
                "tallygate.result",
                |t| &t.attempts,
            ),
            ("tallygate.tokens", "Tokens by bucket.", "{token}", "tallygate.bucket", |t| &t.tokens),
        ];
        let mut metrics = Vec::new();
        for (name, description, unit, attribute, words) in by_word {
            let mut points = Vec::new();
            for (group, totals) in &counters.groups {
                for (word, count) in words(totals) {
                    let mut attributes = own_attributes(group, speaker);
                    attributes.text(attribute, word);
                    points.push(self.point(attributes, json!({ "asInt": count.to_string() })));
                }
            }
            metrics.push(sum_metric(name, description, unit, points));
        }
        type Part = fn(&Totals) -> crate::money::Usd;
        let money: [(&str, &str, Part); 2] = [
            ("tallygate.cost", "Cost at the price of the request's moment.", |t| t.cost),
            ("tallygate.charged", "Counted against budgets.", |t| t.charged),
        ];
        for (name, description, part) in money {
            let counted = counters.groups.iter().filter(|(_, totals)| !totals.requests.is_empty());
            let points = counted.map(|(group, totals)| {
                let amount = json!({ "asDouble": usd(part(totals)) });
                self.point(own_attributes(group, speaker), amount)
            });
            metrics.push(sum_metric(name, description, "{USD}", points.collect()));
        }
        metrics
    }
}

fn add<'a>(to: &mut BTreeMap<Key<'a>, Histogram>, key: Key<'a>, histogram: &Histogram) {
    if histogram.count() > 0 {
        to.entry(key).or_default().add(histogram);
    }
}

fn conventional_attributes(
    (operation, provider, model, value): &Key<'_>,
    more: &str,
) -> Attributes {
    let mut attributes = Attributes::default();
    attributes.text("gen_ai.operation.name", operation);
    attributes.text("gen_ai.provider.name", provider);
    attributes.text("gen_ai.request.model", model);
    attributes.text(more, value);
    attributes
}

fn own_attributes(group: &Group, speaker: &Speaker<'_>) -> Attributes {
    let provider = speaker.provider_name(&group.provider);
    let key = (group.operation.as_str(), provider, group.model.as_str(), "");
    let mut attributes = conventional_attributes(&key, "");
    attributes.text("tallygate.provider", &group.provider);
    attributes.text("tallygate.team", &group.team);
    attributes
}

fn sum_metric(name: &str, description: &str, unit: &str, points: Vec<Value>) -> Value {
    json!({ "name": name, "description": description, "unit": unit, "sum": {
        "dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true,
    } })
}

fn histogram_metric(name: &str, description: &str, unit: &str, points: Vec<Value>) -> Value {
    json!({ "name": name, "description": description, "unit": unit, "histogram": {
        "dataPoints": points, "aggregationTemporality": CUMULATIVE,
    } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::WorkspaceId;
    use crate::telemetry::counters::tests::{event, refusal};

    fn encoded(counters: &Counters) -> Value {
        let workspace = WorkspaceId::parse("ws_0123456789abcdef").unwrap();
        let resource = BTreeMap::from([("service.name".to_owned(), "gateway-eu".to_owned())]);
        let providers = BTreeMap::from([("main".to_owned(), "openai".to_owned())]);
        let speaker = Speaker { workspace: &workspace, resource: &resource, providers: &providers };
        let (since, now) = (1_780_000_000_000, 1_790_000_009_000);
        encode(counters, &speaker, Timestamp::from_ms(since), Timestamp::from_ms(now))
    }

    #[test]
    fn metrics_format_unchanged() {
        let mut counters = Counters::default();
        counters.observe(&event(json!({})));
        counters.observe(&refusal("model_not_allowed", 3));
        let body = serde_json::to_string_pretty(&encoded(&counters)).unwrap();
        assert_eq!(body, include_str!("golden/metrics.json").trim());
    }

    #[test]
    fn teams_are_added_up_where_the_conventions_have_no_attribute_for_them() {
        let mut counters = Counters::default();
        for team in ["a", "b"] {
            counters.observe(&event(json!({ "actor": { "team": team } })));
        }
        let body = encoded(&counters);
        let metrics = body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        let points = |name: &str| -> Vec<Value> {
            let metric = metrics.iter().find(|metric| metric["name"] == name).unwrap();
            let kind = if metric.get("sum").is_some() { "sum" } else { "histogram" };
            metric[kind]["dataPoints"].as_array().unwrap().clone()
        };
        let durations = points("gen_ai.client.operation.duration");
        assert_eq!((durations.len(), &durations[0]["count"]), (1, &json!("2")));
        assert_eq!(points("gen_ai.client.token.usage").len(), 2);
        assert_eq!(points("tallygate.cost").len(), 2);
    }

    #[test]
    fn what_has_no_points_is_left_out() {
        let mut counters = Counters::default();
        counters.observe(&refusal("model_not_allowed", 1));
        let text = encoded(&counters).to_string();
        assert!(!text.contains("gen_ai.client.token.usage"));
        assert!(text.contains("tallygate.refusals"));
    }
}
