//! Signing in through an OpenID provider, over the whole control plane; the provider's part is played here.

use serde_json::{Value, json};

use super::FromProvider;
use super::tests::{Browser, ORIGIN, Page};
use super::web::Request;
use crate::objects::test_shell::{NOW_MS, Shell};

const BYTES: &str = "AAAAAAAAAAAAAAAAAAAAAAEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD";

/// Makes, of a sign-in's state and nonce, the query and what the provider says.
type Change = dyn Fn(&str, &str) -> (String, Option<FromProvider>);

fn members(shell: &Shell, token: &str, members: &Value) {
    let (_, mut config) = shell.call("GET", "/workspaces/ws_acme/config", token, &Value::Null);
    config["dashboard"] = json!({ "members": members });
    let (status, answer) = shell.call("PUT", "/workspaces/ws_acme/config", token, &config);
    assert_eq!(status, 200, "{answer}");
}

fn begin(browser: &mut Browser<'_>, workspace: &str, oidc: Option<FromProvider>) -> Page {
    let request = Request {
        body: format!("workspace={workspace}&next=%2Fdashboard%2Fusage"),
        origin: Some(ORIGIN.to_owned()),
        oidc,
        random: Some(BYTES.to_owned()),
        ..browser.request("POST", "/dashboard/sign-in/oidc")
    };
    browser.send(&request)
}

fn found() -> Option<FromProvider> {
    let authorization_endpoint = "https://id.test/authorize?tenant=a".to_owned();
    Some(FromProvider::Discovered { authorization_endpoint })
}

/// A parameter of the address that the browser is sent to.
fn parameter(page: &Page, name: &str) -> String {
    let (_, rest) = page.header("refresh").split_once(&format!("&{name}=")).expect("a parameter");
    rest.split('&').next().unwrap().to_owned()
}

fn come_back(browser: &mut Browser<'_>, query: &str, oidc: Option<FromProvider>) -> Page {
    let target = format!("/dashboard/sign-in/callback?{query}");
    let request = Request { oidc, ..browser.request("GET", &target) };
    browser.send(&request)
}

fn vouched(nonce: &str, mail: &str, aud: &str, exp_s: i64) -> Option<FromProvider> {
    let claims = json!({ "iss": "https://id.test", "aud": aud, "exp": NOW_MS / 1_000 + exp_s, "nonce": nonce,
                         "sub": "1", "email": mail, "email_verified": true });
    Some(FromProvider::Vouched { claims: claims.to_string() })
}

#[test]
fn a_member_comes_through_the_provider_once_and_to_where_they_wanted() {
    let (shell, token) = Shell::with_workspace();
    members(&shell, &token, &json!({ "ann@x.test": "developer" }));
    let mut browser = Browser::new(&shell);
    assert!(browser.get("/dashboard/sign-in").body.contains("Continue with id.test"));
    let page = begin(&mut browser, "ws_acme", found());
    assert_eq!(page.status, 200, "{}", page.body);
    assert!(
        page.header("refresh").starts_with(
            "0;url=https://id.test/authorize?tenant=a&response_type=code&client_id=us&"
        )
    );
    assert_eq!(parameter(&page, "code_challenge_method"), "S256");
    assert_eq!(
        parameter(&page, "redirect_uri"),
        "https%3A%2F%2Fgate.test%2Fdashboard%2Fsign-in%2Fcallback"
    );
    let (state, nonce) = (parameter(&page, "state"), parameter(&page, "nonce"));
    // The browser is given nothing that it could change or read.
    let cookie = page.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax") && !cookie.contains(&nonce),
        "{cookie}"
    );
    let kept = browser.cookies.clone();
    let asked = come_back(&mut browser, &format!("code=c&state={state}"), None);
    let asked: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        (&asked["code"], &asked["redirect_uri"]),
        (&json!("c"), &json!("https://gate.test/dashboard/sign-in/callback"))
    );
    // The verifier is what the challenge is the hash of: printf <verifier> | openssl sha256 -binary | basenc --base64url
    assert_eq!(asked["verifier"], "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI");
    assert_eq!(parameter(&page, "code_challenge").len(), 43);
    let query = format!("code=c&state={state}&iss=https%3A%2F%2Fid.test");
    let page = come_back(&mut browser, &query, vouched(&nonce, "Ann@x.test", "us", 60));
    assert_eq!((page.status, page.header("location")), (303, "/dashboard/usage"), "{}", page.body);
    let page = browser.get("/dashboard");
    assert!(
        page.body.contains("mail:ann@x.test")
            && page.body.contains("You see what belongs to ann@x.test"),
        "{}",
        page.body
    );
    // The same again, cookie and all, opens nothing.
    let mut thief = Browser::new(&shell);
    thief.cookies = kept;
    let page = come_back(&mut thief, &query, vouched(&nonce, "ann@x.test", "us", 60));
    assert_eq!((page.status, page.body.contains("used already")), (403, true), "{}", page.body);
    assert_eq!(thief.get("/dashboard").status, 303);
}

#[test]
fn what_is_not_of_this_sign_in_opens_nothing() {
    let (shell, token) = Shell::with_workspace();
    members(&shell, &token, &json!({ "ann@x.test": "finance" }));
    let come = |change: &Change| {
        let mut browser = Browser::new(&shell);
        let page = begin(&mut browser, "ws_acme", found());
        let (state, nonce) = (parameter(&page, "state"), parameter(&page, "nonce"));
        let (query, oidc) = change(&state, &nonce);
        let page = come_back(&mut browser, &query, oidc);
        // Whatever came of it, the sign-in is over.
        assert!(
            page.status == 429 || page.header("set-cookie").starts_with("tg_oidc=;"),
            "{query}"
        );
        assert_eq!(browser.get("/dashboard").status, 303, "{query}");
        page.status
    };
    fn good(nonce: &str) -> Option<FromProvider> {
        vouched(nonce, "ann@x.test", "us", 60)
    }
    assert_eq!(come(&|_, nonce| ("code=c&state=AAAA".to_owned(), good(nonce))), 401);
    assert_eq!(come(&|state, _| (format!("code=c&state={state}"), good("other"))), 401);
    assert_eq!(
        come(&|state, nonce| (
            format!("code=c&state={state}&iss=https%3A%2F%2Fevil.test"),
            good(nonce)
        )),
        401
    );
    assert_eq!(
        come(&|state, nonce| (format!("error=access_denied&state={state}"), good(nonce))),
        401
    );
    fn late(nonce: &str) -> Option<FromProvider> {
        vouched(nonce, "ann@x.test", "us", -120)
    }
    assert_eq!(come(&|state, nonce| (format!("code=c&state={state}"), late(nonce))), 401);
    fn theirs(nonce: &str) -> Option<FromProvider> {
        vouched(nonce, "ann@x.test", "them", 60)
    }
    assert_eq!(come(&|state, nonce| (format!("code=c&state={state}"), theirs(nonce))), 401);
    fn eve(nonce: &str) -> Option<FromProvider> {
        vouched(nonce, "eve@x.test", "us", 60)
    }
    assert_eq!(come(&|state, nonce| (format!("code=c&state={state}"), eve(nonce))), 403);
    fn down() -> Option<FromProvider> {
        Some(FromProvider::Failed { why: "it does not answer".to_owned() })
    }
    assert_eq!(come(&|state, _| (format!("code=c&state={state}"), down())), 503);
    // Without the cookie of a sign-in there is none; nor once it has taken too long.
    let mut browser = Browser::new(&shell);
    let page = begin(&mut browser, "ws_acme", found());
    let (state, nonce) = (parameter(&page, "state"), parameter(&page, "nonce"));
    let mut other = Browser::new(&shell);
    assert_eq!(come_back(&mut other, &format!("code=c&state={state}"), good(&nonce)).status, 401);
    shell.now.set(NOW_MS + 10 * 60_000);
    assert_eq!(come_back(&mut browser, &format!("code=c&state={state}"), good(&nonce)).status, 401);
}

#[test]
fn a_sign_in_begins_on_our_page_for_a_workspace_with_a_provider_that_answers() {
    let (shell, _) = Shell::with_workspace();
    let mut browser = Browser::new(&shell);
    assert_eq!(begin(&mut browser, "acme", found()).status, 422);
    let down = Some(FromProvider::Failed { why: "it does not answer".to_owned() });
    let page = begin(&mut browser, "ws_acme", down);
    assert_eq!((page.status, page.body.contains("it does not answer")), (503, true));
    assert_eq!(begin(&mut browser, "ws_acme", None).status, 503);
    let forged = Request {
        origin: Some("https://evil.test".to_owned()),
        oidc: found(),
        random: Some(BYTES.to_owned()),
        body: "workspace=ws_acme".to_owned(),
        ..browser.request("POST", "/dashboard/sign-in/oidc")
    };
    assert_eq!(browser.send(&forged).status, 403);
}
