//! Actors: who is behind a request, as a signed token says and within what the key fixes.
//!
//! A token is a JWT (RFC 7519) that the customer's own back end mints with its workspace's actor secret.

use serde::{Deserialize, Serialize};

use super::jws;
pub use super::jws::{ActorSecret, SECRET_MIN_BYTES};
use crate::money::parse_decimal;
use crate::time::{DAY_MS, Timestamp};

/// How far two clocks may be apart.
const SKEW_MS: i64 = 60_000;
/// How far ahead a token may expire: a leaked one is of no use the day after.
const LIFETIME_MAX_MS: i64 = DAY_MS;
/// The longest value of a claim, in characters.
const CLAIM_MAX_CHARS: usize = 128;
/// What `aud` must contain when it is there.
const AUDIENCE: &str = "tallygate";

/// Who is behind a request. An absent field is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Actor {
    /// A person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The person's team.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// The application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The application's feature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// The agent that acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The customer it is done for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
    /// `production`, `staging`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The conversation or run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// Why a token says nothing about the actor. No message contains the token or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActorError {
    /// There is no token.
    #[error("an actor token is required: send one, signed with this workspace's actor secret")]
    Missing,
    /// It is no token.
    #[error(
        "the actor token is malformed ({problem}): send a JWT in compact form as it was minted"
    )]
    Malformed {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another algorithm, or none.
    #[error("the actor token must say \"alg\": \"HS256\" in its header: sign it with HS256")]
    AlgorithmRefused,
    /// Nothing to verify it with.
    #[error(
        "no actor secret of this workspace that is in use has the token's kid: sign with a current secret and set \
         kid to its id"
    )]
    KidUnknown,
    /// Signed with another secret, or changed since.
    #[error("the actor token's signature is wrong: sign it with this workspace's actor secret")]
    SignatureInvalid,
    /// Its time is over.
    #[error("the actor token expired at {expired_at}: mint a new one")]
    Expired {
        /// When it expired.
        expired_at: Timestamp,
    },
    /// Its time has not come.
    #[error(
        "the actor token is valid only from {valid_from}: check the clock of the host that mints it"
    )]
    NotYetValid {
        /// When its time comes.
        valid_from: Timestamp,
    },
    /// It would live too long.
    #[error(
        "the actor token expires at {expires_at}, more than 24 hours ahead: mint it for a shorter time"
    )]
    LifetimeTooLong {
        /// When it would expire.
        expires_at: Timestamp,
    },
    /// A claim that cannot be used.
    #[error("the actor token's claim {claim} {problem}")]
    ClaimInvalid {
        /// The claim's name.
        claim: &'static str,
        /// What is wrong with it and what it should be.
        problem: &'static str,
    },
    /// The key fixes another value.
    #[error(
        "the actor token's {claim} differs from the one that the gateway key fixes: leave it out or use another key"
    )]
    ContradictsKey {
        /// The claim's name.
        claim: &'static str,
    },
}

impl ActorError {
    /// The stable name of this error.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "actor_missing",
            Self::Malformed { .. } => "actor_malformed",
            Self::AlgorithmRefused => "actor_algorithm_refused",
            Self::KidUnknown => "actor_kid_unknown",
            Self::SignatureInvalid => "actor_signature_invalid",
            Self::Expired { .. } => "actor_expired",
            Self::NotYetValid { .. } => "actor_not_yet_valid",
            Self::LifetimeTooLong { .. } => "actor_lifetime_too_long",
            Self::ClaimInvalid { .. } => "actor_claim_invalid",
            Self::ContradictsKey { .. } => "actor_contradicts_key",
        }
    }
}

/// The actor that a token names, if it is signed with one of the secrets and its time is now.
pub fn verify(token: &str, secrets: &[ActorSecret], now: Timestamp) -> Result<Actor, ActorError> {
    let claims = jws::open(token, secrets, now)?;
    check_times(&claims, now)?;
    check_audience(&claims)?;
    let claim = |name| text_claim(&claims, name);
    Ok(Actor {
        user: match claim("user")? {
            Some(user) => Some(user),
            None => claim("sub")?,
        },
        team: claim("team")?,
        app: claim("app")?,
        feature: claim("feature")?,
        agent: claim("agent")?,
        customer: claim("customer")?,
        environment: claim("environment")?,
        session: claim("session")?,
    })
}

/// A token as an SDK would mint it. Whether its claims and times are acceptable shows when it is verified.
pub fn mint(
    actor: &Actor,
    kid: &str,
    secret: &[u8],
    issued_at: Timestamp,
    expires_at: Timestamp,
) -> String {
    let header = serde_json::json!({ "alg": "HS256", "typ": "JWT", "kid": kid });
    let mut claims = serde_json::json!({
        "aud": AUDIENCE, "iat": issued_at.seconds(), "exp": expires_at.seconds(),
    });
    if let Some(claims) = claims.as_object_mut() {
        let known = actor.claims().into_iter().filter_map(|(name, value)| Some((name, value?)));
        claims.extend(known.map(|(name, value)| (name.to_owned(), value.into())));
    }
    jws::seal(&header.to_string(), &claims.to_string(), secret)
}

fn check_times(claims: &jws::Object, now: Timestamp) -> Result<(), ActorError> {
    let problem =
        "is required: seconds since 1970 at which the token expires, at most 24 hours ahead";
    let expires_at =
        time_claim(claims, "exp")?.ok_or(ActorError::ClaimInvalid { claim: "exp", problem })?;
    if expires_at.plus_ms(SKEW_MS) <= now {
        return Err(ActorError::Expired { expired_at: expires_at });
    }
    if now.plus_ms(LIFETIME_MAX_MS + SKEW_MS) < expires_at {
        return Err(ActorError::LifetimeTooLong { expires_at });
    }
    for claim in ["nbf", "iat"] {
        match time_claim(claims, claim)? {
            Some(valid_from) if now.plus_ms(SKEW_MS) < valid_from => {
                return Err(ActorError::NotYetValid { valid_from });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Seconds since 1970, whole or not: some libraries write the time with a fraction.
fn time_claim(claims: &jws::Object, claim: &'static str) -> Result<Option<Timestamp>, ActorError> {
    const PICOS_PER_MS: i128 = 1_000_000_000;
    let Some(raw) = claims.raw(claim) else { return Ok(None) };
    let ms = parse_decimal(raw, 12)
        .ok()
        .and_then(|picos| i64::try_from(picos.div_euclid(PICOS_PER_MS)).ok());
    let problem = "must be a number of seconds since 1970";
    ms.map(|ms| Some(Timestamp::from_ms(ms))).ok_or(ActorError::ClaimInvalid { claim, problem })
}

fn check_audience(claims: &jws::Object) -> Result<(), ActorError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    let Some(raw) = claims.raw("aud") else { return Ok(()) };
    let ours = match serde_json::from_str(raw) {
        Ok(Audience::One(name)) => name == AUDIENCE,
        Ok(Audience::Many(names)) => names.iter().any(|name| name == AUDIENCE),
        Err(_) => false,
    };
    let problem = "must be \"tallygate\", or a list that contains it, or be left out";
    ours.then_some(()).ok_or(ActorError::ClaimInvalid { claim: "aud", problem })
}

fn text_claim(claims: &jws::Object, claim: &'static str) -> Result<Option<String>, ActorError> {
    let Some(text) = claims.text(claim) else { return Ok(None) };
    let invalid = |problem| ActorError::ClaimInvalid { claim, problem };
    let text = text.ok_or_else(|| invalid("must be a string, or be left out"))?;
    check_value(&text).map_err(invalid)?;
    Ok(Some(text))
}

pub(crate) fn check_value(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.chars().nth(CLAIM_MAX_CHARS).is_some() {
        return Err("must have 1 to 128 characters");
    }
    if text.contains(char::is_control) {
        return Err("must not contain control characters");
    }
    Ok(())
}

impl Actor {
    /// Each claim's name and value, in a fixed order.
    pub fn claims(&self) -> [(&'static str, Option<&str>); 8] {
        [
            ("user", self.user.as_deref()),
            ("team", self.team.as_deref()),
            ("app", self.app.as_deref()),
            ("feature", self.feature.as_deref()),
            ("agent", self.agent.as_deref()),
            ("customer", self.customer.as_deref()),
            ("environment", self.environment.as_deref()),
            ("session", self.session.as_deref()),
        ]
    }

    /// The value of the claim of this name.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims().into_iter().find(|(claim, _)| *claim == name).and_then(|(_, value)| value)
    }

    /// Holds an actor that comes from configuration to the rules that a token's claims are held to.
    pub fn validate(&self) -> Result<(), ActorError> {
        for (claim, value) in self.claims() {
            let invalid = |problem| ActorError::ClaimInvalid { claim, problem };
            value.map_or(Ok(()), check_value).map_err(invalid)?;
        }
        Ok(())
    }

    /// The actor of a request: what the key fixes, and what a token adds. A token may repeat what is fixed.
    pub fn overlay(fixed: &Self, claimed: Self) -> Result<Self, ActorError> {
        let both = |claim, fixed: &Option<String>, claimed: Option<String>| match (fixed, claimed) {
            (Some(fixed), Some(claimed)) if *fixed != claimed => {
                Err(ActorError::ContradictsKey { claim })
            }
            (Some(fixed), _) => Ok(Some(fixed.clone())),
            (None, claimed) => Ok(claimed),
        };
        Ok(Self {
            user: both("user", &fixed.user, claimed.user)?,
            team: both("team", &fixed.team, claimed.team)?,
            app: both("app", &fixed.app, claimed.app)?,
            feature: both("feature", &fixed.feature, claimed.feature)?,
            agent: both("agent", &fixed.agent, claimed.agent)?,
            customer: both("customer", &fixed.customer, claimed.customer)?,
            environment: both("environment", &fixed.environment, claimed.environment)?,
            session: both("session", &fixed.session, claimed.session)?,
        })
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
