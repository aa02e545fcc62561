//! What could cost less: opportunities with their evidence, what they come to in a month, and how sure that is.
//!
//! An opportunity is about the traffic of one feature at one model, and claims its input, its output or both. Two that
//! claim the same tokens exclude each other: of those only the largest is counted, so the total never counts twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::archetype::{Archetype, compare};
use super::commitments::{Commitment, Hour, Span, idle};
use super::dollars;
use super::market::{BATCH, Market, STANDARD, at_price, cache_write, is_chat, prices, rerate};
use super::traffic::Traffic;
use crate::money::{Usd, div_half_even};
use crate::pricing::{Call, PriceRow, Prices};
use crate::time::{DAY_MS, Timestamp};

/// Days of a month, for what is said by the month.
const DAYS_PER_MONTH: i128 = 30;
/// What saves less in a month is not worth a row: a cent.
const LEAST_PICO: i128 = 10_000_000_000;
/// The shortest prompt prefix that providers cache.
const LEAST_PREFIX: u64 = 1_024;
/// Fewer requests say nothing about a pattern.
const LEAST_REQUESTS: u64 = 10;
/// A model that is taken away sooner is no advice.
const RETIRES_SOON_MS: i64 = 90 * DAY_MS;
/// Names of work that nobody waits for.
const PATIENT: [&str; 10] =
    ["batch", "nightly", "etl", "index", "backfill", "offline", "bulk", "report", "eval", "cron"];

/// The traffic of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The feature; empty for none.
    pub feature: String,
    /// The keys' purpose.
    pub purpose: String,
    /// The keys' environment.
    pub environment: String,
    /// The provider, by the workspace's name for it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// Where none of it was streamed or belongs to a session, its requests by the hour of the day, UTC. Those of a whole
    /// day may be spread evenly over its hours with requests.
    pub by_hour: BTreeMap<u8, u64>,
    /// The traffic.
    pub traffic: Traffic,
}

/// A kind of opportunity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "OpportunityKind"))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The next cheaper model of the same kind.
    CheaperModel,
    /// Work that can wait for a batch.
    Batch,
    /// A prefix that prompts share and no cache keeps.
    PromptCaching,
    /// Conversations that send everything again.
    Resending,
    /// Longer answers than applications of this kind give.
    OverlongOutput,
    /// Throughput that is paid for and not used.
    IdleCommitment,
}

impl Kind {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CheaperModel => "cheaper_model",
            Self::Batch => "batch",
            Self::PromptCaching => "prompt_caching",
            Self::Resending => "resending",
            Self::OverlongOutput => "overlong_output",
            Self::IdleCommitment => "idle_commitment",
        }
    }

    /// As people say it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::CheaperModel => "A cheaper model",
            Self::Batch => "Batch",
            Self::PromptCaching => "Prompt caching",
            Self::Resending => "Conversations that resend everything",
            Self::OverlongOutput => "Overlong outputs",
            Self::IdleCommitment => "An idle commitment",
        }
    }

    /// Whether it claims the input, and the output.
    const fn claims(self) -> (bool, bool) {
        match self {
            Self::CheaperModel | Self::Batch | Self::IdleCommitment => (true, true),
            Self::PromptCaching | Self::Resending => (true, false),
            Self::OverlongOutput => (false, true),
        }
    }
}

/// How sure an opportunity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// A guess to be tried.
    Low,
    /// The figures speak for it; how the application works decides.
    Medium,
    /// Nothing is known that speaks against it.
    High,
}

impl Certainty {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// An opportunity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Opportunity {
    /// What tells it from others.
    pub id: String,
    /// Its kind.
    pub kind: Kind,
    /// The feature; empty for requests that name none.
    pub feature: String,
    /// The provider.
    pub provider: String,
    /// The model that is used now.
    pub model: String,
    /// What to do.
    pub action: String,
    /// Figures, by name.
    pub evidence: BTreeMap<String, String>,
    /// What it saves in a month of 30 days, as the traffic of the span goes on.
    pub saves_usd: Usd,
    /// How sure that is.
    pub certainty: Certainty,
    /// Why it is no surer.
    pub caveat: String,
    /// The parameters of `/requests` that show its requests: an empty feature asks for those that name none.
    pub requests: BTreeMap<String, String>,
    /// Opportunities that claim the same tokens: only one of them can be had whole.
    pub excludes: Vec<String>,
    /// Whether it is in the total.
    pub counted: bool,
    /// Providers and models whose tokens it claims whatever their feature is.
    #[serde(skip)]
    pub(super) streams: Vec<(String, String)>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "SavingsReport"))]
pub struct Savings {
    /// How many days of traffic were looked at.
    pub days: u32,
    /// What the counted ones save in a month: never the same tokens twice.
    pub total_usd: Usd,
    /// The opportunities, the largest first.
    pub data: Vec<Opportunity>,
}

/// What opportunities are looked for in.
#[derive(Debug)]
pub struct Question<'a> {
    /// The traffic.
    pub rows: &'a [Row],
    /// What is for sale.
    pub market: &'a Market,
    /// The declared kinds of features.
    pub archetypes: &'a BTreeMap<String, Archetype>,
    /// Throughput that is paid for by the hour.
    pub commitments: &'a BTreeMap<String, Commitment>,
    /// The tokens of its models, hour by hour.
    pub hours: &'a [Hour],
    /// The first of these hours: the workspace has no traffic before it was there.
    pub since: Timestamp,
    /// How many days the traffic is of.
    pub days: u32,
    /// The time, which chooses prices.
    pub at: Timestamp,
}

/// The traffic of one feature at one model.
struct Stream<'a> {
    feature: &'a str,
    provider: &'a str,
    model: &'a str,
    all: Traffic,
    rows: Vec<&'a Row>,
    row: &'a PriceRow,
    prices: &'a Prices,
}

/// Looks for opportunities. `None` when a sum does not fit.
pub fn savings(question: &Question<'_>) -> Option<Savings> {
    let mut groups: BTreeMap<(&str, &str, &str), (Traffic, Vec<&Row>)> = BTreeMap::new();
    let mut features: BTreeMap<&str, Traffic> = BTreeMap::new();
    for row in question.rows {
        let group = groups.entry((&row.feature, &row.provider, &row.model)).or_default();
        group.0.add(&row.traffic)?;
        group.1.push(row);
        features.entry(&row.feature).or_default().add(&row.traffic)?;
    }
    let mut data = Vec::new();
    for ((feature, provider, model), (all, rows)) in groups {
        let Some(row) = question.market.price(provider, model, question.at) else { continue };
        let Some(prices) = prices(row, STANDARD, all.longest_input) else { continue };
        let stream = Stream { feature, provider, model, all, rows, row, prices };
        if is_chat(row) {
            data.extend(stream.cheaper(question));
            data.extend(stream.batch());
            data.extend(stream.caching());
            data.extend(stream.resending());
            data.extend(stream.overlong(question, &features));
        }
    }
    for found in &mut data {
        let month = found.saves_usd.pico().checked_mul(DAYS_PER_MONTH)?;
        let month = div_half_even(month, i128::from(question.days.max(1)));
        found.saves_usd = Usd::from_pico(month).round_down_to_nanos();
    }
    let span = Span { market: question.market, from: question.since, at: question.at };
    data.extend(idle(question.commitments, question.hours, &span)?);
    data.retain(|found| found.saves_usd.pico() >= LEAST_PICO);
    let from = question.at.plus_ms(-i64::from(question.days) * DAY_MS).start_of_hour();
    for found in &mut data {
        let span = [("from", from), ("to", question.at)];
        found.requests.extend(span.map(|(name, at)| (name.to_owned(), at.to_string())));
    }
    data.sort_by(|a, b| b.saves_usd.cmp(&a.saves_usd).then_with(|| a.id.cmp(&b.id)));
    let total_usd = settle(&mut data)?;
    Some(Savings { days: question.days, total_usd, data })
}

/// Says which exclude each other, and counts the largest of those.
fn settle(data: &mut [Opportunity]) -> Option<Usd> {
    let exclude = |a: &Opportunity, b: &Opportunity| {
        let ((input, output), (other_input, other_output)) = (a.kind.claims(), b.kind.claims());
        let same = (&a.feature, &a.provider, &a.model) == (&b.feature, &b.provider, &b.model);
        let kinds = input && other_input || output && other_output;
        a.id != b.id && (same && kinds || a.claims(b) || b.claims(a))
    };
    let all = data.to_vec();
    let (mut counted, mut total) = (BTreeSet::new(), Usd::ZERO);
    for found in data {
        let others = all.iter().filter(|other| exclude(found, other));
        found.excludes = others.map(|other| other.id.clone()).collect();
        found.counted = !found.excludes.iter().any(|id| counted.contains(id));
        if found.counted {
            counted.insert(found.id.clone());
            total = total.checked_add(found.saves_usd)?;
        }
    }
    Some(total)
}

impl Opportunity {
    /// Whether it claims what another one is about, or claims too.
    fn claims(&self, other: &Self) -> bool {
        self.streams.iter().any(|stream| {
            (&stream.0, &stream.1) == (&other.provider, &other.model)
                || other.streams.contains(stream)
        })
    }
}

impl Stream<'_> {
    fn opportunity(&self, kind: Kind, saves: Usd, action: String) -> Opportunity {
        let filters =
            [("feature", self.feature), ("provider", self.provider), ("model", self.model)];
        let mut evidence = BTreeMap::new();
        evidence.insert("requests".to_owned(), self.all.requests.to_string());
        evidence.insert("charged_usd".to_owned(), self.all.charged.to_string());
        Opportunity {
            id: format!("{}:{}:{}/{}", kind.name(), self.feature, self.provider, self.model),
            kind,
            feature: self.feature.to_owned(),
            provider: self.provider.to_owned(),
            model: self.model.to_owned(),
            action,
            evidence,
            saves_usd: saves,
            certainty: Certainty::Low,
            caveat: String::new(),
            requests: filters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            excludes: Vec::new(),
            counted: false,
            streams: Vec::new(),
        }
    }

    /// What the traffic costs now: as charged, and no more than its list price, so that nothing is saved twice.
    fn now(&self, prices: &Prices, traffic: &Traffic) -> Option<Usd> {
        Some(rerate(prices, traffic)?.min(traffic.charged))
    }

    /// The dearest model of the same kind, at the same provider if it has one, that costs at most four fifths.
    fn cheaper(&self, question: &Question<'_>) -> Option<Opportunity> {
        let now = self.now(self.prices, &self.all)?;
        let most = now.pico().checked_mul(4)? / 5;
        let retires = |row: &PriceRow| {
            let end = question.at.plus_ms(RETIRES_SOON_MS);
            row.retires_on.is_some_and(|day| day.start() < end)
        };
        let longest = self.all.longest_input;
        let takes = |row: &PriceRow| {
            let limits = [row.max_input_tokens, row.context_window];
            limits.iter().flatten().all(|limit| *limit >= longest)
        };
        let offers = question.market.offers(question.at).into_iter().filter_map(|offer| {
            let row = offer.row;
            let fits = is_chat(row)
                && row.mode == self.row.mode
                && takes(row)
                && !retires(row)
                && !row.fees.iter().any(|fee| fee.call == Call::Request);
            let prices = prices(row, STANDARD, longest).filter(|_| fits)?;
            let then = rerate(prices, &self.all)?;
            (then.pico() <= most).then_some((offer.provider == self.provider, then, offer))
        });
        // Of equals, the first by name.
        let (_, then, offer) = offers.max_by(|a, b| {
            let name = |offer: &super::market::Offer<'_>| {
                (offer.provider.to_owned(), offer.row.model.clone())
            };
            (a.0, a.1).cmp(&(b.0, b.1)).then_with(|| name(&b.2).cmp(&name(&a.2)))
        })?;
        let action =
            format!("Try {} of {} in place of {}.", offer.row.model, offer.provider, self.model);
        let mut found = self.opportunity(Kind::CheaperModel, now.checked_sub(then)?, action);
        found.evidence.extend(figures(&[
            ("candidate", format!("{}/{}", offer.provider, offer.row.model)),
            ("now_usd", now.to_string()),
            ("then_usd", then.to_string()),
            ("input_tokens", self.all.input_total().to_string()),
            ("output_tokens", self.all.output.to_string()),
        ]));
        found.caveat = "Prices are known, quality is not: give it a share of the traffic and compare accepted \
            outcomes. Another model may also count other tokens."
            .to_owned();
        Some(found)
    }

    /// What nobody reads along and belongs to no session, at the batch price.
    fn batch(&self) -> Option<Opportunity> {
        let prices = prices(self.row, BATCH, self.all.longest_input)?;
        let mut kept = Traffic::default();
        let (mut hours, mut named) = (BTreeMap::<u8, u64>::new(), self.is_patient(self.feature));
        let quiet = |row: &&&Row| row.traffic.streamed == 0 && row.traffic.turns == 0;
        for row in self.rows.iter().filter(quiet) {
            kept.add(&row.traffic)?;
            for (hour, requests) in &row.by_hour {
                let sum = hours.entry(*hour).or_default();
                *sum = sum.checked_add(*requests)?;
            }
            named |= self.is_patient(&row.purpose) || self.is_patient(&row.environment);
        }
        if kept.requests < LEAST_REQUESTS {
            return None;
        }
        let now = self.now(self.prices, &kept)?;
        let then = rerate(prices, &kept)?;
        let mut busiest: Vec<u64> = hours.into_values().collect();
        busiest.sort_unstable_by(|a, b| b.cmp(a));
        let busy: u64 = busiest.iter().take(6).sum();
        let share = u128::from(busy) * 100 / u128::from(kept.requests.max(1));
        let nightly = share >= 80;
        let action = "Send these requests to the provider's batch endpoint.".to_owned();
        let mut found = self.opportunity(Kind::Batch, now.checked_sub(then)?, action);
        found.evidence.extend(figures(&[
            ("batchable_requests", kept.requests.to_string()),
            ("in_their_six_busiest_hours_percent", share.to_string()),
            ("now_usd", now.to_string()),
            ("then_usd", then.to_string()),
        ]));
        found.certainty = match (named, nightly) {
            (true, true) => Certainty::High,
            (true, false) | (false, true) => Certainty::Medium,
            (false, false) => Certainty::Low,
        };
        found.caveat = "None of them is streamed or belongs to a session; whether somebody waits for the answers, \
            its owner knows. A batch takes up to a day."
            .to_owned();
        Some(found)
    }

    fn is_patient(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        PATIENT.iter().any(|word| name.contains(word))
    }

    /// A token's price uncached, less its price from the cache; and what writing it costs more than sending it.
    fn cache_terms(&self) -> Option<(i128, i128)> {
        let input = self.prices.input?;
        let gain = input.checked_sub(self.prices.cache_read?)?.pico();
        let premium = cache_write(self.prices)?.checked_sub(input)?.pico();
        (gain > 0).then_some((gain, premium.max(0)))
    }

    /// A prefix as long as the shortest request, written once in each hour with requests and read by the others.
    fn caching(&self) -> Option<Opportunity> {
        let (gain, premium) = self.cache_terms()?;
        let all = &self.all;
        let prefix = all.shortest_input.filter(|tokens| *tokens >= LEAST_PREFIX)?;
        let share = u128::from(all.cache_read) * 100 / u128::from(all.input_total().max(1));
        let reads = all.requests.checked_sub(all.hours)?;
        if share >= 50 || all.requests < LEAST_REQUESTS {
            return None;
        }
        let readable = u128::from(reads).checked_mul(u128::from(prefix))?;
        let readable =
            readable.saturating_sub(u128::from(all.cache_read)).min(u128::from(all.input));
        let written = u128::from(all.hours).checked_mul(u128::from(prefix))?;
        let saves = price_of(readable, gain)?.checked_sub(price_of(written, premium)?)?;
        let action =
            format!("Mark the first {prefix} tokens of the prompt for the provider's cache.");
        let mut found = self.opportunity(Kind::PromptCaching, saves, action);
        found.evidence.extend(figures(&[
            ("shortest_input_tokens", prefix.to_string()),
            ("cached_percent", share.to_string()),
            ("hours_with_requests", all.hours.to_string()),
            ("requests_for_each_write", (all.requests / all.hours.max(1)).to_string()),
            // A write must be read so often that what reading saves pays what writing costs more.
            ("break_even_reads_in_hundredths", (premium * 100 / gain).to_string()),
        ]));
        found.caveat = "The shortest request bounds what all prompts can share; whether they begin alike, the \
            gateway cannot see. One write for each hour is counted."
            .to_owned();
        Some(found)
    }

    /// What a session's turn before had sent already, read from the cache instead.
    fn resending(&self) -> Option<Opportunity> {
        let (gain, premium) = self.cache_terms()?;
        let all = &self.all;
        if all.sessions == 0 || all.turns < all.sessions.saturating_mul(2) {
            return None;
        }
        let fresh = all.input.saturating_sub(all.resent);
        let saves = price_of(u128::from(all.resent), gain)?
            .checked_sub(price_of(u128::from(fresh), premium)?)?;
        let action = "Let the provider cache each turn for the next one, or send a summary of the earlier turns.";
        let mut found = self.opportunity(Kind::Resending, saves, action.to_owned());
        found.evidence.extend(figures(&[
            ("sessions", all.sessions.to_string()),
            ("turns", all.turns.to_string()),
            ("resent_tokens", all.resent.to_string()),
            (
                "resent_percent",
                (u128::from(all.resent) * 100 / u128::from(all.input_total().max(1))).to_string(),
            ),
        ]));
        found.certainty = Certainty::Medium;
        found.caveat = "A turn is taken to send again what the turn before it sent; one that follows after the \
            cache's lifetime saves nothing."
            .to_owned();
        Some(found)
    }

    /// Output beyond twice the median of features of the same kind; where those are few, beyond its band.
    fn overlong(
        &self,
        question: &Question<'_>,
        features: &BTreeMap<&str, Traffic>,
    ) -> Option<Opportunity> {
        let kind_of = |name: &str, traffic: &Traffic| {
            compare(name, traffic, question.archetypes.get(name).copied()).archetype
        };
        let kind = kind_of(self.feature, features.get(self.feature)?);
        let alike = features.iter().filter(|(name, traffic)| kind_of(name, traffic) == kind);
        let mut outputs: Vec<u64> = alike
            .filter_map(|(_, traffic)| traffic.output.checked_div(traffic.conversations()))
            .collect();
        outputs.sort_unstable();
        let band = kind.band();
        let (limit, measure) = if outputs.len() >= 3 {
            let median = outputs.get((outputs.len() - 1) / 2)?;
            (median.saturating_mul(2), format!("twice the median of {} features", outputs.len()))
        } else {
            let most = u128::from(band.session_to) * 100 / u128::from(band.ratio_from + 100);
            (u64::try_from(most).ok()?, "the most that its band allows".to_owned())
        };
        let conversations = self.all.conversations();
        let own = self.all.output.checked_div(conversations)?;
        let excess =
            own.checked_sub(limit).filter(|excess| *excess > 0)?.checked_mul(conversations)?;
        let saves = at_price(excess, self.prices.output?)?.min(self.all.output_usd);
        let action = format!(
            "Ask for shorter answers, and set an output limit of about {limit} tokens a session."
        );
        let mut found = self.opportunity(Kind::OverlongOutput, saves, action);
        found.evidence.extend(figures(&[
            ("archetype", kind.name().to_owned()),
            ("output_tokens_a_session", own.to_string()),
            ("usual_most", limit.to_string()),
            ("measure", measure),
            ("excess_tokens", excess.to_string()),
        ]));
        found.caveat = format!(
            "Output costs {} a million here; whether the length is needed, its owner knows.",
            dollars(self.prices.output?)
        );
        Some(found)
    }
}

fn price_of(tokens: u128, pico_per_million: i128) -> Option<Usd> {
    let product = i128::try_from(tokens).ok()?.checked_mul(pico_per_million)?;
    Some(Usd::from_pico(div_half_even(product, 1_000_000)))
}

fn figures(figures: &[(&str, String)]) -> Vec<(String, String)> {
    figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

#[cfg(test)]
#[path = "savings_tests.rs"]
mod tests;
