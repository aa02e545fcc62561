//! Metrics for CloudWatch: one line of JSON on stdout in the embedded metric format. It costs no call and no permission.

use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use crate::report::{Report, Status};

/// Where the alarms and the dashboard look.
const NAMESPACE: &str = "Tallygate/Reconciler";
/// Values that one metric of a line may have.
const MAX_VALUES: usize = 100;

/// What became of an invocation.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A run is over.
    Ended(&'a Report),
    /// It failed.
    Failed,
}

/// One metric of the line. The values are JSON numbers in their decimal text: no amount passes through a float here.
struct Metric {
    name: &'static str,
    unit: &'static str,
    values: Vec<String>,
}

fn count(name: &'static str, count: impl ToString) -> Metric {
    Metric { name, unit: "Count", values: vec![count.to_string()] }
}

fn usd(name: &'static str, amounts: &[Usd]) -> Metric {
    Metric { name, unit: "None", values: amounts.iter().map(ToString::to_string).collect() }
}

/// The line for an outcome. Metrics of which nothing is known are left out.
pub fn line(outcome: Outcome<'_>, at: Timestamp) -> String {
    let metrics = match outcome {
        Outcome::Failed => vec![count("RunFailed", 1)],
        Outcome::Ended(report) => of_report(report),
    };
    write(&metrics, at)
}

fn of_report(report: &Report) -> Vec<Metric> {
    let mut metrics = Vec::new();
    match report.status {
        Status::Complete => metrics.push(count("RunCompleted", 1)),
        Status::Partial => metrics.push(count("RunPartial", 1)),
        Status::Running => {}
    }
    let workspaces = || report.workspaces.values();
    let missing: usize = workspaces().map(|one| one.missing.len()).sum();
    let written = workspaces().map(|one| one.rows_written).fold(0, u64::saturating_add);
    metrics.push(count("ProvidersMissing", missing));
    metrics.push(count("LedgerRowsWritten", written));
    // Each call counts once in a day's sum, though a run may end more than once.
    let paid = report.paid_calls.saturating_sub(report.paid_calls_told);
    metrics.push(count("PaidCalls", paid));
    metrics.extend(unmetered(report).map(|amount| usd("UnmeteredUsd", &[amount])));
    let variances = variances(report);
    if !variances.is_empty() {
        metrics.push(usd("VarianceUsd", &variances));
    }
    metrics
}

fn write(metrics: &[Metric], at: Timestamp) -> String {
    let names: Vec<String> = metrics
        .iter()
        .map(|Metric { name, unit, .. }| format!(r#"{{"Name":"{name}","Unit":"{unit}"}}"#))
        .collect();
    let values: String = metrics
        .iter()
        .map(|Metric { name, values, .. }| match values.as_slice() {
            [one] => format!(r#","{name}":{one}"#),
            several => format!(r#","{name}":[{}]"#, several.join(",")),
        })
        .collect();
    format!(
        r#"{{"_aws":{{"Timestamp":{},"CloudWatchMetrics":[{{"Namespace":"{NAMESPACE}","Dimensions":[["service"]],"Metrics":[{}]}}]}},"service":"reconciler"{values}}}"#,
        at.ms(),
        names.join(","),
    )
}

/// What nobody metered, of all providers. `None`: too much to count, which no alarm needs to hear as a number.
fn unmetered(report: &Report) -> Option<Usd> {
    let providers = report.workspaces.values().flat_map(|one| one.providers.values());
    providers.map(|one| one.unmetered).try_fold(Usd::ZERO, Usd::checked_add)
}

/// What each provider billed less what was estimated of it. Unmetered use is apart: it has a metric of its own. One value
/// for each provider, so that one's excess does not hide another's lack; of very many the largest.
fn variances(report: &Report) -> Vec<Usd> {
    let providers = report.workspaces.values().flat_map(|one| one.providers.values());
    let mut found: Vec<Usd> = providers
        .filter_map(|one| {
            let metered = one.billed.checked_sub(one.unmetered)?;
            metered.checked_sub(one.estimated_of_billed)
        })
        .collect();
    found.sort_by_key(|usd| std::cmp::Reverse(usd.pico().unsigned_abs()));
    found.truncate(MAX_VALUES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ProviderReport, WorkspaceReport};

    fn provider(billed: &str, estimated: &str, unmetered: &str) -> ProviderReport {
        let usd = |text: &str| text.parse().unwrap();
        ProviderReport {
            billed: usd(billed),
            estimated_of_billed: usd(estimated),
            unmetered: usd(unmetered),
            ..ProviderReport::default()
        }
    }

    fn report(status: Status, providers: &[(&str, ProviderReport)]) -> Report {
        let workspace = WorkspaceReport {
            missing: [("cursor".to_owned(), "it is late".to_owned())].into(),
            providers: providers.iter().map(|(name, p)| ((*name).to_owned(), *p)).collect(),
            rows_written: 7,
            ..WorkspaceReport::default()
        };
        let workspaces = [("ws_a".to_owned(), workspace)].into();
        Report { status, workspaces, paid_calls: 5, paid_calls_told: 2, ..Report::default() }
    }

    const AT: Timestamp = Timestamp::from_ms(1_700_000_000_123);

    /// What alarms and dashboard read: a change here needs one there.
    #[test]
    fn the_line_is_unchanged() {
        let openai = provider("12.000000000001", "11", "0.5");
        let anthropic = provider("1", "2.25", "0");
        let report = report(Status::Partial, &[("openai", openai), ("anthropic", anthropic)]);
        assert_eq!(
            line(Outcome::Ended(&report), AT),
            concat!(
                r#"{"_aws":{"Timestamp":1700000000123,"CloudWatchMetrics":[{"Namespace":"Tallygate/Reconciler","#,
                r#""Dimensions":[["service"]],"Metrics":[{"Name":"RunPartial","Unit":"Count"},"#,
                r#"{"Name":"ProvidersMissing","Unit":"Count"},{"Name":"LedgerRowsWritten","Unit":"Count"},"#,
                r#"{"Name":"PaidCalls","Unit":"Count"},{"Name":"UnmeteredUsd","Unit":"None"},"#,
                r#"{"Name":"VarianceUsd","Unit":"None"}]}]},"service":"reconciler","RunPartial":1,"#,
                r#""ProvidersMissing":1,"LedgerRowsWritten":7,"PaidCalls":3,"UnmeteredUsd":0.5,"#,
                r#""VarianceUsd":[-1.25,0.500000000001]}"#,
            )
        );
        let failed = line(Outcome::Failed, AT);
        assert!(failed.ends_with(r#""service":"reconciler","RunFailed":1}"#), "{failed}");
    }

    #[test]
    fn every_line_is_json_and_names_what_it_holds() {
        let many: Vec<(String, ProviderReport)> = (0..150)
            .map(|n| (format!("p{n:03}"), provider(&format!("{n}.000000001"), "0", "0")))
            .collect();
        let many: Vec<_> = many.iter().map(|(name, p)| (name.as_str(), *p)).collect();
        let huge = [("x", provider("1", "0", "1"))];
        for report in [
            report(Status::Complete, &many),
            report(Status::Complete, &huge),
            report(Status::Running, &[]),
            Report::default(),
        ] {
            let text = line(Outcome::Ended(&report), AT);
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let named = json["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap();
            for metric in named {
                let value = &json[metric["Name"].as_str().unwrap()];
                let values = value.as_array().map_or(vec![value], |v| v.iter().collect());
                assert!(values.iter().all(|v| v.is_number()), "{text}");
                assert!((1..=MAX_VALUES).contains(&values.len()), "{text}");
            }
        }
        // Of many the largest are kept.
        let text = line(Outcome::Ended(&report(Status::Complete, &many)), AT);
        assert!(text.contains("[149.000000001,148.000000001,") && !text.contains(",49.000000001"));
    }
}
