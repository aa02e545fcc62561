//! The objects that watch: Alerts and Telemetry.

use super::{CONFIGURED, JsSql, failed, json, millis, moment};
use crate::objects::alerts_object::AlertsObject;
use crate::objects::alerts_object::Sender;
use crate::objects::telemetry_object::TelemetryObject;
use wasm_bindgen::prelude::*;

/// The alerts of one workspace.
#[wasm_bindgen]
pub struct Alerts {
    core: AlertsObject<JsSql>,
}

/// The telemetry of one workspace.
#[wasm_bindgen]
pub struct Telemetry {
    core: TelemetryObject<JsSql>,
}

#[wasm_bindgen]
impl Telemetry {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Telemetry, JsValue> {
        Ok(Telemetry { core: TelemetryObject::open(sql).map_err(failed)? })
    }

    /// A workspace's plan.
    pub fn apply_config(&mut self, plan: &str, now: f64) -> Result<(), JsValue> {
        self.core.apply_config(plan, moment(now)).map_err(failed)
    }

    /// A Meter's events.
    pub fn ingest(&mut self, batch: &str, now: f64) -> Result<(), JsValue> {
        self.core.ingest(batch, moment(now)).map_err(failed)
    }

    /// A budget's figures.
    pub fn budget(&mut self, snapshot: &str) -> Result<(), JsValue> {
        self.core.budget(snapshot).map_err(failed)
    }

    /// Signals that an export is due for.
    pub fn due(&self, now: f64) -> Result<String, JsValue> {
        json(&self.core.due(moment(now)).map_err(failed)?)
    }

    /// The export to make now.
    pub fn take(&mut self, signal: &str, random: u32, now: f64) -> Result<Option<String>, JsValue> {
        let taken = with_sender(random, |sender| self.core.take(signal, sender, moment(now)));
        taken.map_err(failed)?.map(|outgoing| json(&outgoing)).transpose()
    }

    /// How that went, and what follows.
    pub fn ended(
        &mut self,
        signal: &str,
        ended: &str,
        random: u32,
        now: f64,
    ) -> Result<String, JsValue> {
        let ended = serde_json::from_str(ended).map_err(failed)?;
        json(&self.core.ended(signal, &ended, random, moment(now)).map_err(failed)?)
    }

    /// A question of the control plane.
    pub fn query(&self, method: &str, payload: &str, now: f64) -> Result<String, JsValue> {
        json(&self.core.query(method, payload, moment(now)).map_err(failed)?)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self) -> Result<Option<f64>, JsValue> {
        Ok(millis(self.core.alarm_at().map_err(failed)?))
    }
}

fn with_sender<T>(random: u32, work: impl FnOnce(&Sender<'_>) -> T) -> T {
    CONFIGURED.with_borrow(|configured| {
        let allow_private = configured.allow_private_delivery;
        work(&Sender { ring: &configured.ring, allow_private, random })
    })
}

#[wasm_bindgen]
impl Alerts {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Alerts, JsValue> {
        Ok(Alerts { core: AlertsObject::open(sql).map_err(failed)? })
    }

    /// A workspace's plan.
    pub fn apply_config(&mut self, plan: &str, now: f64) -> Result<(), JsValue> {
        self.core.apply_config(plan, moment(now)).map_err(failed)
    }

    /// A Meter's events.
    pub fn ingest(&mut self, batch: &str, now: f64) -> Result<(), JsValue> {
        self.core.ingest(batch, moment(now)).map(|_| ()).map_err(failed)
    }

    /// A budget's figures.
    pub fn budget(&mut self, snapshot: &str, now: f64) -> Result<(), JsValue> {
        self.core.budget(snapshot, moment(now)).map_err(failed)
    }

    /// What the reconciler found.
    pub fn findings(&mut self, findings: &str, now: f64) -> Result<(), JsValue> {
        self.core.findings(findings, moment(now)).map_err(failed)
    }

    /// The alarm rings.
    pub fn wake(&mut self, now: f64) -> Result<(), JsValue> {
        self.core.wake(moment(now)).map_err(failed)
    }

    /// The Ledgers to ask for a review that is due.
    pub fn review_due(&mut self, now: f64) -> Result<Option<String>, JsValue> {
        let due = self.core.review_due(moment(now)).map_err(failed)?;
        due.map(|step| json(&step)).transpose()
    }

    /// What they said.
    pub fn deliver_review(&mut self, draft: &str, now: f64) -> Result<(), JsValue> {
        self.core.deliver_review(draft, moment(now)).map_err(failed)
    }

    /// Receivers that something is due for.
    pub fn due_receivers(&self, now: f64) -> Result<String, JsValue> {
        json(&self.core.due_receivers(moment(now)).map_err(failed)?)
    }

    /// The message to send to a receiver now.
    pub fn take(
        &mut self,
        receiver: &str,
        random: u32,
        now: f64,
    ) -> Result<Option<String>, JsValue> {
        let taken = with_sender(random, |sender| self.core.take(receiver, sender, moment(now)));
        taken.map_err(failed)?.map(|outgoing| json(&outgoing)).transpose()
    }

    /// How that went; whether it arrived.
    pub fn delivered(
        &mut self,
        id: &str,
        ended: &str,
        random: u32,
        now: f64,
    ) -> Result<bool, JsValue> {
        let ended = serde_json::from_str(ended).map_err(failed)?;
        self.core.delivered(id, &ended, random, moment(now)).map_err(failed)
    }

    /// A message that tests a receiver, or why there is none.
    pub fn test_message(&self, receiver: &str, random: u32, now: f64) -> Result<String, JsValue> {
        let made =
            with_sender(random, |sender| self.core.test_message(receiver, sender, moment(now)));
        match made {
            Ok(outgoing) => json(&outgoing),
            Err(error) => json(&serde_json::json!({ "error": error })),
        }
    }

    /// How that went.
    pub fn tested(&self, receiver: &str, ended: &str) -> Result<String, JsValue> {
        let ended = serde_json::from_str(ended).map_err(failed)?;
        json(&self.core.tested(receiver, &ended).map_err(failed)?)
    }

    /// A question of the control plane.
    pub fn query(&mut self, method: &str, payload: &str, now: f64) -> Result<String, JsValue> {
        json(&self.core.query(method, payload, moment(now)).map_err(failed)?)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self) -> Result<Option<f64>, JsValue> {
        self.core.alarm_at().map(millis).map_err(failed)
    }
}
