//! The vault: secrets sealed with AES-256-GCM under the Worker's key ring. Stored text says which key sealed it, so the
//! ring can be rotated: the first key seals, all of them open.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The format of a sealed text: `v1.<key id>.<nonce>.<ciphertext>`.
const FORMAT: &str = "v1";
const NONCE_BYTES: usize = 12;

/// The keys that seal and open. Never printed.
#[derive(Default)]
pub struct KeyRing {
    keys: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Why something cannot be sealed or opened. Says nothing of the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The ring's text cannot be read.
    #[error(
        "TALLYGATE_KEY_RING must be `<id>:<base64 of 32 bytes>`, several joined by commas; entry {entry} is not"
    )]
    BadRing {
        /// The entry, from 1.
        entry: usize,
    },
    /// There is no key to seal with.
    #[error("no key to seal with: set the secret TALLYGATE_KEY_RING")]
    Empty,
    /// The text is not of the sealed format.
    #[error("the sealed text is not of this format")]
    Malformed,
    /// The key that sealed it is not on the ring.
    #[error("the key `{key}` that sealed this is not on the ring")]
    KeyMissing {
        /// Its id.
        key: String,
    },
    /// Sealed for something else, changed, or by another key of the same id.
    #[error("the sealed text does not open")]
    DoesNotOpen,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl KeyRing {
    /// Reads `k2:<base64>,k1:<base64>`. An empty text is a ring without keys.
    pub fn parse(text: &str) -> Result<Self, VaultError> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let keys = entries.enumerate().map(|(place, entry)| {
            let bad = VaultError::BadRing { entry: place + 1 };
            let (id, key) = entry.split_once(':').ok_or_else(|| bad.clone())?;
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            let key = STANDARD.decode(key).map_err(|_| bad.clone())?;
            if id.is_empty() || !id.bytes().all(plain) || key.len() != 32 {
                return Err(bad);
            }
            Ok((id.to_owned(), Zeroizing::new(key)))
        });
        Ok(Self { keys: keys.collect::<Result<_, _>>()? })
    }

    /// Seals a secret for one use: `context` names the use, and only the same context opens it.
    pub fn seal(
        &self,
        plain: &str,
        context: &str,
        nonce: [u8; NONCE_BYTES],
    ) -> Result<String, VaultError> {
        let (id, key) = self.keys.first().ok_or(VaultError::Empty)?;
        let payload = Payload { msg: plain.as_bytes(), aad: context.as_bytes() };
        let sealed = cipher(key)
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| VaultError::DoesNotOpen)?;
        Ok(format!("{FORMAT}.{id}.{}.{}", STANDARD.encode(nonce), STANDARD.encode(sealed)))
    }

    /// Opens what was sealed for this context.
    pub fn open(&self, sealed: &str, context: &str) -> Result<String, VaultError> {
        let mut parts = sealed.split('.');
        let (Some(FORMAT), Some(id), Some(nonce), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(VaultError::Malformed);
        };
        let missing = || VaultError::KeyMissing { key: id.to_owned() };
        let (_, key) = self.keys.iter().find(|(known, _)| known == id).ok_or_else(missing)?;
        let decode = |part: &str| STANDARD.decode(part).map_err(|_| VaultError::Malformed);
        let (nonce, text) = (decode(nonce)?, decode(text)?);
        if nonce.len() != NONCE_BYTES {
            return Err(VaultError::Malformed);
        }
        let payload = Payload { msg: &text, aad: context.as_bytes() };
        let plain = cipher(key)
            .decrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| VaultError::DoesNotOpen)?;
        String::from_utf8(plain).map_err(|_| VaultError::DoesNotOpen)
    }

    /// Keys for another use, one of each key of the ring, the current one first. The label names the use: what one use
    /// signs or opens, no other does.
    pub fn derived(&self, label: &str) -> Vec<Zeroizing<Vec<u8>>> {
        let derive = |(_, key): &(String, Zeroizing<Vec<u8>>)| {
            let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).ok()?;
            mac.update(label.as_bytes());
            Some(Zeroizing::new(mac.finalize().into_bytes().to_vec()))
        };
        self.keys.iter().filter_map(derive).collect()
    }

    /// Whether a sealed text should be sealed anew: another key than the ring's first one sealed it.
    pub fn needs_reseal(&self, sealed: &str) -> bool {
        let id = sealed.split('.').nth(1);
        self.keys.first().is_some_and(|(first, _)| Some(first.as_str()) != id)
    }
}

fn cipher(key: &Zeroizing<Vec<u8>>) -> Aes256Gcm {
    // `parse` lets no key in that is not 32 bytes long.
    Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> KeyRing {
        KeyRing::parse(text).unwrap()
    }

    fn key(id: &str, byte: u8) -> String {
        format!("{id}:{}", STANDARD.encode([byte; 32]))
    }

    #[test]
    fn what_is_sealed_opens_in_its_context_only() {
        let ring = ring(&key("k1", 1));
        let sealed = ring.seal("sk-secret", "ws_a/provider/openai", [9; 12]).unwrap();
        assert!(!sealed.contains("secret"));
        assert_eq!(ring.open(&sealed, "ws_a/provider/openai").unwrap(), "sk-secret");
        assert_eq!(ring.open(&sealed, "ws_b/provider/openai"), Err(VaultError::DoesNotOpen));
        let tampered = sealed.replace("v1.k1.", "v1.k1.A");
        assert!(ring.open(&tampered, "ws_a/provider/openai").is_err());
    }

    #[test]
    fn a_rotated_ring_opens_the_old_and_seals_with_the_new() {
        let old = ring(&key("k1", 1));
        let sealed = old.seal("s", "c", [0; 12]).unwrap();
        let both = ring(&format!("{},{}", key("k2", 2), key("k1", 1)));
        assert_eq!(both.open(&sealed, "c").unwrap(), "s");
        assert!(both.needs_reseal(&sealed));
        let anew = both.seal("s", "c", [0; 12]).unwrap();
        assert!(!both.needs_reseal(&anew));
        assert_eq!(old.open(&anew, "c"), Err(VaultError::KeyMissing { key: "k2".to_owned() }));
        let other = ring(&key("k1", 3));
        assert_eq!(other.open(&sealed, "c"), Err(VaultError::DoesNotOpen));
    }

    #[test]
    fn a_bad_ring_names_the_entry_and_never_the_key() {
        for (text, entry) in [("k1", 1), ("k1:zzz", 1), (&format!("{},k2:AAAA", key("k1", 1)), 2)] {
            let error = KeyRing::parse(text).unwrap_err();
            assert_eq!(error, VaultError::BadRing { entry });
        }
        assert_eq!(ring("").seal("s", "c", [0; 12]), Err(VaultError::Empty));
        assert_eq!(format!("{:?}", ring(&key("k1", 1))), r#"["k1"]"#);
        for bad in ["", "v1.k1", "v2.k1.AAAA.AAAA", "v1.k1.AAAA.AAAA", "v1.k1.!.!"] {
            assert!(ring(&key("k1", 1)).open(bad, "c").is_err(), "{bad}");
        }
    }
}
