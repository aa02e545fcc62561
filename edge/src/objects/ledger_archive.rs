//! The archive of a Ledger: which events lie in which immutable part, and what is due.
//!
//! A part is planned (a row here says which events, and the hash of their lines), written (the bucket has it), released
//! (the Ledger has let its events go) and, in the end, expired. Each step is a transaction of its own, and the shell puts
//! or deletes in between: a step that is taken again does the same again, so that a crash anywhere loses nothing. What a
//! part holds is fixed when it is planned: every event up to the place that planning has come to is in a part, except
//! late ones, which are listed until they have a part of their own.
//!
//! Without a bucket nothing is planned, and the Ledger lets its oldest events go when there are too many.

use serde::Serialize;
use serde_json::{Value, json};
use tallygate_shared::time::{DAY_MS, HOUR_MS, Timestamp};

use super::archive_part::{
    PART_EVENTS, Part, Place, closes_at, front, name_of, open_hour, sha256_of,
};
use super::ledger_object::{LedgerObject, parsed};
use super::ledger_requests::RequestQuery;
use super::sql::{Row, Sql, SqlError, integer, text};

/// Late events wait for others so long: each sweep makes at most a part of each hour that has some.
const SWEEP_MS: i64 = HOUR_MS;
/// First and longest wait after the bucket failed.
const RETRY_FLOOR_MS: i64 = 1_000;
const RETRY_CEILING_MS: i64 = 15 * 60 * 1_000;
/// What is kept of an error's text.
const MAX_ERROR: usize = 300;

/// The step of the schema that brings the archive.
pub(super) const ARCHIVE: &str = "
    CREATE TABLE archive_progress (
        one INTEGER PRIMARY KEY CHECK (one = 1), to_id TEXT NOT NULL, to_key TEXT NOT NULL,
        swept_at_ms INTEGER NOT NULL, asked_at_ms INTEGER NOT NULL, not_before_ms INTEGER NOT NULL,
        failures INTEGER NOT NULL, failed INTEGER NOT NULL, error TEXT
    ) STRICT;
    INSERT INTO archive_progress VALUES (1, '', '', 0, 0, 0, 0, 0, NULL);
    CREATE TABLE archive_parts (
        n INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, hour_ms INTEGER NOT NULL, late INTEGER NOT NULL,
        first_id TEXT NOT NULL, first_key TEXT NOT NULL, last_id TEXT NOT NULL, last_key TEXT NOT NULL,
        events INTEGER NOT NULL, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('planned', 'written', 'released', 'expired'))
    ) STRICT;
    CREATE INDEX archive_parts_by_state ON archive_parts (state, first_id, first_key);
    CREATE TABLE archive_late (
        id TEXT NOT NULL, key TEXT NOT NULL, part INTEGER, PRIMARY KEY (id, key)
    ) WITHOUT ROWID, STRICT;
    CREATE INDEX archive_late_waiting ON archive_late (id, key) WHERE part IS NULL
";

/// The step of the schema that remembers when the bucket last took a part.
pub(super) const WRITTEN_AT: &str =
    "ALTER TABLE archive_progress ADD COLUMN written_at_ms INTEGER NOT NULL DEFAULT 0";

/// What a Ledger may hold, and whether there is a bucket for the rest.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events that stay one by one.
    pub kept_events: u64,
    /// Whether the archive's bucket is bound.
    pub has_archive: bool,
}

/// What the shell does next for the archive.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Job {
    /// Put these lines, compressed, under the part's name, where nothing is. Then [`LedgerObject::written`].
    Write {
        /// The part.
        part: Part,
        /// Its lines.
        lines: String,
    },
    /// Delete the object of this name. Then [`LedgerObject::deleted`].
    Delete {
        /// The part's number.
        n: u64,
        /// Its name.
        name: String,
    },
    /// Ask the workspace for how many days the archive keeps events. Then [`LedgerObject::expire`].
    AskDays,
}

/// How far the archive has come.
#[derive(Debug)]
pub(super) struct Progress {
    to: Place,
    swept_at: i64,
    asked_at: i64,
    not_before: i64,
    /// What failed since something last went well.
    pub(super) failures: u32,
    /// What failed since the month began.
    pub(super) failed: u64,
    /// What the last failure said.
    pub(super) error: Option<String>,
    /// When the bucket last took a part.
    pub(super) written_at: Option<Timestamp>,
}

struct Stored {
    part: Part,
    late: bool,
}

const PART: &str =
    "CAST(n AS TEXT), name, first_id, first_key, last_id, last_key, CAST(events AS TEXT), sha256,
    CAST(late AS TEXT)";
/// The events of a part that is no late one.
const IN_SPAN: &str = "(id, key) >= (?, ?) AND (id, key) <= (?, ?)
    AND NOT EXISTS (SELECT 1 FROM archive_late AS l WHERE l.id = events.id AND l.key = events.key)";
/// The events of a late part.
const LISTED: &str =
    "(id, key) IN (SELECT id, key FROM archive_late WHERE part = CAST(? AS INTEGER))";

impl<S: Sql> LedgerObject<S> {
    /// Remembers an event that comes behind the planning: it gets a further part.
    pub(super) fn note_late(&self, id: &str, key: &str) -> Result<(), SqlError> {
        let insert = "INSERT INTO archive_late (id, key) SELECT ?, ? FROM archive_progress
            WHERE (?, ?) <= (to_id, to_key)";
        self.exec(insert, &[id, key, id, key].map(Some)).map(|_| ())
    }

    /// What is to be done now, for the Ledger of this name; `None`: nothing.
    pub fn archive(&self, ledger: &str, now: Timestamp) -> Result<Option<Job>, SqlError> {
        let progress = self.progress()?;
        if !self.limits.has_archive || now.ms() < progress.not_before {
            return Ok(None);
        }
        while let Some(stored) = self.one_part("state = 'planned'")? {
            let lines = self.lines_of(&stored)?;
            if stored.part.is(&lines) {
                return Ok(Some(Job::Write { part: stored.part, lines }));
            }
            self.abandon(&stored)?;
        }
        if let Some((part, lines)) = self.plan(ledger, &progress, now)? {
            return Ok(Some(Job::Write { part, lines }));
        }
        if let Some(Stored { part, .. }) = self.one_part("state = 'expired'")? {
            return Ok(Some(Job::Delete { n: part.n, name: part.name }));
        }
        let ask = progress.asked_at.saturating_add(DAY_MS) <= now.ms() && self.has_parts()?;
        Ok(ask.then_some(Job::AskDays))
    }

    /// When [`Self::archive`] is to be asked next.
    pub fn archive_at(&self) -> Result<Option<Timestamp>, SqlError> {
        if !self.limits.has_archive {
            return Ok(None);
        }
        let progress = self.progress()?;
        let waits = |query: &str| Ok::<_, SqlError>(!self.exec(query, &[])?.is_empty());
        let mut due = Vec::new();
        if self.one_part("state IN ('planned', 'expired')")?.is_some() {
            due.push(0);
        }
        if let Some(next) = self.first_behind(&progress.to)? {
            due.push(closes_at(next.hour()).ms());
        }
        if waits("SELECT id FROM archive_late WHERE part IS NULL LIMIT 1")? {
            due.push(progress.swept_at.saturating_add(SWEEP_MS));
        }
        if self.has_parts()? {
            due.push(progress.asked_at.saturating_add(DAY_MS));
        }
        let earliest = due.into_iter().min();
        Ok(earliest.map(|at| Timestamp::from_ms(at.max(progress.not_before))))
    }

    /// Plans the next part: of closed hours first; when those are all planned, of late events.
    fn plan(
        &self,
        ledger: &str,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<Option<(Part, String)>, SqlError> {
        let open = Place::before(open_hour(now));
        let sweep_is_due = progress.swept_at.saturating_add(SWEEP_MS) <= now.ms();
        match self.first_behind(&progress.to)?.filter(|first| *first < open) {
            Some(first) => {
                let end = Place::before(first.hour().plus_ms(HOUR_MS));
                let select = format!(
                    "SELECT id, key, body FROM events WHERE (id, key) > (?, ?) AND (id, key) < (?, ?)
                     ORDER BY id, key LIMIT {PART_EVENTS}"
                );
                let to = &progress.to;
                let params = [&to.id, &to.key, &end.id, &end.key].map(|text| Some(text.as_str()));
                let planned = self.plan_rows(ledger, &self.exec(&select, &params)?, false)?;
                if let Some((part, _)) = &planned {
                    self.come_to(&part.last)?;
                }
                Ok(planned)
            }
            None => {
                // All closed hours are planned: what still comes of them is late.
                if progress.to < open {
                    self.come_to(&open)?;
                }
                if !sweep_is_due {
                    return Ok(None);
                }
                let planned = self.plan_late(ledger)?;
                if planned.is_none() {
                    self.set("swept_at_ms", now.ms())?;
                }
                Ok(planned)
            }
        }
    }

    fn plan_late(&self, ledger: &str) -> Result<Option<(Part, String)>, SqlError> {
        let first = "SELECT id, key FROM archive_late WHERE part IS NULL ORDER BY id, key LIMIT 1";
        let Some(first) = self.exec(first, &[])?.first().map(|row| place(row, 0)).transpose()?
        else {
            return Ok(None);
        };
        let end = Place::before(first.hour().plus_ms(HOUR_MS));
        let select = format!(
            "SELECT e.id, e.key, e.body FROM archive_late AS l JOIN events AS e ON e.id = l.id AND e.key = l.key
             WHERE l.part IS NULL AND l.id < ? ORDER BY l.id, l.key LIMIT {PART_EVENTS}"
        );
        let planned = self.plan_rows(ledger, &self.exec(&select, &[Some(&end.id)])?, true)?;
        if let Some((part, _)) = &planned {
            let update = "UPDATE archive_late SET part = CAST(? AS INTEGER) WHERE part IS NULL
                AND (id, key) <= (?, ?)";
            let n = part.n.to_string();
            self.exec(update, &[&n, &part.last.id, &part.last.key].map(|p| Some(p.as_str())))?;
        }
        Ok(planned)
    }

    /// Writes the row of a part down that begins with the first of these events, as many as fit.
    fn plan_rows(
        &self,
        ledger: &str,
        rows: &[Row],
        late: bool,
    ) -> Result<Option<(Part, String)>, SqlError> {
        let bodies: Vec<&str> =
            rows.iter().map(|row| text(row, 2)).collect::<Result<_, SqlError>>()?;
        let (count, lines) = front(bodies.into_iter());
        let ends = (rows.first(), count.checked_sub(1).and_then(|last| rows.get(last)));
        let (Some(first), Some(last)) = ends else { return Ok(None) };
        let (first, last) = (place(first, 0)?, place(last, 0)?);
        let sha256 = sha256_of(&lines);
        let hour = first.hour();
        let insert = "INSERT INTO archive_parts (name, hour_ms, late, first_id, first_key, last_id, last_key, events,
                bytes, sha256, size, state)
            VALUES ('', CAST(? AS INTEGER), CAST(? AS INTEGER), ?, ?, ?, ?, CAST(? AS INTEGER), CAST(? AS INTEGER), ?,
                0, 'planned') RETURNING CAST(n AS TEXT)";
        let numbers = [hour.ms().to_string(), u8::from(late).to_string()];
        let sizes = [count.to_string(), lines.len().to_string()];
        let [at, late] = &numbers;
        let [events, bytes] = &sizes;
        let params = [at, late, &first.id, &first.key, &last.id, &last.key, events, bytes, &sha256];
        let inserted = self.exec(insert, &params.map(|text| Some(text.as_str())))?;
        let row = inserted.first().ok_or_else(|| SqlError("a part has no number".into()))?;
        let n = integer(row, 0)?;
        let name = name_of(ledger, hour, n, &sha256);
        let update = "UPDATE archive_parts SET name = ? WHERE n = CAST(? AS INTEGER)";
        self.exec(update, &[Some(&name), Some(text(row, 0)?)])?;
        let events = u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Some((Part { n, name, first, last, events, sha256 }, lines)))
    }

    /// The lines of a part whose events are still here.
    fn lines_of(&self, Stored { part, late }: &Stored) -> Result<String, SqlError> {
        let clause = if *late { LISTED } else { IN_SPAN };
        let select = format!("SELECT body FROM events WHERE {clause} ORDER BY id, key");
        let mut lines = String::new();
        for row in self.exec(&select, &events_of(part, *late, &part.n.to_string()))? {
            lines.push_str(text(&row, 0)?);
            lines.push('\n');
        }
        Ok(lines)
    }

    /// A planned part whose events were let go of, while there was no bucket. What is left of it counts as late.
    fn abandon(&self, Stored { part, late }: &Stored) -> Result<(), SqlError> {
        let n = part.n.to_string();
        if *late {
            let update = "UPDATE archive_late SET part = NULL WHERE part = CAST(? AS INTEGER)";
            self.exec(update, &[Some(&n)])?;
        } else {
            let insert = format!(
                "INSERT INTO archive_late (id, key) SELECT id, key FROM events WHERE {IN_SPAN}"
            );
            self.exec(&insert, &events_of(part, false, &n))?;
        }
        self.exec("DELETE FROM archive_parts WHERE n = CAST(? AS INTEGER)", &[Some(&n)])?;
        self.forget_late()
    }

    /// Forgets late events that are gone.
    pub(super) fn forget_late(&self) -> Result<(), SqlError> {
        let delete = "DELETE FROM archive_late WHERE NOT EXISTS
            (SELECT 1 FROM events AS e WHERE e.id = archive_late.id AND e.key = archive_late.key)";
        self.exec(delete, &[]).map(|_| ())
    }

    /// The bucket has a part, in so many bytes. Its events may go when there are too many.
    pub fn written(&self, n: u64, size: u64, now: Timestamp) -> Result<(), SqlError> {
        let update = "UPDATE archive_parts SET state = 'written', size = CAST(? AS INTEGER)
            WHERE n = CAST(? AS INTEGER) AND state = 'planned'";
        self.exec(update, &[Some(&size.to_string()), Some(&n.to_string())])?;
        self.set("written_at_ms", now.ms())?;
        self.succeeded()?;
        self.prune(self.limits.kept_events)
    }

    /// The bucket has an expired part no longer.
    pub fn deleted(&self, n: u64) -> Result<(), SqlError> {
        let delete = "DELETE FROM archive_parts WHERE n = CAST(? AS INTEGER) AND state = 'expired'";
        self.exec(delete, &[Some(&n.to_string())])?;
        self.succeeded()
    }

    /// Something did not succeed. It is tried again, after a longer wait each time.
    pub fn archive_failed(&self, error: &str, now: Timestamp) -> Result<(), SqlError> {
        let failures = self.progress()?.failures.saturating_add(1);
        let wait = RETRY_FLOOR_MS.saturating_mul(1_i64 << failures.min(20)).min(RETRY_CEILING_MS);
        let error: String = error.chars().take(MAX_ERROR).collect();
        let update =
            "UPDATE archive_progress SET failures = CAST(? AS INTEGER), failed = failed + 1,
            not_before_ms = CAST(? AS INTEGER), error = ?";
        let (failures, until) = (failures.to_string(), now.plus_ms(wait).ms().to_string());
        self.exec(update, &[Some(&failures), Some(&until), Some(&error)]).map(|_| ())
    }

    fn succeeded(&self) -> Result<(), SqlError> {
        let update = "UPDATE archive_progress SET failures = 0, not_before_ms = 0, error = NULL
            WHERE failures > 0";
        self.exec(update, &[]).map(|_| ())
    }

    /// Lets everything go that is older than so many days: what the object has of it now, and the bucket's objects next.
    pub fn expire(&self, days: u32, now: Timestamp) -> Result<(), SqlError> {
        let before = now.plus_ms(-i64::from(days).saturating_mul(DAY_MS).saturating_add(HOUR_MS));
        let before = before.ms().to_string();
        let old = "state = 'written' AND hour_ms <= CAST(? AS INTEGER)";
        for row in
            self.exec(&format!("SELECT {PART} FROM archive_parts WHERE {old}"), &[Some(&before)])?
        {
            self.release(&stored(&row)?)?;
        }
        let old = "state = 'released' AND hour_ms <= CAST(? AS INTEGER)";
        // An export must know what is no longer there.
        let mark = format!(
            "INSERT INTO marks (name, value) SELECT 'pruned_to', last FROM
                (SELECT MAX(last_id) AS last FROM archive_parts WHERE {old}) WHERE last IS NOT NULL
             ON CONFLICT (name) DO UPDATE SET value = MAX(value, excluded.value)"
        );
        self.exec(&mark, &[Some(&before)])?;
        let update = format!("UPDATE archive_parts SET state = 'expired' WHERE {old}");
        self.exec(&update, &[Some(&before)])?;
        self.set("asked_at_ms", now.ms())?;
        self.succeeded()
    }

    /// Lets the oldest archived events go: whole parts, until so many are gone. Returns how many are.
    pub(super) fn release_oldest(&self, excess: u64) -> Result<u64, SqlError> {
        let mut gone = 0_u64;
        while gone < excess {
            let Some(oldest) = self.one_part("state = 'written'")? else { break };
            self.release(&oldest)?;
            gone = gone.saturating_add(oldest.part.events);
        }
        Ok(gone)
    }

    fn release(&self, Stored { part, late }: &Stored) -> Result<(), SqlError> {
        let (n, events) = (part.n.to_string(), part.events.to_string());
        let clause = if *late { LISTED } else { IN_SPAN };
        self.let_go(clause, &events_of(part, *late, &n))?;
        if *late {
            let delete = "DELETE FROM archive_late WHERE part = CAST(? AS INTEGER)";
            self.exec(delete, &[Some(&n)])?;
        }
        let update = "UPDATE archive_parts SET state = 'released' WHERE n = CAST(? AS INTEGER)";
        self.exec(update, &[Some(&n)])?;
        self.exec("UPDATE totals SET kept = kept - CAST(? AS INTEGER)", &[Some(&events)])
            .map(|_| ())
    }

    /// Parts that alone have the events behind one place, up to another.
    pub(super) fn released(&self, after: &Place, until: &Place) -> Result<Vec<Part>, SqlError> {
        let select = format!(
            "SELECT {PART} FROM archive_parts WHERE state = 'released'
                AND (last_id, last_key) > (?, ?) AND (first_id, first_key) <= (?, ?)
             ORDER BY first_id, first_key"
        );
        let params = [&after.id, &after.key, &until.id, &until.key].map(|text| Some(text.as_str()));
        let rows = self.exec(&select, &params)?;
        rows.iter().map(|row| Ok(stored(row)?.part)).collect()
    }

    /// A request's record, or the parts that may have it.
    pub(super) fn request(&self, query: &RequestQuery) -> Result<Value, SqlError> {
        let id = query.id.as_str();
        let select = "SELECT body FROM events WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)";
        let rows = self.exec(select, &[Some(id), query.owner.as_deref()])?;
        let bodies: Vec<Value> =
            rows.iter().map(|row| parsed(row, 0)).collect::<Result<_, SqlError>>()?;
        if !bodies.is_empty() {
            return Ok(json!({ "data": bodies }));
        }
        let select = format!(
            "SELECT {PART} FROM archive_parts WHERE state = 'released' AND first_id <= ? AND last_id >= ?"
        );
        let rows = self.exec(&select, &[Some(id), Some(id)])?;
        let parts: Vec<Part> =
            rows.iter().map(|row| Ok(stored(row)?.part)).collect::<Result<_, SqlError>>()?;
        Ok(json!({ "data": [], "parts": parts }))
    }

    pub(super) fn progress(&self) -> Result<Progress, SqlError> {
        let select = "SELECT to_id, to_key, CAST(swept_at_ms AS TEXT), CAST(asked_at_ms AS TEXT),
            CAST(not_before_ms AS TEXT), CAST(failures AS TEXT), CAST(failed AS TEXT), error,
            CAST(written_at_ms AS TEXT) FROM archive_progress";
        let rows = self.exec(select, &[])?;
        let row = rows.first().ok_or_else(|| SqlError("the archive has no progress".to_owned()))?;
        Ok(Progress {
            to: place(row, 0)?,
            swept_at: integer(row, 2)?,
            asked_at: integer(row, 3)?,
            not_before: integer(row, 4)?,
            failures: integer(row, 5)?,
            failed: integer(row, 6)?,
            error: row.get(7).cloned().flatten(),
            written_at: Some(integer(row, 8)?).filter(|ms| *ms > 0).map(Timestamp::from_ms),
        })
    }

    fn come_to(&self, to: &Place) -> Result<(), SqlError> {
        let update = "UPDATE archive_progress SET to_id = ?, to_key = ?";
        self.exec(update, &[Some(&to.id), Some(&to.key)]).map(|_| ())
    }

    fn set(&self, column: &'static str, ms: i64) -> Result<(), SqlError> {
        let update = format!("UPDATE archive_progress SET {column} = CAST(? AS INTEGER)");
        self.exec(&update, &[Some(&ms.to_string())]).map(|_| ())
    }

    /// The hour of the first event that no part is planned for.
    pub(super) fn first_unplanned(&self) -> Result<Option<Timestamp>, SqlError> {
        let first = self.first_behind(&self.progress()?.to)?;
        Ok(first.map(|place| place.hour()))
    }

    fn first_behind(&self, to: &Place) -> Result<Option<Place>, SqlError> {
        let select = "SELECT id, key FROM events WHERE (id, key) > (?, ?) ORDER BY id, key LIMIT 1";
        let rows = self.exec(select, &[Some(&to.id), Some(&to.key)])?;
        rows.first().map(|row| place(row, 0)).transpose()
    }

    fn has_parts(&self) -> Result<bool, SqlError> {
        Ok(!self.exec("SELECT 'x' FROM archive_parts LIMIT 1", &[])?.is_empty())
    }

    fn one_part(&self, condition: &'static str) -> Result<Option<Stored>, SqlError> {
        let select = format!(
            "SELECT {PART} FROM archive_parts WHERE {condition} ORDER BY first_id, first_key, n LIMIT 1"
        );
        self.exec(&select, &[])?.first().map(stored).transpose()
    }
}

/// The parameters of [`LISTED`] or [`IN_SPAN`].
fn events_of<'a>(part: &'a Part, late: bool, n: &'a str) -> Vec<Option<&'a str>> {
    if late {
        return vec![Some(n)];
    }
    let ends = [&part.first.id, &part.first.key, &part.last.id, &part.last.key];
    ends.map(|text| Some(text.as_str())).to_vec()
}

fn stored(row: &Row) -> Result<Stored, SqlError> {
    let part = Part {
        n: integer(row, 0)?,
        name: text(row, 1)?.to_owned(),
        first: place(row, 2)?,
        last: place(row, 4)?,
        events: integer(row, 6)?,
        sha256: text(row, 7)?.to_owned(),
    };
    Ok(Stored { part, late: text(row, 8)? == "1" })
}

fn place(row: &Row, column: usize) -> Result<Place, SqlError> {
    Ok(Place {
        id: text(row, column)?.to_owned(),
        key: text(row, column.saturating_add(1))?.to_owned(),
    })
}
