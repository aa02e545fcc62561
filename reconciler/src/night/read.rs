//! Usage events to estimates: what each owner used, as the gateway counted and priced it. Any number of events, in any
//! order, in bounded memory.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tallygate_shared::events::usage_event::{Outcome, UsageEvent};
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::Cost;
use tallygate_shared::tokens::{Calls, Tally, Tokens, Usage};

pub use super::estimates::Estimates;
use super::estimates::Sums;
use super::line_key::Key;
pub use super::spill::SpillOptions;
use super::spill::{Run, Table};
use super::{NightError, fits};
use crate::bill::{ChargeKind, Meter, Quantity};
use crate::ledger::LineId;

/// The tier of estimates that stand for what requests of unknown usage may have cost. It keeps them in lines of their
/// own: no bill line is theirs by name, and whatever the bill has beyond the counted use is theirs first.
pub const UNCERTAIN_TIER: &str = "uncertain";

/// What one owner used on one meter, as the gateway saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// The provider, as bills name it. Empty for requests that never said where they went.
    pub provider: String,
    /// The line of the books.
    pub line: LineId,
    /// What was counted against the budgets.
    pub estimated: Usd,
    /// What was counted, in units of the meter.
    pub metered: Quantity,
    /// Requests behind it, counted on one meter of a request only.
    pub requests: u64,
    /// The most that requests of unknown usage may have cost beyond what was counted for them: the hold of a request
    /// that nobody settled; for one whose usage is our own estimate, that estimate again, within its hold; the cost of
    /// one that was carried over midnight.
    pub uncertain: Usd,
}

/// How events are read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The bill's provider and account, by the workspace's name for a provider.
    pub providers: BTreeMap<String, (String, String)>,
    /// The owner dimensions that the books keep, of [`OWNER_DIMENSIONS`].
    pub dimensions: BTreeSet<String>,
    /// When to spill, and where.
    pub spill: SpillOptions,
}

/// The owner dimensions that events know. Sessions are left out: there are about as many as requests.
pub const OWNER_DIMENSIONS: [&str; 10] = [
    "agent",
    "app",
    "cost_centre",
    "customer",
    "environment",
    "feature",
    "key",
    "owner",
    "team",
    "user",
];

impl ReadOptions {
    /// All dimensions.
    pub fn new(providers: BTreeMap<String, (String, String)>, spill: SpillOptions) -> Self {
        let dimensions = OWNER_DIMENSIONS.iter().map(|name| (*name).to_owned()).collect();
        Self { providers, dimensions, spill }
    }
}

/// What is known of a provider beyond the sums.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderFacts {
    /// The names that answers gave their model, by the price book's name of it. At most [`ALIASES_MAX`] each.
    pub aliases: BTreeMap<String, BTreeSet<String>>,
    /// The versions of the price book behind the estimates.
    pub price_versions: BTreeSet<String>,
    /// Requests that count.
    pub requests: u64,
}

/// More names than this for one model are not kept: a caller cannot make the books grow by inventing them.
pub const ALIASES_MAX: usize = 64;

impl ProviderFacts {
    /// The versions as one text, for [`crate::ledger::Content::price_version`].
    pub fn price_version(&self) -> String {
        self.price_versions.iter().map(String::as_str).collect::<Vec<_>>().join("+")
    }
}

/// Folds usage events into estimates.
pub struct Aggregator {
    options: ReadOptions,
    table: Table<Sums>,
    key: Key,
    facts: BTreeMap<String, ProviderFacts>,
    events: u64,
}

/// The sums, the facts, and how many events were read.
pub(super) type SoFar<'a> = (&'a Run<Sums>, &'a BTreeMap<String, ProviderFacts>, u64);

/// What an aggregation gives.
pub struct Aggregated {
    /// The estimates, sorted by provider and line, to be read as often as wanted.
    pub estimates: Estimates,
    /// What else is known, by provider.
    pub facts: BTreeMap<String, ProviderFacts>,
    /// Events read, those that count nothing included.
    pub events: u64,
}

impl Aggregator {
    /// An empty one.
    pub fn new(options: ReadOptions) -> Self {
        let table = Table::new(options.spill.clone());
        Self { options, table, key: Key::default(), facts: BTreeMap::new(), events: 0 }
    }

    /// One that goes on from what another had summed, and knew of providers.
    pub(super) fn going_on(
        options: ReadOptions,
        run: Run<Sums>,
        (facts, events): (BTreeMap<String, ProviderFacts>, u64),
    ) -> Self {
        let table = Table::going_on(options.spill.clone(), run);
        Self { options, table, key: Key::default(), facts, events }
    }

    /// How many lines were spilled or are in memory; at least as many as there are.
    pub(super) fn lines(&self) -> u64 {
        self.table.lines()
    }

    /// What was summed so far, and is known of providers.
    pub(super) fn so_far(&mut self) -> Result<SoFar<'_>, NightError> {
        Ok((self.table.so_far()?, &self.facts, self.events))
    }

    /// Adds one event. Each must be given once: a repeated event is counted twice.
    pub fn add(&mut self, event: &UsageEvent) -> Result<(), NightError> {
        self.events += 1;
        let place = place(&self.options.providers, event);
        let entries = entries(event, place.model)?;
        if entries.is_empty() {
            return Ok(());
        }
        note(&mut self.facts, event, &place)?;
        let mut last = None;
        for entry in &entries {
            let tier = if entry.uncertain { UNCERTAIN_TIER } else { place.tier };
            // Meters of one model differ in one byte of the key.
            if last == Some((entry.model, tier)) {
                self.key.set_meter(entry.meter);
            } else {
                let owner = owner_of(event, &self.options.dimensions);
                let (provider, account) = (place.provider, place.account);
                self.key.write(provider, account, entry.model, entry.meter, tier, owner);
                last = Some((entry.model, tier));
            }
            self.table.add(self.key.bytes(), &entry.sums)?;
        }
        Ok(())
    }

    /// Adds an event of the day before that was settled on this day: the provider may count it on either. On this day it
    /// counts nothing, but use beyond the counted is put down to it, up to its cost, before it is nobody's.
    pub fn add_carried_over(&mut self, event: &UsageEvent) -> Result<(), NightError> {
        let bound = if event.charged == Usd::ZERO { bound_of(event) } else { event.charged };
        if bound == Usd::ZERO {
            return Ok(());
        }
        if bound.is_negative() {
            return Err(negative(event));
        }
        let place = place(&self.options.providers, event);
        let owner = owner_of(event, &self.options.dimensions);
        let (provider, account) = (place.provider, place.account);
        self.key.write(provider, account, place.model, Meter::Whole, UNCERTAIN_TIER, owner);
        let sums = Sums { uncertain: bound.pico(), ..Sums::default() };
        self.table.add(self.key.bytes(), &sums)
    }

    /// Ends the reading.
    pub fn finish(self) -> Result<Aggregated, NightError> {
        let estimates = Estimates { sorted: self.table.finish()? };
        Ok(Aggregated { estimates, facts: self.facts, events: self.events })
    }
}

/// Where an event belongs, as bills name places.
fn place<'a>(
    providers: &'a BTreeMap<String, (String, String)>,
    event: &'a UsageEvent,
) -> Place<'a> {
    let attempt = event.attempts.last();
    let name = event.provider.as_deref().or(attempt.map(|last| last.provider.as_str()));
    let model = event.model.as_deref().or(attempt.map(|last| last.model.as_str()));
    let known = name.and_then(|name| providers.get_key_value(name)).or_else(|| {
        // With a single provider there is nowhere else that a request can have gone.
        let only = providers.iter().next();
        only.filter(|_| name.is_none() && providers.len() == 1)
    });
    let (mut provider, account) =
        known.map_or((name.unwrap_or(""), ""), |(_, (p, a))| (p.as_str(), a.as_str()));
    let mut place_model = model.unwrap_or("");
    let mut tier = "standard";
    if let Some(cost) = &event.cost {
        if let Some((row_provider, row_model)) = cost.price.row.split_once('/') {
            match known {
                // The price book's row, or the workspace's own, which goes by its name for the provider.
                Some((own, (listed, _))) if row_provider == own || row_provider == listed => {
                    place_model = row_model;
                }
                // The default price, which says nothing of where the request went.
                Some(_) => {}
                None => (provider, place_model) = (row_provider, row_model),
            }
        }
        // A stated cost has no tier of its own: the provider's statement covers whatever it was.
        if !cost.price.tier.is_empty() && cost.price.tier != "stated" {
            tier = &cost.price.tier;
        }
    }
    Place { provider, account, model: place_model, tier }
}

/// Takes note of what the sums do not say.
fn note(
    facts: &mut BTreeMap<String, ProviderFacts>,
    event: &UsageEvent,
    place: &Place<'_>,
) -> Result<(), NightError> {
    let (provider, model) = (place.provider, place.model);
    if !facts.contains_key(provider) {
        facts.insert(provider.to_owned(), ProviderFacts::default());
    }
    let Some(facts) = facts.get_mut(provider) else { return Ok(()) };
    facts.requests = fits(facts.requests.checked_add(1), "requests")?;
    if let Some(cost) = &event.cost
        && !facts.price_versions.contains(&cost.price.book)
    {
        facts.price_versions.insert(cost.price.book.clone());
    }
    let names = [event.response_model.as_deref(), event.model.as_deref()];
    for name in names.into_iter().flatten().filter(|name| *name != model) {
        let known = facts.aliases.get(model);
        if known.is_none_or(|known| !known.contains(name) && known.len() < ALIASES_MAX) {
            facts.aliases.entry(model.to_owned()).or_default().insert(name.to_owned());
        }
    }
    Ok(())
}

/// Where an event's money goes.
struct Place<'a> {
    provider: &'a str,
    account: &'a str,
    model: &'a str,
    tier: &'a str,
}

/// One meter of one event.
struct Entry<'a> {
    model: &'a str,
    meter: Meter,
    uncertain: bool,
    sums: Sums,
}

/// What an event counts, meter by meter. Nothing for refusals and for failures that were not billed.
fn entries<'a>(event: &'a UsageEvent, model: &'a str) -> Result<Vec<Entry<'a>>, NightError> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    let mut push = |model, meter, money: Usd, count: u64| {
        if money != Usd::ZERO || count > 0 {
            let sums = Sums::new(money.pico(), u128::from(count));
            entries.push(Entry { model, meter, uncertain: false, sums });
        }
    };
    let tally = event.usage.tally();
    if let Some(tally) = tally {
        let parts = event.cost.as_ref().map(|cost| cost.parts.clone()).unwrap_or_default();
        let output = fits(parts.output.checked_add(parts.reasoning), "output cost")?;
        let calls = counted_calls(&tally.tokens, &tally.calls);
        // A fee for the request itself counts the request.
        let calls = if calls == 0 { u64::from(parts.calls != Usd::ZERO) } else { calls };
        push(model, Meter::Input, parts.input, input_tokens(&tally.tokens));
        push(model, Meter::CacheRead, parts.cache_read, tally.tokens.cache_read_total());
        push(model, Meter::CacheWrite, parts.cache_write, tally.tokens.cache_write_total());
        push(model, Meter::Output, output, tally.tokens.output_total());
        push(model, Meter::Calls, parts.calls, calls);
        push(model, Meter::Whole, parts.stated, 0);
        for (other, money) in other_models(tally, parts.other_models, model)? {
            push(other.0, other.1, money, other.2);
        }
    } else if let Some(cost) = &event.cost {
        push(model, Meter::Whole, cost.total, 0);
    }
    let bound = bound_of(event);
    // A hold that was charged because nobody knows the cost: all of it is uncertain.
    let charged = if event.cost.is_none() { event.charged } else { Usd::ZERO };
    if charged != Usd::ZERO || bound != Usd::ZERO {
        let mut sums = Sums::new(charged.pico(), 0);
        sums.uncertain = bound.pico();
        entries.push(Entry { model, meter: Meter::Whole, uncertain: true, sums });
    }
    // An interruption stands for an unknown number of requests, which are not counted at all.
    if let Some(first) = entries.first_mut()
        && event.outcome != Outcome::Interrupted
    {
        first.sums.requests = 1;
    }
    if entries.iter().any(|entry| entry.sums.estimated < 0 || entry.sums.uncertain < 0) {
        return Err(negative(event));
    }
    check_total(event.cost.as_ref(), &entries, event)?;
    Ok(entries)
}

fn negative(event: &UsageEvent) -> NightError {
    NightError::Input {
        field: format!("cost of {:?}", event.id),
        problem: "is negative".to_owned(),
        remedy: "an estimate cannot be below 0: correct the price it was rated with",
    }
}

/// The parts of a cost must add up to it, or money would be lost here.
fn check_total(
    cost: Option<&Cost>,
    entries: &[Entry<'_>],
    event: &UsageEvent,
) -> Result<(), NightError> {
    let Some(cost) = cost else { return Ok(()) };
    let sum = entries.iter().try_fold(0_i128, |sum, entry| sum.checked_add(entry.sums.estimated));
    if fits(sum, "cost")? == cost.total.pico() {
        return Ok(());
    }
    Err(NightError::Input {
        field: format!("cost.parts of {:?}", event.id),
        problem: format!("do not add up to {}", cost.total),
        remedy: "export the event again: a cost equals the sum of its parts",
    })
}

/// The most that a request may have cost beyond what was counted for it.
fn bound_of(event: &UsageEvent) -> Usd {
    match (&event.usage, &event.cost) {
        // A refusal or a failure without a charge has a hold too, which was given back.
        _ if event.outcome == Outcome::Interrupted => event.hold,
        (_, None) if event.charged == Usd::ZERO => Usd::ZERO,
        (_, None) => event.hold.max(event.charged),
        (Usage::Reported(_), Some(_)) => Usd::ZERO,
        // Our estimate may be wrong by as much again, never past the hold.
        (Usage::Estimated(_) | Usage::Absent, Some(_)) if event.hold == Usd::ZERO => event.charged,
        (Usage::Estimated(_) | Usage::Absent, Some(_)) => {
            event.charged.min(event.hold.remaining_after(event.charged))
        }
    }
}

/// The tokens of other models in the same answer, and their money: with one other model on that model, with several on
/// the answering model, since their shares are not known.
type OtherEntry<'a> = ((&'a str, Meter, u64), Usd);

fn other_models<'a>(
    tally: &'a Tally,
    money: Usd,
    answering: &'a str,
) -> Result<Vec<OtherEntry<'a>>, NightError> {
    let mut entries = Vec::new();
    for other in &tally.other_models {
        let model = other.model.as_str();
        entries.push(((model, Meter::Input, input_tokens(&other.tokens)), Usd::ZERO));
        entries.push(((model, Meter::CacheRead, other.tokens.cache_read_total()), Usd::ZERO));
        entries.push(((model, Meter::CacheWrite, other.tokens.cache_write_total()), Usd::ZERO));
        entries.push(((model, Meter::Output, other.tokens.output_total()), Usd::ZERO));
        entries.push(((model, Meter::Calls, other.tokens.citation), Usd::ZERO));
    }
    let names: BTreeSet<&str> = tally.other_models.iter().map(|o| o.model.as_str()).collect();
    let payer = match (names.len(), names.first()) {
        (1, Some(only)) => *only,
        _ => answering,
    };
    entries.push(((payer, Meter::Whole, 0), money));
    Ok(entries)
}

/// Uncached input, whatever its modality.
pub(super) fn input_tokens(tokens: &Tokens) -> u64 {
    tokens.input.saturating_add(tokens.input_audio).saturating_add(tokens.input_image)
}

/// What [`Meter::Calls`] counts: calls, and citations, which are billed apart like them.
pub(super) fn counted_calls(tokens: &Tokens, calls: &Calls) -> u64 {
    [calls.web_search, calls.search_query, calls.search_unit, calls.audio_second, tokens.citation]
        .into_iter()
        .fold(0, u64::saturating_add)
}

/// Whose an event is: dimension and value, in the order of [`OWNER_DIMENSIONS`], which is theirs in a map.
fn owner_of<'a>(
    event: &'a UsageEvent,
    kept: &'a BTreeSet<String>,
) -> impl Iterator<Item = (&'static str, &'a str)> {
    let actor = &event.actor;
    let environment = actor.environment.as_deref().unwrap_or(&event.environment);
    let values = [
        actor.agent.as_deref(),
        actor.app.as_deref(),
        Some(event.cost_centre.as_str()),
        actor.customer.as_deref(),
        Some(environment),
        actor.feature.as_deref(),
        Some(event.key.as_str()),
        Some(event.owner.as_str()),
        actor.team.as_deref(),
        actor.user.as_deref(),
    ];
    let known = OWNER_DIMENSIONS.into_iter().zip(values);
    known.filter_map(move |(name, value)| {
        let value = value.filter(|value| !value.is_empty())?;
        kept.contains(name).then_some((name, value))
    })
}

/// An estimate from its parts, as [`Estimates`] gives them.
pub(super) fn estimate(
    provider: String,
    line: LineId,
    sums: &Sums,
) -> Result<Estimate, NightError> {
    let metered = i128::try_from(sums.metered).ok().and_then(|n| n.checked_mul(Quantity::ONE));
    Ok(Estimate {
        provider,
        line: LineId { kind: ChargeKind::Usage, ..line },
        estimated: Usd::from_pico(sums.estimated),
        metered: Quantity::from_pico(fits(metered, "metered quantity")?),
        requests: sums.requests,
        uncertain: Usd::from_pico(sums.uncertain),
    })
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
