//! What both OTLP signals share: JSON by OTLP's rules (64-bit integers as text, ids in hex, enums as numbers), the
//! resource, and what a collector answers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ids::WorkspaceId;
use crate::money::Usd;
use crate::time::Timestamp;

/// Who speaks, as every export says it.
#[derive(Clone, Copy, Debug)]
pub struct Speaker<'a> {
    /// The tenant.
    pub workspace: &'a WorkspaceId,
    /// The workspace's own attributes of the resource. They win over the gateway's.
    pub resource: &'a BTreeMap<String, String>,
    /// `gen_ai.provider.name` by the workspace's name for the provider.
    pub providers: &'a BTreeMap<String, String>,
}

impl Speaker<'_> {
    pub(super) fn resource(&self) -> Value {
        let mut attributes = BTreeMap::from([
            ("service.name", "tallygate"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("tallygate.workspace.id", self.workspace.as_str()),
        ]);
        for (name, value) in self.resource {
            attributes.insert(name, value);
        }
        let mut list = Attributes::default();
        for (name, value) in attributes {
            list.text(name, value);
        }
        json!({ "attributes": list.0 })
    }

    pub(super) fn scope() -> Value {
        json!({ "name": "tallygate", "version": env!("CARGO_PKG_VERSION") })
    }

    /// `gen_ai.provider.name` of the workspace's provider.
    pub(super) fn provider_name<'a>(&'a self, provider: &'a str) -> &'a str {
        self.providers.get(provider).map_or(provider, String::as_str)
    }
}

/// A list of attributes.
#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<Value>);

impl Attributes {
    fn push(&mut self, key: &str, value: Value) {
        self.0.push(json!({ "key": key, "value": value }));
    }

    pub(super) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.push(key, json!({ "stringValue": value }));
        }
    }

    pub(super) fn some_text(&mut self, key: &str, value: Option<&str>) {
        self.text(key, value.unwrap_or_default());
    }

    pub(super) fn integer(&mut self, key: &str, value: impl std::fmt::Display) {
        self.push(key, json!({ "intValue": value.to_string() }));
    }

    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.push(key, json!({ "boolValue": value }));
    }

    pub(super) fn double(&mut self, key: &str, decimal: &str) {
        self.push(key, json!({ "doubleValue": double(decimal) }));
    }
}

/// A decimal as JSON's number. Only for what others draw: books are kept in integers.
pub(super) fn double(decimal: &str) -> Value {
    let number = decimal.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
    number.map_or_else(|| json!(0), Value::Number)
}

pub(super) fn usd(amount: Usd) -> Value {
    double(&amount.to_string())
}

/// Nanoseconds since 1970, as text.
pub(super) fn nanos(at: Timestamp) -> String {
    i128::from(at.ms()).saturating_mul(1_000_000).max(0).to_string()
}

/// What a collector says of an export that it took: how many records it rejected, and why. `None` where it took all.
pub fn partial_success(body: &str) -> Option<(u64, String)> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Response {
        partial_success: Partial,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        rejected_log_records: Value,
        rejected_data_points: Value,
        error_message: String,
    }
    // An answer in another form than was asked for says nothing. It is no error: the status did.
    let partial = serde_json::from_str::<Response>(body).ok()?.partial_success;
    let number = |value: &Value| -> u64 {
        value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or(0)
    };
    let rejected = number(&partial.rejected_log_records).max(number(&partial.rejected_data_points));
    let said: String = partial.error_message.chars().take(200).collect();
    (rejected > 0 || !said.is_empty()).then_some((rejected, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_read_in_each_form() {
        for (body, said) in [
            ("", None),
            ("{}", None),
            ("not json", None),
            (r#"{"partialSuccess":{}}"#, None),
            (
                r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"old"}}"#,
                Some((3, "old")),
            ),
            (r#"{"partialSuccess":{"rejectedDataPoints":2}}"#, Some((2, ""))),
            (r#"{"partialSuccess":{"errorMessage":"a warning"}}"#, Some((0, "a warning"))),
        ] {
            let said = said.map(|(count, text): (u64, &str)| (count, text.to_owned()));
            assert_eq!(partial_success(body), said, "{body}");
        }
    }

    #[test]
    fn a_decimal_is_a_number_and_never_text() {
        assert_eq!(double("0.00125").to_string(), "0.00125");
        assert_eq!(double("0").to_string(), "0.0");
        assert_eq!(double("nonsense"), json!(0));
    }
}
