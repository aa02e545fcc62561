//! Step 2: the gateway's events of a day. They are copied from the edge into the object store, in parts that fit memory,
//! and from then on read from there: the edge lets old events go, the books do not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::time::{DAY_MS, Date};

use super::NightError;
use super::read::Aggregator;
use crate::connectors::PullError;
use crate::edge::Edge;
use crate::ledger::hex;
use crate::ports::{LedgerStore, ObjectStore, StoreError};

/// Events in a part: 100,000 x about 1.5 KB = 150 MB as text, a twentieth of it compressed.
const PART_EVENTS: u64 = 100_000;
/// zstd's level: its default.
const LEVEL: i32 = 3;

/// A day's events in the object store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayEvents {
    /// How many.
    pub events: u64,
    /// Their parts' keys, in order.
    pub parts: Vec<String>,
    /// The part of those that were settled after the day, if there are any: the provider may count them on the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub carried_over: Option<String>,
}

/// Why a day's events cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum EventsFailed {
    /// The edge.
    #[error(transparent)]
    Edge(#[from] PullError),
    /// A store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The scratch directory, or what the parts hold.
    #[error(transparent)]
    Night(#[from] NightError),
}

fn mark_of(workspace: &str, day: Date) -> String {
    format!("events#{workspace}#{day}")
}

fn scratch_error(directory: &Path, error: &std::io::Error) -> NightError {
    NightError::Spill { directory: directory.display().to_string(), reason: error.to_string() }
}

/// A part that is being written.
struct Part {
    path: PathBuf,
    out: BufWriter<zstd::Encoder<'static, std::fs::File>>,
    events: u64,
}

impl Part {
    fn begin(directory: &Path, name: &str) -> std::io::Result<Self> {
        let path = directory.join(name);
        let encoder = zstd::Encoder::new(std::fs::File::create(&path)?, LEVEL)?;
        Ok(Self { path, out: BufWriter::new(encoder), events: 0 })
    }

    fn push(&mut self, line: &str) -> std::io::Result<()> {
        self.events += 1;
        self.out.write_all(line.as_bytes())?;
        self.out.write_all(b"\n")
    }

    fn finish(self) -> std::io::Result<PathBuf> {
        let encoder = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        encoder.finish()?;
        Ok(self.path)
    }
}

/// Splits lines into parts.
struct Splitter<'a> {
    directory: &'a Path,
    day_end_ms: i64,
    open: Option<Part>,
    carried: Option<Part>,
    done: Vec<PathBuf>,
    events: u64,
}

impl Splitter<'_> {
    fn push(&mut self, line: &str) -> Result<(), String> {
        let event: UsageEvent = serde_json::from_str(line).map_err(|e| format!("event: {e}"))?;
        self.write(line, &event).map_err(|e| scratch_error(self.directory, &e).to_string())
    }

    fn write(&mut self, line: &str, event: &UsageEvent) -> std::io::Result<()> {
        if self.open.as_ref().is_some_and(|part| part.events >= PART_EVENTS)
            && let Some(full) = self.open.take()
        {
            self.done.push(full.finish()?);
        }
        let part = match &mut self.open {
            Some(part) => part,
            empty => {
                let name = format!("part-{:05}", self.done.len());
                empty.insert(Part::begin(self.directory, &name)?)
            }
        };
        part.push(line)?;
        if event.settled_at.ms() >= self.day_end_ms {
            let carried = match &mut self.carried {
                Some(part) => part,
                empty => empty.insert(Part::begin(self.directory, "carried-over")?),
            };
            carried.push(line)?;
        }
        self.events += 1;
        Ok(())
    }
}

/// Copies a day's events from the edge, and notes where they are. The same events make the same parts.
pub async fn copy(
    edge: &Edge<'_>,
    workspace: &str,
    day: Date,
    objects: &dyn ObjectStore,
    ledger: &dyn LedgerStore,
    scratch: &Path,
) -> Result<DayEvents, EventsFailed> {
    let directory = tempfile::tempdir_in(scratch).map_err(|e| scratch_error(scratch, &e))?;
    let mut splitter = Splitter {
        directory: directory.path(),
        day_end_ms: day.midnight().plus_ms(DAY_MS).ms(),
        open: None,
        carried: None,
        done: Vec::new(),
        events: 0,
    };
    edge.export("events", day, &mut |line| splitter.push(line)).await?;
    let finish = |part: Option<Part>| {
        part.map(Part::finish).transpose().map_err(|e| scratch_error(scratch, &e))
    };
    let Splitter { open, carried, mut done, events, .. } = splitter;
    done.extend(finish(open)?);
    let mut parts = Vec::with_capacity(done.len());
    for path in &done {
        parts.push(upload(path, workspace, day, objects).await?);
    }
    let carried_over = match finish(carried)? {
        Some(path) => Some(upload(&path, workspace, day, objects).await?),
        None => None,
    };
    let found = DayEvents { events, parts, carried_over };
    note(workspace, day, &found, objects, ledger).await?;
    Ok(found)
}

async fn upload(
    path: &Path,
    workspace: &str,
    day: Date,
    objects: &dyn ObjectStore,
) -> Result<String, EventsFailed> {
    let failed = |e: std::io::Error| EventsFailed::Night(scratch_error(path, &e));
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let read = std::io::Read::read(&mut file, &mut buffer).map_err(failed)?;
        if read == 0 {
            break;
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
    let sha256 = hex(hash.finalize().as_slice());
    let key = format!("events/v1/{workspace}/{day}/{sha256}.ndjson.zst");
    objects.put_file_once(&key, path).await?;
    Ok(key)
}

async fn note(
    workspace: &str,
    day: Date,
    found: &DayEvents,
    objects: &dyn ObjectStore,
    ledger: &dyn LedgerStore,
) -> Result<(), StoreError> {
    let failed =
        |e: serde_json::Error| StoreError::Failed { store: "events", reason: e.to_string() };
    let body = serde_json::to_vec(found).map_err(failed)?;
    let key = format!("events/v1/{workspace}/{day}/list-{}.json", crate::stores::sha256(&body));
    objects.put_once(&key, body.into()).await?;
    let name = mark_of(workspace, day);
    loop {
        let before = ledger.mark(&name).await?;
        if before.as_deref() == Some(&key)
            || ledger.set_mark(&name, before.as_deref(), &key).await?
        {
            return Ok(());
        }
    }
}

/// Where a day's events are, if they were copied.
pub async fn known(
    workspace: &str,
    day: Date,
    objects: &dyn ObjectStore,
    ledger: &dyn LedgerStore,
) -> Result<Option<(String, DayEvents)>, StoreError> {
    let Some(key) = ledger.mark(&mark_of(workspace, day)).await? else { return Ok(None) };
    let damaged = |reason: &str| StoreError::Damaged {
        store: "events",
        key: key.clone(),
        reason: reason.to_owned(),
    };
    let body = objects.get(&key).await?.ok_or_else(|| damaged("the list is gone"))?;
    let found = serde_json::from_slice(&body).map_err(|_| damaged("it is no list of parts"))?;
    Ok(Some((key, found)))
}

/// Gives a day's events, and those carried over from the day before, to `into`.
pub async fn aggregate(
    today: &DayEvents,
    before: Option<&DayEvents>,
    objects: &dyn ObjectStore,
    into: &mut Aggregator,
) -> Result<(), EventsFailed> {
    for key in &today.parts {
        each(key, objects, &mut |event| into.add(event)).await?;
    }
    if let Some(key) = before.and_then(|before| before.carried_over.as_ref()) {
        each(key, objects, &mut |event| into.add_carried_over(event)).await?;
    }
    Ok(())
}

async fn each(
    key: &str,
    objects: &dyn ObjectStore,
    take: &mut (dyn FnMut(&UsageEvent) -> Result<(), NightError> + Send),
) -> Result<(), EventsFailed> {
    let damaged = |reason: String| {
        EventsFailed::Store(StoreError::Damaged { store: "events", key: key.to_owned(), reason })
    };
    let body = objects.get(key).await?.ok_or_else(|| damaged("the part is gone".to_owned()))?;
    let named = key.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or("");
    if crate::stores::sha256(&body) != named {
        return Err(damaged("it has other content than its name says".to_owned()));
    }
    let decoder = zstd::Decoder::new(body.as_ref()).map_err(|e| damaged(e.to_string()))?;
    for line in BufReader::new(decoder).lines() {
        let line = line.map_err(|e| damaged(e.to_string()))?;
        let event: UsageEvent =
            serde_json::from_str(&line).map_err(|e| damaged(format!("event: {e}")))?;
        take(&event)?;
    }
    Ok(())
}

/// A workspace's providers, as bills name them: price-book name and account, by the workspace's name.
pub fn places(
    context: &tallygate_shared::feedback::ReconcilerContext,
    accounts: &BTreeMap<String, String>,
    sources: &[crate::config::Source],
) -> BTreeMap<String, (String, String)> {
    context
        .providers
        .iter()
        .map(|(name, provider)| {
            let of_source = || {
                let mut known = sources.iter().filter_map(crate::config::Source::account);
                let found = known.find(|(billed, _)| *billed == provider.price_book)?;
                Some(found.1.to_owned())
            };
            let account = accounts.get(name).cloned().or_else(of_source).unwrap_or_default();
            (name.clone(), (provider.price_book.clone(), account))
        })
        .collect()
}
