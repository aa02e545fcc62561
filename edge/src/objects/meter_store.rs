//! The Meter's storage: its tables and the statements on them. Decides nothing.

use serde::{Deserialize, Serialize};
use tallygate_shared::budget::account::WINDOWS;
use tallygate_shared::budget::loop_breaker::Trip;
use tallygate_shared::budget::rate_limit::State as RateState;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use crate::objects::migrations::migrate;
use crate::objects::sql::{Sql, SqlError, integer, nanos, text};
use crate::request::calls::Ticket;

/// Delivered events that stay for `GET /v1/requests/{id}`: 20,000 x about 1.5 KB = 30 MB of an object's 10 GB.
const KEPT_EVENTS: u64 = 20_000;

/// The schema, one step a version; a step is never edited once it shipped.
pub const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE spent (window TEXT PRIMARY KEY, nanos INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        at_ms INTEGER NOT NULL,
        charged_nanos INTEGER NOT NULL,
        body TEXT NOT NULL,
        delivered INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX events_undelivered ON events (seq) WHERE delivered = 0;
    CREATE TABLE tickets (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
",
    "
    CREATE TABLE budget_spent (
        account TEXT NOT NULL, line TEXT NOT NULL, units INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (account, line)
    ) WITHOUT ROWID
",
    "
    CREATE TABLE loop_trips (
        scope TEXT PRIMARY KEY,
        forget_at_ms INTEGER NOT NULL,
        body TEXT NOT NULL
    ) WITHOUT ROWID;
",
];

/// What a Meter keeps beside its tables.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredState {
    /// How much may be held.
    pub ceiling: Usd,
    /// How much an earlier restart left unclear, and is recorded already.
    pub unclear: Usd,
    /// Requests per minute.
    pub requests: RateState,
    /// Tokens per minute.
    pub tokens: RateState,
}

/// The tables of one Meter.
pub struct MeterStore<S> {
    sql: S,
}

impl<S: Sql> MeterStore<S> {
    /// Opens the tables, and brings older ones up to date.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        migrate(&sql, MIGRATIONS)?;
        Ok(Self { sql })
    }

    fn meta(&self, name: &str) -> Result<Option<String>, SqlError> {
        let rows = self.sql.exec("SELECT value FROM meta WHERE name = ?", &[Some(name)])?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    fn set_meta(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meta (name, value) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.exec(upsert, &[Some(name), Some(value)]).map(|_| ())
    }

    /// The plan as JSON text.
    pub fn plan(&self) -> Result<Option<String>, SqlError> {
        self.meta("plan")
    }

    /// Replaces the plan.
    pub fn save_plan(&self, plan: &str) -> Result<(), SqlError> {
        self.set_meta("plan", plan)
    }

    /// The state, or an empty one.
    pub fn state(&self) -> Result<StoredState, SqlError> {
        let Some(state) = self.meta("state")? else { return Ok(StoredState::default()) };
        serde_json::from_str(&state).map_err(|e| SqlError(format!("stored state: {e}")))
    }

    /// Replaces the state.
    pub fn save_state(&self, state: &StoredState) -> Result<(), SqlError> {
        let state = serde_json::to_string(state).map_err(|e| SqlError(e.to_string()))?;
        self.set_meta("state", &state)
    }

    /// What is spent in the windows that `now` falls into.
    pub fn spent(&self, now: Timestamp) -> Result<Vec<(String, Usd)>, SqlError> {
        let keys = WINDOWS.map(|window| window.key(now));
        let params: Vec<Option<&str>> = keys.iter().map(|key| Some(key.as_str())).collect();
        let select = "SELECT window, CAST(nanos AS TEXT) FROM spent WHERE window IN (?, ?, ?, ?)";
        let rows = self.sql.exec(select, &params)?;
        rows.iter()
            .map(|row| Ok((text(row, 0)?.to_owned(), Usd::from_nanos(integer(row, 1)?))))
            .collect()
    }

    /// Adds to the windows' spending.
    pub fn add_spent(&self, windows: &[String; 4], amount: Usd) -> Result<(), SqlError> {
        let nanos = nanos(amount)?;
        let upsert = "INSERT INTO spent (window, nanos) VALUES
            (?1, CAST(?5 AS INTEGER)), (?2, CAST(?5 AS INTEGER)),
            (?3, CAST(?5 AS INTEGER)), (?4, CAST(?5 AS INTEGER))
            ON CONFLICT (window) DO UPDATE SET nanos = nanos + excluded.nanos";
        let [day, week, month, lifetime] = windows;
        let params = [day, week, month, lifetime, &nanos].map(|param| Some(param.as_str()));
        self.sql.exec(upsert, &params).map(|_| ())
    }

    /// What this key spent of a shared budget's line, ever.
    pub fn budget_spent(&self, account: &str, line: &str) -> Result<i64, SqlError> {
        let select = "SELECT CAST(units AS TEXT) FROM budget_spent WHERE account = ? AND line = ?";
        let rows = self.sql.exec(select, &[Some(account), Some(line)])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// Adds to it.
    pub fn add_budget_spent(
        &self,
        account: &str,
        line: &str,
        units: i64,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let upsert = "INSERT INTO budget_spent (account, line, units, at_ms)
            VALUES (?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER))
            ON CONFLICT (account, line) DO UPDATE SET units = units + excluded.units, at_ms = excluded.at_ms";
        let (units, at) = (units.to_string(), now.ms().to_string());
        let params = [account, line, &units, &at].map(Some);
        self.sql.exec(upsert, &params).map(|_| ())
    }

    /// Lets go of what was spent in windows that ended long ago: the Budget knows it.
    pub fn forget_old_budget_windows(&self, now: Timestamp) -> Result<(), SqlError> {
        for (lines, days) in [("%:day:%", 8), ("%:week:%", 15), ("%month:%", 63)] {
            let before = now.plus_ms(-days * DAY_MS).ms().to_string();
            let delete =
                "DELETE FROM budget_spent WHERE line LIKE ? AND at_ms < CAST(? AS INTEGER)";
            self.sql.exec(delete, &[Some(lines), Some(&before)])?;
        }
        Ok(())
    }

    /// What was learned about costs, as JSON text.
    pub fn expectations(&self) -> Result<Option<String>, SqlError> {
        self.meta("expectations")
    }

    /// Replaces it.
    pub fn save_expectations(&self, body: &str) -> Result<(), SqlError> {
        self.set_meta("expectations", body)
    }

    /// The holds that were written down.
    pub fn tickets(&self) -> Result<Vec<Ticket>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM tickets", &[])?;
        let ticket = |body: &str| {
            serde_json::from_str(body).map_err(|e| SqlError(format!("stored ticket: {e}")))
        };
        rows.iter().map(|row| ticket(text(row, 0)?)).collect()
    }

    /// Writes a hold down.
    pub fn remember_ticket(&self, ticket: &Ticket) -> Result<(), SqlError> {
        let body = serde_json::to_string(ticket).map_err(|e| SqlError(e.to_string()))?;
        let insert = "INSERT OR REPLACE INTO tickets (id, body) VALUES (?, ?)";
        self.sql.exec(insert, &[Some(ticket.hold.id.as_str()), Some(&body)]).map(|_| ())
    }

    /// Strikes a hold out.
    pub fn forget_ticket(&self, id: &RequestId) -> Result<(), SqlError> {
        self.sql.exec("DELETE FROM tickets WHERE id = ?", &[Some(id.as_str())]).map(|_| ())
    }

    /// The loops that were stopped.
    pub fn loop_trips(&self) -> Result<Vec<Trip>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM loop_trips", &[])?;
        let trip = |body: &str| {
            serde_json::from_str(body).map_err(|e| SqlError(format!("stored loop: {e}")))
        };
        rows.iter().map(|row| trip(text(row, 0)?)).collect()
    }

    /// Writes a stopped loop down.
    pub fn save_loop_trip(&self, trip: &Trip) -> Result<(), SqlError> {
        let body = serde_json::to_string(trip).map_err(|e| SqlError(e.to_string()))?;
        let forget_at = trip.forget_at.ms().to_string();
        let insert = "INSERT OR REPLACE INTO loop_trips (scope, forget_at_ms, body)
            VALUES (?, CAST(? AS INTEGER), ?)";
        self.sql.exec(insert, &[&trip.scope.id, &forget_at, &body].map(|p| Some(p.as_str())))?;
        Ok(())
    }

    /// Strikes a stopped loop out.
    pub fn delete_loop_trip(&self, scope: &str) -> Result<(), SqlError> {
        self.sql.exec("DELETE FROM loop_trips WHERE scope = ?", &[Some(scope)]).map(|_| ())
    }

    /// Strikes out the loops that are forgotten by now.
    pub fn prune_loop_trips(&self, now: Timestamp) -> Result<(), SqlError> {
        let prune = "DELETE FROM loop_trips WHERE forget_at_ms <= CAST(? AS INTEGER)";
        self.sql.exec(prune, &[Some(&now.ms().to_string())]).map(|_| ())
    }

    /// The last sequence number given, 0 before the first.
    pub fn last_seq(&self) -> Result<u64, SqlError> {
        let rows = self.sql.exec("SELECT CAST(COALESCE(MAX(seq), 0) AS TEXT) FROM events", &[])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// Whether a request was settled (or refused) already.
    pub fn has_event(&self, id: &RequestId) -> Result<bool, SqlError> {
        let rows = self.sql.exec("SELECT '1' FROM events WHERE id = ?", &[Some(id.as_str())])?;
        Ok(!rows.is_empty())
    }

    /// One event as JSON text.
    pub fn event(&self, id: &RequestId) -> Result<Option<String>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM events WHERE id = ?", &[Some(id.as_str())])?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    /// Appends an event.
    pub fn insert_event(&self, event: &UsageEvent) -> Result<(), SqlError> {
        let body = serde_json::to_string(event).map_err(|e| SqlError(e.to_string()))?;
        let insert = "INSERT INTO events (seq, id, at_ms, charged_nanos, body)
            VALUES (CAST(? AS INTEGER), ?, CAST(? AS INTEGER), CAST(? AS INTEGER), ?)";
        let (seq, at) = (event.seq.to_string(), event.at.ms().to_string());
        let charged = nanos(event.charged)?;
        let params = [seq.as_str(), event.id.as_str(), &at, &charged, &body].map(Some);
        self.sql.exec(insert, &params).map(|_| ())
    }

    /// Whether the Ledger lacks events.
    pub fn has_undelivered(&self) -> Result<bool, SqlError> {
        let rows = self.sql.exec("SELECT '1' FROM events WHERE delivered = 0 LIMIT 1", &[])?;
        Ok(!rows.is_empty())
    }

    /// The oldest events that the Ledger lacks: sequence number, time, JSON text.
    pub fn undelivered(&self, limit: usize) -> Result<Vec<(u64, Timestamp, String)>, SqlError> {
        let select = "SELECT CAST(seq AS TEXT), CAST(at_ms AS TEXT), body FROM events
            WHERE delivered = 0 ORDER BY seq LIMIT CAST(? AS INTEGER)";
        let rows = self.sql.exec(select, &[Some(&limit.to_string())])?;
        rows.iter()
            .map(|row| {
                let at = Timestamp::from_ms(integer(row, 1)?);
                Ok((integer(row, 0)?, at, text(row, 2)?.to_owned()))
            })
            .collect()
    }

    /// The oldest events that the Alerts object lacks: sequence number, JSON text.
    pub fn unalerted(&self, limit: usize) -> Result<Vec<(u64, String)>, SqlError> {
        let mark = self.meta("alerted_up_to")?.unwrap_or_else(|| "0".to_owned());
        self.events_after(&mark, limit)
    }

    /// The Alerts object has these.
    pub fn set_alerted(&self, up_to: u64) -> Result<(), SqlError> {
        self.set_meta("alerted_up_to", &up_to.to_string())
    }

    /// The oldest events that the Telemetry object lacks: sequence number, JSON text.
    pub fn unexported(&self, limit: usize) -> Result<Vec<(u64, String)>, SqlError> {
        let mark = self.meta("exported_up_to")?.unwrap_or_else(|| "0".to_owned());
        self.events_after(&mark, limit)
    }

    /// The Telemetry object has these.
    pub fn set_exported(&self, up_to: u64) -> Result<(), SqlError> {
        self.set_meta("exported_up_to", &up_to.to_string())
    }

    /// How many events the Ledger lacks, counted up to a limit.
    pub fn count_undelivered(&self, limit: u64) -> Result<u64, SqlError> {
        let count = "SELECT CAST(COUNT(*) AS TEXT) FROM
            (SELECT 1 FROM events WHERE delivered = 0 LIMIT CAST(? AS INTEGER))";
        let rows = self.sql.exec(count, &[Some(&limit.to_string())])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    fn events_after(&self, mark: &str, limit: usize) -> Result<Vec<(u64, String)>, SqlError> {
        let select = "SELECT CAST(seq AS TEXT), body FROM events WHERE seq > CAST(? AS INTEGER)
            ORDER BY seq LIMIT CAST(? AS INTEGER)";
        let rows = self.sql.exec(select, &[Some(mark), Some(&limit.to_string())])?;
        rows.iter().map(|row| Ok((integer(row, 0)?, text(row, 1)?.to_owned()))).collect()
    }

    /// Marks events as delivered, and lets the oldest of the delivered go.
    pub fn mark_delivered(&self, up_to: u64) -> Result<(), SqlError> {
        let mark =
            "UPDATE events SET delivered = 1 WHERE delivered = 0 AND seq <= CAST(? AS INTEGER)";
        self.sql.exec(mark, &[Some(&up_to.to_string())])?;
        let oldest = up_to.saturating_sub(KEPT_EVENTS).to_string();
        let prune = "DELETE FROM events WHERE delivered = 1 AND seq <= CAST(? AS INTEGER)";
        self.sql.exec(prune, &[Some(&oldest)]).map(|_| ())
    }

    /// How many events are kept, and the sum of what they charged.
    pub fn totals(&self) -> Result<(u64, Usd), SqlError> {
        let select = "SELECT CAST(COUNT(*) AS TEXT), CAST(COALESCE(SUM(charged_nanos), 0) AS TEXT)
            FROM events";
        let rows = self.sql.exec(select, &[])?;
        let Some(row) = rows.first() else { return Ok((0, Usd::ZERO)) };
        Ok((integer(row, 0)?, Usd::from_nanos(integer(row, 1)?)))
    }
}
