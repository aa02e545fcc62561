//! What was bought, in FOCUS's words: SKU names, and the properties of a model.

use std::collections::BTreeMap;

use super::prices::Measure;
use super::providers::developer;
use crate::bill::Meter;
use crate::ledger::LineId;

/// A property of a model or of its tokens that a SKU's price depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    ModelDeveloper,
    ModelFamily,
    ModelId,
    TokenDirection,
    TokenCacheAction,
}

/// The key of a property in `SkuPriceDetails`. FOCUS 1.4 defines none of them, so they carry `x_`; drafts of the next
/// edition drop the prefix and have renamed them before. This is the one place to follow.
const KEYS: &[(Property, &str)] = &[
    (Property::ModelDeveloper, "x_ModelDeveloper"),
    (Property::ModelFamily, "x_ModelFamily"),
    (Property::ModelId, "x_ModelId"),
    (Property::TokenDirection, "x_TokenDirection"),
    (Property::TokenCacheAction, "x_TokenCacheAction"),
];

/// `SkuId`: one for each provider, model and meter.
pub(super) fn sku(provider: &str, line: &LineId, measure: &Measure) -> String {
    format!("{provider}/{}:{}", line.model, measure.slug)
}

/// `SkuPriceId`: the SKU's price in a service tier.
pub(super) fn sku_price(sku: &str, line: &LineId) -> String {
    format!("{sku}:{}", line.tier)
}

/// `SkuPriceDetails`: the model's properties as a JSON object, `None` where the line is about no model.
pub(super) fn details(line: &LineId) -> Option<String> {
    let made = developer(&line.model);
    if line.meter == Meter::Whole && made.is_none() {
        return None;
    }
    let (direction, action) = match line.meter {
        Meter::Input => (Some("Input"), Some("Uncached")),
        Meter::CacheRead => (Some("Input"), Some("Read")),
        Meter::CacheWrite => (Some("Input"), Some("Write")),
        // Reasoning is output. Nothing is said of the cache there.
        Meter::Output => (Some("Output"), None),
        Meter::Calls | Meter::Whole => (None, None),
    };
    let value = |property| match property {
        Property::ModelDeveloper => made.map(|(developer, _)| developer),
        Property::ModelFamily => made.map(|(_, family)| family),
        Property::ModelId => Some(line.model.as_str()),
        Property::TokenDirection => direction,
        Property::TokenCacheAction => action,
    };
    let object: BTreeMap<&str, &str> =
        KEYS.iter().filter_map(|(property, key)| Some((*key, value(*property)?))).collect();
    serde_json::to_string(&object).ok()
}

/// The charge in words.
pub(super) fn description(line: &LineId, measure: Option<&Measure>, unmetered: bool) -> String {
    let mut text = match measure {
        Some(measure) if line.meter != Meter::Whole => {
            format!("{}, {}", measure.name, line.model)
        }
        _ => line.model.clone(),
    };
    if line.tier != "standard" && !line.tier.is_empty() {
        text.push_str(", ");
        text.push_str(&line.tier);
    }
    if unmetered {
        text.push_str(", outside the gateway");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bill::ChargeKind;
    use crate::focus::prices::measure;

    fn line(model: &str, meter: Meter) -> LineId {
        LineId {
            account: "org".into(),
            model: model.into(),
            meter,
            tier: "batch".into(),
            kind: ChargeKind::Usage,
            owner: BTreeMap::new(),
        }
    }

    #[test]
    fn properties_of_a_model_format_unchanged() {
        let read = |meter| details(&line("claude-opus-5", meter)).unwrap();
        assert_eq!(
            read(Meter::CacheRead),
            r#"{"x_ModelDeveloper":"Anthropic","x_ModelFamily":"Claude","x_ModelId":"claude-opus-5","x_TokenCacheAction":"Read","x_TokenDirection":"Input"}"#
        );
        assert!(!read(Meter::Output).contains("x_TokenCacheAction"));
        assert_eq!(details(&line("Amazon OpenSearch Service", Meter::Whole)), None);
    }

    #[test]
    fn a_price_has_one_sku_above_it() {
        let line = line("m", Meter::Output);
        let sku = sku("openai", &line, &measure(Meter::Output).unwrap());
        assert_eq!(sku, "openai/m:output-tokens");
        assert_eq!(sku_price(&sku, &line), "openai/m:output-tokens:batch");
        assert_eq!(
            description(&line, measure(Meter::Output).as_ref(), true),
            "Output Tokens, m, batch, outside the gateway"
        );
    }
}
