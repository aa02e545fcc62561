//! `GET /organization/projects` and each project's `api_keys`: the keys that could have caused a cost. Admin keys are
//! not listed, they buy nothing.

use serde::Deserialize;

use super::{NAME, PROJECTS, PullError, RawPage, Reader};
use crate::bill::{Bill, Credential};
use crate::connectors::read::UnixSeconds;

#[derive(Deserialize)]
struct Listed {
    has_more: bool,
    last_id: Option<String>,
}

#[derive(Deserialize)]
struct Projects {
    data: Vec<Project>,
}

#[derive(Deserialize)]
struct Project {
    id: String,
}

#[derive(Deserialize)]
struct Keys {
    data: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    id: String,
    name: Option<String>,
    redacted_value: Option<String>,
    created_at: UnixSeconds,
    last_used_at: Option<UnixSeconds>,
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

/// The ids of the projects on a page.
pub(super) fn projects(page: &RawPage) -> Result<Vec<String>, PullError> {
    let reader = Reader::new(NAME, &page.label);
    let read: Projects = reader.json(&page.body)?;
    let ids = read.data.into_iter().enumerate().map(|(at, project)| {
        // The id becomes a part of an address and of a label.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if project.id.is_empty() || !project.id.bytes().all(plain) {
            return Err(reader.wrong(&format!("data[{at}].id"), "is no id of a project"));
        }
        Ok(project.id)
    });
    ids.collect()
}

/// What the keys of a project are kept under.
pub(super) fn label(project: &str) -> String {
    format!("{PROJECTS}/{project}/api_keys")
}

/// The project of such a label.
pub(super) fn project_of(label: &str) -> Option<&str> {
    label.strip_prefix(PROJECTS)?.strip_prefix('/')?.strip_suffix("/api_keys")
}

/// Reads one page of keys, and says whether more follow.
pub(super) fn page(
    reader: &Reader<'_>,
    account: &str,
    project: &str,
    page: &RawPage,
    bill: &mut Bill,
) -> Result<bool, PullError> {
    let read: Keys = reader.json(&page.body)?;
    bill.credentials.extend(read.data.into_iter().map(|key| Credential {
        provider: NAME.into(),
        account: account.into(),
        project: Some(project.into()),
        id: key.id,
        name: key.name,
        hint: key.redacted_value,
        created: Some(key.created_at.0),
        last_used: key.last_used_at.map(|at| at.0),
        // A revoked key is listed no more.
        active: true,
    }));
    Ok(next(reader, &page.body)?.is_some())
}
