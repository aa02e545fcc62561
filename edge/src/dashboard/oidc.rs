//! Signing in through an OpenID provider: the authorization code flow with PKCE. The shell asks the provider and checks
//! signatures; what is sent there, and what of an answer is believed, is decided here.
//!
//! What one sign-in must remember between its two requests travels in a cookie that only we can open. The workspace
//! remembers that it was used, so that neither a copied address nor a copied cookie opens a second session.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::Timestamp;

use super::sign_in::{opened, sign_in_page};
use super::web::{Answer, FromProvider, Request, Step};
use super::{Around, cookie, encoded, guarded, own_path};
use crate::admin::call;
use crate::vault::KeyRing;

/// Where the sign-in begins, and where the provider sends people back to.
pub(super) const START: &str = "/dashboard/sign-in/oidc";
pub(super) const CALLBACK: &str = "/dashboard/sign-in/callback";
const FLIGHT_COOKIE: &str = "tg_oidc";
const FLIGHT_USE: &str = "tallygate dashboard oidc v1";
/// How long somebody may take at the provider. The workspace remembers used sign-ins for as long.
const FLIGHT_MS: i64 = 10 * 60_000;
/// Clocks differ by that much.
const LEEWAY_S: i64 = 60;

/// Which provider's tokens are for us.
#[derive(Clone, Debug, Default)]
pub struct OidcSettings {
    /// The issuer, such as `https://login.example.com`.
    pub issuer: String,
    /// What the provider calls us.
    pub client_id: String,
}

impl OidcSettings {
    /// What the provider is called on the page: its host. `None`: no provider is set.
    pub(super) fn name(&self) -> Option<&str> {
        let (_, rest) = self.issuer.split_once("://")?;
        let host = rest.split('/').next().filter(|host| !host.is_empty())?;
        (!self.client_id.is_empty()).then_some(host)
    }
}

/// What a sign-in must remember until it comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flight {
    state: String,
    nonce: String,
    verifier: String,
    workspace: WorkspaceId,
    next: String,
    expires_ms: i64,
}

impl Flight {
    fn sealed(&self, ring: &KeyRing, nonce: [u8; 12]) -> Option<String> {
        ring.seal(&serde_json::to_string(self).ok()?, FLIGHT_USE, nonce).ok()
    }

    fn open(request: &Request, ring: &KeyRing, now: Timestamp) -> Option<Self> {
        let text = ring.open(request.cookie(FLIGHT_COOKIE)?, FLIGHT_USE).ok()?;
        let flight: Self = serde_json::from_str(&text).ok()?;
        (flight.expires_ms > now.ms()).then_some(flight)
    }
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    #[serde(default)]
    azp: Option<String>,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    email_verified: Flag,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Some providers write it as text.
#[derive(Default, Deserialize)]
#[serde(untagged)]
enum Flag {
    #[default]
    Absent,
    Bool(bool),
    Text(String),
}

/// Why a provider's word is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distrust {
    NotForUs,
    NotNow,
    OtherSignIn,
    MailUnverified,
}

impl Distrust {
    const fn text(self) -> &'static str {
        match self {
            Self::NotForUs => "The provider's token is not for this gateway.",
            Self::NotNow => "The provider's token is not valid at this time. Sign in again.",
            Self::OtherSignIn => "The provider's token belongs to another sign-in. Sign in again.",
            Self::MailUnverified => {
                "The provider does not say that your mail address is verified. Verify it there, then sign in again."
            }
        }
    }
}

/// The mail address of a token's claims, in lower case.
fn mail(
    claims: &str,
    settings: &OidcSettings,
    nonce: &str,
    now: Timestamp,
) -> Result<String, Distrust> {
    let claims: Claims = serde_json::from_str(claims).map_err(|_| Distrust::NotForUs)?;
    let client = settings.client_id.as_str();
    let meant = match &claims.aud {
        Audience::One(audience) => audience == client,
        // A token for several must say that we asked for it.
        Audience::Many(all) => {
            let asked = all.len() == 1 || claims.azp.as_deref() == Some(client);
            asked && all.iter().any(|audience| audience == client)
        }
    };
    let asked = claims.azp.as_deref().is_none_or(|party| party == client);
    if claims.iss != settings.issuer || !meant || !asked {
        return Err(Distrust::NotForUs);
    }
    let seconds = now.seconds();
    if claims.exp <= seconds - LEEWAY_S || claims.nbf > seconds + LEEWAY_S {
        return Err(Distrust::NotNow);
    }
    if nonce.is_empty() || claims.nonce != nonce {
        return Err(Distrust::OtherSignIn);
    }
    let verified = match claims.email_verified {
        Flag::Bool(flag) => flag,
        Flag::Text(text) => text == "true",
        Flag::Absent => false,
    };
    let mail = claims.email.to_ascii_lowercase();
    if verified && !mail.is_empty() { Ok(mail) } else { Err(Distrust::MailUnverified) }
}

fn redirect_uri(request: &Request) -> String {
    format!("{}{CALLBACK}", request.own_origin())
}

fn down(why: &str) -> String {
    format!("The provider cannot be asked now ({why}). Try again, or sign in with a token.")
}

/// Sends somebody to the provider.
pub(super) fn start(request: &Request, around: &Around<'_>) -> Step {
    let form = request.form();
    let next = form.text("next");
    let page = |status: u16, text: &str| sign_in_page(request, around, status, next, text);
    if !request.is_from_own_page() || around.oidc.name().is_none() {
        return page(403, "Sign in from this page.");
    }
    let Ok(workspace) = WorkspaceId::parse(form.text("workspace")) else {
        return page(422, "This is not the id of a workspace: one looks like ws_acme.");
    };
    let endpoint = match &request.oidc {
        Some(FromProvider::Discovered { authorization_endpoint }) => authorization_endpoint,
        Some(FromProvider::Failed { why }) => return page(503, &down(why)),
        Some(FromProvider::Vouched { .. }) | None => return page(503, &down("no answer")),
    };
    let random = URL_SAFE_NO_PAD.decode(request.random.as_deref().unwrap_or_default());
    let random = random.unwrap_or_default();
    let (Some(state), Some(nonce), Some(verifier), Some(seal)) =
        (random.get(..16), random.get(16..32), random.get(32..64), random.get(64..76))
    else {
        return page(503, &down("no randomness"));
    };
    let flight = Flight {
        state: URL_SAFE_NO_PAD.encode(state),
        nonce: URL_SAFE_NO_PAD.encode(nonce),
        verifier: URL_SAFE_NO_PAD.encode(verifier),
        workspace,
        next: own_path(next),
        expires_ms: around.now.plus_ms(FLIGHT_MS).ms(),
    };
    let seal = seal.try_into().ok().and_then(|seal| flight.sealed(around.ring, seal));
    let Some(sealed) = seal else {
        return page(503, "The sign-in cannot be sealed: set the secret TALLYGATE_KEY_RING.");
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(flight.verifier.as_bytes()));
    let parameters = [
        ("response_type", "code"),
        ("client_id", &around.oidc.client_id),
        ("redirect_uri", &redirect_uri(request)),
        ("scope", "openid email"),
        ("state", &flight.state),
        ("nonce", &flight.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let pairs = parameters.map(|(name, value)| format!("{name}={}", encoded(value)));
    let joint = if endpoint.contains('?') { "&" } else { "?" };
    let url = format!("{endpoint}{joint}{}", pairs.join("&"));
    // No redirect: a browser holds those of a form against the page's policy, which names nobody else.
    let mut headers = guarded("text/html; charset=utf-8");
    headers.push(("content-security-policy", super::POLICY.to_owned()));
    headers.push(("refresh", format!("0;url={url}")));
    headers.push(("set-cookie", cookie(request, FLIGHT_COOKIE, &sealed, FLIGHT_MS / 1_000)));
    super::going(request, 200, headers, &url)
}

/// Takes somebody back from the provider.
pub(super) fn callback(request: &Request, rounds: &[Vec<Answer>], around: &mut Around<'_>) -> Step {
    let query = request.query();
    let address = request.address.as_deref().unwrap_or("unknown");
    if !around.failures.may_try(address, around.now) {
        let text = "Too many tries. Wait five minutes, then try again.";
        return sign_in_page(request, around, 429, "", text);
    }
    let flight = Flight::open(request, around.ring, around.now);
    let flight = flight.filter(|flight| query.get("state") == Some(flight.state.as_str()));
    let issuer = query.get("iss").is_none_or(|issuer| issuer == around.oidc.issuer);
    let Some(flight) = flight.filter(|_| issuer && around.oidc.name().is_some()) else {
        let text =
            "This sign-in was not begun here, or it took longer than ten minutes. Sign in again.";
        return refused(request, around, "", text);
    };
    let next = flight.next.clone();
    let Some(code) = query.get("code") else {
        let text = "The provider did not let you in. Sign in again, or use a token.";
        return refused(request, around, &next, text);
    };
    let claims = match &request.oidc {
        None => {
            let redirect_uri = redirect_uri(request);
            let (code, verifier) = (code.to_owned(), flight.verifier);
            return Step::Exchange { code, verifier, redirect_uri };
        }
        Some(FromProvider::Vouched { claims }) => claims,
        Some(FromProvider::Failed { why }) => {
            let step = sign_in_page(request, around, 503, &next, &down(why));
            return forgetting(request, step);
        }
        Some(FromProvider::Discovered { .. }) => {
            return refused(request, around, &next, &down("no answer"));
        }
    };
    let mail = match mail(claims, around.oidc, &flight.nonce, around.now) {
        Ok(mail) => mail,
        Err(distrust) => return refused(request, around, &next, distrust.text()),
    };
    let Some(answered) = rounds.first() else {
        let step =
            call::route_person_once(&flight.workspace, &mail, &flight.state, &request.request_id);
        return Step::Calls { steps: vec![step] };
    };
    let step = opened(request, answered.first(), Some(&flight.workspace), &next, around);
    forgetting(request, step)
}

fn refused(request: &Request, around: &mut Around<'_>, next: &str, text: &str) -> Step {
    around.failures.note(request.address.as_deref().unwrap_or("unknown"), around.now);
    let step = sign_in_page(request, around, 401, next, text);
    forgetting(request, step)
}

/// The sign-in is over, whatever came of it.
fn forgetting(request: &Request, mut step: Step) -> Step {
    if let Step::Respond { headers, .. } = &mut step {
        headers.push(("set-cookie", cookie(request, FLIGHT_COOKIE, "", 0)));
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn only_a_token_for_us_of_this_sign_in_and_with_a_verified_address_counts() {
        let settings =
            OidcSettings { issuer: "https://id.test".to_owned(), client_id: "us".to_owned() };
        let good = json!({ "iss": "https://id.test", "aud": "us", "exp": 1_000, "nonce": "n", "sub": "1",
                           "email": "Ann@x.test", "email_verified": true });
        let judge = |claims: &Value, second: i64| {
            mail(&claims.to_string(), &settings, "n", Timestamp::from_ms(second * 1_000))
        };
        assert_eq!(judge(&good, 950).as_deref(), Ok("ann@x.test"));
        assert_eq!(judge(&good, 1_059).as_deref(), Ok("ann@x.test"));
        assert_eq!(judge(&good, 1_060), Err(Distrust::NotNow));
        for (changed, expected) in [
            (json!({ "iss": "https://evil.test" }), Distrust::NotForUs),
            (json!({ "iss": "https://id.test/" }), Distrust::NotForUs),
            (json!({ "aud": "them" }), Distrust::NotForUs),
            (json!({ "aud": ["us", "them"] }), Distrust::NotForUs),
            (json!({ "aud": ["us"], "azp": "them" }), Distrust::NotForUs),
            (json!({ "exp": null }), Distrust::NotForUs),
            (json!({ "nbf": 1_100 }), Distrust::NotNow),
            (json!({ "nonce": "other" }), Distrust::OtherSignIn),
            (json!({ "nonce": "" }), Distrust::OtherSignIn),
            (json!({ "email_verified": false }), Distrust::MailUnverified),
            (json!({ "email_verified": null }), Distrust::MailUnverified),
            (json!({ "email_verified": "yes" }), Distrust::MailUnverified),
            (json!({ "email": "" }), Distrust::MailUnverified),
        ] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
            assert_eq!(judge(&bad, 950), Err(expected), "{changed}");
        }
        for fine in [
            json!({ "aud": ["us"] }),
            json!({ "aud": ["us", "them"], "azp": "us" }),
            json!({ "email_verified": "true" }),
        ] {
            let mut token = good.clone();
            token.as_object_mut().unwrap().extend(fine.as_object().unwrap().clone());
            assert!(judge(&token, 950).is_ok(), "{fine}");
        }
        let now = Timestamp::from_ms(950_000);
        assert_eq!(mail(&good.to_string(), &settings, "", now), Err(Distrust::OtherSignIn));
        assert_eq!(mail("nonsense", &settings, "n", now), Err(Distrust::NotForUs));
    }

    #[test]
    fn a_provider_needs_an_address_and_a_name_for_us() {
        let name = |issuer: &str, client_id: &str| {
            let settings =
                OidcSettings { issuer: issuer.to_owned(), client_id: client_id.to_owned() };
            settings.name().map(str::to_owned)
        };
        assert_eq!(name("https://id.test/realms/a", "us").as_deref(), Some("id.test"));
        assert_eq!(name("https://id.test", ""), None);
        assert_eq!(name("", "us"), None);
    }
}
