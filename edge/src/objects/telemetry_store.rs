//! The Telemetry object's storage. Decides nothing.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tallygate_shared::alerts::detect::BudgetSnapshot;
use tallygate_shared::telemetry::counters::{Group, Totals};
use tallygate_shared::time::Timestamp;

use super::migrations::migrate;
use super::sql::{Sql, SqlError, integer, text};

/// The schema, one step a version; a step is never edited once it shipped.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE groups (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE meters (
        meter TEXT PRIMARY KEY, seq INTEGER NOT NULL, waiting INTEGER NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE budgets (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE outbox (n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
"];

/// How far it has come, beside its tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progress {
    /// When counting began.
    pub since: Timestamp,
    /// When the newest counted event was settled.
    pub last_event_at: Option<Timestamp>,
    /// Events that were counted.
    pub seen: u64,
    /// Of those, in the picture that the collector took last.
    pub pictured: u64,
    /// The export of metrics.
    pub metrics: Export,
    /// The export of log events.
    pub logs: Export,
}

/// How one signal's export stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Export {
    /// No attempt before this moment.
    pub not_before: Timestamp,
    /// What an attempt under way carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// What the collector took: events, or pictures.
    pub delivered: u64,
    /// What it will never get.
    pub dropped: u64,
    /// Events in one call, where the collector found more too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<u64>,
    /// When it took something last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivered_at: Option<Timestamp>,
    /// The last answer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What an attempt carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// The last place in the outbox; for metrics, how many events the picture has.
    pub up_to: u64,
    /// How much it is.
    pub count: u64,
}

/// The outbox's extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Events in it.
    pub count: u64,
    /// When the oldest was settled.
    pub oldest_at: Option<Timestamp>,
}

/// The tables.
pub struct TelemetryStore<S> {
    sql: S,
}

impl<S: Sql> TelemetryStore<S> {
    /// Opens the tables.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        migrate(&sql, MIGRATIONS)?;
        Ok(Self { sql })
    }

    /// A value that is kept beside the tables.
    pub fn meta<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, SqlError> {
        let rows = self.sql.exec("SELECT value FROM meta WHERE name = ?", &[Some(name)])?;
        rows.first().map(|row| stored(text(row, 0)?)).transpose()
    }

    /// Keeps it.
    pub fn set_meta(&self, name: &str, value: &impl Serialize) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meta (name, value) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.exec(upsert, &[Some(name), Some(&json(value)?)]).map(|_| ())
    }

    /// Everything that was counted.
    pub fn groups(&self) -> Result<BTreeMap<Group, Totals>, SqlError> {
        let rows = self.sql.exec("SELECT name, body FROM groups", &[])?;
        rows.iter().map(|row| Ok((stored(text(row, 0)?)?, stored(text(row, 1)?)?))).collect()
    }

    /// Keeps a group.
    pub fn save_group(&self, group: &Group, totals: &Totals) -> Result<(), SqlError> {
        let upsert = "INSERT INTO groups (name, body) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET body = excluded.body";
        self.sql.exec(upsert, &[Some(&json(group)?), Some(&json(totals)?)]).map(|_| ())
    }

    /// The last event of a Meter that was counted.
    pub fn counted(&self, meter: &str) -> Result<u64, SqlError> {
        let select = "SELECT CAST(seq AS TEXT) FROM meters WHERE meter = ?";
        let rows = self.sql.exec(select, &[Some(meter)])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// A Meter's events are counted up to here; so many wait for the Ledger.
    pub fn set_counted(&self, meter: &str, seq: u64, waiting: u64) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meters (meter, seq, waiting)
            VALUES (?, CAST(? AS INTEGER), CAST(? AS INTEGER))
            ON CONFLICT (meter) DO UPDATE SET seq = excluded.seq, waiting = excluded.waiting";
        let (seq, waiting) = (seq.to_string(), waiting.to_string());
        self.sql.exec(upsert, &[Some(meter), Some(&seq), Some(&waiting)]).map(|_| ())
    }

    /// Events that Meters could not deliver to the Ledger yet.
    pub fn ledger_waiting(&self) -> Result<u64, SqlError> {
        let select = "SELECT CAST(COALESCE(SUM(waiting), 0) AS TEXT) FROM meters";
        let rows = self.sql.exec(select, &[])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// Keeps how a budget stands.
    pub fn save_budget(&self, snapshot: &BudgetSnapshot) -> Result<(), SqlError> {
        let upsert = "INSERT INTO budgets (name, body) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET body = excluded.body";
        let params = [Some(snapshot.budget.as_str()), Some(&json(snapshot)?)];
        self.sql.exec(upsert, &params).map(|_| ())
    }

    /// How budgets stood when they last told.
    pub fn budgets(&self) -> Result<Vec<BudgetSnapshot>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM budgets ORDER BY name", &[])?;
        rows.iter().map(|row| stored(text(row, 0)?)).collect()
    }

    /// Forgets a budget.
    pub fn forget_budget(&self, name: &str) -> Result<(), SqlError> {
        self.sql.exec("DELETE FROM budgets WHERE name = ?", &[Some(name)]).map(|_| ())
    }

    /// Queues an event for the collector. Places begin anew when the outbox was empty: nothing is under way then.
    pub fn queue(&self, at: Timestamp, event: &str) -> Result<(), SqlError> {
        let insert = "INSERT INTO outbox (at_ms, body) VALUES (CAST(? AS INTEGER), ?)";
        self.sql.exec(insert, &[Some(&at.ms().to_string()), Some(event)]).map(|_| ())
    }

    /// What waits. Events leave from the front alone, so two ends tell the number.
    pub fn waiting(&self) -> Result<Waiting, SqlError> {
        let ends = "SELECT CAST(MAX(n) - MIN(n) + 1 AS TEXT),
            CAST((SELECT at_ms FROM outbox ORDER BY n LIMIT 1) AS TEXT) FROM outbox";
        let rows = self.sql.exec(ends, &[])?;
        let Some(row) = rows.first().filter(|row| row.first().is_some_and(Option::is_some)) else {
            return Ok(Waiting::default());
        };
        let oldest_at = Some(Timestamp::from_ms(integer(row, 1)?));
        Ok(Waiting { count: integer(row, 0)?, oldest_at })
    }

    /// The oldest events that wait: place and text.
    pub fn oldest(&self, limit: u64) -> Result<Vec<(u64, String)>, SqlError> {
        let select = "SELECT CAST(n AS TEXT), body FROM outbox ORDER BY n LIMIT CAST(? AS INTEGER)";
        let rows = self.sql.exec(select, &[Some(&limit.to_string())])?;
        rows.iter().map(|row| Ok((integer(row, 0)?, text(row, 1)?.to_owned()))).collect()
    }

    /// Lets events go up to a place.
    pub fn let_go(&self, up_to: u64) -> Result<(), SqlError> {
        let delete = "DELETE FROM outbox WHERE n <= CAST(? AS INTEGER)";
        self.sql.exec(delete, &[Some(&up_to.to_string())]).map(|_| ())
    }

    /// Lets the oldest events go until so many are left.
    pub fn keep_newest(&self, count: u64) -> Result<(), SqlError> {
        let delete = "DELETE FROM outbox
            WHERE n <= (SELECT MAX(n) FROM outbox) - CAST(? AS INTEGER)";
        self.sql.exec(delete, &[Some(&count.to_string())]).map(|_| ())
    }
}

pub(super) fn stored<T: DeserializeOwned>(body: &str) -> Result<T, SqlError> {
    serde_json::from_str(body).map_err(|e| SqlError(format!("telemetry: {e}")))
}

fn json(value: &impl Serialize) -> Result<String, SqlError> {
    serde_json::to_string(value).map_err(|e| SqlError(e.to_string()))
}
