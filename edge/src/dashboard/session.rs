//! The session cookie and the tokens in forms. Both are signed with keys that come from the key ring, each for its use.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::Timestamp;

use super::web::Answer;
use crate::admin::roles::Role;
use crate::vault::KeyRing;

/// How long a session lasts: a working day.
pub const SESSION_MS: i64 = 12 * 3_600_000;
/// The cookie's name.
pub const COOKIE: &str = "tg_session";

const COOKIE_USE: &str = "tallygate dashboard session v1";
const FORM_USE: &str = "tallygate dashboard form v1";

/// A session's id: 128 random bits. It is no secret, the cookie's signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(String);

impl SessionId {
    /// An id from random bytes.
    pub fn new(random: &[u8; 16]) -> Self {
        Self(format!("ses_{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the cookie says. The workspace has the last word on it: a session that was revoked is not in its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The session's id.
    pub id: String,
    /// Who signed in, as the audit log names them.
    pub who: String,
    /// Their role, for what a page offers. What it may do, the workspace says; so a page asks it for the role of now.
    pub role: Role,
    /// Whose rows they see, for what a page says. `None`: everybody's.
    #[serde(default)]
    pub owner: Option<String>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: i64,
}

impl Session {
    /// The cookie's value. `None` without a key ring: nothing can be signed then.
    pub fn sign(&self, ring: &KeyRing) -> Option<String> {
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).ok()?);
        let keys = ring.derived(COOKIE_USE);
        let signature = sign(keys.first()?, &claims)?;
        Some(format!("{claims}.{signature}"))
    }

    /// The session of a cookie, unless the cookie is forged or has expired.
    pub fn open(cookie: &str, ring: &KeyRing, now: Timestamp) -> Option<Self> {
        let (claims, signature) = cookie.split_once('.')?;
        // A ring that turns still knows the cookies that its former keys signed.
        let known = ring.derived(COOKIE_USE).iter().any(|key| is_signed(key, claims, signature));
        let session: Self =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok().filter(|_| known)?).ok()?;
        (session.expires_ms > now.ms()).then_some(session)
    }

    /// The session with the role and the owner that the workspace says now. An answer that says neither changes nothing.
    pub(super) fn as_of(&self, caller: &Answer) -> Self {
        #[derive(Deserialize)]
        struct Caller {
            role: Role,
            owner: Option<String>,
        }
        match caller.value().and_then(|value| serde_json::from_value(value).ok()) {
            Some(Caller { role, owner }) => Self { role, owner, ..self.clone() },
            None => self.clone(),
        }
    }

    /// The token that every form of this session carries.
    pub fn form_token(&self, ring: &KeyRing) -> Option<String> {
        sign(ring.derived(FORM_USE).first()?, &self.bound())
    }

    /// Whether a form was made for this session.
    pub fn owns_form(&self, token: &str, ring: &KeyRing) -> bool {
        ring.derived(FORM_USE).iter().any(|key| is_signed(key, &self.bound(), token))
    }

    /// The session in the form's signature: ids are unique within a workspace.
    fn bound(&self) -> String {
        format!("{}/{}", self.workspace, self.id)
    }
}

fn mac(key: &[u8], text: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(text.as_bytes());
    Some(mac)
}

fn sign(key: &[u8], text: &str) -> Option<String> {
    Some(URL_SAFE_NO_PAD.encode(mac(key, text)?.finalize().into_bytes()))
}

/// In constant time.
fn is_signed(key: &[u8], text: &str, signature: &str) -> bool {
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    mac(key, text).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::test_shell::ring_of;

    fn session() -> Session {
        Session {
            workspace: WorkspaceId::parse("ws_acme").unwrap(),
            id: "ses_1".to_owned(),
            who: "token:t1".to_owned(),
            role: Role::Finance,
            owner: None,
            expires_ms: 1_000,
        }
    }

    #[test]
    fn a_cookie_opens_until_it_expires_also_when_the_ring_has_turned() {
        let cookie = session().sign(&ring_of(&[("k1", 1)])).unwrap();
        let turned = ring_of(&[("k2", 2), ("k1", 1)]);
        let at = Timestamp::from_ms;
        assert_eq!(Session::open(&cookie, &turned, at(999)), Some(session()));
        assert_eq!(Session::open(&cookie, &turned, at(1_000)), None);
        assert_eq!(Session::open(&cookie, &ring_of(&[("k2", 2)]), at(0)), None);
    }

    #[test]
    fn a_forged_cookie_does_not_open() {
        let ring = ring_of(&[("k1", 1)]);
        let cookie = session().sign(&ring).unwrap();
        let (claims, signature) = cookie.split_once('.').unwrap();
        let admin = Session { role: Role::Admin, ..session() };
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&admin).unwrap());
        let form = session().form_token(&ring).unwrap();
        for bad in [
            format!("{forged}.{signature}"),
            format!("{claims}."),
            format!("{claims}.{form}"),
            claims.to_owned(),
            String::new(),
        ] {
            assert_eq!(Session::open(&bad, &ring, Timestamp::from_ms(0)), None, "{bad}");
        }
    }

    #[test]
    fn a_form_belongs_to_one_session_of_one_workspace() {
        let ring = ring_of(&[("k1", 1)]);
        let token = session().form_token(&ring).unwrap();
        assert!(session().owns_form(&token, &ring));
        let other = Session { id: "ses_2".to_owned(), ..session() };
        let elsewhere = Session { workspace: WorkspaceId::parse("ws_other").unwrap(), ..session() };
        assert!(!other.owns_form(&token, &ring));
        assert!(!elsewhere.owns_form(&token, &ring));
        assert!(!session().owns_form("", &ring));
    }
}
