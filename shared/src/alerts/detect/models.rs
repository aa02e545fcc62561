//! Requests and models: an expensive request, a model without a price, the first use of a model.

use serde::{Deserialize, Serialize};

use crate::alerts::alert::{AlertKind, Finding, Raised, Severity};
use crate::alerts::bounded::Bounded;
use crate::alerts::rules::AlertRules;
use crate::events::usage_event::{Outcome, UsageEvent};
use crate::time::Timestamp;

/// The refusal of a request that a budget needs a price for.
const UNPRICED: &str = "model_unpriced";

/// What is remembered of one model.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelSeen {
    /// Whether it was used.
    used: bool,
    /// Whether it had no price when it was last asked for.
    unpriced: bool,
}

pub(super) fn on_event(
    models: &mut Bounded<ModelSeen>,
    event: &UsageEvent,
    rules: &AlertRules,
    now: Timestamp,
    findings: &mut Vec<Finding>,
) {
    findings.extend(expensive(event, rules));
    if event.outcome == Outcome::Refused {
        if event.code.as_deref() == Some(UNPRICED) {
            models.entry(&event.requested_model, now).unpriced = true;
            findings.push(unpriced(event, &event.requested_model));
        }
        return;
    }
    let (Some(provider), Some(model)) = (&event.provider, &event.model) else { return };
    // A use is an answer with usage: an error about an unknown model is none.
    if event.usage.tally().is_none() {
        return;
    }
    let name = format!("{provider}/{model}");
    let known = models.entry(&name, now);
    if !known.used {
        known.used = true;
        findings.push(first_use(event, &name));
    }
    known.unpriced = event.cost.is_none();
    if known.unpriced {
        findings.push(unpriced(event, &name));
        return;
    }
    for name in [name.as_str(), event.requested_model.as_str()] {
        if name == event.requested_model && models.get(name).is_none_or(|model| !model.unpriced) {
            continue;
        }
        models.entry(name, now).unpriced = false;
        let subject = name.to_owned();
        findings.push(Finding::Cleared { kind: AlertKind::UnpricedModel, subject });
    }
}

fn about(event: &UsageEvent, raised: Raised) -> Finding {
    Raised { count: event.sampled.max(1), ..raised }
        .owner(&event.owner)
        .with("request", event.id.as_str())
        .with("key", event.key.as_str())
        .with("key_name", event.key_name.as_str())
        .with("endpoint", event.endpoint.as_str())
        .found()
}

fn expensive(event: &UsageEvent, rules: &AlertRules) -> Option<Finding> {
    let cost = event.cost.as_ref().map_or(event.charged, |cost| cost.total).max(event.charged);
    if cost < rules.expensive_request_usd {
        return None;
    }
    let is_critical = cost.pico() / 10 >= rules.expensive_request_usd.pico();
    let severity = if is_critical { Severity::Critical } else { Severity::Warning };
    let model = event.model.as_deref().unwrap_or(&event.requested_model);
    let subject = format!("{}:{model}", event.key);
    let title = format!("A request of key {} to {model} cost {cost} USD", event.key_name);
    let raised = Raised::new(AlertKind::ExpensiveRequest, &subject, severity, &title)
        .link(format!("/requests/{}", event.id))
        .with("model", model)
        .with("cost_usd", cost)
        .with("limit_usd", rules.expensive_request_usd);
    Some(about(event, raised))
}

fn unpriced(event: &UsageEvent, model: &str) -> Finding {
    let title = format!("Model {model} has no price");
    let raised = Raised::new(AlertKind::UnpricedModel, model, Severity::Warning, &title)
        .link("/prices".to_owned())
        .with("model", model)
        .with("charged_usd", event.charged);
    about(event, raised)
}

fn first_use(event: &UsageEvent, model: &str) -> Finding {
    let title = format!("Model {model} was used for the first time");
    let raised = Raised::new(AlertKind::NewModel, model, Severity::Info, &title)
        .link(format!("/requests/{}", event.id))
        .with("model", model);
    about(event, raised)
}
