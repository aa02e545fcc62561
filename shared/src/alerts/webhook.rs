//! Standard Webhooks 1.0.0: the secret, the signature and the schedule of retries.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::time::Timestamp;

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// The fewest bytes of a key.
const KEY_MIN_BYTES: usize = 24;
/// The most bytes of a key.
const KEY_MAX_BYTES: usize = 64;
/// Waits before the second and each later attempt, as the specification proposes them.
const WAITS_S: [i64; 9] =
    [5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600];
/// How much longer than planned a wait may be, in percent: retries of many messages spread out.
const JITTER_PERCENT: i64 = 10;

/// A receiver's secret. It signs and is shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

/// It is no secret of the specification. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be `whsec_` and the base64 of 24 to 64 random bytes")]
pub struct SecretError;

impl WebhookSecret {
    /// A new secret from 32 random bytes.
    pub fn mint(random: &[u8; 32]) -> Self {
        Self(random.to_vec())
    }

    /// Reads a secret.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SecretError)?;
        let key = BASE64.decode(encoded).map_err(|_| SecretError)?;
        if !(KEY_MIN_BYTES..=KEY_MAX_BYTES).contains(&key.len()) {
            return Err(SecretError);
        }
        Ok(Self(key))
    }

    /// The secret as text: to be shown once and to be sealed.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    /// The signature of a message sent at `at`: `v1,` and base64.
    pub fn sign(&self, id: &str, at: Timestamp, body: &str) -> String {
        // HMAC takes a key of any length: the error cannot happen, and no signature is the answer if it did.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{}.{body}", at.seconds()).as_bytes());
        format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// The headers of one attempt. While a secret is being replaced there are two, and the receiver takes either signature.
pub fn headers(
    id: &str,
    at: Timestamp,
    body: &str,
    secrets: &[WebhookSecret],
) -> Vec<(&'static str, String)> {
    let signatures: Vec<String> = secrets.iter().map(|secret| secret.sign(id, at, body)).collect();
    vec![
        ("webhook-id", id.to_owned()),
        ("webhook-timestamp", at.seconds().to_string()),
        ("webhook-signature", signatures.join(" ")),
    ]
}

/// The id of a message: the same in each attempt, so that a receiver can tell a repetition.
pub fn message_id(about: &str, at: Timestamp, sequence: u64) -> String {
    let digest = Sha256::digest(format!("{about}\n{}\n{sequence}", at.ms()));
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

/// When to try again after `attempts` attempts, of which the last ended at `now`. `None`: no more.
pub fn next_attempt(attempts: u32, now: Timestamp, random: u32) -> Option<Timestamp> {
    let place = usize::try_from(attempts.checked_sub(1)?).ok()?;
    let wait_ms = WAITS_S.get(place)? * 1000;
    let jitter_max = wait_ms * JITTER_PERCENT / 100;
    Some(now.plus_ms(wait_ms + i64::from(random) % (jitter_max + 1)))
}

/// What an attempt's result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// The receiver wants no more messages.
    Gone,
    /// It did not arrive.
    Failed,
}

/// What a status says; `None` when there was no answer. A redirect is not followed, so it did not arrive.
pub const fn verdict(status: Option<u16>) -> Verdict {
    match status {
        Some(200..=299) => Verdict::Delivered,
        Some(410) => Verdict::Gone,
        Some(_) | None => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The specification's own example.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_specification_s_example_is_signed_alike() {
        let secret = WebhookSecret::parse(SECRET).unwrap();
        let at = Timestamp::from_ms(1_614_265_330_999);
        let body = r#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.reveal(), SECRET);
        assert_eq!(format!("{secret:?}"), "WebhookSecret(..)");
    }

    #[test]
    fn while_a_secret_is_replaced_there_are_two_signatures() {
        let secrets = [WebhookSecret::mint(&[1; 32]), WebhookSecret::mint(&[2; 32])];
        let headers = headers("msg_1", Timestamp::from_ms(5_000), "{}", &secrets);
        let [(_, id), (_, at), (_, signatures)] = headers.as_slice() else { panic!() };
        assert_eq!((id.as_str(), at.as_str()), ("msg_1", "5"));
        let expected: Vec<String> =
            secrets.iter().map(|s| s.sign("msg_1", Timestamp::from_ms(5_000), "{}")).collect();
        assert_eq!(signatures.split(' ').collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_secret_has_a_form() {
        for bad in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_!!!!"] {
            assert_eq!(WebhookSecret::parse(bad), Err(SecretError), "{bad}");
        }
        let long = format!("whsec_{}", BASE64.encode([0; 65]));
        assert_eq!(WebhookSecret::parse(&long), Err(SecretError));
    }

    #[test]
    fn retries_follow_the_schedule_and_end() {
        let now = Timestamp::from_ms(0);
        let waits: Vec<i64> =
            (1..=9).map(|attempts| next_attempt(attempts, now, 0).unwrap().seconds()).collect();
        assert_eq!(waits, WAITS_S);
        assert_eq!(next_attempt(10, now, 0), None);
        assert_eq!(next_attempt(0, now, 0), None);
    }

    #[test]
    fn statuses_mean_what_the_specification_says() {
        for (status, expected) in [
            (Some(200), Verdict::Delivered),
            (Some(204), Verdict::Delivered),
            (Some(301), Verdict::Failed),
            (Some(410), Verdict::Gone),
            (Some(429), Verdict::Failed),
            (Some(500), Verdict::Failed),
            (None, Verdict::Failed),
        ] {
            assert_eq!(verdict(status), expected, "{status:?}");
        }
    }

    proptest! {
        #[test]
        fn jitter_lengthens_by_a_tenth_at_most(attempts in 1_u32..10, random in any::<u32>()) {
            let now = Timestamp::from_ms(1_000_000);
            let early = next_attempt(attempts, now, 0).unwrap().since_ms(now);
            let wait = next_attempt(attempts, now, random).unwrap().since_ms(now);
            prop_assert!(wait >= early && wait * 10 <= early * 11);
        }

        #[test]
        fn secrets_round_trip(random in any::<[u8; 32]>()) {
            let secret = WebhookSecret::mint(&random);
            prop_assert_eq!(WebhookSecret::parse(&secret.reveal()).unwrap(), secret);
        }
    }
}
