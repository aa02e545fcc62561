//! The admin API's front: which object a request goes to, and the messages on the way.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;
use tallygate_shared::identity::api_token::{ApiToken, TokenScope};
use tallygate_shared::ids::WorkspaceId;

use super::operations::{Match, Operation, find};
use super::problem::Problem;
use super::roles::Act;

/// The method of the Directory's message to a workspace that is to be created. No caller's: the router has no such.
pub const CREATE: &str = "CREATE";

/// A request as the shell hands it over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// The `accept` header.
    #[serde(default)]
    pub accept: String,
    /// The signature, where the call is signed.
    #[serde(default)]
    pub signed: Option<Signed>,
    /// `x-tallygate-content-sha256`: what the signer says of a body that is not read here, but stored as it comes.
    #[serde(default)]
    pub content_sha256: Option<String>,
    /// How long that body is, where its headers say so.
    #[serde(default)]
    pub content_length: Option<u64>,
    /// The operator's token was presented.
    #[serde(default)]
    pub operator: bool,
    /// The id of the session that makes the call. Only the dashboard sets it, from a cookie whose signature it checked.
    #[serde(default)]
    pub session: Option<String>,
    /// The mail address of the person who opens a session. Only the dashboard sets it, from what
    /// Cloudflare Access or an OpenID provider says.
    #[serde(default)]
    pub person: Option<String>,
    /// What this call may be made once with. Only the dashboard sets it: the sign-in that the person comes from.
    #[serde(default)]
    pub once: Option<String>,
}

/// The headers of a signed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// `x-tallygate-key-id`: which of the workspace's reconciler secrets.
    pub key_id: String,
    /// `x-tallygate-timestamp`, in seconds since 1970.
    pub timestamp: String,
    /// `x-tallygate-nonce`.
    pub nonce: String,
    /// `x-tallygate-signature`.
    pub signature: String,
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
        /// More plans wait than are in `effects`; `pending` has them.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        more: bool,
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
        /// `simulate`, `loops`, `clear_loop` or `state`.
        method: &'static str,
        /// The message.
        payload: String,
    },
    /// Ask a Budget about itself.
    Budget {
        /// Its name.
        name: String,
        /// Its terms, as a call without reports.
        call: String,
    },
    /// Ask a workspace's Telemetry object likewise.
    Telemetry {
        /// The workspace.
        name: String,
        /// `metrics` or `show`.
        method: &'static str,
        /// The question.
        payload: String,
    },
    /// Ask a workspace's Alerts object; it says the next step, which is the answer.
    Alerts {
        /// The workspace.
        name: String,
        /// The question.
        method: &'static str,
        /// The message.
        payload: String,
    },
    /// Bring true-ups to a Ledger.
    TrueUp {
        /// Its name.
        ledger: String,
        /// The lines, as JSON text.
        payload: String,
    },
    /// Correct Budgets.
    Correct {
        /// One call each.
        calls: Vec<Correct>,
        /// The workspace, which is told when they all have it.
        name: String,
        /// What it is told.
        record: String,
    },
    /// Tell the Alerts object what the reconciler found.
    Findings {
        /// The workspace.
        name: String,
        /// The findings, as JSON text.
        payload: String,
    },
    /// Stream the events of a span of time from a Ledger.
    Export {
        /// Its name.
        ledger: String,
        /// What to export: the Ledger's method.
        method: &'static str,
        /// The question.
        payload: String,
    },
    /// Make these calls of objects, one after the other, then answer.
    Deliver {
        /// The calls.
        calls: Vec<Delivery>,
        /// The answer.
        body: String,
    },
    /// Put the call's body under this name, where nothing is, as long as its SHA-256 is this. What came of it says which
    /// step is next.
    Store {
        /// The name in the bucket.
        name: String,
        /// The hash, in hexadecimal.
        sha256: String,
        /// It is stored, now or before.
        stored: Box<Step>,
        /// There is no bucket.
        unbound: Box<Step>,
        /// The body is not what was signed: nothing is stored.
        differs: Box<Step>,
        /// Something else is stored there.
        taken: Box<Step>,
    },
    /// Delete what is in the bucket below a prefix and before a name, then go on, whatever came of it.
    Sweep {
        /// The prefix.
        prefix: String,
        /// The first name that stays.
        before: String,
        /// What follows.
        next: Box<Step>,
    },
    /// Answer with an object of the bucket.
    Fetch {
        /// Its name.
        name: String,
        /// The content type.
        content_type: &'static str,
        /// What the file is called where it is saved.
        file: String,
        /// The bucket has no such object, or there is no bucket.
        missing: Box<Step>,
    },
    /// Ask Ledgers, then have their answers merged.
    Ledgers {
        /// Their names.
        names: Vec<String>,
        /// `requests`, `usage`, `outcomes`, ...
        method: &'static str,
        /// The message.
        payload: String,
    },
}

/// A correction on its way to a Budget.
#[derive(Clone, Debug, Serialize)]
pub struct Correct {
    /// The Budget.
    pub account: String,
    /// The call, as JSON text: its amounts must not cross as JavaScript numbers.
    pub payload: String,
}

/// A call of an object.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    /// The binding: `LEDGER`, `ALERTS`, ...
    pub object: &'static str,
    /// The object's name.
    pub name: String,
    /// Its method.
    pub method: &'static str,
    /// The message.
    pub payload: String,
}

/// A plan on its way to a Meter.
#[derive(Clone, Debug, Serialize)]
pub struct Push {
    /// The key's public id.
    pub key: String,
    /// The plan's version, as text.
    pub version: String,
    /// The plan's JSON text. It is text so that no number in it crosses as a JavaScript number.
    pub plan: String,
    /// The workspace whose Alerts object it is for, where it is for that and not for a Meter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts_of: Option<String>,
    /// The same for a Telemetry object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub telemetry_of: Option<String>,
}

impl Step {
    /// A JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::text(status, body.to_string())
    }

    /// A JSON answer from its text.
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self::respond(status, "application/json", body.into())
    }

    /// This answer, with plans to deliver before it is given.
    pub fn with_delivery(mut self, pushes: Vec<Push>, waiting: bool) -> Self {
        if let Self::Respond { effects, more, .. } = &mut self {
            *effects = pushes;
            *more = waiting;
        }
        self
    }

    /// An answer of any kind.
    pub fn respond(status: u16, content_type: &'static str, body: String) -> Self {
        Self::Respond { status, content_type, body, effects: Vec::new(), more: false }
    }

    /// A problem.
    pub fn problem(problem: &Problem) -> Self {
        Self::respond(problem.status, "application/problem+json", problem.to_json())
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
                (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " ")))
            })
            .collect()
    }

    /// The body as `T`; unknown fields are refused by `T` itself. An error names the field by its path.
    pub fn body<T: serde::de::DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.body_too_large {
            return Err(Problem::new(413, "body_too_large", "The body is larger than 8 MiB."));
        }
        let mut json = serde_json::Deserializer::from_str(&self.body);
        let value = serde_path_to_error::deserialize(&mut json)
            .map_err(|error| Problem::body(&error.path().to_string(), error.inner()))?;
        json.end().map_err(|error| Problem::body(".", &error))?;
        Ok(value)
    }

    /// The body of an operation that also works without one.
    pub fn optional_body<T: serde::de::DeserializeOwned + Default>(&self) -> Result<T, Problem> {
        if self.body.trim().is_empty() && !self.body_too_large {
            Ok(T::default())
        } else {
            self.body()
        }
    }
}

/// Percent-decoded text. What is not UTF-8 becomes U+FFFD, which no name has.
pub(crate) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped =
            after.split_at_checked(2).filter(|_| byte == b'%').and_then(|(digits, after)| {
                let value = std::str::from_utf8(digits).ok().filter(|d| !d.starts_with('+'))?;
                Some((u8::from_str_radix(value, 16).ok()?, after))
            });
        let (byte, after) = escaped.unwrap_or((byte, after));
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The first step of an admin request.
pub fn route(mut call: Call, operator_token: &str) -> Step {
    (call.session, call.person, call.once) = (None, None, None);
    let found = match find(&call.method, &call.path) {
        Match::Found(spec, parameters) => (spec, parameters),
        Match::WrongMethod(methods) => {
            let detail = format!("Use {} on this path.", methods.join(" or "));
            return Problem::new(405, "method_not_allowed", detail).into();
        }
        Match::Unknown => {
            let path = crate::request::exchange::printable(&call.path);
            let detail = format!("There is no resource {path}. See /api/v1/openapi.json.");
            return Problem::new(404, "not_found", detail).into();
        }
    };
    let (spec, parameters) = found;
    if spec.operation == Operation::ShowOpenApi {
        return Step::text(200, super::openapi::DOCUMENT);
    }
    if call.content_sha256.is_some() && spec.operation != Operation::StoreFocusFile {
        let detail = "The body of this call is read and signed as it is: leave x-tallygate-content-sha256 out.";
        return Problem::new(400, "content_hash_unexpected", detail).into();
    }
    if spec.act == Act::Reconcile {
        return signed_route(&call, &parameters);
    }
    call.signed = None;
    let Some(token) = call.token() else {
        let detail = "Send an API token as `authorization: Bearer ...`.";
        return Problem::new(401, "token_missing", detail).into();
    };
    // An installation without an operator token has no operator, whatever is presented.
    let operator =
        !operator_token.is_empty() && bool::from(token.as_bytes().ct_eq(operator_token.as_bytes()));
    if spec.act == Act::Operate && !operator {
        let detail = "Only the operator's token lists or creates workspaces.";
        return Problem::new(403, "role_insufficient", detail).into();
    }
    let workspace = parameters.first().map(|name| WorkspaceId::parse(name));
    if let (Some(Ok(workspace)), false) = (&workspace, operator)
        && let Err(problem) = check_scope(token, workspace)
    {
        return problem.into();
    }
    call.operator = operator;
    let message = serde_json::to_string(&call).unwrap_or_default();
    match workspace {
        None => Step::Directory { call: message },
        Some(Ok(workspace)) => Step::Workspace { name: workspace.into(), call: message },
        Some(Err(error)) => Problem::new(404, "not_found", format!("The path {error}.")).into(),
    }
}

/// The first step of a call that a signed-in person makes. The workspace knows the session and its role.
pub fn route_session(call: &Call, workspace: &WorkspaceId, session: &str) -> Step {
    let own = |parameters: &[String]| parameters.first().is_some_and(|it| it == workspace.as_str());
    match find(&call.method, &call.path) {
        Match::Found(spec, parameters) if spec.act != Act::Reconcile && own(&parameters) => {
            let session = Some(session.to_owned());
            let call = Call {
                session,
                person: None,
                once: None,
                operator: false,
                authorization: None,
                signed: None,
                ..call.clone()
            };
            let message = serde_json::to_string(&call).unwrap_or_default();
            Step::Workspace { name: workspace.as_str().to_owned(), call: message }
        }
        _ => Problem::new(404, "not_found", "This workspace has no such resource.").into(),
    }
}

/// The first step of opening a session for a person whom Cloudflare Access knows. The workspace knows their role.
pub fn route_person(workspace: &WorkspaceId, mail: &str, request_id: &str) -> Step {
    person(workspace, mail, None, request_id)
}

/// The same for a person whom an OpenID provider vouched for: each sign-in opens one session.
pub fn route_person_once(
    workspace: &WorkspaceId,
    mail: &str,
    sign_in: &str,
    request_id: &str,
) -> Step {
    person(workspace, mail, Some(sign_in.to_owned()), request_id)
}

fn person(workspace: &WorkspaceId, mail: &str, once: Option<String>, request_id: &str) -> Step {
    let call = Call {
        method: "POST".to_owned(),
        path: format!("/api/v1/workspaces/{workspace}/sessions"),
        person: Some(mail.to_owned()),
        once,
        request_id: request_id.to_owned(),
        ..Call::default()
    };
    let message = serde_json::to_string(&call).unwrap_or_default();
    Step::Workspace { name: workspace.as_str().to_owned(), call: message }
}

/// A signed call's way to its workspace, which knows the secret.
fn signed_route(call: &Call, parameters: &[String]) -> Step {
    if call.signed.is_none() {
        let detail = "Sign the call: x-tallygate-key-id, -timestamp, -nonce and -signature. See /api/v1/openapi.json.";
        return Problem::new(401, "signature_missing", detail).into();
    }
    match parameters.first().map(|name| WorkspaceId::parse(name)) {
        Some(Ok(workspace)) => {
            let call = Call { operator: false, authorization: None, ..call.clone() };
            let message = serde_json::to_string(&call).unwrap_or_default();
            Step::Workspace { name: workspace.into(), call: message }
        }
        _ => Problem::new(404, "not_found", "There is no such workspace.").into(),
    }
}

/// Refuses a token that cannot belong to the workspace, before the workspace is woken for it. Whether the token was
/// issued, the workspace knows.
fn check_scope(token: &str, workspace: &WorkspaceId) -> Result<(), Problem> {
    let invalid = |detail: String| Problem::new(401, "token_invalid", detail);
    let token =
        ApiToken::parse(token).map_err(|error| invalid(format!("The API token {error}.")))?;
    match token.scope() {
        TokenScope::Workspace(scope) if scope == workspace => Ok(()),
        TokenScope::Workspace(_) | TokenScope::Operator => {
            Err(invalid(format!("The API token is not one of {workspace}.")))
        }
    }
}

/// What the caller hears when a change is saved and its delivery to the Meters goes on.
pub fn push_pending() -> Step {
    let detail = "The change is saved and is being delivered to its keys. It is not in force at all of them yet.";
    Problem::new(503, "push_pending", detail).into()
}

/// What the reconciler hears when it asks for events that the Ledger no longer has.
pub fn export_pruned() -> Problem {
    let detail = "Events of this day are no longer kept: the archive keeps them for as long as its settings say; without one, \
                  a month keeps its newest 1,000,000. Usage and totals still have their sums.";
    Problem::new(410, "events_pruned", detail)
}

/// What the caller hears when the gateway itself failed.
pub fn failed(request_id: &str) -> Step {
    let detail = format!("The gateway failed on this request ({request_id}). Try again.");
    Problem::new(500, "gateway_error", detail).into()
}
