//! The envelope of actor tokens: a JWS in compact form, signed with HMAC-SHA-256 and nothing else (RFC 7515, RFC 8725).
//!
//! Architecture invariant: the payload is not even decoded before a signature over it has been found good.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::actor::ActorError;
use crate::time::Timestamp;

/// The longest token that is looked at.
const TOKEN_MAX_BYTES: usize = 8 * 1024;
/// RFC 7518, section 3.2: a key of the hash's size or larger must be used. A shorter one is never current.
pub const SECRET_MIN_BYTES: usize = 32;

/// A secret that actor tokens are signed with.
#[derive(Clone)]
pub struct ActorSecret {
    kid: String,
    secret: Vec<u8>,
    not_before: Option<Timestamp>,
    expires_at: Option<Timestamp>,
}

impl ActorSecret {
    /// A secret under its id; it needs at least [`SECRET_MIN_BYTES`] bytes to verify anything.
    pub fn new(
        kid: impl Into<String>,
        secret: impl Into<Vec<u8>>,
        expires_at: Option<Timestamp>,
    ) -> Self {
        Self { kid: kid.into(), secret: secret.into(), not_before: None, expires_at }
    }

    /// The same secret, not used before `at`.
    #[must_use]
    pub fn starting(self, at: Timestamp) -> Self {
        Self { not_before: Some(at), ..self }
    }

    fn is_current(&self, now: Timestamp) -> bool {
        self.secret.len() >= SECRET_MIN_BYTES
            && self.not_before.is_none_or(|from| from <= now)
            && self.expires_at.is_none_or(|until| now < until)
    }
}

/// Never the secret.
impl fmt::Debug for ActorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActorSecret({:?}, ***)", self.kid)
    }
}

/// The claims of a token whose signature is good.
pub(super) fn open(
    token: &str,
    secrets: &[ActorSecret],
    now: Timestamp,
) -> Result<Object, ActorError> {
    let malformed = |problem| ActorError::Malformed { problem };
    if token.is_empty() {
        return Err(ActorError::Missing);
    }
    if token.len() > TOKEN_MAX_BYTES {
        return Err(malformed("it is longer than 8 KB"));
    }
    let (signed, signature) = token.rsplit_once('.').ok_or_else(|| malformed("it has no dots"))?;
    let (header, payload) = match signed.split_once('.') {
        Some((header, payload)) if !payload.contains('.') => (header, payload),
        _ => return Err(malformed("it has not exactly three parts")),
    };
    let kid = read_header(header)?;

    let known = |secret: &&ActorSecret| kid.as_ref().is_none_or(|kid| *kid == secret.kid);
    let current = secrets.iter().filter(|s| s.is_current(now)).filter(known);
    let mut current = current.peekable();
    if current.peek().is_none() {
        return Err(ActorError::KidUnknown);
    }
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| malformed("its signature is not base64url without padding"))?;
    let good = |secret: &ActorSecret| {
        // `verify_slice` compares in constant time.
        hmac(&secret.secret, signed).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
    };
    if !current.any(good) {
        return Err(ActorError::SignatureInvalid);
    }

    // After this point the token's author is someone who holds the secret.
    object(payload).ok_or_else(|| malformed("its payload is not a JSON object without repetitions"))
}

/// A token with these texts as header and payload.
pub(super) fn seal(header: &str, payload: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    // HMAC takes a key of any length, so there is always a signature.
    let mac = hmac(secret, &signed).map(|mac| mac.finalize().into_bytes()).unwrap_or_default();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn hmac(secret: &[u8], signed: &str) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(signed.as_bytes());
    Some(mac)
}

/// The header's `kid`. The algorithm is ours to choose, not the token's: the header can only agree.
fn read_header(header: &str) -> Result<Option<String>, ActorError> {
    let malformed = |problem| ActorError::Malformed { problem };
    let header = object(header)
        .ok_or_else(|| malformed("its header is not a JSON object without repetitions"))?;
    if header.text("alg").flatten().as_deref() != Some("HS256") {
        return Err(ActorError::AlgorithmRefused);
    }
    if header.raw("crit").is_some() {
        return Err(malformed("its header demands extensions (crit), and there are none here"));
    }
    match header.text("kid") {
        None => Ok(None),
        Some(Some(kid)) => Ok(Some(kid)),
        Some(None) => Err(malformed("its header's kid is not a string")),
    }
}

fn object(part: &str) -> Option<Object> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A JSON object with each name once. Values stay text: a number is read exactly, by whoever knows its unit.
pub(super) struct Object(BTreeMap<String, Box<RawValue>>);

impl Object {
    /// The JSON text of a member.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.get())
    }

    /// A member as a string: `None` when it is absent, `Some(None)` when it is something else.
    pub(super) fn text(&self, name: &str) -> Option<Option<String>> {
        self.raw(name).map(|raw| serde_json::from_str(raw).ok())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Object, M::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    // Two readers that pick different ones of two values would believe different things.
                    if members.insert(name, value).is_some() {
                        return Err(M::Error::custom("a member is repeated"));
                    }
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn check(header: &str, expected: Result<(), ActorError>) {
        let secrets = [ActorSecret::new("k1", SECRET, None)];
        let opened = open(&seal(header, "{}", SECRET), &secrets, NOW);
        assert_eq!(opened.map(|_| ()), expected, "{header}");
    }

    #[test]
    fn only_hs256_is_an_algorithm() {
        check(r#"{"alg":"HS256"}"#, Ok(()));
        check("{\r\n \"typ\": \"JWT\",\t\"alg\": \"HS256\"}", Ok(()));
        for alg in ["none", "None", "hs256", "HS384", "RS256", "ES256", "", " HS256", "HS256 "] {
            check(&format!(r#"{{"alg":"{alg}"}}"#), Err(ActorError::AlgorithmRefused));
        }
        for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"ALG":"HS256"}"#] {
            check(header, Err(ActorError::AlgorithmRefused));
        }
    }

    #[test]
    fn a_header_with_demands_or_repetitions_is_refused() {
        for header in [
            r#"{"alg":"HS256","crit":["exp"]}"#,
            r#"{"alg":"HS256","crit":null}"#,
            r#"{"alg":"none","alg":"HS256"}"#,
            r#"{"alg":"HS256","\u0061lg":"HS256"}"#,
            r#"{"alg":"HS256","kid":1}"#,
            r#"["HS256"]"#,
            r#"{"alg":"HS256"} {}"#,
            "",
        ] {
            let opened = open(&seal(header, "{}", SECRET), &[], NOW).map(|_| ());
            assert!(matches!(opened, Err(ActorError::Malformed { .. })), "{header} {opened:?}");
        }
    }

    #[test]
    fn the_kid_selects_among_the_current_secrets() {
        check(r#"{"alg":"HS256","kid":"k1"}"#, Ok(()));
        check(r#"{"alg":"HS256","kid":"k2"}"#, Err(ActorError::KidUnknown));
        let opened = |secrets: &[ActorSecret]| {
            open(&seal(r#"{"alg":"HS256"}"#, "{}", SECRET), secrets, NOW).map(|_| ())
        };
        let other = ActorSecret::new("k0", [1; 32], None);
        let good = ActorSecret::new("k1", SECRET, Some(NOW.plus_ms(1)));
        assert_eq!(opened(&[other.clone(), good.clone()]), Ok(()));
        assert_eq!(opened(&[other]), Err(ActorError::SignatureInvalid));
        assert_eq!(opened(&[]), Err(ActorError::KidUnknown));
        assert_eq!(opened(&[good.clone().starting(NOW)]), Ok(()));
        assert_eq!(opened(&[good.starting(NOW.plus_ms(1))]), Err(ActorError::KidUnknown));
        let expired = ActorSecret::new("k1", SECRET, Some(NOW));
        assert_eq!(opened(&[expired]), Err(ActorError::KidUnknown));
    }

    #[test]
    fn a_short_secret_verifies_nothing() {
        for length in [0, 1, 31] {
            let token = seal(r#"{"alg":"HS256"}"#, "{}", &SECRET[..length]);
            let secrets = [ActorSecret::new("k1", &SECRET[..length], None)];
            assert_eq!(open(&token, &secrets, NOW).err(), Some(ActorError::KidUnknown));
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", ActorSecret::new("k1", SECRET, None));
        assert_eq!(shown, r#"ActorSecret("k1", ***)"#);
    }
}
