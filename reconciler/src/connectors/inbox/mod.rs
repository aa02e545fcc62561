//! Bills as files that people or exports drop in the object store, under `inbox/<provider>/...`: for providers without a
//! cost API, and for anybody's FOCUS export. A mapping says how each file is read.
//!
//! A file is what its bytes are, gzip or not: the same content under two names, read to the same charges, is one bill.
//! For two providers, accounts or months it is two. A file with a bad row is held as a whole or read without the row, as
//! its mapping says; it never stops the other files.

mod focus;
mod mapped;
pub mod mapping;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use self::mapping::{BadRows, FileRule, Format, Mapping};
use self::table::{BadRow, Rows};
use super::{Connector, Days, HeldPart, PullError, RawPage};
use crate::bill::{Before, Bill, BillLine};
use crate::ledger::hex;
use crate::ports::{ObjectStore, StoreError};

/// Where files are dropped.
pub const PREFIX: &str = "inbox/";
const NAME: &str = "inbox";
/// The page that lists what the inbox held when it was fetched.
const LISTING: &str = "listing";
const PAGE: usize = 1_000;
/// More files than anybody drops: it bounds a store that lists in a circle.
const MAX_FILES: usize = 20_000;
/// Larger files do not fit beside a night's other work: a FOCUS export of millions of rows is split by its exporter.
const MAX_FILE: u64 = 32 * 1024 * 1024;
/// A packed file's content.
const MAX_UNPACKED: u64 = 64 * 1024 * 1024;
/// All files together, packed as they may be, are held in memory while they are read; so are their lines, which take
/// some four times the room of a FOCUS row.
const MAX_TOTAL: u64 = 64 * 1024 * 1024;
/// How many bad rows of one file are named one by one.
const NAMED_ROWS: usize = 20;

/// The inbox of an object store.
pub struct Inbox {
    store: Arc<dyn ObjectStore>,
    mapping: Mapping,
}

/// What the inbox held: one entry of the listing page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    key: String,
    size: u64,
}

/// The inbox, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sorted {
    /// What the good files say.
    pub bill: Bill,
    /// Files that wait for a person: which, where in them, and why.
    pub held: Vec<HeldPart>,
}

/// Who is billed for which days by which file: two files for one are doubtful.
type Covered<'a> = BTreeMap<(String, String), Vec<(&'a str, Timestamp, Timestamp)>>;

impl Inbox {
    /// The inbox of `store`, read as `mapping` says.
    pub fn new(store: Arc<dyn ObjectStore>, mapping: Mapping) -> Self {
        Self { store, mapping }
    }

    /// Reads the files: the bill, and apart from it the files that are held. [`Connector::read`] gives the first, and
    /// [`Connector::held`] the second.
    pub fn sort(&self, days: Days, pages: &[RawPage]) -> Result<Sorted, PullError> {
        let mut sorted = Sorted::default();
        let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut covered = Covered::new();
        let mut files: Vec<(&str, &FileRule, Rows)> = Vec::new();
        let mut before: BTreeMap<(String, Timestamp, Timestamp), Usd> = BTreeMap::new();
        let by_key: BTreeMap<&str, &RawPage> =
            pages.iter().map(|page| (page.label.as_str(), page)).collect();
        for listed in listing(pages)? {
            let Some(rule) = self.mapping.rule(below(&listed.key)) else {
                let note =
                    format!("{}: no rule of the inbox mapping matches it: add one", listed.key);
                sorted.bill.notes.push(note);
                continue;
            };
            let Some(page) = by_key.get(listed.key.as_str()).copied() else {
                let (held, megabytes) = (&mut sorted.held, MAX_FILE / 1024 / 1024);
                let reason = if listed.size > MAX_FILE {
                    format!("is larger than {megabytes} MiB: split it by day")
                } else {
                    "went away while the inbox was read".into()
                };
                held.push(waiting(rule, finding(&listed.key, "file", reason)));
                continue;
            };
            let body = match unpacked(&page.body, MAX_UNPACKED) {
                Ok(body) => body,
                Err(reason) => {
                    sorted.held.push(waiting(rule, finding(&listed.key, "file", reason)));
                    continue;
                }
            };
            let rows = match &rule.format {
                Format::Csv(csv) => mapped::read(rule, csv, &body),
                Format::Focus(format) => focus::read(rule, format, &body),
            };
            // The bytes alone may be two providers' bills: whose and of which days they are is in what was read.
            let same = seen.entry(hex(Sha256::digest(&body).as_slice())).or_default();
            let mut earlier = same.iter().filter_map(|at| files.get(*at));
            if let Some((first, ..)) = earlier.find(|(.., read)| read.lines == rows.lines) {
                let note = format!("{}: the same content as {first}, counted once", listed.key);
                sorted.bill.notes.push(note);
                continue;
            }
            if !rows.lines.is_empty() {
                same.push(files.len());
            }
            files.push((&page.label, rule, rows));
        }
        let good = files.iter().filter(|(_, rule, rows)| !waits(rule, rows));
        let spans = spans(days, || good.clone().flat_map(|(.., rows)| &rows.lines));
        for (key, rule, rows) in files {
            let lines = take(&mut sorted, &mut covered, &spans, (key, rule, rows));
            for line in lines.into_iter().filter(|line| line.start < days.start()) {
                let sum = before.entry((line.provider, line.start, line.end)).or_default();
                let too_much = || finding(key, "amounts", "add up to more than can be counted");
                *sum = sum.checked_add(line.amount).ok_or_else(too_much)?;
            }
        }
        let before = before.into_iter().map(|((provider, start, end), amount)| Before {
            provider,
            start,
            end,
            amount,
        });
        sorted.bill.before = before.collect();
        overlaps(&covered, &mut sorted.bill.notes);
        Ok(sorted)
    }
}

/// Whether a file waits for a person as a whole.
fn waits(rule: &FileRule, rows: &Rows) -> bool {
    let as_a_whole = rows.bad.iter().any(|bad| bad.line == 0);
    as_a_whole || (rule.bad_rows == BadRows::Hold && !rows.bad.is_empty())
}

/// From when to when each provider's charges are taken: the days asked for, and all days of each charge that reaches into
/// them. On those days too the bill is whole then: a part of it would be booked as all of it.
fn spans<'l, L: Iterator<Item = &'l BillLine>>(
    days: Days,
    lines: impl Fn() -> L,
) -> BTreeMap<String, (Timestamp, Timestamp)> {
    let mut spans: BTreeMap<String, (Timestamp, Timestamp)> = BTreeMap::new();
    loop {
        let mut widened = false;
        for line in lines() {
            let whole = (days.start(), days.end());
            let span = spans.entry(line.provider.clone()).or_insert(whole);
            let first = line.start.date().midnight();
            let after = line.end.plus_ms(DAY_MS - 1).date().midnight();
            if reaches_into(line, *span) && (first < span.0 || after > span.1) {
                *span = (first.min(span.0), after.max(span.1));
                widened = true;
            }
        }
        if !widened {
            return spans;
        }
    }
}

fn reaches_into(line: &BillLine, span: (Timestamp, Timestamp)) -> bool {
    line.start < span.1 && line.end > span.0
}

/// Takes a file's charges on the days that are asked for, and gives back the others.
fn take<'a>(
    sorted: &mut Sorted,
    covered: &mut Covered<'a>,
    spans: &BTreeMap<String, (Timestamp, Timestamp)>,
    (key, rule, rows): (&'a str, &FileRule, Rows),
) -> Vec<BillLine> {
    if waits(rule, &rows) {
        sorted.held.push(waiting(rule, bad_file(key, &rows)));
        return Vec::new();
    }
    let empty = rows.lines.is_empty();
    let within =
        |line: &BillLine| spans.get(&line.provider).is_some_and(|span| reaches_into(line, *span));
    let (lines, others): (Vec<BillLine>, Vec<BillLine>) = rows.lines.into_iter().partition(within);
    if lines.is_empty() && !empty {
        // A file of other days: what there is to say about its rows is said when they are read.
        return others;
    }
    let notes = &mut sorted.bill.notes;
    let named = rows.bad.iter().take(NAMED_ROWS);
    notes.extend(named.map(|bad| format!("{key}: {} is not taken", described(bad))));
    if rows.bad.len() > NAMED_ROWS {
        notes.push(format!("{key}: {} more rows are not taken", rows.bad.len() - NAMED_ROWS));
    }
    if rows.skipped > 0 {
        notes.push(format!("{key}: {} rows are no charges", rows.skipped));
    }
    if rows.rounded > 0 {
        notes.push(format!("{key}: {} numbers were rounded to 12 places", rows.rounded));
    }
    if empty {
        notes.push(format!("{key}: there is no charge in it"));
    }
    for line in &lines {
        cover(covered, key, line);
    }
    sorted.bill.lines.extend(lines);
    others
}

/// The content of a file: unpacked when it is gzip, as exporters of FOCUS do.
fn unpacked(body: &[u8], limit: u64) -> Result<Cow<'_, [u8]>, String> {
    if !body.starts_with(b"\x1f\x8b") {
        return Ok(Cow::Borrowed(body));
    }
    let mut content = Vec::new();
    let mut limited = MultiGzDecoder::new(body).take(limit.saturating_add(1));
    limited
        .read_to_end(&mut content)
        .map_err(|error| format!("cannot be unpacked ({error}): drop it again whole"))?;
    if u64::try_from(content.len()).map_or(true, |size| size > limit) {
        let megabytes = limit / 1024 / 1024;
        return Err(format!("is larger than {megabytes} MiB unpacked: split it by day"));
    }
    Ok(Cow::Owned(content))
}

/// Widens what the file bills for the line's account.
fn cover<'a>(covered: &mut Covered<'a>, key: &'a str, line: &BillLine) {
    let files = covered.entry((line.provider.clone(), line.account.clone())).or_default();
    match files.last_mut().filter(|(file, ..)| *file == key) {
        Some((_, start, end)) => {
            *start = line.start.min(*start);
            *end = line.end.max(*end);
        }
        None => files.push((key, line.start, line.end)),
    }
}

/// A corrected file beside the one it replaces bills twice. Only a person can tell it from two halves.
fn overlaps(covered: &Covered<'_>, notes: &mut Vec<String>) {
    for ((provider, account), files) in covered {
        let mut files = files.clone();
        files.sort_by_key(|(key, start, _)| (*start, *key));
        for pair in files.windows(2) {
            if let [(first, _, end), (second, start, _)] = pair
                && start < end
            {
                notes.push(format!(
                    "{second}: bills {provider} {account} for days that {first} bills too: \
                     if it replaces it, delete the older file"
                ));
            }
        }
    }
}

fn described(bad: &BadRow) -> String {
    let (line, column, reason) = (bad.line, &bad.cell.column, &bad.cell.reason);
    if line == 0 {
        format!("`{column}` {reason}")
    } else {
        format!("line {line}, `{column}` {reason}")
    }
}

fn bad_file(key: &str, rows: &Rows) -> PullError {
    let mut named = rows.bad.iter().take(NAMED_ROWS);
    let (field, mut reason) = match named.next() {
        Some(BadRow { line: 0, cell }) => (cell.column.clone(), cell.reason.clone()),
        Some(BadRow { line, cell }) => {
            (format!("line {line}, {}", cell.column), cell.reason.clone())
        }
        None => ("file".into(), "cannot be read".into()),
    };
    for bad in named {
        reason.push_str("; ");
        reason.push_str(&described(bad));
    }
    if rows.bad.len() > NAMED_ROWS {
        reason.push_str(&format!("; and {} more", rows.bad.len() - NAMED_ROWS));
    }
    reason.push_str(". The whole file waits: mend it and drop it again, or change its mapping");
    finding(key, field, reason)
}

fn waiting(rule: &FileRule, why: PullError) -> HeldPart {
    HeldPart { why, providers: rule.providers() }
}

fn finding(key: &str, field: impl Into<String>, reason: impl Into<String>) -> PullError {
    PullError::Unreadable {
        source_name: NAME.into(),
        what: key.into(),
        field: field.into(),
        reason: reason.into(),
    }
}

/// A key's path below the inbox.
fn below(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// The inbox's files, from its listing page.
fn listing(pages: &[RawPage]) -> Result<Vec<Listed>, PullError> {
    let missing = || finding(LISTING, "page", "is missing: fetch the inbox again");
    let page = pages.iter().find(|page| page.label == LISTING).ok_or_else(missing)?;
    serde_json::from_slice(&page.body).map_err(|error| finding(LISTING, "page", error.to_string()))
}

fn store_failed(what: &str, error: &StoreError) -> PullError {
    let (source_name, what) = (NAME.into(), what.into());
    match error {
        StoreError::Denied { .. } => {
            PullError::Refused { source_name, what, remedy: error.to_string() }
        }
        _ => PullError::Unavailable { source_name, what, reason: error.to_string() },
    }
}

#[async_trait]
impl Connector for Inbox {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Brings every file of the inbox that has a rule, whatever the days: which days a file bills is known by its rows.
    async fn fetch(&self, _days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut files: Vec<Listed> = Vec::new();
        loop {
            let after = files.last().map(|file| file.key.clone());
            let page = self.store.list(PREFIX, after.as_deref(), PAGE).await;
            let page = page.map_err(|error| store_failed(PREFIX, &error))?;
            let full = page.len() >= PAGE;
            files.extend(page.into_iter().map(|meta| Listed { key: meta.key, size: meta.size }));
            if files.len() > MAX_FILES {
                let reason = format!("lists more than {MAX_FILES} files: move old ones elsewhere");
                return Err(finding(PREFIX, "files", reason));
            }
            if !full {
                break;
            }
        }
        // Consoles make an empty object to show a folder.
        files.retain(|file| !(file.size == 0 && file.key.ends_with('/')));
        let brought =
            |file: &Listed| file.size <= MAX_FILE && self.mapping.rule(below(&file.key)).is_some();
        let total = files.iter().filter(|file| brought(file)).map(|file| file.size).sum::<u64>();
        if total > MAX_TOTAL {
            let megabytes = MAX_TOTAL / 1024 / 1024;
            let reason = format!("are more than {megabytes} MiB together: move old ones elsewhere");
            return Err(finding(PREFIX, "files", reason));
        }
        let listing = serde_json::to_vec(&files)
            .map_err(|error| finding(LISTING, "page", error.to_string()))?;
        let mut pages = vec![RawPage { label: LISTING.into(), body: Bytes::from(listing) }];
        for file in files.into_iter().filter(brought) {
            let body = self.store.get(&file.key).await;
            let body = body.map_err(|error| store_failed(&file.key, &error))?;
            pages.extend(body.map(|body| RawPage { label: file.key, body }));
        }
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        self.sort(days, pages).map(|sorted| sorted.bill)
    }

    fn held(&self, days: Days, pages: &[RawPage]) -> Result<Vec<HeldPart>, PullError> {
        self.sort(days, pages).map(|sorted| sorted.held)
    }
}

#[cfg(test)]
mod tests;
