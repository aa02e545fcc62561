//! A suite that passes anything proves nothing: each of these stores breaks one promise, and the check that guards it
//! must say so.

use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use tallygate_shared::time::Timestamp;

use super::{ledger, objects};
use crate::ledger::{LineId, Revision, UnitId};
use crate::ports::{
    Appended, Lease, LedgerStore, ObjectMeta, ObjectStore, Put, RunId, RunState, StoreError,
};
use crate::stores::local::{self, LocalLedger, LocalObjects};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    // Objects.
    AlwaysWritten,
    OtherContentIsWell,
    FileIsCut,
    EmptyIsNothing,
    LastFirst,
    AfterIsForgotten,
    LimitIsForgotten,
    PrefixIsADirectory,
    // The ledger.
    OlderPullsWin,
    SeenIsForgotten,
    SameIsWritten,
    RaceIsLost,
    OldRevisionsAreNewest,
    PagesBeginAnew,
    PagesAreShort,
    PagesAreUnsorted,
    HistoryIsBackwards,
    UnitsOfAllMonths,
    NumbersRepeat,
    LeastIsForgotten,
    LeaseIsFree,
    ExpiryIsForgotten,
    ZombiesWrite,
    DoneIsForgotten,
    ReopenDoesNothing,
    ReleaseKeeps,
    StateIsForgotten,
    MarksAreNotCompared,
    NamesMeet,
}

struct Faulty<T> {
    inner: T,
    fault: Fault,
}

impl<T> Faulty<T> {
    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }
}

#[async_trait]
impl ObjectStore for Faulty<LocalObjects> {
    async fn put_once(&self, key: &str, body: Bytes) -> Result<Put, StoreError> {
        match self.inner.put_once(key, body).await {
            Ok(_) if self.has(Fault::AlwaysWritten) => Ok(Put::Written),
            Err(StoreError::Damaged { .. }) if self.has(Fault::OtherContentIsWell) => {
                Ok(Put::AlreadyThere)
            }
            other => other,
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let got = self.inner.get(key).await?;
        Ok(got.filter(|body| !self.has(Fault::EmptyIsNothing) || !body.is_empty()))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        let after = after.filter(|_| !self.has(Fault::AfterIsForgotten));
        let more = limit + usize::from(self.has(Fault::LimitIsForgotten) && limit < 1000);
        let mut found = self.inner.list(prefix, after, more).await?;
        if self.has(Fault::LastFirst) {
            found.reverse();
        }
        if self.has(Fault::PrefixIsADirectory) {
            found.retain(|object| {
                object.key.starts_with(&format!("{}/", prefix.trim_end_matches('/')))
            });
        }
        Ok(found)
    }

    async fn put_file_once(&self, key: &str, path: &Path) -> Result<Put, StoreError> {
        if self.has(Fault::FileIsCut) {
            let mut body = std::fs::read(path).unwrap_or_default();
            body.truncate(8 * 1024 * 1024);
            return self.inner.put_once(key, body.into()).await;
        }
        self.inner.put_file_once(key, path).await
    }
}

#[async_trait]
impl LedgerStore for Faulty<LocalLedger> {
    async fn append(&self, row: &Revision) -> Result<Appended, StoreError> {
        let mut row = row.clone();
        if self.has(Fault::OlderPullsWin) {
            row.seq = 7;
        }
        if self.has(Fault::NamesMeet) {
            row.unit.workspace = row.unit.workspace.replace("%23", "#");
        }
        if self.has(Fault::SeenIsForgotten) || self.has(Fault::RaceIsLost) {
            let history = self.inner.history(&row.unit, &row.line).await?;
            let newest = history.last().map(|newest| newest.content.hash());
            if self.has(Fault::SeenIsForgotten) && newest == Some(row.content.hash()) {
                return Ok(Appended::Unchanged);
            }
            if self.has(Fault::RaceIsLost) && newest != Some(row.content.hash()) {
                self.inner.append(&row).await?;
                return Ok(Appended::Written(history.len() as u32 + 1));
            }
        }
        match self.inner.append(&row).await? {
            Appended::Unchanged if self.has(Fault::SameIsWritten) => Ok(Appended::Written(row.rev)),
            other => Ok(other),
        }
    }

    async fn newest_page(
        &self,
        unit: &UnitId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revision>, StoreError> {
        let after = after.filter(|_| !self.has(Fault::PagesBeginAnew));
        let mut newest = self.inner.newest_page(unit, after, limit).await?;
        if self.has(Fault::OldRevisionsAreNewest) {
            for row in &mut newest {
                let history = self.inner.history(unit, &row.line).await?;
                *row = history.into_iter().next().unwrap_or_else(|| row.clone());
            }
        }
        if self.has(Fault::PagesAreShort) && newest.len() > 1 {
            newest.pop();
        }
        if self.has(Fault::PagesAreUnsorted) {
            newest.sort_by(|left, right| left.line.cmp(&right.line));
        }
        Ok(newest)
    }

    async fn history(&self, unit: &UnitId, line: &LineId) -> Result<Vec<Revision>, StoreError> {
        let mut rows = self.inner.history(unit, line).await?;
        if self.has(Fault::HistoryIsBackwards) {
            rows.reverse();
        }
        Ok(rows)
    }

    async fn units(&self, workspace: &str, month: &str) -> Result<Vec<UnitId>, StoreError> {
        let mut units = self.inner.units(workspace, month).await?;
        if self.has(Fault::UnitsOfAllMonths) {
            units.extend(self.inner.units(workspace, "2026-10").await?);
        }
        Ok(units)
    }

    async fn next_number(&self, name: &str, at_least: u64) -> Result<u64, StoreError> {
        let at_least = if self.has(Fault::LeastIsForgotten) { 0 } else { at_least };
        let number = self.inner.next_number(name, at_least).await?;
        Ok(if self.has(Fault::NumbersRepeat) { number.div_ceil(2) } else { number })
    }

    async fn lease(
        &self,
        run: &RunId,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Lease, StoreError> {
        let now = match self.fault {
            Fault::LeaseIsFree => Timestamp::from_ms(i64::MAX),
            Fault::ExpiryIsForgotten => Timestamp::from_ms(0),
            _ => now,
        };
        match self.inner.lease(run, holder, now, until).await? {
            Lease::Done(_) if self.has(Fault::DoneIsForgotten) => {
                self.inner.reopen(run).await?;
                self.inner.lease(run, holder, now, until).await
            }
            Lease::Granted { token, .. } if self.has(Fault::StateIsForgotten) => {
                Ok(Lease::Granted { token, state: None })
            }
            other => Ok(other),
        }
    }

    async fn checkpoint(
        &self,
        run: &RunId,
        token: u64,
        until: Timestamp,
        state: &RunState,
    ) -> Result<bool, StoreError> {
        let noted = self.inner.checkpoint(run, token, until, state).await?;
        Ok(noted || self.has(Fault::ZombiesWrite))
    }

    async fn finish(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        self.inner.finish(run, token, state).await
    }

    async fn release(&self, run: &RunId, token: u64, state: &RunState) -> Result<bool, StoreError> {
        if self.has(Fault::ReleaseKeeps) {
            return self.inner.checkpoint(run, token, Timestamp::from_ms(i64::MAX), state).await;
        }
        self.inner.release(run, token, state).await
    }

    async fn reopen(&self, run: &RunId) -> Result<(), StoreError> {
        if self.has(Fault::ReopenDoesNothing) { Ok(()) } else { self.inner.reopen(run).await }
    }

    async fn mark(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.inner.mark(name).await
    }

    async fn set_mark(
        &self,
        name: &str,
        expected: Option<&str>,
        value: &str,
    ) -> Result<bool, StoreError> {
        let current = self.inner.mark(name).await?;
        let expected =
            if self.has(Fault::MarksAreNotCompared) { current.as_deref() } else { expected };
        self.inner.set_mark(name, expected, value).await
    }
}

/// The check that guards against each fault.
const GUARDS: [(Fault, &str); 29] = [
    (Fault::AlwaysWritten, "of_racing_writers_one_writes"),
    (Fault::OtherContentIsWell, "other_content_changes_nothing"),
    (Fault::FileIsCut, "large_files_are_written_once"),
    (Fault::EmptyIsNothing, "what_is_put_is_got"),
    (Fault::LastFirst, "listings_are_in_byte_order"),
    (Fault::AfterIsForgotten, "listings_go_on_after_a_key"),
    (Fault::LimitIsForgotten, "listings_go_on_after_a_key"),
    (Fault::PrefixIsADirectory, "prefixes_are_no_directories"),
    (Fault::OlderPullsWin, "an_older_pull_never_overrules_a_newer_one"),
    (Fault::SeenIsForgotten, "an_unchanged_newer_pull_protects_too"),
    (Fault::SameIsWritten, "the_same_again_writes_nothing"),
    (Fault::RaceIsLost, "racing_writers_with_other_contents_all_land"),
    (Fault::OldRevisionsAreNewest, "newest_is_one_row_for_each_line"),
    (Fault::PagesBeginAnew, "pages_come_in_the_order_of_digests"),
    (Fault::PagesAreShort, "pages_come_in_the_order_of_digests"),
    (Fault::PagesAreUnsorted, "pages_come_in_the_order_of_digests"),
    (Fault::HistoryIsBackwards, "revisions_are_numbered_without_gaps"),
    (Fault::UnitsOfAllMonths, "units_are_those_of_the_month"),
    (Fault::NumbersRepeat, "numbers_only_grow"),
    (Fault::LeastIsForgotten, "numbers_only_grow"),
    (Fault::LeaseIsFree, "a_lease_has_one_holder"),
    (Fault::ExpiryIsForgotten, "a_lease_that_ran_out_is_taken_over"),
    (Fault::ZombiesWrite, "a_lease_that_ran_out_is_taken_over"),
    (Fault::DoneIsForgotten, "a_run_that_is_over_stays_so_until_reopened"),
    (Fault::ReopenDoesNothing, "a_run_that_is_over_stays_so_until_reopened"),
    (Fault::ReleaseKeeps, "a_released_run_is_gone_on_with"),
    (Fault::StateIsForgotten, "large_states_are_kept"),
    (Fault::MarksAreNotCompared, "of_racing_marks_one_is_set"),
    (Fault::NamesMeet, "units_that_read_alike_are_two"),
];

/// Whether the check fails.
async fn fails(fault: Fault, check: &str) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, objects) = local::open(directory.path()).await.unwrap();
    let mut report = objects::one_check(&Faulty { inner: objects, fault }, check).await;
    report.checks.extend(ledger::one_check(&Faulty { inner: ledger, fault }, check).await.checks);
    assert_eq!(report.checks.len(), 1, "`{check}` is one check");
    !report.failures().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_promise_is_noticed() {
    for (fault, guard) in GUARDS {
        assert!(fails(fault, guard).await, "{guard} does not notice that {fault:?}");
        assert!(!fails(Fault::None, guard).await, "{guard} fails a store that keeps its word");
    }
}
