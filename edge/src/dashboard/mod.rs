//! The dashboard: pages for people, made on the server. A page names the calls of the admin API that it needs; the shell
//! makes them with the session's rights, as any caller would; from their answers the page is made. So everything on a
//! page is in the API, and one table of roles guards both.
//!
//! `answer` is called with the answers had so far and says what comes next. It keeps nothing between the calls.

mod access;
mod actions;
mod failures;
mod figures;
mod flow;
#[cfg(test)]
mod inventory_tests;
#[cfg(test)]
mod models_tests;
mod oidc;
#[cfg(test)]
mod oidc_tests;
mod pages;
pub mod session;
#[cfg(test)]
mod settings_tests;
mod sign_in;
#[cfg(test)]
mod tests;
mod view;
mod web;

use askama::Template;
use tallygate_shared::time::Timestamp;

use crate::admin::call::{self, Call};
use crate::admin::roles::{Act, Role};
use crate::demo::is_demo;
use crate::vault::KeyRing;
pub use access::AccessSettings;
use actions::Action;
pub use failures::Failures;
pub use oidc::OidcSettings;
use pages::{Rounds, Visit};
use session::{COOKIE, Session};
use sign_in::{sign_in, sign_in_page};
use view::{Block, Frame, Going, Group, Link, Message, Note, Page, Tone, View};
pub(crate) use web::Fields;
pub(crate) use web::encoded;
pub use web::{Answer, Ask, FromProvider, Request, Step};

/// Where the dashboard is.
pub const ROOT: &str = "/dashboard";
const SIGN_IN: &str = "/dashboard/sign-in";
const THEME_COOKIE: &str = "tg_theme";
/// What a page may load and do: only what the Worker itself serves, and no script or style within a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// What a request meets.
pub struct Around<'a> {
    /// The ring that signs.
    pub ring: &'a KeyRing,
    /// The time.
    pub now: Timestamp,
    /// Which tokens of Cloudflare Access are for us.
    pub access: &'a AccessSettings,
    /// Which tokens of an OpenID provider are for us.
    pub oidc: &'a OidcSettings,
    /// Who failed to sign in of late.
    pub failures: &'a mut Failures,
}

/// The next step of a request to a page, from the answers of each round of calls so far.
pub fn answer(request: &Request, rounds: &[Vec<Answer>], around: &mut Around<'_>) -> Step {
    let path = request.path().trim_end_matches('/');
    let posted = match request.method.as_str() {
        "GET" | "HEAD" => false,
        "POST" => true,
        _ => return message(request, 405, "Not possible", "A page is asked for with GET or POST."),
    };
    if path.is_empty() {
        return see(ROOT, None);
    }
    let cookie = request.cookie(COOKIE).unwrap_or_default();
    let session = Session::open(cookie, around.ring, around.now);
    if path == SIGN_IN {
        return match (posted, session) {
            (true, _) => sign_in(request, rounds, around),
            (false, Some(_)) => see(&own_path(request.query().text("next")), None),
            (false, None) => sign_in_page(request, around, 200, request.query().text("next"), ""),
        };
    }
    match (path, posted) {
        (oidc::START, true) => return oidc::start(request, around),
        (oidc::CALLBACK, false) => return oidc::callback(request, rounds, around),
        _ => {}
    }
    let Some(session) = session else { return to_sign_in(request, posted) };
    if rounds.iter().flatten().any(|answer| answer.status == 401) {
        return to_sign_in(request, posted);
    }
    if let Some(place) = moved(path) {
        return see(&place, None);
    }
    if let (Some(parameters), false) = (export_file(path), posted) {
        return file(request, &session, &parameters, rounds);
    }
    if posted {
        if let Some(refusal) = form_refusal(request, &session, around.ring) {
            return refusal;
        }
        return change(request, &session, rounds, around);
    }
    let visit = Visit {
        session: &session,
        path: path.to_owned(),
        query: request.query(),
        parameters: Vec::new(),
        form: Fields::default(),
        answer: None,
        now: around.now,
    };
    let here = request.target();
    show(request, visit, rounds, around, &Shown { status: 200, here, notes: Vec::new() })
}

/// Where a link of an alert leads whose thing has no page of its own.
fn moved(path: &str) -> Option<String> {
    let rest = path.strip_prefix(ROOT)?;
    if rest == "/prices" {
        return Some(format!("{ROOT}/reconciliation"));
    }
    let provider = rest.strip_prefix("/providers/")?;
    Some(format!("{ROOT}/usage?by=model&provider={provider}"))
}

/// The month and the name of a file of a FOCUS export, of the address of its download.
fn export_file(path: &str) -> Option<Vec<String>> {
    pages::parameters("/focus-exports/{month}/{file}", path.strip_prefix(ROOT)?)
}

/// A file, or a page that says why there is none.
fn file(
    request: &Request,
    session: &Session,
    parameters: &[String],
    rounds: &[Vec<Answer>],
) -> Step {
    let Some(answer) = rounds.first().and_then(|all| all.first()) else {
        let names: Vec<String> = parameters.iter().map(|name| encoded(name)).collect();
        let ask = Ask::get(format!("/focus-exports/{}", names.join("/")));
        return Step::File { first: first_step(request, &ask, session) };
    };
    let text = answer.problem().unwrap_or_default();
    message(request, answer.status, "No such download", &text)
}

/// How a page is shown.
struct Shown<'a> {
    status: u16,
    here: &'a str,
    notes: Vec<Note>,
}

/// A page, when all its answers are there; until then, its next calls.
fn show(
    request: &Request,
    mut visit: Visit<'_>,
    rounds: &[Vec<Answer>],
    around: &Around<'_>,
    shown: &Shown<'_>,
) -> Step {
    let Some((page, parameters)) = pages::find(&visit.path) else {
        let text = "There is no such page. It may have been renamed.";
        return message(request, 404, "Not found", text);
    };
    visit.parameters = parameters;
    // The cookie is of the sign-in; the role may be another since. The last call of the first round asks.
    let known = visit.session;
    let (caller, rounds) = Rounds::with_caller(rounds);
    let current = caller.map_or_else(|| known.clone(), |caller| known.as_of(caller));
    if current != *known && request.method != "POST" {
        let renewed = session_cookie(request, &current, around);
        return see(request.target(), renewed);
    }
    let visit = Visit { session: &current, ..visit };
    let ask_caller = || caller.is_none().then(|| Ask::get("/session"));
    let mut notes = shown.notes.clone();
    if !visit.session.role.may(page.act)
        && let Some(ask) = ask_caller()
    {
        return calls(request, &[ask], known);
    }
    if !visit.session.role.may(page.act) {
        let role = visit.session.role.name();
        let text = format!("The role {role} does not see this page. Ask a workspace admin.");
        notes.push(Note { tone: Tone::Bad, text });
        let view = View { title: page.title.to_owned(), ..View::default() };
        return html(request, 403, &visit, around, &view, shown.here, notes);
    }
    let mut asks = (page.asks)(&visit, &rounds);
    asks.extend(ask_caller());
    if !asks.is_empty() {
        return calls(request, &asks, visit.session);
    }
    let view = (page.view)(&visit, &rounds);
    if visit.query.get("format") == Some("csv") {
        return download(request, &view, visit.query.get("table"));
    }
    let done = visit.query.get("done").and_then(actions::sentence);
    notes.extend(done.map(|text| Note { tone: Tone::Good, text: text.to_owned() }));
    let problems = rounds.0.iter().copied().flatten().filter_map(Answer::problem);
    let mut problems: Vec<String> = problems.collect();
    problems.dedup();
    notes.extend(problems.into_iter().map(|text| Note { tone: Tone::Bad, text }));
    // The first answer is what the page is about.
    let first = rounds.0.first().and_then(|all| all.first()).filter(|answer| failed(answer));
    let status = match (shown.status, first) {
        (200, Some(answer)) => answer.status,
        (status, _) => status,
    };
    html(request, status, &visit, around, &view, shown.here, notes)
}

fn failed(answer: &Answer) -> bool {
    answer.status >= 300
}

fn html(
    request: &Request,
    status: u16,
    visit: &Visit<'_>,
    around: &Around<'_>,
    view: &View,
    here: &str,
    notes: Vec<Note>,
) -> Step {
    let frame = Frame {
        theme: theme(request),
        workspace: visit.session.workspace.to_string(),
        demo: is_demo(visit.session.workspace.as_str()),
        may_remove: visit.session.role.may(Act::WriteConfig),
        who: visit.session.who.clone(),
        role: visit.session.role.name(),
        form_token: visit.session.form_token(around.ring).unwrap_or_default(),
        menu: navigation(visit),
        here: here.to_owned(),
        path: visit.path.clone(),
        query: visit.query.clone(),
        notes,
        rows: rows(visit.session),
    };
    rendered(status, &Page { frame: &frame, view })
}

/// Whose rows a developer sees. Everybody else sees all of them.
fn rows(session: &Session) -> String {
    match (&session.owner, session.role) {
        (Some(owner), _) => format!("You see what belongs to {owner}, and nothing of others."),
        (None, Role::Developer) => "Your token is for the rows of all owners.".to_owned(),
        (None, _) => String::new(),
    }
}

fn navigation(visit: &Visit<'_>) -> Vec<Group> {
    let link = |path: &&str| {
        let page = pages::PAGES.iter().find(|page| page.path == *path)?;
        let text = page.menu.filter(|_| visit.session.role.may(page.act))?.to_owned();
        let href = format!("{ROOT}{}", page.path);
        let below = visit.path.strip_prefix(&href).is_some_and(|rest| rest.starts_with('/'));
        let current = visit.path == href || (below && !page.path.is_empty());
        Some(Link { href, text, current })
    };
    let group = |(title, paths): &(&'static str, &[&str])| {
        let links: Vec<Link> = paths.iter().filter_map(link).collect();
        (!links.is_empty()).then_some(Group { title, links })
    };
    pages::MENU.iter().filter_map(group).collect()
}

/// Why a form is not taken.
fn form_refusal(request: &Request, session: &Session, ring: &KeyRing) -> Option<Step> {
    if request.body_too_large {
        let text = "The form is larger than 2 MiB. Send less.";
        return Some(message(request, 413, "Too large", text));
    }
    let owned = session.owns_form(request.form().text("csrf"), ring);
    if request.is_from_own_page() && owned {
        return None;
    }
    let text = "The form was not sent from a page of this session. Open the page again and send it from there.";
    Some(message(request, 403, "Not taken", text))
}

/// A form that changes something.
fn change(
    request: &Request,
    session: &Session,
    rounds: &[Vec<Answer>],
    around: &Around<'_>,
) -> Step {
    let (path, form) = (request.path(), request.form());
    if path == "/dashboard/theme" {
        let theme = Some(form.text("theme")).filter(|it| matches!(*it, "light" | "dark"));
        let age = if theme.is_some() { 31_536_000 } else { 0 };
        let cookie = cookie(request, THEME_COOKIE, theme.unwrap_or_default(), age);
        return see(&own_path(form.text("next")), Some(cookie));
    }
    let Some((action, parameters)) = actions::find(path) else {
        return message(request, 404, "Not found", "There is no such form. Open its page again.");
    };
    let mut shown = None;
    let (problem, rest) = match (rounds.split_first(), (action.ask)(&parameters, &form)) {
        (None, Ok(ask)) => return calls(request, &[ask], session),
        (Some((done, rest)), Ok(_)) => {
            shown = done.first().cloned();
            match done.first() {
                Some(answer) if !failed(answer) && !actions::stays(action) => {
                    return changed(request, action, &parameters, answer, session, around);
                }
                answer => {
                    ((answer.map_or(500, |a| a.status), answer.and_then(Answer::problem)), rest)
                }
            }
        }
        (_, Err(text)) => ((422, Some(text)), rounds),
    };
    // The page that the form stands on, with what was wrong and what was written.
    let back = format!("{ROOT}{}", actions::back(action, &parameters));
    let visit = Visit {
        session,
        path: back.clone(),
        query: Fields::default(),
        parameters: Vec::new(),
        form,
        answer: shown,
        now: around.now,
    };
    let (status, text) = problem;
    let silence = || (status >= 300).then(|| "The gateway gave no answer. Try again.".to_owned());
    let notes = text.or_else(silence).into_iter().map(|text| Note { tone: Tone::Bad, text });
    let notes = notes.collect();
    show(request, visit, rest, around, &Shown { status, here: &back, notes })
}

/// What follows a change: the page it was made on, or what is shown only once.
fn changed(
    request: &Request,
    action: &Action,
    parameters: &[String],
    answer: &Answer,
    session: &Session,
    around: &Around<'_>,
) -> Step {
    // The session has ended, or its workspace is gone.
    if matches!(action.name, "sign-out" | "remove-demo") {
        return see(SIGN_IN, Some(cookie(request, COOKIE, "", 0)));
    }
    let back = format!("{ROOT}{}", actions::back(action, parameters));
    if let Some(once) = action.once {
        let visit = Visit {
            session,
            path: back.clone(),
            query: Fields::default(),
            parameters: Vec::new(),
            form: Fields::default(),
            answer: None,
            now: around.now,
        };
        let mut view = once(&answer.value().unwrap_or_default());
        let link = Link { href: back.clone(), text: "Back".to_owned(), current: false };
        view.blocks.push(Block::Links(vec![link]));
        return html(request, 200, &visit, around, &view, &back, Vec::new());
    }
    see(&format!("{back}?done={}", action.name), None)
}

fn to_sign_in(request: &Request, posted: bool) -> Step {
    let next = if posted { ROOT } else { request.target() };
    let gone = cookie(request, COOKIE, "", 0);
    see(&format!("{SIGN_IN}?next={}", encoded(next)), Some(gone))
}

/// A path of the dashboard; anything else becomes its first page, so that no link leads away from here.
fn own_path(next: &str) -> String {
    let inside = next == ROOT
        || next
            .strip_prefix(ROOT)
            .is_some_and(|rest| rest.starts_with('/') || rest.starts_with('?'));
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if inside && plain { next.to_owned() } else { ROOT.to_owned() }
}

fn calls(request: &Request, asks: &[Ask], session: &Session) -> Step {
    Step::Calls { steps: asks.iter().map(|ask| first_step(request, ask, session)).collect() }
}

/// The first step of a call with the session's rights.
fn first_step(request: &Request, ask: &Ask, session: &Session) -> call::Step {
    let call = Call {
        method: ask.method.to_owned(),
        path: format!("/api/v1/workspaces/{}{}", session.workspace, ask.path),
        query: ask.query.query().trim_start_matches('?').to_owned(),
        body: ask.body.as_ref().map(ToString::to_string).unwrap_or_default(),
        request_id: request.request_id.clone(),
        ..Call::default()
    };
    call::route_session(&call, &session.workspace, &session.id)
}

fn theme(request: &Request) -> String {
    let known = request.cookie(THEME_COOKIE).filter(|it| matches!(*it, "light" | "dark"));
    known.unwrap_or_default().to_owned()
}

fn cookie(request: &Request, name: &str, value: &str, seconds: i64) -> String {
    let secure = if request.is_secure() { "; Secure" } else { "" };
    format!("{name}={value}; Path={ROOT}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// The cookie of a session until it ends. `None` where nothing can be signed.
fn session_cookie(request: &Request, session: &Session, around: &Around<'_>) -> Option<String> {
    let left = Timestamp::from_ms(session.expires_ms).since_ms(around.now);
    Some(cookie(request, COOKIE, &session.sign(around.ring)?, left / 1_000))
}

fn see(path: &str, cookie: Option<String>) -> Step {
    let mut headers = vec![("location", path.to_owned()), ("cache-control", "no-store".to_owned())];
    headers.extend(cookie.map(|cookie| ("set-cookie", cookie)));
    Step::Respond { status: 303, headers, body: String::new() }
}

fn message(request: &Request, status: u16, title: &str, text: &str) -> Step {
    rendered(status, &Message { theme: &theme(request), title, text })
}

/// A page that leads away at once, and says where to.
fn going(request: &Request, status: u16, headers: Vec<(&'static str, String)>, url: &str) -> Step {
    match (Going { theme: &theme(request), url }).render() {
        Ok(body) => Step::Respond { status, headers, body },
        Err(_) => message(request, 500, "Try again", "The page could not be made."),
    }
}

fn rendered(status: u16, page: &impl Template) -> Step {
    let mut headers = guarded("text/html; charset=utf-8");
    headers.push(("content-security-policy", POLICY.to_owned()));
    match page.render() {
        Ok(body) => Step::Respond { status, headers, body },
        Err(_) => {
            Step::Respond { status: 500, headers, body: "<!doctype html>Try again.".to_owned() }
        }
    }
}

fn download(request: &Request, view: &View, table: Option<&str>) -> Step {
    let tables = view.blocks.iter().filter_map(|block| match block {
        Block::Table(table) => Some(table),
        _ => None,
    });
    let found = tables.into_iter().find(|it| table.is_none_or(|id| id == it.id));
    match found {
        Some(table) if table.rows.is_some() => {
            let mut headers = guarded("text/csv; charset=utf-8");
            let file = format!("attachment; filename=\"tallygate-{}.csv\"", table.id);
            headers.push(("content-disposition", file));
            Step::Respond { status: 200, headers, body: view::csv(table) }
        }
        _ => message(request, 404, "Not found", "This page has no such table now."),
    }
}

fn guarded(content_type: &str) -> Vec<(&'static str, String)> {
    vec![
        ("content-type", content_type.to_owned()),
        ("cache-control", "no-store".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
        ("referrer-policy", "same-origin".to_owned()),
        ("cross-origin-opener-policy", "same-origin".to_owned()),
    ]
}
