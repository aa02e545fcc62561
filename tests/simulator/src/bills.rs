//! From the books to a provider's bill: priced to the last digit, with what the quirks make of it.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::books::{Account, Used};
use crate::clock::{Day, Span};
use crate::money::{divide, round};
use crate::quirks::{Extra, Meter, Quirks};
use crate::usage;

/// Which state of a bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// As the provider's API tells it now.
    Shown,
    /// As it is in the end, and exact: nothing late, everything revised, nothing rounded.
    Final,
}

/// The use of one meter by one key on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) day: Day,
    pub(crate) credential: String,
    /// Where the key belongs, if a test said so.
    pub(crate) project: Option<String>,
    pub(crate) embeddings: bool,
    /// The model as the bill calls it.
    pub(crate) model: String,
    pub(crate) tier: String,
    pub(crate) meter: Meter,
    pub(crate) count: u64,
    /// How many of them were used outside of the gateway.
    pub(crate) leaked: u64,
    pub(crate) amount: i128,
    pub(crate) leaked_amount: i128,
}

/// What a line beside the metered use is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    Credit,
    Tax,
    Discount,
    MinimumFee,
    Adjustment,
}

/// A line beside the metered use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) day: Day,
    pub(crate) reason: Reason,
    pub(crate) description: String,
    pub(crate) amount: i128,
}

/// A provider's bill for some days.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) lines: Vec<Line>,
    pub(crate) charges: Vec<Charge>,
}

/// True when a credential is one of the account's: `sk-sim-7` and `sk-sim-7-backup` are account 7's.
pub(crate) fn belongs(account: &str, credential: &str) -> bool {
    let rest = credential.strip_prefix("sk-sim-").and_then(|name| name.strip_prefix(account));
    account.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// The provider's id of a key. It does not tell the key.
pub(crate) fn key_id(provider: &str, credential: &str) -> String {
    let hash = key_hash(credential);
    match provider {
        "openrouter" => hash,
        "anthropic" => format!("apikey_{}", hash.get(..24).unwrap_or_default()),
        _ => format!("key_{}", hash.get(..16).unwrap_or_default()),
    }
}

fn key_hash(credential: &str) -> String {
    Sha256::digest(credential).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Bill {
    /// The bill of the days.
    pub(crate) fn new<'a>(
        books: impl Iterator<Item = (&'a Account, &'a Used)>,
        quirks: &Quirks,
        span: Span,
        view: View,
    ) -> Self {
        // A minimum may count days before the ones asked for.
        let fees = quirks.minimum_fee.iter().filter(|fee| span.has(fee.days.last()));
        let from = fees.map(|fee| fee.days.from).chain([span.from]).min().unwrap_or(span.from);
        let wide = Span { from, to: span.to };
        let mut lines = lines(books, quirks, wide, view);
        let mut metered: BTreeMap<Day, i128> = BTreeMap::new();
        for line in &lines {
            *metered.entry(line.day).or_default() += line.amount;
        }
        lines.retain(|line| span.has(line.day) && (line.count > 0 || line.amount != 0));
        let mut bill = Self { lines, charges: charges(quirks, &metered, span) };
        if view == View::Shown {
            bill.round(quirks, span);
        }
        bill
    }

    /// The sum of everything.
    pub(crate) fn total(&self) -> i128 {
        self.amounts().map(|(_, amount)| amount).sum()
    }

    /// The days' and lines' amounts.
    fn amounts(&self) -> impl Iterator<Item = (Day, i128)> {
        let lines = self.lines.iter().map(|line| (line.day, line.amount));
        lines.chain(self.charges.iter().map(|charge| (charge.day, charge.amount)))
    }

    /// The sum of a day.
    pub(crate) fn day_total(&self, day: Day) -> i128 {
        self.amounts().filter(|(of, _)| *of == day).map(|(_, amount)| amount).sum()
    }

    fn round(&mut self, quirks: &Quirks, span: Span) {
        let Some(rounding) = quirks.rounding else { return };
        let exact: Vec<i128> = span.days().map(|day| self.day_total(day)).collect();
        for line in &mut self.lines {
            line.amount = round(line.amount, rounding.places);
        }
        for charge in &mut self.charges {
            charge.amount = round(charge.amount, rounding.places);
        }
        if rounding.adjustment {
            for (day, exact) in span.days().zip(exact) {
                let amount = exact - self.day_total(day);
                if amount != 0 {
                    let (reason, description) =
                        (Reason::Adjustment, "Adjustment: rounding".to_owned());
                    self.charges.push(Charge { day, reason, description, amount });
                }
            }
        }
    }
}

/// Each meter of each key and model, priced.
fn lines<'a>(
    books: impl Iterator<Item = (&'a Account, &'a Used)>,
    quirks: &Quirks,
    span: Span,
    view: View,
) -> Vec<Line> {
    let provider = quirks.provider.as_str();
    let usual_tier = if provider == "anthropic" { "standard" } else { "default" };
    let mut found: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for (account, used) in books {
        let asked = account.flavour == provider
            && span.has(account.day)
            && belongs(&quirks.account, &account.credential);
        if !asked {
            continue;
        }
        let tier = account.tier.as_deref().unwrap_or(usual_tier);
        for (meter, count) in meters(used) {
            let key =
                (account.day, &account.credential, account.embeddings, &account.model, tier, meter);
            let (all, leaked) = found.entry(key).or_default();
            *all += count;
            *leaked += if account.leaked { count } else { 0 };
        }
    }
    let line = |((day, credential, embeddings, model, tier, meter), (count, leaked))| {
        let (credential, model): (&String, &String) = (credential, model);
        let hidden = if view == View::Final { 0 } else { share(count, quirks.hidden_percent(day)) };
        let count: u64 = count - hidden;
        let price = price(quirks, model, meter, tier, day);
        Line {
            day,
            credential: credential.clone(),
            project: quirks.key(credential).and_then(|key| key.project.clone()),
            embeddings,
            model: model.clone(),
            tier: tier.to_owned(),
            meter,
            count,
            leaked,
            amount: i128::from(count) * price,
            leaked_amount: i128::from(leaked) * price,
        }
    };
    let mut lines: Vec<Line> = found.into_iter().map(line).collect();
    for change in quirks.revisions(view == View::Final) {
        let fits = |line: &&mut Line| {
            line.day == change.day && line.model == change.model && line.meter == change.meter
        };
        if let Some(line) = lines.iter_mut().filter(fits).max_by_key(|line| line.amount) {
            line.amount += change.amount.0;
            line.count += change.tokens;
        }
    }
    for line in &mut lines {
        if let Some(name) = quirks.names.get(&line.model) {
            line.model.clone_from(name);
        }
    }
    lines
}

/// Says which revision would change nothing.
pub(crate) fn check_revisions<'a>(
    books: impl Iterator<Item = (&'a Account, &'a Used)>,
    quirks: &Quirks,
) -> Result<(), String> {
    let used: Vec<_> = books.collect();
    for change in &quirks.revise {
        let (from, to) = (change.day, change.day.plus(1));
        let plain = Quirks { revise: Vec::new(), names: BTreeMap::new(), ..quirks.clone() };
        let lines = lines(used.iter().copied(), &plain, Span { from, to }, View::Final);
        if !lines.iter().any(|line| line.model == change.model && line.meter == change.meter) {
            return Err(format!(
                "revise: the books have no such use of {} on {}: use it first",
                change.model, change.day
            ));
        }
    }
    Ok(())
}

fn meters(used: &Used) -> impl Iterator<Item = (Meter, u64)> {
    let billed = used.billed;
    let all = [
        (Meter::Input, billed.input),
        (Meter::CacheRead, billed.cache_read),
        (Meter::CacheWrite5m, billed.cache_write_5m),
        (Meter::CacheWrite1h, billed.cache_write_1h),
        (Meter::Output, billed.output),
        (Meter::Reasoning, billed.reasoning),
        (Meter::Requests, used.requests),
    ];
    all.into_iter().filter(|(_, count)| *count > 0)
}

/// A share in percent, rounded down.
fn share(count: u64, percent: u64) -> u64 {
    let share = u128::from(count) * u128::from(percent) / 100;
    u64::try_from(share).unwrap_or(count).min(count)
}

/// Picodollars for each.
fn price(quirks: &Quirks, model: &str, meter: Meter, tier: &str, day: Day) -> i128 {
    if let Some(price) = quirks.price(model, meter, tier, day) {
        return price;
    }
    let [input, cache_read, write_5m, write_1h, output] =
        usage::flavour_prices(&quirks.provider, model);
    let price = match meter {
        Meter::Input => input,
        Meter::CacheRead => cache_read,
        Meter::CacheWrite5m => write_5m,
        Meter::CacheWrite1h => write_1h,
        Meter::Output => output,
        Meter::Reasoning => 0,
        Meter::Requests => usage::request_price(&quirks.provider),
    };
    i128::try_from(price).unwrap_or_default()
}

fn charges(quirks: &Quirks, metered: &BTreeMap<Day, i128>, span: Span) -> Vec<Charge> {
    let mut charges = Vec::new();
    let mut push = |day, reason, extra: &Extra, usual: &str, amount: i128| {
        if span.has(day) && amount != 0 {
            let description = extra.description.clone().unwrap_or_else(|| usual.to_owned());
            charges.push(Charge { day, reason, description, amount });
        }
    };
    let kinds = [
        (Reason::Credit, &quirks.credit, -1, "Credit: promotional"),
        (Reason::Discount, &quirks.discount, -1, "Discount: volume"),
        (Reason::Tax, &quirks.tax, 1, "Tax: sales tax"),
    ];
    for (reason, extras, sign, usual) in kinds {
        for extra in extras {
            if let Some(amount) = extra.amount {
                push(extra.days.last(), reason, extra, usual, sign * amount.0);
            }
            let points = i128::from(extra.basis_points.unwrap_or_default());
            for (day, metered) in metered.iter().filter(|(day, _)| extra.days.has(**day)) {
                push(*day, reason, extra, usual, sign * divide(metered * points, 10_000));
            }
        }
    }
    for fee in &quirks.minimum_fee {
        let used = metered.iter().filter(|(day, _)| fee.days.has(**day)).map(|(_, amount)| amount);
        let missing = fee.amount.map_or(0, |least| least.0) - used.sum::<i128>();
        push(fee.days.last(), Reason::MinimumFee, fee, "Minimum fee", missing.max(0));
    }
    charges
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::books::Books;
    use crate::money::dollars;
    use crate::usage::Billed;

    pub(crate) fn day(text: &str) -> Day {
        Day::parse(text).unwrap()
    }

    pub(crate) fn span(text: &str) -> Span {
        Span::try_from(text.to_owned()).unwrap()
    }

    pub(crate) fn quirks(document: &str) -> Quirks {
        let quirks: Quirks = serde_json::from_str(document).unwrap();
        quirks.check().unwrap();
        quirks
    }

    /// Two keys, two models and a leak on two days, with amounts that no cent divides.
    pub(crate) fn books(flavour: &str, models: [&str; 2]) -> Books {
        let mut books = Books::default();
        let uses = [
            ("2026-11-20", "sk-sim-1", models[0], None, false, 1_001, 333),
            ("2026-11-20", "sk-sim-1", models[0], Some("batch"), false, 77, 5),
            ("2026-11-20", "sk-sim-1-b", models[1], None, false, 123_457, 9_999),
            ("2026-11-20", "sk-sim-1", models[0], None, true, 500, 41),
            ("2026-11-21", "sk-sim-1", models[1], None, false, 10, 1),
            ("2026-11-21", "sk-sim-12", models[1], None, false, 1_000_000, 1),
        ];
        for (day, credential, model, tier, leaked, input, output) in uses {
            let billed =
                Billed { input, output, cache_read: input / 3, reasoning: 1, ..Billed::default() };
            let account = Account {
                day: Day::parse(day).unwrap(),
                flavour: flavour.to_owned(),
                credential: credential.to_owned(),
                embeddings: false,
                model: model.to_owned(),
                tier: tier.map(str::to_owned),
                leaked,
            };
            books.add(account, Used { requests: 2, billed });
        }
        books
    }

    const MODELS: [&str; 2] = ["gpt-6-luna", "gpt-6-sol"];
    const BOTH: &str = "2026-11-20/2026-11-22";

    fn bill(document: &str, days: &str, view: View) -> Bill {
        Bill::new(books("openai", MODELS).used(), &quirks(document), span(days), view)
    }

    #[test]
    fn each_token_has_its_price() {
        // Luna: (1001 + 77 + 500) in, (333 + 25 + 166) cached, 379 out. Sol: 123457, 41152 and 9999; 10, 3 and 1.
        let luna = 1_578 * 100_000 + 524 * 10_000 + 379 * 500_000;
        let sol = 123_457 * 2_000_000_i128 + 41_152 * 200_000 + 9_999 * 10_000_000;
        let next = 10 * 2_000_000 + 3 * 200_000 + 10_000_000;
        let bill = bill(r#"{"provider": "openai", "account": "1"}"#, BOTH, View::Shown);
        assert_eq!(bill.day_total(day("2026-11-20")), luna + sol);
        assert_eq!(bill.total(), luna + sol + next);
        let leaked: i128 = bill.lines.iter().map(|line| line.leaked_amount).sum();
        assert_eq!(leaked, 500 * 100_000 + 166 * 10_000 + 41 * 500_000);
        let requests = bill.lines.iter().filter(|line| line.meter == Meter::Requests);
        assert_eq!(requests.map(|line| line.count).sum::<u64>(), 10);
    }

    #[test]
    fn an_account_sees_its_own_keys_only() {
        assert!(belongs("1", "sk-sim-1") && belongs("1", "sk-sim-1-b") && belongs("", "sk-sim-2"));
        assert!(!belongs("1", "sk-sim-12") && !belongs("1", "sk-sim-2"));
        let all = bill(r#"{"provider": "openai"}"#, BOTH, View::Shown);
        assert!(all.lines.iter().any(|line| line.credential == "sk-sim-12"));
        let other = bill(r#"{"provider": "anthropic"}"#, BOTH, View::Shown);
        assert_eq!(other, Bill::default());
    }

    #[test]
    fn late_use_is_missing_first_and_whole_later() {
        let document =
            r#"{"provider": "openai", "account": "1", "late": [{"percent": 25, "pulls": 1}]}"#;
        let (books, mut quirks) = (books("openai", MODELS), quirks(document));
        let of = |quirks: &Quirks, view| Bill::new(books.used(), quirks, span(BOTH), view);
        quirks.pulled(span(BOTH));
        let (first, whole) = (of(&quirks, View::Shown), of(&quirks, View::Final));
        let input = |bill: &Bill| -> Vec<u64> {
            bill.lines
                .iter()
                .filter(|line| line.meter == Meter::Input)
                .map(|line| line.count)
                .collect()
        };
        assert_eq!(input(&first), [58, 1_126, 92_593, 8]);
        assert_eq!(input(&whole), [77, 1_501, 123_457, 10]);
        assert!(first.total() < whole.total());
        quirks.pulled(span(BOTH));
        assert_eq!(of(&quirks, View::Shown), whole);
    }

    #[test]
    fn a_revision_changes_amount_and_quantity_later() {
        let document = r#"{"provider": "openai", "account": "1", "revise": [{"day": "2026-11-20", "model": "gpt-6-sol",
            "meter": "input", "amount": "-0.1", "tokens": 3, "pulls": 1}]}"#;
        let (books, mut quirks) = (books("openai", MODELS), quirks(document));
        check_revisions(books.used(), &quirks).unwrap();
        let of = |quirks: &Quirks, view| Bill::new(books.used(), quirks, span(BOTH), view);
        quirks.pulled(span(BOTH));
        let (first, whole) = (of(&quirks, View::Shown), of(&quirks, View::Final));
        assert_eq!(dollars(whole.total() - first.total()), "-0.1");
        quirks.pulled(span("2026-11-21"));
        assert_eq!(of(&quirks, View::Shown), first);
        quirks.release();
        assert_eq!(of(&quirks, View::Shown), whole);
        let changed: Vec<u64> = whole
            .lines
            .iter()
            .zip(&first.lines)
            .filter(|(new, old)| new != old)
            .map(|(new, old)| new.count - old.count)
            .collect();
        assert_eq!(changed, [3]);
        let nothing = document.replace("gpt-6-sol", "gpt-5");
        assert!(check_revisions(books.used(), &super::tests::quirks(&nothing)).is_err());
    }

    #[test]
    fn rounded_lines_and_their_adjustment_sum_to_the_invoice() {
        for places in [2, 4] {
            let document = |adjustment| {
                format!(
                    r#"{{"provider": "openai", "account": "1", "tax": [{{"days": "{BOTH}", "basis_points": 825}}],
                    "rounding": {{"places": {places}, "adjustment": {adjustment}}}}}"#
                )
            };
            let exact = bill(&document(true), BOTH, View::Final);
            let adjusted = bill(&document(true), BOTH, View::Shown);
            let rough = bill(&document(false), BOTH, View::Shown);
            assert_eq!(adjusted.total(), exact.total(), "{places} places");
            assert_eq!(adjusted.lines, rough.lines);
            assert_ne!(rough.total(), exact.total(), "{places} places");
            let step = 10_i128.pow(12 - places);
            assert!(rough.lines.iter().all(|line| line.amount % step == 0));
            for day in span(BOTH).days() {
                assert_eq!(adjusted.day_total(day), exact.day_total(day));
            }
        }
    }

    #[test]
    fn another_price_counts_from_its_day_on() {
        let usual = bill(r#"{"provider": "openai", "account": "1"}"#, BOTH, View::Final);
        let dear = bill(
            r#"{"provider": "openai", "account": "1", "price": [
                {"model": "gpt-6-sol", "meter": "output", "from": "2026-11-21", "per_million": "10.5"}]}"#,
            BOTH,
            View::Final,
        );
        assert_eq!(dear.total() - usual.total(), 500_000);
    }

    #[test]
    fn credit_tax_discount_and_minimum_have_their_own_lines() {
        let document = r#"{"provider": "openai", "account": "1",
            "credit": [{"days": "2026-11-21", "amount": "0.25"}],
            "discount": [{"days": "2026-11-20/2026-11-22", "basis_points": 1000}],
            "tax": [{"days": "2026-11-20", "amount": "0.07", "description": "Tax: Texas"}],
            "minimum_fee": [{"days": "2026-11-20/2026-11-22", "amount": "2"}]}"#;
        let plain = bill(r#"{"provider": "openai", "account": "1"}"#, BOTH, View::Final);
        let bill = bill(document, BOTH, View::Shown);
        let metered = plain.total();
        let of = |wanted| -> i128 {
            bill.charges.iter().filter(|one| one.reason == wanted).map(|one| one.amount).sum()
        };
        assert_eq!(of(Reason::Credit), -250_000_000_000);
        assert_eq!(of(Reason::Tax), 70_000_000_000);
        assert_eq!(of(Reason::Discount), -metered / 10);
        assert_eq!(of(Reason::MinimumFee), 2_000_000_000_000 - metered);
        assert_eq!(bill.total(), 2_000_000_000_000 - 180_000_000_000 - metered / 10);
        assert!(bill.charges.iter().any(|charge| charge.description == "Tax: Texas"));
        // The minimum counts days that were not asked for.
        let last = super::tests::bill(document, "2026-11-21", View::Shown);
        let fee = last.charges.iter().find(|charge| charge.reason == Reason::MinimumFee).unwrap();
        assert_eq!(fee.amount, 2_000_000_000_000 - metered);
    }

    #[test]
    fn keys_and_models_have_the_provider_s_names() {
        let bill = bill(
            r#"{"provider": "openai", "account": "1", "names": {"gpt-6-sol": "gpt-6-sol-2026-09-01"},
                "keys": [{"credential": "sk-sim-1-b", "project": "proj_b"}]}"#,
            BOTH,
            View::Shown,
        );
        assert!(bill.lines.iter().all(|line| line.model != "gpt-6-sol"));
        let in_b = |line: &&Line| line.project.as_deref() == Some("proj_b");
        assert!(bill.lines.iter().filter(in_b).all(|line| line.credential == "sk-sim-1-b"));
        assert_eq!(bill.lines.iter().filter(in_b).count(), 5);
        assert!(!key_id("openai", "sk-sim-1").contains("sk-sim"));
    }
}
