//! Savings: what could cost less and how sure that is, and each feature beside applications of its kind.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tallygate_shared::insights::archetype::{Archetype, Outside};
use tallygate_shared::insights::savings::Kind;

use super::{Rounds, Visit, number, text, usd};
use crate::dashboard::view::{Block, Cell, Column, Field, Link, Stat, Table, Tone, View};
use crate::dashboard::web::{Ask, Fields};

const DAYS: [(&str, &str); 4] =
    [("7", "7 days"), ("14", "14 days"), ("30", "30 days"), ("90", "90 days")];
/// A field's value as the words for it.
fn words<T: DeserializeOwned>(value: Option<&Value>, say: fn(T) -> &'static str) -> &'static str {
    value.and_then(|value| serde_json::from_value(value.clone()).ok()).map_or("", say)
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let days = |path: &str| Ask::get(path).with_those(&visit.query, &["days"]);
    vec![days("/savings"), days("/archetypes")]
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let days = visit.query.get("days").unwrap_or("30");
    let report = rounds.value(0, 0);
    let found = rounds.rows(0, 0);
    let bands = rounds.value(0, 1).and_then(|report| report.get("bands")?.as_array().cloned());
    let link = |href: &str, text: &str| Link {
        href: href.to_owned(),
        text: text.to_owned(),
        current: false,
    };
    let counted = |rows: &[Value]| rows.iter().filter(|row| is_counted(row)).count();
    let total = Stat {
        label: "Could be saved in a month".to_owned(),
        cell: report.as_ref().map_or(Cell::Nothing, |report| Cell::money(usd(report, "total_usd"))),
        note: found.as_deref().map_or_else(String::new, |rows| {
            format!(
                "{} of {} opportunities: where two claim the same tokens, only the larger one is counted.",
                counted(rows),
                rows.len()
            )
        }),
    };
    View {
        title: "Savings".to_owned(),
        lead: format!(
            "From the traffic of the last {days} days at list prices, as a month of 30 days. Requests before this \
             version are known by their sums alone."
        ),
        filters: vec![Field::choice("days", "Traffic of the last", days, &DAYS)],
        blocks: vec![
            Block::Links(vec![
                link("/dashboard/calculators/workload", "Calculator: a workload across models"),
                link(
                    "/dashboard/calculators/provisioned-throughput",
                    "Calculator: provisioned throughput and idle commitments",
                ),
            ]),
            Block::Stats(vec![total]),
            Block::Table(opportunities(found.as_deref())),
            Block::Table(archetypes(rounds.rows(0, 1).as_deref())),
            Block::Table(band_table(bands.as_deref())),
        ],
        ..View::default()
    }
}

fn is_counted(row: &Value) -> bool {
    row.get("counted").and_then(Value::as_bool).unwrap_or_default()
}

fn opportunities(rows: Option<&[Value]>) -> Table {
    let row = |row: &Value| {
        let filters = row.get("requests").and_then(Value::as_object).into_iter().flatten();
        let filters = filters.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)));
        let query = filters.fold(Fields::default(), |query, filter| match filter {
            (name, "") => query.with_none(name),
            // The page's days are whole ones, the last one among them.
            ("from", at) => query.with("from", at.get(..10)),
            ("to", at) => query.with("until", at.get(..10)),
            (name, value) => query.with(name, Some(value)),
        });
        let href = format!("/dashboard/requests{}", query.query());
        let commitment = row.get("evidence").map_or("", |evidence| text(evidence, "commitment"));
        let feature = match (text(row, "feature"), commitment) {
            ("", "") => "Unallocated",
            ("", commitment) => commitment,
            (feature, _) => feature,
        };
        let evidence = row.get("evidence").and_then(Value::as_object).into_iter().flatten();
        let evidence: Vec<String> = evidence
            .filter_map(|(name, value)| {
                Some(format!("{} {}", name.replace('_', " "), value.as_str()?))
            })
            .collect();
        let certainty = text(row, "certainty");
        let tone = match certainty {
            "high" => Tone::Good,
            "medium" => Tone::Plain,
            _ => Tone::Warn,
        };
        let counted = if is_counted(row) {
            Cell::text("yes")
        } else {
            Cell::text("no: another claims the same tokens")
        };
        vec![
            Cell::text(words(row.get("kind"), Kind::words)),
            Cell::link(href, feature),
            Cell::text(&format!("{}/{}", text(row, "provider"), text(row, "model"))),
            Cell::money(usd(row, "saves_usd")),
            Cell::Badge { tone, text: certainty.to_owned() },
            counted,
            Cell::Sentence(text(row, "action").to_owned()),
            Cell::Sentence(evidence.join("; ")),
            Cell::Sentence(text(row, "caveat").to_owned()),
        ]
    };
    Table {
        id: "opportunities",
        caption: "Opportunities, the largest first; a name shows its requests".to_owned(),
        columns: vec![
            Column::text("kind", "What"),
            Column::text("feature", "Feature or commitment"),
            Column::text("model", "Model"),
            Column::number("saves_usd", "Saves a month"),
            Column::text("certainty", "How sure"),
            Column::text("counted", "In the sum"),
            Column::text("action", "What to do"),
            Column::text("evidence", "Evidence"),
            Column::text("caveat", "Why it is no surer"),
        ],
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing was found that saves a cent a month.".to_owned(),
        ..Table::default()
    }
}

/// A ratio in hundredths, as `4.25 : 1`.
fn ratio(hundredths: u64) -> String {
    format!("{}.{:02} : 1", hundredths / 100, hundredths % 100)
}

fn range(band: &Value) -> (String, String) {
    let whole = |name: &str| number(band, name) / 100;
    let sessions = format!("{} to {}", number(band, "session_from"), number(band, "session_to"));
    (format!("{} : 1 to {} : 1", whole("ratio_from"), whole("ratio_to")), sessions)
}

fn archetypes(rows: Option<&[Value]>) -> Table {
    let row = |row: &Value| {
        let name = match text(row, "name") {
            "" => "Unallocated",
            name => name,
        };
        let kind = words(row.get("archetype"), Archetype::words);
        let guessed = row.get("guessed").and_then(Value::as_bool).unwrap_or_default();
        let band = row.get("band").map(range).unwrap_or_default();
        let outside = row.get("outside").and_then(Value::as_array).into_iter().flatten();
        let outside: Vec<&str> = outside.map(|it| words(Some(it), Outside::words)).collect();
        let own = row.get("ratio").and_then(Value::as_u64);
        let session = row.get("session_tokens").and_then(Value::as_u64);
        let verdict = if outside.is_empty() {
            Cell::Badge { tone: Tone::Good, text: "within".to_owned() }
        } else {
            Cell::Sentence(outside.join("; "))
        };
        vec![
            Cell::text(name),
            Cell::text(&format!("{kind}{}", if guessed { " (a guess)" } else { "" })),
            own.map_or(Cell::Nothing, |own| Cell::Text(ratio(own))),
            Cell::Text(band.0),
            session.map_or(Cell::Nothing, Cell::count),
            Cell::Text(band.1),
            Cell::count(number(row, "requests")),
            Cell::count(number(row, "sessions")),
            verdict,
        ]
    };
    Table {
        id: "archetypes",
        caption: "Features beside applications of their kind; the configuration's archetypes say which kind one is"
            .to_owned(),
        columns: vec![
            Column::text("name", "Feature"),
            Column::text("archetype", "Kind"),
            Column::number("ratio", "Input : output"),
            Column::number("usual_ratio", "usual"),
            Column::number("session_tokens", "Tokens a session"),
            Column::number("usual_session", "usual"),
            Column::number("requests", "Requests"),
            Column::number("sessions", "Sessions, and requests of none"),
            Column::text("outside", "Beside its band"),
        ],
        rows: rows.map(|rows| rows.iter().map(row).collect()),
        empty: "No request in these days.".to_owned(),
        ..Table::default()
    }
}

fn band_table(bands: Option<&[Value]>) -> Table {
    let row = |band: &Value| {
        let (ratio, session) = range(band);
        vec![
            Cell::text(words(band.get("archetype"), Archetype::words)),
            Cell::Text(ratio),
            Cell::Text(session),
        ]
    };
    Table {
        id: "bands",
        caption: "What is usual for each kind; agents may go beyond theirs".to_owned(),
        columns: vec![
            Column::text("archetype", "Kind"),
            Column::number("ratio", "Input : output"),
            Column::number("session_tokens", "Tokens a session"),
        ],
        rows: bands.map(|rows| rows.iter().map(row).collect()),
        ..Table::default()
    }
}
