//! Throughput that is paid for by the hour, used or not (AWS and Azure: provisioned throughput; FOCUS: a commitment
//! discount of the category Usage), and what of it real traffic leaves idle.
//!
//! Traffic is known by the hour. A commitment's units, an hour's need of them and what goes beyond them are all counted in
//! millionths of a unit; what the beyond costs by the token is its part of the hour's tokens at list price.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::market::{Market, STANDARD, prices, rerate};
use super::mul_div;
use super::savings::{Certainty, Kind, Opportunity};
use super::traffic::Traffic;
use crate::money::Usd;
use crate::pricing::{Day, PriceRow};
use crate::time::{HOUR_MS, Timestamp};

/// Millionths of a unit.
const UNIT: u128 = 1_000_000;
const MINUTES: u128 = 60;
/// Hours of a month of 30 days, for what is said by the month.
const HOURS_PER_MONTH: i128 = 720;
/// Fewer hours say nothing: a day and a night.
const LEAST_HOURS: i64 = 24;
/// A week has a weekend; two weeks without a request are no chance.
const WEEK_HOURS: i64 = 7 * 24;

/// Throughput that is paid for by the hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// The provider, by the workspace's name for it.
    pub provider: String,
    /// The model, or the deployment, as requests that reach the provider name it.
    pub model: String,
    /// Units: model units, PTUs, ...
    pub units: u64,
    /// The price of a unit for an hour, used or not.
    pub usd_per_unit_hour: Usd,
    /// What one unit takes.
    pub tokens_per_minute: TokensPerMinute,
    /// Whether input and output take from one capacity, as with Azure's PTUs, or each has its own, as with Bedrock's
    /// model units.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared_capacity: bool,
    /// The first day, UTC; absent: before all traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Day>,
    /// The first day that it does not cover, UTC; absent: no end is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Day>,
}

/// What one unit takes in a minute, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TokensPerMinute {
    /// Input alone, cached or not.
    pub input: u64,
    /// Output alone.
    pub output: u64,
}

/// The tokens of one provider and model within an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hour {
    /// When it begins, in milliseconds since 1970.
    pub at_ms: i64,
    /// The provider, by the workspace's name for it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Input at the full price.
    pub input: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache.
    pub cache_write: u64,
    /// Output.
    pub output: u64,
    /// The longest input of a request.
    pub longest_input: u64,
    /// What the requests were charged.
    pub charged: Usd,
}

/// Where traffic was looked at.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// What is for sale.
    pub market: &'a Market,
    /// From this hour on: the workspace has no traffic before it was there.
    pub from: Timestamp,
    /// The time; the hour that is not over is left out.
    pub at: Timestamp,
}

/// What an hour needs, in millionths of a unit, and what its tokens cost by the token.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    input: u128,
    output: u128,
    on_demand: i128,
}

impl Load {
    fn add(&mut self, hour: &Hour, on_demand: Usd) -> Option<()> {
        let input = [hour.input, hour.cache_read, hour.cache_write].map(u128::from);
        self.input = input.iter().try_fold(self.input, |sum, part| sum.checked_add(*part))?;
        self.output = self.output.checked_add(hour.output.into())?;
        self.on_demand = self.on_demand.checked_add(on_demand.pico())?;
        Some(())
    }
}

/// A commitment with the traffic of its hours.
struct Use<'a> {
    id: &'a str,
    terms: &'a Commitment,
    /// Whole hours that it was looked at for.
    hours: i64,
    /// Its own traffic: need, cost by the token.
    own: BTreeMap<i64, (u128, i128)>,
    /// Traffic of the same model elsewhere, likewise.
    other: BTreeMap<i64, (u128, i128)>,
    /// Where that is.
    others: BTreeSet<(String, String)>,
    tokens: u128,
    /// Whether the model has a list price.
    priced: bool,
}

/// Names that traffic of the commitments' models may have: what to ask the Ledger for.
pub fn models_of(
    commitments: &BTreeMap<String, Commitment>,
    market: &Market,
    at: Timestamp,
) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for terms in commitments.values() {
        names.insert(terms.model.clone());
        let Some(row) = market.listed(&terms.provider, &terms.model, at) else { continue };
        names.insert(row.model.clone());
        let aliases = market.sellers.values().flat_map(|seller| &seller.models);
        let aliases = aliases.filter(|(_, priced_as)| **priced_as == row.model);
        names.extend(aliases.map(|(alias, _)| alias.clone()));
    }
    names
}

/// What each commitment leaves idle, as opportunities by the month. `None` when a sum does not fit.
pub(super) fn idle(
    commitments: &BTreeMap<String, Commitment>,
    hours: &[Hour],
    span: &Span<'_>,
) -> Option<Vec<Opportunity>> {
    let mut found = Vec::new();
    for (id, terms) in commitments {
        if let Some(used) = Use::of(id, terms, hours, span)? {
            found.extend(used.give_back()?);
            found.extend(used.move_onto()?);
        }
    }
    Some(found)
}

impl<'a> Use<'a> {
    /// The use of a commitment within a span; nothing where it is over, or hardly began.
    fn of(
        id: &'a str,
        terms: &'a Commitment,
        hours: &[Hour],
        span: &Span<'_>,
    ) -> Option<Option<Self>> {
        if terms.to.is_some_and(|to| to.start() <= span.at) {
            return Some(None);
        }
        let from = terms.from.map_or(span.from, |from| from.start().max(span.from));
        let (from, to) = (from.start_of_hour().ms(), span.at.start_of_hour().ms());
        let count = to.saturating_sub(from) / HOUR_MS;
        if count < LEAST_HOURS {
            return Some(None);
        }
        let listed = span.market.listed(&terms.provider, &terms.model, span.at);
        let (mut own, mut other) = (BTreeMap::<i64, Load>::new(), BTreeMap::<i64, Load>::new());
        let (mut others, mut tokens) = (BTreeSet::new(), 0_u128);
        for hour in hours.iter().filter(|hour| (from..to).contains(&hour.at_ms)) {
            if (&hour.provider, &hour.model) == (&terms.provider, &terms.model) {
                let on_demand = listed.and_then(|row| at_list(row, hour)).unwrap_or_default();
                let load = own.entry(hour.at_ms).or_default();
                load.add(hour, on_demand)?;
            } else if let Some(row) = span.market.price(&hour.provider, &hour.model, span.at)
                && listed.is_some_and(|listed| listed.model == row.model)
            {
                // No more than it was charged, so that a discount is not saved again.
                let paid = at_list(row, hour).map_or(hour.charged, |list| list.min(hour.charged));
                other.entry(hour.at_ms).or_default().add(hour, paid)?;
                others.insert((hour.provider.clone(), hour.model.clone()));
            }
        }
        for load in own.values() {
            tokens = tokens.checked_add(load.input)?.checked_add(load.output)?;
        }
        let needs = |loads: BTreeMap<i64, Load>| {
            let need = |(at, load): (i64, Load)| Some((at, (terms.need(&load)?, load.on_demand)));
            loads.into_iter().map(need).collect::<Option<BTreeMap<_, _>>>()
        };
        let (own, other) = (needs(own)?, needs(other)?);
        let priced = listed.is_some();
        Some(Some(Self { id, terms, hours: count, own, other, others, tokens, priced }))
    }

    fn capacity(&self, units: u64) -> u128 {
        u128::from(units).saturating_mul(UNIT)
    }

    /// What so many units and the tokens beyond them cost.
    fn cost(&self, units: u64) -> Option<i128> {
        let hours = i128::from(units).checked_mul(i128::from(self.hours))?;
        let mut sum = self.terms.usd_per_unit_hour.pico().checked_mul(hours)?;
        let capacity = self.capacity(units);
        for (need, on_demand) in self.own.values().filter(|(need, _)| *need > capacity) {
            let beyond = i128::try_from(need.checked_sub(capacity)?).ok()?;
            sum = sum.checked_add(mul_div(*on_demand, beyond, i128::try_from(*need).ok()?)?)?;
        }
        Some(sum)
    }

    /// How many units are cheapest with what goes beyond them paid by the token. Each further unit takes less of that than
    /// the one before, so a search by halves finds them. Without a list price: as many as the busiest hour needs.
    fn best(&self) -> Option<u64> {
        let all = self.terms.units;
        if !self.priced {
            let peak = self.own.values().map(|(need, _)| *need).max().unwrap_or_default();
            return Some(u64::try_from(peak.div_ceil(UNIT)).unwrap_or(all).min(all));
        }
        let (mut least, mut most) = (0, all);
        while least < most {
            let middle = least + (most - least) / 2;
            if self.cost(middle + 1)? >= self.cost(middle)? {
                most = middle;
            } else {
                least = middle + 1;
            }
        }
        Some(least)
    }

    /// Units that cost more than they take.
    fn give_back(&self) -> Option<Option<Opportunity>> {
        let (all, kept) = (self.terms.units, self.best()?);
        let (now, then) = (self.cost(all)?, self.cost(kept)?);
        let saves = now.checked_sub(then)?;
        if kept == all || saves <= 0 {
            return Some(None);
        }
        let action = match kept {
            0 => "Give the commitment up when its term ends, and pay for these tokens one by one."
                .to_owned(),
            _ => format!(
                "Keep {kept} of {all} units when the term ends; tokens beyond them are paid one by one."
            ),
        };
        let mut found = self.opportunity("give_back", saves, action)?;
        found.evidence.extend([
            ("units_to_keep".to_owned(), kept.to_string()),
            ("then_usd".to_owned(), Usd::from_pico(then).to_string()),
        ]);
        found.certainty = match (self.tokens, self.hours) {
            (0, hours) if hours >= 2 * WEEK_HOURS => Certainty::High,
            (_, hours) if hours >= WEEK_HOURS => Certainty::Medium,
            _ => Certainty::Low,
        };
        found.caveat = format!(
            "Hours are averages: a busy minute needs more than its hour shows. What does not pass the gateway is not seen. {}",
            self.end()
        );
        Some(Some(found))
    }

    /// What is paid by the token for the same model elsewhere, and would fit.
    fn move_onto(&self) -> Option<Option<Opportunity>> {
        let capacity = self.capacity(self.terms.units);
        let (mut saves, mut paid) = (0_i128, 0_i128);
        for (at, (need, cost)) in &self.other {
            paid = paid.checked_add(*cost)?;
            let taken = self.own.get(at).map_or(0, |(need, _)| *need);
            let fits = capacity.saturating_sub(taken).min(*need);
            let part = i128::try_from(fits).ok().zip(i128::try_from(*need).ok());
            if let Some((fits, need)) = part.filter(|(_, need)| *need > 0) {
                saves = saves.checked_add(mul_div(*cost, fits, need)?)?;
            }
        }
        if saves <= 0 {
            return Some(None);
        }
        let names: Vec<String> =
            self.others.iter().map(|(provider, model)| format!("{provider}/{model}")).collect();
        let (names, terms) = (names.join(", "), self.terms);
        let action = format!(
            "Send requests for {names} to {}/{} while it has room.",
            terms.provider, terms.model
        );
        let mut found = self.opportunity("move", saves, action)?;
        let fits = percent(saves.unsigned_abs(), paid.unsigned_abs());
        found.evidence.extend([
            ("paid_by_the_token".to_owned(), names),
            ("paid_by_the_token_usd".to_owned(), Usd::from_pico(paid).to_string()),
            ("of_it_fits_percent".to_owned(), fits),
        ]);
        found.certainty = if self.hours >= WEEK_HOURS { Certainty::Medium } else { Certainty::Low };
        found.caveat = format!(
            "Hours are averages: in a busy minute less fits than its hour shows. {}",
            self.end()
        );
        found.streams.extend(self.others.iter().cloned());
        Some(Some(found))
    }

    fn end(&self) -> String {
        match self.terms.to {
            Some(day) => format!("The commitment ends on {day}."),
            None => "When its term ends is not declared (`to`).".to_owned(),
        }
    }

    fn opportunity(&self, way: &str, saves: i128, action: String) -> Option<Opportunity> {
        let Commitment { provider, model, units, usd_per_unit_hour, .. } = self.terms;
        let month = mul_div(saves, HOURS_PER_MONTH, self.hours.into())?;
        let capacity = self.capacity(*units);
        let hours = u128::try_from(self.hours).ok()?;
        let used = self.own.values().map(|(need, _)| (*need).min(capacity));
        let used = used.fold(0_u128, u128::saturating_add);
        let busiest =
            self.own.iter().max_by_key(|(at, (need, _))| (*need, std::cmp::Reverse(**at)));
        let fixed = usd_per_unit_hour
            .pico()
            .checked_mul(i128::from(*units))?
            .checked_mul(i128::from(self.hours))?;
        let by_token = self.own.values().try_fold(0_i128, |sum, (_, it)| sum.checked_add(*it))?;
        let mut evidence = vec![
            ("commitment", self.id.to_owned()),
            ("units", units.to_string()),
            ("hours", self.hours.to_string()),
            ("idle_hours", hours.saturating_sub(self.own.len() as u128).to_string()),
            ("utilisation_percent", percent(used, capacity.saturating_mul(hours))),
            ("tokens", self.tokens.to_string()),
            ("commitment_usd", Usd::from_pico(fixed).to_string()),
        ];
        if let Some((at, (need, _))) = busiest {
            evidence.push(("busiest_hour", Timestamp::from_ms(*at).to_string()));
            evidence.push(("busiest_hour_percent", percent(*need, capacity)));
        }
        if self.priced {
            evidence.push(("on_demand_usd", Usd::from_pico(by_token).to_string()));
        }
        let named = |(name, value): (&str, String)| (name.to_owned(), value);
        let filters = [("provider", provider), ("model", model)];
        Some(Opportunity {
            id: format!("{}:{}:{way}", Kind::IdleCommitment.name(), self.id),
            kind: Kind::IdleCommitment,
            feature: String::new(),
            provider: provider.clone(),
            model: model.clone(),
            action,
            evidence: evidence.into_iter().map(named).collect(),
            saves_usd: Usd::from_pico(month).round_down_to_nanos(),
            certainty: Certainty::Low,
            caveat: String::new(),
            requests: filters.map(|(name, value)| (name.to_owned(), value.clone())).into(),
            excludes: Vec::new(),
            counted: false,
            streams: vec![(provider.clone(), model.clone())],
        })
    }
}

impl Commitment {
    /// The millionths of a unit that an hour's tokens need, rounded up.
    fn need(&self, load: &Load) -> Option<u128> {
        let part = |tokens: u128, per_minute: u64| {
            let capacity = u128::from(per_minute).checked_mul(MINUTES).filter(|it| *it > 0)?;
            Some(tokens.checked_mul(UNIT)?.div_ceil(capacity))
        };
        let input = part(load.input, self.tokens_per_minute.input)?;
        let output = part(load.output, self.tokens_per_minute.output)?;
        if self.shared_capacity { input.checked_add(output) } else { Some(input.max(output)) }
    }
}

/// What an hour's tokens cost at list price.
fn at_list(row: &PriceRow, hour: &Hour) -> Option<Usd> {
    let traffic = Traffic {
        input: hour.input,
        cache_read: hour.cache_read,
        cache_write: hour.cache_write,
        output: hour.output,
        ..Traffic::default()
    };
    rerate(prices(row, STANDARD, hour.longest_input)?, &traffic)
}

/// A part of a whole in per cent, with two digits.
fn percent(part: u128, whole: u128) -> String {
    let points = part.saturating_mul(10_000).checked_div(whole).unwrap_or_default();
    format!("{}.{:02}", points / 100, points % 100)
}

#[cfg(test)]
#[path = "commitments_tests.rs"]
mod tests;
