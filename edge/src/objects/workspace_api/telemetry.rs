//! Metrics and events out: the collector is configuration; figures are asked of the Telemetry object.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::time::Date;

use super::{Answer, Api};
use crate::admin::bodies::TelemetryBody;
use crate::admin::call::Step;
use crate::admin::config_telemetry::{TelemetryConfig, checked_headers};
use crate::admin::problem::Problem;
use crate::objects::sql::Sql;

/// All headers as JSON: they are sealed as one secret.
const MAX_HEADERS_BYTES: usize = 4_096;

impl<S: Sql> Api<'_, S> {
    fn ask_telemetry(&self, method: &'static str, question: &Value) -> Answer {
        let name = self.workspace.id()?.to_string();
        Ok(Step::Telemetry { name, method, payload: question.to_string() })
    }

    pub(super) fn metrics(&self) -> Answer {
        let (accept, now) = (&self.context.call.accept, self.context.now);
        // The archive's last two months: older ones do not change any more, and each costs a call.
        let month = now.date().first_of_month();
        let before = Date::from_days(month.days() - 1).first_of_month();
        let ledgers = self.ledgers(Some(before.midnight().ms()), None)?;
        self.ask_telemetry("metrics", &json!({ "accept": accept, "ledgers": ledgers }))
    }

    fn shown_telemetry(&self) -> Option<Value> {
        let mut shown = serde_json::to_value(self.workspace.config().telemetry.as_ref()?).ok()?;
        let has_headers = self.workspace.secrets().collector.is_some();
        shown.as_object_mut()?.insert("has_headers".to_owned(), has_headers.into());
        Some(shown)
    }

    pub(super) fn telemetry(&self) -> Answer {
        let shown = self.shown_telemetry().ok_or_else(not_configured)?;
        self.ask_telemetry("show", &json!({ "shown": shown }))
    }

    /// Sets the collector. Headers that are left out stay as they are, unless the address changes: a secret for one
    /// collector is never sent to another.
    pub(super) fn put_telemetry(&mut self) -> Answer {
        let body: TelemetryBody = self.context.call.body()?;
        let headers = body.headers.map(checked_headers).transpose()?;
        let config = TelemetryConfig {
            endpoint: body.endpoint,
            signals: body.signals,
            resource: body.resource,
            enabled: body.enabled,
            start_traces: body.start_traces,
        };
        let moved = self.workspace.config().collector_address() != config.endpoint.as_deref();
        let sealed = match headers {
            None if moved => Some(None),
            None => None,
            Some(headers) if headers.is_empty() => Some(None),
            Some(headers) => Some(Some(self.sealed_headers(&headers)?)),
        };
        self.edit_and_show(
            |document, secrets| {
                document.telemetry = Some(config);
                if let Some(sealed) = sealed {
                    secrets.collector = sealed;
                }
                Ok(())
            },
            |api| api.shown_telemetry(),
        )
    }

    fn sealed_headers(&self, headers: &BTreeMap<String, String>) -> Result<String, Problem> {
        let text = json!(headers).to_string();
        if text.len() > MAX_HEADERS_BYTES {
            let remedy = "Leave some out: together they may have 4000 characters.";
            return Err(Problem::field("headers", "are too long", remedy));
        }
        self.sealed(&text, "telemetry", "collector")
    }

    pub(super) fn delete_telemetry(&mut self) -> Answer {
        self.edit(|config, secrets| {
            config.telemetry.take().ok_or_else(not_configured)?;
            secrets.collector = None;
            Ok(json!({}))
        })
    }
}

fn not_configured() -> Problem {
    let detail = "Telemetry is not configured. PUT .../telemetry configures it.";
    Problem::new(404, "not_found", detail)
}
