//! Questions to a Meter: what the key may use, what became of a request, what a request would get, which loops were
//! stopped. One of them changes something: a stopped loop may go on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tallygate_shared::identity::actor::Actor;
use tallygate_shared::ids::RequestId;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::key_plan::{KeyPlan, KeyPolicy};
use tallygate_shared::pricing::{PriceBook, PriceRow};
use tallygate_shared::time::Timestamp;

use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::providers::ProviderKind;
use crate::providers::catalog::price_book_name;
use crate::request::step::MeterReply;

/// A question of the key's holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    key_sha256: String,
    id: Option<String>,
    anthropic: bool,
}

/// A question of an admin: what would this request get?
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Simulate {
    facts: RequestFacts,
    #[serde(default)]
    actor: Option<Actor>,
    #[serde(default)]
    policy: Option<KeyPolicy>,
}

impl<S: Sql> MeterObject<S> {
    /// Answers `simulate`, `models`, `request`, `outcomes`, `loops`, `clear_loop` or `state`, as JSON text.
    pub fn ask(&mut self, method: &str, call: &str, now: Timestamp) -> Result<String, MeterError> {
        Ok(match method {
            "simulate" => {
                let Simulate { facts, actor, policy } = serde_json::from_str(call)?;
                serde_json::to_string(&self.simulate(&facts, actor, policy, now)?)?
            }
            "models" => {
                let question: Question = serde_json::from_str(call)?;
                serde_json::to_string(&self.answer_models(&question, now)?)?
            }
            "request" => {
                let question: Question = serde_json::from_str(call)?;
                serde_json::to_string(&self.answer_request(&question, now)?)?
            }
            "outcomes" => serde_json::to_string(&self.take_outcomes(call, now)?)?,
            "loops" => self.loops(now).to_string(),
            "clear_loop" => self.clear_loop(call, now)?.to_string(),
            _ => serde_json::to_string(&self.state(now)?)?,
        })
    }

    fn answer_request(
        &self,
        question: &Question,
        now: Timestamp,
    ) -> Result<MeterReply, MeterError> {
        if let Err(refusal) = self.authenticate(&question.key_sha256, now) {
            return Ok(MeterReply::Refused { refusal });
        }
        let id = question.id.as_deref().and_then(|id| RequestId::parse(id).ok());
        let found = id.map(|id| self.request(&id)).transpose()?.flatten();
        Ok(match found {
            Some(event) => MeterReply::Found { status: 200, body: event },
            None => MeterReply::NotFound,
        })
    }

    fn answer_models(&self, question: &Question, now: Timestamp) -> Result<MeterReply, MeterError> {
        let plan = match self.authenticate(&question.key_sha256, now) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(MeterReply::Refused { refusal }),
        };
        let models = usable_models(plan, now);
        let list = if question.anthropic { anthropic_list(&models) } else { openai_list(&models) };
        Ok(MeterReply::Found { status: 200, body: list.to_string() })
    }
}

/// A model that a key may use: its provider, and its price where it has one.
type Usable<'a> = BTreeMap<String, (String, Option<&'a PriceRow>)>;

fn usable_models(plan: &KeyPlan, now: Timestamp) -> Usable<'_> {
    let rules = &plan.policy.models;
    let may = |model: &str| rules.denied_by(model).is_none() && rules.allows(model);
    let mut models = BTreeMap::new();
    let mut offer = |name: &str, provider: &str, price| {
        if may(name) {
            models.entry(name.to_owned()).or_insert((provider.to_owned(), price));
        }
    };
    for alias in plan.routes.keys() {
        offer(alias, "route", None);
    }
    for row in plan.price_overrides.iter().filter(|row| row.is_effective(now)) {
        offer(&row.model, &row.provider, Some(row));
    }
    let book = PriceBook::built_in().ok();
    for provider in &plan.providers {
        for deployment in provider.models.keys() {
            offer(deployment, &provider.name, None);
        }
        // A deployment-styled provider serves only what was deployed there.
        if ProviderKind::parse(&provider.kind) == Some(ProviderKind::Azure) {
            continue;
        }
        let listed = book.zip(price_book_name(&provider.kind));
        for row in listed.iter().flat_map(|(book, name)| book.of_provider(name, now)) {
            offer(&row.model, &provider.name, Some(row));
        }
    }
    models
}

fn price_json(price: Option<&PriceRow>) -> Value {
    // The row's own format is the public one: prices by tier, in dollars per million tokens, as text.
    price.and_then(|row| serde_json::to_value(row).ok()).map_or(Value::Null, |row| {
        json!({ "currency": "USD", "unit": "per_million_tokens", "tiers": row.get("prices"),
                "long_context": row.get("long_context"), "fees": row.get("fees") })
    })
}

fn openai_list(models: &Usable<'_>) -> Value {
    let data = models.iter().map(|(id, (provider, price))| {
        json!({ "id": id, "object": "model", "created": 0, "owned_by": provider,
                "max_output_tokens": price.and_then(|row| row.max_output_tokens),
                "pricing": price_json(*price) })
    });
    json!({ "object": "list", "data": data.collect::<Vec<_>>() })
}

fn anthropic_list(models: &Usable<'_>) -> Value {
    let data = models.iter().map(|(id, (_, price))| {
        json!({ "type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z",
                "pricing": price_json(*price) })
    });
    let (first, last) = (models.keys().next(), models.keys().next_back());
    json!({ "data": data.collect::<Vec<_>>(), "has_more": false, "first_id": first, "last_id": last })
}
