//! Charges that cover more than a day, as monthly invoices do, taken apart into days.

use std::collections::BTreeMap;

use tallygate_shared::money::Usd;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::NightError;
use super::allocate::{divide, grain};
use crate::bill::{BillLine, ChargeKind, Quantity};

/// What the gateway estimated, by the first moment of each day.
pub type DailyEstimates = BTreeMap<Timestamp, Usd>;

/// More days than this are no invoice.
pub(super) const DAYS_MAX: i64 = 400;

/// A line for each UTC day of `line`'s period, in proportion to the day's estimate; evenly when nothing was estimated on
/// any of them. Amounts and quantities add up to the line's. A line within a day comes back as it is.
pub fn spread_over_days(
    line: &BillLine,
    estimates: &DailyEstimates,
) -> Result<Vec<BillLine>, NightError> {
    let bad = |problem: &str| NightError::Input {
        field: "start and end of a bill line".to_owned(),
        problem: format!("{problem} ({} to {})", line.start, line.end),
        remedy: "a charge's period has at least a moment and at most 400 days",
    };
    if line.end <= line.start {
        return Err(bad("are in the wrong order"));
    }
    let first = line.start.ms().div_euclid(DAY_MS);
    let after = line.end.plus_ms(-1).ms().div_euclid(DAY_MS) + 1;
    if after - first > DAYS_MAX {
        return Err(bad("are too far apart"));
    }
    let days: Vec<Timestamp> = (first..after).map(|day| Timestamp::from_ms(day * DAY_MS)).collect();
    if days.len() == 1 {
        return Ok(vec![line.clone()]);
    }
    let weight = |day: &Timestamp| {
        estimates.get(day).map_or(0, |usd| u128::try_from(usd.pico()).unwrap_or(0))
    };
    let weights: Vec<u128> = days.iter().map(weight).collect();
    let even = vec![1; days.len()];
    let share =
        |total: i128| divide(total, &weights).or_else(|| divide(total, &even)).unwrap_or_default();
    let amounts = share(line.amount.pico());
    let lists = line.list_amount.map(|list| share(list.pico()));
    let quantities = line.quantity.map(|quantity| {
        // Tokens and calls are whole things. A seat of a month is a part of one on each of its days.
        let seats = line.kind == ChargeKind::Seat;
        let grain = if seats { 1 } else { grain(quantity.pico()) };
        let parts = share(quantity.pico() / grain);
        parts.into_iter().map(|part| part.saturating_mul(grain)).collect::<Vec<_>>()
    });
    let of = |parts: &Option<Vec<i128>>, at: usize| parts.as_ref()?.get(at).copied();
    let spread = days.iter().zip(amounts).enumerate().map(|(at, (day, amount))| BillLine {
        start: (*day).max(line.start),
        end: day.plus_ms(DAY_MS).min(line.end),
        amount: Usd::from_pico(amount),
        list_amount: of(&lists, at).map(Usd::from_pico),
        quantity: of(&quantities, at).map(Quantity::from_pico),
        ..line.clone()
    });
    Ok(spread.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::Meter;
    use proptest::prelude::*;

    fn line(start_ms: i64, end_ms: i64, amount: i128, tokens: u64) -> BillLine {
        BillLine {
            provider: "google".into(),
            account: "billing".into(),
            project: None,
            start: Timestamp::from_ms(start_ms),
            end: Timestamp::from_ms(end_ms),
            kind: ChargeKind::Usage,
            service: "Gemini".into(),
            description: "a month".into(),
            model: None,
            meter: Meter::Whole,
            tier: None,
            quantity: Some(Quantity::whole(tokens)),
            unit: Some("Tokens".into()),
            amount: Usd::from_pico(amount),
            list_amount: Some(Usd::from_pico(amount)),
            invoice_id: None,
            credential: None,
            provisional: false,
            tags: BTreeMap::new(),
        }
    }

    fn estimates(days: &[(i64, i128)]) -> DailyEstimates {
        days.iter().map(|(day, p)| (Timestamp::from_ms(day * DAY_MS), Usd::from_pico(*p))).collect()
    }

    #[test]
    fn a_month_follows_the_estimates_or_is_even() {
        let days = |known: &[(i64, i128)]| {
            let spread =
                spread_over_days(&line(0, 3 * DAY_MS, 100, 10), &estimates(known)).unwrap();
            let told = spread.iter().map(|l| (l.amount.pico(), l.quantity.unwrap().to_string()));
            told.collect::<Vec<_>>()
        };
        let text = |parts: [(i128, &str); 3]| parts.map(|(a, q)| (a, q.to_owned()));
        assert_eq!(days(&[]), text([(34, "4"), (33, "3"), (33, "3")]));
        assert_eq!(days(&[(0, 1), (2, 3), (9, 50)]), text([(25, "3"), (0, "0"), (75, "7")]));
    }

    #[test]
    fn a_month_of_seats_has_a_part_of_each_on_every_day() {
        let seats = BillLine { kind: ChargeKind::Seat, ..line(0, 4 * DAY_MS, 100, 3) };
        let days = spread_over_days(&seats, &estimates(&[])).unwrap();
        assert!(days.iter().all(|l| l.quantity.unwrap().to_string() == "0.75"), "{days:?}");
    }

    #[test]
    fn a_day_stays_and_nonsense_is_named() {
        let day = line(5, DAY_MS, 100, 10);
        assert_eq!(spread_over_days(&day, &estimates(&[])).unwrap(), [day]);
        for (start, end) in [(5, 5), (6, 5), (0, 401 * DAY_MS)] {
            let error = spread_over_days(&line(start, end, 1, 1), &estimates(&[])).unwrap_err();
            assert!(error.to_string().contains("start and end"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn days_add_up_and_follow_each_other(
            start in 0..10 * DAY_MS, length in 1..40 * DAY_MS, amount in any::<i64>(), tokens in any::<u64>(),
            known in prop::collection::btree_map(0..50_i64, 0..i64::MAX, 0..20),
        ) {
            let whole = line(start, start + length, i128::from(amount), tokens);
            let known: Vec<(i64, i128)> = known.into_iter().map(|(d, p)| (d, i128::from(p))).collect();
            let days = spread_over_days(&whole, &estimates(&known)).unwrap();
            prop_assert_eq!(days.iter().map(|l| l.amount.pico()).sum::<i128>(), i128::from(amount));
            prop_assert_eq!(days.iter().map(|l| l.list_amount.unwrap().pico()).sum::<i128>(), i128::from(amount));
            let tokens_of = |l: &BillLine| l.quantity.unwrap().pico();
            prop_assert_eq!(days.iter().map(tokens_of).sum::<i128>(), Quantity::whole(tokens).pico());
            prop_assert!(days.iter().all(|l| tokens_of(l) % Quantity::ONE == 0));
            prop_assert_eq!(days.first().unwrap().start, whole.start);
            prop_assert_eq!(days.last().unwrap().end, whole.end);
            prop_assert!(days.windows(2).all(|w| w[0].end == w[1].start));
            prop_assert!(days.iter().all(|l| l.start.date() == l.end.plus_ms(-1).date()));
        }
    }
}
