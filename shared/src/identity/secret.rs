//! What gateway keys and API tokens have in common: a random secret, its checksum, and the hash that is stored.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Random bytes that a secret is made of. 70 bits more than its 42 characters hold, so their bias is below 2^-70.
pub const SECRET_RANDOM_LEN: usize = 40;
/// Random characters of a secret: 250 bits.
const RANDOM_CHARS: usize = 42;
/// Characters of the checksum behind them: 62^6 is more than 2^32.
const CHECKSUM_CHARS: usize = 6;
const SECRET_CHARS: usize = RANDOM_CHARS + CHECKSUM_CHARS;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Why a text is no gateway key or API token. The text is never repeated: it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Another kind of credential, for example a provider's key.
    #[error("is not a gateway key: it does not begin with tg_")]
    NotAGatewayKey,
    /// Another kind of credential, for example a gateway key.
    #[error("is not an API token: it does not begin with tga_")]
    NotAnApiToken,
    /// The prefix is right and the form is not.
    #[error("is malformed: {problem}")]
    Malformed {
        /// What is wrong with the form.
        problem: &'static str,
    },
    /// The form is right and the checksum is not.
    #[error("is mistyped or was cut off when it was copied: its checksum does not fit")]
    ChecksumMismatch,
}

impl KeyError {
    /// The stable name of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAGatewayKey => "key_not_a_gateway_key",
            Self::NotAnApiToken => "token_not_an_api_token",
            Self::Malformed { .. } => "key_malformed",
            Self::ChecksumMismatch => "key_checksum_mismatch",
        }
    }
}

/// `head`, a random secret, and the checksum of both.
pub(super) fn mint_behind(head: &str, random: &[u8; SECRET_RANDOM_LEN]) -> String {
    let mut text = String::with_capacity(head.len() + SECRET_CHARS);
    text.push_str(head);
    push_base62(&mut text, &mut random.clone(), RANDOM_CHARS);
    let checksum = checksum(&text);
    text.push_str(&checksum);
    text
}

/// Checks the secret that stands behind the last `_` of `text`, and the checksum over all before it.
pub(super) fn check_secret(text: &str, secret: &str) -> Result<(), KeyError> {
    if !secret.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(KeyError::Malformed {
            problem: "the secret has a character that no secret has",
        });
    }
    // A wrong length is what a cut or doubled paste looks like; the checksum would not fit either.
    let split = text.len().checked_sub(CHECKSUM_CHARS).and_then(|at| text.split_at_checked(at));
    match split {
        Some((head, stated)) if secret.len() == SECRET_CHARS && checksum(head) == stated => Ok(()),
        _ => Err(KeyError::ChecksumMismatch),
    }
}

fn checksum(text: &str) -> String {
    let mut digits = String::with_capacity(CHECKSUM_CHARS);
    let mut number = crc32fast::hash(text.as_bytes()).to_be_bytes();
    push_base62(&mut digits, &mut number, CHECKSUM_CHARS);
    digits
}

/// Appends the lowest `count` base-62 digits of a big-endian number, lowest first, dividing it away.
fn push_base62(out: &mut String, number: &mut [u8], count: usize) {
    for _ in 0..count {
        let rest = number.iter_mut().fold(0_u16, |rest, byte| {
            let value = rest << 8 | u16::from(*byte);
            *byte = (value / 62) as u8;
            value % 62
        });
        out.extend(BASE62.get(usize::from(rest)).map(|digit| char::from(*digit)));
    }
}

/// What is stored in place of a secret: SHA-256 of the whole key or token, in hex.
///
/// A slow password hash would add nothing: a secret has 250 random bits, so there is no dictionary to try.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretHash(String);

/// A text is no SHA-256 in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a secret's hash: expected 64 characters of 0-9 and a-f")]
pub struct SecretHashError;

impl SecretHash {
    pub(super) fn of(text: &str) -> Self {
        use fmt::Write;
        let mut hex = String::with_capacity(64);
        for byte in Sha256::digest(text.as_bytes()) {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Self(hex)
    }

    /// True when `credential` is what this hash was made of. Takes the same time wherever the two differ.
    pub fn matches<C: Credential>(&self, credential: &C) -> bool {
        self.0.as_bytes().ct_eq(credential.secret_hash().0.as_bytes()).into()
    }

    /// Takes 64 characters of lower-case hex.
    pub fn parse(text: &str) -> Result<Self, SecretHashError> {
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (hex && text.len() == 64).then(|| Self(text.to_owned())).ok_or(SecretHashError)
    }

    /// The hash in hex.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something with a secret that is stored as a [`SecretHash`].
pub trait Credential {
    /// The hash to store or to compare with.
    fn secret_hash(&self) -> SecretHash;
}

impl TryFrom<String> for SecretHash {
    type Error = SecretHashError;

    fn try_from(text: String) -> Result<Self, SecretHashError> {
        Self::parse(&text)
    }
}

impl From<SecretHash> for String {
    fn from(hash: SecretHash) -> Self {
        hash.0
    }
}

/// The first characters: enough to tell two hashes apart in a log.
impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretHash({:.8}…)", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_the_alphabet_is_used_and_about_equally_often() {
        let mut seen = [0_u32; 128];
        for n in 0..2_000_u32 {
            // Any spread of bytes will do: here a hash of the counter.
            let mut random = [0; SECRET_RANDOM_LEN];
            let hash = Sha256::digest(n.to_be_bytes());
            random[..32].copy_from_slice(&hash);
            random[32..].copy_from_slice(&Sha256::digest(hash)[..8]);
            let text = mint_behind("", &random);
            for byte in text[..RANDOM_CHARS].bytes() {
                seen[usize::from(byte)] += 1;
            }
        }
        // 84,000 characters over 62 values: 1,354 each, with a deviation of about 37.
        for digit in BASE62 {
            assert!((1_100..1_600).contains(&seen[usize::from(*digit)]), "{}", *digit as char);
        }
    }

    #[test]
    fn a_hash_is_sha_256_in_hex() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(SecretHash::of("abc").as_str(), abc);
        assert_eq!(SecretHash::parse(abc), Ok(SecretHash::of("abc")));
        for bad in ["", &abc[1..], &abc.to_uppercase()] {
            assert_eq!(SecretHash::parse(bad), Err(SecretHashError), "{bad}");
        }
    }
}
