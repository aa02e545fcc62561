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
