//! Step 2: the gateway's events of a day. They are copied from the edge into the object store, in parts that fit memory,
//! and from then on read from there: the edge lets old events go, the books do not.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::time::{DAY_MS, Date};

use super::NightError;
use super::shelf::hash_of;
use super::write::WriteFailed;
use crate::connectors::PullError;
use crate::edge::{Edge, Export};
use crate::ports::{LedgerStore, ObjectStore, StoreError};

/// Events in a part: 100,000 x about 1.5 KB = 150 MB as text, a twentieth of it compressed.
pub const PART_EVENTS: u64 = 100_000;
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
    /// Parts of those that were settled after the day, if there are any: the provider may count them on the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub carried_over: Vec<String>,
}

/// Lists of days that were copied as a whole name one part.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Keys {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Keys::deserialize(from)? {
        Keys::One(key) => vec![key],
        Keys::Many(keys) => keys,
    })
}

/// How far a day's events are copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copying {
    /// What is in the object store.
    pub copied: DayEvents,
    /// Where the export stands.
    pub after: Option<String>,
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

    fn push(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.events += 1;
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }

    fn finish(self) -> std::io::Result<PathBuf> {
        let encoder = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        encoder.finish()?;
        Ok(self.path)
    }
}

/// What is copied, and where to.
pub struct Copier<'a> {
    /// The edge.
    pub edge: &'a Edge<'a>,
    /// The workspace.
    pub workspace: &'a str,
    /// The day.
    pub day: Date,
    /// Where the parts go.
    pub objects: &'a dyn ObjectStore,
    /// Where a part is while it is made.
    pub scratch: &'a Path,
    /// Events in a part.
    pub part_events: u64,
}

impl Copier<'_> {
    /// Copies on from `so_far`, part by part. After each part `go_on` is asked. True when all is copied. The same events
    /// make the same parts, wherever it was interrupted.
    pub async fn copy(
        &self,
        so_far: &mut Copying,
        go_on: &(dyn Fn(&Copying) -> bool + Sync),
    ) -> Result<bool, EventsFailed> {
        let directory =
            tempfile::tempdir_in(self.scratch).map_err(|e| scratch_error(self.scratch, &e))?;
        let mut export = self.edge.events(self.day, so_far.after.clone());
        loop {
            let whole = self.part(directory.path(), &mut export, &mut so_far.copied).await?;
            so_far.after = export.place();
            if !whole {
                return Ok(true);
            }
            if !go_on(so_far) {
                return Ok(false);
            }
        }
    }

    /// Copies one part. False when the export ended.
    async fn part(
        &self,
        directory: &Path,
        export: &mut Export<'_>,
        into: &mut DayEvents,
    ) -> Result<bool, EventsFailed> {
        let failed = |e: std::io::Error| EventsFailed::Night(scratch_error(directory, &e));
        let day_end_ms = self.day.midnight().plus_ms(DAY_MS).ms();
        let (mut part, mut carried): (Option<Part>, Option<Part>) = (None, None);
        let mut whole = false;
        while !whole && let Some(line) = export.next().await? {
            let event: UsageEvent = serde_json::from_slice(&line)
                .map_err(|e| self.edge.no_line("events", &format!("event: {e}")))?;
            let begin = |name| Part::begin(directory, name).map_err(failed);
            let open = match &mut part {
                Some(part) => part,
                none => none.insert(begin("part")?),
            };
            open.push(line.trim_ascii_end()).map_err(failed)?;
            whole = open.events >= self.part_events;
            if event.settled_at.ms() >= day_end_ms {
                let open = match &mut carried {
                    Some(part) => part,
                    none => none.insert(begin("carried-over")?),
                };
                open.push(line.trim_ascii_end()).map_err(failed)?;
            }
        }
        if let Some(part) = part {
            let events = part.events;
            let key = self.upload(&part.finish().map_err(failed)?).await?;
            into.parts.push(key);
            into.events += events;
        }
        if let Some(part) = carried {
            into.carried_over.push(self.upload(&part.finish().map_err(failed)?).await?);
        }
        Ok(whole)
    }

    async fn upload(&self, path: &Path) -> Result<String, EventsFailed> {
        let sha256 = hash_of(path).map_err(|e| EventsFailed::Night(scratch_error(path, &e)))?;
        let (workspace, day) = (self.workspace, self.day);
        let key = format!("events/v1/{workspace}/{day}/{sha256}.ndjson.zst");
        self.objects.put_file_once(&key, path).await?;
        Ok(key)
    }
}

/// Notes where a day's events are.
pub async fn note(
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

/// Shows each event of a part.
pub async fn each(
    key: &str,
    objects: &dyn ObjectStore,
    take: &mut (dyn FnMut(&UsageEvent) -> Result<(), NightError> + Send),
) -> Result<(), WriteFailed> {
    let damaged =
        |reason: String| StoreError::Damaged { store: "events", key: key.to_owned(), reason };
    let body = objects.get(key).await?.ok_or_else(|| damaged("the part is gone".to_owned()))?;
    let named = key.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or("");
    if crate::stores::sha256(&body) != named {
        return Err(damaged("it has other content than its name says".to_owned()).into());
    }
    let decoder = zstd::Decoder::new(body.as_ref()).map_err(|e| damaged(e.to_string()))?;
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 17, decoder), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(|e| damaged(e.to_string()))? == 0 {
            return Ok(());
        }
        let event: UsageEvent =
            serde_json::from_slice(&line).map_err(|e| damaged(format!("event: {e}")))?;
        take(&event)?;
    }
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
                let (_, account) = known.find(|(billed, _)| *billed == provider.price_book)?;
                // Of several accounts nobody knows which it is.
                let is_only = known.all(|(billed, _)| billed != provider.price_book);
                is_only.then(|| account.to_owned())
            };
            let account = accounts.get(name).cloned().or_else(of_source).unwrap_or_default();
            (name.clone(), (provider.price_book.clone(), account))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_where_its_bill_is_booked() {
        let context = serde_json::from_value(serde_json::json!({
            "workspace": "acme", "config_version": 1, "budgets": {}, "prices": [],
            "providers": { "foundry": { "price_book": "azure" }, "openai": { "price_book": "openai" } } }))
        .unwrap();
        let source = serde_json::from_value(serde_json::json!({
            "connector": "azure", "account": "s1", "scope": "subscriptions/s1",
            "credential": { "token": "t" } }))
        .unwrap();
        let openai = |account: &str| {
            serde_json::from_value(serde_json::json!({
                "connector": "openai", "account": account, "admin_key": "k" }))
            .unwrap()
        };
        let found = places(&context, &BTreeMap::new(), &[source, openai("a"), openai("b")]);
        let shown = |name: &str| (found[name].0.as_str(), found[name].1.as_str());
        // It is one of two accounts, and nobody says which.
        assert_eq!((shown("foundry"), shown("openai")), (("azure", "s1"), ("openai", "")));
        let found = places(&context, &BTreeMap::new(), &[openai("a")]);
        assert_eq!(found["openai"].1, "a");
    }
}
