//! Step 7: back to the edge. Everything is absolute and numbered, so that it can be said again.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::alerts::alert::Severity;
use tallygate_shared::feedback::{
    BudgetCorrection, BudgetSums, FindingKind, PriceCorrection, ReconcilerContext,
    ReconcilerFinding, TrueUp,
};
use tallygate_shared::money::Usd;

use super::outcome::{Finding, PriceFinding, UnmeteredReason};
use super::{NightError, fits};
use crate::bill::{ChargeKind, Credential, Meter};
use crate::connectors::PullError;
use crate::edge::Edge;
use crate::ledger::{Content, LineId, UnitId};

/// What a unit says to the edge, beside its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Budgets.
    pub corrections: Vec<BudgetCorrection>,
    /// Prices.
    pub prices: Vec<PriceCorrection>,
    /// Alerts.
    pub findings: Vec<ReconcilerFinding>,
}

impl Feedback {
    /// Brings it. A price that the edge refuses can wait for the next night; what people must hear of cannot.
    pub async fn bring(&self, edge: &Edge<'_>) -> Result<(), PullError> {
        edge.bring("budget-corrections", &self.corrections).await?;
        edge.bring("findings", &self.findings).await?;
        edge.bring("price-corrections", &self.prices).await
    }
}

fn name<T: serde::Serialize>(value: T) -> String {
    let text = serde_json::to_value(value).ok();
    text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A line as the edge hears of it.
pub fn true_up(unit: &UnitId, line: &LineId, content: &Content, seq: u64) -> TrueUp {
    TrueUp { line: line.digest(), ..unnamed(unit, line, content, seq) }
}

/// A line's true-up without its name, which takes longest.
fn unnamed(unit: &UnitId, line: &LineId, content: &Content, seq: u64) -> TrueUp {
    TrueUp {
        day: unit.day.clone(),
        provider: unit.provider.clone(),
        line: String::new(),
        revision: seq,
        model: line.model.clone(),
        meter: name(line.meter),
        kind: name(line.kind),
        owner: line.owner.clone(),
        estimated: content.estimated,
        billed: content.billed,
        quantity_variance: content.quantity_variance,
        price_variance: content.price_variance,
        provisional: content.provisional,
    }
}

/// Sums what each budget is to be corrected by, row by row.
pub struct Corrections<'a> {
    unit: &'a UnitId,
    seq: u64,
    has_budgets: bool,
    sums: BudgetSums<'a>,
}

impl<'a> Corrections<'a> {
    /// Nothing yet.
    pub fn new(unit: &'a UnitId, seq: u64, context: &'a ReconcilerContext) -> Self {
        let sums = BudgetSums::new(&context.workspace, &context.budgets);
        Self { unit, seq, has_budgets: !context.budgets.is_empty(), sums }
    }

    /// Takes a row in.
    pub fn add(&mut self, line: &LineId, content: &Content) -> Result<(), NightError> {
        if !self.has_budgets {
            return Ok(());
        }
        let row = unnamed(self.unit, line, content, self.seq);
        fits(self.sums.add(&row), "a budget's correction")
    }

    /// The corrections. What was corrected before (budget and value) and is no more is said to be nothing.
    pub fn finish(self, before: &BTreeSet<(String, String)>) -> Vec<BudgetCorrection> {
        let (unit, seq) = (self.unit, self.seq);
        let mut corrections = self.sums.corrections();
        let now: BTreeSet<(String, String)> =
            corrections.iter().map(|c| (c.budget.clone(), c.value.clone())).collect();
        let gone = before.difference(&now).map(|(budget, value)| BudgetCorrection {
            budget: budget.clone(),
            value: value.clone(),
            day: unit.day.clone(),
            source: unit.provider.clone(),
            revision: seq,
            amount: Usd::ZERO,
            by_quantity: Usd::ZERO,
            by_price: Usd::ZERO,
        });
        corrections.extend(gone);
        corrections
    }
}

/// The prices that a unit's findings propose. A price that the bill's own figures contradict, or that would take the place
/// of another one than made the difference, is told, not proposed.
pub fn prices(
    unit: &UnitId,
    findings: &[Finding],
    is_in_force: impl Fn(&PriceFinding) -> bool,
) -> Vec<PriceCorrection> {
    let proposals = findings.iter().filter_map(|finding| match finding {
        Finding::Price(price) if price.consistent && price.meter != Meter::Calls => Some(price),
        _ => None,
    });
    let proposals = proposals.filter(|price| is_in_force(price));
    proposals
        .map(|price| PriceCorrection {
            provider: price.provider.clone(),
            model: price.model.clone(),
            tier: price.tier.clone(),
            meter: name(price.meter),
            ours_per_million: price.ours_per_million,
            billed_per_million: price.billed_per_million,
            day: unit.day.clone(),
            tokens: u64::try_from(price.tokens.pico() / crate::bill::Quantity::ONE).unwrap_or(0),
            effect: price.effect,
        })
        .filter(|price| price.meter != "whole")
        .collect()
}

/// Unmetered use of a unit, by who it is put down to: what people are told.
pub fn alerts(unit: &UnitId, findings: &[Finding]) -> Vec<ReconcilerFinding> {
    let mut unmetered: BTreeMap<&str, (Usd, i128, bool)> = BTreeMap::new();
    let mut told = Vec::new();
    for finding in findings {
        match finding {
            Finding::Unmetered(found) => {
                let sum = unmetered.entry(&found.label).or_default();
                sum.0 = sum.0.saturating_add(found.amount);
                sum.1 = sum.1.saturating_add(found.quantity.map_or(0, |quantity| quantity.pico()));
                sum.2 |= found.reason == UnmeteredReason::UnknownCredential;
            }
            Finding::Variance { estimated, billed } => told.push(ReconcilerFinding {
                kind: FindingKind::BillVariance,
                subject: format!("{}:{}", unit.provider, unit.day),
                severity: Severity::Warning,
                title: format!(
                    "{} billed {} on {}, estimated were {}",
                    unit.provider, billed, unit.day, estimated
                ),
                owner: String::new(),
                evidence: evidence(&[
                    ("provider", unit.provider.clone()),
                    ("day", unit.day.clone()),
                    ("estimated_usd", estimated.to_string()),
                    ("billed_usd", billed.to_string()),
                ]),
                present: true,
            }),
            Finding::Price(_)
            | Finding::Uncertain { .. }
            | Finding::QuantityUnknown { .. }
            | Finding::NotBilled { .. } => {}
        }
    }
    for (label, (amount, pico, unknown)) in unmetered {
        let tokens = pico / crate::bill::Quantity::ONE;
        let whose = if unknown {
            "a key that the gateway does not hold"
        } else {
            "use that the gateway never saw"
        };
        told.push(ReconcilerFinding {
            kind: FindingKind::UnmeteredUsage,
            subject: format!("{}:{}:{label}", unit.provider, unit.day),
            severity: Severity::Critical,
            title: format!(
                "{} billed {amount} on {} for {whose} ({label})",
                unit.provider, unit.day
            ),
            owner: String::new(),
            evidence: evidence(&[
                ("provider", unit.provider.clone()),
                ("day", unit.day.clone()),
                ("credential", label.to_owned()),
                ("billed_usd", amount.to_string()),
                ("tokens", tokens.to_string()),
            ]),
            present: true,
        });
    }
    told
}

fn evidence(figures: &[(&str, String)]) -> BTreeMap<String, String> {
    figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// What a unit told before and does not find any more is over.
pub fn over(before: Vec<ReconcilerFinding>, now: &[ReconcilerFinding]) -> Vec<ReconcilerFinding> {
    let known: BTreeSet<(&str, &str)> =
        now.iter().map(|finding| (kind_of(finding), finding.subject.as_str())).collect();
    before
        .iter()
        .filter(|finding| {
            finding.present && !known.contains(&(kind_of(finding), finding.subject.as_str()))
        })
        .map(|finding| ReconcilerFinding { present: false, ..finding.clone() })
        .collect()
}

fn kind_of(finding: &ReconcilerFinding) -> &'static str {
    match finding.kind {
        FindingKind::UnmeteredUsage => "unmetered",
        FindingKind::BillVariance => "variance",
        FindingKind::UnknownCredential => "credential",
        FindingKind::ReconciliationIncomplete => "incomplete",
    }
}

/// A key that a provider lists and the gateway does not hold.
pub fn unknown_credential(credential: &Credential) -> ReconcilerFinding {
    let shown = credential.name.as_deref().unwrap_or(&credential.id);
    ReconcilerFinding {
        kind: FindingKind::UnknownCredential,
        subject: format!("{}:{}", credential.provider, credential.id),
        severity: Severity::Warning,
        title: format!(
            "{} knows the API key {shown}, and the gateway does not hold it",
            credential.provider
        ),
        owner: String::new(),
        evidence: evidence(&[
            ("provider", credential.provider.clone()),
            ("credential", credential.id.clone()),
            ("project", credential.project.clone().unwrap_or_default()),
            ("hint", credential.hint.clone().unwrap_or_default()),
        ]),
        present: true,
    }
}

/// A finding as a line of the report.
pub fn in_words(unit: &UnitId, finding: &Finding) -> String {
    let UnitId { day, provider, .. } = unit;
    match finding {
        Finding::Unmetered(found) => {
            let quantity = found.quantity.map_or("an unknown number".to_owned(), |q| q.to_string());
            format!(
                "{day} {provider}: {} for {quantity} of {:?} of {} that the gateway never saw ({})",
                found.amount, found.meter, found.model, found.label
            )
        }
        Finding::Price(price) => format!(
            "{day} {provider}: {} {:?} is billed at {} a million, rated at {}: {}",
            price.model,
            price.meter,
            price.billed_per_million,
            price.ours_per_million,
            price.effect
        ),
        Finding::Uncertain { model, amount, .. } => {
            format!("{day} {provider}: {amount} for requests of {model} whose usage was unknown")
        }
        Finding::QuantityUnknown { model, difference, .. } => format!(
            "{day} {provider}: the bill names no quantity for {model}; its difference of {difference} counts as price"
        ),
        Finding::NotBilled { model, estimated, .. } => {
            format!("{day} {provider}: {model} was estimated at {estimated} and is not billed")
        }
        Finding::Variance { estimated, billed } => {
            format!("{day} {provider}: estimated {estimated}, billed {billed}")
        }
    }
}

/// Whether a line of the books is use that the gateway never saw.
pub fn is_unmetered(line: &LineId) -> bool {
    line.kind == ChargeKind::Usage && line.owner.contains_key(crate::ledger::UNMETERED)
}

#[cfg(test)]
mod tests {
    use wiremock::MockServer;

    use super::*;
    use crate::edge::tests::{Counting, answers, config, quick};

    #[tokio::test]
    async fn a_price_that_the_edge_refuses_keeps_no_alert_from_people() {
        let server = MockServer::start().await;
        answers(&server, "findings", 200, "{}").await;
        answers(&server, "price-corrections", 422, r#"{"detail": "It has no place."}"#).await;
        let (config, signing) = (config(&server.uri()), Counting::default());
        let edge = Edge::new("acme", &config, &signing, quick()).unwrap();
        let price = PriceCorrection {
            provider: "openai".into(),
            model: "m".into(),
            tier: "standard".into(),
            meter: "input".into(),
            ours_per_million: Usd::ZERO,
            billed_per_million: Usd::ZERO,
            day: "2026-11-20".into(),
            tokens: 1,
            effect: Usd::ZERO,
        };
        let finding = ReconcilerFinding {
            kind: FindingKind::UnmeteredUsage,
            subject: "openai:2026-11-20:key".into(),
            severity: Severity::Critical,
            title: "openai billed 5".into(),
            owner: String::new(),
            evidence: BTreeMap::new(),
            present: true,
        };
        let told = Feedback { prices: vec![price], findings: vec![finding], ..Feedback::default() };
        assert!(told.bring(&edge).await.is_err());
        server.verify().await;
    }
}
