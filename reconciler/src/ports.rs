//! What the reconciler needs of the world: an object store and a ledger. `stores` implements both for AWS and for
//! local disk, and one conformance suite holds all of them to these words.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tallygate_shared::time::Timestamp;

use crate::ledger::{LineId, Revision, UnitId};

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Worth trying again: throttled, timed out, unreachable. The implementation has already retried.
    #[error("{store} is not available: {reason}")]
    Unavailable {
        /// Which store.
        store: &'static str,
        /// What it said, without secrets.
        reason: String,
    },
    /// A permission is missing.
    #[error("{store} refuses {action}: grant it to the reconciler's role ({reason})")]
    Denied {
        /// Which store.
        store: &'static str,
        /// The action, as IAM names it where known.
        action: String,
        /// What it said.
        reason: String,
    },
    /// What is stored is not what was written: a damaged or foreign object.
    #[error("{store} holds `{key}` with other content: {reason}")]
    Damaged {
        /// Which store.
        store: &'static str,
        /// Which key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Anything else.
    #[error("{store} failed: {reason}")]
    Failed {
        /// Which store.
        store: &'static str,
        /// What it said.
        reason: String,
    },
}

/// What became of a write-once put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Written now.
    Written,
    /// The same content was there already.
    AlreadyThere,
}

/// An object's name and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The whole key.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// Objects that are written once and never changed.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Writes `body` under `key` unless there is one. The same content again is [`Put::AlreadyThere`]; other content
    /// is [`StoreError::Damaged`], and what was there stays.
    async fn put_once(&self, key: &str, body: Bytes) -> Result<Put, StoreError>;

    /// The whole object, `None` when there is none.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Keys that begin with `prefix`, in byte order, after `after`, at most `limit` (1 to 1,000).
    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError>;

    /// Uploads a local file write-once, as [`ObjectStore::put_once`] does, without holding it in memory.
    async fn put_file_once(&self, key: &str, path: &std::path::Path) -> Result<Put, StoreError>;
}

/// The most rows of a page: at about 1 KB each, what DynamoDB answers at once.
pub const PAGE_MAX: usize = 1_000;

/// What became of an appended revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The newest revision says the same: nothing was written.
    Unchanged,
    /// Written, with this number.
    Written(u32),
    /// The newest revision comes from a newer pull (its number): nothing was written.
    Stale(u64),
}

/// Names a run: deterministic, so that whoever runs the same work finds the same run. `night#2026-11-20`,
/// `backfill#2026-10-01..2026-10-31`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub String);

/// What asking for a run's lease gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// It is yours until the time you named. `token` grows with each holder; writes to the run carry it.
    Granted {
        /// The fencing token.
        token: u64,
        /// What the earlier holder had noted last.
        state: Option<RunState>,
    },
    /// Somebody else holds it until then.
    Held {
        /// Until when.
        until: Timestamp,
    },
    /// The run is over. Its state.
    Done(RunState),
}

/// A run's notes on itself: what is done, and what the report will say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Units that are done, with the hash of their output. A resumed run skips them.
    pub done: BTreeMap<String, String>,
    /// The report so far, as JSON.
    pub report: Option<String>,
}

/// The ledger: revisions of lines, runs, and small marks.
#[async_trait]
pub trait LedgerStore: Send + Sync {
    /// Appends `row` as the next revision of its line, unless the newest revision has the same content hash
    /// ([`Appended::Unchanged`]) or a higher `seq` ([`Appended::Stale`]). Of racing writers with the same content one
    /// writes. `row.rev` is ignored: the store numbers revisions from 1 without gaps.
    async fn append(&self, row: &Revision) -> Result<Appended, StoreError>;

    /// The newest revisions of a unit's lines in the order of their lines' digests ([`LineId::digest`]), after the digest
    /// `after`, at most `limit` (1 to [`PAGE_MAX`]). Fewer than `limit`: there are no more. A line that somebody adds
    /// meanwhile is there or not, and no other is skipped or shown twice because of it.
    async fn newest_page(
        &self,
        unit: &UnitId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revision>, StoreError>;

    /// The newest revision of each line of a unit, in the order of their lines: all of them in memory, about 3 KB each.
    async fn newest(&self, unit: &UnitId) -> Result<Vec<Revision>, StoreError> {
        let mut rows: Vec<Revision> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.newest_page(unit, after.as_deref(), PAGE_MAX).await?;
            let more = page.len() >= PAGE_MAX;
            after = page.last().map(|row| row.line.digest());
            rows.extend(page);
            if !more {
                rows.sort_by(|left, right| left.line.cmp(&right.line));
                return Ok(rows);
            }
        }
    }

    /// All revisions of one line, oldest first.
    async fn history(&self, unit: &UnitId, line: &LineId) -> Result<Vec<Revision>, StoreError>;

    /// The units of a workspace's month (`2026-11`) that have rows, in order.
    async fn units(&self, workspace: &str, month: &str) -> Result<Vec<UnitId>, StoreError>;

    /// A number greater than any given out for this name before, and not below `at_least`: the order of pulls.
    async fn next_number(&self, name: &str, at_least: u64) -> Result<u64, StoreError>;

    /// Takes the lease of a run for `holder` until `until`, if it is free at `now`, or `holder` has it already.
    async fn lease(
        &self,
        run: &RunId,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError>;

    /// Notes a run's state and extends its lease. False when `token` is no longer the newest: somebody else runs it.
    async fn checkpoint(
        &self,
        run: &RunId,
        token: u64,
        until: Timestamp,
        state: &RunState,
    ) -> Result<bool, StoreError>;

    /// Ends a run with its last state. False when `token` is no longer the newest.
    async fn finish(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError>;

    /// Frees the lease of a run that will be gone on with later, keeping its state. False as in `checkpoint`.
    async fn release(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError>;

    /// Takes up a run that is over, for another look at the same days: it can be leased again, with no units done.
    async fn reopen(&self, run: &RunId) -> Result<(), StoreError>;

    /// A small mark (at most 64 KiB), `None` when there is none: cursors, closed months, corrections sent.
    async fn mark(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Sets a mark if it still is `expected`. False when it is not.
    async fn set_mark(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
    ) -> Result<bool, StoreError>;
}
