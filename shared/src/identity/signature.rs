//! Signed calls: how the reconciler shows the edge that it is the reconciler, and that nobody repeats what it said.
//!
//! The signature is HMAC-SHA-256 over a version, the method, path and query, a time, a nonce and the hash of the body, each
//! on a line of its own. Whoever verifies it remembers nonces for as long as a time is believed.

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::time::Timestamp;

/// How far the signer's clock may be off, and so for how long a nonce must be remembered (twice this).
pub const TOLERANCE_MS: i64 = 5 * 60_000;
/// The longest nonce, in bytes.
const MAX_NONCE: usize = 64;

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct SignedCall<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path.
    pub path: &'a str,
    /// The query as it is sent, without `?`.
    pub query: &'a str,
    /// When it was signed, in seconds since 1970.
    pub timestamp: i64,
    /// What makes this call the only one of its kind: 16 to 64 of A-Z, a-z, 0-9, `-` and `_`.
    pub nonce: &'a str,
    /// The SHA-256 of the body in 64 lower-case hexadecimal digits, as [`body_sha256`] makes it: who signs or verifies the
    /// call of a large body need not hold the body.
    pub body_sha256: &'a str,
}

/// The SHA-256 of a body, as a signature covers it.
pub fn body_sha256(body: &[u8]) -> String {
    hex(&Sha256::digest(body))
}

/// Whether this is the SHA-256 of something: 64 lower-case hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Why a signature is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The nonce is no nonce.
    #[error("has a nonce that is not 16 to 64 of A-Z, a-z, 0-9, - and _")]
    Nonce,
    /// The time is too far from now.
    #[error("was signed more than 5 minutes from now: check the clocks")]
    Time,
    /// It is not the signature of this call by this secret.
    #[error("is not this call's signature")]
    Mismatch,
}

impl SignedCall<'_> {
    fn mac(&self, secret: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
        let Self { method, path, query, timestamp, nonce, body_sha256: body } = self;
        mac.update(
            format!("v1\n{method}\n{path}\n{query}\n{timestamp}\n{nonce}\n{body}").as_bytes(),
        );
        Some(mac)
    }

    /// The signature, as the header `x-tallygate-signature` carries it: `v1=` and 64 hexadecimal digits.
    pub fn sign(&self, secret: &[u8]) -> String {
        let signature = self.mac(secret).map(|mac| hex(&mac.finalize().into_bytes()));
        format!("v1={}", signature.unwrap_or_default())
    }

    /// Whether `signature` is this call's. That its nonce is new is for the caller to see.
    pub fn verify(
        &self,
        signature: &str,
        secret: &[u8],
        now: Timestamp,
    ) -> Result<(), SignatureError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if !(16..=MAX_NONCE).contains(&self.nonce.len()) || !self.nonce.bytes().all(plain) {
            return Err(SignatureError::Nonce);
        }
        let off = now.seconds().saturating_sub(self.timestamp).saturating_abs();
        if off > TOLERANCE_MS / 1_000 {
            return Err(SignatureError::Time);
        }
        if !is_sha256(self.body_sha256) {
            return Err(SignatureError::Mismatch);
        }
        let bytes =
            signature.strip_prefix("v1=").and_then(unhex).ok_or(SignatureError::Mismatch)?;
        let mac = self.mac(secret).ok_or(SignatureError::Mismatch)?;
        mac.verify_slice(&bytes).map_err(|_| SignatureError::Mismatch)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks_exact(2);
    if digits.len() != 64 || !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|p| !p.starts_with('+'))?;
            u8::from_str_radix(pair, 16).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALL: SignedCall<'static> = SignedCall {
        method: "POST",
        path: "/api/v1/workspaces/ws_a/reconciler/true-ups",
        query: "day=2026-11-20",
        timestamp: 1_795_000_000,
        nonce: "0123456789abcdef",
        // Of `{}`.
        body_sha256: "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    };

    const EXPECTED: &str = "v1=084072ade95128d7cdd5636165e13868519fa2c127fee660c097a4a00250c273";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_ms(seconds * 1_000)
    }

    #[test]
    fn the_format_is_unchanged() {
        assert_eq!(body_sha256(b"{}"), CALL.body_sha256);
        // Computed by OpenSSL: printf 'v1\nPOST\n...' | openssl dgst -sha256 -hmac secret
        assert_eq!(CALL.sign(b"secret"), EXPECTED);
        assert_eq!(CALL.verify(EXPECTED, b"secret", at(CALL.timestamp)), Ok(()));
    }

    #[test]
    fn every_part_is_signed() {
        let signature = CALL.sign(b"secret");
        let now = at(CALL.timestamp);
        let changed = [
            SignedCall { method: "GET", ..CALL },
            SignedCall { path: "/other", ..CALL },
            SignedCall { query: "", ..CALL },
            SignedCall { timestamp: CALL.timestamp + 1, ..CALL },
            SignedCall { nonce: "0123456789abcdeg", ..CALL },
            SignedCall { body_sha256: &body_sha256(b"{ }"), ..CALL },
            SignedCall { body_sha256: &CALL.body_sha256.to_uppercase(), ..CALL },
            SignedCall { body_sha256: "", ..CALL },
        ];
        for call in changed {
            assert_eq!(call.verify(&signature, b"secret", now), Err(SignatureError::Mismatch));
        }
        assert_eq!(CALL.verify(&signature, b"other", now), Err(SignatureError::Mismatch));
        let (early, late) = (at(CALL.timestamp - 301), at(CALL.timestamp + 301));
        assert_eq!(CALL.verify(&signature, b"secret", early), Err(SignatureError::Time));
        assert_eq!(CALL.verify(&signature, b"secret", late), Err(SignatureError::Time));
        let short = SignedCall { nonce: "short", ..CALL };
        assert_eq!(short.verify(&signature, b"secret", now), Err(SignatureError::Nonce));
    }

    proptest! {
        #[test]
        fn nothing_from_outside_panics(signature in ".{0,80}", nonce in ".{0,80}", time in any::<i64>()) {
            let call = SignedCall { nonce: &nonce, timestamp: time, ..CALL };
            prop_assert!(call.verify(&signature, b"secret", at(1)).is_err());
        }
    }
}
