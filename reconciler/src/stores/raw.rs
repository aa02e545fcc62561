//! Sources' answers, kept byte for byte under the hash of their content: the same answer is kept once, and what is read
//! back is what came.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tallygate_shared::time::Date;

use super::sha256;
use crate::connectors::RawPage;
use crate::ports::{ObjectStore, StoreError};

const STORE: &str = "raw answers";

/// Where a kept answer is, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentRef {
    /// As in [`RawPage::label`].
    pub label: String,
    /// The object's key.
    pub key: String,
    /// SHA-256 of the body, in hexadecimal.
    pub sha256: String,
    /// Bytes of the body.
    pub size: u64,
}

/// Keeps an answer of `source` that was asked for on account of `day`. `source` is a connector's name.
pub async fn keep(
    objects: &dyn ObjectStore,
    source: &str,
    day: Date,
    page: &RawPage,
) -> Result<ContentRef, StoreError> {
    let named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if source.is_empty() || !source.chars().all(named) {
        return Err(StoreError::Failed {
            store: STORE,
            reason: format!("the source `{}`: a-z, 0-9, _ and - only", source.escape_debug()),
        });
    }
    let sha256 = sha256(&page.body);
    let shelf = sha256.get(..2).unwrap_or_default();
    let key = format!("raw/v1/{source}/{day}/{shelf}/{sha256}");
    objects.put_once(&key, page.body.clone()).await?;
    Ok(ContentRef { label: page.label.clone(), key, sha256, size: page.body.len() as u64 })
}

/// The answer as it came. [`StoreError::Damaged`] when the store has none, or another one.
pub async fn load(objects: &dyn ObjectStore, kept: &ContentRef) -> Result<RawPage, StoreError> {
    let damaged =
        |reason: String| StoreError::Damaged { store: STORE, key: kept.key.clone(), reason };
    let body: Bytes = objects
        .get(&kept.key)
        .await?
        .ok_or_else(|| damaged("it is gone: pull the day again".to_owned()))?;
    let found = sha256(&body);
    if found != kept.sha256 {
        return Err(damaged(format!(
            "{} bytes with SHA-256 {found}, kept were {} with {}",
            body.len(),
            kept.size,
            kept.sha256
        )));
    }
    Ok(RawPage { label: kept.label.clone(), body })
}
