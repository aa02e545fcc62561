//! The books.

use super::{CONFIGURED, JsSql, failed, json, millis, moment};
use crate::admin::call as admin;
use crate::objects::ledger_object::LedgerObject;
use wasm_bindgen::prelude::*;

/// One month of one workspace's events.
#[wasm_bindgen]
pub struct Ledger {
    core: LedgerObject<JsSql>,
}

#[wasm_bindgen]
impl Ledger {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Ledger, JsValue> {
        let core = LedgerObject::open(sql).map_err(failed)?;
        let (kept_events, archive) =
            CONFIGURED.with_borrow(|configured| (configured.kept_events, configured.archive));
        Ok(Ledger { core: core.with_limits(kept_events, archive) })
    }

    /// What is to be done for the archive; nothing when absent.
    pub fn archive(&self, ledger: &str, now: f64) -> Result<Option<String>, JsValue> {
        let job = self.core.archive(ledger, moment(now)).map_err(failed)?;
        job.map(|job| json(&job)).transpose()
    }

    /// When that is to be asked next.
    pub fn archive_at(&self) -> Result<Option<f64>, JsValue> {
        Ok(millis(self.core.archive_at().map_err(failed)?))
    }

    /// The bucket has a part.
    pub fn written(&self, n: u32, size: u32, now: f64) -> Result<(), JsValue> {
        self.core.written(n.into(), size.into(), moment(now)).map_err(failed)
    }

    /// The bucket has an expired part no longer.
    pub fn deleted(&self, n: u32) -> Result<(), JsValue> {
        self.core.deleted(n.into()).map_err(failed)
    }

    /// The archive keeps events for so many days.
    pub fn expire(&self, days: u32, now: f64) -> Result<(), JsValue> {
        self.core.expire(days, moment(now)).map_err(failed)
    }

    /// Something for the archive did not succeed.
    pub fn archive_failed(&self, error: &str, now: f64) -> Result<(), JsValue> {
        self.core.archive_failed(error, moment(now)).map_err(failed)
    }

    /// Applies a Meter's batch.
    pub fn apply(&self, batch: &str) -> Result<String, JsValue> {
        self.core.apply(batch).map_err(failed)
    }

    /// Records outcomes.
    pub fn record_outcomes(&self, call: &str) -> Result<String, JsValue> {
        self.core.record_outcomes(call).map_err(failed)
    }

    /// Answers a question.
    pub fn query(&self, method: &str, payload: &str) -> Result<String, JsValue> {
        self.core.query(method, payload).map_err(failed)
    }

    /// Takes the reconciler's lines in.
    pub fn true_up(&self, lines: &str) -> Result<String, JsValue> {
        self.core.true_up(lines).map_err(failed)
    }
}

/// An export under way.
#[wasm_bindgen]
pub struct Export {
    core: crate::admin::export::Export,
}

#[wasm_bindgen]
impl Export {
    /// Begins with the question of the first page.
    #[wasm_bindgen(constructor)]
    pub fn new(question: &str) -> Result<Export, JsValue> {
        let question = serde_json::from_str(question).map_err(failed)?;
        Ok(Export { core: crate::admin::export::Export::new(question) })
    }

    /// What to do next.
    pub fn proceed(&mut self) -> Result<String, JsValue> {
        json(&self.core.proceed())
    }

    /// The Ledger's answer.
    pub fn page(&mut self, answer: &str) {
        self.core.page(answer);
    }

    /// The lines of a part, or why there are none.
    pub fn part(&mut self, lines: Option<String>, why: &str) {
        self.core.part(lines.as_deref().ok_or(why));
    }
}

/// A Ledger's answer about a request, with what one of its parts has of it; or a step that says why it cannot be said.
#[wasm_bindgen]
pub fn record_in(
    part: &str,
    lines: Option<String>,
    why: &str,
    query: &str,
) -> Result<String, JsValue> {
    let part = serde_json::from_str(part).map_err(failed)?;
    let query = serde_json::from_str(query).map_err(failed)?;
    match crate::admin::export::record_in(&part, lines.as_deref().ok_or(why), &query) {
        Ok(record) => Ok(format!(r#"{{"data":[{}]}}"#, record.unwrap_or_default())),
        Err(problem) => json(&admin::Step::problem(&problem)),
    }
}
