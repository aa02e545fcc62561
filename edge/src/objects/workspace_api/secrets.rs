//! API tokens, secrets for actor tokens, and the sealing of everything that is kept secret. A secret that is made here
//! is shown in one answer and never again.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tallygate_shared::hex::hex;
use tallygate_shared::policy::key_plan::SealedActorSecret;

use super::{Answer, Api, exists};
use crate::admin::bodies::{NewActorSecret, NewToken};
use crate::admin::call::Step;
use crate::admin::check_text;
use crate::admin::config::Secrets;
use crate::admin::config_dashboard::check_owner;
use crate::admin::problem::Problem;
use crate::admin::roles::Role;
use crate::objects::sql::Sql;

/// The longest that a retired or rotated secret may go on working: 30 days.
pub(super) const MAX_OVERLAP_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Secrets of one use at once: each is named by its `kid`; more than a rotation needs is a leak unnoticed.
const MAX_SHARED_SECRETS: usize = 8;
/// HS256 wants a secret as long as its hash (RFC 7518, section 3.2).
const MIN_ACTOR_SECRET_BYTES: usize = 32;
/// Longest secret.
const MAX_SECRET_BYTES: usize = 4_096;

/// A secret that the workspace shares with somebody who signs with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shared {
    /// The customer's back end: it signs actor tokens.
    Actor,
    /// The reconciler: it signs its calls.
    Reconciler,
}

impl Shared {
    /// What such a secret is sealed for.
    const fn name(self) -> &'static str {
        match self {
            Self::Actor => "actor",
            Self::Reconciler => "reconciler",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Actor => "actor secret",
            Self::Reconciler => "reconciler secret",
        }
    }

    fn of(self, secrets: &Secrets) -> &[SealedActorSecret] {
        match self {
            Self::Actor => &secrets.actors,
            Self::Reconciler => &secrets.reconcilers,
        }
    }

    const fn of_mut(self, secrets: &mut Secrets) -> &mut Vec<SealedActorSecret> {
        match self {
            Self::Actor => &mut secrets.actors,
            Self::Reconciler => &mut secrets.reconcilers,
        }
    }
}

/// The owner of a developer's token that shows the rows of all owners.
const EVERYBODY: &str = "*";

impl<S: Sql> Api<'_, S> {
    pub(super) fn issue_token(&mut self) -> Answer {
        let mut new: NewToken = self.context.call.body()?;
        check_text("name", &new.name)?;
        if matches!(new.role, Role::Operator | Role::Reconciler) {
            let remedy = "Use admin, finance, developer or auditor.";
            return Err(Problem::field("role", "cannot be given to a token", remedy).into());
        }
        match &new.owner {
            None if new.role == Role::Developer => {
                let remedy = "Name whose keys and requests it shows, as `owner` of keys has it, or give `*` for everybody's.";
                return Err(Problem::field("owner", "is missing for a developer", remedy).into());
            }
            None => {}
            Some(owner) => check_owner("owner", owner, new.role)?,
        }
        new.owner.take_if(|owner| owner == EVERYBODY);
        let (record, shown) = self.workspace.issue_token(&new, self.context)?;
        let change = json!({ "after": record });
        self.workspace.audit(self.principal, "added", "tokens", &change, self.context.now)?;
        Ok(Step::json(self.spec.status, &shown))
    }

    pub(super) fn delete_token(&mut self, id: &str) -> Answer {
        let record =
            self.workspace.delete_token(id)?.ok_or_else(|| Problem::not_found("token", id))?;
        let change = json!({ "before": record });
        self.workspace.audit(self.principal, "removed", "tokens", &change, self.context.now)?;
        Ok(Step::json(200, &json!({})))
    }

    /// Seals a secret for its use: the same text opens nothing in another workspace or under another name.
    pub(super) fn sealed(&self, secret: &str, kind: &str, name: &str) -> Result<String, Problem> {
        let field = if kind == "provider" { "credential" } else { "secret" };
        // What goes into a header must not be able to end it.
        if secret.is_empty()
            || secret.len() > MAX_SECRET_BYTES
            || secret.chars().any(char::is_control)
        {
            return Err(Problem::field(
                field,
                "is empty, too long or not one line",
                "Give it as one line.",
            ));
        }
        self.seal(secret, kind, name, self.context.bytes(0))
    }

    pub(super) fn context_of(&self, kind: &str, name: &str) -> Result<String, Problem> {
        Ok(format!("{}/{kind}/{name}", self.workspace.id()?))
    }

    fn seal(
        &self,
        secret: &str,
        kind: &str,
        name: &str,
        nonce: [u8; 12],
    ) -> Result<String, Problem> {
        let sealed = self.context.ring.seal(secret, &self.context_of(kind, name)?, nonce);
        sealed.map_err(|error| {
            Problem::new(503, "key_ring_missing", format!("Secrets cannot be sealed: {error}."))
        })
    }

    pub(super) fn shared_secrets(&self, kind: Shared) -> Vec<Value> {
        let now = self.context.now;
        let shown = |secret: &SealedActorSecret| {
            json!({ "kid": secret.kid, "expires_at": secret.expires_at.map(|at| at.to_string()),
                    "valid": secret.expires_at.is_none_or(|end| end > now) })
        };
        kind.of(self.workspace.secrets()).iter().map(shown).collect()
    }

    pub(super) fn add_shared_secret(&mut self, kind: Shared) -> Answer {
        let NewActorSecret { kid, secret } = self.context.call.body()?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if kid.is_empty() || kid.len() > 64 || !kid.bytes().all(plain) {
            return Err(Problem::field(
                "kid",
                "is not plain",
                "Use 1 to 64 of A-Z, a-z, 0-9 and -_.",
            )
            .into());
        }
        let secret = match secret {
            Some(secret) if secret.len() < MIN_ACTOR_SECRET_BYTES => {
                let remedy = "Give at least 32 bytes (RFC 7518 section 3.2), or leave it out.";
                return Err(Problem::field("secret", "is too short for HS256", remedy).into());
            }
            Some(secret) => secret,
            None => hex(&self.context.bytes::<MIN_ACTOR_SECRET_BYTES>(32)),
        };
        let sealed = self.sealed(&secret, kind.name(), &kid)?;
        let now = self.context.now;
        self.edit(|_, secrets| {
            let known = kind.of_mut(secrets);
            if known.iter().any(|known| known.kid == kid) {
                return Err(exists(kind.title(), &kid));
            }
            // What no longer opens anything makes room.
            known.retain(|known| known.expires_at.is_none_or(|end| end > now));
            if known.len() >= MAX_SHARED_SECRETS {
                let detail = format!(
                    "There are {MAX_SHARED_SECRETS} {}s. Retire old ones first.",
                    kind.title()
                );
                return Err(Problem::new(409, "too_many", detail));
            }
            let body = json!({ "kid": kid, "secret": secret });
            known.push(SealedActorSecret { kid, sealed, expires_at: None });
            Ok(body)
        })
    }

    pub(super) fn retire_shared_secret(&mut self, kind: Shared, kid: &str) -> Answer {
        let overlap = self.context.call.parameter("overlap_seconds");
        let overlap = overlap.map(|text| overlap_ms_of(&text)).transpose()?.unwrap_or(0);
        let now = self.context.now;
        self.edit(|_, secrets| {
            let all = kind.of_mut(secrets);
            let known = all.iter_mut().find(|secret| secret.kid == kid);
            let secret = known.ok_or_else(|| Problem::not_found(kind.title(), kid))?;
            if overlap > 0 {
                let end = now.plus_ms(overlap);
                // Retiring again can only shorten the time.
                secret.expires_at = Some(secret.expires_at.map_or(end, |earlier| earlier.min(end)));
            } else {
                all.retain(|secret| secret.kid != kid);
            }
            Ok(json!({}))
        })
    }

    /// Seals what an older key of the ring sealed under its first key.
    pub(super) fn reseal(&mut self) -> Answer {
        let secrets = self.workspace.secrets();
        let providers = secrets.credentials.iter().map(|(name, sealed)| ("provider", name, sealed));
        let actors = secrets.actors.iter().map(|secret| ("actor", &secret.kid, &secret.sealed));
        let reconcilers = secrets.reconcilers.iter();
        let reconcilers = reconcilers.map(|secret| ("reconciler", &secret.kid, &secret.sealed));
        let receivers = secrets.receivers.iter().flat_map(|(name, list)| {
            list.iter().map(move |secret| ("receiver", name, &secret.sealed))
        });
        let collector_name = "collector".to_owned();
        let collector = secrets.collector.iter();
        let collector = collector.map(|sealed| ("telemetry", &collector_name, sealed));
        let old = providers
            .chain(actors)
            .chain(reconcilers)
            .chain(receivers)
            .chain(collector)
            .filter(|(_, _, sealed)| self.context.ring.needs_reseal(sealed));
        let mut anew = Vec::new();
        for (place, (kind, name, sealed)) in old.enumerate() {
            let plain =
                self.context.ring.open(sealed, &self.context_of(kind, name)?).map_err(|error| {
                    let detail =
                        format!("The secret of the {kind} `{name}` does not open: {error}.");
                    Problem::new(409, "secret_lost", detail)
                })?;
            anew.push((
                kind,
                name.clone(),
                sealed.clone(),
                self.seal(&plain, kind, name, self.nonce(place))?,
            ));
        }
        let count = anew.len();
        self.edit(|_, secrets| {
            for (kind, name, old, sealed) in anew {
                if kind == "provider" {
                    secrets.credentials.insert(name, sealed);
                } else if kind == "telemetry" {
                    secrets.collector = Some(sealed);
                } else if kind == "receiver" {
                    let list = secrets.receivers.entry(name).or_default();
                    for secret in list.iter_mut().filter(|secret| secret.sealed == old) {
                        secret.sealed.clone_from(&sealed);
                    }
                } else {
                    let shared = [Shared::Actor, Shared::Reconciler];
                    let of_kind = shared.into_iter().filter(|shared| shared.name() == kind);
                    for shared in of_kind {
                        let known = shared.of_mut(secrets).iter_mut();
                        for secret in known.filter(|secret| secret.kid == name) {
                            secret.sealed.clone_from(&sealed);
                        }
                    }
                }
            }
            Ok(json!({ "resealed": count }))
        })
    }

    /// As many nonces as it takes from the 256 random bits of this request: AES-GCM must never see one twice.
    fn nonce(&self, place: usize) -> [u8; 12] {
        let seed: [u8; 32] = self.context.bytes(0);
        let hash = Sha256::new().chain_update(seed).chain_update(place.to_be_bytes()).finalize();
        let mut nonce = [0; 12];
        for (to, from) in nonce.iter_mut().zip(hash) {
            *to = from;
        }
        nonce
    }
}

fn overlap_ms_of(text: &str) -> Result<i64, Problem> {
    overlap_ms(text.parse().unwrap_or(u64::MAX))
}

/// An overlap in milliseconds, within bounds.
pub(super) fn overlap_ms(seconds: u64) -> Result<i64, Problem> {
    let ms = i64::try_from(seconds).ok().filter(|_| seconds <= MAX_OVERLAP_SECONDS);
    ms.and_then(|seconds| seconds.checked_mul(1_000)).ok_or_else(|| {
        let remedy = "Give whole seconds, at most 2592000, which is 30 days.";
        Problem::field("overlap_seconds", "is no time that a secret may overlap", remedy)
    })
}
