//! Gateway keys: `tg_<public id>_<secret>`, what an application holds in place of a provider's key.
//!
//! The public id may be logged. The secret is shown once and stored as a hash. The checksum at its end tells a
//! mistyped key from a wrong one without a look-up, and lets a scanner recognise a leaked key.

use std::fmt;

use super::secret::{
    Credential, KeyError, SECRET_RANDOM_LEN, SecretHash, check_secret, mint_behind,
};
use crate::ids::KeyId;

/// Random bytes that a new key is made of.
pub const KEY_RANDOM_LEN: usize = 10 + SECRET_RANDOM_LEN;

/// A well-formed gateway key with a checksum that fits. Whether it was ever issued, only its [`SecretHash`] knows.
#[derive(Clone)]
pub struct GatewayKey {
    id: KeyId,
    text: String,
}

impl GatewayKey {
    /// A new key: the first 10 bytes become its public id, the others its secret.
    pub fn mint(random: &[u8; KEY_RANDOM_LEN]) -> Self {
        let mut id = [0; 10];
        let mut secret = [0; SECRET_RANDOM_LEN];
        for (to, from) in id.iter_mut().chain(secret.iter_mut()).zip(random) {
            *to = *from;
        }
        Self::mint_secret(KeyId::mint(&id), &secret)
    }

    /// A new secret for an existing key: rotation.
    pub fn mint_secret(id: KeyId, random: &[u8; SECRET_RANDOM_LEN]) -> Self {
        let text = mint_behind(&format!("tg_{id}_"), random);
        Self { id, text }
    }

    /// Takes the text of a key. An error never repeats it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix("tg_").ok_or(KeyError::NotAGatewayKey)?;
        let (id, secret) = rest
            .split_once('_')
            .ok_or(KeyError::Malformed { problem: "expected tg_, a public id, _ and a secret" })?;
        let id = KeyId::parse(id)
            .map_err(|_| KeyError::Malformed { problem: "the public id is not 16 characters" })?;
        check_secret(text, secret)?;
        Ok(Self { id, text: text.to_owned() })
    }

    /// The part that may be logged.
    pub fn public_id(&self) -> &KeyId {
        &self.id
    }

    /// The hash to store, or to compare with a stored one.
    pub fn secret_hash(&self) -> SecretHash {
        SecretHash::of(&self.text)
    }

    /// The whole key, to be shown once to the one who asked for it.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl Credential for GatewayKey {
    fn secret_hash(&self) -> SecretHash {
        Self::secret_hash(self)
    }
}

/// Never the secret: `tg_<public id>_***`.
impl fmt::Display for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tg_{}_***", self.id)
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RANDOM: [u8; KEY_RANDOM_LEN] = [7; KEY_RANDOM_LEN];

    fn check(text: &str, expected: Result<(), KeyError>) {
        assert_eq!(GatewayKey::parse(text).map(|_| ()), expected, "{text}");
    }

    #[test]
    fn a_key_has_the_form_that_scanners_look_for() {
        let key = GatewayKey::mint(&RANDOM);
        let parts: Vec<_> = key.expose().split('_').collect();
        assert_eq!(parts[0], "tg");
        assert_eq!(parts[1], key.public_id().as_str());
        assert_eq!((parts[1].len(), parts[2].len(), parts.len()), (16, 48, 3));
    }

    #[test]
    fn another_credential_is_told_from_a_mistyped_key() {
        let key = GatewayKey::mint(&RANDOM).expose().to_owned();
        check(&key, Ok(()));
        for other in ["", "sk-proj-abc", "tga_operator_x_y", "TG_x", "Bearer tg_x"] {
            check(other, Err(KeyError::NotAGatewayKey));
        }
        let malformed = |problem| Err(KeyError::Malformed { problem });
        check("tg_", malformed("expected tg_, a public id, _ and a secret"));
        check("tg_short_abc", malformed("the public id is not 16 characters"));
        check(&format!("{key}\n"), malformed("the secret has a character that no secret has"));
        check(&format!("{key}_"), malformed("the secret has a character that no secret has"));
        check(&key[..key.len() - 1], Err(KeyError::ChecksumMismatch));
        check(&format!("{key}0"), Err(KeyError::ChecksumMismatch));
    }

    #[test]
    fn rotation_keeps_the_public_id_and_changes_the_secret() {
        let old = GatewayKey::mint(&RANDOM);
        let new = GatewayKey::mint_secret(old.public_id().clone(), &[9; SECRET_RANDOM_LEN]);
        assert_eq!(old.public_id(), new.public_id());
        assert!(old.secret_hash().matches(&old));
        assert!(!old.secret_hash().matches(&new));
    }

    #[test]
    fn neither_debug_nor_display_shows_the_secret() {
        let key = GatewayKey::mint(&RANDOM);
        let secret = key.expose().rsplit('_').next().unwrap();
        let shown = format!("{key} {key:?} {:?}", key.secret_hash());
        assert!(!shown.contains(secret) && shown.contains(key.public_id().as_str()), "{shown}");
    }

    proptest! {
        #[test]
        fn minted_keys_parse(low in any::<[u8; 32]>(), high in any::<[u8; 18]>()) {
            let mut random = [0; KEY_RANDOM_LEN];
            random[..32].copy_from_slice(&low);
            random[32..].copy_from_slice(&high);
            let key = GatewayKey::mint(&random);
            let parsed = GatewayKey::parse(key.expose()).unwrap();
            prop_assert_eq!(parsed.public_id(), key.public_id());
            prop_assert!(key.secret_hash().matches(&parsed));
        }

        #[test]
        fn one_wrong_character_is_always_noticed(at in 0_usize..68, wrong in any::<u8>()) {
            let key = GatewayKey::mint(&RANDOM);
            let mut bytes = key.expose().as_bytes().to_vec();
            prop_assume!(bytes[at] != wrong);
            bytes[at] = wrong;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(GatewayKey::parse(&text).is_err());
            }
        }

        #[test]
        fn parsing_never_panics(text in "(tg_)?\\PC{0,80}") {
            let _ = GatewayKey::parse(&text);
        }
    }
}
