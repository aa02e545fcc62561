//! Outcomes in the Ledger: what became of the month's requests and sessions, beside what they cost.
//!
//! An outcome lives in the month that it counts at ([`OutcomeEvent::counts_at`]), where the events of its request are.
//! Its event may come before the request's: what the report leaves open of the actor is filled in when both are here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::events::outcome::{OUTCOME_EVENT_VERSION, OutcomeEvent, Subject, Verdict};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::{KeyId, RequestId, WorkspaceId};
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::ledger_object::{Filter, LedgerObject};
use super::sql::{Row, Sql, SqlError, integer, text};
use crate::dimensions::OUTCOME_DIMENSIONS;
use crate::request::outcomes::{Recorded, Sent, Standing, Unrecorded};

/// Outcomes of one month: 2,000,000 x about 400 bytes = 0.8 GB of an object's 10 GB. None is ever deleted.
const MAX_OUTCOMES: u64 = 2_000_000;
/// The most rows of one page.
const MAX_PAGE: u64 = 1_000;

/// The step of the schema that brings outcomes. An event's session gets a column, so that a session's cost is found;
/// events from before have none. `row` is never deleted, so the largest one is their number.
pub const OUTCOMES: &str = "
    CREATE TABLE outcomes (
        row INTEGER PRIMARY KEY, workspace TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, key TEXT NOT NULL,
        label TEXT NOT NULL, time_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, recorded_ms INTEGER NOT NULL,
        accepted INTEGER NOT NULL, value_pico TEXT, owner TEXT NOT NULL, cost_centre TEXT NOT NULL,
        environment TEXT NOT NULL, user TEXT, team TEXT, app TEXT, feature TEXT, agent TEXT, customer TEXT,
        actor_environment TEXT, UNIQUE (subject, key, kind, label)
    ) STRICT;
    CREATE INDEX outcomes_by_time ON outcomes (time_ms);
    ALTER TABLE events ADD COLUMN session TEXT;
    CREATE INDEX events_by_session ON events (session, key) WHERE session IS NOT NULL;
";

/// The columns of an outcome in the order in which they are read and written, all but `row`.
const COLUMNS: [&str; 20] = [
    "workspace",
    "kind",
    "subject",
    "key",
    "label",
    "time_ms",
    "at_ms",
    "recorded_ms",
    "accepted",
    "value_pico",
    "owner",
    "cost_centre",
    "environment",
    "user",
    "team",
    "app",
    "feature",
    "agent",
    "customer",
    "actor_environment",
];
/// Those of them that a request's event can fill in.
const COMPLETED: [&str; 7] =
    ["user", "team", "app", "feature", "agent", "customer", "actor_environment"];

/// A question about outcomes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutcomesQuery {
    /// That count from this moment on.
    pub from_ms: Option<i64>,
    /// That count before this moment.
    pub to_ms: Option<i64>,
    /// Behind this [`Position`] of a listing, newest first.
    pub before: Option<String>,
    /// How many.
    pub limit: u64,
    /// Dimensions to group by.
    pub group_by: Vec<String>,
    /// Only with these values.
    pub filters: BTreeMap<String, String>,
}

/// Where an outcome stands among all of a workspace: by its time, and at the same time by its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// When it counts.
    pub time_ms: i64,
    /// Its row in its month.
    pub row: u64,
}

/// A page of outcomes to export.
#[derive(Debug, Serialize)]
pub struct OutcomePage {
    /// One [`OutcomeEvent`] in each line.
    pub lines: String,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl Position {
    /// Reads what [`Position`]'s `Display` wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let (time_ms, row) = text.split_once('.')?;
        Some(Self { time_ms: time_ms.parse().ok()?, row: row.parse().ok()? })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.time_ms, self.row)
    }
}

impl<S: Sql> LedgerObject<S> {
    /// Records outcomes, all or none: a list of [`Sent`] as JSON text; the answer is a [`Recorded`]. Recording the same
    /// again is a success that changes nothing.
    pub fn record_outcomes(&self, call: &str) -> Result<String, SqlError> {
        let sent: Vec<Sent> =
            serde_json::from_str(call).map_err(|e| SqlError(format!("outcomes: {e}")))?;
        let answer = match self.refused(&sent)? {
            Some((place, why)) => Recorded::Refused { place, why },
            None => {
                let done = sent.into_iter().map(|sent| self.record(sent));
                Recorded::Done(done.collect::<Result<_, _>>()?)
            }
        };
        serde_json::to_string(&answer).map_err(|e| SqlError(e.to_string()))
    }

    fn refused(&self, sent: &[Sent]) -> Result<Option<(usize, Unrecorded)>, SqlError> {
        for Sent { place, event, .. } in sent {
            let Subject::Request(id) = &event.subject else { continue };
            // A request that is not here yet is on its way. Whose it is, its event will say: it joins this outcome only
            // where the keys are the same.
            let rows = self.sql.exec(
                "SELECT CAST(MAX(key = ?) AS TEXT) FROM events WHERE id = ?",
                &[Some(event.key.as_str()), Some(id.as_str())],
            )?;
            if rows.first().and_then(|row| row.first()).and_then(Option::as_deref) == Some("0") {
                return Ok(Some((*place, Unrecorded::NotOfThisKey)));
            }
        }
        let rows =
            self.sql.exec("SELECT CAST(COALESCE(MAX(row), 0) AS TEXT) FROM outcomes", &[])?;
        let present: u64 = rows.first().map_or(Ok(0), |row| integer(row, 0))?;
        let more = u64::try_from(sent.len()).unwrap_or(u64::MAX);
        let first = sent.first().map_or(0, |sent| sent.place);
        let full = present.saturating_add(more) > MAX_OUTCOMES;
        Ok(full.then_some((first, Unrecorded::Full)))
    }

    fn record(&self, sent: Sent) -> Result<Standing, SqlError> {
        let Sent { place, dated, event } = sent;
        let stored = self.stored(&event)?;
        if let Some(stored) = &stored
            && !event.replaces(stored, dated)
        {
            return Ok(Standing { place, replaced: false, event: stored.clone() });
        }
        let (kind, subject) = named(&event.subject);
        self.lift_outcomes(kind, subject, event.key.as_str())?;
        self.write(&event)?;
        if let Subject::Request(id) = &event.subject {
            self.complete_outcomes(id.as_str(), event.key.as_str())?;
        }
        self.sum_up(kind, subject, event.key.as_str())?;
        Ok(Standing { place, replaced: stored.is_some(), event })
    }

    fn stored(&self, event: &OutcomeEvent) -> Result<Option<OutcomeEvent>, SqlError> {
        let select = format!(
            "SELECT {} FROM outcomes WHERE subject = ? AND key = ? AND kind = ? AND label = ?",
            read_columns()
        );
        let (kind, subject) = named(&event.subject);
        let label = event.label.as_deref().unwrap_or_default();
        let params = [Some(subject), Some(event.key.as_str()), Some(kind), Some(label)];
        let rows = self.sql.exec(&select, &params)?;
        rows.first().map(|row| Ok(read(row)?.1)).transpose()
    }

    fn write(&self, event: &OutcomeEvent) -> Result<(), SqlError> {
        let (kind, subject) = named(&event.subject);
        let actor = &event.actor;
        let (time, at) = (event.counts_at().ms().to_string(), event.at.ms().to_string());
        let recorded = event.recorded_at.ms().to_string();
        let value = event.value_usd.map(|value| value.pico().to_string());
        let params = [
            Some(event.workspace.as_str()),
            Some(kind),
            Some(subject),
            Some(event.key.as_str()),
            Some(event.label.as_deref().unwrap_or_default()),
            Some(&time),
            Some(&at),
            Some(&recorded),
            Some(if event.outcome == Verdict::Accepted { "1" } else { "0" }),
            value.as_deref(),
            Some(&event.owner),
            Some(&event.cost_centre),
            Some(&event.environment),
            actor.user.as_deref(),
            actor.team.as_deref(),
            actor.app.as_deref(),
            actor.feature.as_deref(),
            actor.agent.as_deref(),
            actor.customer.as_deref(),
            actor.environment.as_deref(),
        ];
        let places = COLUMNS.map(|name| if is_number(name) { "CAST(? AS INTEGER)" } else { "?" });
        let updates = COLUMNS.map(|name| format!("{name} = excluded.{name}"));
        let upsert = format!(
            "INSERT INTO outcomes ({}) VALUES ({})
             ON CONFLICT (subject, key, kind, label) DO UPDATE SET {}",
            COLUMNS.join(", "),
            places.join(", "),
            updates.join(", ")
        );
        self.sql.exec(&upsert, &params).map(|_| ())
    }

    /// What the reports of a request left open of the actor is taken from the request's own event, once both are here.
    pub(super) fn complete_outcomes(&self, id: &str, key: &str) -> Result<(), SqlError> {
        let fills = COMPLETED.map(|name| format!("{name} = COALESCE(outcomes.{name}, e.{name})"));
        let update = format!(
            "UPDATE outcomes SET {} FROM (SELECT * FROM events WHERE id = ? AND key = ?) AS e
             WHERE outcomes.subject = e.id AND outcomes.key = e.key AND outcomes.kind = 'request'",
            fills.join(", ")
        );
        self.sql.exec(&update, &[Some(id), Some(key)]).map(|_| ())
    }

    /// Outcomes, newest first, each with its position; one more than asked for when there are more.
    pub(super) fn outcomes(&self, query: &OutcomesQuery) -> Result<Value, SqlError> {
        let mut filter = query.filter()?;
        if let Some(before) = query.before.as_deref().and_then(Position::parse) {
            let (time, row) = (before.time_ms.to_string(), before.row.to_string());
            filter.add("time_ms <= CAST(? AS INTEGER)", &time);
            filter.add_two(
                "(time_ms < CAST(? AS INTEGER) OR row < CAST(? AS INTEGER))",
                [&time, &row],
            );
        }
        let limit = query.limit.clamp(1, MAX_PAGE) + 1;
        let select = format!(
            "SELECT {} FROM outcomes {} ORDER BY time_ms DESC, row DESC LIMIT {limit}",
            read_columns(),
            filter.clause()
        );
        let rows = self.sql.exec(&select, &filter.params())?;
        let data = rows.iter().map(|row| {
            let (position, event) = read(row)?;
            let mut item = serde_json::to_value(event).map_err(|e| SqlError(e.to_string()))?;
            if let Some(fields) = item.as_object_mut() {
                fields.insert("position".to_owned(), position.to_string().into());
            }
            Ok(item)
        });
        Ok(json!({ "data": data.collect::<Result<Vec<_>, SqlError>>()? }))
    }

    /// Outcomes that count from one moment until before another, oldest first, in pages. A page begins behind `after`,
    /// the `next` of the page before. What is reported while pages are read may be missed: read a month again until
    /// nothing more is reported of it.
    pub fn export_outcomes(
        &self,
        from_ms: i64,
        to_ms: i64,
        after: Option<&str>,
        limit: u64,
    ) -> Result<OutcomePage, SqlError> {
        let after = match after {
            Some(text) => Position::parse(text)
                .ok_or_else(|| SqlError("outcomes: no such cursor".to_owned()))?,
            None => Position { time_ms: from_ms, row: 0 },
        };
        let limit = usize::try_from(limit.clamp(1, MAX_PAGE)).unwrap_or(1);
        let mut filter = Filter::default();
        filter.span("time_ms", Some(from_ms), Some(to_ms));
        let (time, row) = (after.time_ms.to_string(), after.row.to_string());
        filter.add("time_ms >= CAST(? AS INTEGER)", &time);
        filter.add_two("(time_ms > CAST(? AS INTEGER) OR row > CAST(? AS INTEGER))", [&time, &row]);
        let select = format!(
            "SELECT {} FROM outcomes {} ORDER BY time_ms, row LIMIT {}",
            read_columns(),
            filter.clause(),
            limit + 1
        );
        let rows = self.sql.exec(&select, &filter.params())?;
        let (mut lines, mut last) = (String::new(), None);
        for row in rows.iter().take(limit) {
            let (position, event) = read(row)?;
            lines.push_str(&serde_json::to_string(&event).map_err(|e| SqlError(e.to_string()))?);
            lines.push('\n');
            last = Some(position.to_string());
        }
        Ok(OutcomePage { lines, next: last.filter(|_| rows.len() > limit) })
    }
}

impl OutcomesQuery {
    fn filter(&self) -> Result<Filter, SqlError> {
        let mut filter = self.conditions()?;
        filter.span("time_ms", self.from_ms, self.to_ms);
        Ok(filter)
    }

    /// Which outcomes are meant, but for the span of time.
    pub(super) fn conditions(&self) -> Result<Filter, SqlError> {
        let mut filter = Filter::default();
        for (name, value) in &self.filters {
            match name.as_str() {
                "request" | "session" => {
                    filter.add(&format!("kind = '{name}' AND subject = ?"), value);
                }
                "outcome" => filter.add("accepted = (? = 'accepted')", value),
                _ => {
                    known(name)?;
                    filter.add(&format!("{name} = ?"), value);
                }
            }
        }
        Ok(filter)
    }
}

/// A name becomes part of a statement only when it is one of ours.
pub(super) fn known(name: &str) -> Result<(), SqlError> {
    if OUTCOME_DIMENSIONS.contains(&name) {
        Ok(())
    } else {
        Err(SqlError(format!("no dimension `{name}` of outcomes")))
    }
}

fn is_number(column: &str) -> bool {
    column.ends_with("_ms") || column == "accepted"
}

fn read_columns() -> String {
    let columns = COLUMNS.map(|name| {
        if is_number(name) { format!("CAST({name} AS TEXT)") } else { name.to_owned() }
    });
    format!("CAST(row AS TEXT), {}", columns.join(", "))
}

fn named(subject: &Subject) -> (&'static str, &str) {
    match subject {
        Subject::Request(id) => ("request", id.as_str()),
        Subject::Session(name) => ("session", name),
    }
}

/// An outcome from its row, as [`read_columns`] reads it.
fn read(row: &Row) -> Result<(Position, OutcomeEvent), SqlError> {
    let unreadable = |e: tallygate_shared::ids::IdError| SqlError(format!("stored outcome: {e}"));
    let optional = |column: usize| row.get(column).cloned().flatten();
    let moment = |column| integer(row, column).map(Timestamp::from_ms);
    let subject = match text(row, 2)? {
        "request" => Subject::Request(RequestId::parse(text(row, 3)?).map_err(unreadable)?),
        _ => Subject::Session(text(row, 3)?.to_owned()),
    };
    let value: Option<i128> = optional(10).map(|_| integer(row, 10)).transpose()?;
    let event = OutcomeEvent {
        v: OUTCOME_EVENT_VERSION,
        workspace: WorkspaceId::parse(text(row, 1)?).map_err(unreadable)?,
        subject,
        key: KeyId::parse(text(row, 4)?).map_err(unreadable)?,
        label: Some(text(row, 5)?.to_owned()).filter(|label| !label.is_empty()),
        at: moment(7)?,
        recorded_at: moment(8)?,
        outcome: if text(row, 9)? == "1" { Verdict::Accepted } else { Verdict::Rejected },
        value_usd: value.map(Usd::from_pico),
        owner: text(row, 11)?.to_owned(),
        cost_centre: text(row, 12)?.to_owned(),
        environment: text(row, 13)?.to_owned(),
        actor: Actor {
            user: optional(14),
            team: optional(15),
            app: optional(16),
            feature: optional(17),
            agent: optional(18),
            customer: optional(19),
            environment: optional(20),
            session: None,
        },
    };
    Ok((Position { time_ms: integer(row, 6)?, row: integer(row, 0)? }, event))
}
