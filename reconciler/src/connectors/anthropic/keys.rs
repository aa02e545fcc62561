//! `GET /v1/organizations/api_keys`.

use serde::Deserialize;

use super::{NAME, Page, PullError, Reader, workspace};
use crate::bill::{Bill, Credential};
use crate::connectors::read::Utc;

pub(super) const LABEL: &str = "api_keys";

#[derive(Deserialize)]
struct Listed {
    has_more: bool,
    last_id: Option<String>,
}

#[derive(Deserialize)]
struct Keys {
    data: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    name: Option<String>,
    workspace_id: Option<String>,
    partial_key_hint: Option<String>,
    created_at: Utc,
    status: String,
}

/// The cursor of the page after this one.
pub(super) fn next(reader: &Reader<'_>, body: &[u8]) -> Result<Option<String>, PullError> {
    let listed: Listed = reader.json(body)?;
    match (listed.has_more, listed.last_id) {
        (false, _) => Ok(None),
        (true, Some(last)) if !last.is_empty() => Ok(Some(last)),
        (true, _) => Err(reader.wrong("last_id", "is missing, and `has_more` is true")),
    }
}

/// Reads one page, and says whether more follow.
pub(super) fn page(page: &Page<'_>, bill: &mut Bill) -> Result<bool, PullError> {
    let read: Keys = page.reader.json(page.body)?;
    bill.credentials.extend(read.data.into_iter().map(|key| Credential {
        provider: NAME.into(),
        account: page.account.into(),
        project: workspace(key.workspace_id),
        id: key.id,
        name: key.name,
        hint: key.partial_key_hint,
        created: Some(key.created_at.0),
        last_used: None,
        // A status that is not known may well let the key be used: it counts as active.
        active: !matches!(key.status.as_str(), "inactive" | "archived" | "expired"),
    }));
    Ok(next(&page.reader, page.body)?.is_some())
}
