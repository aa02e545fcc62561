//! Names of things: one newtype for each, so that one can never be passed for another.
//!
//! `parse` (and `mint` from given bytes) is the only door: a value that exists is well formed, also after deserializing.

use serde::{Deserialize, Serialize};
use std::fmt;

use crate::time::Timestamp;

/// Crockford's base 32 in lower case: no `i`, `l`, `o`, `u`, so an id can be read out aloud.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// The length of a minted public id: 16 characters of 5 bits.
const PUBLIC_ID_LEN: usize = 16;
/// The longest workspace name behind `ws_`.
const WORKSPACE_NAME_MAX: usize = 40;

/// Why a text is no id. The text is not repeated: it comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a {kind}: expected {expected}")]
pub struct IdError {
    /// What the text was to name.
    pub kind: &'static str,
    /// The form such an id has.
    pub expected: &'static str,
}

/// The plumbing every id shares. The rule of its form stays with the type, in `is_valid`.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Takes a text of exactly the form of this id.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                if Self::is_valid(&text) {
                    Ok(Self(text))
                } else {
                    Err(IdError { kind: $kind, expected: $expected })
                }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A tenant: `ws_` and a name of `a-z`, `0-9` and `-`, chosen by the operator or minted.
    WorkspaceId, "workspace id", "`ws_` and 1 to 40 characters of a-z, 0-9 and -"
}

text_id! {
    /// The public id of a gateway key: 16 characters of base 32. It may be logged.
    KeyId, "key id", "16 characters of 0-9 and a-z without i, l, o, u"
}

text_id! {
    /// The public id of an API token: 16 characters of base 32. It may be logged.
    TokenId, "token id", "16 characters of 0-9 and a-z without i, l, o, u"
}

text_id! {
    /// One request: `req_` and a version 7 UUID without hyphens, so that ids sort by time.
    RequestId, "request id", "`req_` and 32 characters of 0-9 and a-f"
}

impl WorkspaceId {
    /// A new name from 80 random bits.
    pub fn mint(random: &[u8; 10]) -> Self {
        Self(format!("ws_{}", base32(random)))
    }

    /// The name without `ws_`.
    pub fn name(&self) -> &str {
        self.0.strip_prefix("ws_").unwrap_or(&self.0)
    }

    fn is_valid(text: &str) -> bool {
        text.strip_prefix("ws_").is_some_and(|name| {
            (1..=WORKSPACE_NAME_MAX).contains(&name.len())
                && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        })
    }
}

impl KeyId {
    /// A new public id from 80 random bits.
    pub fn mint(random: &[u8; 10]) -> Self {
        Self(base32(random))
    }

    fn is_valid(text: &str) -> bool {
        is_public_id(text)
    }
}

impl TokenId {
    /// A new public id from 80 random bits.
    pub fn mint(random: &[u8; 10]) -> Self {
        Self(base32(random))
    }

    fn is_valid(text: &str) -> bool {
        is_public_id(text)
    }
}

impl RequestId {
    /// A new id: 48 bits of milliseconds, then 74 random bits, laid out as RFC 9562 lays out a version 7 UUID.
    pub fn mint(at: Timestamp, random: &[u8; 10]) -> Self {
        let ms = u128::from(u64::try_from(at.ms()).unwrap_or(0) & 0xffff_ffff_ffff);
        let random = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        // 12 random bits above, 62 below: the six bits in between say "version 7" and "RFC variant".
        let (high, low) = (random >> 62 & 0xfff, random & 0x3fff_ffff_ffff_ffff);
        let uuid = ms << 80 | 7 << 76 | high << 64 | 0b10 << 62 | low;
        Self(format!("req_{uuid:032x}"))
    }

    /// When it was minted: the 48 bits it begins with.
    pub fn minted_at(&self) -> Timestamp {
        let digits = self.0.strip_prefix("req_").and_then(|hex| hex.get(..12)).unwrap_or_default();
        Timestamp::from_ms(i64::from_str_radix(digits, 16).unwrap_or_default())
    }

    fn is_valid(text: &str) -> bool {
        text.strip_prefix("req_").is_some_and(|hex| {
            hex.len() == 32 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    }
}

fn is_public_id(text: &str) -> bool {
    text.len() == PUBLIC_ID_LEN && text.bytes().all(|b| BASE32.contains(&b))
}

/// 80 bits as 16 characters.
fn base32(random: &[u8; 10]) -> String {
    let bits = random.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    (0..PUBLIC_ID_LEN)
        .rev()
        .filter_map(|place| BASE32.get((bits >> (5 * place) & 31) as usize))
        .map(|digit| char::from(*digit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_workspace_id_has_its_prefix_and_a_plain_name() {
        for good in ["ws_a", "ws_acme-2", "ws_0123456789abcdef"] {
            assert_eq!(WorkspaceId::parse(good).unwrap().as_str(), good);
        }
        let long = format!("ws_{}", "a".repeat(41));
        for bad in ["", "ws_", "acme", "ws_Acme", "ws_a_b", "ws_a b", "ws_ä", &long] {
            assert!(WorkspaceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_id_cannot_be_deserialized() {
        assert!(serde_json::from_str::<KeyId>("\"0123456789abcdef\"").is_ok());
        for bad in ["\"0123456789abcdei\"", "\"0123456789ABCDEF\"", "\"short\"", "7"] {
            assert!(serde_json::from_str::<KeyId>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_request_id_is_a_version_7_uuid() {
        let at = Timestamp::from_ms(0x017f_22e2_79b0);
        let id = RequestId::mint(at, &[0xff; 10]);
        assert_eq!(id.as_str(), "req_017f22e279b07fffbfffffffffffffff");
        let id = RequestId::mint(at, &[0; 10]);
        assert_eq!(id.as_str(), "req_017f22e279b070008000000000000000");
    }

    proptest! {
        #[test]
        fn minted_ids_parse(random in any::<[u8; 10]>(), ms in any::<i64>()) {
            let at = Timestamp::from_ms(ms);
            prop_assert!(WorkspaceId::parse(WorkspaceId::mint(&random).as_str()).is_ok());
            prop_assert!(KeyId::parse(KeyId::mint(&random).as_str()).is_ok());
            prop_assert!(RequestId::parse(RequestId::mint(at, &random).as_str()).is_ok());
        }

        #[test]
        fn a_later_request_sorts_behind(
            ms in 0_i64..1 << 47, later in 1_i64..1_000_000,
            one in any::<[u8; 10]>(), two in any::<[u8; 10]>(),
        ) {
            let first = RequestId::mint(Timestamp::from_ms(ms), &one);
            let second = RequestId::mint(Timestamp::from_ms(ms + later), &two);
            prop_assert!(first < second);
            prop_assert_eq!(first.minted_at(), Timestamp::from_ms(ms));
        }
    }
}
