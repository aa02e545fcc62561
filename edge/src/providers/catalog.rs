//! What the decision must know of providers and prices, for one endpoint: the adapter behind `policy::decide::Catalog`.

use tallygate_shared::policy::decide::Catalog;
use tallygate_shared::policy::key_plan::{KeyPlan, ProviderPlan};
use tallygate_shared::pricing::{PriceBook, PriceRow};
use tallygate_shared::time::Timestamp;

use super::ProviderKind;
use super::url::serves;
use crate::dialects::Endpoint;

/// The providers and prices as one endpoint sees them at one moment.
pub struct Shelf {
    endpoint: Option<Endpoint>,
    at: Timestamp,
}

impl Shelf {
    /// For the endpoint with this path.
    pub fn of(path: &str, at: Timestamp) -> Self {
        Self { endpoint: Endpoint::ALL.into_iter().find(|endpoint| endpoint.path() == path), at }
    }
}

impl ProviderKind {
    /// The kind with this name, as configuration writes it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The name under which the price book has a provider kind's models.
pub fn price_book_name(kind: &str) -> Option<&'static str> {
    ProviderKind::parse(kind)?.facts().price_book
}

/// What bills call a provider of a kind: what the price book calls it, where it has a name there. The book lists Azure's
/// models as OpenAI's, by whose prices they are rated; their bill is Azure's.
pub fn bill_name(kind: &str) -> &str {
    match ProviderKind::parse(kind) {
        Some(ProviderKind::Azure) => kind,
        _ => price_book_name(kind).unwrap_or(kind),
    }
}

impl Catalog for Shelf {
    fn serves(&self, provider: &ProviderPlan) -> bool {
        let kind = ProviderKind::parse(&provider.kind);
        kind.zip(self.endpoint).is_some_and(|(kind, endpoint)| serves(kind, endpoint))
    }

    fn price<'a>(
        &'a self,
        plan: &'a KeyPlan,
        provider: &ProviderPlan,
        model: &str,
    ) -> Option<&'a PriceRow> {
        let at = self.at;
        // An override names the workspace's provider; a row of the book names the provider itself.
        let own = plan.price_overrides.iter().find(|row| {
            row.provider == provider.name && row.model == model && row.is_effective(at)
        });
        let listed = || {
            let book = PriceBook::built_in().ok()?;
            book.find(price_book_name(&provider.kind)?, model, at)
        };
        own.or_else(listed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bills_go_by_the_price_books_name_and_azures_by_its_own() {
        let names = ["openai", "gemini", "azure", "openrouter", "compatible"].map(bill_name);
        assert_eq!(names, ["openai", "google", "azure", "openrouter", "compatible"]);
    }
}
