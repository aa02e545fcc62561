//! One day: what goes into its books, and who writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Date};

use super::events::sums_note;
use super::held::{Held, checkpoint, is_late, say};
use super::unit::UnitAt;
use super::workspace::{Given, Workspace};
use super::{RunError, Stop};
use crate::focus::month::Month;
use crate::ledger::{UnitId, hex};
use crate::night::bills::Lack;
use crate::night::day_mark::{DayMark, Place, Told};
use crate::night::read::Aggregated;
use crate::night::{ProviderEstimates, pages};
use crate::ports::StoreError;

/// So often a day is looked at whose books another worker writes into.
const LOOKS: u32 = 3;
/// A change here has every unit settled anew.
pub(super) const ALGORITHM: &str = "2";

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

/// How far a day's books are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DayAt {
    /// All that they follow from: other input is begun anew.
    input: String,
    /// Providers that are done.
    done: BTreeSet<String>,
    /// Whether the edge took what it was told.
    is_fed: bool,
    /// Whether the books say what this worker wanted.
    as_wanted: bool,
    /// How far the next provider is.
    unit: Option<UnitAt>,
}

impl Default for DayAt {
    fn default() -> Self {
        let done = BTreeSet::new();
        Self { input: String::new(), done, is_fed: true, as_wanted: true, unit: None }
    }
}

/// A day that is being written.
struct Writing {
    at: DayAt,
    /// What the books say, by provider.
    books: BTreeMap<String, String>,
    /// What of it dropped files charge, by provider.
    filed: BTreeMap<String, Usd>,
    /// Whether that was not noted until now.
    is_old: bool,
    told: Told,
    place: Place,
}

/// How a provider's part of a day ended.
enum Step {
    Done,
    /// The time is up. How far it is is in [`DayAt::unit`].
    Cut,
    /// Another worker has the day.
    Overtaken,
}

/// The note that a day is another run's.
pub(super) fn others_note(workspace: &str, day: &str) -> String {
    format!("other#{workspace}#{day}")
}

fn day_note(workspace: &str, day: Date) -> String {
    format!("at#{workspace}#{day}")
}

impl Workspace<'_> {
    pub(super) async fn settle_days(
        &mut self,
        held: &mut Held,
        given: &Given<'_>,
    ) -> Result<(), Stop> {
        let outside = given.bills.days_outside(self.days);
        let mut days: BTreeSet<Date> = self.days.each().collect();
        days.extend(outside.iter().copied());
        let count = u64::try_from(days.len()).unwrap_or(0);
        for (place, day) in days.into_iter().enumerate() {
            let key = format!("day#{}#{day}", self.config.id);
            if held.state.done.contains_key(&key) {
                continue;
            }
            if held.stops(self.night, 0) {
                return Err(Stop::Time);
            }
            let done = u64::try_from(place).unwrap_or(0);
            self.night.progress.step(&self.config.id, &format!("settling {day}"), done, count);
            let mut looks = 0;
            let looked = loop {
                looks += 1;
                match self.settle_day(held, given, day, outside.contains(&day)).await {
                    Ok(Looked::Disturbed) if looks < LOOKS => {}
                    Err(Stop::Time) => return Err(Stop::Time),
                    Ok(looked) => break Ok(looked),
                    Err(Stop::Failed(error)) => break Err(error),
                }
            };
            match looked {
                Ok(Looked::Over) => {}
                Ok(Looked::Overtaken | Looked::Disturbed) => self.overtaken(held, day),
                // One day that cannot be settled stops no other.
                Err(error) if is_of_the_day(&error) => {
                    self.missing(held, &day.to_string(), &error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
            held.state.done.remove(&day_note(&self.config.id, day));
            held.state.done.remove(&sums_note(&self.config.id, day));
            held.advance(key, String::new());
            checkpoint(self.night, held).await?;
        }
        Ok(())
    }

    async fn settle_day(
        &mut self,
        held: &mut Held,
        given: &Given<'_>,
        day: Date,
        outside: bool,
    ) -> Result<Looked, Stop> {
        let id = self.config.id.clone();
        let (ledger, objects) = (self.night.ledger.as_ref(), self.night.objects.as_ref());
        let Some(found) = self.events(held, given, day).await? else {
            return Ok(Looked::Over);
        };
        let yesterday = day.midnight().plus_ms(-DAY_MS).date();
        let before = self.events(held, given, yesterday).await?;
        let mut place = Place::read(&id, day, ledger).await?;
        let mark = place.mark.clone();
        let before_list = before.as_ref().map(|(list, _)| list.as_str()).unwrap_or_default();
        let input = self.input(given, day, &found.0, before_list);
        if mark.seq > given.seq {
            return Ok(Looked::Overtaken);
        }
        if mark.input == input && mark.fed && self.books_are(&mark, day).await? {
            self.report(held).days_unchanged += 1;
            return Ok(Looked::Over);
        }
        let mut summed = self.sum(held, given, day, &found, before.as_ref()).await?;
        let told = Told::load(&mark.told, objects).await?;
        let opened = DayMark { input: String::new(), seq: given.seq, fed: false, ..mark.clone() };
        if !place.set(opened, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        let note = day_note(&id, day);
        let noted = held.state.done.get(&note);
        let at = noted.and_then(|text| serde_json::from_str(text).ok());
        let at = at.filter(|at: &DayAt| at.input == input);
        let at = at.unwrap_or_else(|| DayAt { input, ..DayAt::default() });
        let is_old = mark.filed.is_none() && mark.seq > 0;
        let filed = mark.filed.unwrap_or_default();
        let mut books = Writing { at, books: mark.books, filed, is_old, told, place };
        for provider in self.providers_of(given, &summed.read, day, outside).await? {
            if books.at.done.contains(&provider) {
                continue;
            }
            if is_late(self.night, summed.settling_ms()) {
                self.note_day(held, given, day, &mut summed).await?;
            }
            if held.stops(self.night, summed.settling_ms()) {
                return Err(Stop::Time);
            }
            match self.provider(held, given, (day, &summed.read), &provider, &mut books).await? {
                Step::Done => {
                    books.at.unit = None;
                    books.at.done.insert(provider);
                }
                Step::Overtaken => return Ok(Looked::Overtaken),
                Step::Cut => {}
            }
            let cut = books.at.unit.is_some();
            if cut || is_late(self.night, 0) {
                // What was told so far is noted where the next worker looks, be it of another run.
                let told = books.told.keep(&id, objects).await?;
                let (told_books, filed) = (books.books.clone(), Some(books.filed.clone()));
                let mark = DayMark { told, books: told_books, filed, ..books.place.mark.clone() };
                if !books.place.set(mark, ledger).await? {
                    return Ok(Looked::Overtaken);
                }
                let text = serde_json::to_string(&books.at).unwrap_or_default();
                held.advance(note, text);
                self.note_day(held, given, day, &mut summed).await?;
                checkpoint(self.night, held).await?;
                return Err(Stop::Time);
            }
        }
        let Writing { at, books, filed, told, mut place, .. } = books;
        let filed = Some(filed);
        if !at.as_wanted {
            held.state.done.remove(&note);
            return Ok(Looked::Disturbed);
        }
        let told = told.keep(&id, objects).await?;
        let mark = DayMark { input: at.input, seq: given.seq, fed: at.is_fed, told, books, filed };
        if !place.set(mark, ledger).await? {
            return Ok(Looked::Overtaken);
        }
        self.report(held).days_settled += 1;
        Ok(Looked::Over)
    }

    /// One provider's part of a day: settled, written, told.
    async fn provider(
        &self,
        held: &mut Held,
        given: &Given<'_>,
        (day, read): (Date, &Aggregated),
        provider: &str,
        books: &mut Writing,
    ) -> Result<Step, RunError> {
        let id = &self.config.id;
        let (ledger, objects) = (self.night.ledger.as_ref(), self.night.objects.as_ref());
        let unit =
            UnitId { workspace: id.clone(), day: day.to_string(), provider: provider.to_owned() };
        let noted = books.at.unit.take().filter(|at| at.provider == provider);
        let estimates = ProviderEstimates { estimates: &read.estimates, provider };
        let lack = self.lack(given, &unit, &estimates)?;
        if noted.is_none() && self.books_have(&unit, lack).await? {
            // What the books have is better than what would be written without the bill.
            books.at.is_fed = false;
            if books.is_old && self.books_have(&unit, Lack::Files).await? {
                let amount = given.bills.filed_on(&unit)?;
                books.filed.extend(amount.map(|amount| (provider.to_owned(), amount)));
            }
            return Ok(Step::Done);
        }
        let mut at = noted.unwrap_or_else(|| UnitAt::new(provider));
        let facts = read.facts.get(provider).cloned().unwrap_or_default();
        let bill = self.unit_bill(given, &unit, facts, lack);
        let settled = self.settle_unit(held, given, &bill, &estimates, (&books.told, &at)).await;
        let written = match settled {
            Ok(settled) => {
                let whole = self.write_unit(held, given, &settled, &mut at).await;
                whole.map(|whole| (settled, whole))
            }
            Err(error) => Err(error),
        };
        let settled = match written {
            Ok((settled, true)) => settled,
            Ok((_, false)) => {
                books.at.unit = Some(at);
                return Ok(Step::Cut);
            }
            Err(RunError::Night(error)) => {
                // One unit that cannot be settled stops no other, and what the books have of it stays.
                books.at.is_fed = false;
                self.missing(held, &format!("{provider} on {day}"), &error.to_string());
                return Ok(Step::Done);
            }
            Err(error) => return Err(error),
        };
        // Noted before it is said: what a killed worker said can be taken back.
        books.told.widen(provider, &settled.told);
        let told = books.told.keep(id, objects).await?;
        let mark = DayMark { told, ..books.place.mark.clone() };
        if !books.place.set(mark, ledger).await? {
            return Ok(Step::Overtaken);
        }
        if !self.tell_unit(held, given, &settled, &mut at).await? {
            books.at.unit = Some(at);
            return Ok(Step::Cut);
        }
        books.at.as_wanted &= at.as_wanted;
        books.books.insert(provider.to_owned(), at.books);
        match given.bills.filed_on(&unit)?.filter(|_| lack != Lack::All) {
            Some(amount) => books.filed.insert(provider.to_owned(), amount),
            None => books.filed.remove(provider),
        };
        match at.refused {
            None => books.told.replace(provider, &settled.told),
            Some(error) => {
                books.at.is_fed = false;
                self.missing(held, &format!("feedback of {day} {provider}"), &error);
            }
        }
        Ok(Step::Done)
    }

    /// Notes that a day is another run's. Its books are set against that run's bills, not against ours.
    pub(super) fn overtaken(&mut self, held: &mut Held, day: Date) {
        let note = format!("{day}: another run writes it, or a newer pull is in the books already");
        say(&mut self.report(held).notes, note);
        held.state.done.insert(others_note(&self.config.id, &day.to_string()), String::new());
    }

    /// Whether the books of a settled day still say what was written then.
    pub(super) async fn books_are(&self, mark: &DayMark, day: Date) -> Result<bool, RunError> {
        for (provider, books) in &mark.books {
            let (workspace, day) = (self.config.id.clone(), day.to_string());
            let unit = UnitId { workspace, day, provider: provider.clone() };
            if pages::books(&unit, self.night.ledger.as_ref()).await? != *books {
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
        read.estimates.scan_sums(None, &mut |estimate| {
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
            providers.retain(|provider| {
                let (workspace, day) = (self.config.id.clone(), day.to_string());
                let unit = UnitId { workspace, day, provider: provider.clone() };
                given.bills.is_whole_outside(&unit)
            });
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
        given.bills.describe(day, self.night.clock.now(), &mut part);
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
