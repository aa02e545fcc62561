//! The dashboard from outside: a browser with cookies, pages out, over the whole control plane.

use serde_json::{Value, json};
use tallygate_shared::money::Usd;

use super::{AccessSettings, Answer, Around, Failures, Request, Step, answer};
use crate::objects::test_shell::{NOW_MS, Shell};

mod danger;
mod exports;
mod insights;
mod lists;
mod requests;

pub(super) const ORIGIN: &str = "https://gate.test";

/// A browser.
pub(super) struct Browser<'a> {
    shell: &'a Shell,
    pub(super) cookies: Vec<(String, String)>,
    failures: Failures,
}

/// What it was sent.
pub(super) struct Page {
    pub(super) status: u16,
    headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Page {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The form token of the page.
    pub(super) fn csrf(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"csrf\" value=\"").expect("a form");
        rest.split_once('"').unwrap().0.to_owned()
    }
}

impl<'a> Browser<'a> {
    pub(super) fn new(shell: &'a Shell) -> Self {
        Self { shell, cookies: Vec::new(), failures: Failures::default() }
    }

    pub(super) fn signed_in(shell: &'a Shell, token: &str) -> Self {
        let mut browser = Self::new(shell);
        let page = browser.post("/dashboard/sign-in", &[("token", token)]);
        assert_eq!((page.status, page.header("location")), (303, "/dashboard"), "{}", page.body);
        browser
    }

    pub(super) fn request(&self, method: &str, target: &str) -> Request {
        let cookies = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        Request {
            method: method.to_owned(),
            url: format!("{ORIGIN}{target}"),
            cookie: Some(cookies.collect::<Vec<_>>().join("; ")),
            ..Request::default()
        }
    }

    pub(super) fn send(&mut self, request: &Request) -> Page {
        let mut rounds: Vec<Vec<Answer>> = Vec::new();
        loop {
            assert!(rounds.len() < 8, "{} asks for too much", request.url);
            let step = {
                let ring = self.shell.ring.borrow();
                let failures = &mut self.failures;
                let access = &AccessSettings {
                    team_domain: "acme.cloudflareaccess.com".to_owned(),
                    audience: "tag".to_owned(),
                };
                let oidc = &super::OidcSettings {
                    issuer: "https://id.test".to_owned(),
                    client_id: "us".to_owned(),
                };
                answer(
                    request,
                    &rounds,
                    &mut Around { ring: &ring, now: self.shell.now(), access, oidc, failures },
                )
            };
            match step {
                Step::Calls { steps } => rounds.push(
                    steps
                        .into_iter()
                        .map(|first| {
                            let (status, _, body) = self.shell.carry_out(first);
                            Answer { status, body }
                        })
                        .collect(),
                ),
                Step::File { first } => match self.shell.carry_out(first) {
                    (200, content_type, body) => {
                        let headers = vec![("content-type", content_type.to_owned())];
                        return Page { status: 200, headers, body };
                    }
                    (status, _, body) => rounds.push(vec![Answer { status, body }]),
                },
                // A test that wants a token says itself what comes of the code.
                Step::Exchange { code, verifier, redirect_uri } => {
                    let asked =
                        json!({ "code": code, "verifier": verifier, "redirect_uri": redirect_uri });
                    return Page { status: 0, headers: Vec::new(), body: asked.to_string() };
                }
                Step::Respond { status, headers, body } => {
                    for (_, cookie) in headers.iter().filter(|(name, _)| *name == "set-cookie") {
                        let (name, rest) = cookie.split_once('=').unwrap();
                        let value = rest.split(';').next().unwrap().to_owned();
                        self.cookies.retain(|(known, _)| known != name);
                        self.cookies.push((name.to_owned(), value));
                    }
                    return Page { status, headers, body };
                }
            }
        }
    }

    /// A page. As browsers do, it is loaded once more where it leads to itself: with the cookie that came along.
    pub(super) fn get(&mut self, target: &str) -> Page {
        let request = self.request("GET", target);
        let page = self.send(&request);
        if page.header("location") == target {
            return self.send(&self.request("GET", target));
        }
        page
    }

    pub(super) fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let pairs = fields.iter().map(|(name, value)| format!("{name}={}", super::encoded(value)));
        let request = Request {
            body: pairs.collect::<Vec<_>>().join("&"),
            origin: Some(ORIGIN.to_owned()),
            fetch_site: Some("same-origin".to_owned()),
            ..self.request("POST", path)
        };
        self.send(&request)
    }
}

pub(super) fn token_of(shell: &Shell, admin: &str, role: &str) -> (String, String) {
    // A developer's is for the rows of all owners.
    let owner = (role == "developer").then_some("*");
    let body = json!({ "name": role, "role": role, "owner": owner });
    let (status, issued) = shell.call("POST", "/workspaces/ws_acme/tokens", admin, &body);
    assert_eq!(status, 201, "{issued}");
    (issued["token"].as_str().unwrap().to_owned(), issued["id"].as_str().unwrap().to_owned())
}

/// Two requests this month: one of a team, one of nobody.
pub(super) fn spend(shell: &Shell) -> Usd {
    let at = NOW_MS - 60_000;
    let event = |seq: u64, actor: Value, charged: &str| {
        json!({
            "v": 1, "id": format!("req_{at:012x}7{seq:019x}"), "seq": seq, "workspace": "ws_acme",
            "key": "0000000000000001", "at": at, "settled_at": at, "key_name": "ci", "owner": "ada",
            "cost_centre": "r&d", "purpose": "tests", "environment": "test", "actor": actor,
            "endpoint": "/v1/chat/completions", "stream": false, "requested_model": "gpt-x", "provider": "openai",
            "model": "gpt-x", "attempts": [], "outcome": "completed", "status": 200,
            "usage": { "source": "reported",
                       "tally": { "tokens": { "input": 900, "cache_read": 100, "output": 50 } } },
            "charged": charged, "hold": "0.5", "duration_ms": 700,
        })
    };
    let events =
        [event(1, json!({ "team": "<b>search</b>" }), "0.123456789"), event(2, json!({}), "1.5")];
    let batch = json!({ "meter": "0000000000000001", "events": events });
    shell.ledger("ws_acme:2026-11").apply(&batch.to_string()).unwrap();
    "1.623456789".parse().unwrap()
}

#[test]
fn nobody_sees_a_page_before_they_sign_in_and_everybody_with_a_token_does() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::new(&shell);
    let page = browser.get("/");
    assert_eq!((page.status, page.header("location")), (303, "/dashboard"));
    let page = browser.get("/dashboard/usage?by=owner");
    let next = "/dashboard/sign-in?next=%2Fdashboard%2Fusage%3Fby%3Downer";
    assert_eq!((page.status, page.header("location")), (303, next));
    let page = browser.get(next);
    assert_eq!(page.status, 200);
    assert!(page.body.contains("value=\"/dashboard/usage?by=owner\""), "{}", page.body);
    let fields = [("token", token.as_str()), ("next", "/dashboard/usage?by=owner")];
    let page = browser.post("/dashboard/sign-in", &fields);
    assert_eq!(page.header("location"), "/dashboard/usage?by=owner");
    let cookie = page.header("set-cookie");
    for part in ["tg_session=", "HttpOnly", "SameSite=Lax", "; Secure", "Path=/dashboard"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    assert!(!cookie.contains(&token));
    assert_eq!(browser.get("/dashboard/usage?by=owner").status, 200);
}

#[test]
fn every_page_is_guarded_and_says_no_secret() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    for path in super::pages::PAGES.iter().map(|page| page.path).filter(|path| !path.contains('{'))
    {
        let page = browser.get(&format!("/dashboard{path}"));
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert_eq!(page.header("content-security-policy"), super::POLICY);
        assert_eq!(page.header("cache-control"), "no-store");
        assert!(!page.body.contains("class=\"note bad\""), "{path}: {}", page.body);
        for secret in [token.as_str(), "sk-very-secret"] {
            assert!(!page.body.contains(secret), "{path}");
        }
        assert!(!page.body.contains(" style=") && !page.body.contains("<style"), "{path}");
    }
    let page = browser.get("/dashboard/nothing");
    assert_eq!((page.status, page.body.contains("no such page")), (404, true));
    assert_eq!(browser.get("/dashboard/keys/0000000000000009").status, 404);
}

#[test]
fn a_wrong_token_opens_nothing_and_ten_of_them_are_the_last() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::new(&shell);
    let almost = format!("{}x", &token[..token.len() - 1]);
    let deleted = {
        let (text, id) = token_of(&shell, &token, "auditor");
        let path = format!("/workspaces/ws_acme/tokens/{id}");
        assert_eq!(shell.call("DELETE", &path, &token, &Value::Null).0, 200);
        text
    };
    for wrong in ["", "nonsense", &almost, &deleted] {
        let page = browser.post("/dashboard/sign-in", &[("token", wrong)]);
        assert_eq!(page.status, 401, "{wrong}");
        assert_eq!(page.header("set-cookie"), "");
        assert!(wrong.is_empty() || !page.body.contains(wrong));
    }
    for _ in 4..10 {
        browser.post("/dashboard/sign-in", &[("token", "nonsense")]);
    }
    assert_eq!(browser.post("/dashboard/sign-in", &[("token", &token)]).status, 429);
    shell.now.set(NOW_MS + 5 * 60_000);
    assert_eq!(browser.post("/dashboard/sign-in", &[("token", &token)]).status, 303);
}

#[test]
fn a_sign_in_leads_nowhere_else_and_comes_from_our_own_page() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::new(&shell);
    for next in [
        "https://evil.test",
        "//evil.test",
        "/dashboardx",
        "/v1/models",
        "/dashboard\\@evil",
        "/dashboard/\r\nx",
    ] {
        let page = browser.post("/dashboard/sign-in", &[("token", &token), ("next", next)]);
        assert_eq!(page.header("location"), "/dashboard", "{next}");
    }
    let mut forged = Request {
        body: format!("token={token}"),
        origin: Some("https://evil.test".to_owned()),
        ..Browser::new(&shell).request("POST", "/dashboard/sign-in")
    };
    assert_eq!(Browser::new(&shell).send(&forged).status, 403);
    forged.origin = None;
    assert_eq!(Browser::new(&shell).send(&forged).status, 403);
}

#[test]
fn a_session_ends_by_time_by_hand_from_afar_and_with_its_token() {
    let (shell, token) = Shell::with_workspace();
    let gone = |browser: &mut Browser<'_>| {
        let page = browser.get("/dashboard");
        assert_eq!(
            (page.status, page.header("location")),
            (303, "/dashboard/sign-in?next=%2Fdashboard")
        );
    };
    let mut browser = Browser::signed_in(&shell, &token);
    shell.now.set(NOW_MS + super::session::SESSION_MS - 1);
    assert_eq!(browser.get("/dashboard").status, 200);
    shell.now.set(NOW_MS + super::session::SESSION_MS);
    gone(&mut browser);

    let mut browser = Browser::signed_in(&shell, &token);
    let kept = browser.cookies.clone();
    let csrf = browser.get("/dashboard").csrf();
    let page = browser.post("/dashboard/sign-out", &[("csrf", &csrf)]);
    assert_eq!((page.status, page.header("location")), (303, "/dashboard/sign-in"));
    // Whoever kept the cookie, or the form, has nothing of it.
    browser.cookies = kept;
    gone(&mut browser);
    let page = browser.post("/dashboard/keys/issue", &[("csrf", &csrf), ("policy", "x")]);
    assert_eq!(
        (page.status, page.header("location")),
        (303, "/dashboard/sign-in?next=%2Fdashboard")
    );

    let (finance, id) = token_of(&shell, &token, "finance");
    let mut browser = Browser::signed_in(&shell, &finance);
    let (_, sessions) = shell.call("GET", "/workspaces/ws_acme/sessions", &token, &Value::Null);
    let open = sessions["data"].as_array().unwrap();
    let session = open.iter().find(|session| session["role"] == "finance").unwrap();
    let mut admin = Browser::signed_in(&shell, &token);
    let page = admin.get("/dashboard/sessions");
    assert!(page.body.contains(session["id"].as_str().unwrap()), "{}", page.body);
    let path = format!("/dashboard/sessions/{}/revoke", session["id"].as_str().unwrap());
    let page = admin.post(&path, &[("csrf", &page.csrf())]);
    assert_eq!(page.header("location"), "/dashboard/sessions?done=revoke-session");
    gone(&mut browser);

    let mut browser = Browser::signed_in(&shell, &finance);
    let path = format!("/workspaces/ws_acme/tokens/{id}");
    assert_eq!(shell.call("DELETE", &path, &token, &Value::Null).0, 200);
    gone(&mut browser);
}

#[test]
fn a_form_needs_the_token_of_its_session_and_our_own_origin() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let csrf = browser.get("/dashboard/keys").csrf();
    let other = Browser::signed_in(&shell, &token).get("/dashboard/keys").csrf();
    assert_ne!(csrf, other);
    let issue = |csrf: &str| {
        format!(
            "csrf={csrf}&name=ci&owner=ada&cost_centre=rd&purpose=tests&environment=test&day_limit_usd=5"
        )
    };
    let form = |body: String| Request {
        body,
        origin: Some(ORIGIN.to_owned()),
        ..browser.request("POST", "/dashboard/keys/issue")
    };
    let bad = [
        form(issue(&other)),
        form(issue("")),
        form(issue("x")),
        Request { origin: None, ..form(issue(&csrf)) },
        Request { origin: Some("https://evil.test".to_owned()), ..form(issue(&csrf)) },
        Request { fetch_site: Some("cross-site".to_owned()), ..form(issue(&csrf)) },
        Request { body_too_large: true, ..form(issue(&csrf)) },
    ];
    let good = form(issue(&csrf));
    for request in bad {
        let page = browser.send(&request);
        assert!(matches!(page.status, 403 | 413), "{request:?}: {}", page.status);
    }
    let (_, keys) = shell.call("GET", "/workspaces/ws_acme/keys", &token, &Value::Null);
    assert_eq!(keys["data"], json!([]));
    let page = browser.send(&good);
    assert_eq!(page.status, 200);
    let (_, keys) = shell.call("GET", "/workspaces/ws_acme/keys", &token, &Value::Null);
    assert_eq!(keys["data"].as_array().unwrap().len(), 1);
    assert!(
        page.body.contains("tg_live_")
            || page.body.contains("tgk_")
            || page.body.contains("Copy the key now")
    );
}

#[test]
fn a_key_is_issued_suspended_resumed_and_revoked_by_forms() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let csrf = browser.get("/dashboard/keys").csrf();
    let csrf = ("csrf", csrf.as_str());
    // What is wrong is said on the page, with what was written.
    let page =
        browser.post("/dashboard/keys/issue", &[csrf, ("name", "my key"), ("policy", "none")]);
    assert_eq!((page.status, page.body.contains("value=\"my key\"")), (422, true), "{}", page.body);
    assert!(page.body.contains("class=\"note bad\" role=\"alert\""));
    let page = browser.post("/dashboard/keys/issue", &[csrf, ("name", "my key")]);
    assert_eq!((page.status, page.body.contains("a key needs one")), (422, true), "{}", page.body);
    let good = [
        ("name", "my key"),
        ("owner", "ada"),
        ("cost_centre", "rd"),
        ("purpose", "p"),
        ("environment", "e"),
    ];
    let page = browser
        .post("/dashboard/keys/issue", &[&good[..], &[csrf, ("day_limit_usd", "5")]].concat());
    assert!(page.body.contains("Copy the key now"), "{}", page.body);
    let show =
        || shell.call("GET", "/workspaces/ws_acme/keys", &token, &Value::Null).1["data"][0].clone();
    let id = show()["id"].as_str().unwrap().to_owned();
    for (act, status) in [("suspend", "suspended"), ("resume", "active")] {
        let page = browser.post(&format!("/dashboard/keys/{id}/{act}"), &[csrf]);
        assert_eq!(page.header("location"), format!("/dashboard/keys?done={act}-key"));
        assert_eq!(show()["status"], status);
    }
    let revoke = format!("/dashboard/keys/{id}/revoke");
    assert_eq!(browser.post(&revoke, &[csrf]).status, 422);
    assert_eq!(show()["status"], "active");
    let page = browser.post(&revoke, &[csrf, ("sure", "yes")]);
    let back = page.header("location").to_owned();
    assert_eq!(back, format!("/dashboard/keys/{id}?done=revoke-key"));
    assert_eq!(show()["status"], "revoked");
    assert!(browser.get(&back).body.contains("The key is revoked for ever."));
}

#[test]
fn a_role_sees_and_does_what_the_api_lets_it() {
    let (shell, token) = Shell::with_workspace();
    for (role, sessions, changes, alerts) in [
        ("admin", 200, true, true),
        ("finance", 403, false, true),
        ("developer", 403, false, true),
        ("auditor", 200, false, false),
    ] {
        let (own, _) = token_of(&shell, &token, role);
        let mut browser = Browser::signed_in(&shell, &own);
        let page = browser.get("/dashboard/sessions");
        assert_eq!(page.status, sessions, "{role}");
        let menu = browser.get("/dashboard").body;
        assert_eq!(menu.contains("href=\"/dashboard/sessions\""), sessions == 200, "{role}");
        let page = browser.get("/dashboard/keys");
        assert_eq!(page.body.contains("Issue a key"), changes, "{role}");
        // The form of another role's page gets no further.
        let fields = [
            ("name", "x"),
            ("owner", "x"),
            ("cost_centre", "x"),
            ("purpose", "x"),
            ("environment", "x"),
        ];
        let csrf = page.csrf();
        let fields = [&fields[..], &[("day_limit_usd", "1"), ("csrf", &csrf)]].concat();
        let status = browser.post("/dashboard/keys/issue", &fields).status;
        assert_eq!(status, if changes { 200 } else { 403 }, "{role}");
        let status = browser.post("/dashboard/alerts/al_x/acknowledge", &[("csrf", &csrf)]).status;
        assert_eq!(status, if alerts { 404 } else { 403 }, "{role}");
    }
}

#[test]
fn the_numbers_of_a_page_are_the_apis_and_what_nobody_owns_is_a_row() {
    let (shell, token) = Shell::with_workspace();
    let all = spend(&shell);
    let mut browser = Browser::signed_in(&shell, &token);
    let (_, usage) = shell.call(
        "GET",
        "/workspaces/ws_acme/usage?from=2026-11-01&group_by=team",
        &token,
        &Value::Null,
    );
    let sum = usage["data"].as_array().unwrap().iter();
    let sum = sum.map(|row| row["charged_usd"].as_str().unwrap().parse::<Usd>().unwrap());
    assert_eq!(sum.fold(Usd::ZERO, Usd::saturating_add), all);
    let page = browser.get("/dashboard");
    assert!(page.body.contains(&format!("value=\"{all}\" title=\"{all}\">$1.62")), "{}", page.body);
    // What a name says is text, not markup.
    assert!(
        page.body.contains("&#60;b&#62;search") && !page.body.contains("<b>search"),
        "{}",
        page.body
    );
    let csv = browser.get("/dashboard/usage?by=team&format=csv");
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let expected = "team,requests,input_tokens,cached_tokens,output_tokens,charged_usd\r\n\
        Unallocated,1,1000,100,50,1.5\r\n<b>search</b>,1,1000,100,50,0.123456789\r\n";
    assert_eq!(csv.body, expected);
    let csv = browser.get("/dashboard/requests?format=csv&table=requests");
    assert!(csv.body.lines().nth(1).unwrap().ends_with(",200,1050,700,1.5"), "{}", csv.body);
    let request = csv.body.lines().nth(1).unwrap().split(',').nth(1).unwrap().to_owned();
    let page = browser.get(&format!("/dashboard/requests/{request}"));
    assert_eq!((page.status, page.body.contains("Held before it was sent")), (200, true));
}

#[test]
fn a_filter_that_is_none_is_said_and_not_swallowed() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    for target in [
        "/dashboard/usage?from=yesterday",
        "/dashboard/usage?by=colour",
        "/dashboard/alerts?state=odd",
    ] {
        let page = browser.get(target);
        assert_eq!((page.status, page.body.contains("role=\"alert\"")), (422, true), "{target}");
        assert!(page.body.contains("Not available"), "{target}");
    }
}

#[test]
fn colours_are_kept_in_a_cookie_and_leave_with_it() {
    let (shell, token) = Shell::with_workspace();
    let mut browser = Browser::signed_in(&shell, &token);
    let csrf = browser.get("/dashboard").csrf();
    let fields = [("csrf", csrf.as_str()), ("theme", "dark"), ("next", "/dashboard/keys")];
    assert_eq!(browser.post("/dashboard/theme", &fields).header("location"), "/dashboard/keys");
    assert!(browser.get("/dashboard").body.contains("data-theme=\"dark\""));
    browser.post("/dashboard/theme", &[("csrf", &csrf), ("theme", "\"><script>")]);
    assert!(!browser.get("/dashboard").body.contains("data-theme"));
}

#[test]
fn a_member_comes_through_access_with_the_role_of_the_configuration_of_now() {
    let (shell, token) = Shell::with_workspace();
    let set = |members: Value| {
        let (_, mut config) = shell.call("GET", "/workspaces/ws_acme/config", &token, &Value::Null);
        config["dashboard"] = json!({ "members": members });
        shell.call("PUT", "/workspaces/ws_acme/config", &token, &config)
    };
    for bad in
        [json!({ "Ann@x.test": "admin" }), json!({ "ann": "admin" }), json!({ "a@x": "operator" })]
    {
        assert_eq!(set(bad.clone()).0, 422, "{bad}");
    }
    assert_eq!(set(json!({ "ann@x.test": "auditor" })).0, 200);
    let claims = |mail: &str, aud: &str| {
        let exp = NOW_MS / 1_000 + 600;
        json!({ "iss": "https://acme.cloudflareaccess.com", "aud": [aud], "exp": exp, "email": mail })
            .to_string()
    };
    let mut browser = Browser::new(&shell);
    let come = |browser: &mut Browser<'_>, workspace: &str, claims: String| {
        let request = Request {
            body: format!("workspace={workspace}"),
            origin: Some(ORIGIN.to_owned()),
            access: Some(claims),
            ..browser.request("POST", "/dashboard/sign-in")
        };
        browser.send(&request)
    };
    assert_eq!(come(&mut browser, "ws_acme", claims("ann@x.test", "other")).status, 401);
    let stranger = come(&mut browser, "ws_acme", claims("eve@x.test", "tag"));
    let elsewhere = come(&mut browser, "ws_none", claims("eve@x.test", "tag"));
    let hidden =
        stranger.body.replace("ws_acme", "ws_none").replace("such as ws_none", "such as ws_acme");
    let shown = elsewhere.body;
    assert_eq!((stranger.status, hidden), (403, shown));
    assert_eq!(come(&mut browser, "ws_acme", claims("ann@x.test", "tag")).status, 303);
    assert_eq!(browser.get("/dashboard/sessions").status, 200);
    // A role that changes, changes at once, also what pages offer; whoever is taken away is out.
    assert_eq!(set(json!({ "ann@x.test": "finance" })).0, 200);
    let page = browser.get("/dashboard/sessions");
    assert_eq!(page.status, 403, "{}", page.body);
    let offers =
        |browser: &mut Browser<'_>| browser.get("/dashboard/keys").body.contains("Issue a key");
    assert!(!offers(&mut browser));
    assert_eq!(set(json!({ "ann@x.test": "admin" })).0, 200);
    assert!(offers(&mut browser));
    assert_eq!(browser.get("/dashboard/sessions").status, 200);
    assert_eq!(set(json!({ "ann@x.test": { "role": "developer", "owner": "search" } })).0, 200);
    let page = browser.get("/dashboard");
    assert!(page.body.contains("You see what belongs to search"), "{}", page.body);
    assert!(!page.body.contains("class=\"note bad\""), "{}", page.body);
    assert!(!offers(&mut browser));
    // It is asked once: the cookie that comes along is of the role of now.
    let request = browser.request("GET", "/dashboard/keys");
    assert_eq!(browser.send(&request).status, 200);
    // A form that is not taken any more leaves a page of the role of now.
    assert_eq!(set(json!({ "ann@x.test": "admin" })).0, 200);
    let csrf = browser.get("/dashboard/keys").csrf();
    assert_eq!(set(json!({ "ann@x.test": "auditor" })).0, 200);
    let page =
        browser.post("/dashboard/provider-payment", &[("csrf", &csrf), ("provider", "openai")]);
    assert_eq!((page.status, page.body.contains("Issue a key")), (403, false), "{}", page.body);
    assert_eq!(set(json!({})).0, 200);
    assert_eq!(browser.get("/dashboard").status, 303);
    // The API itself takes nobody's word for who they are.
    let call = json!({ "method": "POST", "path": "/api/v1/workspaces/ws_acme/sessions", "person": "ann@x.test",
                       "session": "ses_1" });
    let step = crate::admin::call::route(serde_json::from_value(call).unwrap(), "");
    assert_eq!(shell.carry_out(step).0, 401);
}
