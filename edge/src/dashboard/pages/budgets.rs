//! Budgets: what is spent, held and left of each, its pace, its history, and a raise.

use std::collections::BTreeSet;

use serde_json::Value;
use tallygate_shared::money::Usd;

use super::{Period, Rounds, Visit, text, usd};
use crate::dashboard::figures::share;
use crate::dashboard::view::{Action, Block, Cell, Column, Facts, Field, Form, Table, Tone, View};
use crate::dashboard::web::{Ask, Fields, encoded};

/// Accounts asked about their spending: each is an object of its own.
const MOST: usize = 100;
/// As many accounts as are remembered.
const MOST_HEARD: &str = "500";
/// What gives each value a budget of its own.
const EACH: &str = "*";

/// The questions about the fullest accounts, and how many accounts there are. First comes what was heard of accounts,
/// then the budgets of one account that nothing was heard of.
pub(super) fn fullest(
    budgets: Option<&Value>,
    standings: Option<&[Value]>,
    most: usize,
) -> (Vec<Ask>, usize) {
    let Some(budgets) = budgets.and_then(Value::as_object) else { return (Vec::new(), 0) };
    let heard = standings.unwrap_or_default().iter();
    let heard = heard.map(|row| (text(row, "budget"), text(row, "value")));
    let mut accounts: Vec<(&str, &str)> = Vec::new();
    let mut known = BTreeSet::new();
    for (name, value) in heard.chain(budgets.keys().map(|name| (name.as_str(), ""))) {
        let Some(terms) = budgets.get(name) else { continue };
        let value = if is_each(terms) { value } else { "" };
        if is_each(terms) != value.is_empty() && known.insert((name, value)) {
            accounts.push((name, value));
        }
    }
    let ask = |(name, value): &(&str, &str)| match *value {
        "" => status_of(name),
        value => status_of(name).with("value", value),
    };
    (accounts.iter().take(most).map(ask).collect(), accounts.len())
}

fn status_of(name: &str) -> Ask {
    Ask::get(format!("/budgets/{}/status", encoded(name)))
}

fn scope<'v>(terms: &'v Value, part: &str) -> &'v str {
    terms.get("scope").map_or("", |scope| text(scope, part))
}

fn is_each(terms: &Value) -> bool {
    scope(terms, "dimension") != "workspace" && matches!(scope(terms, "value"), EACH | "")
}

/// The statuses of a round.
pub(super) fn statuses(rounds: &Rounds<'_>, round: usize) -> Vec<Value> {
    let answers = rounds.0.get(round).copied().unwrap_or_default();
    answers.iter().filter_map(crate::dashboard::web::Answer::value).collect()
}

fn money(status: &Value) -> Option<&Value> {
    status.get("money").filter(|money| money.is_object())
}

/// How much of its cap a budget has spent and promised, in basis points.
fn fullness(status: &Value) -> Option<i64> {
    let money = money(status)?;
    let gone = usd(money, "spent_usd").saturating_add(usd(money, "held_usd"));
    share(gone.pico(), text(money, "cap_usd").parse::<Usd>().ok()?.pico())
}

/// A table of budgets, the fullest first.
pub(super) fn table(
    id: &'static str,
    caption: &str,
    statuses: Option<Vec<Value>>,
    most: usize,
) -> Table {
    let rows = statuses.map(|mut statuses| {
        statuses.sort_by_key(|status| std::cmp::Reverse(fullness(status)));
        statuses.iter().take(most).map(row).collect()
    });
    let columns = [
        ("limit_usd", "Limit"),
        ("spent_usd", "Spent"),
        ("held_usd", "Held"),
        ("leased_usd", "Lent to keys"),
        ("remaining_usd", "Left"),
    ];
    let mut all = vec![
        Column::text("budget", "Budget"),
        Column::text("value", "Counts"),
        Column::text("owner", "Owner"),
        Column::text("state", "State"),
    ];
    all.extend(columns.map(|(name, title)| Column::number(name, title)));
    all.push(Column::text("used", "Used"));
    all.push(Column::number("projected_usd", "Expected at the end"));
    all.push(Column::text("exhausted_at", "Used up"));
    all.push(Column::text("resets_at", "Starts anew"));
    Table {
        id,
        caption: caption.to_owned(),
        columns: all,
        rows,
        empty: "No budget has an account of its own yet.".to_owned(),
        ..Table::default()
    }
}

fn row(status: &Value) -> Vec<Cell> {
    let none = Value::Null;
    let money = money(status).unwrap_or(&none);
    let pace = money.get("pace").unwrap_or(&none);
    let full = fullness(status);
    let state = match (full, text(pace, "exhausted_at")) {
        (Some(10_000..), _) => Cell::Badge { tone: Tone::Bad, text: "used up".to_owned() },
        (Some(8_000..), _) => Cell::Badge { tone: Tone::Warn, text: "nearly used up".to_owned() },
        (_, at) if !at.is_empty() => Cell::Badge { tone: Tone::Warn, text: "too fast".to_owned() },
        (Some(_), _) => Cell::Badge { tone: Tone::Good, text: "on course".to_owned() },
        (None, _) => Cell::Badge { tone: Tone::Plain, text: "no limit of money".to_owned() },
    };
    let name = text(status, "budget");
    let mut cells = vec![
        Cell::link(format!("/dashboard/budgets/{}", encoded(name)), name),
        Cell::Text(format!("{} {}", text(status, "dimension"), text(status, "value"))),
        Cell::text(text(status, "owner")),
        state,
    ];
    let amounts = ["cap_usd", "spent_usd", "held_usd", "leased_usd", "remaining_usd"];
    cells.extend(amounts.map(|name| Cell::usd(text(money, name))));
    cells.push(full.map_or(Cell::Nothing, Cell::Share));
    cells.push(Cell::usd(text(pace, "projected_usd")));
    cells.push(super::moment(pace, "exhausted_at"));
    cells.push(super::moment(money, "resets_at"));
    cells
}

pub(super) fn list_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    match rounds.done() {
        0 => {
            let proposals = Ask::get("/budget-proposals").with("dimension", proposed_by(visit));
            let standings = Ask::get("/budget-standings").with("limit", MOST_HEARD);
            vec![Ask::get("/budgets"), proposals, standings]
        }
        1 => accounts(rounds).0,
        _ => Vec::new(),
    }
}

/// The questions of the list, and how many accounts there are.
fn accounts(rounds: &Rounds<'_>) -> (Vec<Ask>, usize) {
    fullest(rounds.value(0, 0).as_ref(), rounds.rows(0, 2).as_deref(), MOST)
}

pub(super) fn list(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let budgets = rounds.value(0, 0);
    let own = budgets.is_some().then(|| statuses(rounds, 1));
    let each = budgets.as_ref().and_then(Value::as_object).map(|budgets| {
        let each = budgets.iter().filter(|(_, terms)| is_each(terms));
        let row = |(name, terms): (&String, &Value)| {
            vec![
                Cell::link(format!("/dashboard/budgets/{}", encoded(name)), name),
                Cell::Text(format!("each {}", scope(terms, "dimension"))),
                Cell::text(text(terms, "owner")),
                Cell::text(text(terms, "window")),
                Cell::usd(text(terms, "limit_usd")),
            ]
        };
        each.map(row).collect()
    });
    let each = Table {
        id: "each",
        caption: "Budgets with an account for each value".to_owned(),
        columns: vec![
            Column::text("budget", "Budget"),
            Column::text("scope", "Counts"),
            Column::text("owner", "Owner"),
            Column::text("window", "Window"),
            Column::number("limit_usd", "Limit of each"),
        ],
        rows: each,
        empty: "There is none.".to_owned(),
        ..Table::default()
    };
    let caption = match accounts(rounds).1 {
        all if all > MOST => format!("The fullest {MOST} of {all} accounts of budgets"),
        _ => "Accounts of budgets, the fullest first".to_owned(),
    };
    View {
        title: "Budgets".to_owned(),
        lead:
            "What each budget has spent, what is promised to requests under way, and what is left."
                .to_owned(),
        blocks: vec![
            Block::Table(table("budgets", &caption, own, MOST)),
            Block::Table(each),
            Block::Table(proposals(visit, rounds)),
        ],
        filters: vec![Field::choice("dimension", "Propose by", proposed_by(visit), &PROPOSED_BY)],
        ..View::default()
    }
}

/// What budgets are proposed by.
const PROPOSED_BY: [(&str, &str); 6] = [
    ("team", "Team"),
    ("feature", "Feature"),
    ("agent", "Agent"),
    ("customer", "Customer"),
    ("user", "User"),
    ("key", "Key"),
];

fn proposed_by<'v>(visit: &'v Visit<'_>) -> &'v str {
    visit.query.get("dimension").unwrap_or("team")
}

fn proposals(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Table {
    let by = proposed_by(visit);
    let may = visit.session.role.may(crate::admin::roles::Act::WriteConfig);
    let row = |row: &Value| {
        let value = text(row, "value");
        let (limit, percent) = (text(row, "limit_usd"), super::number(row, "percent"));
        let why = match text(row, "outcome") {
            "proposed" => text(row, "reasoning").to_owned(),
            "idle" => "Nothing was spent in these days.".to_owned(),
            _ => format!(
                "{} days of spending, {} are needed.",
                super::number(row, "days"),
                super::number(row, "needed")
            ),
        };
        let mut cells = vec![
            Cell::text(value),
            Cell::usd(limit),
            Cell::usd(text(row, "baseline_usd")),
            if percent == 0 { Cell::Nothing } else { Cell::count(percent) },
            Cell::Text(why),
        ];
        if may {
            let path = [by, value, limit].map(encoded).join("/");
            let take = Action {
                label: "Take it".to_owned(),
                about: format!("for {value}"),
                path: format!("/dashboard/budget-proposals/{path}/take"),
            };
            cells.push(if limit.is_empty() { Cell::Nothing } else { Cell::Actions(vec![take]) });
        }
        cells
    };
    let mut columns = vec![
        Column::text("value", "For"),
        Column::number("limit_usd", "Proposed"),
        Column::number("baseline_usd", "A usual month"),
        Column::number("percent", "Per cent of it"),
        Column::text("reasoning", "Why"),
    ];
    if may {
        columns.push(Column::text("actions", "Change"));
    }
    Table {
        id: "proposals",
        caption: format!("What the budget of each {by} could be for a month, by its last days"),
        columns,
        rows: rounds.rows(0, 1).map(|rows| rows.iter().map(row).collect()),
        empty: "Nothing was spent in these days.".to_owned(),
        ..Table::default()
    }
}

pub(super) fn one_asks(visit: &Visit<'_>, rounds: &Rounds<'_>) -> Vec<Ask> {
    let name = visit.parameters.first().map_or("", String::as_str);
    let terms = rounds.value(0, 0);
    match (rounds.done(), terms) {
        (0, _) => vec![Ask::get(format!("/budgets/{}", encoded(name)))],
        (1, Some(terms)) if is_each(&terms) => {
            let period = Period::of(visit);
            let by = scope(&terms, "dimension");
            let standings = Ask::get("/budget-standings").with("budget", name);
            let usage = period.ask(Ask::get("/usage")).with("group_by", by);
            vec![usage, standings.with("limit", MOST.to_string())]
        }
        (1, Some(_)) => vec![status_of(name)],
        (2, Some(terms)) if is_each(&terms) => {
            let by = scope(&terms, "dimension");
            let mut spent = rounds.rows(1, 0).unwrap_or_default();
            spent.sort_by_key(|row| std::cmp::Reverse(usd(row, "charged_usd").pico()));
            let heard = rounds.rows(1, 1).unwrap_or_default();
            let heard = heard.iter().map(|row| text(row, "value"));
            let mut known = BTreeSet::new();
            let values = heard.chain(spent.iter().map(|row| text(row, by)));
            let values = values.filter(|value| !value.is_empty() && known.insert(*value));
            values.take(MOST).map(|value| status_of(name).with("value", value)).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) fn one(visit: &Visit<'_>, rounds: &Rounds<'_>) -> View {
    let name = visit.parameters.first().cloned().unwrap_or_default();
    let terms = rounds.value(0, 0);
    let statuses = match &terms {
        Some(terms) => statuses(rounds, if is_each(terms) { 2 } else { 1 }),
        None => Vec::new(),
    };
    let mut blocks = Vec::new();
    if let Some(terms) = &terms {
        let facts = Facts { title: "Terms".to_owned(), rows: super::leaves(terms) };
        blocks.push(Block::Facts(facts));
    }
    let history = statuses.first().filter(|_| statuses.len() == 1).map(history);
    let known = terms.is_some().then_some(statuses);
    blocks.push(Block::Table(table("accounts", "Accounts of this budget", known, MOST)));
    blocks.extend(history.map(Block::Table));
    if visit.session.role.may(crate::admin::roles::Act::WriteConfig) && terms.is_some() {
        blocks.push(Block::Form(raise_form(&name, &visit.form)));
        if terms.as_ref().is_some_and(|terms| terms.get("raise").is_some_and(Value::is_object)) {
            blocks.push(Block::Form(Form {
                id: "end-raise",
                title: "End the raise".to_owned(),
                path: format!("/dashboard/budgets/{}/end-raise", encoded(&name)),
                fields: Vec::new(),
                submit: "End it now".to_owned(),
            }));
        }
    }
    View { title: format!("Budget {name}"), blocks, ..View::default() }
}

fn raise_form(name: &str, form: &Fields) -> Form {
    Form {
        id: "raise",
        title: "Raise it for some time".to_owned(),
        path: format!("/dashboard/budgets/{}/raise", encoded(name)),
        fields: vec![
            Field::text("limit_usd", "Limit in US dollars", form.text("limit_usd")).required(),
            Field::day("until", "Until the start of", form.text("until")).required(),
            Field::text("reason", "Reason", form.text("reason"))
                .required()
                .help("The audit log keeps it."),
        ],
        submit: "Raise".to_owned(),
    }
}

fn history(status: &Value) -> Table {
    let past = status.get("history").and_then(Value::as_array).cloned().unwrap_or_default();
    let row =
        |row: &Value| vec![Cell::text(text(row, "window")), Cell::usd(text(row, "spent_usd"))];
    Table {
        id: "history",
        caption: "Windows before".to_owned(),
        columns: vec![Column::text("window", "Window"), Column::number("spent_usd", "Spent")],
        rows: Some(past.iter().map(row).collect()),
        empty: "This is its first window.".to_owned(),
        ..Table::default()
    }
}
