//! The storage of the Alerts object: its tables and the statements on them. Decides nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::alerts::alert::Alert;
use tallygate_shared::alerts::detect::DetectorState;
use tallygate_shared::time::Timestamp;

use super::migrations::migrate;
use super::sql::{Row, Sql, SqlError, integer, text};

/// Alerts that are kept: 5,000 x about 2 KB. Resolved ones go first.
const KEPT_ALERTS: u64 = 5_000;
/// Deliveries that are kept once they ended: 10,000 x about 2 KB.
const KEPT_DELIVERIES: u64 = 10_000;

/// The schema, one step a version; a step is never edited once it shipped.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE applied (meter TEXT PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID, STRICT;
    CREATE TABLE detectors (
        detector TEXT NOT NULL, scope TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (detector, scope)
    ) WITHOUT ROWID, STRICT;
    CREATE TABLE alerts (
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, severity TEXT NOT NULL, state TEXT NOT NULL,
        present INTEGER NOT NULL, due_ms INTEGER, opened_ms INTEGER NOT NULL, body TEXT NOT NULL
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX alerts_by_opening ON alerts (opened_ms, id);
    CREATE INDEX alerts_due ON alerts (due_ms) WHERE due_ms IS NOT NULL;
    CREATE TABLE deliveries (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, receiver TEXT NOT NULL, alert TEXT NOT NULL,
        type TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL, due_ms INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, ended_ms INTEGER, status INTEGER, error TEXT, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX deliveries_due ON deliveries (receiver, due_ms) WHERE state = 'pending';
    CREATE TABLE gone (receiver TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID, STRICT;
"];

/// The states of an alert.
pub(crate) const STATES: [&str; 4] = ["open", "acknowledged", "snoozed", "resolved"];
/// How bad an alert may be.
pub(crate) const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];

/// How grave an alert is, in SQL: what is resolved comes last.
const RANK: &str = "CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END
    + CASE state WHEN 'resolved' THEN 3 ELSE 0 END";

/// Which alerts to list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsQuery {
    /// In this state.
    pub state: Option<String>,
    /// Of this severity.
    pub severity: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Those not resolved before the others, the gravest first; else the last opened first.
    pub gravest_first: bool,
    /// Behind this one.
    pub cursor: Option<String>,
    /// How many.
    pub limit: u64,
}

/// Which deliveries to list.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeliveriesQuery {
    /// To this receiver.
    pub receiver: Option<String>,
    /// `pending`, `delivered` or `failed`.
    pub state: Option<String>,
    /// Older than this.
    pub cursor: Option<String>,
    /// How many.
    pub limit: u64,
}

/// A message to send.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) receiver: String,
    pub(super) attempts: u32,
    pub(super) body: String,
}

/// The tables of one workspace's alerts.
pub(super) struct AlertsStore<S> {
    sql: S,
}

impl<S: Sql> AlertsStore<S> {
    pub(super) fn open(sql: S) -> Result<Self, SqlError> {
        migrate(&sql, MIGRATIONS)?;
        Ok(Self { sql })
    }

    pub(super) fn meta(&self, name: &str) -> Result<Option<String>, SqlError> {
        let rows = self.sql.exec("SELECT value FROM meta WHERE name = ?", &[Some(name)])?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    pub(super) fn set_meta(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meta (name, value) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.exec(upsert, &[Some(name), Some(value)]).map(|_| ())
    }

    pub(super) fn applied(&self, meter: &str) -> Result<u64, SqlError> {
        let select = "SELECT CAST(seq AS TEXT) FROM applied WHERE meter = ?";
        let rows = self.sql.exec(select, &[Some(meter)])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    pub(super) fn set_applied(&self, meter: &str, seq: u64) -> Result<(), SqlError> {
        let upsert = "INSERT INTO applied (meter, seq) VALUES (?, CAST(? AS INTEGER))
            ON CONFLICT (meter) DO UPDATE SET seq = excluded.seq";
        self.sql.exec(upsert, &[Some(meter), Some(&seq.to_string())]).map(|_| ())
    }

    pub(super) fn detectors(&self) -> Result<DetectorState, SqlError> {
        let mut state = DetectorState::default();
        for row in &self.sql.exec("SELECT detector, scope, body FROM detectors", &[])? {
            let loaded = state.load(text(row, 0)?, text(row, 1)?, text(row, 2)?);
            loaded.map_err(|e| SqlError(e.to_string()))?;
        }
        Ok(state)
    }

    pub(super) fn save_detectors(&self, state: &mut DetectorState) -> Result<(), SqlError> {
        for change in state.take_changes().map_err(|e| SqlError(e.to_string()))? {
            let name = [Some(change.detector), Some(change.scope.as_str())];
            if let Some(body) = &change.body {
                let upsert = "INSERT INTO detectors (detector, scope, body) VALUES (?, ?, ?)
                    ON CONFLICT (detector, scope) DO UPDATE SET body = excluded.body";
                let [detector, scope] = name;
                self.sql.exec(upsert, &[detector, scope, Some(body)])?;
            } else {
                let delete = "DELETE FROM detectors WHERE detector = ? AND scope = ?";
                self.sql.exec(delete, &name)?;
            }
        }
        Ok(())
    }

    pub(super) fn alert(&self, id: &str) -> Result<Option<Alert>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM alerts WHERE id = ?", &[Some(id)])?;
        rows.first().map(|row| stored(text(row, 0)?)).transpose()
    }

    pub(super) fn save_alert(&self, alert: &Alert) -> Result<(), SqlError> {
        let upsert = "INSERT INTO alerts (id, kind, severity, state, present, due_ms, opened_ms, body)
            VALUES (?, ?, ?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER), CAST(? AS INTEGER), ?)
            ON CONFLICT (id) DO UPDATE SET severity = excluded.severity, state = excluded.state,
                present = excluded.present, due_ms = excluded.due_ms, opened_ms = excluded.opened_ms,
                body = excluded.body";
        let body = serde_json::to_string(alert).map_err(|e| SqlError(e.to_string()))?;
        let present = if alert.present { "1" } else { "0" };
        let due = alert.due_at().map(|at| at.ms().to_string());
        let opened = alert.opened_at.ms().to_string();
        let severity = severity_name(alert)?;
        let params = [
            Some(alert.id.as_str()),
            Some(alert.kind.name()),
            Some(severity.as_str()),
            Some(alert.status.name()),
            Some(present),
            due.as_deref(),
            Some(&opened),
            Some(&body),
        ];
        self.sql.exec(upsert, &params).map(|_| ())
    }

    pub(super) fn due_alerts(&self, now: Timestamp) -> Result<Vec<Alert>, SqlError> {
        let select = "SELECT body FROM alerts WHERE due_ms <= CAST(? AS INTEGER) LIMIT 500";
        let rows = self.sql.exec(select, &[Some(&now.ms().to_string())])?;
        rows.iter().map(|row| stored(text(row, 0)?)).collect()
    }

    pub(super) fn present_alerts(&self) -> Result<Vec<Alert>, SqlError> {
        let rows = self.sql.exec("SELECT body FROM alerts WHERE present = 1", &[])?;
        rows.iter().map(|row| stored(text(row, 0)?)).collect()
    }

    pub(super) fn has_present(&self) -> Result<bool, SqlError> {
        let rows = self.sql.exec("SELECT '1' FROM alerts WHERE present = 1 LIMIT 1", &[])?;
        Ok(!rows.is_empty())
    }

    /// How many alerts are not resolved, by severity.
    pub(super) fn open_by_severity(&self) -> Result<BTreeMap<String, u64>, SqlError> {
        let count = "SELECT severity, CAST(COUNT(*) AS TEXT) FROM alerts
            WHERE state <> 'resolved' GROUP BY severity";
        let mut open: BTreeMap<String, u64> =
            SEVERITIES.map(|severity| (severity.to_owned(), 0)).into();
        for row in &self.sql.exec(count, &[])? {
            open.insert(text(row, 0)?.to_owned(), integer(row, 1)?);
        }
        Ok(open)
    }

    /// How many alerts there are of each severity in each state: everybody's, or one owner's.
    pub(super) fn counts(
        &self,
        owner: Option<&str>,
    ) -> Result<BTreeMap<String, BTreeMap<String, u64>>, SqlError> {
        let states = STATES.map(|state| (state.to_owned(), 0));
        let none: BTreeMap<String, u64> = states.into();
        let mut counts: BTreeMap<String, BTreeMap<String, u64>> =
            SEVERITIES.map(|severity| (severity.to_owned(), none.clone())).into();
        let count = "SELECT severity, state, CAST(COUNT(*) AS TEXT) FROM alerts
            WHERE ?1 IS NULL OR json_extract(body, '$.owner') = ?1 GROUP BY severity, state";
        for row in &self.sql.exec(count, &[owner])? {
            let of_severity = counts.entry(text(row, 0)?.to_owned()).or_default();
            of_severity.insert(text(row, 1)?.to_owned(), integer(row, 2)?);
        }
        Ok(counts)
    }

    /// Critical alerts that nobody took on, and alerts that somebody did something about.
    pub(super) fn handled(&self) -> Result<(u64, u64), SqlError> {
        let count = "SELECT
            CAST(COUNT(CASE WHEN severity = 'critical' AND state = 'open' AND present = 1 THEN 1 END) AS TEXT),
            CAST(COUNT(json_extract(body, '$.status.by')) AS TEXT) FROM alerts";
        let rows = self.sql.exec(count, &[])?;
        rows.first().map_or(Ok((0, 0)), |row| Ok((integer(row, 0)?, integer(row, 1)?)))
    }

    pub(super) fn list_alerts(&self, query: &AlertsQuery) -> Result<Value, SqlError> {
        // A cursor is `opened-id`, behind the rank where there is one.
        let (rank, cursor) = match (query.gravest_first, query.cursor.as_deref()) {
            (true, Some(text)) => text.split_once('-').unzip(),
            (_, cursor) => (Some("0"), cursor),
        };
        let (opened, id) = cursor.and_then(|text| text.split_once('-')).unzip();
        let (by_rank, prefix) =
            if query.gravest_first { (RANK, "rank || '-' || ") } else { ("0", "") };
        // One more than asked for says whether there is more.
        let limit = query.limit.clamp(1, 1_000);
        let select = format!(
            "SELECT body, {prefix}CAST(opened_ms AS TEXT) || '-' || id FROM (SELECT *, {by_rank} AS rank FROM alerts)
             WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR severity = ?2) AND (?3 IS NULL OR kind = ?3)
               AND (?6 IS NULL OR json_extract(body, '$.owner') = ?6)
               AND (?4 IS NULL OR (rank, -opened_ms, id) > (CAST(?7 AS INTEGER), -CAST(?4 AS INTEGER), ?5))
             ORDER BY rank, opened_ms DESC, id LIMIT {}",
            limit + 1
        );
        let params = [
            query.state.as_deref(),
            query.severity.as_deref(),
            query.kind.as_deref(),
            opened,
            id,
            query.owner.as_deref(),
            rank,
        ];
        let rows = self.sql.exec(&select, &params)?;
        page(&rows, limit, |row| Ok(shown(&stored(text(row, 0)?)?)))
    }

    pub(super) fn prune(&self, now: Timestamp) -> Result<(), SqlError> {
        let delete = format!(
            "DELETE FROM alerts WHERE id IN (SELECT id FROM alerts
             ORDER BY (state = 'resolved' AND present = 0), opened_ms DESC LIMIT 1000 OFFSET {KEPT_ALERTS})"
        );
        // The sort puts what is over behind what is not, the oldest last.
        self.sql.exec(&delete, &[])?;
        let week = now.plus_ms(-7 * tallygate_shared::time::DAY_MS).ms().to_string();
        let month = now.plus_ms(-30 * tallygate_shared::time::DAY_MS).ms().to_string();
        let old =
            "DELETE FROM deliveries WHERE (state = 'delivered' AND ended_ms < CAST(?1 AS INTEGER))
            OR (state = 'failed' AND ended_ms < CAST(?2 AS INTEGER))";
        self.sql.exec(old, &[Some(&week), Some(&month)])?;
        let surplus = format!(
            "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries WHERE state <> 'pending'
             ORDER BY seq DESC LIMIT 1000 OFFSET {KEPT_DELIVERIES})"
        );
        self.sql.exec(&surplus, &[]).map(|_| ())
    }

    pub(super) fn insert_message(
        &self,
        message: &Message,
        alert: &str,
        event_type: &str,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let insert = "INSERT INTO deliveries (id, receiver, alert, type, state, attempts, due_ms, created_ms, body)
            VALUES (?1, ?2, ?3, ?4, 'pending', 0, CAST(?5 AS INTEGER), CAST(?5 AS INTEGER), ?6)";
        let at = now.ms().to_string();
        let params = [&message.id, &message.receiver, alert, event_type, &at, &message.body];
        self.sql.exec(insert, &params.map(|param| Some(param as &str))).map(|_| ())
    }

    /// How many wait for a receiver.
    pub(super) fn waiting(&self, receiver: &str) -> Result<u64, SqlError> {
        let select = "SELECT CAST(COUNT(*) AS TEXT) FROM deliveries WHERE receiver = ? AND state = 'pending'";
        let rows = self.sql.exec(select, &[Some(receiver)])?;
        rows.first().map_or(Ok(0), |row| integer(row, 0))
    }

    /// The receiver's message that is due first.
    pub(super) fn due_message(
        &self,
        receiver: &str,
        now: Timestamp,
    ) -> Result<Option<Message>, SqlError> {
        let select = "SELECT id, receiver, CAST(attempts AS TEXT), body FROM deliveries
            WHERE receiver = ? AND state = 'pending' AND due_ms <= CAST(? AS INTEGER)
            ORDER BY due_ms, seq LIMIT 1";
        let rows = self.sql.exec(select, &[Some(receiver), Some(&now.ms().to_string())])?;
        rows.first().map(message_of).transpose()
    }

    pub(super) fn pending_message(&self, id: &str) -> Result<Option<Message>, SqlError> {
        let select = "SELECT id, receiver, CAST(attempts AS TEXT), body FROM deliveries
            WHERE id = ? AND state = 'pending'";
        let rows = self.sql.exec(select, &[Some(id)])?;
        rows.first().map(message_of).transpose()
    }

    /// An attempt begins: should its end never be heard, the message is due again at `until`.
    pub(super) fn lease(&self, id: &str, until: Timestamp) -> Result<(), SqlError> {
        let update = "UPDATE deliveries SET attempts = attempts + 1, due_ms = CAST(?2 AS INTEGER) WHERE id = ?1";
        self.sql.exec(update, &[Some(id), Some(&until.ms().to_string())]).map(|_| ())
    }

    /// An attempt ended: with the next one due, or in `state` for good.
    pub(super) fn attempt_ended(
        &self,
        id: &str,
        state: &str,
        at: Timestamp,
        status: Option<u16>,
        error: Option<&str>,
    ) -> Result<(), SqlError> {
        let update = "UPDATE deliveries SET state = ?2, status = CAST(?4 AS INTEGER), error = ?5,
                due_ms = CASE WHEN ?2 = 'pending' THEN CAST(?3 AS INTEGER) ELSE due_ms END,
                ended_ms = CASE WHEN ?2 = 'pending' THEN NULL ELSE CAST(?3 AS INTEGER) END
            WHERE id = ?1";
        let (at, status) = (at.ms().to_string(), status.map(|status| status.to_string()));
        let params = [Some(id), Some(state), Some(at.as_str()), status.as_deref(), error];
        self.sql.exec(update, &params).map(|_| ())
    }

    /// Parks all that waits for a receiver.
    pub(super) fn park(&self, receiver: &str, why: &str, now: Timestamp) -> Result<(), SqlError> {
        let update =
            "UPDATE deliveries SET state = 'failed', error = ?2, ended_ms = CAST(?3 AS INTEGER)
            WHERE receiver = ?1 AND state = 'pending'";
        self.sql.exec(update, &[Some(receiver), Some(why), Some(&now.ms().to_string())]).map(|_| ())
    }

    /// Receivers that something waits for.
    pub(super) fn awaited(&self) -> Result<Vec<String>, SqlError> {
        let select = "SELECT DISTINCT receiver FROM deliveries WHERE state = 'pending'";
        self.sql.exec(select, &[])?.iter().map(|row| text(row, 0).map(str::to_owned)).collect()
    }

    pub(super) fn next_due(&self) -> Result<Option<Timestamp>, SqlError> {
        let select = "SELECT CAST(MIN(due) AS TEXT) FROM (
            SELECT MIN(due_ms) AS due FROM deliveries WHERE state = 'pending'
            UNION ALL SELECT MIN(due_ms) FROM alerts WHERE due_ms IS NOT NULL)";
        let rows = self.sql.exec(select, &[])?;
        let due = rows.first().filter(|row| row.first().is_some_and(Option::is_some));
        due.map(|row| integer(row, 0).map(Timestamp::from_ms)).transpose()
    }

    pub(super) fn deliveries(
        &self,
        id: Option<&str>,
        query: &DeliveriesQuery,
    ) -> Result<Value, SqlError> {
        let limit = query.limit.clamp(1, 1_000);
        let select = format!(
            "SELECT json_object('id', id, 'receiver', receiver, 'alert', alert, 'type', type, 'state', state,
                'attempts', attempts, 'status', status, 'error', error),
                CAST(seq AS TEXT), CAST(created_ms AS TEXT), CAST(due_ms AS TEXT), CAST(ended_ms AS TEXT), state
             FROM deliveries
             WHERE (?1 IS NULL OR receiver = ?1) AND (?2 IS NULL OR state = ?2)
               AND (?3 IS NULL OR seq < CAST(?3 AS INTEGER)) AND (?4 IS NULL OR id = ?4)
             ORDER BY seq DESC LIMIT {}",
            limit + 1
        );
        let params =
            [query.receiver.as_deref(), query.state.as_deref(), query.cursor.as_deref(), id];
        let rows = self.sql.exec(&select, &params)?;
        page(&rows, limit, |row| {
            let mut shown: Value = stored(text(row, 0)?)?;
            let is_pending = text(row, 5)? == "pending";
            let moments = [("created_at", 2), ("next_attempt_at", 3), ("ended_at", 4)];
            for (name, column) in moments {
                let is_set = row.get(column).is_some_and(Option::is_some);
                if is_set && (name != "next_attempt_at" || is_pending) {
                    let at = Timestamp::from_ms(integer(row, column)?).to_string();
                    if let Some(fields) = shown.as_object_mut() {
                        fields.insert(name.to_owned(), at.into());
                    }
                }
            }
            if let Some(fields) = shown.as_object_mut() {
                fields.retain(|_, value| !value.is_null());
            }
            Ok(shown)
        })
    }

    /// Sends a message again, from the first attempt on. False when there is none that ended.
    pub(super) fn redeliver(&self, id: &str, now: Timestamp) -> Result<bool, SqlError> {
        let update =
            "UPDATE deliveries SET state = 'pending', attempts = 0, due_ms = CAST(?2 AS INTEGER),
                ended_ms = NULL, error = NULL, status = NULL
            WHERE id = ?1 AND state <> 'pending' RETURNING '1'";
        let rows = self.sql.exec(update, &[Some(id), Some(&now.ms().to_string())])?;
        Ok(!rows.is_empty())
    }

    pub(super) fn gone(&self) -> Result<Vec<String>, SqlError> {
        let rows = self.sql.exec("SELECT receiver FROM gone", &[])?;
        rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect()
    }

    pub(super) fn set_gone(&self, receiver: &str, now: Timestamp) -> Result<(), SqlError> {
        let insert = "INSERT OR REPLACE INTO gone (receiver, at_ms) VALUES (?, CAST(? AS INTEGER))";
        self.sql.exec(insert, &[Some(receiver), Some(&now.ms().to_string())]).map(|_| ())
    }

    pub(super) fn set_back(&self, receiver: &str) -> Result<(), SqlError> {
        self.sql.exec("DELETE FROM gone WHERE receiver = ?", &[Some(receiver)]).map(|_| ())
    }
}

fn message_of(row: &Row) -> Result<Message, SqlError> {
    Ok(Message {
        id: text(row, 0)?.to_owned(),
        receiver: text(row, 1)?.to_owned(),
        attempts: integer(row, 2)?,
        body: text(row, 3)?.to_owned(),
    })
}

fn stored<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, SqlError> {
    serde_json::from_str(body).map_err(|e| SqlError(format!("stored alert: {e}")))
}

fn severity_name(alert: &Alert) -> Result<String, SqlError> {
    let name = serde_json::to_value(alert.severity).map_err(|e| SqlError(e.to_string()))?;
    Ok(name.as_str().unwrap_or_default().to_owned())
}

/// An alert as the API shows it: moments as text.
pub(super) fn shown(alert: &Alert) -> Value {
    let mut shown = serde_json::to_value(alert).unwrap_or_default();
    moments(&mut shown, &["first_seen", "last_seen", "opened_at"]);
    if let Some(status) = shown.get_mut("status") {
        moments(status, &["at", "until"]);
    }
    shown
}

fn moments(value: &mut Value, names: &[&str]) {
    for name in names {
        if let Some(field) = value.get_mut(*name)
            && let Some(ms) = field.as_i64()
        {
            *field = Timestamp::from_ms(ms).to_string().into();
        }
    }
}

/// A page of rows whose second column is their cursor.
fn page(
    rows: &[Row],
    limit: u64,
    show: impl Fn(&Row) -> Result<Value, SqlError>,
) -> Result<Value, SqlError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let data: Vec<Value> = rows.iter().take(limit).map(show).collect::<Result<_, _>>()?;
    let mut page = json!({ "data": data });
    if rows.len() > limit
        && let (Some(last), Some(fields)) =
            (limit.checked_sub(1).and_then(|last| rows.get(last)), page.as_object_mut())
    {
        fields.insert("next_cursor".to_owned(), text(last, 1)?.into());
    }
    Ok(page)
}
