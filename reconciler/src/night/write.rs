//! Step 6: a settled unit into the books. The full rows go to the object store, written once; their sums by the ledger's
//! dimensions become revisions. What the books say already is not written again.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use futures::StreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;

use super::NightError;
use crate::bill::ChargeKind;
use crate::ledger::{Content, LineId, Revision, UNMETERED, UnitId, hex};
use crate::ports::{Appended, LedgerStore, ObjectStore, StoreError};

/// Revisions on their way at once.
const AT_ONCE: usize = 16;

/// Why a unit could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailed {
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sum, or the scratch directory.
    #[error(transparent)]
    Night(#[from] NightError),
}

#[derive(Serialize)]
struct FullRow<'a> {
    line: &'a LineId,
    content: &'a Content,
}

/// Takes a unit's rows: keeps them whole in a file, and sums them by the ledger's dimensions.
pub struct Rows<'a> {
    file: BufWriter<zstd::Encoder<'static, std::fs::File>>,
    path: std::path::PathBuf,
    hash: Sha256,
    dimensions: &'a std::collections::BTreeSet<String>,
    /// The sums, by line.
    pub folded: BTreeMap<LineId, Content>,
    /// Full rows.
    pub count: u64,
}

impl<'a> Rows<'a> {
    /// Rows that are written to a file in `scratch`.
    pub fn begin(
        scratch: &Path,
        dimensions: &'a std::collections::BTreeSet<String>,
    ) -> Result<Self, NightError> {
        let path = scratch.join("rows");
        let open = || zstd::Encoder::new(std::fs::File::create(&path)?, 3);
        let file = open().map_err(|e| spill(scratch, &e))?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
            hash: Sha256::new(),
            dimensions,
            folded: BTreeMap::new(),
            count: 0,
        })
    }

    /// Takes one row.
    pub fn push(&mut self, line: LineId, content: Content) -> Result<(), NightError> {
        let mut text = serde_json::to_vec(&FullRow { line: &line, content: &content })
            .map_err(|e| spill(&self.path, &std::io::Error::other(e)))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.file.write_all(&text).map_err(|e| spill(&self.path, &e))?;
        self.count += 1;
        let mut line = line;
        line.owner.retain(|name, _| name == UNMETERED || self.dimensions.contains(name));
        match self.folded.entry(line) {
            std::collections::btree_map::Entry::Vacant(empty) => {
                empty.insert(content);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(mut sum) => {
                let folded = add(sum.get(), &content);
                sum.insert(folded.ok_or(NightError::Overflow { what: "a line of the books" })?);
                Ok(())
            }
        }
    }

    /// Ends the file. The hash of all rows, and where they lie.
    pub fn finish(self) -> Result<Finished, NightError> {
        let path = self.path;
        let encoder = self.file.into_inner().map_err(|e| spill(&path, &e.into_error()))?;
        encoder.finish().map_err(|e| spill(&path, &e))?;
        let sha256 = hex(self.hash.finalize().as_slice());
        Ok(Finished { path, sha256, folded: self.folded, count: self.count })
    }
}

/// Rows that are complete.
pub struct Finished {
    path: std::path::PathBuf,
    /// SHA-256 of the rows as text.
    pub sha256: String,
    /// Their sums by the ledger's dimensions.
    pub folded: BTreeMap<LineId, Content>,
    /// How many there are.
    pub count: u64,
}

fn spill(directory: &Path, error: &std::io::Error) -> NightError {
    NightError::Spill { directory: directory.display().to_string(), reason: error.to_string() }
}

/// The sum of two rows of a line; `None` when it does not fit.
fn add(one: &Content, other: &Content) -> Option<Content> {
    let both = |a: Option<Usd>, b: Option<Usd>| match (a, b) {
        (Some(a), Some(b)) => a.checked_add(b).map(Some),
        (one, other) => Some(one.or(other)),
    };
    let quantity = match (one.billed_quantity, other.billed_quantity) {
        (Some(a), Some(b)) => Some(a.checked_add(b)?),
        (one, other) => one.or(other),
    };
    let method = if one.method == other.method { one.method.clone() } else { "mixed".to_owned() };
    Some(Content {
        estimated: one.estimated.checked_add(other.estimated)?,
        metered: one.metered.checked_add(other.metered)?,
        requests: one.requests.checked_add(other.requests)?,
        billed: both(one.billed, other.billed)?,
        billed_quantity: quantity,
        quantity_variance: one.quantity_variance.checked_add(other.quantity_variance)?,
        price_variance: one.price_variance.checked_add(other.price_variance)?,
        provisional: one.provisional || other.provisional,
        price_version: one.price_version.clone(),
        source: one.source.clone(),
        method,
    })
}

/// What is written with each revision.
pub struct Stamp<'a> {
    /// The number of the pull.
    pub seq: u64,
    /// The run's name.
    pub run: &'a str,
    /// The month that corrections are booked in, when the unit's own is closed.
    pub booked_in: Option<&'a str>,
}

/// Keeps the full rows.
pub async fn keep_rows(
    unit: &UnitId,
    rows: &Finished,
    objects: &dyn ObjectStore,
) -> Result<String, StoreError> {
    let UnitId { workspace, day, provider } = unit;
    let key = format!("rows/v1/{workspace}/{day}/{provider}/{}.ndjson.zst", rows.sha256);
    objects.put_file_once(&key, &rows.path).await?;
    Ok(key)
}

/// Writes what is new. Lines that the books have and the unit has no more are stated as nothing. Returns how many
/// revisions were written.
pub async fn write(
    unit: &UnitId,
    folded: &BTreeMap<LineId, Content>,
    stamp: &Stamp<'_>,
    ledger: &dyn LedgerStore,
) -> Result<u64, StoreError> {
    let known: BTreeMap<LineId, Revision> =
        ledger.newest(unit).await?.into_iter().map(|row| (row.line.clone(), row)).collect();
    let billed_before = billed(known.iter().map(|(line, row)| (line, &row.content)));
    let billed_now = billed(folded.iter());
    let mut wanted: Vec<Revision> = Vec::new();
    let revision = |line: &LineId, content: Content, cause: &str| Revision {
        unit: unit.clone(),
        line: line.clone(),
        rev: 0,
        seq: stamp.seq,
        cause: if stamp.booked_in.is_some() { "correction".into() } else { cause.to_owned() },
        run: stamp.run.to_owned(),
        booked_in: stamp.booked_in.map(str::to_owned),
        content,
    };
    for (line, content) in folded {
        let before = known.get(line);
        if before.is_some_and(|row| says_the_same(&row.content, content)) {
            continue;
        }
        let cause = before.map_or("first", |row| {
            let bill = bill_of(line);
            let same = billed_before.get(&bill) == billed_now.get(&bill);
            cause(&row.content, content, same)
        });
        wanted.push(revision(line, content.clone(), cause));
    }
    let sources = folded.values().next().map(|content| content.source.clone()).unwrap_or_default();
    for (line, row) in &known {
        let gone = nothing(&row.content, &sources);
        if !folded.contains_key(line) && !says_the_same(&row.content, &gone) {
            let bill = bill_of(line);
            let same = billed_before.get(&bill) == billed_now.get(&bill);
            wanted.push(revision(line, gone, if same { "usage_changed" } else { "bill_changed" }));
        }
    }
    let mut written = 0;
    let mut results = futures::stream::iter(wanted.iter().map(|row| ledger.append(row)))
        .buffer_unordered(AT_ONCE);
    while let Some(result) = results.next().await {
        if matches!(result?, Appended::Written(_)) {
            written += 1;
        }
    }
    Ok(written)
}

/// Whether two contents say the same, whichever pull of the bill they were read from: a bill that is pulled again, or as
/// a part of other days, is the same bill.
fn says_the_same(one: &Content, other: &Content) -> bool {
    let mut moved = one.clone();
    moved.source.clone_from(&other.source);
    moved == *other
}

/// What a line's bill is told apart by.
type BillOf<'l> = (&'l str, &'l str, ChargeKind);

fn bill_of(line: &LineId) -> BillOf<'_> {
    (&line.account, &line.model, line.kind)
}

/// What was billed and measured: sums that only tell whether the bill has changed.
fn billed<'l>(
    rows: impl Iterator<Item = (&'l LineId, &'l Content)>,
) -> BTreeMap<BillOf<'l>, (i128, i128)> {
    let mut sums: BTreeMap<BillOf<'l>, (i128, i128)> = BTreeMap::new();
    for (line, content) in rows {
        let sum = sums.entry(bill_of(line)).or_default();
        sum.0 = sum.0.saturating_add(content.billed.map_or(0, Usd::pico));
        let quantity = content.billed_quantity.map_or(0, crate::bill::Quantity::pico);
        sum.1 = sum.1.saturating_add(quantity);
    }
    sums
}

/// Whether the books say of a unit what was to be written, and nothing else.
pub fn is_written(folded: &BTreeMap<LineId, Content>, newest: &[Revision]) -> bool {
    let as_wanted = |row: &Revision| match folded.get(&row.line) {
        Some(content) => says_the_same(&row.content, content),
        None => says_the_same(&row.content, &nothing(&row.content, "")),
    };
    let there = newest.iter().filter(|row| folded.contains_key(&row.line)).count();
    there == folded.len() && newest.iter().all(as_wanted)
}

fn cause(before: &Content, after: &Content, same_bill: bool) -> &'static str {
    if !same_bill || before.billed.is_some() != after.billed.is_some() {
        "bill_changed"
    } else if before.price_version != after.price_version {
        "prices_changed"
    } else {
        "usage_changed"
    }
}

/// A line that is no longer there.
fn nothing(before: &Content, source: &str) -> Content {
    Content {
        estimated: Usd::ZERO,
        metered: crate::bill::Quantity::default(),
        requests: 0,
        billed: before.billed.map(|_| Usd::ZERO),
        billed_quantity: before.billed_quantity.map(|_| crate::bill::Quantity::default()),
        quantity_variance: Usd::ZERO,
        price_variance: Usd::ZERO,
        provisional: false,
        price_version: before.price_version.clone(),
        source: source.to_owned(),
        method: before.method.clone(),
    }
}
