//! Blocked: what was refused, why and whose; and what another policy would have said.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Period, Rounds, Visit, number, sum, text};
use crate::dashboard::figures::share;
use crate::dashboard::view::{Block, Cell, Column, Facts, Field, Stat, Table, Tone, View};
use crate::dashboard::web::Ask;

const FILTERS: [&str; 5] = ["code", "key", "owner", "team", "feature"];
const GROUPS: [(&str, &str); 9] = [
    ("owner", "Owner"),
    ("key", "Key"),
    ("team", "Team"),
    ("feature", "Feature"),
    ("user", "User"),
    ("agent", "Agent"),
    ("customer", "Customer"),
    ("cost_centre", "Cost centre"),
    ("environment", "Environment"),
];
/// The places of the answers.
const BY_CODE: usize = 0;
const BY_OWNER: usize = 1;
const BY_DAY: usize = 2;
const POLICIES: usize = 3;
const TRIED: usize = 4;

fn by<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("by").unwrap_or("owner")
}

/// The policy to try: rules that were written down win over a name.
fn trial(visit: &Visit<'_>) -> Option<Result<Value, String>> {
    if let Some(rules) = visit.query.get("rules") {
        let parsed = serde_json::from_str::<Value>(rules);
        return Some(parsed.map_err(|error| error.to_string()));
    }
    visit.query.get("policy").map(|name| Ok(Value::from(name)))
}

pub(super) fn asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    if rounds.done() > 0 {
        return Vec::new();
    }
    let ask = || {
        let ask = Period::of(visit).ask(Ask::get("/refusals"));
        ask.with_those(&visit.query, &FILTERS)
    };
    let mut asks = vec![
        ask().with("group_by", "code"),
        ask().with("group_by", by(visit)),
        ask().with("group_by", "code").with("bucket", "day"),
        Ask::get("/policies"),
    ];
    if let Some(Ok(policy)) = trial(visit) {
        let period = Period::of(visit).ask(Ask::get(""));
        let filters: BTreeMap<&str, &str> =
            FILTERS.into_iter().filter_map(|name| Some((name, visit.query.get(name)?))).collect();
        let body = json!({ "policy": policy, "from": period.query.get("from"),
                           "to": period.query.get("to"), "filters": filters });
        asks.push(Ask::send("POST", "/refusals/simulate", Some(body)));
    }
    asks
}

pub(super) fn view(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let period = Period::of(visit);
    let [from, until] = period.fields();
    let mut filters = vec![from, until, Field::choice("by", "By", by(visit), &GROUPS)];
    filters.extend(
        [("code", "Reason"), ("key", "Key"), ("team", "Team"), ("feature", "Feature")]
            .map(|(name, label)| Field::text(name, label, visit.query.text(name))),
    );
    let policies = rounds.value(0, POLICIES).unwrap_or_default();
    let names: Vec<&String> =
        policies.as_object().map(|policies| policies.keys().collect()).unwrap_or_default();
    let mut choices = vec![("", "None")];
    choices.extend(names.iter().map(|name| (name.as_str(), name.as_str())));
    let policy = visit.query.text("policy");
    filters.push(Field::choice("policy", "Try a policy", policy, &choices));
    filters.push(
        Field::text("rules", "or rules, as JSON", visit.query.text("rules"))
            .help("For example {\"max_request_usd\": \"5\"}. Nothing is stored or changed."),
    );
    let codes = rounds.rows(0, BY_CODE);
    let all = codes.as_deref().map(|rows| sum(rows, "refusals"));
    let mut blocks = vec![Block::Stats(vec![Stat {
        label: "Refused".to_owned(),
        cell: all.map_or(Cell::Nothing, Cell::count),
        note: "Before any money was spent.".to_owned(),
    }])];
    blocks.extend(tried(visit, rounds));
    blocks.push(Block::Table(by_code(visit, codes)));
    blocks.push(Block::Table(by_owner(visit, rounds.rows(0, BY_OWNER))));
    blocks.push(Block::Table(by_day(rounds.rows(0, BY_DAY))));
    View {
        title: "Blocked".to_owned(),
        lead: format!(
            "Requests refused from {} to {}, why, and whose. Try another policy on them above.",
            period.from, period.until
        ),
        filters,
        blocks,
        ..View::default()
    }
}

fn words(code: &str) -> String {
    code.replace('_', " ")
}

fn by_code(visit: &Visit<'_>, rows: Option<Vec<Value>>) -> Table {
    let rows = rows.map(|mut rows| {
        rows.sort_by_key(|row| Reverse(number(row, "refusals")));
        let all = sum(&rows, "refusals");
        let row = |row: &Value| {
            let code = text(row, "code");
            let query = visit.query.with("code", Some(code)).with("outcome", Some("refused"));
            let query = query.with("policy", None).with("rules", None).with("by", None);
            let many = number(row, "refusals");
            vec![
                Cell::link(format!("/dashboard/requests{}", query.query()), &words(code)),
                Cell::text(code),
                Cell::count(many),
                share(i128::from(many), i128::from(all)).map_or(Cell::Nothing, Cell::Share),
            ]
        };
        rows.iter().map(row).collect()
    });
    Table {
        id: "by-reason",
        caption: "By reason: open one to see its requests".to_owned(),
        columns: vec![
            Column::text("reason", "Reason"),
            Column::text("code", "Code"),
            Column::number("refusals", "Refused"),
            Column::text("share", "Share"),
        ],
        rows,
        empty: "Nothing was refused in these days.".to_owned(),
        ..Table::default()
    }
}

fn by_owner(visit: &Visit<'_>, rows: Option<Vec<Value>>) -> Table {
    let by = by(visit);
    let title = GROUPS.iter().find(|(name, _)| *name == by).map_or(by, |(_, title)| title);
    let rows = rows.map(|mut rows| {
        rows.sort_by_key(|row| Reverse(number(row, "refusals")));
        let row = |row: &Value| {
            let value = text(row, by);
            let query = visit.query.with(by, Some(value)).with("outcome", Some("refused"));
            let query = query.with("policy", None).with("rules", None).with("by", None);
            let name = match value {
                "" => Cell::text("Unallocated"),
                value => Cell::link(format!("/dashboard/requests{}", query.query()), value),
            };
            vec![name, Cell::count(number(row, "refusals"))]
        };
        rows.iter().map(row).collect()
    });
    Table {
        id: "by-owner",
        caption: format!("By {}", title.to_lowercase()),
        columns: vec![Column::text(by, title), Column::number("refusals", "Refused")],
        rows,
        empty: "Nothing was refused in these days.".to_owned(),
        ..Table::default()
    }
}

/// A row for each day, a column for each reason.
fn by_day(rows: Option<Vec<Value>>) -> Table {
    let all = rows.iter().flatten();
    let codes: BTreeSet<&str> = all.clone().map(|row| text(row, "code")).collect();
    let mut days: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for row in all {
        let day = text(row, "bucket_start").get(..10).unwrap_or_default().to_owned();
        days.entry(day).or_default().insert(text(row, "code"), number(row, "refusals"));
    }
    let mut columns = vec![Column::text("day", "Day")];
    columns.extend(codes.iter().map(|code| Column::number(code, &words(code))));
    let table_row = |(day, counts): (&String, &BTreeMap<&str, u64>)| {
        let mut cells = vec![Cell::text(day)];
        let count = |code: &&str| Cell::count(counts.get(code).copied().unwrap_or_default());
        cells.extend(codes.iter().map(count));
        cells
    };
    Table {
        id: "by-day",
        caption: "By day and reason".to_owned(),
        columns,
        rows: rows.as_ref().map(|_| days.iter().rev().map(table_row).collect()),
        empty: "Nothing was refused in these days.".to_owned(),
        charted: true,
        unit: "count",
        next: None,
    }
}

/// What the policy that is tried would have said.
fn tried(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Block> {
    let Some(policy) = trial(visit) else { return Vec::new() };
    if let Err(error) = policy {
        let text = format!(
            "are no JSON: {error}. Write an object, such as {{\"max_request_usd\": \"5\"}}."
        );
        let rows = vec![("They".to_owned(), Cell::Badge { tone: Tone::Bad, text })];
        return vec![Block::Facts(Facts { title: "The rules to try".to_owned(), rows })];
    }
    let Some(answer) = rounds.value(0, TRIED) else { return Vec::new() };
    let looked_at = number(&answer, "looked_at");
    let all = number(&answer, "refusals");
    let note = if looked_at < all {
        format!("Of the newest {looked_at} of {all}.")
    } else {
        "As far as the policy goes.".to_owned()
    };
    let not_asked = number(&answer, "shared_budgets_not_asked");
    let stat = |label: &str, name: &str, note: String| Stat {
        label: label.to_owned(),
        cell: Cell::count(number(&answer, name)),
        note,
    };
    let stats = vec![
        stat("Would pass", "would_pass", note),
        stat("Still refused", "still_refused", String::new()),
        stat("Cannot be told", "cannot_be_told", "See the reasons below.".to_owned()),
        Stat {
            label: "At most, they would have cost".to_owned(),
            cell: Cell::usd(text(&answer, "worst_case_usd")),
            note: format!("{not_asked} of them a shared budget might still refuse."),
        },
    ];
    let list = |name: &str| answer.get(name).and_then(Value::as_array).cloned();
    let codes = list("by_code").map(|rows| {
        let counts = ["refusals", "would_pass", "still_refused", "cannot_be_told"];
        let row = |row: &Value| {
            let mut cells = vec![Cell::text(text(row, "code"))];
            cells.extend(counts.map(|name| Cell::count(number(row, name))));
            cells
        };
        rows.iter().map(row).collect()
    });
    let why = |refused: &str, untold: &str| {
        let rows = [("Refused for", refused, "code"), ("Cannot be told:", untold, "reason")];
        let rows = rows.into_iter().flat_map(|(what, name, field)| {
            let rows = list(name).unwrap_or_default();
            rows.into_iter().map(move |row| {
                let why = format!("{what} {}", words(text(&row, field)));
                vec![Cell::Text(why), Cell::count(number(&row, "refusals"))]
            })
        });
        rows.collect::<Vec<_>>()
    };
    vec![
        Block::Stats(stats),
        Block::Table(Table {
            id: "tried",
            caption: "What the policy tried would have said, by what refused them".to_owned(),
            columns: vec![
                Column::text("code", "Refused for"),
                Column::number("refusals", "Refused"),
                Column::number("would_pass", "Would pass"),
                Column::number("still_refused", "Still refused"),
                Column::number("cannot_be_told", "Cannot be told"),
            ],
            rows: codes,
            empty: "Nothing was refused in these days.".to_owned(),
            ..Table::default()
        }),
        Block::Table(Table {
            id: "why-not",
            caption: "Why the others would not".to_owned(),
            columns: vec![Column::text("why", "Why"), Column::number("refusals", "Refused")],
            rows: Some(why("refused_for", "not_told_because")),
            empty: "All would pass.".to_owned(),
            ..Table::default()
        }),
    ]
}
