//! The bills of a workspace, sorted by provider and day as its units need them.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::feedback::ReconcilerContext;
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::match_up::spread_over_days;
use super::price_findings::bill_resolution;
use super::pull::Pulled;
use super::run::INBOX;
use super::spread::DAYS_MAX;
use super::write::is_billed;
use super::{NightError, fits};
use crate::bill::{Before, BillLine, ChargeKind, Credential, MeasuredUsage, Meter};
use crate::config::{Habits, Source};
use crate::connectors::Days;
use crate::ledger::{Content, UnitId};

/// How long a day may be without a charge that its source has not finished, or is known to be slow with: two nights.
const GRACE_MS: i64 = 2 * DAY_MS;

/// What one provider billed.
#[derive(Clone, Debug, Default)]
struct OfProvider {
    /// Charges of sources that were asked for a range of days.
    asked: Vec<BillLine>,
    /// Charges of dropped files: all that they have on each of their days, in the range or not.
    filed: Vec<BillLine>,
    usage: Vec<MeasuredUsage>,
    /// Where `asked` comes from: content addresses.
    asked_from: BTreeSet<String>,
    /// Where `filed` comes from.
    filed_from: BTreeSet<String>,
    complete_until: Option<Timestamp>,
    resolution: Option<Usd>,
    habits: Habits,
}

impl OfProvider {
    fn lines(&self) -> impl Iterator<Item = &BillLine> + Clone {
        self.asked.iter().chain(&self.filed)
    }

    fn lines_on(&self, day: Date) -> impl Iterator<Item = &BillLine> {
        on_day(self.lines(), day)
    }

    fn is_asked_on(&self, day: Date) -> bool {
        on_day(self.asked.iter(), day).next().is_some()
    }

    fn is_forgotten(&self, day: Date, now: Timestamp) -> bool {
        let age = now.date().days() - day.days();
        self.habits.forgets_after.is_some_and(|after| age > after)
    }
}

/// The bills of a workspace.
#[derive(Clone, Debug, Default)]
pub struct Bills {
    providers: BTreeMap<String, OfProvider>,
    credentials: Vec<Credential>,
    /// Providers whose source could not be had.
    missing: BTreeSet<String>,
    /// A source that may have anybody's bill could not be had.
    anybody_missing: bool,
    /// Providers of whom a dropped file waits for a person.
    waiting: BTreeSet<String>,
    /// What dropped files have on days before the range.
    before: Vec<Before>,
    /// Accounts whose own source answered, with their providers.
    answered: BTreeSet<(String, String)>,
    /// Providers with a source of their own.
    own: BTreeSet<String>,
    /// Of providers with one that answered: whether each such source said of each asked day what it charges, and had a charge.
    day_by_day: BTreeMap<String, bool>,
}

/// What dropped files charge on some days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filed {
    /// Who charges.
    pub provider: String,
    /// The first day.
    pub first: Date,
    /// The last day.
    pub last: Date,
    /// How much.
    pub amount: Usd,
}

impl Filed {
    /// Its days.
    pub fn days(&self) -> impl Iterator<Item = Date> + use<> {
        (self.first.days()..=self.last.days()).map(Date::from_days)
    }
}

impl From<&Before> for Filed {
    fn from(of: &Before) -> Self {
        let (first, last) = days_of(of.start, of.end);
        let (first, last) = (Date::from_days(first), Date::from_days(last));
        Self { provider: of.provider.clone(), first, last, amount: of.amount }
    }
}

impl From<&BillLine> for Filed {
    fn from(line: &BillLine) -> Self {
        let day = line.start.date();
        Self { provider: line.provider.clone(), first: day, last: day, amount: line.amount }
    }
}

/// What cannot be told of a unit's bill now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Nothing: it is known.
    Nothing,
    /// What dropped files say of it.
    Files,
    /// What a source of the provider's own says of it: only dropped files have charges.
    Own,
    /// All of it.
    All,
}

impl Lack {
    /// Whether a line of the books says what cannot be told now: then the books stay as they are.
    pub fn keeps(self, content: &Content) -> bool {
        match self {
            Self::Nothing => false,
            Self::Files => is_billed(content) && content.source.contains(INBOX),
            Self::Own => {
                let mut from = content.source.split_whitespace();
                is_billed(content) && from.any(|from| !from.starts_with(INBOX))
            }
            Self::All => is_billed(content),
        }
    }
}

/// Whose use on a day has no charge yet, although it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silent<'a> {
    /// Everybody's: the provider's own source has nothing at all.
    all: bool,
    accounts: BTreeSet<&'a str>,
}

impl Silent<'_> {
    /// Whether nobody is waited for.
    pub fn is_empty(&self) -> bool {
        !self.all && self.accounts.is_empty()
    }

    /// Whether an account's use has no charge yet.
    pub fn has(&self, account: &str) -> bool {
        self.all || self.accounts.contains(account)
    }
}

/// One unit's part.
#[derive(Clone, Debug, Default)]
pub struct OfUnit {
    /// Charges.
    pub lines: Vec<BillLine>,
    /// Measured use.
    pub usage: Vec<MeasuredUsage>,
    /// The bill's content address.
    pub source: String,
    /// Whether it may still change.
    pub provisional: bool,
}

fn on_day<'a>(
    lines: impl Iterator<Item = &'a BillLine>,
    day: Date,
) -> impl Iterator<Item = &'a BillLine> {
    lines.filter(move |line| line.start.date() == day && !is_long(line))
}

fn days_of(start: Timestamp, end: Timestamp) -> (i64, i64) {
    (start.ms().div_euclid(DAY_MS), end.plus_ms(-1).ms().div_euclid(DAY_MS))
}

/// In what unit a bill rounds metered use. Taxes, credits and adjustments have digits of their own, and say nothing of it.
fn resolution_of<'a>(lines: impl Iterator<Item = &'a BillLine>) -> Option<Usd> {
    let metered = |line: &&BillLine| line.kind == ChargeKind::Usage && line.meter != Meter::Whole;
    let metered: Vec<BillLine> = lines.filter(metered).cloned().collect();
    (!metered.is_empty()).then(|| bill_resolution(&metered))
}

fn grace_end(day: Date) -> Timestamp {
    day.midnight().plus_ms(DAY_MS + GRACE_MS)
}

fn is_long(line: &BillLine) -> bool {
    let (first, last) = days_of(line.start, line.end);
    last > first
}

impl Bills {
    /// Takes a source's bill in.
    pub fn add(&mut self, source: &Source, pulled: Pulled) {
        let names = source.providers();
        let own = names.is_some();
        let bill = pulled.bill;
        let (mut seen, mut charged) = (BTreeSet::new(), BTreeSet::new());
        for line in bill.lines {
            seen.insert(line.provider.clone());
            charged.insert(line.provider.clone());
            let provider = self.providers.entry(line.provider.clone()).or_default();
            if own { provider.asked.push(line) } else { provider.filed.push(line) }
        }
        for usage in bill.usage {
            seen.insert(usage.provider.clone());
            self.providers.entry(usage.provider.clone()).or_default().usage.push(usage);
        }
        for name in &seen {
            let provider = self.providers.entry(name.clone()).or_default();
            let from = if own { &mut provider.asked_from } else { &mut provider.filed_from };
            from.insert(pulled.manifest.clone());
            provider.resolution = resolution_of(provider.lines());
        }
        if let Some(names) = names {
            self.own.extend(seen.iter().cloned());
            self.own.extend(names.iter().cloned());
            seen.extend(names);
            for name in &seen {
                let stated = bill.each_day && charged.contains(name);
                let before = self.day_by_day.entry(name.clone()).or_insert(stated);
                *before &= stated;
            }
        }
        for name in seen {
            let provider = self.providers.entry(name).or_default();
            provider.habits = if own { source.habits() } else { provider.habits };
            provider.complete_until = match (provider.complete_until, bill.complete_until) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, other) => one.or(other),
            };
        }
        let account = source.account();
        self.answered.extend(account.map(|(of, account)| (of.to_owned(), account.to_owned())));
        self.before.extend(bill.before);
        self.waiting.extend(pulled.held.into_iter().flat_map(|held| held.providers));
        self.credentials.extend(bill.credentials);
    }

    /// Notes that a source could not be had.
    pub fn lacks(&mut self, source: &Source) {
        match source.providers() {
            Some(names) => {
                self.own.extend(names.iter().cloned());
                self.missing.extend(names);
            }
            None => self.anybody_missing = true,
        }
    }

    /// Whether some of the provider's bill could not be had. Dropped files only add to what a source of its own says.
    pub fn is_missing(&self, provider: &str) -> bool {
        self.missing.contains(provider)
            || (self.lacks_files(provider) && !self.own.contains(provider))
    }

    fn lacks_files(&self, provider: &str) -> bool {
        self.anybody_missing || self.waiting.contains(provider)
    }

    /// The unit's provider, if any source named it, and day.
    fn of_day(&self, unit: &UnitId) -> Option<(&OfProvider, Date)> {
        self.providers.get(&unit.provider).zip(Date::parse(&unit.day))
    }

    /// What cannot be told of a unit's bill. That nothing is billed is told by a line of 0, or day by day
    /// ([`Bills::is_stated`]), and not by no line: a source that was taken away, or forgets a day, has none either.
    pub fn lack(&self, unit: &UnitId, now: Timestamp) -> Lack {
        let of = self.of_day(unit);
        let is_told = of.is_some_and(|(provider, day)| provider.is_asked_on(day))
            || self.is_stated(unit, now)
            || self.is_taken_back(unit);
        let lacks_files = self.lacks_files(&unit.provider);
        if self.is_missing(&unit.provider) {
            Lack::All
        } else if is_told {
            if lacks_files { Lack::Files } else { Lack::Nothing }
        } else if lacks_files || !self.has_line(unit) {
            Lack::All
        } else {
            Lack::Own
        }
    }

    /// Whether the provider's own sources say that they charge nothing for the unit's day: they answer day by day, each has
    /// a charge on another day, and the grace is over. An answer without any charge may be another organization's.
    pub fn is_stated(&self, unit: &UnitId, now: Timestamp) -> bool {
        let of = self.of_day(unit);
        self.day_by_day.get(&unit.provider).copied().unwrap_or(false)
            && !self.is_missing(&unit.provider)
            && of.is_some_and(|(provider, day)| !provider.is_asked_on(day) && now >= grace_end(day))
    }

    /// Whether a dropped file says with a line of 0 that what the books have of the unit's day is no longer billed.
    fn is_taken_back(&self, unit: &UnitId) -> bool {
        let of = self.of_day(unit);
        let is_nothing = |line: &BillLine| line.amount == Usd::ZERO;
        of.is_some_and(|(provider, day)| on_day(provider.filed.iter(), day).any(is_nothing))
    }

    /// Whose own source answered without a charge for the unit's day and may yet have one: where they were used, the
    /// others' charges are only a part of the bill. After the grace that answer is believed, but for a source that forgets.
    pub fn silent(&self, unit: &UnitId, now: Timestamp) -> Silent<'_> {
        let of = self.of_day(unit);
        let Some((provider, day)) = of else { return Silent::default() };
        let is_new = now < grace_end(day);
        let mut silent = Silent::default();
        if !provider.is_asked_on(day) && !self.is_taken_back(unit) {
            let unnamed = self.accounts(&unit.provider).next().is_none();
            let own = self.own.contains(&unit.provider);
            silent.all = own && (provider.is_forgotten(day, now) || (is_new && unnamed));
        }
        if is_new {
            let charged = |account: &str| {
                let mut asked = provider.asked.iter();
                asked.any(|line| line.account == account && line.start.date() == day)
            };
            let accounts = self.accounts(&unit.provider).filter(|account| !charged(account));
            silent.accounts = accounts.collect();
            let all = self.accounts(&unit.provider).count();
            if all > 0 && silent.accounts.len() == all {
                // Use of which nobody knows the account is then one of theirs.
                silent.accounts.insert("");
            }
        }
        silent
    }

    /// Whether nothing at all is charged on the unit's day, as its provider's own sources say.
    pub fn is_free(&self, unit: &UnitId, now: Timestamp) -> bool {
        self.is_stated(unit, now) && !self.has_line(unit)
    }

    /// Whether no source has an account's charges: then none says that its use was free.
    pub fn is_strange(&self, provider: &str, account: &str) -> bool {
        !account.is_empty() && !self.answers_for(provider, account)
    }

    /// A provider's accounts whose own source answered.
    fn accounts(&self, provider: &str) -> impl Iterator<Item = &str> {
        let answered = self.answered.iter().filter(move |(name, _)| name == provider);
        answered.map(|(_, account)| account.as_str())
    }

    /// Whether a source that answered has an account's charges. Of one that names no account beforehand nobody knows.
    pub fn answers_for(&self, provider: &str, account: &str) -> bool {
        let mut accounts = self.accounts(provider);
        match (accounts.next(), accounts.next()) {
            (None, _) => true,
            (Some(_), None) if account.is_empty() => true,
            _ => self.accounts(provider).any(|known| known == account),
        }
    }

    /// Whether a charge that the provider's own source has not for the unit's day should be there by now. Of a day that it
    /// has not finished that is said when the grace is over.
    pub fn is_late(&self, unit: &UnitId, now: Timestamp) -> bool {
        if !self.own.contains(&unit.provider) || self.is_missing(&unit.provider) {
            return false;
        }
        let of = self.of_day(unit);
        let of = of.filter(|(provider, day)| !provider.is_forgotten(*day, now));
        let Some((provider, day)) = of else { return false };
        let end = day.midnight().plus_ms(DAY_MS);
        let unfinished = provider.complete_until.map_or(provider.habits.is_slow, |at| at < end);
        !unfinished || now >= grace_end(day)
    }

    /// Whether a bill that the books have is gone, although its source answered or there is none any more.
    pub fn is_gone(&self, unit: &UnitId, now: Timestamp) -> bool {
        let name = &unit.provider;
        let of = self.of_day(unit);
        let is_known = of.is_some_and(|(provider, day)| {
            provider.is_asked_on(day) || provider.is_forgotten(day, now)
        });
        !self.is_missing(name) && !self.lacks_files(name) && !is_known
    }

    /// Whether anything is charged on the unit's day.
    pub fn has_line(&self, unit: &UnitId) -> bool {
        self.of_day(unit).is_some_and(|(of, day)| of.lines_on(day).next().is_some())
    }

    /// Whether any charge covers more than a day.
    pub fn has_long_lines(&self) -> bool {
        self.providers.values().any(|provider| provider.lines().any(is_long))
    }

    /// The days that long charges cover.
    pub fn long_days(&self) -> Vec<Date> {
        let long = self.providers.values().flat_map(|p| p.lines().filter(|line| is_long(line)));
        let mut days = BTreeSet::new();
        for line in long {
            let (first, last) = days_of(line.start, line.end);
            // What is too long to be spread is refused there: its days need not be read.
            if last - first < DAYS_MAX {
                days.extend(first..=last);
            }
        }
        days.into_iter().map(Date::from_days).collect()
    }

    /// Spreads long charges over their days. A provider that has one which cannot be spread counts as missing: a part of
    /// a bill would be taken for all of it.
    pub fn spread(
        &mut self,
        estimates: &BTreeMap<String, BTreeMap<Timestamp, Usd>>,
    ) -> Vec<(String, NightError)> {
        let none = BTreeMap::new();
        let mut failed = Vec::new();
        for (name, provider) in &mut self.providers {
            let days = estimates.get(name).unwrap_or(&none);
            let spread = |lines: &[BillLine]| -> Result<Vec<BillLine>, NightError> {
                let parts = lines.iter().map(|line| {
                    if is_long(line) {
                        spread_over_days(line, days)
                    } else {
                        Ok(vec![line.clone()])
                    }
                });
                Ok(parts.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
            };
            match spread(&provider.asked).and_then(|asked| Ok((asked, spread(&provider.filed)?))) {
                Ok((asked, filed)) => (provider.asked, provider.filed) = (asked, filed),
                Err(error) => {
                    provider.asked.clear();
                    provider.filed.clear();
                    provider.usage.clear();
                    self.missing.insert(name.clone());
                    failed.push((name.clone(), error));
                }
            }
        }
        failed
    }

    /// Days outside of the range that charges lie on, of providers whose bill is whole there.
    pub fn days_outside(&self, range: Days) -> BTreeSet<Date> {
        let (from, to) = (range.start(), range.end());
        let whole = self.providers.iter().filter(|(name, _)| !self.own.contains(*name));
        let lines = whole.flat_map(|(_, provider)| provider.lines());
        let outside = lines.filter(|line| line.start < from || line.start >= to);
        outside.map(|line| line.start.date()).collect()
    }

    /// What dropped files charge before the range, when long charges were spread, by provider and days: a day, or the days
    /// of charges that overlap.
    pub fn filed_before(&self, range: Days) -> Result<Vec<Filed>, NightError> {
        let mut all: Vec<Filed> = self.before.iter().map(Filed::from).collect();
        for provider in self.providers.values() {
            let before = provider.filed.iter().filter(|line| line.start < range.start());
            all.extend(before.map(Filed::from));
        }
        all.retain(|filed| !self.is_missing(&filed.provider));
        all.sort_by(|a, b| (&a.provider, a.first).cmp(&(&b.provider, b.first)));
        let mut merged: Vec<Filed> = Vec::new();
        for next in all {
            let same =
                |last: &&mut Filed| last.provider == next.provider && next.first <= last.last;
            match merged.last_mut().filter(same) {
                Some(last) => {
                    last.last = last.last.max(next.last);
                    last.amount = fits(last.amount.checked_add(next.amount), "dropped files")?;
                }
                None => merged.push(next),
            }
        }
        Ok(merged)
    }

    /// What dropped files charge on the unit's day, if they do.
    pub fn filed_on(&self, unit: &UnitId) -> Result<Option<Usd>, NightError> {
        let of = self.of_day(unit).filter(|_| !self.is_missing(&unit.provider));
        let Some((provider, day)) = of else {
            return Ok(None);
        };
        let mut lines = provider.filed.iter().filter(|line| line.start.date() == day);
        lines.try_fold(None, |sum: Option<Usd>, line| {
            let sum = sum.unwrap_or_default().checked_add(line.amount);
            Ok(Some(fits(sum, "dropped files")?))
        })
    }

    /// Whether all of the unit's charges are known although its day is outside of the range.
    pub fn is_whole_outside(&self, unit: &UnitId) -> bool {
        !self.own.contains(&unit.provider) && self.has_line(unit)
    }

    /// Providers with a charge or use on this day.
    pub fn providers_on(&self, day: Date) -> Vec<String> {
        let on = |(name, provider): (&String, &OfProvider)| {
            let lines = provider.lines().any(|line| line.start.date() == day);
            let usage = provider.usage.iter().any(|usage| usage.start.date() == day);
            (lines || usage).then(|| name.clone())
        };
        self.providers.iter().filter_map(on).collect()
    }

    /// What of the bills is a unit's: nothing while a part is missing, which would be taken for the whole.
    pub fn of(&self, unit: &UnitId) -> OfUnit {
        let of = self.of_day(unit).filter(|_| !self.is_missing(&unit.provider));
        let Some((provider, day)) = of else { return OfUnit::default() };
        let end = day.midnight().plus_ms(DAY_MS);
        let lines = provider.lines_on(day);
        let nothing_filed = on_day(provider.filed.iter(), day).next().is_none();
        let asked = provider.is_asked_on(day) || nothing_filed;
        let mut from: BTreeSet<&str> = BTreeSet::new();
        from.extend(provider.asked_from.iter().filter(|_| asked).map(String::as_str));
        from.extend(provider.filed_from.iter().filter(|_| !nothing_filed).map(String::as_str));
        let usage = provider.usage.iter().filter(|usage| usage.start.date() == day);
        OfUnit {
            lines: lines.cloned().collect(),
            usage: usage.cloned().collect(),
            source: from.into_iter().collect::<Vec<_>>().join(" "),
            provisional: provider.complete_until.is_some_and(|until| until < end),
        }
    }

    /// Shows all that a day's books take from the bills, without where it came from: the same bill pulled again is the
    /// same bill.
    pub fn describe(&self, day: Date, now: Timestamp, part: &mut dyn FnMut(&str)) {
        let on: BTreeSet<String> = self.providers_on(day).into_iter().collect();
        for name in self.providers.keys().cloned() {
            let is_on = on.contains(&name);
            let unit = UnitId { workspace: String::new(), day: day.to_string(), provider: name };
            let is_stated = self.is_stated(&unit, now);
            if !is_on && !is_stated {
                continue;
            }
            let of = self.of(&unit);
            part(&unit.provider);
            let silent = self.silent(&unit, now);
            part(if silent.all { "all are silent" } else { "" });
            silent.accounts.into_iter().for_each(&mut *part);
            part(if is_stated { "nothing" } else { "" });
            part(if of.provisional { "provisional" } else { "final" });
            let mut texts: Vec<String> =
                of.lines.iter().filter_map(|line| serde_json::to_string(line).ok()).collect();
            texts.extend(of.usage.iter().filter_map(|usage| serde_json::to_string(usage).ok()));
            texts.sort();
            texts.iter().for_each(|text| part(text));
        }
        self.missing.iter().chain(&self.waiting).for_each(|name| part(name));
    }

    /// The unit in which a provider's bill shows amounts, before charges were spread.
    pub fn resolution(&self, provider: &str) -> Option<Usd> {
        self.providers.get(provider)?.resolution
    }

    /// The provider's ids of keys that the gateway holds. Empty where that cannot be told: then nothing is told by key.
    pub fn known_credentials(
        &self,
        provider: &str,
        context: &ReconcilerContext,
        named: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let of_provider = self.credentials.iter().filter(|key| key.provider == provider);
        let known = of_provider.filter(|key| is_held(key, context) || named.contains(&key.id));
        let mut known: BTreeSet<String> = known.map(|key| key.id.clone()).collect();
        if !known.is_empty() {
            known.extend(named.iter().cloned());
        }
        known
    }

    /// Active keys that providers list and the gateway does not hold, of providers that it holds any key of.
    pub fn unknown_credentials(
        &self,
        context: &ReconcilerContext,
        named: &BTreeSet<String>,
    ) -> Vec<&Credential> {
        let unknown = self
            .credentials
            .iter()
            .filter(|key| key.active && !is_held(key, context) && !named.contains(&key.id));
        unknown.collect()
    }
}

/// Whether the gateway holds this key: its end is that of one of the workspace's credentials for the provider.
fn is_held(key: &Credential, context: &ReconcilerContext) -> bool {
    let mut hints = context
        .providers
        .values()
        .filter(|provider| provider.price_book == key.provider)
        .filter_map(|provider| provider.credential_hint.as_deref());
    key.hint.as_deref().is_some_and(|shown| hints.any(|hint| shown.ends_with(hint)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bill::Bill;

    /// The bills of a source that answered without a charge, and the unit of a day.
    fn empty(
        source: serde_json::Value,
        complete_until: Option<&str>,
        day: &str,
    ) -> (Bills, UnitId) {
        let complete_until = complete_until.and_then(Timestamp::parse);
        let bill = Bill { complete_until, ..Bill::default() };
        let source: Source = serde_json::from_value(source).unwrap();
        let mut bills = Bills::default();
        bills.add(&source, Pulled { bill, held: Vec::new(), manifest: "m".into() });
        let provider = source.providers().unwrap().swap_remove(0);
        (bills, UnitId { workspace: "w".into(), day: day.into(), provider })
    }

    #[test]
    fn a_day_that_its_source_has_not_finished_is_late_after_the_grace() {
        let end = Timestamp::parse("2026-11-19T03:00:00Z").unwrap();
        let late = |source: &serde_json::Value, until| {
            let (bills, unit) = empty(source.clone(), until, "2026-11-18");
            [0, 1, 2].map(|days| bills.is_late(&unit, end.plus_ms(days * DAY_MS)))
        };
        let cost_explorer = json!({ "connector": "aws_cost_explorer", "account": "1" });
        assert_eq!(late(&cost_explorer, Some("2026-11-18T00:00:00Z")), [false, false, true]);
        assert_eq!(late(&cost_explorer, Some("2026-11-18T23:59:59Z")), [false, false, true]);
        assert_eq!(late(&cost_explorer, Some("2026-11-19T00:00:00Z")), [true, true, true]);
        // Who says nothing of it has finished all days, unless it is known to be slow.
        assert_eq!(late(&cost_explorer, None), [true, true, true]);
        let azure = json!({ "connector": "azure", "account": "1", "scope": "subscriptions/1",
            "credential": { "token": "t" } });
        assert_eq!(late(&azure, None), [false, false, true]);
    }

    #[test]
    fn a_bill_is_not_gone_from_a_source_that_forgets() {
        let now = Timestamp::parse("2026-11-21T02:00:00Z").unwrap();
        let openrouter =
            json!({ "connector": "openrouter", "account": "1", "management_key": "k" });
        let openai = json!({ "connector": "openai", "account": "1", "admin_key": "k" });
        for (source, day, gone) in [
            (&openrouter, "2026-10-21", false),
            (&openrouter, "2026-10-22", true),
            (&openai, "2026-10-21", true),
        ] {
            let (bills, unit) = empty(source.clone(), None, day);
            let found = (bills.is_gone(&unit, now), bills.lack(&unit, now));
            assert_eq!(found, (gone, Lack::All), "{day}");
        }
    }

    /// Adds a dropped file with a charge of a day.
    fn file(bills: &mut Bills, unit: &UnitId, amount: &str) {
        let day = Date::parse(&unit.day).unwrap();
        let line = json!({ "provider": unit.provider, "account": "1", "start": day.midnight(),
            "end": day.midnight().plus_ms(DAY_MS), "kind": "usage", "service": "s",
            "description": "", "meter": "whole", "amount": amount });
        let bill = Bill { lines: vec![serde_json::from_value(line).unwrap()], ..Bill::default() };
        let source =
            serde_json::from_value(json!({ "connector": "inbox", "mapping": {} })).unwrap();
        bills.add(&source, Pulled { bill, held: Vec::new(), manifest: format!("{INBOX}f") });
    }

    #[test]
    fn a_file_is_not_the_bill_of_a_source_that_forgot_the_day_or_does_not_have_it_yet() {
        let now = Timestamp::parse("2026-11-21T02:00:00Z").unwrap();
        let openrouter =
            json!({ "connector": "openrouter", "account": "1", "management_key": "k" });
        let cost_explorer = json!({ "connector": "aws_cost_explorer", "account": "1" });
        for (source, day, waits) in [
            (&openrouter, "2026-10-21", true),
            (&openrouter, "2026-10-22", false),
            (&cost_explorer, "2026-11-20", true),
            (&cost_explorer, "2026-11-18", false),
        ] {
            let (mut bills, unit) = empty(source.clone(), None, day);
            file(&mut bills, &unit, "5");
            let silent = bills.silent(&unit, now);
            assert_eq!((silent.has("1"), silent.has("")), (waits, waits), "{day}");
            assert_eq!(
                (bills.lack(&unit, now), bills.of(&unit).source),
                (Lack::Own, format!("{INBOX}f"))
            );
            // A line of 0 says that the file is all there is.
            file(&mut bills, &unit, "0");
            assert_eq!(bills.lack(&unit, now), Lack::Nothing, "{day}");
            assert!(!bills.silent(&unit, now).all);
        }
        let (bills, unit) = empty(openrouter, None, "2026-10-21");
        assert!(!bills.is_late(&unit, now), "it will never come");
    }
}
