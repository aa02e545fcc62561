//! Sums of outcomes by day, with what the requests behind them were charged: a question about a million outcomes reads as
//! many rows as they have days and owners.
//!
//! In a group each request costs once, however many outcomes it has, so not every outcome can be added to a sum. One can
//! whose requests are behind no other outcome, but for labels of the same subject, owner and day; and whose requests one
//! model served. The first of a subject's labels carries the cost. An outcome that is in no sum is read with its requests
//! when a question is asked, as is what lies in a part of a day. So an outcome is right wherever it is, and taking it out
//! of the sums is always right: that is done before anything changes it.

use super::ledger_days::Span;
use super::ledger_object::{Filter, LedgerObject};
use super::ledger_released::CUT;
use super::ledger_true_ups::PICO_PER_MILLI;
use super::sql::{Sql, SqlError, integer};
use crate::dimensions::{OWNER_DIMENSIONS, join};
use tallygate_shared::time::DAY_MS;

/// The step of the schema that brings this. Outcomes of before are in no sum until they change.
///
/// `provider`, `model`, `requests` and `charged_nanos` are what is behind an outcome of a request, and behind one of a
/// session that is in a sum: a name is empty where a request had none, and no name is known without a request. Of an
/// outcome that `carries` they are added to the sums. The index of sessions has all that is asked of their events, which
/// are large.
pub(super) const OUTCOME_DAYS: &str = "
    ALTER TABLE outcomes ADD COLUMN summed INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outcomes ADD COLUMN provider TEXT;
    ALTER TABLE outcomes ADD COLUMN model TEXT;
    ALTER TABLE outcomes ADD COLUMN requests INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outcomes ADD COLUMN charged_nanos INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE outcomes ADD COLUMN carries INTEGER NOT NULL DEFAULT 0;
    UPDATE outcomes SET provider = b.provider, model = b.model, requests = 1, charged_nanos = b.charged_nanos FROM (
        SELECT o.row AS of_row, COALESCE(e.provider, '') AS provider, COALESCE(e.model, '') AS model, e.charged_nanos
        FROM outcomes AS o CROSS JOIN events AS e ON e.id = o.subject AND e.key = o.key WHERE o.kind = 'request'
        UNION ALL SELECT o.row, e.provider, e.model, e.charged_nanos
        FROM outcomes AS o CROSS JOIN released AS e ON e.id = o.subject AND e.key = o.key WHERE o.kind = 'request') AS b
        WHERE outcomes.row = b.of_row;
    DROP INDEX events_by_session;
    CREATE INDEX events_by_session ON events (session, key, id, provider, model, charged_nanos)
        WHERE session IS NOT NULL;
    CREATE INDEX outcomes_apart ON outcomes (time_ms) WHERE summed = 0;
    CREATE TABLE outcome_days (
        day_ms INTEGER NOT NULL, dimensions TEXT NOT NULL,
        key TEXT NOT NULL, owner TEXT NOT NULL, cost_centre TEXT NOT NULL, environment TEXT NOT NULL, user TEXT,
        team TEXT, app TEXT, feature TEXT, agent TEXT, customer TEXT, actor_environment TEXT, provider TEXT, model TEXT,
        accepted INTEGER NOT NULL, rejected INTEGER NOT NULL, value_milli INTEGER NOT NULL,
        value_rest INTEGER NOT NULL, requests INTEGER NOT NULL, charged_nanos INTEGER NOT NULL,
        PRIMARY KEY (day_ms, dimensions)
    ) WITHOUT ROWID, STRICT;
";

/// What tells outcomes apart in sums, beside the day and the model: all dimensions but the label.
pub(super) const OWNERS: [&str; 11] = join(&OWNER_DIMENSIONS, &["actor_environment"]);
/// The sums.
const SUMS: [&str; 6] =
    ["accepted", "rejected", "value_milli", "value_rest", "requests", "charged_nanos"];

/// Rows of sums that outcomes were taken out of are left behind, with nothing in them.
pub(super) const NOT_EMPTY: &str = "SUM(accepted) + SUM(rejected) > 0";

/// An outcome's columns `accepted`, `rejected`, `value_milli` and `value_rest`. A value is in two parts, so that the sum
/// of neither leaves 64 bits.
pub(super) fn counted() -> [String; 4] {
    let value =
        |part: &str| format!("accepted * (CAST(value_pico AS INTEGER) {part} {PICO_PER_MILLI})");
    ["accepted".to_owned(), "1 - accepted".to_owned(), value("/"), value("%")]
}

/// What a request says that comes: who made it, and what it cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived<'e> {
    /// The request.
    pub(super) id: &'e str,
    /// The key.
    pub(super) key: &'e str,
    /// The session.
    pub(super) session: Option<&'e str>,
    /// Who served it.
    pub(super) provider: &'e str,
    /// With which model.
    pub(super) model: &'e str,
    /// What it was charged, in nanodollars.
    pub(super) charged: i64,
}

/// Requests of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Behind {
    provider: String,
    model: String,
    requests: i64,
    charged: i64,
}

/// The outcomes of a session of which nothing is gone.
struct Told {
    /// How many.
    outcomes: u64,
    /// Whether they are in sums.
    summed: bool,
    /// What they carry, if a request is known.
    behind: Option<Behind>,
}

/// Outcomes by a condition, and its parameters.
struct Which<'p> {
    condition: String,
    params: Vec<Option<&'p str>>,
}

impl<'p> Which<'p> {
    fn of(kind: &str, subject: &'p str, key: &'p str) -> Self {
        let condition = format!("subject = ? AND key = ? AND kind = '{kind}'");
        Self { condition, params: vec![Some(subject), Some(key)] }
    }

    fn of_requests_in(session: &'p str, key: &'p str) -> Self {
        let condition = "kind = 'request' AND key = ? AND subject IN (
            SELECT id FROM events WHERE session = ? AND key = ?
            UNION ALL SELECT id FROM released WHERE session = ? AND key = ?)";
        let (session, key) = (Some(session), Some(key));
        Self { condition: condition.to_owned(), params: vec![key, session, key, session, key] }
    }
}

impl<S: Sql> LedgerObject<S> {
    /// Takes the outcomes of a subject out of the sums, before they change.
    pub(super) fn lift_outcomes(
        &self,
        kind: &str,
        subject: &str,
        key: &str,
    ) -> Result<(), SqlError> {
        self.lift(&Which::of(kind, subject, key))
    }

    fn lift(&self, which: &Which<'_>) -> Result<(), SqlError> {
        if !self.any(which, "summed = 1")? {
            return Ok(());
        }
        self.add("-", which)?;
        let update = format!(
            "UPDATE outcomes SET summed = 0, carries = 0 WHERE {} AND summed = 1",
            which.condition
        );
        self.exec(&update, &which.params).map(|_| ())
    }

    fn any(&self, which: &Which<'_>, condition: &str) -> Result<bool, SqlError> {
        let select = format!(
            "SELECT CAST(EXISTS (SELECT 1 FROM outcomes WHERE {} AND {condition}) AS TEXT)",
            which.condition
        );
        let rows = self.exec(&select, &which.params)?;
        Ok(rows.first().map_or(Ok(0), |row| integer::<u8>(row, 0))? == 1)
    }

    /// Adds to the sums, or takes from them, what these outcomes are that are marked as summed.
    fn add(&self, sign: &str, which: &Which<'_>) -> Result<(), SqlError> {
        let owners = OWNERS.join(", ");
        let summed: String = counted()
            .iter()
            .map(String::as_str)
            .chain(["carries * requests", "carries * charged_nanos"])
            .map(|column| format!(", {sign}COALESCE(SUM({column}), 0)"))
            .collect();
        let insert = format!(
            "INSERT INTO outcome_days (day_ms, dimensions, {owners}, provider, model, {})
             SELECT time_ms - time_ms % {DAY_MS}, json_array({owners}, provider, model), {owners}, provider, model{summed}
             FROM outcomes WHERE {} AND summed = 1 GROUP BY 1, 2
             ON CONFLICT (day_ms, dimensions) DO UPDATE SET {}",
            SUMS.join(", "),
            which.condition,
            SUMS.map(|name| format!("{name} = outcome_days.{name} + excluded.{name}")).join(", "),
        );
        self.exec(&insert, &which.params).map(|_| ())
    }

    /// Puts the outcomes of a subject, which are in no sum, into the sums, if they can be.
    pub(super) fn sum_up(&self, kind: &str, subject: &str, key: &str) -> Result<(), SqlError> {
        if kind == "request" {
            return self.sum_up_request(subject, key);
        }
        let cut = "SELECT session FROM cut_sessions WHERE session = ? AND key = ?";
        if !self.exec(cut, &[Some(subject), Some(key)])?.is_empty() {
            return self.sum_up_session(subject, key, None);
        }
        let requests = Which::of_requests_in(subject, key);
        if self.any(&requests, "true")? {
            return self.lift(&requests);
        }
        let select = "SELECT provider, model, CAST(SUM(requests) AS TEXT), CAST(SUM(charged_nanos) AS TEXT) FROM (
                SELECT COALESCE(provider, '') AS provider, COALESCE(model, '') AS model, 1 AS requests, charged_nanos
                FROM events WHERE session = ? AND key = ?
                UNION ALL SELECT provider, model, requests, charged_nanos FROM released WHERE session = ? AND key = ?)
             GROUP BY provider, model LIMIT 2";
        let (of, key_of) = (Some(subject), Some(key));
        let rows = self.exec(select, &[of, key_of, of, key_of])?;
        match rows.as_slice() {
            [] => self.sum_up_session(subject, key, None),
            [row] => {
                let text = |place: usize| row.get(place).cloned().flatten().unwrap_or_default();
                let behind = Behind {
                    provider: text(0),
                    model: text(1),
                    requests: integer(row, 2)?,
                    charged: integer(row, 3)?,
                };
                self.sum_up_session(subject, key, Some(&behind))
            }
            _ => Ok(()),
        }
    }

    fn sum_up_request(&self, id: &str, key: &str) -> Result<(), SqlError> {
        let select = "SELECT session, COALESCE(provider, ''), COALESCE(model, ''), CAST(charged_nanos AS TEXT)
            FROM events WHERE id = ? AND key = ?
            UNION ALL SELECT NULLIF(session, ''), provider, model, CAST(charged_nanos AS TEXT)
            FROM released WHERE id = ? AND key = ?";
        let (of, key_of) = (Some(id), Some(key));
        let rows = self.exec(select, &[of, key_of, of, key_of])?;
        let Some(row) = rows.first() else {
            return self.carry(&Which::of("request", id, key));
        };
        let text = |place: usize| row.get(place).and_then(Option::as_deref);
        let (provider, model) = (text(1).unwrap_or_default(), text(2).unwrap_or_default());
        let (session, charged) = (text(0), integer(row, 3)?);
        self.note_request(Arrived { id, key, session, provider, model, charged })?;
        let Some(session) = session else { return self.carry(&Which::of("request", id, key)) };
        match self.told(id, key, Some(session))?.1 {
            Told { outcomes: 0, .. } => self.carry(&Which::of("request", id, key)),
            // Until now no request of the session had an outcome.
            Told { summed: true, .. } => self.lift_outcomes("session", session, key),
            Told { .. } => Ok(()),
        }
    }

    /// Notes with the outcomes of a request what it says.
    fn note_request(&self, arrived: Arrived<'_>) -> Result<(), SqlError> {
        let which = Which::of("request", arrived.id, arrived.key);
        let update = format!(
            "UPDATE outcomes SET provider = ?, model = ?, requests = 1, charged_nanos = {} WHERE {}",
            arrived.charged, which.condition
        );
        let mut params = vec![Some(arrived.provider), Some(arrived.model)];
        params.extend(which.params);
        self.exec(&update, &params).map(|_| ())
    }

    /// Notes with the outcomes of a session what is behind them, and puts them into the sums.
    fn sum_up_session(
        &self,
        session: &str,
        key: &str,
        behind: Option<&Behind>,
    ) -> Result<(), SqlError> {
        let which = Which::of("session", session, key);
        let (requests, charged) = behind.map_or((0, 0), |behind| (behind.requests, behind.charged));
        let update = format!(
            "UPDATE outcomes SET provider = ?, model = ?, requests = {requests}, charged_nanos = {charged}
             WHERE {}",
            which.condition
        );
        let mut params = vec![
            behind.map(|behind| behind.provider.as_str()),
            behind.map(|behind| behind.model.as_str()),
        ];
        params.extend(&which.params);
        self.exec(&update, &params)?;
        self.carry(&which)
    }

    /// Puts a subject's outcomes into the sums, of which the first carries what is behind them; but not where they are of
    /// several owners or days.
    fn carry(&self, which: &Which<'_>) -> Result<(), SqlError> {
        let condition = &which.condition;
        let update = format!(
            "UPDATE outcomes SET summed = 1, carries = (row = (SELECT MIN(row) FROM outcomes WHERE {condition}))
             WHERE {condition} AND 1 = (SELECT COUNT(DISTINCT json_array(time_ms / {DAY_MS}, {}))
                FROM outcomes WHERE {condition})",
            OWNERS.join(", ")
        );
        let params = [&which.params[..], &which.params[..], &which.params[..]].concat();
        self.exec(&update, &params)?;
        self.add("", which)
    }

    /// A request comes that may have outcomes, by itself or by its session.
    pub(super) fn request_arrived(&self, arrived: Arrived<'_>) -> Result<(), SqlError> {
        let Arrived { id, key, session, provider, model, charged } = arrived;
        let (outcomes, told) = self.told(id, key, session)?;
        if outcomes > 0 {
            self.lift_outcomes("request", id, key)?;
            self.complete_outcomes(id, key)?;
            self.note_request(arrived)?;
        }
        match session.filter(|_| told.outcomes > 0) {
            None if outcomes > 0 => self.carry(&Which::of("request", id, key)),
            Some(session) if told.summed => {
                self.lift_outcomes("session", session, key)?;
                let known = told.behind.unwrap_or_else(|| Behind {
                    provider: provider.to_owned(),
                    model: model.to_owned(),
                    requests: 0,
                    charged: 0,
                });
                let same = (known.provider.as_str(), known.model.as_str()) == (provider, model);
                match known.charged.checked_add(charged) {
                    Some(charged) if same && outcomes == 0 => {
                        let behind = Behind { requests: known.requests + 1, charged, ..known };
                        self.sum_up_session(session, key, Some(&behind))
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// How many outcomes a request has, and those of its session.
    fn told(&self, id: &str, key: &str, session: Option<&str>) -> Result<(u64, Told), SqlError> {
        let select = format!(
            "SELECT CAST((SELECT COUNT(*) FROM outcomes WHERE subject = ? AND key = ? AND kind = 'request') AS TEXT),
                CAST(COUNT(*) AS TEXT), CAST(COALESCE(MAX(summed), 0) AS TEXT), MAX(provider), MAX(model),
                CAST(COALESCE(MAX(requests), 0) AS TEXT), CAST(COALESCE(MAX(charged_nanos), 0) AS TEXT)
             FROM outcomes AS o WHERE subject = ? AND key = ? AND kind = 'session' AND NOT {CUT}"
        );
        let rows = self.exec(&select, &[Some(id), Some(key), session, Some(key)])?;
        let Some(row) = rows.first() else {
            return Ok((0, Told { outcomes: 0, summed: false, behind: None }));
        };
        let text = |place: usize| row.get(place).cloned().flatten();
        let behind = match text(3) {
            Some(provider) => Some(Behind {
                provider,
                model: text(4).unwrap_or_default(),
                requests: integer(row, 5)?,
                charged: integer(row, 6)?,
            }),
            None => None,
        };
        let summed = integer::<u8>(row, 2)? == 1;
        Ok((integer(row, 0)?, Told { outcomes: integer(row, 1)?, summed, behind }))
    }
}

/// Where to read what a question about a span of time is about.
pub(super) struct Sources {
    /// The conditions of rows of sums, if any are read.
    pub(super) days: Option<Filter>,
    /// A statement that selects the outcomes that are in none of these sums.
    pub(super) apart: String,
    /// Its parameters.
    pub(super) params: Vec<String>,
}

impl Sources {
    /// Of outcomes that fulfil conditions which rows of sums know too: whole days from the sums, and the rest one by one.
    pub(super) fn by_day(conditions: &Filter, span: Span) -> Self {
        let Some(Span { from: first, to: end }) = span.whole_days() else {
            return Self::one_by_one(conditions, span);
        };
        let mut days = conditions.clone();
        days.span("day_ms", first, end);
        let mut apart = conditions.clone();
        apart.span("time_ms", first, end);
        apart.literal("summed = 0");
        let mut parts = vec![apart];
        for (cut, from, to) in
            [(span.from != first, span.from, first), (span.to != end, end, span.to)]
        {
            if cut {
                let mut part = conditions.clone();
                part.span("time_ms", from, to);
                parts.push(part);
            }
        }
        Self { days: Some(days), ..Self::of(&parts) }
    }

    /// Of outcomes that fulfil conditions which rows of sums cannot be asked.
    pub(super) fn one_by_one(conditions: &Filter, span: Span) -> Self {
        let mut all = conditions.clone();
        all.span("time_ms", span.from, span.to);
        Self::of(&[all])
    }

    fn of(parts: &[Filter]) -> Self {
        let select = |part: &Filter| format!("SELECT * FROM outcomes {}", part.clause());
        let selects: Vec<String> = parts.iter().map(select).collect();
        let params = parts.iter().flat_map(Filter::owned_params).collect();
        Self { days: None, apart: selects.join(" UNION ALL "), params }
    }
}
