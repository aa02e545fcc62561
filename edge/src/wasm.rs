//! The entry functions that the JavaScript shell calls: a few lines each, text in and text out.

pub mod admin;
pub mod ledger;
pub mod meter;
pub mod request;
pub mod watching;

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tallygate_shared::time::Timestamp;
use wasm_bindgen::prelude::*;

use crate::dashboard::{AccessSettings, Failures, OidcSettings};
use crate::objects::sql::{Row, Sql, SqlError};
use crate::request::headers::Headers;
use crate::request::isolate::Isolate;
use crate::vault::KeyRing;

#[wasm_bindgen]
extern "C" {
    /// An object's SQLite, as `objects.mjs` hands it over.
    pub type JsSql;

    #[wasm_bindgen(method, catch)]
    fn exec(this: &JsSql, statement: &str, params: &str) -> Result<String, JsValue>;
}

impl Sql for JsSql {
    fn exec(&self, statement: &str, params: &[Option<&str>]) -> Result<Vec<Row>, SqlError> {
        let params = serde_json::to_string(params).map_err(|e| SqlError(e.to_string()))?;
        let rows = JsSql::exec(self, statement, &params).map_err(|e| SqlError(text_of(&e)))?;
        if rows == "[]" {
            return Ok(Vec::new());
        }
        serde_json::from_str(&rows).map_err(|e| SqlError(format!("a row that is not text: {e}")))
    }
}

/// What the Worker's environment configures.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    key_ring: String,
    operator_token: String,
    faults: bool,
    allow_private_delivery: bool,
    access_team_domain: String,
    access_audience: String,
    archive: bool,
    kept_events: String,
    oidc_issuer: String,
    oidc_client_id: String,
}

#[derive(Default)]
struct Configured {
    ring: KeyRing,
    operator_token: String,
    faults: bool,
    allow_private_delivery: bool,
    access: AccessSettings,
    archive: bool,
    kept_events: Option<u64>,
    oidc: OidcSettings,
}

thread_local! {
    // The Worker has one thread; the settings are the same for each of its requests.
    static CONFIGURED: RefCell<Configured> = RefCell::default();
    // Who failed to sign in at this isolate of late.
    static FAILURES: RefCell<Failures> = RefCell::default();
    // What this isolate may admit by itself.
    static ISOLATE: RefCell<Isolate> = RefCell::default();
}

fn with_ring<T>(work: impl FnOnce(&KeyRing) -> T) -> T {
    CONFIGURED.with_borrow(|configured| work(&configured.ring))
}

fn failed(error: impl std::fmt::Display) -> JsValue {
    js_error(&error.to_string())
}

fn js_error(text: &str) -> JsValue {
    JsError::new(text).into()
}

fn text_of(value: &JsValue) -> String {
    js_sys_message(value).unwrap_or_else(|| format!("{value:?}"))
}

fn js_sys_message(value: &JsValue) -> Option<String> {
    js_sys::Reflect::get(value, &"message".into()).ok()?.as_string()
}

fn json(value: &impl Serialize) -> Result<String, JsValue> {
    serde_json::to_string(value).map_err(failed)
}

fn moment(ms: f64) -> Timestamp {
    // Milliseconds since the epoch stay below 2^53 for another 285,000 years.
    #[expect(clippy::cast_possible_truncation, reason = "whole milliseconds, far below 2^53")]
    Timestamp::from_ms(ms as i64)
}

fn millis(at: Option<Timestamp>) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^53")]
    at.map(|at| at.ms() as f64)
}

fn headers(text: &str) -> Headers {
    Headers::new(serde_json::from_str(text).unwrap_or_default())
}

/// Takes the environment's settings. A key ring that cannot be read stops the Worker: without it no credential opens.
#[wasm_bindgen]
pub fn configure(settings: &str) -> Result<(), JsValue> {
    let settings: Settings = serde_json::from_str(settings).map_err(failed)?;
    let ring = KeyRing::parse(&settings.key_ring).map_err(failed)?;
    let kept = Some(settings.kept_events.as_str()).filter(|text| !text.is_empty());
    let kept_events = kept.map(str::parse).transpose().map_err(|_| {
        js_error(
            "TALLYGATE_KEPT_EVENTS is no number of events: leave it out, or give digits alone.",
        )
    })?;
    CONFIGURED.set(Configured {
        ring,
        operator_token: settings.operator_token,
        faults: settings.faults,
        allow_private_delivery: settings.allow_private_delivery,
        access: AccessSettings {
            team_domain: settings.access_team_domain,
            audience: settings.access_audience,
        },
        archive: settings.archive,
        kept_events,
        oidc: OidcSettings { issuer: settings.oidc_issuer, client_id: settings.oidc_client_id },
    });
    Ok(())
}

/// Panics, in a test runtime: what the guard and the Meter make of it is then seen from outside.
#[wasm_bindgen]
pub fn panic_on_purpose() {
    if CONFIGURED.with_borrow(|configured| configured.faults) {
        fault();
    }
}

#[expect(clippy::panic, reason = "a test runtime asks for it, to see that nothing is lost")]
fn fault() {
    panic!("a test asked for this panic");
}
