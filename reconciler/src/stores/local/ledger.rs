//! The ledger in one SQLite file. Every change is one `IMMEDIATE` transaction: SQLite lets one process write at a time,
//! and a change is on disk before anybody hears of it (`synchronous=FULL`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use tallygate_shared::time::Timestamp;

use super::blocking;
use crate::ledger::{LineId, Revision, UnitId};
use crate::ports::{Appended, Lease, LedgerStore, RunId, RunState, StoreError};
use crate::stores::names::{
    check_mark, check_month, check_name, check_page, check_unit, read_json, row_json, state_json,
};

const STORE: &str = "the local ledger";
/// Longer than any transaction of another process takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// "Tall" in ASCII: the file is ours.
const APPLICATION: i64 = 0x5461_6c6c;
const VERSION: i64 = 1;

/// `seen` is the newest pull that stood behind a line's newest revision, be it that it only said the same again.
const SCHEMA: &str = "
CREATE TABLE lines (
    workspace TEXT NOT NULL, month TEXT NOT NULL, day TEXT NOT NULL, provider TEXT NOT NULL, line TEXT NOT NULL,
    rev INTEGER NOT NULL, seen TEXT NOT NULL, hash TEXT NOT NULL,
    PRIMARY KEY (workspace, month, day, provider, line)
) STRICT, WITHOUT ROWID;
CREATE TABLE revisions (
    workspace TEXT NOT NULL, day TEXT NOT NULL, provider TEXT NOT NULL, line TEXT NOT NULL, rev INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (workspace, day, provider, line, rev)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER revisions_stay BEFORE UPDATE ON revisions BEGIN SELECT RAISE(ABORT, 'a revision is never changed'); END;
CREATE TRIGGER revisions_last BEFORE DELETE ON revisions BEGIN SELECT RAISE(ABORT, 'a revision is never deleted'); END;
CREATE TABLE numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE runs (
    name TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT, until INTEGER NOT NULL, done INTEGER NOT NULL,
    state TEXT
) STRICT;
CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// A [`LedgerStore`] in one file.
#[derive(Clone, Debug)]
pub struct LocalLedger {
    connection: Arc<Mutex<Connection>>,
}

impl LocalLedger {
    /// Opens the ledger, and makes it if there is none.
    pub async fn open(file: &Path) -> Result<Self, StoreError> {
        let file = file.to_owned();
        blocking(STORE, move || {
            let connection = connect(&file)?;
            Ok(Self { connection: Arc::new(Mutex::new(connection)) })
        })
        .await
    }

    /// One transaction. It counts only if `work` succeeds.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.clone();
        blocking(STORE, move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(failed)?;
            let out = work(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(out)
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = self.connection.clone();
        blocking(STORE, move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
    }
}

fn connect(file: &PathBuf) -> Result<Connection, StoreError> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory).map_err(|error| StoreError::Failed {
            store: STORE,
            reason: format!("cannot make {}: {error}", directory.display()),
        })?;
    }
    let opened = || -> rusqlite::Result<(Connection, i64, i64)> {
        let mut connection = Connection::open(file)?;
        connection.busy_timeout(PATIENCE)?;
        // Changing the mode needs the file alone for a moment, and does not wait by itself.
        let mut attempts = 0;
        while let Err(error) = connection.pragma_update(None, "journal_mode", "WAL") {
            attempts += 1;
            if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || attempts > 200 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let tables: i64 =
            transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables == 0 {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
        }
        let (application, version) = (pragma("application_id")?, pragma("user_version")?);
        transaction.commit()?;
        Ok((connection, application, version))
    };
    let (connection, application, version) = opened().map_err(failed)?;
    let damaged = |reason: String| {
        Err(StoreError::Damaged { store: STORE, key: file.display().to_string(), reason })
    };
    match (application, version) {
        (APPLICATION, VERSION) => Ok(connection),
        (APPLICATION, other) => damaged(format!(
            "it has format {other}, this program knows {VERSION}: run the program that wrote it"
        )),
        _ => damaged("it is another program's database: name another directory".to_owned()),
    }
}

fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            StoreError::Unavailable { store: STORE, reason: error.to_string() }
        }
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => {
            StoreError::Denied {
                store: STORE,
                action: "to open its file for writing".to_owned(),
                reason: error.to_string(),
            }
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged {
            store: STORE,
            key: "ledger".to_owned(),
            reason: error.to_string(),
        },
        _ => StoreError::Failed { store: STORE, reason: error.to_string() },
    }
}

/// What is known of a line's newest revision. `seen` is text: SQLite's integers end at 2^63.
struct Newest {
    rev: u32,
    seen: u64,
    hash: String,
}

fn newest_of(row: &Row<'_>) -> rusqlite::Result<Newest> {
    let seen: String = row.get(1)?;
    let seen = seen.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Newest { rev: row.get(0)?, seen, hash: row.get(2)? })
}

fn append(
    to: &Transaction<'_>,
    row: &Revision,
    digest: &str,
    hash: &str,
) -> Result<Appended, StoreError> {
    let UnitId { workspace, day, provider } = &row.unit;
    let newest = to
        .prepare_cached(
            "SELECT rev, seen, hash FROM lines
             WHERE workspace = ?1 AND month = substr(?2, 1, 7) AND day = ?2 AND provider = ?3 AND line = ?4",
        )
        .and_then(|mut query| {
            query.query_row(params![workspace, day, provider, digest], newest_of).optional()
        })
        .map_err(failed)?;
    let rev = match &newest {
        Some(newest) if newest.hash == hash => {
            if newest.seen < row.seq {
                note(to, row, digest, (newest.rev, hash))?;
            }
            return Ok(Appended::Unchanged);
        }
        Some(newest) if newest.seen > row.seq => return Ok(Appended::Stale(newest.seen)),
        Some(newest) => newest.rev.checked_add(1),
        None => Some(1),
    };
    let rev = rev.ok_or_else(|| StoreError::Failed {
        store: STORE,
        reason: format!("a line of {} has no numbers left for revisions", row.unit),
    })?;
    let body = row_json(STORE, row, rev)?;
    to.prepare_cached("INSERT INTO revisions VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .and_then(|mut query| query.execute(params![workspace, day, provider, digest, rev, body]))
        .map_err(failed)?;
    note(to, row, digest, (rev, hash))?;
    Ok(Appended::Written(rev))
}

/// Notes what a line's newest revision is.
fn note(
    to: &Transaction<'_>,
    row: &Revision,
    digest: &str,
    (rev, hash): (u32, &str),
) -> Result<(), StoreError> {
    let UnitId { workspace, day, provider } = &row.unit;
    let seen = row.seq.to_string();
    to.prepare_cached(
        "INSERT OR REPLACE INTO lines VALUES (?1, substr(?2, 1, 7), ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .and_then(|mut query| query.execute(params![workspace, day, provider, digest, rev, seen, hash]))
    .map_err(failed)?;
    Ok(())
}

/// A run as stored.
struct Run {
    token: u64,
    holder: Option<String>,
    until: i64,
    done: bool,
    state: Option<String>,
}

fn run_of(from: &Connection, run: &RunId) -> Result<Option<Run>, StoreError> {
    from.query_row(
        "SELECT token, holder, until, done, state FROM runs WHERE name = ?1",
        [&run.0],
        |row| {
            Ok(Run {
                token: row.get(0)?,
                holder: row.get(1)?,
                until: row.get(2)?,
                done: row.get(3)?,
                state: row.get(4)?,
            })
        },
    )
    .optional()
    .map_err(failed)
}

fn read_state(run: &RunId, text: Option<&str>) -> Result<Option<RunState>, StoreError> {
    text.map(|text| read_json(STORE, &run.0, text)).transpose()
}

fn take_lease(
    to: &Transaction<'_>,
    run: &RunId,
    holder: &str,
    (now, until): (Timestamp, Timestamp),
) -> Result<Lease, StoreError> {
    let old = run_of(to, run)?;
    if let Some(old) = &old {
        if old.done {
            return Ok(Lease::Done(read_state(run, old.state.as_deref())?.unwrap_or_default()));
        }
        let others = old.holder.as_deref().is_some_and(|other| other != holder);
        if others && old.until > now.ms() {
            return Ok(Lease::Held { until: Timestamp::from_ms(old.until) });
        }
    }
    let token = old.as_ref().map_or(0, |old| old.token).saturating_add(1);
    to.execute(
        "INSERT INTO runs VALUES (?1, ?2, ?3, ?4, 0, NULL)
         ON CONFLICT (name) DO UPDATE SET token = ?2, holder = ?3, until = ?4",
        params![run.0, token, holder, until.ms()],
    )
    .map_err(failed)?;
    let state = read_state(run, old.and_then(|old| old.state).as_deref())?;
    Ok(Lease::Granted { token, state })
}

#[async_trait]
impl LedgerStore for LocalLedger {
    async fn append(&self, row: &Revision) -> Result<Appended, StoreError> {
        check_unit(STORE, &row.unit)?;
        let (row, digest, hash) = (row.clone(), row.line.digest(), row.content.hash());
        self.write(move |to| append(to, &row, &digest, &hash)).await
    }

    async fn newest_page(
        &self,
        unit: &UnitId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revision>, StoreError> {
        check_page(STORE, unit, after, limit)?;
        let (unit, after) = (unit.clone(), after.unwrap_or_default().to_owned());
        self.read(move |from| {
            let UnitId { workspace, day, provider } = &unit;
            bodies(
                from,
                "SELECT r.body FROM lines AS l JOIN revisions AS r USING (workspace, day, provider, line, rev)
                 WHERE l.workspace = ?1 AND l.month = substr(?2, 1, 7) AND l.day = ?2 AND l.provider = ?3
                 AND l.line > ?4 ORDER BY l.line LIMIT ?5",
                params![workspace, day, provider, after, i64::try_from(limit).unwrap_or(i64::MAX)],
                &unit,
            )
        })
        .await
    }

    async fn history(&self, unit: &UnitId, line: &LineId) -> Result<Vec<Revision>, StoreError> {
        check_unit(STORE, unit)?;
        let (unit, digest) = (unit.clone(), line.digest());
        self.read(move |from| {
            let UnitId { workspace, day, provider } = &unit;
            bodies(
                from,
                "SELECT body FROM revisions
                 WHERE workspace = ?1 AND day = ?2 AND provider = ?3 AND line = ?4 ORDER BY rev",
                params![workspace, day, provider, digest],
                &unit,
            )
        })
        .await
    }

    async fn units(&self, workspace: &str, month: &str) -> Result<Vec<UnitId>, StoreError> {
        check_month(STORE, workspace, month)?;
        let (workspace, month) = (workspace.to_owned(), month.to_owned());
        let mut units = self
            .read(move |from| {
                from.prepare_cached(
                    "SELECT DISTINCT day, provider FROM lines WHERE workspace = ?1 AND month = ?2",
                )
                .and_then(|mut query| {
                    let found = query.query_map(params![workspace, month], |row| {
                        let (day, provider) = (row.get(0)?, row.get(1)?);
                        Ok(UnitId { workspace: workspace.clone(), day, provider })
                    })?;
                    found.collect::<rusqlite::Result<Vec<_>>>()
                })
                .map_err(failed)
            })
            .await?;
        units.sort();
        Ok(units)
    }

    async fn next_number(&self, name: &str, at_least: u64) -> Result<u64, StoreError> {
        check_name(STORE, "number", name)?;
        let name = name.to_owned();
        self.write(move |to| {
            to.query_row(
                "INSERT INTO numbers VALUES (?1, max(?2, 1))
                 ON CONFLICT (name) DO UPDATE SET value = max(?2, value + 1) RETURNING value",
                params![name, at_least],
                |row| row.get(0),
            )
            .map_err(failed)
        })
        .await
    }

    async fn lease(
        &self,
        run: &RunId,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        check_name(STORE, "run", &run.0)?;
        let (run, holder) = (run.clone(), holder.to_owned());
        self.write(move |to| take_lease(to, &run, &holder, (now, until))).await
    }

    async fn checkpoint(
        &self,
        run: &RunId,
        token: u64,
        until: Timestamp,
        state: &RunState,
    ) -> Result<bool, StoreError> {
        let (run, state) = (run.0.clone(), state_json(STORE, run, state)?);
        self.write(move |to| {
            let changed = to.execute(
                "UPDATE runs SET state = ?3, until = ?4
                 WHERE name = ?1 AND token = ?2 AND NOT done AND holder IS NOT NULL",
                params![run, token, state, until.ms()],
            );
            Ok(changed.map_err(failed)? == 1)
        })
        .await
    }

    async fn finish(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        let (run, state) = (run.0.clone(), state_json(STORE, run, state)?);
        self.write(move |to| {
            let changed = to.execute(
                "UPDATE runs SET state = ?3, done = 1, holder = NULL, until = 0
                 WHERE name = ?1 AND token = ?2
                 AND (holder IS NOT NULL AND NOT done OR done AND state = ?3)",
                params![run, token, state],
            );
            Ok(changed.map_err(failed)? == 1)
        })
        .await
    }

    async fn release(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        let (run, state) = (run.0.clone(), state_json(STORE, run, state)?);
        self.write(move |to| {
            let changed = to.execute(
                "UPDATE runs SET state = ?3, holder = NULL, until = 0
                 WHERE name = ?1 AND token = ?2 AND NOT done AND (holder IS NOT NULL OR state = ?3)",
                params![run, token, state],
            );
            Ok(changed.map_err(failed)? == 1)
        })
        .await
    }

    async fn reopen(&self, run: &RunId) -> Result<(), StoreError> {
        check_name(STORE, "run", &run.0)?;
        let run = run.0.clone();
        self.write(move |to| {
            to.execute(
                "UPDATE runs SET done = 0, state = NULL, holder = NULL, until = 0, token = token + 1
                 WHERE name = ?1 AND done",
                [run],
            )
            .map_err(failed)?;
            Ok(())
        })
        .await
    }

    async fn mark(&self, name: &str) -> Result<Option<String>, StoreError> {
        check_name(STORE, "mark", name)?;
        let name = name.to_owned();
        self.read(move |from| {
            from.query_row("SELECT value FROM marks WHERE name = ?1", [name], |row| row.get(0))
                .optional()
                .map_err(failed)
        })
        .await
    }

    async fn set_mark(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
    ) -> Result<bool, StoreError> {
        check_mark(STORE, name, value)?;
        let (name, value) = (name.to_owned(), value.to_owned());
        let expected = expected.map(str::to_owned);
        self.write(move |to| {
            let changed = match expected {
                None => to.execute("INSERT OR IGNORE INTO marks VALUES (?1, ?2)", [name, value]),
                Some(expected) => to.execute(
                    "UPDATE marks SET value = ?3 WHERE name = ?1 AND value = ?2",
                    [name, expected, value],
                ),
            };
            Ok(changed.map_err(failed)? == 1)
        })
        .await
    }
}

fn bodies(
    from: &Connection,
    query: &str,
    named: &[&dyn rusqlite::ToSql],
    unit: &UnitId,
) -> Result<Vec<Revision>, StoreError> {
    let mut query = from.prepare_cached(query).map_err(failed)?;
    let mut rows = query.query(named).map_err(failed)?;
    let mut revisions = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let body: String = row.get(0).map_err(failed)?;
        revisions.push(read_json(STORE, &unit.to_string(), &body)?);
    }
    Ok(revisions)
}
