//! A Meter's side of shared budgets: what a request takes of each, whether the leases at hand cover it, and what is said
//! to and heard from the Budgets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tallygate_shared::budget::expectation::Expectations;
use tallygate_shared::budget::lease::wallet::{Need, Remembered, Wallet};
use tallygate_shared::budget::lease::{Units, money_units};
use tallygate_shared::budget::terms::{
    BudgetTerms, CapAction, LineKind, Mode, Wanted, account_name, account_parts,
};
use tallygate_shared::events::decision::Decided;
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::Admission;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::policy::shared_budget::{is_denied, refusal_of};
use tallygate_shared::time::Timestamp;

use super::budget_calls::{Recall, Returned, SyncAnswer, SyncCall};
use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::request::step::MeterReply;

/// How often a request asks Budgets before it is told to come back: each time others were faster.
const MOST_ROUNDS: u8 = 6;
/// For so long a refusal stands without asking again: money that is spent does not come back by itself.
const DENIAL_MS: i64 = 1_000;
/// Refusals remembered at once.
const DENIALS: usize = 1_000;

/// What a request has been through on its way to an admission. It travels with the request, so that the Meter keeps
/// nothing for one that never comes back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Progress {
    /// How often it has asked Budgets.
    pub round: u8,
    /// The budget that has it served by a cheaper model, and which.
    pub downgrade: Option<Downgrade>,
}

/// A cheaper model in place of the one that was named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Downgrade {
    /// The budget that demands it.
    pub budget: String,
    /// The model.
    pub model: String,
    /// What the caller hears if that is not to be had either.
    pub refusal: Option<Refusal>,
}

/// The leases of a Meter and what it has learned about its Budgets.
#[derive(Debug, Default)]
pub(super) struct Budgets {
    pub(super) wallet: Wallet,
    pub(super) expectations: Expectations,
    pub(super) learned: bool,
    pub(super) calls: u64,
    unsaved: BTreeMap<(String, String), Units>,
    denials: BTreeMap<(String, String), (Units, Timestamp)>,
}

/// What the leases say to a request.
pub(super) enum Verdict {
    /// All of it is covered.
    Covered,
    /// These Budgets must be asked.
    Ask(Vec<String>),
    /// One has no room.
    Refused(Box<Refused>),
}

/// A budget without room.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) downgrade: Option<Downgrade>,
}

/// A request's budgets: terms and what it takes.
pub struct Charge<'p> {
    name: &'p str,
    value: String,
    terms: &'p BudgetTerms,
    needs: Vec<Need>,
}

/// What an admission takes of each budget that applies.
pub fn charges_of<'p>(
    plan: &'p KeyPlan,
    actor: &Actor,
    admission: &Admission<'_>,
    expectations: &Expectations,
    now: Timestamp,
) -> Vec<Charge<'p>> {
    let spender = plan.spender(actor);
    let priced_as = admission.targets.first().map_or("", |target| target.priced_as.as_str());
    let wanted = Wanted {
        worst: admission.hold,
        expected: expectations.expected(priced_as, admission.hold),
        tokens: admission.hold_tokens,
    };
    let charge = |(name, terms): (&'p String, &'p BudgetTerms)| {
        let value = terms.applies_to(&spender)?;
        let account = account_name(&plan.workspace, name, value);
        let needs = terms.needs(&account, &wanted, now);
        Some(Charge { name, value: value.to_owned(), terms, needs })
    };
    plan.budgets.iter().filter_map(charge).collect()
}

/// All needs of all budgets.
pub fn needs_of(charges: &[Charge<'_>]) -> Vec<Need> {
    charges.iter().flat_map(|charge| charge.needs.iter().cloned()).collect()
}

/// Writes down which shared budgets a request was held against. What they had left, their leases do not say.
pub fn note_budgets(decided: &mut Decided, charges: &[Charge<'_>], hold: Usd) {
    for charge in charges {
        decided.add_budget(charge.name, charge.terms.limit_usd, hold);
    }
}

/// Whether any of the budgets learns from what requests cost.
pub(super) fn learns(plan: &KeyPlan) -> bool {
    plan.budgets.values().any(|terms| terms.mode == Mode::Expected)
}

impl Charge<'_> {
    fn downgrade(&self, refusal: Option<Refusal>) -> Option<Downgrade> {
        let at_cap = &self.terms.at_cap;
        let model = at_cap.model.clone().filter(|_| at_cap.action == CapAction::Downgrade)?;
        Some(Downgrade { budget: self.name.to_owned(), model, refusal })
    }
}

impl Budgets {
    /// The cheaper model that a budget demands before its cap is reached, if one does.
    pub(super) fn early_downgrade(
        &self,
        charges: &[Charge<'_>],
        now: Timestamp,
    ) -> Option<Downgrade> {
        charges.iter().find_map(|charge| {
            let from = charge.terms.at_cap.from_percent;
            let limit = charge.terms.limit_at(now).filter(|_| from < 100)?;
            let line = charge.terms.money_line(now);
            let need = charge.needs.first()?;
            let lease = self.wallet.get(&need.account, &line)?;
            let spent = Usd::from_nanos(lease.standing().spent.saturating_add(lease.unreported()));
            let reached =
                spent.pico().saturating_mul(100) >= limit.pico().saturating_mul(i128::from(from));
            if reached { charge.downgrade(None) } else { None }
        })
    }

    /// What the leases say. With `round` above 0, the Budgets have just been asked.
    pub(super) fn verdict(&mut self, charges: &[Charge<'_>], round: u8, now: Timestamp) -> Verdict {
        let mut ask: Vec<String> = Vec::new();
        for charge in charges {
            for need in self.wallet.shortage(&charge.needs, now) {
                if let Some(refusal) = self.denied(charge, need, round, now) {
                    let spent = matches!(refusal, Refusal::BudgetExceeded { .. });
                    let downgrade =
                        if spent { charge.downgrade(Some(refusal.clone())) } else { None };
                    self.remember_denial(need, spent, now);
                    return Verdict::Refused(Box::new(Refused { refusal, downgrade }));
                }
                if !ask.contains(&need.account) {
                    ask.push(need.account.clone());
                }
            }
        }
        if ask.is_empty() {
            return Verdict::Covered;
        }
        // All lines of an account that is asked are waited for: a report gives back what nobody waits for, and a request
        // that gained one line and lost the other with the same call would never get both.
        let all = charges.iter().flat_map(|charge| &charge.needs);
        let waiting: Vec<&Need> = all.filter(|need| ask.contains(&need.account)).collect();
        self.wallet.wait(&waiting, now);
        Verdict::Ask(ask)
    }

    /// The refusal of a need that its Budget is known to have no room for.
    fn denied(
        &self,
        charge: &Charge<'_>,
        need: &Need,
        round: u8,
        now: Timestamp,
    ) -> Option<Refusal> {
        let lease =
            self.wallet.get(&need.account, &need.line).filter(|lease| lease.is_open(now))?;
        let standing = lease.standing();
        let known = if round == 0 {
            let key = (need.account.clone(), need.line.clone());
            self.denials.get(&key).is_some_and(|(units, at)| {
                need.units >= *units && (0..DENIAL_MS).contains(&now.since_ms(*at))
            })
        } else {
            round >= MOST_ROUNDS || is_denied(&need.line, need.units, &standing)
        };
        known.then(|| refusal_of(charge.name, &charge.value, charge.terms, need, &standing, now))
    }

    fn remember_denial(&mut self, need: &Need, spent: bool, now: Timestamp) {
        // What is only held may be free again at any moment.
        if !spent {
            return;
        }
        if self.denials.len() >= DENIALS {
            self.denials.clear();
        }
        self.denials
            .entry((need.account.clone(), need.line.clone()))
            .and_modify(|(units, at)| {
                let stale = now.since_ms(*at).abs() >= DENIAL_MS;
                if stale || need.units < *units {
                    (*units, *at) = (need.units, now);
                }
            })
            .or_insert((need.units, now));
    }

    /// The least that the money of these budgets leaves after the request.
    pub(super) fn remaining(&self, charges: &[Charge<'_>], now: Timestamp) -> Option<Usd> {
        let left = |charge: &Charge<'_>| {
            let limit = charge.terms.limit_at(now)?;
            let need = charge.needs.first()?;
            let lease = self.wallet.get(&need.account, &charge.terms.money_line(now))?;
            let standing = lease.standing();
            let taken = standing
                .spent
                .saturating_add(lease.unreported())
                .saturating_add(standing.held.max(lease.keep(now)));
            Some(limit.remaining_after(Usd::from_nanos(taken)))
        };
        charges.iter().filter_map(left).min()
    }
}

impl<S: Sql> MeterObject<S> {
    /// Has in memory what storage knows of the leases that these needs touch.
    pub(super) fn load_leases<'n>(
        &mut self,
        needs: impl Iterator<Item = (&'n str, &'n str)>,
        now: Timestamp,
    ) -> Result<(), MeterError> {
        for (account, line) in needs {
            if self.budgets.wallet.get(account, line).is_some() {
                continue;
            }
            let is_money = LineKind::of(line).is_some_and(LineKind::is_money);
            let spent = if is_money { self.store.budget_spent(account, line)? } else { 0 };
            let (account, line) = (account.to_owned(), line.to_owned());
            self.budgets.wallet.remember(Remembered { account, line, spent }, now);
        }
        Ok(())
    }

    /// Books a request's end in its budgets: in memory, and in the transaction that surrounds this call.
    pub(super) fn settle_charges(
        &mut self,
        charges: &[Need],
        known: bool,
        charged: Usd,
        tokens_used: Option<u64>,
        now: Timestamp,
    ) -> Result<(), MeterError> {
        if charges.is_empty() {
            return Ok(());
        }
        self.load_leases(charges.iter().map(|c| (c.account.as_str(), c.line.as_str())), now)?;
        let money = money_units(charged);
        let tokens = tokens_used.map(|tokens| Units::try_from(tokens).unwrap_or(Units::MAX));
        let cost = |charge: &Need| match LineKind::of(&charge.line) {
            Some(LineKind::Money | LineKind::Worst) => money,
            Some(LineKind::Tokens) => tokens.unwrap_or(charge.units),
            Some(LineKind::Slots) => 0,
            Some(LineKind::Requests) | None => charge.units,
        };
        for charge in charges {
            let is_money = LineKind::of(&charge.line).is_some_and(LineKind::is_money);
            if is_money && money != 0 {
                let line = (charge.account.clone(), charge.line.clone());
                let unsaved = self.budgets.unsaved.entry(line).or_default();
                *unsaved = unsaved.saturating_add(money);
            }
        }
        self.budgets.wallet.settle(charges, known, now, cost);
        if !known {
            self.tell_unclear(now);
        }
        Ok(())
    }

    /// Writes down what the settlements of this transaction spent of shared budgets.
    pub(super) fn save_charges(&mut self, now: Timestamp) -> Result<(), MeterError> {
        for ((account, line), units) in std::mem::take(&mut self.budgets.unsaved) {
            self.store.add_budget_spent(&account, &line, units, now)?;
        }
        Ok(())
    }

    /// What a restart left unclear, as the wallet counts it.
    pub(super) fn tell_unclear(&mut self, now: Timestamp) {
        let unclear = self.account.unclear();
        self.budgets.wallet.set_unclear(
            unclear.map_or((0, now), |unclear| (money_units(unclear.amount), unclear.until)),
        );
    }

    /// What to tell one account's Budget.
    pub fn sync_call(&mut self, account: &str, now: Timestamp) -> Result<String, MeterError> {
        self.budgets.calls += 1;
        let plan = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
        let terms = account_parts(account).and_then(|(_, name, _)| plan.budgets.get(name));
        let call = SyncCall {
            account: account.to_owned(),
            meter: plan.key.as_str().to_owned(),
            plan_version: plan.version,
            terms: terms.cloned(),
            reports: self.budgets.wallet.reports(account, now),
        };
        Ok(serde_json::to_string(&call)?)
    }

    /// What its Budget answered.
    pub fn synced(
        &mut self,
        account: &str,
        answer: &str,
        now: Timestamp,
    ) -> Result<(), MeterError> {
        let answer: SyncAnswer = serde_json::from_str(answer)?;
        // What was refused under an older answer may pass under this one.
        self.budgets.denials.retain(|(denied, _), _| denied != account);
        for (line, grant) in &answer.grants {
            let is_money = LineKind::of(line).is_some_and(LineKind::is_money);
            self.budgets.wallet.granted(account, line, grant, is_money, now);
        }
        Ok(())
    }

    /// Gives back all that no request needs of these lines.
    pub fn recall(
        &mut self,
        account: &str,
        recall: &str,
        now: Timestamp,
    ) -> Result<String, MeterError> {
        let Recall { meter, lines } = serde_json::from_str(recall)?;
        self.load_leases(lines.iter().map(|line| (account, line.as_str())), now)?;
        let reports = self.budgets.wallet.give_back(account, &lines, now);
        Ok(serde_json::to_string(&Returned { meter, reports })?)
    }

    /// Accounts whose Budgets should hear of this Meter by now.
    pub fn due_accounts(&self, now: Timestamp) -> Vec<String> {
        self.budgets.wallet.due(now)
    }

    /// The accounts that a key's holder asks about: those of the budgets that apply to the key, or to the signed actor.
    pub fn budget_accounts(
        &mut self,
        call: &str,
        now: Timestamp,
    ) -> Result<BudgetAccounts, MeterError> {
        let question: BudgetQuestion = serde_json::from_str(call)?;
        let plan = match self.authenticate(&question.key_sha256, now) {
            Ok(plan) => plan.clone(),
            Err(refusal) => return Ok(refused_accounts(refusal)),
        };
        let actor = match self.actor_of(&plan, question.actor_token.as_deref(), now) {
            Ok(actor) => actor,
            Err(tallygate_shared::identity::actor::ActorError::Missing) => plan.owner.actor.clone(),
            Err(error) => {
                let refusal =
                    Refusal::Actor { code: error.code().to_owned(), detail: error.to_string() };
                return Ok(refused_accounts(refusal));
            }
        };
        // A report of each line makes the Budget know the terms, even before the first request.
        let nothing = Wanted { worst: Usd::ZERO, expected: Usd::ZERO, tokens: 0 };
        let mut accounts = Vec::new();
        let mut needs = Vec::new();
        for (name, value, terms) in plan.budgets_of(&actor) {
            let account = account_name(&plan.workspace, name, value);
            needs.extend(terms.needs(&account, &nothing, now));
            accounts.push(account);
        }
        let lines = needs.iter().map(|need| (need.account.as_str(), need.line.as_str()));
        self.load_leases(lines, now)?;
        Ok(BudgetAccounts { accounts, refused: None })
    }

    /// The answer to the key's holder: the key's own caps, and what the Budgets say of themselves.
    pub fn answer_budget(&self, statuses: &str, now: Timestamp) -> Result<MeterReply, MeterError> {
        let plan = self.plan.as_ref().ok_or(MeterError::NoPlan)?;
        let statuses: Vec<Option<Box<serde_json::value::RawValue>>> =
            serde_json::from_str(statuses)?;
        let load = self.account.load(now);
        let caps = plan.policy.spend_caps.iter().map(|cap| {
            let spent = load.spent_in(cap.window);
            let (start, end) = (cap.window.start(now), cap.window.end(now));
            json!({
                "window": cap.window.name(),
                "starts_at": start.to_string(),
                "resets_at": end.map(|end| end.to_string()),
                "cap_usd": cap.limit_usd,
                "spent_usd": spent,
                "held_usd": load.held,
                "remaining_usd": cap.limit_usd.remaining_after(spent.saturating_add(load.held)),
                "pace": tallygate_shared::budget::pace::pace(cap.limit_usd, spent, start, end, now),
            })
        });
        let body = json!({
            "object": "budget",
            "key": plan.key,
            "caps": caps.collect::<Vec<_>>(),
            "budgets": statuses.iter().flatten().collect::<Vec<_>>(),
        });
        Ok(MeterReply::Found { status: 200, body: body.to_string() })
    }
}

/// A question of the key's holder about budgets.
#[derive(Deserialize)]
struct BudgetQuestion {
    key_sha256: String,
    #[serde(default)]
    actor_token: Option<String>,
}

/// The accounts to ask, or why not.
#[derive(Debug, Serialize)]
pub struct BudgetAccounts {
    /// The Budgets' names.
    pub accounts: Vec<String>,
    /// The finished answer, where the key may not ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

fn refused_accounts(refusal: Refusal) -> BudgetAccounts {
    let reply = MeterReply::Refused { refusal };
    BudgetAccounts { accounts: Vec::new(), refused: serde_json::to_string(&reply).ok() }
}
