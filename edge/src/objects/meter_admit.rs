//! Admission at the Meter: authenticate, decide, ask what shared budgets say, place the hold in memory. Everything is
//! evaluated before anything is committed.

use std::borrow::Cow;

use tallygate_shared::budget::hold::{HOLD_LIFETIME_MS, Hold};
use tallygate_shared::budget::lease::wallet::Need;
use tallygate_shared::budget::loop_breaker::Watched;
use tallygate_shared::events::decision::Decided;
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::{Admission, Chosen, decide};
use tallygate_shared::policy::ip_ranges::network_of;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::record::record;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;

use super::meter_budgets::{Progress, Verdict, charges_of, learns, needs_of, note_budgets};
use super::meter_events::blank_event;
use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::providers::catalog::Shelf;
use crate::request::calls::{AdmitAnswer, AdmitCall, Admitted, AdmittedTarget, Limits, Ticket};
use crate::request::status::status_of;

/// A cap is near when it leaves less than so many holds of the present size. From there on each hold is written down
/// before it is answered: a commit a request, and a crash then leaves nothing unclear.
const NEAR_HOLDS: i128 = 256;

/// What an admission carries beside the decision: what it sets aside in shared budgets, and what the loop breaker said.
#[derive(Default)]
struct Shares {
    watched: Option<Watched>,
    charges: Vec<Need>,
    remaining: Option<Usd>,
    downgraded_by: Option<String>,
    decided: Option<Box<Decided>>,
}

impl<S: Sql> MeterObject<S> {
    /// Decides about a request and places its hold. Where its shared budgets must be asked first, the answer says so;
    /// the request then comes again, with its progress.
    pub fn admit(
        &mut self,
        call: &AdmitCall,
        progress: Progress,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        let Some(plan) = self.plan.take() else {
            // Nothing is stored for a key that nobody issued, so a stranger cannot fill storage with names.
            return Ok(refuse(Refusal::KeyInvalid));
        };
        let answer = self.admit_under(&plan, call, progress, now);
        self.plan = Some(plan);
        answer
    }

    fn admit_under(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        progress: Progress,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        if !authentic(plan, &call.key_sha256, now) {
            self.note_refusal(plan, call, &Actor::default(), &Refusal::KeyInvalid, None, now);
            return Ok(refuse(Refusal::KeyInvalid));
        }
        let actor = self.actor_of(plan, call.actor_token.as_deref(), now);
        let shelf = Shelf::of(&call.facts.endpoint, now);
        let load = self.account.load(now);
        let draw = call.draw.parse().unwrap_or(0);
        let mut facts = Cow::Borrowed(&call.facts);
        if let Some(downgrade) = &progress.downgrade {
            facts.to_mut().model.clone_from(&downgrade.model);
        }
        let decision = decide(plan, &facts, &actor, &load, &shelf, draw, now);
        let actor = actor.unwrap_or_else(|_| plan.owner.actor.clone());
        let token = call.actor_token.is_some();
        let mut decided = Box::new(record(plan, &facts, token, &decision, &load, now));
        let admission = match decision.outcome {
            Ok(admission) => admission,
            Err(refusal) => {
                // A cheaper model that is not to be had is the budget's refusal, not the caller's mistake.
                let first = progress.downgrade.and_then(|downgrade| downgrade.refusal);
                return Ok(self.refused(
                    plan,
                    call,
                    &actor,
                    first.unwrap_or(refusal),
                    decided,
                    now,
                ));
            }
        };
        if plan.budgets.is_empty() {
            let shares = Shares { decided: Some(decided), ..Shares::default() };
            return self.watch(plan, call, actor, admission, shares, now);
        }
        let charges = charges_of(plan, &actor, &admission, &self.budgets.expectations, now);
        note_budgets(&mut decided, &charges, admission.hold);
        let needs = needs_of(&charges);
        self.load_leases(needs.iter().map(|n| (n.account.as_str(), n.line.as_str())), now)?;
        let early = match progress.downgrade {
            None => self.budgets.early_downgrade(&charges, now),
            Some(_) => None,
        };
        if let Some(downgrade) = early.filter(|downgrade| downgrade.model != call.facts.model) {
            let progress = Progress { downgrade: Some(downgrade), ..progress };
            return self.admit_under(plan, call, progress, now);
        }
        match self.budgets.verdict(&charges, progress.round, now) {
            Verdict::Covered => {
                let remaining = self.budgets.remaining(&charges, now);
                let downgraded_by = progress.downgrade.map(|downgrade| downgrade.budget);
                let decided = Some(decided);
                let shares =
                    Shares { charges: needs, remaining, downgraded_by, watched: None, decided };
                self.watch(plan, call, actor, admission, shares, now)
            }
            Verdict::Ask(accounts) => {
                let progress = Progress { round: progress.round.saturating_add(1), ..progress };
                Ok(AdmitAnswer::Ask { accounts, progress: serde_json::to_string(&progress)? })
            }
            Verdict::Refused(refused) => match (progress.downgrade, refused.downgrade) {
                (None, Some(downgrade)) if downgrade.model != call.facts.model => {
                    let progress = Progress { round: 0, downgrade: Some(downgrade) };
                    self.admit_under(plan, call, progress, now)
                }
                (first, _) => {
                    let first = first.and_then(|downgrade| downgrade.refusal);
                    let refusal = first.unwrap_or(refused.refusal);
                    decided.refuse(&refusal, &load);
                    Ok(self.refused(plan, call, &actor, refusal, decided, now))
                }
            },
        }
    }

    /// The last word is the loop breaker's: it counts requests that would pass, each once.
    fn watch(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: Actor,
        admission: Admission<'_>,
        shares: Shares,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        match self.loops.check(&self.store, plan, &call.facts, &actor, now)? {
            Ok(watched) => {
                self.place(plan, call, actor, admission, Shares { watched, ..shares }, now)
            }
            Err(refusal) => {
                let mut decided = shares.decided.unwrap_or_default();
                decided.refuse(&refusal, &self.account.load(now));
                Ok(self.refused(plan, call, &actor, *refusal, decided, now))
            }
        }
    }

    fn refused(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: &Actor,
        refusal: Refusal,
        decided: Box<Decided>,
        now: Timestamp,
    ) -> AdmitAnswer {
        self.note_refusal(plan, call, actor, &refusal, Some(decided), now);
        AdmitAnswer::Refuse { refusal: Box::new(refusal), limits: self.limits(plan, now) }
    }

    /// Commits an admission: the ceiling first, where it must rise, then the hold and the rate limits in memory.
    fn place(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: Actor,
        admission: Admission<'_>,
        shares: Shares,
        now: Timestamp,
    ) -> Result<AdmitAnswer, MeterError> {
        let room = admission.budget_remaining.into_iter().chain(shares.remaining).min();
        let near = room.is_some_and(|room| is_near(room, admission.hold));
        let slack = if near { Some(Usd::ZERO) } else { room };
        if let Some(ceiling) = self.account.raised_ceiling(admission.hold, slack, now) {
            let before = self.account.ceiling();
            self.account.set_ceiling(ceiling);
            if let Err(error) = self.save_state() {
                self.account.set_ceiling(before);
                return Err(error);
            }
        }
        let hold = Hold {
            id: call.id.clone(),
            at: now,
            expires_at: now.plus_ms(HOLD_LIFETIME_MS),
            amount: admission.hold,
            tokens: admission.hold_tokens,
        };
        let learns = admission.targets.first().filter(|_| learns(plan));
        let ticket = Ticket {
            hold,
            endpoint: call.facts.endpoint.clone(),
            stream: call.stream,
            requested_model: call.facts.model.clone(),
            actor,
            labels: call.labels.clone(),
            charges: shares.charges,
            learns: learns.map(|target| target.priced_as.clone()),
            downgraded_by: shares.downgraded_by,
            under: None,
            sublet: None,
            network: call.facts.ip.map(network_of),
            watched: shares.watched,
            trace: call.span(plan),
            decided: shares.decided,
        };
        if near {
            self.store.remember_ticket(&ticket)?;
            self.journaled.insert(ticket.hold.id.clone());
        }
        self.near = near;
        // After this point the admission must succeed.
        self.account.requests = admission.load.requests;
        self.account.tokens = admission.load.tokens;
        self.account.place(ticket.hold.clone());
        self.budgets.wallet.place(&ticket.charges, now);
        self.tickets.insert(ticket.hold.id.clone(), ticket.clone());
        let hot = self.warm_up(plan, &ticket, now);
        self.admitted += 1;
        let limits = self.limits(plan, now);
        Ok(AdmitAnswer::Admit(Box::new(Admitted {
            hot,
            ticket,
            workspace: plan.workspace.clone(),
            targets: targets_of(admission.targets),
            attempts: admission.route.attempts,
            first_byte_timeout_ms: admission.route.first_byte_timeout_ms,
            idle_timeout_ms: admission.route.idle_timeout_ms,
            set_max_output_tokens: admission.set_max_output_tokens,
            budget_remaining: room,
            limits,
        })))
    }

    pub(super) fn note_refusal(
        &mut self,
        plan: &KeyPlan,
        call: &AdmitCall,
        actor: &Actor,
        refusal: &Refusal,
        decided: Option<Box<Decided>>,
        now: Timestamp,
    ) {
        let mut event = blank_event(plan, call.id.clone(), &call.facts, now);
        event.actor = actor.clone();
        event.labels = call.labels.clone();
        event.stream = call.stream;
        let span = call.span(plan);
        (event.trace_id, event.span_id) = span.map(|span| (span.trace_id, span.span_id)).unzip();
        event.code = Some(refusal.code().to_owned());
        event.status = status_of(refusal);
        event.decided = decided;
        self.refusals.note(event, now);
    }
}

/// Whether a cap is so near that what a crash leaves unclear could pass it.
fn is_near(room: Usd, hold: Usd) -> bool {
    room.pico() < hold.pico().saturating_mul(NEAR_HOLDS)
}

fn refuse(refusal: Refusal) -> AdmitAnswer {
    AdmitAnswer::Refuse { refusal: Box::new(refusal), limits: Limits::default() }
}

/// Where an admitted request goes, with all that asking there takes.
pub fn targets_of(targets: Vec<Chosen<'_>>) -> Vec<AdmittedTarget> {
    let target = |chosen: Chosen<'_>| AdmittedTarget {
        provider: chosen.provider.name.clone(),
        kind: chosen.provider.kind.clone(),
        base_url: chosen.provider.base_url.clone(),
        credential: chosen.provider.credential.clone(),
        auth_header: chosen.provider.auth_header.clone(),
        api_version: chosen.provider.api_version.clone(),
        region: chosen.provider.region.clone(),
        model: chosen.model,
        price: chosen.price.cloned(),
    };
    targets.into_iter().map(target).collect()
}

/// Whether a hash is that of one of the key's secrets.
pub fn authentic(plan: &KeyPlan, sha256: &str, now: Timestamp) -> bool {
    use subtle::ConstantTimeEq;
    plan.secrets.iter().any(|secret| {
        secret.expires_at.is_none_or(|end| end > now)
            && bool::from(secret.sha256.as_bytes().ct_eq(sha256.as_bytes()))
    })
}
