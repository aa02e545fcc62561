//! Which of the prices on a bill are worth proposing: those that would take the place of the price that made the
//! difference. What was rated at several prices has a mean that is no price, and an old bill says what a price was.

use tallygate_shared::feedback::ReconcilerContext;
use tallygate_shared::money::Usd;
use tallygate_shared::pricing::{PriceBook, PriceRow};
use tallygate_shared::time::{DAY_MS, Date, Timestamp};

use super::PriceFinding;
use crate::bill::Meter;

/// A bill of longer ago says nothing of today's price. Monthly bills come within this.
const OLDEST_DAYS: i64 = 45;

/// Whether the gateway rated with this price on that day, and would again tomorrow.
pub fn is_in_force(
    price: &PriceFinding,
    context: &ReconcilerContext,
    day: Date,
    now: Timestamp,
) -> bool {
    let then = day.midnight();
    if now.since_ms(then) > OLDEST_DAYS * DAY_MS {
        return false;
    }
    let tomorrow = now.plus_ms(DAY_MS).date().midnight();
    let names = context.providers.iter().filter(|(_, p)| p.price_book == price.provider);
    let mut names = names.map(|(name, _)| name.as_str()).peekable();
    names.peek().is_some()
        && names.all(|name| {
            [then, tomorrow]
                .into_iter()
                .all(|at| rated(price, context, name, at) == Some(price.ours_per_million))
        })
}

/// What a million cost at a moment, by the workspace's own price or the price book's.
fn rated(
    price: &PriceFinding,
    context: &ReconcilerContext,
    name: &str,
    at: Timestamp,
) -> Option<Usd> {
    let own = context.prices.iter().find(|row: &&PriceRow| {
        row.provider == name && row.model == price.model && row.is_effective(at)
    });
    // The price book has Azure's models among OpenAI's.
    let book = if price.provider == "azure" { "openai" } else { price.provider.as_str() };
    let listed = || PriceBook::built_in().ok()?.find(book, &price.model, at);
    let row = own.or_else(listed)?;
    let prices = row.prices.get(&price.tier).or_else(|| row.prices.get("standard"))?;
    match price.meter {
        Meter::Input => prices.input,
        Meter::Output => prices.output,
        Meter::CacheRead => prices.cache_read,
        Meter::CacheWrite => {
            let mut all = prices.cache_write.values();
            let first = all.next().copied();
            first.filter(|first| all.all(|other| other == first))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::Quantity;

    fn context(prices: serde_json::Value) -> ReconcilerContext {
        serde_json::from_value(serde_json::json!({
            "workspace": "ws_a", "config_version": 1, "budgets": {}, "prices": prices,
            "providers": { "eu": { "price_book": "openai" } } }))
        .unwrap()
    }

    fn finding(ours: &str) -> PriceFinding {
        PriceFinding {
            provider: "openai".into(),
            model: "gpt-6-luna".into(),
            tier: "standard".into(),
            meter: Meter::Output,
            ours_per_million: ours.parse().unwrap(),
            billed_per_million: "0.7".parse().unwrap(),
            consistent: true,
            observations: 1,
            tokens: Quantity::whole(1),
            effect: Usd::ZERO,
        }
    }

    fn proposed(ours: &str, prices: serde_json::Value, day: &str, now: &str) -> bool {
        let (day, now) = (Date::parse(day).unwrap(), Timestamp::parse(now).unwrap());
        is_in_force(&finding(ours), &context(prices), day, now)
    }

    #[test]
    fn azure_has_the_prices_of_openai() {
        let mut context = context(serde_json::json!([]));
        context.providers.get_mut("eu").unwrap().price_book = "azure".into();
        let price = PriceFinding { provider: "azure".into(), ..finding("0.5") };
        let now = Timestamp::parse("2026-11-21T02:00:00Z").unwrap();
        let day = Date::parse("2026-11-20").unwrap();
        assert!(is_in_force(&price, &context, day, now));
        let other = PriceFinding { ours_per_million: "0.52".parse().unwrap(), ..price };
        assert!(!is_in_force(&other, &context, day, now));
    }

    #[test]
    fn only_the_price_that_made_the_difference_is_to_be_replaced() {
        let none = || serde_json::json!([]);
        let night = "2026-11-21T02:00:00Z";
        assert!(proposed("0.5", none(), "2026-11-20", night), "the book's");
        assert!(!proposed("0.52", none(), "2026-11-20", night), "a mean of several");
        assert!(!proposed("0.5", none(), "2026-09-20", night), "what it was long ago");
        let own = |from: &str| {
            serde_json::json!([{ "provider": "eu", "model": "gpt-6-luna", "effective_from": from,
                "prices": { "standard": { "input": "0.1", "output": "0.7" } } }])
        };
        assert!(!proposed("0.5", own("2026-11-22"), "2026-11-20", night), "corrected already");
        assert!(proposed("0.7", own("2026-11-01"), "2026-11-20", night), "the workspace's own");
        assert!(!proposed("0.5", own("2026-11-01"), "2026-11-20", night), "not what it rates with");
    }
}
