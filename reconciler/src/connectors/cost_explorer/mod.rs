//! AWS Cost Explorer: Bedrock as a provider's bill, and all else by service and one cost-allocation tag as harness cost.
//!
//! Three questions, whose filters leave no dollar out and take none twice:
//!
//! | label | record types | services | grouped by |
//! |---|---|---|---|
//! | `services` | use | all; Bedrock only to compare | service, tag |
//! | `bedrock` | use | those of `services` whose name has "Bedrock" | service, usage type |
//! | `record_types` | all but use: taxes, credits, refunds, fees, discounts | all | record type, service |
//!
//! The metric is `NetUnblendedCost` where the account has it: what is owed after negotiated discounts; `UnblendedCost`
//! is then the list amount. Elsewhere it is `UnblendedCost`. Blended and amortised costs are no bill.
//!
//! Every page costs a cent, so each is taken from a [`PaidCalls`] before it is asked for.

pub mod bedrock;
mod pages;
#[cfg(feature = "aws")]
mod sdk;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;

#[cfg(feature = "aws")]
pub use self::sdk::Sdk;
use super::http::{Cursors, Failed, Patience};
use super::read::Reader;
use super::{Connector, Days, PullError, RawPage};
use crate::bill::Bill;

const NAME: &str = "aws_cost_explorer";
const SERVICES: &str = "services";
const BEDROCK: &str = "bedrock";
const RECORDS: &str = "record_types";
/// The action that the role needs.
pub const ACTION: &str = "ce:GetCostAndUsage";
/// Record types that are metered use, whatever pays for it. All others are asked for apart.
pub const USE: [&str; 3] = ["Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"];

/// What to ask Cost Explorer for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The paying account's id.
    pub account: String,
    /// The cost-allocation tag that says whose a harness cost is (`team`). It must be active in Billing.
    #[serde(default)]
    pub tag: Option<String>,
    /// Bedrock's model ids, as the gateway calls them: a bill's spelling is replaced by the one that it means.
    #[serde(default)]
    pub models: Vec<String>,
}

/// A brake on paid calls, shared by all of a run.
#[derive(Debug)]
pub struct PaidCalls {
    taken: Mutex<u32>,
    limit: u32,
}

/// What the brake says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoCallsLeft {
    /// How many there were.
    pub limit: u32,
}

impl PaidCalls {
    /// At most `limit` calls, a cent each.
    pub fn new(limit: u32) -> Self {
        Self::going_on(limit, 0)
    }

    /// At most `limit` calls, of which so many were taken in earlier invocations of the run.
    pub fn going_on(limit: u32, taken: u32) -> Self {
        Self { taken: Mutex::new(taken), limit }
    }

    /// Takes one call. Fails before it is made when none is left.
    pub fn take(&self) -> Result<(), NoCallsLeft> {
        // The number is whole whoever panicked beside it.
        let mut taken = self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *taken >= self.limit {
            return Err(NoCallsLeft { limit: self.limit });
        }
        *taken += 1;
        Ok(())
    }

    /// How many were taken.
    pub fn taken(&self) -> u32 {
        *self.taken.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// One of the three questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Use by service and tag.
    Services {
        /// The tag.
        tag: Option<String>,
    },
    /// Use of these services by usage type.
    Bedrock {
        /// The services.
        services: Vec<String>,
    },
    /// All that is no use, by record type and service.
    Records,
}

impl Question {
    fn label(&self) -> &'static str {
        match self {
            Self::Services { .. } => SERVICES,
            Self::Bedrock { .. } => BEDROCK,
            Self::Records => RECORDS,
        }
    }
}

/// Who answers: Cost Explorer, or a test.
#[async_trait]
pub trait Answers: Send + Sync {
    /// One page of an answer, byte for byte. Exactly one call: retries are the caller's, who pays for them.
    async fn answer(
        &self,
        days: Days,
        question: &Question,
        next: Option<&str>,
    ) -> Result<Bytes, Failed>;
}

/// Cost Explorer as a source of bills.
pub struct CostExplorer<A> {
    answers: A,
    settings: Settings,
    calls: Arc<PaidCalls>,
    patience: Patience,
}

impl<A: Answers> CostExplorer<A> {
    /// Asks `answers`, taking each call from `calls`.
    pub fn new(answers: A, settings: Settings, calls: Arc<PaidCalls>, patience: Patience) -> Self {
        Self { answers, settings, calls, patience }
    }

    /// All pages of one question, and the Bedrock services in them. `None` after a page that cannot be read: it is kept
    /// as it came, and `read` says what is wrong with it.
    async fn ask(
        &self,
        days: Days,
        question: &Question,
        pages: &mut Vec<RawPage>,
    ) -> Result<Option<Vec<String>>, PullError> {
        let label = question.label();
        let mut cursors = Cursors::new(NAME, label);
        let mut bedrock = BTreeSet::new();
        let mut next: Option<String> = None;
        loop {
            let body = self.page(days, question, next.as_deref()).await?;
            let page = Reader::new(NAME, label).json::<pages::Page>(&body);
            pages.push(RawPage { label: label.into(), body });
            let Ok(page) = page else { return Ok(None) };
            bedrock.extend(pages::bedrock_services(&page).map(str::to_owned));
            let Some(token) = page.next_page_token else {
                return Ok(Some(bedrock.into_iter().collect()));
            };
            cursors.follow(&token)?;
            next = Some(token);
        }
    }

    async fn page(
        &self,
        days: Days,
        question: &Question,
        next: Option<&str>,
    ) -> Result<Bytes, PullError> {
        let mut attempts = self.patience.attempts(NAME, question.label());
        loop {
            self.calls.take().map_err(|NoCallsLeft { limit }| PullError::Unavailable {
                source_name: NAME.into(),
                what: question.label().into(),
                reason: format!(
                    "all {limit} paid calls of this run are used: raise the limit if the bill is worth it"
                ),
            })?;
            match self.answers.answer(days, question, next).await {
                Ok(body) => return Ok(body),
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }
}

#[async_trait]
impl<A: Answers> Connector for CostExplorer<A> {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError> {
        let mut pages = Vec::new();
        let services = Question::Services { tag: self.settings.tag.clone() };
        let Some(services) = self.ask(days, &services, &mut pages).await? else {
            return Ok(pages);
        };
        if !services.is_empty() {
            let bedrock = self.ask(days, &Question::Bedrock { services }, &mut pages).await?;
            if bedrock.is_none() {
                return Ok(pages);
            }
        }
        self.ask(days, &Question::Records, &mut pages).await?;
        Ok(pages)
    }

    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError> {
        pages::bill(&self.settings, days, pages)
    }
}

#[cfg(test)]
mod tests;
