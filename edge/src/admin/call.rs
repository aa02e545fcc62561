//! The admin API's front: which object a request goes to, and the messages on the way.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::money::Usd;

use super::problem::Problem;

/// A request as the shell hands it over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// `GET`, ...
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, without `?`.
    #[serde(default)]
    pub query: String,
    /// The body's text.
    #[serde(default)]
    pub body: String,
    /// The body was too large to be read.
    #[serde(default)]
    pub body_too_large: bool,
    /// The `authorization` header.
    #[serde(default)]
    pub authorization: Option<String>,
    /// The id of this request.
    #[serde(default)]
    pub request_id: String,
    /// The operator's token was presented.
    #[serde(default)]
    pub operator: bool,
}

/// What the shell does next.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Step {
    /// Answer.
    Respond {
        /// The status.
        status: u16,
        /// The content type.
        content_type: &'static str,
        /// The body.
        body: String,
        /// Plans to deliver first.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        effects: Vec<Push>,
    },
    /// Ask the directory.
    Directory {
        /// The message.
        call: String,
    },
    /// Ask a workspace.
    Workspace {
        /// Its id.
        name: String,
        /// The message.
        call: String,
    },
    /// Ask a key's Meter; its answer is the answer.
    Meter {
        /// The key's public id.
        name: String,
        /// `simulate` or `state`.
        method: &'static str,
        /// The message.
        payload: String,
    },
    /// Ask Ledgers, then have their answers merged.
    Ledgers {
        /// Their names.
        names: Vec<String>,
        /// `requests` or `usage`.
        method: &'static str,
        /// The message.
        payload: String,
    },
}

/// A plan on its way to a Meter.
#[derive(Clone, Debug, Serialize)]
pub struct Push {
    /// The key's public id.
    pub key: String,
    /// The plan's version, as text.
    pub version: String,
    /// The plan.
    pub plan: Value,
}

impl Step {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        let content_type = "application/json";
        Self::Respond { status, content_type, body: body.to_string(), effects: Vec::new() }
    }

    /// A problem.
    pub fn problem(problem: &Problem) -> Self {
        let content_type = "application/problem+json";
        Self::Respond {
            status: problem.status,
            content_type,
            body: problem.to_json(),
            effects: Vec::new(),
        }
    }
}

impl From<Problem> for Step {
    fn from(problem: Problem) -> Self {
        Self::problem(&problem)
    }
}

impl Call {
    /// The bearer token.
    pub fn token(&self) -> Option<&str> {
        let (scheme, token) = self.authorization.as_deref()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The path's segments behind `/api/v1`.
    pub fn segments(&self) -> Vec<&str> {
        let rest = self.path.strip_prefix("/api/v1").unwrap_or_default();
        rest.split('/').filter(|segment| !segment.is_empty()).collect()
    }

    /// A parameter of the query, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.parameters().into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Every parameter of the query.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            })
            .collect()
    }

    /// The body as `T`; unknown fields are refused by `T` itself.
    pub fn body<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.body_too_large {
            return Err(Problem::new(413, "body_too_large", "The body is larger than 8 MiB."));
        }
        serde_json::from_str(&self.body).map_err(|error| Problem::body(&error))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let hex = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                if let Some((high, low)) = hex(rest.next()).zip(hex(rest.next())) {
                    bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first step of an admin request.
pub fn route(mut call: Call, operator_token: &str) -> Step {
    use subtle::ConstantTimeEq;
    if call.path == "/api/v1/openapi.json" && call.method == "GET" {
        return Step::json(200, &super::openapi::document());
    }
    let Some(token) = call.token() else {
        let detail = "Send an API token as `authorization: Bearer ...`.";
        return Problem::new(401, "token_missing", detail).into();
    };
    // An installation without an operator token has no operator, whatever is presented.
    call.operator =
        !operator_token.is_empty() && bool::from(token.as_bytes().ct_eq(operator_token.as_bytes()));
    let message = |call: &Call| serde_json::to_string(call).unwrap_or_default();
    match call.segments().as_slice() {
        ["workspaces"] if call.operator => Step::Directory { call: message(&call) },
        ["workspaces"] => {
            let detail = "Only the operator's token lists or creates workspaces.";
            Problem::new(403, "role_insufficient", detail).into()
        }
        ["workspaces", name, ..] if WorkspaceId::parse(name).is_ok() => {
            Step::Workspace { name: (*name).to_owned(), call: message(&call) }
        }
        _ => {
            let detail = format!(
                "There is no resource {}.",
                crate::request::exchange::printable(&call.path)
            );
            Problem::new(404, "not_found", detail).into()
        }
    }
}

/// What the caller hears when a change is saved and its delivery to the Meters goes on.
pub fn push_pending() -> Step {
    let detail = "The change is saved and is being delivered to its keys. It is not in force at all of them yet.";
    Problem::new(503, "push_pending", detail).into()
}

/// What the caller hears when the gateway itself failed.
pub fn failed(request_id: &str) -> Step {
    let detail = format!("The gateway failed on this request ({request_id}). Try again.");
    Problem::new(500, "gateway_error", detail).into()
}

/// One answer from the answers of several months' Ledgers, newest first.
pub fn merge(method: &str, payload: &str, answers: &str) -> Step {
    let answers: Vec<String> = serde_json::from_str(answers).unwrap_or_default();
    let answers: Vec<Value> =
        answers.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let list = |name: &str| -> Vec<Value> {
        let lists = answers.iter().filter_map(|answer| answer.get(name)?.as_array());
        lists.flatten().cloned().collect()
    };
    if method == "usage" {
        return Step::json(200, &json!({ "data": added_up(list("data")) }));
    }
    let limit = serde_json::from_str::<Value>(payload).ok();
    let limit = limit.and_then(|p| p.get("limit")?.as_u64()).unwrap_or(50);
    let mut rows = list("data");
    let key = |row: &Value| row.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
    let more = rows.len() > usize::try_from(limit).unwrap_or(usize::MAX);
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = rows.last().map(key).filter(|_| more);
    Step::json(200, &json!({ "data": rows, "next_cursor": next }))
}

/// Rows of the same group from several months become one.
fn added_up(rows: Vec<Value>) -> Vec<Value> {
    const COUNTS: [&str; 4] = ["requests", "input_tokens", "cached_tokens", "output_tokens"];
    const AMOUNTS: [&str; 2] = ["cost_usd", "charged_usd"];
    let mut groups: Vec<(Value, Value)> = Vec::new();
    for row in rows {
        let mut group = row.clone();
        if let Some(fields) = group.as_object_mut() {
            fields.retain(|name, _| {
                !COUNTS.contains(&name.as_str()) && !AMOUNTS.contains(&name.as_str())
            });
        }
        let Some((_, sum)) = groups.iter_mut().find(|(known, _)| *known == group) else {
            groups.push((group, row));
            continue;
        };
        for name in COUNTS {
            let both = [&*sum, &row].map(|r| r.get(name).and_then(Value::as_i64).unwrap_or(0));
            if let Some(field) = sum.get_mut(name) {
                *field = both.iter().fold(0_i64, |a, b| a.saturating_add(*b)).into();
            }
        }
        for name in AMOUNTS {
            let amount = |r: &Value| r.get(name)?.as_str()?.parse::<Usd>().ok();
            let both =
                amount(sum).unwrap_or_default().saturating_add(amount(&row).unwrap_or_default());
            if let Some(field) = sum.get_mut(name) {
                *field = both.to_string().into();
            }
        }
    }
    groups.into_iter().map(|(_, row)| row).collect()
}
