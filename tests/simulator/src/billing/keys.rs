//! The keys that the providers list: those of the books, and those that a test adds.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::params::{Params, Plan};
use super::shape::Shape;
use super::{Endpoint, Refusal, openai};
use crate::bills::{belongs, key_id};
use crate::books::{Account, Used};
use crate::clock::{Day, Span};
use crate::quirks::Quirks;

/// A key as a provider knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    id: String,
    name: String,
    hint: String,
    project: Option<String>,
    used: Option<(Day, Day)>,
    active: bool,
}

impl Listed {
    /// The keys of an account, by id.
    pub(crate) fn all<'a>(
        books: impl Iterator<Item = (&'a Account, &'a Used)>,
        quirks: &Quirks,
    ) -> Vec<Self> {
        let mut known: BTreeMap<&str, Option<(Day, Day)>> =
            quirks.keys.iter().map(|key| (key.credential.as_str(), None)).collect();
        for (account, _) in books {
            let mine =
                account.flavour == quirks.provider && belongs(&quirks.account, &account.credential);
            if mine {
                let used = known.entry(&account.credential).or_default();
                let (first, last) = used.unwrap_or((account.day, account.day));
                *used = Some((first.min(account.day), last.max(account.day)));
            }
        }
        let listed = known.into_iter().map(|(credential, used)| {
            let said = quirks.key(credential);
            let id = key_id(&quirks.provider, credential);
            let short = id.get(..10).unwrap_or_default();
            let name = said.and_then(|key| key.name.clone());
            Self {
                name: name.unwrap_or_else(|| format!("Key {short}")),
                hint: hint(credential),
                project: said.and_then(|key| key.project.clone()),
                used,
                active: said.is_none_or(|key| !key.inactive),
                id,
            }
        });
        let mut listed: Vec<Self> = listed.collect();
        listed.sort_by(|one, other| one.id.cmp(&other.id));
        listed
    }

    fn created(&self) -> Day {
        self.used.map_or(Day::of_unix(1_767_225_600), |(first, _)| first)
    }

    fn project(&self) -> &str {
        self.project.as_deref().unwrap_or(openai::PROJECT)
    }
}

/// What a provider shows of a key: its beginning, and its last four letters.
fn hint(credential: &str) -> String {
    let end: String = credential.chars().rev().take(4).collect();
    format!("sk-sim...{}", end.chars().rev().collect::<String>())
}

pub(crate) fn plan(
    endpoint: &Endpoint,
    params: &Params,
    today: Day,
    page_size: Option<u64>,
) -> Result<Plan, String> {
    let (known, most): (&[&str], u64) = match endpoint {
        Endpoint::AnthropicKeys => {
            (&["limit", "after_id", "before_id", "status", "workspace_id"], 1_000)
        }
        Endpoint::OpenRouterKeys => (&["offset", "include_disabled"], 100),
        _ => (&["limit", "after", "order", "include_archived", "owner_project_access"], 100),
    };
    params.only(known)?;
    if params.one("before_id")?.is_some() {
        return Err("before_id: only after_id is served here".to_owned());
    }
    let limit = params.limit(if *endpoint == Endpoint::OpenRouterKeys { 100 } else { 20 }, most)?;
    let first = params.one("after")?.or(params.one("after_id")?).is_none()
        && params.integer("offset")?.unwrap_or_default() == 0;
    let span = Span { from: today, to: today.plus(1) };
    let plan = Plan::of_days(params, span, limit.min(page_size.unwrap_or(limit)))?;
    Ok(Plan { page: if first { 1 } else { 2 }, ..plan })
}

/// A page of a list, after the id that the request names; and whether there are more.
fn page<'a, T>(
    plan: &Plan,
    all: &'a [T],
    id: impl Fn(&T) -> &str,
    shape: Shape,
) -> (Vec<&'a T>, bool) {
    let after = plan.params.many("after").into_iter().chain(plan.params.many("after_id")).next();
    let skipped = after.filter(|_| !shape.repeated_cursor).map_or(0, |after| {
        all.iter().position(|one| id(one) == after).map_or(all.len(), |place| place + 1)
    });
    let limit = usize::try_from(plan.limit).unwrap_or(usize::MAX);
    let page: Vec<&T> = all.iter().skip(skipped).take(limit).collect();
    let more = shape.repeated_cursor || skipped + page.len() < all.len();
    (page, more)
}

fn list(data: Vec<Value>, more: bool) -> String {
    let id = |row: Option<&Value>| row.and_then(|row| row.get("id")).cloned();
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more })
        .to_string()
}

pub(crate) fn openai_admin(quirks: &Quirks) -> String {
    let id = key_id("openai", &format!("admin {}", quirks.account));
    let created = Day::of_unix(1_767_225_600).unix();
    let owner = json!({ "type": "user", "object": "organization.user", "id": "user_sim",
        "name": "Ann Admin", "created_at": created, "role": "owner" });
    let key = json!({ "object": "organization.admin_api_key", "id": id, "name": "Billing",
        "redacted_value": "sk-admin...im", "created_at": created, "last_used_at": null,
        "expires_at": null, "owner": owner });
    list(vec![key], false)
}

pub(crate) fn openai_projects(plan: &Plan, listed: &[Listed], shape: Shape) -> String {
    let ids: BTreeSet<&str> = listed.iter().map(Listed::project).chain([openai::PROJECT]).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let (rows, more) = page(plan, &ids, |id| id, shape);
    let row = |id: &&str| {
        json!({ "id": id, "object": "organization.project", "name": id,
            "created_at": Day::of_unix(1_767_225_600).unix(), "archived_at": null, "status": "active" })
    };
    list(rows.into_iter().map(row).collect(), more)
}

pub(crate) fn openai_keys(
    project: &str,
    plan: &Plan,
    listed: &[Listed],
    shape: Shape,
) -> Result<String, Refusal> {
    // A key that is revoked is gone from this list.
    let mine: Vec<&Listed> =
        listed.iter().filter(|key| key.project() == project && key.active).collect();
    if mine.is_empty() && project != openai::PROJECT {
        return Err((404, format!("No such project: {project}.")));
    }
    let (rows, more) = page(plan, &mine, |key| key.id.as_str(), shape);
    let row = |key: &&Listed| {
        let created = key.created().unix();
        let user = json!({ "id": "user_sim", "name": "Ann Admin", "email": "ann@example.com",
            "role": "owner", "created_at": created });
        json!({ "object": "organization.project.api_key", "id": key.id, "name": key.name,
            "redacted_value": key.hint, "created_at": created,
            "last_used_at": key.used.map(|(_, last)| last.unix()), "expires_at": null,
            "owner_project_access": "active", "owner": { "type": "user", "user": user } })
    };
    Ok(list(rows.into_iter().map(row).collect(), more))
}

pub(crate) fn anthropic(plan: &Plan, listed: &[Listed], shape: Shape) -> String {
    let status = |key: &Listed| if key.active { "active" } else { "inactive" };
    let wanted = |key: &&Listed| {
        plan.wants("status", Some(status(key)))
            && plan.wants("workspace_id", key.project.as_deref())
    };
    let mine: Vec<&Listed> = listed.iter().filter(wanted).collect();
    let (rows, more) = page(plan, &mine, |key| key.id.as_str(), shape);
    let row = |key: &&Listed| {
        let scope = match &key.project {
            Some(id) => json!({ "type": "workspace", "workspace_id": id }),
            None => json!({ "type": "organization" }),
        };
        json!({ "id": key.id, "type": "api_key", "name": key.name, "workspace_id": key.project,
            "created_at": key.created().rfc3339(), "expires_at": null, "principal": null,
            "created_by": { "id": "user_sim", "type": "user" }, "scope": scope,
            "partial_key_hint": key.hint, "status": status(key) })
    };
    let data: Vec<Value> = rows.into_iter().map(row).collect();
    let id = |row: Option<&Value>| row.and_then(|row| row.get("id")).cloned();
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "data": data, "first_id": first, "last_id": last, "has_more": more }).to_string()
}

pub(crate) fn openrouter(plan: &Plan, listed: &[Listed], _shape: Shape) -> String {
    let skipped = plan.params.many("offset").first().and_then(|offset| offset.parse().ok());
    let limit = usize::try_from(plan.limit).unwrap_or(usize::MAX);
    let rows = listed.iter().skip(skipped.unwrap_or_default()).take(limit);
    let row = |key: &Listed| {
        json!({ "hash": key.id, "name": key.name, "label": key.hint, "disabled": !key.active,
            "limit": null, "limit_remaining": null, "workspace_id": key.project,
            "created_at": key.created().rfc3339(), "updated_at": null })
    };
    json!({ "data": rows.map(row).collect::<Vec<Value>>() }).to_string()
}
