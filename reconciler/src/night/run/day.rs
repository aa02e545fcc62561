//! One day: what goes into its books, and who writes them.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use tallygate_shared::time::{DAY_MS, Date};

use super::held::{Held, checkpoint, say};
use super::workspace::{Given, Workspace};
use super::{Ended, RunError};
use crate::focus::month::Month;
use crate::ledger::{UnitId, hex};
use crate::night::ProviderEstimates;
use crate::night::day_mark::{self, DayMark, Place, Told};
use crate::night::read::Aggregated;
use crate::ports::StoreError;

/// So much time must be left for another day; the Lambda's end comes without a word.
const RESERVE_MS: i64 = 60_000;
/// So often a day is looked at whose books another worker writes into.
const LOOKS: u32 = 3;
/// A change here has every unit settled anew.
const ALGORITHM: &str = "1";

/// How a look at a day ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// Its books are what they should be, or the report says what is missing.
    Over,
    /// Another worker has it.
    Overtaken,
    /// Another worker wrote into it meanwhile: it needs another look.
    Disturbed,
}

impl Workspace<'_> {
    pub(super) async fn settle_days(
        &mut self,
        held: &mut Held,
        given: &Given<'_>,
    ) -> Result<Ended, RunError> {
        let outside = given.bills.days_outside(self.days);
        let mut days: BTreeSet<Date> = self.days.each().collect();
        days.extend(outside.iter().copied());
        let count = u64::try_from(days.len()).unwrap_or(0);
        for (place, day) in days.into_iter().enumerate() {
            let key = format!("day#{}#{day}", self.config.id);
            if held.state.done.contains_key(&key) {
                continue;
            }
            if self.night.clock.left_ms().is_some_and(|left| left < RESERVE_MS) {
                return Ok(Ended::More);
            }
            let done = u64::try_from(place).unwrap_or(0);
            self.night.progress.step(&self.config.id, &format!("settling {day}"), done, count);
            let mut looks = 0;
            let looked = loop {
                looks += 1;
                match self.settle_day(held, given, day, outside.contains(&day)).await {
                    Ok(Looked::Disturbed) if looks < LOOKS => {}
                    other => break other,
                }
            };
            match looked {
                Ok(Looked::Over) => {}
                Ok(Looked::Overtaken | Looked::Disturbed) => self.overtaken(held, day),
                // One day that cannot be settled stops no other.
                Err(error) if is_of_the_day(&error) => {
                    self.missing(held, &day.to_string(), &error.to_string());
                }
                Err(error) => return Err(error),
            }
            held.state.done.insert(key, String::new());
            checkpoint(self.night, held).await?;
        }
        Ok(Ended::Done)
    }

    pub(super) async fn settle_day(
        &mut self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
        outside: bool,
    ) -> Result<Looked, RunError> {
        let id = self.config.id.clone();
        let (ledger, objects) = (self.night.ledger.as_ref(), self.night.objects.as_ref());
        let Some((list, found)) = self.events(held, given, day).await? else {
            return Ok(Looked::Over);
        };
        let yesterday = day.midnight().plus_ms(-DAY_MS).date();
        let before = self.events(held, given, yesterday).await?;
        let mut place = Place::read(&id, day, ledger).await?;
        let mark = place.mark.clone();
        let before_list = before.as_ref().map(|(list, _)| list.as_str()).unwrap_or_default();
        let input = self.input(given, day, &list, before_list);
        if mark.seq > given.seq {
            return Ok(Looked::Overtaken);
        }
        if mark.input == input && mark.fed && self.books_are(&mark, day).await? {
            self.report(held).days_unchanged += 1;
            return Ok(Looked::Over);
        }
        let mut aggregator = self.aggregator(given);
        self.aggregate(&found, before.as_ref().map(|(_, found)| found), &mut aggregator).await?;
        let read = aggregator.finish()?;
        let providers = self.providers_of(given, &read, day, outside).await?;
        let mut told = Told::load(&mark.told, objects).await?;
        let opened = DayMark { input: String::new(), seq: given.seq, fed: false, ..mark.clone() };
        if !place.set(opened, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        let mut books = mark.books.clone();
        let (mut fed, mut settled) = (true, true);
        for provider in providers {
            let unit =
                UnitId { workspace: id.clone(), day: day.to_string(), provider: provider.clone() };
            if self.keeps_books(given, &unit).await? {
                // What the books have is better than what would be written without the bill.
                fed = false;
                continue;
            }
            let facts = read.facts.get(&provider).cloned().unwrap_or_default();
            let estimates = ProviderEstimates { estimates: &read.estimates, provider: &provider };
            let bill = self.unit_bill(given, &unit, facts);
            let done = match self.settle_unit(held, given, bill, &estimates, &told).await {
                Ok(done) => done,
                Err(RunError::Night(error)) => {
                    // One unit that cannot be settled stops no other, and what the books have of it stays.
                    fed = false;
                    self.missing(held, &format!("{provider} on {day}"), &error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            settled &= done.as_wanted;
            books.insert(provider.clone(), done.books);
            // Noted before it is said: what a killed worker said can be taken back.
            told.widen(&provider, &done.told);
            let noted = DayMark { told: told.keep(&id, objects).await?, ..place.mark.clone() };
            if !place.set(noted, ledger).await? {
                return Ok(Looked::Overtaken);
            }
            match done.feedback.bring(given.edge).await {
                Ok(()) => told.replace(&provider, &done.told),
                Err(error) => {
                    fed = false;
                    let what = format!("feedback of {day} {provider}");
                    self.missing(held, &what, &error.to_string());
                }
            }
        }
        if !settled {
            return Ok(Looked::Disturbed);
        }
        let told = told.keep(&id, objects).await?;
        let mark = DayMark { input, seq: given.seq, fed, told, books };
        if !place.set(mark, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        self.report(held).days_settled += 1;
        Ok(Looked::Over)
    }

    /// Notes that a day is another run's. Its books are set against that run's bills, not against ours.
    pub(super) fn overtaken(&mut self, held: &mut Held, day: Date) {
        let note = format!("{day}: another run writes it, or a newer pull is in the books already");
        say(&mut self.report(held).notes, note);
        self.others.insert(day.to_string());
    }

    /// Whether the books of a settled day still say what was written then.
    pub(super) async fn books_are(&self, mark: &DayMark, day: Date) -> Result<bool, RunError> {
        for (provider, books) in &mark.books {
            let (workspace, day) = (self.config.id.clone(), day.to_string());
            let unit = UnitId { workspace, day, provider: provider.clone() };
            if day_mark::books(&self.night.ledger.newest(&unit).await?) != *books {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Who has a part in a day: by use, by bill, or by what the books say already.
    pub(super) async fn providers_of(
        &self,
        given: &Given<'_>,
        read: &Aggregated,
        day: Date,
        outside: bool,
    ) -> Result<BTreeSet<String>, RunError> {
        let mut providers: BTreeSet<String> = read.facts.keys().cloned().collect();
        read.estimates.scan(None, &mut |estimate| {
            if !providers.contains(&estimate.provider) {
                providers.insert(estimate.provider.clone());
            }
            Ok(())
        })?;
        providers.extend(given.bills.providers_on(day));
        let month = Month::of(day).to_string();
        for unit in self.night.ledger.units(&self.config.id, &month).await? {
            if unit.day == day.to_string() {
                providers.insert(unit.provider);
            }
        }
        if outside {
            providers.retain(|provider| given.bills.is_whole_outside(provider));
        }
        Ok(providers)
    }

    /// All that a day's books follow from.
    pub(super) fn input(&self, given: &Given<'_>, day: Date, list: &str, before: &str) -> String {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        [ALGORITHM, list, before].into_iter().for_each(&mut part);
        given.bills.describe(day, &mut part);
        for (name, (provider, account)) in &given.places {
            [name, provider, account].into_iter().for_each(|text| part(text));
        }
        let settings = (
            &self.config.tags,
            &self.config.known_credentials,
            &self.config.resolution,
            &self.night.config.ledger_dimensions,
            &given.context.budgets,
            &given.context.settings,
        );
        part(&serde_json::to_string(&settings).unwrap_or_default());
        // What is derived from listings, and from the bill's other days.
        let mut providers: BTreeSet<String> = given.bills.providers_on(day).into_iter().collect();
        providers.extend(given.places.values().map(|(provider, _)| provider.clone()));
        for provider in &providers {
            let options = self.options(given, provider);
            part(&format!("{provider} {:?} {:?}", options.known_credentials, options.resolution));
        }
        hex(hash.finalize().as_slice())
    }
}

/// Whether an error is about what one day's books are made of, and not about a store or the run.
const fn is_of_the_day(error: &RunError) -> bool {
    matches!(error, RunError::Night(_) | RunError::Store(StoreError::Damaged { .. }))
}
