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
    /// The sums, by line as JSON text: a third of what the lines themselves take.
    pub folded: BTreeMap<String, Content>,
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
        let key = serde_json::to_string(&line)
            .map_err(|e| spill(&self.path, &std::io::Error::other(e)))?;
        match self.folded.entry(key) {
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
    /// Their sums by the ledger's dimensions, by line as JSON text.
    pub folded: BTreeMap<String, Content>,
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
    folded: &BTreeMap<String, Content>,
    stamp: &Stamp<'_>,
    ledger: &dyn LedgerStore,
) -> Result<u64, StoreError> {
    let damaged = |e: serde_json::Error| StoreError::Damaged {
        store: "ledger",
        key: unit.to_string(),
        reason: e.to_string(),
    };
    let mut known: BTreeMap<String, Content> = BTreeMap::new();
    for row in ledger.newest(unit).await? {
        known.insert(serde_json::to_string(&row.line).map_err(damaged)?, row.content);
    }
    let before_all = billed(known.iter()).map_err(damaged)?;
    let now_all = billed(folded.iter()).map_err(damaged)?;
    let revision = |line: LineId, content: Content, cause: &str| Revision {
        unit: unit.clone(),
        line,
        rev: 0,
        seq: stamp.seq,
        cause: if stamp.booked_in.is_some() { "correction".into() } else { cause.to_owned() },
        run: stamp.run.to_owned(),
        booked_in: stamp.booked_in.map(str::to_owned),
        content,
    };
    let changed = folded.iter().filter_map(|(line, content)| {
        let before = known.get(line);
        let same = before.is_some_and(|before| says_the_same(before, content));
        (!same).then(|| (line, content.clone(), before.cloned()))
    });
    let source = folded.values().next().map(|content| content.source.clone()).unwrap_or_default();
    let gone = known.iter().filter(|(line, _)| !folded.contains_key(*line));
    let gone = gone.filter_map(|(line, before)| {
        let nothing = nothing(before, &source);
        (!says_the_same(before, &nothing)).then(|| (line, nothing, Some(before.clone())))
    });
    let mut written = 0;
    let appends = changed.chain(gone).map(|(line, content, before)| {
        let row = serde_json::from_str::<LineId>(line).map(|line| {
            let bill = bill_of(&line);
            let same_bill = before_all.get(&bill) == now_all.get(&bill);
            let cause = before.map_or("first", |before| cause(&before, &content, same_bill));
            revision(line, content, cause)
        });
        async move { ledger.append(&row.map_err(damaged)?).await }
    });
    let mut results = futures::stream::iter(appends).buffer_unordered(AT_ONCE);
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

/// What a line's bill is told apart by: account, model and kind.
type BillOf = (String, String, ChargeKind);

fn bill_of(line: &LineId) -> BillOf {
    (line.account.clone(), line.model.clone(), line.kind)
}

/// What was billed and measured: sums that only tell whether the bill has changed.
fn billed<'l>(
    rows: impl Iterator<Item = (&'l String, &'l Content)>,
) -> Result<BTreeMap<BillOf, (i128, i128)>, serde_json::Error> {
    let mut sums: BTreeMap<BillOf, (i128, i128)> = BTreeMap::new();
    for (line, content) in rows {
        let sum = sums.entry(bill_of(&serde_json::from_str(line)?)).or_default();
        sum.0 = sum.0.saturating_add(content.billed.map_or(0, Usd::pico));
        let quantity = content.billed_quantity.map_or(0, crate::bill::Quantity::pico);
        sum.1 = sum.1.saturating_add(quantity);
    }
    Ok(sums)
}

/// Whether the books say of a unit what was to be written, and nothing else.
pub fn is_written(folded: &BTreeMap<String, Content>, newest: &[Revision]) -> bool {
    let mut there = 0_usize;
    let as_wanted = newest.iter().all(|row| {
        let wanted = serde_json::to_string(&row.line).ok().and_then(|line| folded.get(&line));
        there += usize::from(wanted.is_some());
        match wanted {
            Some(content) => says_the_same(&row.content, content),
            None => says_the_same(&row.content, &nothing(&row.content, "")),
        }
    });
    as_wanted && there == folded.len()
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
