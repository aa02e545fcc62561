//! The inventory of keys, and where a workspace stands, from what several Ledgers know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::maturity::{Facts, assess};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::call::Step;

/// What the workspace says of its keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryQuery {
    /// When a key was last used is looked for from this moment on.
    pub since_ms: i64,
    /// What it was used for, from this one on.
    pub from_ms: i64,
    /// Before this moment: now.
    pub to_ms: i64,
    /// A key without a request for so many days is unused.
    pub days: u32,
    /// The keys as the API shows them, with `created_at`, `secret_at` and `rotation_due_at`.
    pub keys: Vec<Value>,
    /// Members' addresses; without any nothing is known of who is there.
    pub members: Vec<String>,
}

/// What the workspace and its Alerts object say of themselves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaturityQuery {
    /// From this moment on.
    pub from_ms: i64,
    /// Before this moment.
    pub to_ms: i64,
    /// The Ledgers to ask.
    pub ledgers: Vec<String>,
    /// What was counted so far.
    pub facts: Facts,
}

/// What stands for an owner and is none.
const NOBODY: [&str; 8] = ["-", "n/a", "nobody", "none", "tbd", "unassigned", "unknown", "unowned"];

/// Whether nobody answers for a key: its owner is a word for nobody, or the address of somebody who is no member.
fn is_unowned(owner: &str, members: &[String]) -> bool {
    let owner = owner.trim().to_lowercase();
    let gone = owner.contains('@') && !members.is_empty() && !members.contains(&owner);
    gone || NOBODY.contains(&owner.as_str())
}

fn moment(key: &Value, name: &str) -> Option<Timestamp> {
    Timestamp::parse(key.get(name)?.as_str()?)
}

#[derive(Default)]
struct Use {
    last_ms: i64,
    requests: u64,
    charged: Usd,
}

/// Every key with its use and with what should be done about it.
pub(super) fn inventory(payload: &str, rows: &[Value]) -> Option<Step> {
    let query: InventoryQuery = serde_json::from_str(payload).ok()?;
    let mut uses: BTreeMap<&str, Use> = BTreeMap::new();
    for row in rows {
        let known = uses.entry(row.get("key")?.as_str()?).or_default();
        known.last_ms = known.last_ms.max(row.get("last_ms")?.as_i64()?);
        known.requests = known.requests.saturating_add(row.get("requests")?.as_u64()?);
        let charged = row.get("charged_usd")?.as_str()?.parse().ok()?;
        known.charged = known.charged.saturating_add(charged);
    }
    let now = Timestamp::from_ms(query.to_ms);
    let none = Use::default();
    let data = query.keys.iter().map(|key| {
        let mut shown = key.as_object()?.clone();
        let used = uses.get(key.get("id")?.as_str()?).unwrap_or(&none);
        let created = moment(key, "created_at");
        let age = created.map(|at| now.since_ms(at) / DAY_MS);
        let mut findings = Vec::new();
        if key.get("status").and_then(Value::as_str) != Some("revoked") {
            // One that is younger than that has had no time to be used.
            if used.requests == 0 && age.is_none_or(|age| age >= i64::from(query.days)) {
                findings.push("unused");
            }
            let owner = key.get("owner").and_then(Value::as_str).unwrap_or_default();
            if is_unowned(owner, &query.members) {
                findings.push("unowned");
            }
            if moment(key, "rotation_due_at").is_some_and(|due| due <= now) {
                findings.push("rotation_due");
            }
        }
        let last = (used.last_ms > 0).then(|| Timestamp::from_ms(used.last_ms).to_string());
        let more = json!({ "age_days": age, "last_used_at": last, "requests": used.requests,
                           "charged_usd": used.charged, "findings": findings });
        shown.extend(more.as_object()?.clone());
        Some(Value::Object(shown))
    });
    let data: Vec<Value> = data.collect::<Option<_>>()?;
    Some(Step::json(200, &json!({ "days": query.days, "data": data })))
}

/// Where the workspace stands.
pub(super) fn maturity(payload: &str, rows: &[Value]) -> Option<Step> {
    let query: MaturityQuery = serde_json::from_str(payload).ok()?;
    let mut facts = query.facts;
    for row in rows {
        let month: Facts = serde_json::from_value(row.clone()).ok()?;
        for (sum, more) in [
            (&mut facts.requests, month.requests),
            (&mut facts.input_tokens, month.input_tokens),
            (&mut facts.cached_tokens, month.cached_tokens),
            (&mut facts.billed_days, month.billed_days),
            (&mut facts.outcomes, month.outcomes),
        ] {
            *sum = sum.saturating_add(more);
        }
        for (sum, more) in [
            (&mut facts.charged_usd, month.charged_usd),
            (&mut facts.of_teams_usd, month.of_teams_usd),
            (&mut facts.of_features_usd, month.of_features_usd),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
    Some(Step::json(200, &json!({ "capabilities": assess(&facts), "facts": facts })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(keys: &[Value], members: &[&str], rows: &[Value]) -> Vec<Value> {
        let query = InventoryQuery {
            since_ms: 0,
            from_ms: 70 * DAY_MS,
            to_ms: 100 * DAY_MS,
            days: 30,
            keys: keys.to_vec(),
            members: members.iter().map(|it| (*it).to_owned()).collect(),
        };
        let step = inventory(&json!(query).to_string(), rows).unwrap();
        let Step::Respond { body, .. } = step else { panic!("{step:?}") };
        serde_json::from_str::<Value>(&body).unwrap()["data"].as_array().unwrap().clone()
    }

    fn key(id: &str, owner: &str, age_days: i64) -> Value {
        let created = Timestamp::from_ms((100 - age_days) * DAY_MS);
        json!({ "id": id, "owner": owner, "status": "active", "created_at": created.to_string(),
                "rotation_due_at": created.plus_ms(90 * DAY_MS).to_string() })
    }

    #[test]
    fn a_key_is_unused_once_it_has_had_the_time_to_be_used() {
        let used =
            json!({ "key": "a", "last_ms": 99 * DAY_MS, "requests": 2, "charged_usd": "0.5" });
        let before =
            json!({ "key": "a", "last_ms": 80 * DAY_MS, "requests": 3, "charged_usd": "1" });
        let keys = [key("a", "ann", 60), key("b", "ann", 29), key("c", "ann", 30)];
        let found = shown(&keys, &[], &[used, before]);
        assert_eq!(found[0]["findings"], json!([]));
        assert_eq!((&found[0]["requests"], &found[0]["charged_usd"]), (&json!(5), &json!("1.5")));
        assert_eq!(found[0]["last_used_at"], Timestamp::from_ms(99 * DAY_MS).to_string());
        assert_eq!((&found[1]["findings"], &found[1]["age_days"]), (&json!([]), &json!(29)));
        assert_eq!(
            (&found[2]["findings"], &found[2]["last_used_at"]),
            (&json!(["unused"]), &Value::Null)
        );
    }

    #[test]
    fn an_owner_who_is_nobody_or_gone_is_none() {
        for (owner, members, unowned) in [
            ("ann", &[][..], false),
            ("Unassigned", &[], true),
            (" - ", &[], true),
            ("ann@x.test", &[], false),
            ("Ann@x.test", &["ann@x.test"], false),
            ("bob@x.test", &["ann@x.test"], true),
            ("team search", &["ann@x.test"], false),
        ] {
            let found = shown(&[key("a", owner, 1)], members, &[]);
            assert_eq!(found[0]["findings"] == json!(["unowned"]), unowned, "{owner} {members:?}");
        }
    }

    #[test]
    fn a_secret_is_due_on_its_day_and_a_revoked_key_asks_for_nothing() {
        let found = shown(&[key("a", "ann", 90), key("b", "-", 89)], &[], &[]);
        assert_eq!(found[0]["findings"], json!(["unused", "rotation_due"]));
        assert_eq!(found[1]["findings"], json!(["unused", "unowned"]));
        let mut revoked = key("a", "-", 99);
        revoked["status"] = "revoked".into();
        assert_eq!(shown(&[revoked], &[], &[])[0]["findings"], json!([]));
    }
}
