//! The Prometheus text format 0.0.4 and OpenMetrics 1.0.0, of a workspace's counters and of how things stand now.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::counters::{Counters, Group, Totals};
use super::histogram::{DURATION_BOUNDS_MS, Histogram, seconds};
use crate::money::Usd;
use crate::time::Timestamp;

/// What a scraper asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// By an `Accept` header: OpenMetrics where it is named and not refused, the older text otherwise.
    pub fn of_accept(accept: &str) -> Self {
        let names_it = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_it = parts
                .next()
                .is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
            let is_refused = |part: &str| {
                let quality = part.strip_prefix("q=").map(|q| q.trim_end_matches('0'));
                matches!(quality, Some("" | "0" | "0."))
            };
            is_it && !parts.any(is_refused)
        };
        if accept.split(',').any(names_it) { Self::OpenMetrics } else { Self::Text }
    }

    /// The answer's `content-type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How a budget stood when it last told. Budgets with an account for each user, team or customer are not among these:
/// their values are no label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetGauge {
    /// Its name.
    pub budget: String,
    /// What may be spent in its window.
    pub limit: Usd,
    /// What is spent.
    pub spent: Usd,
    /// What is set aside.
    pub held: Usd,
    /// When it stood so.
    pub at: Timestamp,
}

/// How the delivery of one signal to a collector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportGauge {
    /// `metrics` or `logs`.
    pub signal: &'static str,
    /// Events that wait.
    pub waiting: u64,
    /// When the oldest of them was settled.
    pub oldest_at: Option<Timestamp>,
    /// What was delivered since counting began: events, or pictures of the metrics.
    pub delivered: u64,
    /// What will never be delivered.
    pub dropped: u64,
}

/// How the archive of a month's events stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveGauge {
    /// Hours that are over and not in the archive.
    pub waiting_hours: u64,
    /// Since when the oldest of them waits.
    pub waiting_since: Option<Timestamp>,
    /// When the bucket last took a part.
    pub written_at: Option<Timestamp>,
    /// What failed since the month began.
    pub failed: u64,
    /// What failed since something last went well.
    pub failures_in_a_row: u32,
}

/// How things stand, beside the counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Budgets.
    pub budgets: Vec<BudgetGauge>,
    /// Open alerts by severity. `None` where the Alerts object did not answer.
    pub alerts: Option<BTreeMap<String, u64>>,
    /// Events that Meters could not deliver to the Ledger yet.
    pub ledger_waiting: u64,
    /// Deliveries to the collector.
    pub exports: Vec<ExportGauge>,
    /// Archives by month.
    pub archives: Vec<(String, ArchiveGauge)>,
}

/// Writes everything.
pub fn render(counters: &Counters, gauges: &Gauges, now: Timestamp, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(4_096), format };
    page.requests(counters);
    page.money_and_tokens(counters);
    page.durations(counters);
    page.standing(counters, gauges, now);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    page.text
}

type Labels<'a> = [(&'static str, &'a str)];

struct Page {
    text: String,
    format: Format,
}

impl Page {
    /// OpenMetrics calls a family of counters by its name without `_total`.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let name = match self.format {
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
            Format::Text => name,
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl std::fmt::Display) {
        self.text.push_str(name);
        let mut opener = '{';
        // An empty label and an absent one are the same to Prometheus.
        for (label, value) in labels.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(self.text, "{opener}{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
            opener = ',';
        }
        if opener == ',' {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// Counts by one more word, within each group.
    fn by_word(
        &mut self,
        (name, help, word): (&str, &str, &'static str),
        counters: &Counters,
        of: fn(&Totals) -> &BTreeMap<String, u64>,
    ) {
        self.family(name, "counter", help);
        for (group, totals) in &counters.groups {
            for (value, count) in of(totals) {
                self.sample(name, &with(group, word, value), count);
            }
        }
    }

    fn requests(&mut self, counters: &Counters) {
        let outcome =
            ("tallygate_requests_total", "Requests that ended, by how they ended.", "outcome");
        self.by_word(outcome, counters, |totals| &totals.requests);
        let refused =
            ("tallygate_refusals_total", "Requests refused before money was spent.", "code");
        self.by_word(refused, counters, |totals| &totals.refusals);
        let failed = ("tallygate_errors_total", "Requests that failed once admitted.", "code");
        self.by_word(failed, counters, |totals| &totals.errors);
        let help = "Attempts at providers, by HTTP status or by what went wrong.";
        let attempts = ("tallygate_provider_attempts_total", help, "result");
        self.by_word(attempts, counters, |totals| &totals.attempts);
    }

    fn money_and_tokens(&mut self, counters: &Counters) {
        let help = "Tokens by bucket. Buckets do not overlap.";
        let tokens = ("tallygate_tokens_total", help, "bucket");
        self.by_word(tokens, counters, |totals| &totals.tokens);
        type Part = fn(&Totals) -> Usd;
        let parts: [(&str, &str, Part); 2] = [
            (
                "tallygate_cost_usd_total",
                "Cost in US dollars at the price of the request's moment.",
                |totals| totals.cost,
            ),
            ("tallygate_charged_usd_total", "US dollars counted against budgets.", |totals| {
                totals.charged
            }),
        ];
        for (name, help, part) in parts {
            self.family(name, "counter", help);
            for (group, totals) in &counters.groups {
                if !totals.requests.is_empty() {
                    self.sample(name, &labels_of(group), part(totals));
                }
            }
        }
    }

    /// Histograms leave the team out: they are the most lines by far.
    fn durations(&mut self, counters: &Counters) {
        let mut whole: BTreeMap<(&str, &str, &str), Histogram> = BTreeMap::new();
        let mut first: BTreeMap<(&str, &str, &str), Histogram> = BTreeMap::new();
        for (group, totals) in &counters.groups {
            let key = (group.provider.as_str(), group.model.as_str(), group.operation.as_str());
            for histogram in totals.duration_ms.values() {
                whole.entry(key).or_default().add(histogram);
            }
            if totals.first_byte_ms.count() > 0 {
                first.entry(key).or_default().add(&totals.first_byte_ms);
            }
        }
        for (name, help, families) in [
            (
                "tallygate_request_duration_seconds",
                "From admission to the last byte, of requests that reached a provider.",
                whole,
            ),
            (
                "tallygate_time_to_first_byte_seconds",
                "From admission to the provider's first byte, of streams.",
                first,
            ),
        ] {
            self.family(name, "histogram", help);
            for ((provider, model, operation), histogram) in families {
                let labels = [("provider", provider), ("model", model), ("operation", operation)];
                self.histogram(name, &labels, &histogram);
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &[(&'static str, &str); 3], of: &Histogram) {
        let [provider, model, operation] = *labels;
        let bounds = DURATION_BOUNDS_MS.map(bound_text);
        let bounds = bounds.iter().map(String::as_str).chain(std::iter::once("+Inf"));
        let mut below = 0_u64;
        let bucket_name = format!("{name}_bucket");
        for (bound, count) in bounds.zip(of.buckets) {
            below = below.saturating_add(count);
            self.sample(&bucket_name, &[provider, model, operation, ("le", bound)], below);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(of.sum));
        self.sample(&format!("{name}_count"), labels, of.count());
    }

    fn standing(&mut self, counters: &Counters, gauges: &Gauges, now: Timestamp) {
        type Part = fn(&BudgetGauge) -> Usd;
        let parts: [(&str, &str, Part); 3] = [
            ("tallygate_budget_limit_usd", "What may be spent in the window.", |b| b.limit),
            ("tallygate_budget_spent_usd", "What is spent in the window.", |b| b.spent),
            ("tallygate_budget_held_usd", "What is set aside for requests under way.", |b| b.held),
        ];
        for (name, help, part) in parts {
            self.family(name, "gauge", help);
            for budget in &gauges.budgets {
                self.sample(name, &[("budget", &budget.budget)], part(budget));
            }
        }
        let name = "tallygate_budget_updated_timestamp_seconds";
        self.family(name, "gauge", "When the budget's figures were told.");
        for budget in &gauges.budgets {
            self.sample(name, &[("budget", &budget.budget)], stamp(budget.at));
        }
        if let Some(alerts) = &gauges.alerts {
            self.family("tallygate_alerts_open", "gauge", "Alerts that are not resolved.");
            for (severity, count) in alerts {
                self.sample("tallygate_alerts_open", &[("severity", severity)], count);
            }
        }
        let name = "tallygate_ledger_outbox_events";
        self.family(name, "gauge", "Events that wait for the ledger.");
        self.sample(name, &[], gauges.ledger_waiting);
        if let Some(at) = counters.last_event_at {
            let name = "tallygate_last_event_timestamp_seconds";
            self.family(name, "gauge", "When the newest counted request was settled.");
            self.sample(name, &[], stamp(at));
        }
        self.exports(&gauges.exports, now);
        self.archives(&gauges.archives, now);
    }

    fn archives(&mut self, archives: &[(String, ArchiveGauge)], now: Timestamp) {
        let lag = |archive: &ArchiveGauge| {
            let ms = archive.waiting_since.map_or(0, |since| now.since_ms(since).max(0));
            Some(seconds(u64::try_from(ms).unwrap_or(0)))
        };
        type Part<'a> = &'a dyn Fn(&ArchiveGauge) -> Option<String>;
        let parts: [(&str, &str, &str, Part<'_>); 5] = [
            (
                "tallygate_archive_waiting_hours",
                "gauge",
                "Hours that are over and not in the archive.",
                &|archive| Some(archive.waiting_hours.to_string()),
            ),
            (
                "tallygate_archive_lag_seconds",
                "gauge",
                "How long the oldest hour that is over waits for the archive.",
                &lag,
            ),
            (
                "tallygate_archive_last_written_timestamp_seconds",
                "gauge",
                "When the archive last took a part.",
                &|archive| archive.written_at.map(stamp),
            ),
            (
                "tallygate_archive_consecutive_failures",
                "gauge",
                "Failures of the archive since something last went well.",
                &|archive| Some(archive.failures_in_a_row.to_string()),
            ),
            (
                "tallygate_archive_failures_total",
                "counter",
                "Parts that could not be written to the archive, or not be deleted from it.",
                &|archive| Some(archive.failed.to_string()),
            ),
        ];
        for (name, kind, help, part) in parts.into_iter().filter(|_| !archives.is_empty()) {
            self.family(name, kind, help);
            for (month, archive) in archives {
                if let Some(value) = part(archive) {
                    self.sample(name, &[("month", month)], value);
                }
            }
        }
    }

    fn exports(&mut self, exports: &[ExportGauge], now: Timestamp) {
        let age = |export: &ExportGauge| {
            let ms = export.oldest_at.map_or(0, |oldest| now.since_ms(oldest).max(0));
            seconds(u64::try_from(ms).unwrap_or(0))
        };
        type Part<'a> = &'a dyn Fn(&ExportGauge) -> String;
        let parts: [(&str, &str, &str, Part<'_>); 4] = [
            (
                "tallygate_telemetry_waiting_events",
                "gauge",
                "Events that wait for the collector.",
                &|export| export.waiting.to_string(),
            ),
            (
                "tallygate_telemetry_lag_seconds",
                "gauge",
                "Age of the oldest event that waits for the collector.",
                &age,
            ),
            (
                "tallygate_telemetry_delivered_total",
                "counter",
                "Log events, or exports of metrics, that the collector took.",
                &|export| export.delivered.to_string(),
            ),
            (
                "tallygate_telemetry_dropped_total",
                "counter",
                "Log events, or exports of metrics, that the collector refused or that had no room.",
                &|export| export.dropped.to_string(),
            ),
        ];
        for (name, kind, help, part) in parts {
            self.family(name, kind, help);
            for export in exports {
                self.sample(name, &[("signal", export.signal)], part(export));
            }
        }
    }
}

fn labels_of(group: &Group) -> [(&'static str, &str); 4] {
    [
        ("provider", &group.provider),
        ("model", &group.model),
        ("team", &group.team),
        ("operation", &group.operation),
    ]
}

fn with<'a>(group: &'a Group, word: &'static str, value: &'a str) -> [(&'static str, &'a str); 5] {
    let [provider, model, team, operation] = labels_of(group);
    [provider, model, team, operation, (word, value)]
}

/// A bound as both formats write it: OpenMetrics wants a point in it.
fn bound_text(ms: u64) -> String {
    let text = seconds(ms);
    if text.contains('.') { text } else { format!("{text}.0") }
}

fn stamp(at: Timestamp) -> String {
    seconds(u64::try_from(at.ms()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::counters::tests::{event, refusal};
    use crate::time::HOUR_MS;
    use serde_json::json;

    fn sample() -> (Counters, Gauges) {
        let mut counters = Counters::default();
        counters.observe(&event(json!({})));
        counters.observe(&event(json!({ "actor": { "team": "a \"b\"\\c\nd" }, "attempts": [] })));
        counters.observe(&refusal("model_not_allowed", 3));
        let outcome = json!({ "outcome": "stalled", "code": "provider_stalled" });
        counters.observe(&event(outcome));
        let at = Timestamp::from_ms(1_790_000_002_000);
        let usd = |text: &str| text.parse::<Usd>().unwrap();
        let budgets = vec![BudgetGauge {
            budget: "team-month".to_owned(),
            limit: usd("100"),
            spent: usd("42.5"),
            held: usd("0.01"),
            at,
        }];
        let export = ExportGauge {
            signal: "logs",
            waiting: 4,
            oldest_at: Some(at),
            delivered: 9,
            dropped: 1,
        };
        let archive = ArchiveGauge {
            waiting_hours: 2,
            waiting_since: Some(at.plus_ms(-HOUR_MS)),
            written_at: Some(at.plus_ms(-2 * HOUR_MS)),
            failed: 7,
            failures_in_a_row: 5,
        };
        let gauges = Gauges {
            budgets,
            alerts: Some(BTreeMap::from([("critical".to_owned(), 1), ("warning".to_owned(), 0)])),
            ledger_waiting: 2,
            exports: vec![export],
            archives: vec![
                ("2026-08".to_owned(), ArchiveGauge { failed: 3, ..ArchiveGauge::default() }),
                ("2026-09".to_owned(), archive),
            ],
        };
        (counters, gauges)
    }

    #[test]
    fn text_format_unchanged() {
        let (counters, gauges) = sample();
        let now = Timestamp::from_ms(1_790_000_005_250);
        let text = render(&counters, &gauges, now, Format::Text);
        assert_eq!(text, include_str!("golden/metrics.txt"));
    }

    #[test]
    fn openmetrics_differs_in_the_names_of_counters_and_in_its_end() {
        let (counters, gauges) = sample();
        let now = Timestamp::from_ms(1_790_000_005_250);
        let text = render(&counters, &gauges, now, Format::Text);
        let open = render(&counters, &gauges, now, Format::OpenMetrics);
        assert!(open.ends_with("\n# EOF\n"));
        let samples = |page: &str| -> Vec<String> {
            page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        assert_eq!(samples(&open), samples(&text));
        assert!(open.contains("# TYPE tallygate_requests counter"));
        assert!(text.contains("# TYPE tallygate_requests_total counter"));
    }

    #[test]
    fn nobody_s_name_and_nothing_a_caller_made_up_is_a_label() {
        let (counters, gauges) = sample();
        let page = render(&counters, &gauges, Timestamp::from_ms(0), Format::Text);
        for secret in ["ada", "s-1", "vouches", "smart", "chatcmpl", "req_", "key_", "prompt"] {
            assert!(!page.contains(secret), "{secret}");
        }
    }

    #[test]
    fn the_format_is_negotiated() {
        for (accept, format) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0, text/plain", Format::Text),
            ("application/openmetrics-text;q=0.000", Format::Text),
        ] {
            assert_eq!(Format::of_accept(accept), format, "{accept}");
        }
    }
}
