//! What the forms on pages do: each is one call of the admin API.

use serde_json::{Map, Value, json};

use super::view::{Block, Cell, Facts, View};
use super::web::{Ask, Fields, encoded};

/// A form's way to the admin API.
pub(super) struct Action {
    /// Its name in addresses.
    pub(super) name: &'static str,
    /// Where its form goes, behind `/dashboard`.
    pub(super) path: &'static str,
    /// The page that it stands on.
    pub(super) page: &'static str,
    /// What the page says afterwards.
    pub(super) done: &'static str,
    /// The call; or what is wrong with the form.
    pub(super) ask: fn(&[String], &Fields) -> Result<Ask, String>,
    /// What is shown once, and never again.
    pub(super) once: Option<fn(&Value) -> View>,
}

const KEYS: &str = "/keys";
const ALERT: &str = "/alerts/{alert}";
const BUDGET: &str = "/budgets/{budget}";
const SETTINGS: &str = "/settings";

/// The forms.
pub(super) const ACTIONS: &[Action] = &[
    Action {
        name: "sign-out",
        path: "/sign-out",
        page: "",
        done: "",
        ask: |_, _| Ok(Ask::send("DELETE", "/session", None)),
        once: None,
    },
    Action {
        name: "revoke-session",
        path: "/sessions/{session}/revoke",
        page: "/sessions",
        done: "The session has ended.",
        ask: |names, _| Ok(Ask::send("DELETE", named("/sessions/{}", names), None)),
        once: None,
    },
    Action {
        name: "issue-key",
        path: "/keys/issue",
        page: KEYS,
        done: "",
        ask: |_, form| issue_key(form),
        once: Some(new_key),
    },
    Action {
        name: "rotate-key",
        path: "/keys/{key}/rotate",
        page: KEYS,
        done: "",
        ask: |names, _| Ok(Ask::send("POST", named("/keys/{}/rotate", names), None)),
        once: Some(new_key),
    },
    Action {
        name: "suspend-key",
        path: "/keys/{key}/suspend",
        page: KEYS,
        done: "The key is suspended: its requests are refused until it is resumed.",
        ask: |names, _| Ok(Ask::send("POST", named("/keys/{}/suspend", names), None)),
        once: None,
    },
    Action {
        name: "resume-key",
        path: "/keys/{key}/resume",
        page: KEYS,
        done: "The key works again.",
        ask: |names, _| Ok(Ask::send("POST", named("/keys/{}/resume", names), None)),
        once: None,
    },
    Action {
        name: "revoke-key",
        path: "/keys/{key}/revoke",
        page: "/keys/{key}",
        done: "The key is revoked for ever.",
        ask: |names, form| match form.get("sure") {
            Some("yes") => Ok(Ask::send("POST", named("/keys/{}/revoke", names), None)),
            _ => Err("A revoked key never works again. Choose `yes` to revoke it.".to_owned()),
        },
        once: None,
    },
    Action {
        name: "raise-budget",
        path: "/budgets/{budget}/raise",
        page: BUDGET,
        done: "The budget is raised.",
        ask: raise,
        once: None,
    },
    Action {
        name: "end-raise",
        path: "/budgets/{budget}/end-raise",
        page: BUDGET,
        done: "The raise has ended.",
        ask: |names, _| Ok(Ask::send("DELETE", named("/budgets/{}/raise", names), None)),
        once: None,
    },
    Action {
        name: "acknowledge-alert",
        path: "/alerts/{alert}/acknowledge",
        page: ALERT,
        done: "The alert is acknowledged.",
        ask: |names, form| alert(names, form, "acknowledge"),
        once: None,
    },
    Action {
        name: "snooze-alert",
        path: "/alerts/{alert}/snooze",
        page: ALERT,
        done: "The alert is quiet until then.",
        ask: |names, form| alert(names, form, "snooze"),
        once: None,
    },
    Action {
        name: "resolve-alert",
        path: "/alerts/{alert}/resolve",
        page: ALERT,
        done: "The alert is resolved.",
        ask: |names, form| alert(names, form, "resolve"),
        once: None,
    },
    Action {
        name: "check-config",
        path: "/settings/check",
        page: SETTINGS,
        done: "",
        ask: |_, form| Ok(Ask::send("POST", "/config/diff", Some(document(form)?))),
        once: None,
    },
    Action {
        name: "apply-config",
        path: "/settings/apply",
        page: SETTINGS,
        done: "The configuration is applied, and its keys follow it from their next request on.",
        ask: |_, form| {
            let ask = Ask::send("PUT", "/config", Some(document(form)?));
            Ok(ask.with("version", form.text("version")))
        },
        once: None,
    },
    Action {
        name: "roll-back",
        path: "/settings/versions/{version}/roll-back",
        page: "/settings/versions/{version}",
        done: "",
        ask: |names, _| {
            let name = names.first().map_or("", String::as_str);
            let version = name.parse::<u64>().map_or_else(|_| json!(name), |it| json!(it));
            Ok(Ask::send("POST", "/config/rollback", Some(json!({ "version": version }))))
        },
        once: Some(super::pages::rolled_back),
    },
    Action {
        name: "change-key",
        path: "/keys/{key}/change",
        page: "/keys/{key}",
        done: "The key is changed: its next request counts for what it says now.",
        ask: |names, form| Ok(change_key(names, form)),
        once: None,
    },
    Action {
        name: "pay-provider",
        path: "/provider-payment",
        page: KEYS,
        done: "The payment method is noted.",
        ask: |_, form| {
            let path = format!("/providers/{}", encoded(form.text("provider")));
            let body = json!({ "payment_method": form.get("payment_method") });
            Ok(Ask::send("PATCH", path, Some(body)))
        },
        once: None,
    },
    Action {
        name: "take-proposal",
        path: "/budget-proposals/{dimension}/{value}/{limit}/take",
        page: "/budgets",
        done: "The budget has the proposed limit.",
        ask: |names, _| {
            let part = |place: usize| names.get(place).cloned().unwrap_or_default();
            let body = json!({ "dimension": part(0), "value": part(1), "limit_usd": part(2) });
            Ok(Ask::send("POST", "/budget-proposals", Some(body)))
        },
        once: None,
    },
    Action {
        name: "set-receiver",
        path: "/receivers/set",
        page: "/receivers",
        done: "",
        ask: |_, form| Ok(set_receiver(form)),
        once: Some(super::pages::saved),
    },
    Action {
        name: "test-receiver",
        path: "/receivers/{receiver}/test",
        page: "/receivers",
        done: "",
        ask: |names, _| Ok(Ask::send("POST", named("/receivers/{}/test", names), None)),
        once: Some(super::pages::tested),
    },
    Action {
        name: "issue-token",
        path: "/tokens/issue",
        page: "/settings/people",
        done: "",
        ask: |_, form| {
            let body = json!({ "name": form.text("name"), "role": form.text("role"), "owner": form.get("owner") });
            Ok(Ask::send("POST", "/tokens", Some(body)))
        },
        once: Some(super::pages::issued),
    },
    Action {
        name: "delete-token",
        path: "/tokens/{token}/delete",
        page: "/settings/people",
        done: "The token is deleted, and its sessions have ended.",
        ask: |names, _| Ok(Ask::send("DELETE", named("/tokens/{}", names), None)),
        once: None,
    },
    Action {
        name: "apply-price",
        path: "/price-proposals/{proposal}/apply",
        page: "/reconciliation",
        done: "The price is applied from its day on.",
        ask: |names, _| Ok(Ask::send("POST", named("/price-proposals/{}/apply", names), None)),
        once: None,
    },
    Action {
        name: "dismiss-price",
        path: "/price-proposals/{proposal}/dismiss",
        page: "/reconciliation",
        done: "The proposal is dismissed.",
        ask: |names, _| Ok(Ask::send("POST", named("/price-proposals/{}/dismiss", names), None)),
        once: None,
    },
    Action {
        name: "remove-demo",
        path: "/demo/remove",
        page: "",
        done: "",
        ask: |_, _| Ok(Ask::send("DELETE", "/demo", None)),
        once: None,
    },
];

/// Whether the page shows the answer of an action with the form, instead of beginning anew: it changed nothing.
pub(super) fn stays(action: &Action) -> bool {
    action.name == "check-config"
}

/// The form that goes to a path, and the path's parameters.
pub(super) fn find(path: &str) -> Option<(&'static Action, Vec<String>)> {
    let rest = path.strip_prefix(super::ROOT)?;
    ACTIONS.iter().find_map(|action| Some((action, super::pages::parameters(action.path, rest)?)))
}

/// What a page says after an action.
pub(super) fn sentence(name: &str) -> Option<&'static str> {
    let action = ACTIONS.iter().find(|action| action.name == name)?;
    Some(action.done).filter(|text| !text.is_empty())
}

/// The page of an action.
pub(super) fn back(action: &Action, parameters: &[String]) -> String {
    let mut path = String::new();
    let mut names = parameters.iter();
    for segment in action.page.split('/').filter(|segment| !segment.is_empty()) {
        path.push('/');
        match segment.starts_with('{') {
            true => path.push_str(&encoded(names.next().map_or("", String::as_str))),
            false => path.push_str(segment),
        }
    }
    path
}

fn named(path: &str, names: &[String]) -> String {
    path.replace("{}", &encoded(names.first().map_or("", String::as_str)))
}

/// The configuration that was written.
fn document(form: &Fields) -> Result<Value, String> {
    serde_json::from_str(form.text("document")).map_err(|error| {
        format!("The configuration is no JSON: {error}. Nothing is lost: correct it below.")
    })
}

fn issue_key(form: &Fields) -> Result<Ask, String> {
    let mut body = Map::new();
    for name in ["name", "owner", "cost_centre", "purpose", "environment"] {
        body.insert(name.to_owned(), form.text(name).into());
    }
    let policy = match (form.get("policy"), form.get("day_limit_usd")) {
        (Some(_), Some(_)) => {
            return Err("Give a policy or a limit for each day, not both.".to_owned());
        }
        (Some(policy), None) => json!(policy),
        (None, Some(limit)) => json!({ "spend_caps": [{ "window": "day", "limit_usd": limit }] }),
        (None, None) => {
            return Err("Give a policy or a limit for each day: a key needs one.".to_owned());
        }
    };
    body.insert("policy".to_owned(), policy);
    if let Some(day) = form.get("expires_at") {
        body.insert("expires_at".to_owned(), format!("{day}T00:00:00Z").into());
    }
    Ok(Ask::send("POST", "/keys", Some(Value::Object(body))))
}

/// What is said of a key. What is left empty stays; a key without a day for its end has none.
fn change_key(names: &[String], form: &Fields) -> Ask {
    let mut body = Map::new();
    for name in ["name", "owner", "cost_centre", "purpose", "environment"] {
        if let Some(value) = form.get(name) {
            body.insert(name.to_owned(), value.into());
        }
    }
    // A day that was not touched must not move the hour behind it.
    let (day, was) = (form.text("expires_at"), form.text("expires_was"));
    if was.get(..10).unwrap_or_default() != day {
        body.insert("expires_at".to_owned(), json!(form.get("expires_at").map(moment)));
    }
    Ask::send("PATCH", named("/keys/{}", names), Some(Value::Object(body)))
}

fn set_receiver(form: &Fields) -> Ask {
    let kinds = form.text("kinds").split([',', ' ']).filter(|kind| !kind.is_empty());
    let kinds: Vec<&str> = kinds.collect();
    let mut body = json!({ "type": form.text("type"), "min_severity": form.text("min_severity"),
                           "kinds": kinds, "enabled": form.text("enabled") != "no" });
    if let (Some(url), Some(fields)) = (form.get("url"), body.as_object_mut()) {
        fields.insert("url".to_owned(), url.into());
    }
    Ask::send("PUT", format!("/receivers/{}", encoded(form.text("name"))), Some(body))
}

fn new_key(answer: &Value) -> View {
    let text =
        |name: &str| Cell::text(answer.get(name).and_then(Value::as_str).unwrap_or_default());
    let rows = vec![
        ("Name".to_owned(), text("name")),
        ("Id".to_owned(), text("id")),
        ("Key".to_owned(), text("key")),
    ];
    View {
        title: "A new key".to_owned(),
        lead: "Copy the key now: it is shown this once, and Tallygate keeps only its hash."
            .to_owned(),
        blocks: vec![Block::Facts(Facts { title: "The key".to_owned(), rows })],
        ..View::default()
    }
}

fn raise(names: &[String], form: &Fields) -> Result<Ask, String> {
    let body = json!({ "limit_usd": form.text("limit_usd"), "until": moment(form.text("until")),
                       "reason": form.text("reason") });
    Ok(Ask::send("PUT", named("/budgets/{}/raise", names), Some(body)))
}

fn alert(names: &[String], form: &Fields, act: &str) -> Result<Ask, String> {
    let body = match act {
        "snooze" => {
            Some(json!({ "until": moment(form.text("until")), "reason": form.text("reason") }))
        }
        _ => None,
    };
    Ok(Ask::send("POST", format!("{}/{act}", named("/alerts/{}", names)), body))
}

/// A day as the moment that it begins; anything else as it is, for the API to judge.
fn moment(day: &str) -> String {
    match tallygate_shared::time::Date::parse(day) {
        Some(_) => format!("{day}T00:00:00Z"),
        None => day.to_owned(),
    }
}
