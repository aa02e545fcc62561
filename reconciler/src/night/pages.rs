//! A unit's books, read a page at a time in the order of their lines' digests.

use std::collections::VecDeque;

use sha2::{Digest, Sha256};

use crate::ledger::{Revision, UnitId, hex};
use crate::ports::{LedgerStore, PAGE_MAX, StoreError};

/// The newest revisions of a unit, one after the other.
pub(super) struct Pages<'a> {
    unit: &'a UnitId,
    ledger: &'a dyn LedgerStore,
    rows: VecDeque<Revision>,
    after: Option<String>,
    is_last: bool,
}

impl<'a> Pages<'a> {
    /// All of a unit.
    pub(super) fn of(unit: &'a UnitId, ledger: &'a dyn LedgerStore) -> Self {
        Self::behind(unit, None, ledger)
    }

    /// Those behind a digest.
    pub(super) fn behind(
        unit: &'a UnitId,
        after: Option<String>,
        ledger: &'a dyn LedgerStore,
    ) -> Self {
        Self { unit, ledger, rows: VecDeque::new(), after, is_last: false }
    }

    /// The next row, which stays there.
    pub(super) async fn peek(&mut self) -> Result<Option<&Revision>, StoreError> {
        if self.rows.is_empty() && !self.is_last {
            let page = self.ledger.newest_page(self.unit, self.after.as_deref(), PAGE_MAX).await?;
            self.is_last = page.len() < PAGE_MAX;
            self.after = page.last().map(|row| row.line.digest());
            self.rows = page.into();
        }
        Ok(self.rows.front())
    }

    /// The next row.
    pub(super) async fn next(&mut self) -> Result<Option<Revision>, StoreError> {
        self.peek().await?;
        Ok(self.rows.pop_front())
    }

    /// The next row of a kind; those before it are passed over.
    pub(super) async fn find(
        &mut self,
        is: impl Fn(&Revision) -> bool,
    ) -> Result<Option<Revision>, StoreError> {
        while let Some(row) = self.next().await? {
            if is(&row) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }
}

/// What rows say, as a hash that grows with each: their lines and contents, whoever wrote them when.
pub(super) fn fingerprint(before: &str, row: &Revision) -> String {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(row.line.digest());
    hash.update(row.content.hash());
    hex(hash.finalize().as_slice())
}

/// What a unit's books say, as [`fingerprint`] has it.
pub(super) async fn books(unit: &UnitId, ledger: &dyn LedgerStore) -> Result<String, StoreError> {
    let (mut pages, mut books) = (Pages::of(unit, ledger), String::new());
    while let Some(row) = pages.next().await? {
        books = fingerprint(&books, &row);
    }
    Ok(books)
}
