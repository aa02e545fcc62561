//! Signing in: with an API token of a workspace, or as a member whom Cloudflare Access lets through.

use tallygate_shared::identity::api_token::{ApiToken, TokenScope};
use tallygate_shared::ids::WorkspaceId;

use super::session::{SESSION_MS, Session};
use super::view::SignIn;
use super::web::{Answer, Request, Step};
use super::{Around, access, own_path, rendered, see, session_cookie, theme};
use crate::admin::call::{self, Call};

/// How one signs in.
enum Means {
    Token(ApiToken),
    Person(String, WorkspaceId),
}

impl Means {
    /// What the form says, or why it says nothing that could open a session.
    fn of(request: &Request, around: &Around<'_>) -> Result<Self, &'static str> {
        let form = request.form();
        let Some(workspace) = form.get("workspace") else {
            let token = ApiToken::parse(form.text("token")).map_err(|_| UNKNOWN_TOKEN)?;
            // What is not a token of a workspace wakes none.
            return match token.scope() {
                TokenScope::Workspace(_) => Ok(Self::Token(token)),
                TokenScope::Operator => Err(UNKNOWN_TOKEN),
            };
        };
        let mail = person(request, around);
        let mail =
            mail.ok_or("Cloudflare Access does not say who you are. Load this page again.")?;
        let workspace = WorkspaceId::parse(workspace)
            .map_err(|_| "This is not the id of a workspace: one looks like ws_acme.")?;
        Ok(Self::Person(mail, workspace))
    }

    fn workspace(&self) -> Option<&WorkspaceId> {
        match self {
            Self::Person(_, workspace) => Some(workspace),
            Self::Token(token) => match token.scope() {
                TokenScope::Workspace(workspace) => Some(workspace),
                TokenScope::Operator => None,
            },
        }
    }

    fn step(&self, request_id: &str) -> call::Step {
        match self {
            Self::Person(mail, workspace) => call::route_person(workspace, mail, request_id),
            Self::Token(token) => {
                let workspace = self.workspace().map(WorkspaceId::as_str).unwrap_or_default();
                let call = Call {
                    method: "POST".to_owned(),
                    path: format!("/api/v1/workspaces/{workspace}/sessions"),
                    authorization: Some(format!("Bearer {}", token.expose())),
                    request_id: request_id.to_owned(),
                    ..Call::default()
                };
                call::route(call, "")
            }
        }
    }
}

const UNKNOWN_TOKEN: &str = "This token is not known. Check that you copied all of it.";

/// Whom Cloudflare Access lets through.
fn person(request: &Request, around: &Around<'_>) -> Option<String> {
    access::mail(request.access.as_deref()?, around.access, around.now)
}

/// The next step of the form that signs in.
pub(super) fn sign_in(request: &Request, rounds: &[Vec<Answer>], around: &mut Around<'_>) -> Step {
    let form = request.form();
    let next = form.text("next");
    if !request.is_from_own_page() || request.body_too_large {
        return sign_in_page(request, around, 403, next, "Sign in from this page.");
    }
    let address = request.address.as_deref().unwrap_or("unknown");
    if !around.failures.may_try(address, around.now) {
        let text = "Too many tries. Wait five minutes, then try again.";
        return sign_in_page(request, around, 429, next, text);
    }
    let means = match Means::of(request, around) {
        Ok(means) => means,
        Err(text) => {
            around.failures.note(address, around.now);
            return sign_in_page(request, around, 401, next, text);
        }
    };
    let Some(answered) = rounds.first() else {
        return Step::Calls { steps: vec![means.step(&request.request_id)] };
    };
    opened(request, answered.first(), means.workspace(), next, around)
}

/// What follows when the workspace was asked for a session.
pub(super) fn opened(
    request: &Request,
    answer: Option<&Answer>,
    workspace: Option<&WorkspaceId>,
    next: &str,
    around: &mut Around<'_>,
) -> Step {
    let address = request.address.as_deref().unwrap_or("unknown");
    let Some(answer) = answer else {
        let text = "The gateway gave no answer. Try again.";
        return sign_in_page(request, around, 500, next, text);
    };
    let opened = answer.value().zip(workspace).and_then(|(opened, workspace)| {
        let text = |name: &str| opened.get(name)?.as_str().map(str::to_owned);
        Some(Session {
            workspace: workspace.clone(),
            id: text("id")?,
            who: text("who")?,
            role: serde_json::from_value(opened.get("role")?.clone()).ok()?,
            owner: text("owner"),
            expires_ms: around.now.plus_ms(SESSION_MS).ms(),
        })
    });
    match (opened.and_then(|session| session_cookie(request, &session, around)), answer.status) {
        (Some(cookie), _) => see(&own_path(next), Some(cookie)),
        (None, 401) => {
            around.failures.note(address, around.now);
            sign_in_page(request, around, 401, next, UNKNOWN_TOKEN)
        }
        (None, status) if status < 300 => {
            let text = "The session cannot be signed: set the secret TALLYGATE_KEY_RING.";
            sign_in_page(request, around, 503, next, text)
        }
        (None, status) => {
            let text = answer.problem().unwrap_or_default();
            sign_in_page(request, around, status, next, &text)
        }
    }
}

/// The page to sign in on.
pub(super) fn sign_in_page(
    request: &Request,
    around: &Around<'_>,
    status: u16,
    next: &str,
    problem: &str,
) -> Step {
    let (person, form) = (person(request, around).unwrap_or_default(), request.form());
    let page = SignIn {
        theme: &theme(request),
        next: &own_path(next),
        problem,
        person: &person,
        provider: around.oidc.name().unwrap_or_default(),
        workspace: form.text("workspace"),
    };
    rendered(status, &page)
}
