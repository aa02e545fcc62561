//! What the ledger remembers of a settled day. The mark is also what keeps two workers apart: whoever writes a day's
//! books says so in it first, and a worker that finds it changed by another one stops.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::feedback::ReconcilerFinding;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Date;

use crate::ledger::hex;
use crate::ports::{LedgerStore, ObjectStore, StoreError};

/// What is known of a day: the same input is not settled again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DayMark {
    /// Hash of all that went in; empty while somebody writes, and for good if that never ended.
    pub input: String,
    /// The number of the pull.
    pub seq: u64,
    /// Whether the edge has heard of it.
    pub fed: bool,
    /// What was told, so that it can be taken back: an object's key.
    pub told: String,
    /// What the books said then, by provider (see `pages`): a worker that was overtaken can still have written later.
    #[serde(default)]
    pub books: BTreeMap<String, String>,
    /// How much of it dropped files charge, by provider: a file can come when its first days are looked at no more. Marks
    /// of before this was noted have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filed: Option<BTreeMap<String, Usd>>,
}

/// A day's mark as a worker last saw or set it.
#[derive(Debug)]
pub struct Place {
    name: String,
    text: Option<String>,
    /// What it says.
    pub mark: DayMark,
}

impl Place {
    /// Reads a day's mark.
    pub async fn read(
        workspace: &str,
        day: Date,
        ledger: &dyn LedgerStore,
    ) -> Result<Self, StoreError> {
        let name = format!("day#{workspace}#{day}");
        let text = ledger.mark(&name).await?;
        let mark = match &text {
            None => DayMark::default(),
            Some(text) => serde_json::from_str(text).map_err(|e| StoreError::Damaged {
                store: "ledger",
                key: name.clone(),
                reason: e.to_string(),
            })?,
        };
        Ok(Self { name, text, mark })
    }

    /// Sets the mark. False when somebody else has changed it since.
    pub async fn set(
        &mut self,
        mark: DayMark,
        ledger: &dyn LedgerStore,
    ) -> Result<bool, StoreError> {
        let failed =
            |e: serde_json::Error| StoreError::Failed { store: "ledger", reason: e.to_string() };
        let text = serde_json::to_string(&mark).map_err(failed)?;
        if self.text.as_ref() == Some(&text) {
            return Ok(true);
        }
        let done = ledger.set_mark(&self.name, self.text.as_deref(), &text).await?;
        if done {
            self.text = Some(text);
            self.mark = mark;
        }
        Ok(done)
    }
}

/// What was told to the edge about a day, or may have been.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    /// Budgets and values that were corrected, by provider.
    pub corrected: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Findings that are open, by provider.
    pub findings: BTreeMap<String, Vec<ReconcilerFinding>>,
}

impl Told {
    /// Takes in what is about to be told for a provider: until the edge has it all, either may be there.
    pub fn widen(&mut self, provider: &str, other: &Self) {
        if let Some(corrected) = other.corrected.get(provider) {
            let ours = self.corrected.entry(provider.to_owned()).or_default();
            ours.extend(corrected.iter().cloned());
        }
        if let Some(findings) = other.findings.get(provider) {
            let ours = self.findings.entry(provider.to_owned()).or_default();
            for finding in findings {
                let same = |one: &ReconcilerFinding| {
                    (one.kind, one.subject.as_str()) == (finding.kind, finding.subject.as_str())
                };
                match ours.iter_mut().find(|one| same(one)) {
                    Some(one) => one.clone_from(finding),
                    None => ours.push(finding.clone()),
                }
            }
        }
    }

    /// Takes over what was told for a provider: the edge has heard all of it.
    pub fn replace(&mut self, provider: &str, other: &Self) {
        self.corrected.remove(provider);
        self.findings.remove(provider);
        self.widen(provider, other);
    }

    /// Reads what a mark names.
    pub async fn load(key: &str, objects: &dyn ObjectStore) -> Result<Self, StoreError> {
        load(key, objects).await
    }

    /// Keeps it. The key.
    pub async fn keep(
        &self,
        workspace: &str,
        objects: &dyn ObjectStore,
    ) -> Result<String, StoreError> {
        keep("day", workspace, self, objects).await
    }
}

/// Keeps what the edge was told, a small document, under its content's address.
pub async fn keep<T: Serialize>(
    kind: &'static str,
    workspace: &str,
    document: &T,
    objects: &dyn ObjectStore,
) -> Result<String, StoreError> {
    let failed = |e: serde_json::Error| StoreError::Failed { store: kind, reason: e.to_string() };
    let body = serde_json::to_vec(document).map_err(failed)?;
    let name = hex(Sha256::digest(&body).as_slice());
    let key = format!("told/v1/{workspace}/{kind}-{name}.json");
    objects.put_once(&key, body.into()).await?;
    Ok(key)
}

/// Reads what [`keep`] kept. Without a key there is nothing yet.
pub async fn load<T: Default + serde::de::DeserializeOwned>(
    key: &str,
    objects: &dyn ObjectStore,
) -> Result<T, StoreError> {
    if key.is_empty() {
        return Ok(T::default());
    }
    let damaged = |reason: &str| StoreError::Damaged {
        store: "what was told",
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    let body = objects.get(key).await?.ok_or_else(|| damaged("it is gone"))?;
    serde_json::from_slice(&body).map_err(|e| damaged(&e.to_string()))
}
