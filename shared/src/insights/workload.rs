//! What a workload would cost at each model for sale.

use serde::{Deserialize, Serialize};

use super::market::{BATCH, Market, STANDARD, is_chat};
use crate::money::Usd;
use crate::pricing::{PriceRow, rate};
use crate::time::Timestamp;
use crate::tokens::{Tally, Tokens};

/// A workload: so many requests a month, each like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Requests a month.
    pub requests: u64,
    /// Input tokens of a request, cached ones included.
    pub input_tokens: u64,
    /// Those that come from the cache.
    pub cached_tokens: u64,
    /// Output tokens of a request.
    pub output_tokens: u64,
    /// Requests that may wait for a batch, in percent.
    pub batch_percent: u64,
}

/// What it costs at a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema), schemars(rename = "WorkloadPrice"))]
pub struct Priced {
    /// The provider, by the workspace's name for it.
    pub provider: String,
    /// The model.
    pub model: String,
    /// What a month costs.
    pub month_usd: Usd,
    /// What a request costs that does not wait.
    pub request_usd: Usd,
    /// What a request costs in a batch; `None` where there is no such price: then all requests cost the same.
    pub batch_request_usd: Option<Usd>,
    /// Whether the prices for long input apply.
    pub long_context: bool,
    /// The day the provider takes the model away, where it is known.
    pub retires_on: Option<String>,
}

/// The workload at each chat model of the market that can take it, the cheapest first; and how many cannot.
pub fn compare(workload: &Workload, market: &Market, at: Timestamp) -> (Vec<Priced>, u64) {
    let offers = market.offers(at);
    let chats = offers.iter().filter(|offer| is_chat(offer.row));
    let (mut found, mut unfit) = (Vec::new(), 0);
    for offer in chats {
        match fits(offer.row, workload)
            .then(|| priced(offer.provider, offer.row, workload, at))
            .flatten()
        {
            Some(priced) => found.push(priced),
            None => unfit += 1,
        }
    }
    found.sort_by(|a, b| {
        let name = |it: &Priced| (it.provider.clone(), it.model.clone());
        a.month_usd.cmp(&b.month_usd).then_with(|| name(a).cmp(&name(b)))
    });
    (found, unfit)
}

fn fits(row: &PriceRow, workload: &Workload) -> bool {
    let both = workload.input_tokens.saturating_add(workload.output_tokens);
    row.max_input_tokens.is_none_or(|most| workload.input_tokens <= most)
        && row.max_output_tokens.is_none_or(|most| workload.output_tokens <= most)
        && row.context_window.is_none_or(|most| both <= most)
}

fn priced(provider: &str, row: &PriceRow, workload: &Workload, at: Timestamp) -> Option<Priced> {
    let cached = workload.cached_tokens.min(workload.input_tokens);
    let tokens = Tokens {
        input: workload.input_tokens - cached,
        cache_read: cached,
        output: workload.output_tokens,
        ..Tokens::default()
    };
    let cost = |tier: &str| {
        let tally = Tally { tokens, service_tier: Some(tier.to_owned()), ..Tally::default() };
        rate(row, &tally, at, None).ok()
    };
    let standard = cost(STANDARD)?;
    let batch = cost(BATCH).map(|cost| cost.total);
    let waiting = batch.map_or(0, |_| {
        u128::from(workload.requests) * u128::from(workload.batch_percent.min(100)) / 100
    });
    let waiting = i128::try_from(waiting).ok()?;
    let times = |amount: Usd, count: i128| amount.pico().checked_mul(count);
    let now = times(standard.total, i128::from(workload.requests) - waiting)?;
    let month = now.checked_add(times(batch.unwrap_or_default(), waiting)?)?;
    Some(Priced {
        provider: provider.to_owned(),
        model: row.model.clone(),
        month_usd: Usd::from_pico(month),
        request_usd: standard.total,
        batch_request_usd: batch,
        long_context: standard.price.long_context,
        retires_on: row.retires_on.map(|day| day.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::insights::market::Seller;

    fn market() -> Market {
        let seller = |book: &str| Seller { price_book: book.into(), ..Seller::default() };
        let sellers = [("openai", seller("openai")), ("claude", seller("anthropic"))];
        Market { sellers: sellers.map(|(name, it)| (name.to_owned(), it)).into(), own: Vec::new() }
    }

    fn at() -> Timestamp {
        Timestamp::parse("2026-11-20").unwrap()
    }

    #[test]
    fn a_workload_is_rated_at_every_model_the_cheapest_first() {
        let workload = Workload {
            requests: 1_000_001,
            input_tokens: 2_000,
            cached_tokens: 1_000,
            output_tokens: 500,
            batch_percent: 50,
        };
        let (found, unfit) = compare(&workload, &market(), at());
        assert!(found.len() > 20, "{} {unfit}", found.len());
        assert!(found.is_sorted_by_key(|it| it.month_usd));
        let sol = found.iter().find(|it| it.model == "gpt-6-sol").unwrap();
        // 1,000 x $2 + 1,000 x $0.20 + 500 x $10, a million each; half of it in the batch tier.
        assert_eq!(sol.request_usd.to_string(), "0.0072");
        assert_eq!(sol.batch_request_usd.unwrap().to_string(), "0.0036");
        assert_eq!(sol.month_usd.to_string(), "5400.0072");
        assert!(found.iter().any(|it| it.provider == "claude"));
    }

    #[test]
    fn what_a_model_cannot_take_is_counted_and_long_input_has_its_price() {
        let workload = Workload {
            requests: 1,
            input_tokens: 900_000,
            cached_tokens: 0,
            output_tokens: 1,
            batch_percent: 0,
        };
        let (found, unfit) = compare(&workload, &market(), at());
        assert!(unfit > 0 && !found.is_empty());
        assert!(found.iter().all(|it| it.month_usd == it.request_usd));
        assert!(found.iter().any(|it| it.long_context));
    }
}
