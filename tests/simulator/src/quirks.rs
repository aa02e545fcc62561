//! How a provider's bills differ from its books, and how its billing API misbehaves: set by a test, for a provider and,
//! where wanted, one account of it. Everything is optional; an unknown field is refused, or a test would test nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::clock::{Day, Span};
use crate::money::Usd;

/// What is measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Meter {
    Input,
    CacheRead,
    #[serde(rename = "cache_write_5m")]
    CacheWrite5m,
    #[serde(rename = "cache_write_1h")]
    CacheWrite1h,
    /// Reasoning included.
    Output,
    /// Part of the output, never billed by itself.
    Reasoning,
    Requests,
}

/// The quirks of a provider's bills.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quirks {
    /// The flavour whose bills these are.
    pub(crate) provider: String,
    /// The account whose bills these are; nothing for those of the admin credential that sees all.
    pub(crate) account: String,
    pub(crate) late: Vec<Late>,
    pub(crate) revise: Vec<Revision>,
    pub(crate) rounding: Option<Rounding>,
    pub(crate) price: Vec<Price>,
    pub(crate) credit: Vec<Extra>,
    pub(crate) tax: Vec<Extra>,
    pub(crate) discount: Vec<Extra>,
    pub(crate) minimum_fee: Vec<Extra>,
    pub(crate) faults: Vec<Fault>,
    /// At most so many buckets on a page, whatever was asked.
    pub(crate) page_size: Option<u64>,
    /// What the bill calls a model.
    pub(crate) names: BTreeMap<String, String>,
    /// More about keys, and keys that were never used.
    pub(crate) keys: Vec<Key>,
}

/// When a change shows: after so many pulls, or when it is released.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gate {
    seen: u64,
    released: bool,
}

impl Gate {
    fn is_open(self, pulls: Option<u64>) -> bool {
        self.released || pulls.is_some_and(|pulls| self.seen > pulls)
    }
}

/// A share of the use of each account of a day that shows later.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Late {
    percent: u64,
    /// Every day unless given.
    #[serde(default)]
    days: Option<Span>,
    /// Pulls that do not see it yet; without it only a release shows it.
    #[serde(default)]
    pulls: Option<u64>,
    #[serde(skip)]
    gate: Gate,
}

/// An amount of a day, and the quantity behind it, that changes later.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revision {
    pub(crate) day: Day,
    pub(crate) model: String,
    pub(crate) meter: Meter,
    /// Added to the amount.
    pub(crate) amount: Usd,
    /// Added to the quantity.
    #[serde(default)]
    pub(crate) tokens: u64,
    #[serde(default)]
    pulls: Option<u64>,
    #[serde(skip)]
    gate: Gate,
}

/// Each line rounded half to even.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rounding {
    /// Places of a dollar: 2 is cents.
    pub(crate) places: u32,
    /// Whether a line says what rounding took or gave each day.
    pub(crate) adjustment: bool,
}

/// A price other than the simulator's usual one. Of those that fit, the last counts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    model: String,
    /// Every meter of tokens unless given.
    #[serde(default)]
    meter: Option<Meter>,
    #[serde(default)]
    tier: Option<String>,
    #[serde(default)]
    from: Option<Day>,
    per_million: Usd,
}

/// A line beside the metered use.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extra {
    /// One line on the last of these days for `amount`; one on each of them for `basis_points`.
    pub(crate) days: Span,
    #[serde(default)]
    pub(crate) amount: Option<Usd>,
    /// Of what was metered on the day.
    #[serde(default)]
    pub(crate) basis_points: Option<u32>,
    #[serde(default)]
    pub(crate) description: Option<String>,
}

/// Which of the billing APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Api {
    Costs,
    Usage,
    Keys,
}

/// How an answer is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Html,
    HalfPage,
    WrongCurrency,
    RepeatedCursor,
    NumberAsText,
    TextAsNumber,
    MissingAmount,
    Status,
    Slow,
}

/// A fault of the billing API.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    /// Any of them unless given.
    #[serde(default)]
    api: Option<Api>,
    /// Any page unless given; the first is 1.
    #[serde(default)]
    page: Option<u64>,
    /// How often; always unless given.
    #[serde(default)]
    times: Option<u64>,
    #[serde(default)]
    pub(crate) status: Option<u16>,
    #[serde(default)]
    pub(crate) retry_after: Option<u64>,
    #[serde(default)]
    pub(crate) latency_ms: u64,
}

/// A key that the provider lists.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) credential: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The project or workspace it belongs to.
    #[serde(default)]
    pub(crate) project: Option<String>,
    #[serde(default)]
    pub(crate) inactive: bool,
}

impl Quirks {
    /// What is wrong with them.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.provider.is_empty() {
            return Err("provider: say whose bills these are, `openai` for one".to_owned());
        }
        if self.late.iter().any(|late| late.percent > 100) {
            return Err("late: percent is 0 to 100".to_owned());
        }
        if self.rounding.is_some_and(|rounding| rounding.places > 12) {
            return Err("rounding: places is 0 to 12".to_owned());
        }
        if self.page_size == Some(0) {
            return Err("page_size: 0 buckets make no page".to_owned());
        }
        self.price.iter().try_for_each(|price| price.pico().map(drop))?;
        self.faults.iter().try_for_each(|fault| self.check_fault(fault))?;
        self.check_extras()
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), String> {
        let of_bodies =
            matches!(fault.kind, Kind::NumberAsText | Kind::TextAsNumber | Kind::MissingAmount);
        match fault.kind {
            _ if of_bodies && fault.api == Some(Api::Keys) => {
                Err("faults: lists of keys have no amounts and counts".to_owned())
            }
            Kind::WrongCurrency if fault.api.is_some_and(|api| api != Api::Costs) => {
                Err("faults: only costs have a currency".to_owned())
            }
            Kind::Status if fault.status.is_none_or(|status| !(400..600).contains(&status)) => {
                Err("faults: kind `status` needs a status of 400 to 599".to_owned())
            }
            Kind::Slow if fault.latency_ms == 0 => {
                Err("faults: kind `slow` needs latency_ms".to_owned())
            }
            Kind::WrongCurrency | Kind::RepeatedCursor if self.provider == "openrouter" => {
                Err("faults: openrouter's activity has no currency and no pages".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn check_extras(&self) -> Result<(), String> {
        let lists = [&self.credit, &self.tax, &self.discount, &self.minimum_fee];
        let adjusts = self.rounding.is_some_and(|rounding| rounding.adjustment);
        if self.provider == "openrouter" && (adjusts || lists.iter().any(|list| !list.is_empty())) {
            return Err("openrouter's activity has no lines but the metered ones".to_owned());
        }
        let negative = |extra: &Extra| extra.amount.is_some_and(|amount| amount.0 < 0);
        for extra in lists.into_iter().flatten() {
            if extra.amount.is_some() == extra.basis_points.is_some() || negative(extra) {
                return Err(
                    "credit, tax, discount: give amount (not negative) or basis_points".to_owned()
                );
            }
        }
        if self.minimum_fee.iter().any(|extra| extra.amount.is_none()) {
            return Err("minimum_fee: amount is the least that the days cost together".to_owned());
        }
        Ok(())
    }

    /// Picodollars for each of a meter, where a test set a price.
    pub(crate) fn price(&self, model: &str, meter: Meter, tier: &str, day: Day) -> Option<i128> {
        let tokens = !matches!(meter, Meter::Requests | Meter::Reasoning);
        let fits = |price: &&Price| {
            price.model == model
                && price.meter.map_or(tokens, |wanted| wanted == meter)
                && price.tier.as_deref().is_none_or(|wanted| wanted == tier)
                && price.from.is_none_or(|from| from <= day)
        };
        self.price.iter().rev().find(fits).and_then(|price| price.pico().ok())
    }

    /// How much of each hundred of a day does not show yet.
    pub(crate) fn hidden_percent(&self, day: Day) -> u64 {
        let hides = |late: &&Late| {
            late.days.is_none_or(|days| days.has(day)) && !late.gate.is_open(late.pulls)
        };
        self.late.iter().filter(hides).map(|late| late.percent).sum::<u64>().min(100)
    }

    /// The revisions that show.
    pub(crate) fn revisions(&self, all: bool) -> impl Iterator<Item = &Revision> {
        self.revise.iter().filter(move |change| all || change.gate.is_open(change.pulls))
    }

    /// Counts a pull of these days.
    pub(crate) fn pulled(&mut self, days: Span) {
        for late in &mut self.late {
            late.gate.seen += u64::from(late.days.is_none_or(|of| of.overlaps(days)));
        }
        for change in &mut self.revise {
            change.gate.seen += u64::from(days.has(change.day));
        }
    }

    /// Shows all that is late or revised.
    pub(crate) fn release(&mut self) {
        let gates = self.late.iter_mut().map(|late| &mut late.gate);
        gates
            .chain(self.revise.iter_mut().map(|change| &mut change.gate))
            .for_each(|gate| gate.released = true);
    }

    /// The faults of an answer. Each counts as used.
    pub(crate) fn faults(&mut self, api: Api, page: u64) -> Vec<Fault> {
        let mut found = Vec::new();
        for fault in &mut self.faults {
            let fits = fault.api.is_none_or(|wanted| wanted == api)
                && fault.page.is_none_or(|wanted| wanted == page)
                && fault.times != Some(0);
            if fits {
                fault.times = fault.times.map(|times| times.saturating_sub(1));
                found.push(fault.clone());
                if fault.kind == Kind::Status {
                    // The answer is this one; what else was planned waits for the next.
                    break;
                }
            }
        }
        found
    }

    /// What was said of a key.
    pub(crate) fn key(&self, credential: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.credential == credential)
    }
}

impl Price {
    /// Picodollars for each.
    fn pico(&self) -> Result<i128, String> {
        let (million, price) = (1_000_000, self.per_million.0);
        match price >= 0 && price % million == 0 {
            true => Ok(price / million),
            false => Err(format!(
                "price: per_million of `{}` has more than 6 places, or is negative",
                self.model
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quirks(document: &str) -> Result<Quirks, String> {
        let quirks: Quirks = serde_json::from_str(document).map_err(|error| error.to_string())?;
        quirks.check().map(|()| quirks)
    }

    #[test]
    fn a_document_that_says_nothing_clear_is_refused() {
        let wrong = [
            r#"{}"#,
            r#"{"provider": "openai", "lat": []}"#,
            r#"{"provider": "openai", "late": [{"percent": 101}]}"#,
            r#"{"provider": "openai", "late": [{"percent": 10, "share": 1}]}"#,
            r#"{"provider": "openai", "price": [{"model": "m", "per_million": 1}]}"#,
            r#"{"provider": "openai", "price": [{"model": "m", "per_million": "0.0000001"}]}"#,
            r#"{"provider": "openai", "tax": [{"days": "2026-11-20"}]}"#,
            r#"{"provider": "openai", "tax": [{"days": "2026-11-20", "amount": "1", "basis_points": 1}]}"#,
            r#"{"provider": "openai", "minimum_fee": [{"days": "2026-11-20", "basis_points": 1}]}"#,
            r#"{"provider": "openai", "faults": [{"kind": "status"}]}"#,
            r#"{"provider": "openai", "faults": [{"kind": "slow"}]}"#,
            r#"{"provider": "openai", "faults": [{"kind": "odd"}]}"#,
            r#"{"provider": "openai", "faults": [{"kind": "missing_amount", "api": "keys"}]}"#,
            r#"{"provider": "openai", "faults": [{"kind": "wrong_currency", "api": "usage"}]}"#,
            r#"{"provider": "openai", "page_size": 0}"#,
            r#"{"provider": "openrouter", "tax": [{"days": "2026-11-20", "amount": "1"}]}"#,
            r#"{"provider": "openrouter", "faults": [{"kind": "wrong_currency"}]}"#,
        ];
        for document in wrong {
            assert!(quirks(document).is_err(), "{document}");
        }
        assert!(quirks(r#"{"provider": "openai"}"#).is_ok());
    }

    #[test]
    fn the_last_price_that_fits_counts_from_its_day_on() {
        let quirks = quirks(
            r#"{"provider": "openai", "price": [
                {"model": "m", "per_million": "2", "from": "2026-11-20"},
                {"model": "m", "per_million": "0.5", "meter": "output", "tier": "batch"}]}"#,
        )
        .unwrap();
        let day = |text| Day::parse(text).unwrap();
        assert_eq!(quirks.price("m", Meter::Input, "default", day("2026-11-19")), None);
        assert_eq!(quirks.price("m", Meter::Input, "default", day("2026-11-20")), Some(2_000_000));
        assert_eq!(quirks.price("m", Meter::Output, "batch", day("2026-11-19")), Some(500_000));
        assert_eq!(quirks.price("m", Meter::Output, "batch", day("2026-11-20")), Some(500_000));
        assert_eq!(quirks.price("m", Meter::Requests, "batch", day("2026-11-20")), None);
        assert_eq!(quirks.price("n", Meter::Input, "default", day("2026-11-20")), None);
    }

    #[test]
    fn late_use_shows_after_its_pulls_or_when_released() {
        let mut quirks = quirks(
            r#"{"provider": "openai", "late": [{"percent": 30, "pulls": 2, "days": "2026-11-20"},
                {"percent": 5}]}"#,
        )
        .unwrap();
        let span = |text: &str| Span::try_from(text.to_owned()).unwrap();
        let day = Day::parse("2026-11-20").unwrap();
        let mut percents = Vec::new();
        for days in ["2026-11-20", "2026-11-21", "2026-11-19/2026-11-22", "2026-11-20"] {
            quirks.pulled(span(days));
            percents.push(quirks.hidden_percent(day));
        }
        assert_eq!(percents, [35, 35, 35, 5]);
        assert_eq!(quirks.hidden_percent(day.plus(1)), 5);
        quirks.release();
        assert_eq!(quirks.hidden_percent(day), 0);
    }

    #[test]
    fn faults_are_used_up_where_they_are_counted() {
        let mut quirks = quirks(
            r#"{"provider": "openai", "faults": [{"kind": "status", "status": 429, "times": 1},
                {"kind": "html", "api": "usage"}, {"kind": "half_page", "api": "costs", "page": 2}]}"#,
        )
        .unwrap();
        let mut kinds = |api, page| -> Vec<Kind> {
            quirks.faults(api, page).iter().map(|fault| fault.kind).collect()
        };
        assert_eq!(kinds(Api::Costs, 2), [Kind::Status]);
        assert_eq!(kinds(Api::Costs, 1), []);
        assert_eq!(kinds(Api::Costs, 2), [Kind::HalfPage]);
        assert_eq!(kinds(Api::Usage, 1), [Kind::Html]);
        assert_eq!(kinds(Api::Usage, 1), [Kind::Html]);
    }
}
