//! Step 6: a settled unit into the books. The full rows go to the object store, written once; their sums by the ledger's
//! dimensions become revisions. What the books say already is not written again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Error, Read, Write};
use std::path::Path;

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;

use super::pages::Pages;
use super::spill::{Lines, Sorted, SpillOptions, Summed, Table, read_bytes, write_bytes};
use super::{NightError, fits};
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

/// A line of the books: full rows, summed by the ledger's dimensions.
#[derive(Clone)]
pub(super) struct Folded {
    /// The line as JSON text: a third of what it takes itself.
    line: Box<str>,
    pub(super) content: Content,
}

impl Folded {
    pub(super) fn line(&self) -> Result<LineId, NightError> {
        serde_json::from_str(&self.line).map_err(|e| spill(Path::new("rows"), &Error::other(e)))
    }
}

impl Summed for Folded {
    fn add(&mut self, other: &Self) -> Result<(), NightError> {
        fits(add(&mut self.content, &other.content), "a line of the books")
    }

    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        write_bytes(to, self.line.as_bytes())?;
        write_bytes(to, &serde_json::to_vec(&self.content)?)
    }

    fn read(from: &mut impl Read) -> std::io::Result<Self> {
        let (mut line, mut content) = (Vec::new(), Vec::new());
        read_bytes(from, &mut line)?;
        read_bytes(from, &mut content)?;
        let line = String::from_utf8(line).map_err(Error::other)?.into_boxed_str();
        Ok(Self { line, content: serde_json::from_slice(&content)? })
    }
}

/// Lines of the books in memory before they spill: about 1 KB each.
const FOLDED_IN_MEMORY: usize = 50_000;

/// Takes a unit's rows: keeps them whole in a file, and sums them by the ledger's dimensions.
pub struct Rows<'a> {
    file: BufWriter<zstd::Encoder<'static, std::fs::File>>,
    path: std::path::PathBuf,
    hash: Sha256,
    dimensions: &'a BTreeSet<String>,
    folded: Table<Folded>,
    text: Vec<u8>,
    count: u64,
}

impl<'a> Rows<'a> {
    /// Rows that are written to a file in `scratch`.
    pub fn begin(scratch: &Path, dimensions: &'a BTreeSet<String>) -> Result<Self, NightError> {
        let path = scratch.join("rows");
        let open = || zstd::Encoder::new(std::fs::File::create(&path)?, 3);
        let file = open().map_err(|e| spill(scratch, &e))?;
        let options = SpillOptions { max_lines: FOLDED_IN_MEMORY, directory: scratch.to_owned() };
        Ok(Self {
            file: BufWriter::new(file),
            path,
            hash: Sha256::new(),
            dimensions,
            folded: Table::new(options),
            text: Vec::new(),
            count: 0,
        })
    }

    /// Takes one row.
    pub fn push(&mut self, mut line: LineId, content: Content) -> Result<(), NightError> {
        let failed = |path: &Path, e: serde_json::Error| spill(path, &Error::other(e));
        self.text.clear();
        serde_json::to_writer(&mut self.text, &FullRow { line: &line, content: &content })
            .map_err(|e| failed(&self.path, e))?;
        self.text.push(b'\n');
        self.hash.update(&self.text);
        self.file.write_all(&self.text).map_err(|e| spill(&self.path, &e))?;
        self.count += 1;
        line.owner.retain(|name, _| name == UNMETERED || self.dimensions.contains(name));
        let digest = line.digest();
        if let Some(known) = self.folded.known(digest.as_bytes()) {
            return fits(add(&mut known.content, &content), "a line of the books");
        }
        let line = serde_json::to_string(&line).map_err(|e| failed(&self.path, e))?;
        let folded = Folded { line: line.into_boxed_str(), content };
        self.folded.insert(digest.as_bytes(), folded)
    }

    /// Ends the file. The hash of all rows, and where they lie.
    pub fn finish(self) -> Result<Finished, NightError> {
        let path = self.path;
        let encoder = self.file.into_inner().map_err(|e| spill(&path, &e.into_error()))?;
        encoder.finish().map_err(|e| spill(&path, &e))?;
        let sha256 = hex(self.hash.finalize().as_slice());
        Ok(Finished { path, sha256, folded: self.folded.finish()?, count: self.count })
    }
}

/// Rows that are complete.
pub struct Finished {
    path: std::path::PathBuf,
    /// SHA-256 of the rows as text.
    pub sha256: String,
    /// Their sums by the ledger's dimensions, by the digest of the line.
    pub(super) folded: Sorted<Folded>,
    /// How many there are.
    pub count: u64,
}

impl Finished {
    /// How many lines of the books they are.
    pub fn lines(&self) -> u64 {
        self.folded.len()
    }
}

fn spill(directory: &Path, error: &std::io::Error) -> NightError {
    NightError::Spill { directory: directory.display().to_string(), reason: error.to_string() }
}

/// Adds a row of the same line. `None` when a sum does not fit.
fn add(to: &mut Content, other: &Content) -> Option<()> {
    to.estimated = to.estimated.checked_add(other.estimated)?;
    to.metered = to.metered.checked_add(other.metered)?;
    to.requests = to.requests.checked_add(other.requests)?;
    to.list = match (to.list, other.list) {
        (None, None) => None,
        (one, another) => {
            let one = one.or(to.billed).unwrap_or_default();
            Some(one.checked_add(another.or(other.billed).unwrap_or_default())?)
        }
    };
    to.billed = match (to.billed, other.billed) {
        (Some(one), Some(other)) => Some(one.checked_add(other)?),
        (one, other) => one.or(other),
    };
    to.billed_quantity = match (to.billed_quantity, other.billed_quantity) {
        (Some(one), Some(other)) => Some(one.checked_add(other)?),
        (one, other) => one.or(other),
    };
    to.quantity_variance = to.quantity_variance.checked_add(other.quantity_variance)?;
    to.price_variance = to.price_variance.checked_add(other.price_variance)?;
    to.provisional |= other.provisional;
    if to.method != other.method {
        to.method = "mixed".to_owned();
    }
    Some(())
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

/// A unit's lines, those that are to be and those that the books have, in the order of their digests.
pub(super) struct Merged<'a> {
    wanted: Lines<'a, Folded>,
    head: Option<(String, Folded)>,
    pages: Pages<'a>,
}

/// A line as it is to be, and as the books have it: one of the two, or both.
pub(super) struct Pair {
    pub(super) digest: String,
    pub(super) wanted: Option<Folded>,
    pub(super) known: Option<Revision>,
}

impl<'a> Merged<'a> {
    /// The lines behind the digest `after`.
    pub(super) fn behind(
        after: Option<&String>,
        wanted: &'a Sorted<Folded>,
        unit: &'a UnitId,
        ledger: &'a dyn LedgerStore,
    ) -> Result<Self, NightError> {
        let pages = Pages::behind(unit, after.cloned(), ledger);
        let mut merged = Self { wanted: wanted.lines()?, head: None, pages };
        merged.step()?;
        while let Some((digest, _)) = &merged.head
            && after.is_some_and(|after| digest <= after)
        {
            merged.step()?;
        }
        Ok(merged)
    }

    /// Takes the next wanted line to the front. What was there before.
    fn step(&mut self) -> Result<Option<Folded>, NightError> {
        let next = self.wanted.next()?;
        let next = next.map(|(key, folded)| (String::from_utf8_lossy(key).into_owned(), folded));
        Ok(std::mem::replace(&mut self.head, next).map(|(_, folded)| folded))
    }

    /// The next line.
    pub(super) async fn next(&mut self) -> Result<Option<Pair>, WriteFailed> {
        let known = self.pages.peek().await?.map(|row| row.line.digest());
        let wanted = self.head.as_ref().map(|(digest, _)| digest.clone());
        let digest = match (wanted, &known) {
            (None, None) => return Ok(None),
            (Some(wanted), Some(known)) => wanted.min(known.clone()),
            (Some(wanted), None) => wanted,
            (None, Some(known)) => known.clone(),
        };
        let is_wanted = self.head.as_ref().is_some_and(|(wanted, _)| *wanted == digest);
        let wanted = if is_wanted { self.step()? } else { None };
        let known = if known.as_ref() == Some(&digest) { self.pages.next().await? } else { None };
        Ok(Some(Pair { digest, wanted, known }))
    }
}

/// What a bill's change is told by, before anything is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Change {
    /// The bills of which the books have other sums.
    bills: BTreeSet<BillOf>,
    /// The bill behind the rows.
    source: String,
}

impl Change {
    /// Reads the books, and what is to be in them.
    pub(super) async fn read(
        wanted: &Sorted<Folded>,
        unit: &UnitId,
        ledger: &dyn LedgerStore,
    ) -> Result<Self, WriteFailed> {
        let mut pages = Pages::of(unit, ledger);
        let mut before: BTreeMap<BillOf, (i128, i128)> = BTreeMap::new();
        while let Some(row) = pages.next().await? {
            billed(&mut before, &row.line, &row.content);
        }
        if before.is_empty() {
            // Every line is the first.
            return Ok(Self::default());
        }
        let (mut now, mut source) = (BTreeMap::new(), None);
        let mut lines = wanted.lines()?;
        while let Some((_, folded)) = lines.next()? {
            billed(&mut now, &folded.line()?, &folded.content);
            source.get_or_insert(folded.content.source);
        }
        let same = |bill: &BillOf| before.get(bill) == now.get(bill);
        let bills = before.keys().chain(now.keys()).filter(|bill| !same(bill)).cloned().collect();
        Ok(Self { bills, source: source.unwrap_or_default() })
    }
}

/// Writes what is new of the next lines, at most `batch` of them. Lines that the books have and the unit has no more are
/// stated as nothing. Returns how many revisions were written, and the last line's digest; none when that was all.
pub(super) async fn write_batch(
    lines: &mut Merged<'_>,
    batch: usize,
    change: &Change,
    (unit, stamp): (&UnitId, &Stamp<'_>),
    ledger: &dyn LedgerStore,
) -> Result<(u64, Option<String>), WriteFailed> {
    let (mut rows, mut last) = (Vec::new(), None);
    for _ in 0..batch.max(1) {
        let Some(pair) = lines.next().await? else {
            last = None;
            break;
        };
        rows.extend(revision(&pair, change, unit, stamp)?);
        last = Some(pair.digest);
    }
    let appends = rows.iter().map(|row| ledger.append(row));
    let mut results = futures::stream::iter(appends).buffer_unordered(AT_ONCE);
    let mut written = 0;
    while let Some(result) = results.next().await {
        if matches!(result?, Appended::Written(_)) {
            written += 1;
        }
    }
    Ok((written, last))
}

/// What is to be written of a line, if anything is.
fn revision(
    pair: &Pair,
    change: &Change,
    unit: &UnitId,
    stamp: &Stamp<'_>,
) -> Result<Option<Revision>, NightError> {
    let before = pair.known.as_ref().map(|row| &row.content);
    let (line, content) = match (&pair.wanted, &pair.known) {
        (Some(wanted), _) => (wanted.line()?, wanted.content.clone()),
        (None, Some(known)) => (known.line.clone(), nothing(&known.content, &change.source)),
        (None, None) => return Ok(None),
    };
    if before.is_some_and(|before| says_the_same(before, &content)) {
        return Ok(None);
    }
    let same_bill = !change.bills.contains(&bill_of(&line));
    let cause = before.map_or("first", |before| cause(before, &content, same_bill));
    Ok(Some(Revision {
        unit: unit.clone(),
        line,
        rev: 0,
        seq: stamp.seq,
        cause: if stamp.booked_in.is_some() { "correction".into() } else { cause.to_owned() },
        run: stamp.run.to_owned(),
        booked_in: stamp.booked_in.map(str::to_owned),
        content,
    }))
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

/// Adds what was billed and measured: sums that only tell whether the bill has changed.
fn billed(sums: &mut BTreeMap<BillOf, (i128, i128)>, line: &LineId, content: &Content) {
    let sum = sums.entry(bill_of(line)).or_default();
    sum.0 = sum.0.saturating_add(content.billed.map_or(0, Usd::pico));
    let quantity = content.billed_quantity.map_or(0, crate::bill::Quantity::pico);
    sum.1 = sum.1.saturating_add(quantity);
}

/// Whether the books say of a line what was to be written, or that it is nothing.
pub(super) fn is_written(pair: &Pair) -> bool {
    match (&pair.wanted, &pair.known) {
        (Some(wanted), Some(known)) => says_the_same(&known.content, &wanted.content),
        (None, Some(known)) => says_the_same(&known.content, &nothing(&known.content, "")),
        (_, None) => false,
    }
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

/// Whether a line has a bill. One that is no longer there has none.
pub(super) fn is_billed(content: &Content) -> bool {
    content.billed.is_some() && *content != nothing(content, &content.source)
}

/// A line that is no longer there.
fn nothing(before: &Content, source: &str) -> Content {
    Content {
        estimated: Usd::ZERO,
        metered: crate::bill::Quantity::default(),
        requests: 0,
        billed: before.billed.map(|_| Usd::ZERO),
        billed_quantity: before.billed_quantity.map(|_| crate::bill::Quantity::default()),
        list: None,
        quantity_variance: Usd::ZERO,
        price_variance: Usd::ZERO,
        provisional: false,
        price_version: before.price_version.clone(),
        source: source.to_owned(),
        method: before.method.clone(),
    }
}
