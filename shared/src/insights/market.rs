//! What models are for sale to a workspace, and what traffic would cost at list prices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::traffic::Traffic;
use crate::money::{Usd, div_half_even};
use crate::pricing::{PriceBook, PriceRow, Prices};
use crate::time::Timestamp;

/// Prices are per this many tokens.
const TOKENS_PER_PRICE: i128 = 1_000_000;
/// The service tier that everything has.
pub const STANDARD: &str = "standard";
/// The tier of answers within a day.
pub const BATCH: &str = "batch";

/// A provider of the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seller {
    /// Its name in the price book.
    pub price_book: String,
    /// What a deployment or local name is priced as.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, String>,
}

/// The workspace's providers and its own prices.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Market {
    /// Providers by the workspace's names for them.
    pub sellers: BTreeMap<String, Seller>,
    /// The workspace's own prices: they win over the price book.
    pub own: Vec<PriceRow>,
}

/// Something for sale.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// The provider, by the workspace's name for it.
    pub provider: &'a str,
    /// The model and its prices.
    pub row: &'a PriceRow,
}

impl Market {
    /// The price of a model at a moment.
    pub fn price<'a>(&'a self, provider: &str, model: &str, at: Timestamp) -> Option<&'a PriceRow> {
        let seller = self.sellers.get(provider)?;
        let model = seller.models.get(model).map_or(model, String::as_str);
        let own = self
            .own
            .iter()
            .find(|row| row.provider == provider && row.model == model && row.is_effective(at));
        own.or_else(|| PriceBook::built_in().ok()?.find(&seller.price_book, model, at))
    }

    /// The price by the token of a model at a moment: the price book's, before the workspace's own, which for a commitment
    /// may say that its tokens are paid for already.
    pub fn listed<'a>(
        &'a self,
        provider: &str,
        model: &str,
        at: Timestamp,
    ) -> Option<&'a PriceRow> {
        let seller = self.sellers.get(provider)?;
        let priced_as = seller.models.get(model).map_or(model, String::as_str);
        let book = PriceBook::built_in().ok();
        let listed = book.and_then(|book| book.find(&seller.price_book, priced_as, at));
        listed.or_else(|| self.price(provider, model, at))
    }

    /// Everything that the workspace's providers sell at a moment, its own prices in the place of the book's.
    pub fn offers(&self, at: Timestamp) -> Vec<Offer<'_>> {
        let mut offers: Vec<Offer<'_>> = Vec::new();
        for (provider, seller) in &self.sellers {
            let own =
                self.own.iter().filter(|row| row.provider == *provider && row.is_effective(at));
            let own: Vec<Offer<'_>> = own.map(|row| Offer { provider, row }).collect();
            let book = PriceBook::built_in().into_iter();
            let listed = book.flat_map(|book| book.of_provider(&seller.price_book, at));
            let listed = listed.filter(|row| !own.iter().any(|other| other.row.model == row.model));
            let listed: Vec<Offer<'_>> = listed.map(|row| Offer { provider, row }).collect();
            offers.extend(own.into_iter().chain(listed));
        }
        offers
    }
}

/// The prices of a tier for requests whose longest input is this: those for long input where it could be long.
pub fn prices<'a>(row: &'a PriceRow, tier: &str, longest_input: u64) -> Option<&'a Prices> {
    let long = row.long_context.iter().filter(|long| longest_input >= long.threshold_tokens);
    let tiers =
        long.max_by_key(|long| long.threshold_tokens).map_or(&row.prices, |long| &long.prices);
    tiers.get(tier)
}

/// Whether a row sells text for text, as a chat does.
pub fn is_chat(row: &PriceRow) -> bool {
    matches!(row.mode.as_deref(), None | Some("chat" | "responses"))
}

/// What it costs to write a token to the cache for the shortest time; input where that is not billed apart.
pub fn cache_write(prices: &Prices) -> Option<Usd> {
    prices.cache_write.values().min().copied().or(prices.input)
}

/// What this traffic's tokens cost at these prices. `None` where one has no price, or the sum does not fit.
pub fn rerate(prices: &Prices, traffic: &Traffic) -> Option<Usd> {
    let parts = [
        (traffic.input, prices.input),
        (traffic.cache_read, prices.cache_read.or(prices.input)),
        (traffic.cache_write, cache_write(prices)),
        (traffic.output, prices.output),
    ];
    let mut sum = 0_i128;
    for (tokens, price) in parts.into_iter().filter(|(tokens, _)| *tokens > 0) {
        sum = sum.checked_add(i128::from(tokens).checked_mul(price?.pico())?)?;
    }
    Some(Usd::from_pico(div_half_even(sum, TOKENS_PER_PRICE)))
}

/// So many tokens at a price per million, rounded half to even to the picodollar.
pub fn at_price(tokens: u64, price: Usd) -> Option<Usd> {
    let product = i128::from(tokens).checked_mul(price.pico())?;
    Some(Usd::from_pico(div_half_even(product, TOKENS_PER_PRICE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        Timestamp::parse("2026-11-20").unwrap()
    }

    fn market() -> Market {
        let seller = Seller {
            price_book: "openai".into(),
            models: [("mine".into(), "gpt-6-sol".into())].into(),
        };
        let own: PriceRow = serde_json::from_str(
            r#"{"provider":"acme","model":"gpt-6-luna","prices":{"standard":{"input":"9","output":"9"}}}"#,
        )
        .unwrap();
        Market { sellers: [("acme".to_owned(), seller)].into(), own: vec![own] }
    }

    #[test]
    fn own_prices_win_and_local_names_are_priced_as_what_they_are() {
        let market = market();
        let input = |model: &str| {
            let row = market.price("acme", model, at())?;
            row.prices.get(STANDARD)?.input.map(|usd| usd.to_string())
        };
        assert_eq!(input("gpt-6-luna").as_deref(), Some("9"));
        assert_eq!(input("mine"), input("gpt-6-sol"));
        assert_eq!(
            (input("nothing"), market.price("other", "gpt-6-sol", at()).is_some()),
            (None, false)
        );
        let offers = market.offers(at());
        let lunas: Vec<_> = offers.iter().filter(|offer| offer.row.model == "gpt-6-luna").collect();
        assert_eq!((lunas.len(), &lunas[0].row.provider), (1, &"acme".to_owned()));
        assert!(offers.len() > 10);
    }

    #[test]
    fn traffic_is_rated_by_its_buckets_and_not_without_a_price() {
        let prices: Prices = serde_json::from_str(
            r#"{"input":"2","output":"10","cache_read":"0.2","cache_write":{"1h":"4","5m":"2.5"}}"#,
        )
        .unwrap();
        let traffic = Traffic {
            input: 1_000_000,
            cache_read: 500_000,
            cache_write: 200_000,
            output: 100_000,
            ..Traffic::default()
        };
        assert_eq!(rerate(&prices, &traffic).unwrap().to_string(), "3.6");
        let no_output = Prices { output: None, ..prices.clone() };
        assert_eq!(rerate(&no_output, &traffic), None);
        let plain = Prices { cache_read: None, cache_write: BTreeMap::new(), ..prices };
        assert_eq!(rerate(&plain, &traffic).unwrap().to_string(), "4.4");
    }
}
