//! The pages: each names the calls that it needs, and makes its parts from their answers.

mod alerts;
mod blocked;
mod budgets;
mod calculators;
mod keys;
mod models;
mod models_own;
mod overview;
mod overview_books;
mod prompts;
mod receivers;
mod reconciliation;
mod reconciliation_corrections;
mod reconciliation_exports;
mod reconciliation_runs;
mod request;
mod requests;
mod review;
mod savings;
mod sessions;
mod settings;
mod settings_maturity;
mod settings_people;
mod settings_simulator;
mod settings_versions;
mod statements;
mod unit_economics;
mod usage;

pub(super) use receivers::{saved, tested};
pub(super) use settings_people::issued;
pub(super) use settings_versions::rolled_back;

use serde_json::Value;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};

use super::session::Session;
use super::view::{Cell, Field, View};
use super::web::{Answer, Ask, Fields};
use crate::admin::call::decoded;
use crate::admin::roles::Act;

/// A request to a page.
pub(super) struct Visit<'a> {
    /// Who asks.
    pub(super) session: &'a Session,
    /// The page's path.
    pub(super) path: String,
    /// The address's query.
    pub(super) query: Fields,
    /// The path's parameters, decoded.
    pub(super) parameters: Vec<String>,
    /// What was written into a form that was not taken.
    pub(super) form: Fields,
    /// What a form was answered that is shown with its page: what is wrong, or what would come of it.
    pub(super) answer: Option<Answer>,
    /// The time.
    pub(super) now: Timestamp,
}

/// One row of the table of pages.
pub(super) struct Entry {
    /// The path behind `/dashboard`.
    pub(super) path: &'static str,
    /// Its name.
    pub(super) title: &'static str,
    /// Its name in the menu, where it is in it.
    pub(super) menu: Option<&'static str>,
    /// What one must be allowed to do to see it.
    pub(super) act: Act,
    /// The next calls, from the answers so far; none when the page can be made.
    pub(super) asks: fn(&Visit<'_>, &Rounds<'_>) -> Vec<Ask>,
    /// The page.
    pub(super) view: fn(&Visit<'_>, &Rounds<'_>) -> View,
}

/// The menu: its groups, and the paths of the pages in each.
pub(super) const MENU: &[(&str, &[&str])] = &[
    ("Spend", &["", "/usage", "/models", "/requests", "/unit-economics"]),
    ("Control", &["/budgets", "/blocked", "/alerts", "/keys"]),
    ("Improve", &["/review", "/savings"]),
    ("Books", &["/reconciliation", "/statements"]),
    ("Workspace", &["/settings", "/sessions"]),
];

/// The pages.
pub(super) const PAGES: &[Entry] = &[
    Entry {
        path: "",
        title: "Overview",
        menu: Some("Overview"),
        act: Act::ReadUsage,
        asks: overview::asks,
        view: overview::view,
    },
    Entry {
        path: "/usage",
        title: "Owners",
        menu: Some("Owners"),
        act: Act::ReadUsage,
        asks: usage::asks,
        view: usage::view,
    },
    Entry {
        path: "/requests",
        title: "Requests",
        menu: Some("Requests"),
        act: Act::ReadUsage,
        asks: requests::list_asks,
        view: requests::list,
    },
    Entry {
        path: "/requests/{request}",
        title: "Request",
        menu: None,
        act: Act::ReadUsage,
        asks: request::asks,
        view: request::view,
    },
    Entry {
        path: "/budgets",
        title: "Budgets",
        menu: Some("Budgets"),
        act: Act::ReadUsage,
        asks: budgets::list_asks,
        view: budgets::list,
    },
    Entry {
        path: "/budgets/{budget}",
        title: "Budget",
        menu: None,
        act: Act::ReadUsage,
        asks: budgets::one_asks,
        view: budgets::one,
    },
    Entry {
        path: "/alerts",
        title: "Alerts",
        menu: Some("Alerts"),
        act: Act::ReadUsage,
        asks: alerts::list_asks,
        view: alerts::list,
    },
    Entry {
        path: "/alerts/{alert}",
        title: "Alert",
        menu: None,
        act: Act::ReadUsage,
        asks: alerts::one_asks,
        view: alerts::one,
    },
    Entry {
        path: "/keys",
        title: "Keys and providers",
        menu: Some("Keys"),
        act: Act::ReadConfig,
        asks: keys::list_asks,
        view: keys::list,
    },
    Entry {
        path: "/keys/{key}",
        title: "Key",
        menu: None,
        act: Act::ReadConfig,
        asks: keys::one_asks,
        view: keys::one,
    },
    Entry {
        path: "/reconciliation",
        title: "Reconciliation",
        menu: Some("Reconciliation"),
        act: Act::ReadUsage,
        asks: reconciliation::asks,
        view: reconciliation::view,
    },
    Entry {
        path: "/sessions",
        title: "Sessions",
        menu: Some("Sessions"),
        act: Act::ReadAudit,
        asks: sessions::asks,
        view: sessions::view,
    },
    Entry {
        path: "/statements",
        title: "Statements",
        menu: Some("Statements"),
        act: Act::ReadUsage,
        asks: statements::asks,
        view: statements::view,
    },
    Entry {
        path: "/models",
        title: "Models",
        menu: Some("Models"),
        act: Act::ReadUsage,
        asks: models::asks,
        view: models::view,
    },
    Entry {
        path: "/prompts",
        title: "Prompts",
        menu: Some("Prompts"),
        act: Act::ReadUsage,
        asks: prompts::asks,
        view: prompts::view,
    },
    Entry {
        path: "/agent-sessions/{session}",
        title: "Session of an agent",
        menu: None,
        act: Act::ReadUsage,
        asks: prompts::session_asks,
        view: prompts::session,
    },
    Entry {
        path: "/blocked",
        title: "Blocked",
        menu: Some("Blocked"),
        act: Act::ReadUsage,
        asks: blocked::asks,
        view: blocked::view,
    },
    Entry {
        path: "/unit-economics",
        title: "Unit economics",
        menu: Some("Unit economics"),
        act: Act::ReadUsage,
        asks: unit_economics::asks,
        view: unit_economics::view,
    },
    Entry {
        path: "/review",
        title: "Weekly review",
        menu: Some("Weekly review"),
        act: Act::ReadUsage,
        asks: review::asks,
        view: review::view,
    },
    Entry {
        path: "/savings",
        title: "Savings",
        menu: Some("Savings"),
        act: Act::ReadUsage,
        asks: savings::asks,
        view: savings::view,
    },
    Entry {
        path: "/calculators/workload",
        title: "A workload across models",
        menu: None,
        act: Act::ReadUsage,
        asks: calculators::workload_asks,
        view: calculators::workload,
    },
    Entry {
        path: "/calculators/provisioned-throughput",
        title: "Provisioned throughput",
        menu: None,
        act: Act::ReadUsage,
        asks: calculators::throughput_asks,
        view: calculators::throughput,
    },
    Entry {
        path: "/settings",
        title: "Settings",
        menu: Some("Settings"),
        act: Act::ReadConfig,
        asks: settings::asks,
        view: settings::view,
    },
    Entry {
        path: "/settings/versions",
        title: "Versions",
        menu: None,
        act: Act::ReadConfig,
        asks: settings_versions::list_asks,
        view: settings_versions::list,
    },
    Entry {
        path: "/settings/versions/{version}",
        title: "Version",
        menu: None,
        act: Act::ReadConfig,
        asks: settings_versions::one_asks,
        view: settings_versions::one,
    },
    Entry {
        path: "/settings/simulator",
        title: "Policy simulator",
        menu: None,
        act: Act::ReadConfig,
        asks: settings_simulator::asks,
        view: settings_simulator::view,
    },
    Entry {
        path: "/settings/maturity",
        title: "Crawl, walk, run",
        menu: None,
        act: Act::ReadConfig,
        asks: settings_maturity::asks,
        view: settings_maturity::view,
    },
    Entry {
        path: "/receivers",
        title: "Where alerts go",
        menu: None,
        act: Act::ReadConfig,
        asks: receivers::asks,
        view: receivers::view,
    },
    Entry {
        path: "/settings/people",
        title: "Who may sign in",
        menu: None,
        act: Act::ReadConfig,
        asks: settings_people::asks,
        view: settings_people::view,
    },
];

/// The page of a path, and the path's parameters.
pub(super) fn find(path: &str) -> Option<(&'static Entry, Vec<String>)> {
    let rest = path.strip_prefix(super::ROOT)?;
    PAGES.iter().find_map(|page| Some((page, parameters(page.path, rest)?)))
}

/// The parameters of a path that fits a pattern such as `/keys/{key}`.
pub(super) fn parameters(pattern: &str, path: &str) -> Option<Vec<String>> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(name), Some(value)) if name.starts_with('{') && !value.is_empty() => {
                found.push(decoded(value));
            }
            (Some(name), Some(value)) if name == value => {}
            _ => return None,
        }
    }
}

/// The answers so far, by round and place.
pub(super) struct Rounds<'a>(pub(super) Vec<&'a [Answer]>);

impl<'a> Rounds<'a> {
    /// Who asks, which is the first round's last answer, and the answers that the page is made of.
    pub(super) fn with_caller(rounds: &'a [Vec<Answer>]) -> (Option<&'a Answer>, Self) {
        let mut all: Vec<&[Answer]> = rounds.iter().map(Vec::as_slice).collect();
        let Some((caller, others)) = rounds.first().and_then(|first| first.split_last()) else {
            return (None, Self(all));
        };
        // A page that asks for nothing has had no round.
        all.splice(..1, (!others.is_empty()).then_some(others));
        (Some(caller), Self(all))
    }

    /// How many rounds were answered.
    pub(super) fn done(&self) -> usize {
        self.0.len()
    }

    /// An answer, unless it is a problem.
    pub(super) fn value(&self, round: usize, place: usize) -> Option<Value> {
        self.0.get(round)?.get(place)?.value()
    }

    /// An answer's text, unless it is a problem.
    pub(super) fn body(&self, round: usize, place: usize) -> Option<&str> {
        let answer = self.0.get(round)?.get(place)?;
        (answer.status < 300).then_some(answer.body.as_str())
    }

    /// The rows of an answer that is a list.
    pub(super) fn rows(&self, round: usize, place: usize) -> Option<Vec<Value>> {
        match self.value(round, place)?.get_mut("data")?.take() {
            Value::Array(rows) => Some(rows),
            _ => None,
        }
    }
}

/// A field that is text, or nothing.
pub(super) fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A field that is a count, or zero.
pub(super) fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// A field that is a moment: text, or milliseconds since 1970.
pub(super) fn moment(value: &Value, name: &str) -> Cell {
    match value.get(name).and_then(Value::as_i64) {
        Some(ms) => Cell::moment(&Timestamp::from_ms(ms).to_string()),
        None => Cell::moment(text(value, name)),
    }
}

/// A field that is an amount, or zero.
pub(super) fn usd(value: &Value, name: &str) -> Usd {
    text(value, name).parse().unwrap_or_default()
}

/// The sum of a field that is a count.
pub(super) fn sum(rows: &[Value], name: &str) -> u64 {
    rows.iter().map(|row| number(row, name)).fold(0, u64::saturating_add)
}

/// The sum of a field that is an amount.
pub(super) fn sum_usd(rows: &[Value], name: &str) -> Usd {
    rows.iter().map(|row| usd(row, name)).fold(Usd::ZERO, Usd::saturating_add)
}

/// Every value of a document by its path, for what is shown whole.
pub(super) fn leaves(value: &Value) -> Vec<(String, Cell)> {
    fn walk(name: &str, value: &Value, into: &mut Vec<(String, Cell)>) {
        let below = |part: &str| match name {
            "" => part.replace('_', " "),
            _ => format!("{name}, {}", part.replace('_', " ")),
        };
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(part, value)| walk(&below(part), value, into));
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                items
                    .for_each(|(place, value)| walk(&below(&(place + 1).to_string()), value, into));
            }
            Value::Null => into.push((name.to_owned(), Cell::Nothing)),
            Value::String(text) => into.push((name.to_owned(), Cell::text(text))),
            other => into.push((name.to_owned(), Cell::Text(other.to_string()))),
        }
    }
    let mut rows = Vec::new();
    walk("", value, &mut rows);
    rows
}

/// The days that a page looks at: this month's, unless its query says otherwise.
pub(super) struct Period {
    /// The first day, as text.
    pub(super) from: String,
    /// The last day, as text.
    pub(super) until: String,
}

impl Period {
    /// The period of a query. What is no day goes to the API as it is, which says so.
    pub(super) fn of(visit: &Visit<'_>) -> Self {
        let today = visit.now.date();
        let from = visit.query.get("from").map(str::to_owned);
        let until = visit.query.get("until").map(str::to_owned);
        Self {
            from: from.unwrap_or_else(|| today.first_of_month().to_string()),
            until: until.unwrap_or_else(|| today.to_string()),
        }
    }

    /// The question with this period.
    pub(super) fn ask(&self, ask: Ask) -> Ask {
        let day_after = Date::parse(&self.until).map(|day| Date::from_days(day.days() + 1));
        let to = day_after.map_or_else(|| self.until.clone(), |day| day.to_string());
        ask.with("from", self.from.clone()).with("to", to)
    }

    /// Its two fields.
    pub(super) fn fields(&self) -> [Field; 2] {
        [Field::day("from", "First day", &self.from), Field::day("until", "Last day", &self.until)]
    }
}
