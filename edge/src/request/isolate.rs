//! Admission without a call: what an isolate decides by itself under a sublease of the key's Meter.
//!
//! The decision is the same function over the same plan. Whatever it would refuse, and whatever the sublease does not
//! cover, goes to the Meter, which knows better and keeps the record. Time ends it after two seconds: so late can a
//! revocation be, and for a key with `immediate` there is no sublease at all.

use std::collections::BTreeMap;

use tallygate_shared::budget::account::Load;
use tallygate_shared::budget::expectation::Expectations;
use tallygate_shared::budget::hold::{HOLD_LIFETIME_MS, Hold};
use tallygate_shared::budget::lease::sublease::Sublease;
use tallygate_shared::budget::lease::wallet::Need;
use tallygate_shared::budget::lease::{Units, money_units};
use tallygate_shared::identity::actor::{self, Actor, ActorError, ActorSecret};
use tallygate_shared::policy::decide::decide;
use tallygate_shared::policy::ip_ranges::network_of;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::record::record;
use tallygate_shared::time::Timestamp;

use crate::objects::meter_admit::{authentic, targets_of};
use crate::objects::meter_budgets::{charges_of, needs_of, note_budgets};
use crate::objects::meter_object::open_secrets;
use crate::objects::meter_sublets::{OWN_MONEY, OWN_REQUESTS, OWN_TOKENS, Offer};
use crate::providers::catalog::Shelf;
use crate::request::calls::{AdmitCall, Admitted, Limits, Ticket};
use crate::vault::KeyRing;

/// Keys that one isolate holds subleases of.
const MOST_KEYS: usize = 256;

/// The subleases of one isolate.
#[derive(Default)]
pub struct Isolate {
    keys: BTreeMap<String, Leased>,
}

struct Leased {
    /// The plan without the rate limits: those are lines of the sublease.
    plan: KeyPlan,
    secrets: Vec<ActorSecret>,
    sublease: Sublease,
    load: Load,
    limits: Limits,
}

impl Isolate {
    /// The version of a key's plan that is here, 0 for none.
    pub fn version(&self, key: &str) -> u64 {
        self.keys.get(key).map_or(0, |leased| leased.plan.version)
    }

    /// Takes a sublease that was asked for at `since`.
    pub fn take(&mut self, key: &str, offer: Offer, ring: &KeyRing, since: Timestamp) {
        let known = self.keys.remove(key);
        let (plan, secrets) = match (offer.plan, known) {
            (Some(mut plan), _) => {
                plan.policy.requests_per_minute = None;
                plan.policy.tokens_per_minute = None;
                let secrets = open_secrets(&plan, ring);
                (plan, secrets)
            }
            (None, Some(known)) if known.plan.version == offer.version => {
                (known.plan, known.secrets)
            }
            // The plan went while the offer was on its way: the Meter takes the sublet back in time.
            (None, _) => return,
        };
        if self.keys.len() >= MOST_KEYS {
            self.keys.retain(|_, leased| leased.sublease.is_live(since));
        }
        let id = offer.id.as_str().to_owned();
        let sublease = Sublease { id, left: offer.left, since, seen: since };
        let load = Load { spent: offer.spent, held: offer.held, ..Load::default() };
        let leased = Leased { plan, secrets, sublease, load, limits: offer.limits };
        self.keys.insert(key.to_owned(), leased);
    }

    /// Admits a request under the key's sublease; `None` sends it to the Meter.
    pub fn admit(&mut self, key: &str, call: &AdmitCall, now: Timestamp) -> Option<Box<Admitted>> {
        let Leased { plan, secrets, sublease, load, limits } = self.keys.get_mut(key)?;
        if !sublease.is_live(now) || !authentic(plan, &call.key_sha256, now) {
            return None;
        }
        let actor = match &call.actor_token {
            None => Err(ActorError::Missing),
            Some(token) => actor::verify(token, secrets, now)
                .and_then(|claimed| Actor::overlay(&plan.owner.actor, claimed)),
        };
        let shelf = Shelf::of(&call.facts.endpoint, now);
        let draw = call.draw.parse().unwrap_or(0);
        let decision = decide(plan, &call.facts, &actor, load, &shelf, draw, now);
        let mut decided =
            record(plan, &call.facts, call.actor_token.is_some(), &decision, load, now);
        let admission = decision.outcome.ok()?;
        let actor = actor.unwrap_or_else(|_| plan.owner.actor.clone());
        if actor.agent.is_some() || actor.session.is_some() {
            return None;
        }
        let charges = charges_of(plan, &actor, &admission, &Expectations::default(), now);
        decided.leased = true;
        note_budgets(&mut decided, &charges, admission.hold);
        let charges = needs_of(&charges);
        let own = |line: &str, units: Units| Need {
            account: String::new(),
            line: line.to_owned(),
            units,
        };
        let mut needs = vec![
            own(OWN_MONEY, money_units(admission.hold)),
            own(OWN_REQUESTS, 1),
            own(OWN_TOKENS, Units::try_from(admission.hold_tokens).unwrap_or(Units::MAX)),
        ];
        needs.extend(charges.iter().cloned());
        if !sublease.take(&needs, now) {
            return None;
        }
        let ticket = Ticket {
            hold: Hold {
                id: call.id.clone(),
                at: now,
                expires_at: now.plus_ms(HOLD_LIFETIME_MS),
                amount: admission.hold,
                tokens: admission.hold_tokens,
            },
            endpoint: call.facts.endpoint.clone(),
            stream: call.stream,
            requested_model: call.facts.model.clone(),
            actor,
            labels: call.labels.clone(),
            charges,
            learns: None,
            downgraded_by: None,
            under: tallygate_shared::ids::RequestId::parse(&sublease.id).ok(),
            sublet: None,
            network: call.facts.ip.map(network_of),
            watched: None,
            trace: call.span(plan),
            decided: Some(Box::new(decided)),
        };
        Some(Box::new(Admitted {
            hot: false,
            ticket,
            workspace: plan.workspace.clone(),
            targets: targets_of(admission.targets),
            attempts: admission.route.attempts,
            first_byte_timeout_ms: admission.route.first_byte_timeout_ms,
            idle_timeout_ms: admission.route.idle_timeout_ms,
            set_max_output_tokens: admission.set_max_output_tokens,
            budget_remaining: admission.budget_remaining,
            limits: *limits,
        }))
    }
}
