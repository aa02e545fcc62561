//! The entry functions that the JavaScript shell calls: a few lines each, text in and text out.

use std::cell::RefCell;

use serde::{Deserialize, Serialize};
use tallygate_shared::time::Timestamp;
use wasm_bindgen::prelude::*;

use crate::admin::call as admin;
use crate::dashboard::{AccessSettings, Around, Failures, OidcSettings};
use crate::objects::alerts_object::{AlertsObject, Sender};
use crate::objects::budget_object::BudgetObject;
use crate::objects::directory_object::DirectoryObject;
use crate::objects::ledger_object::LedgerObject;
use crate::objects::meter_object::MeterObject;
use crate::objects::meter_sublets::Offer;
use crate::objects::sql::{Row, Sql, SqlError};
use crate::objects::telemetry_object::TelemetryObject;
use crate::objects::workspace_object::{Context, WorkspaceObject};
use crate::request::exchange::{Exchange as Core, Incoming};
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

/// One request under way.
#[wasm_bindgen]
pub struct Exchange {
    core: Core,
    fault: Option<String>,
}

#[wasm_bindgen]
impl Exchange {
    /// Takes a request in.
    #[wasm_bindgen(constructor)]
    pub fn new(
        method: &str,
        target: &str,
        header_list: &str,
        body: Vec<u8>,
        body_problem: Option<String>,
        random: &[u8],
        now: f64,
    ) -> Exchange {
        let headers = headers(header_list);
        let faults = CONFIGURED.with_borrow(|configured| configured.faults);
        let fault = headers.get("x-tallygate-fault").filter(|_| faults).map(str::to_owned);
        let incoming = Incoming {
            method,
            target,
            headers,
            body,
            body_problem: body_problem.as_deref(),
            random,
            now: moment(now),
        };
        Exchange { core: Core::receive(incoming), fault }
    }

    fn maybe_panic(&self, place: &str) {
        if self.fault.as_deref() == Some(place) {
            fault();
        }
    }

    /// The first step.
    pub fn begin(&mut self, now: f64) -> Result<String, JsValue> {
        self.maybe_panic("panic-receive");
        let step = ISOLATE.with_borrow_mut(|isolate| {
            with_ring(|ring| self.core.begin(isolate, ring, moment(now)))
        });
        json(&step)
    }

    /// For a request that was admitted without its Meter: the key, the sublease, and the admission.
    pub fn admitted_here(&self) -> Option<Vec<String>> {
        let (meter, lease, answer) = self.core.admitted_here()?;
        Some(vec![meter.to_owned(), lease.to_owned(), answer])
    }

    /// The Meter answered.
    pub fn answered(&mut self, answer: &str, now: f64) -> Result<String, JsValue> {
        self.maybe_panic("panic-forward");
        json(&with_ring(|ring| self.core.answered(answer, ring, moment(now))))
    }

    /// The Ledgers answered.
    pub fn recorded(&self, answers: &str) -> Result<String, JsValue> {
        json(&self.core.recorded(answers))
    }

    /// A Ledger could not be asked.
    pub fn ledger_failed(&self) -> Result<String, JsValue> {
        json(&self.core.ledger_failed())
    }

    /// The Meter could not be asked.
    pub fn meter_failed(&self) -> Result<String, JsValue> {
        json(&self.core.meter_failed())
    }

    /// The body to send, where it is not the caller's own.
    pub fn upstream_body(&mut self) -> Option<Vec<u8>> {
        self.core.upstream_body()
    }

    /// A provider's headers are here.
    pub fn received(&mut self, status: u16, list: &str, now: f64) -> Result<String, JsValue> {
        let headers = headers(list);
        json(&with_ring(|ring| self.core.received(status, headers, ring, moment(now))))
    }

    /// A provider could not be reached.
    pub fn unreachable(&mut self, why: &str, now: f64) -> Result<String, JsValue> {
        json(&with_ring(|ring| self.core.unreachable(why, ring, moment(now))))
    }

    /// The wait is over.
    pub fn waited(&mut self, now: f64) -> Result<String, JsValue> {
        json(&with_ring(|ring| self.core.waited(ring, moment(now))))
    }

    /// A chunk of a stream. True: something else goes out in its place.
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        self.maybe_panic("panic-relay");
        self.core.push(chunk)
    }

    /// What goes out in place of the last chunk.
    pub fn replaced(&mut self) -> Vec<u8> {
        self.core.replaced()
    }

    /// What was held back when a stream ended.
    pub fn flush(&mut self) -> Vec<u8> {
        self.core.flush()
    }

    /// A stream is over.
    pub fn ended(&mut self, ended: &str, gone: bool, now: f64) -> Result<String, JsValue> {
        self.maybe_panic("panic-settle");
        let last = self.core.ended(ended, gone, moment(now));
        json(&last.ok_or_else(|| js_error("no stream is under way"))?)
    }

    /// A whole answer was read.
    pub fn finished(&mut self, ended: &str, bytes: &[u8], now: f64) -> Result<String, JsValue> {
        self.maybe_panic("panic-settle");
        json(&self.core.finished(ended, bytes, moment(now)))
    }
}

/// The settlement of a stream whose reader died: read from the two ends that were kept.
#[wasm_bindgen]
#[expect(clippy::too_many_arguments, reason = "the shell's loose facts about one dead stream")]
pub fn rescue(
    answer: &str,
    target: usize,
    status: u16,
    ended: &str,
    gone: bool,
    head: &[u8],
    tail: &[u8],
    started: f64,
    now: f64,
) -> Result<String, JsValue> {
    let ends = crate::request::rescue::Ends { ended, gone, head, tail };
    let (started, now) = (moment(started), moment(now));
    let last = crate::request::rescue::rescue(answer, target, status, &ends, started, now);
    json(&last.ok_or_else(|| js_error("that was no admission"))?)
}

/// The settlement of a request that broke before its answer began; `None` when nothing was admitted.
#[wasm_bindgen]
pub fn give_up(answer: &str, target: usize, asked: bool, started: f64, now: f64) -> Option<String> {
    crate::request::rescue::give_up(answer, target, asked, moment(started), moment(now))
}

/// What a caller hears when the gateway itself failed.
#[wasm_bindgen]
pub fn gateway_error(path: &str) -> Result<String, JsValue> {
    json(&crate::request::rescue::gateway_error(path))
}

/// The Meter of one key.
#[wasm_bindgen]
pub struct Meter {
    core: MeterObject<JsSql>,
}

#[wasm_bindgen]
impl Meter {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql, random: &[u8], now: f64) -> Result<Meter, JsValue> {
        let boot = random.iter().take(8).fold(0, |bits: u64, byte| bits << 8 | u64::from(*byte));
        let core =
            with_ring(|ring| MeterObject::open(sql, ring, boot, moment(now))).map_err(failed)?;
        Ok(Meter { core })
    }

    /// May this request go ahead?
    pub fn admit(
        &mut self,
        call: &str,
        progress: Option<String>,
        now: f64,
    ) -> Result<String, JsValue> {
        let call = serde_json::from_str(call).map_err(failed)?;
        let progress = progress.map(|text| serde_json::from_str(&text)).transpose();
        let progress = progress.map_err(failed)?.unwrap_or_default();
        json(&self.core.admit(&call, progress, moment(now)).map_err(failed)?)
    }

    /// What to tell a Budget.
    pub fn sync_call(&mut self, account: &str, now: f64) -> Result<String, JsValue> {
        self.core.sync_call(account, moment(now)).map_err(failed)
    }

    /// What that Budget answered.
    pub fn synced(&mut self, account: &str, answer: &str, now: f64) -> Result<(), JsValue> {
        self.core.synced(account, answer, moment(now)).map_err(failed)
    }

    /// A Budget asks for what no request needs.
    pub fn recall(&mut self, account: &str, recall: &str, now: f64) -> Result<String, JsValue> {
        self.core.recall(account, recall, moment(now)).map_err(failed)
    }

    /// The Budgets that a key's holder asks about.
    pub fn budget_accounts(&mut self, call: &str, now: f64) -> Result<String, JsValue> {
        json(&self.core.budget_accounts(call, moment(now)).map_err(failed)?)
    }

    /// What the key's holder hears of them.
    pub fn answer_budget(&self, statuses: &str, now: f64) -> Result<String, JsValue> {
        json(&self.core.answer_budget(statuses, moment(now)).map_err(failed)?)
    }

    /// This is how it ended.
    pub fn settle(&mut self, settlement: &str, now: f64) -> Result<bool, JsValue> {
        let settlement = serde_json::from_str(settlement).map_err(failed)?;
        self.core.settle(settlement, moment(now)).map_err(failed)
    }

    /// What an isolate admitted by itself, and the sublets that it is done with.
    pub fn settle_all(&mut self, settlements: &str, ended: &str, now: f64) -> Result<(), JsValue> {
        let settlements = serde_json::from_str(settlements).map_err(failed)?;
        let ended: Vec<tallygate_shared::ids::RequestId> =
            serde_json::from_str(ended).map_err(failed)?;
        self.core.settle_all(settlements, &ended, moment(now)).map_err(failed)
    }

    /// A sublease, where there is plenty. `version` is that of the plan which the isolate has.
    pub fn offer(
        &mut self,
        version: &str,
        random: &[u8],
        now: f64,
    ) -> Result<Option<String>, JsValue> {
        let version = version.parse().map_err(failed)?;
        let mut seed = [0; 10];
        for (to, from) in seed.iter_mut().zip(random) {
            *to = *from;
        }
        let offer = self.core.offer(version, seed, moment(now)).map_err(failed)?;
        offer.as_ref().map(json).transpose()
    }

    /// A new plan.
    pub fn apply_plan(&mut self, plan: &str) -> Result<(), JsValue> {
        with_ring(|ring| self.core.apply_plan(plan, ring)).map_err(failed)
    }

    /// A question: `simulate`, `models`, `request`, `loops`, `clear_loop` or `state`.
    pub fn ask(&mut self, method: &str, call: &str, now: f64) -> Result<String, JsValue> {
        self.core.ask(method, call, moment(now)).map_err(failed)
    }

    /// The alarm rings.
    pub fn wake(&mut self, now: f64) -> Result<String, JsValue> {
        json(&self.core.wake(moment(now)).map_err(failed)?)
    }

    /// The Ledger has everything up to here.
    pub fn delivered(&mut self, up_to: &str) -> Result<(), JsValue> {
        let up_to = up_to.parse().map_err(failed)?;
        self.core.delivered(up_to).map_err(failed)
    }

    /// The Alerts object has looked at everything up to here.
    pub fn alerted(&mut self, up_to: &str) -> Result<(), JsValue> {
        let up_to = up_to.parse().map_err(failed)?;
        self.core.alerted(up_to).map_err(failed)
    }

    /// What the Telemetry object lacks.
    pub fn telemetry(&self) -> Result<Option<String>, JsValue> {
        self.core.telemetry_delivery().map_err(failed)?.map(|delivery| json(&delivery)).transpose()
    }

    /// The Telemetry object has counted up to here, and knows how many events wait for the Ledger.
    pub fn exported(&mut self, up_to: Option<String>, waiting: &str) -> Result<(), JsValue> {
        let up_to = up_to.map(|text| text.parse()).transpose().map_err(failed)?;
        self.core.exported(up_to, waiting.parse().map_err(failed)?).map_err(failed)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self, now: f64) -> Option<f64> {
        millis(self.core.alarm_at(moment(now)))
    }
}

/// The version of a key's plan that this isolate has, as text.
#[wasm_bindgen]
pub fn isolate_version(key: &str) -> String {
    ISOLATE.with_borrow(|isolate| isolate.version(key).to_string())
}

/// Takes a sublease in; its name.
#[wasm_bindgen]
pub fn isolate_take(key: &str, offer: &str, since: f64) -> Result<String, JsValue> {
    let offer: Offer = serde_json::from_str(offer).map_err(failed)?;
    let id = offer.id.as_str().to_owned();
    ISOLATE.with_borrow_mut(|isolate| {
        with_ring(|ring| isolate.take(key, offer, ring, moment(since)));
    });
    Ok(id)
}

/// One account of a shared budget.
#[wasm_bindgen]
pub struct Budget {
    core: BudgetObject<JsSql>,
}

#[wasm_bindgen]
impl Budget {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Budget, JsValue> {
        Ok(Budget { core: BudgetObject::open(sql).map_err(failed)? })
    }

    /// A Meter reports and asks.
    pub fn sync(&mut self, call: &str, may_recall: bool, now: f64) -> Result<String, JsValue> {
        let call = serde_json::from_str(call).map_err(failed)?;
        json(&self.core.sync(&call, may_recall, moment(now)).map_err(failed)?)
    }

    /// A Meter that was asked gives something back.
    pub fn returned(&mut self, returned: &str, now: f64) -> Result<String, JsValue> {
        let returned = serde_json::from_str(returned).map_err(failed)?;
        json(&self.core.returned(&returned, moment(now)).map_err(failed)?)
    }

    /// The alarm rings: whom to ask.
    pub fn wake(&mut self, now: f64) -> Result<String, JsValue> {
        json(&self.core.wake(moment(now)).map_err(failed)?)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self, now: f64) -> Option<f64> {
        millis(self.core.alarm_at(moment(now)))
    }

    /// What the workspace's alerts should hear now.
    pub fn news(&mut self, now: f64) -> Result<Option<String>, JsValue> {
        self.core.news(moment(now)).map_err(failed)?.as_ref().map(json).transpose()
    }

    /// The news did not arrive.
    pub fn untold(&mut self) {
        self.core.untold();
    }

    /// The reconciler corrects it.
    pub fn correct(&mut self, call: &str, now: f64) -> Result<String, JsValue> {
        let call = serde_json::from_str(call).map_err(failed)?;
        json(&self.core.correct(&call, moment(now)).map_err(failed)?)
    }

    /// The Budget as people see it.
    pub fn status(&mut self, call: Option<String>, now: f64) -> Result<String, JsValue> {
        let call = call.map(|text| serde_json::from_str(&text)).transpose().map_err(failed)?;
        json(&self.core.status(call.as_ref(), moment(now)).map_err(failed)?)
    }
}

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

/// The first step of an admin request.
#[wasm_bindgen]
pub fn admin_call(call: &str) -> Result<String, JsValue> {
    let call = serde_json::from_str(call).map_err(failed)?;
    json(&CONFIGURED.with_borrow(|configured| admin::route(call, &configured.operator_token)))
}

/// The next step of a request to the dashboard, from the answers of each round of calls so far.
#[wasm_bindgen]
pub fn dashboard(request: &str, rounds: &str, now: f64) -> Result<String, JsValue> {
    let request: crate::dashboard::Request = serde_json::from_str(request).map_err(failed)?;
    let rounds: Vec<Vec<crate::dashboard::Answer>> =
        serde_json::from_str(rounds).map_err(failed)?;
    let step = CONFIGURED.with_borrow(|Configured { ring, access, oidc, .. }| {
        FAILURES.with_borrow_mut(|failures| {
            let mut around = Around { ring, now: moment(now), access, oidc, failures };
            crate::dashboard::answer(&request, &rounds, &mut around)
        })
    });
    json(&step)
}

/// One answer from several Ledgers' answers.
#[wasm_bindgen]
pub fn admin_merge(method: &str, payload: &str, answers: &str) -> Result<String, JsValue> {
    json(&crate::admin::merge::merge(method, payload, answers))
}

/// A change is saved; its delivery goes on.
#[wasm_bindgen]
pub fn push_pending_response() -> Result<String, JsValue> {
    json(&admin::push_pending())
}

/// The gateway itself failed on an admin request.
#[wasm_bindgen]
pub fn admin_failed(request_id: &str) -> Result<String, JsValue> {
    json(&admin::failed(request_id))
}

/// One workspace's configuration.
#[wasm_bindgen]
pub struct Workspace {
    core: WorkspaceObject<JsSql>,
}

#[wasm_bindgen]
impl Workspace {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Workspace, JsValue> {
        Ok(Workspace { core: WorkspaceObject::open(sql).map_err(failed)? })
    }

    /// Answers one admin request.
    pub fn handle(&mut self, call: &str, random: &[u8], now: f64) -> Result<String, JsValue> {
        let call = serde_json::from_str(call).map_err(failed)?;
        let step = CONFIGURED.with_borrow(|configured| {
            let (ring, now) = (&configured.ring, moment(now));
            let allow_private = configured.allow_private_delivery;
            self.core.handle(&Context { call: &call, ring, random, now, allow_private })
        });
        json(&step.map_err(failed)?)
    }

    /// Budgets have these corrections.
    pub fn corrected(&self, record: &str) -> Result<(), JsValue> {
        self.core.corrected(record).map_err(failed)
    }

    /// For how many days the archive keeps events.
    pub fn archive_days(&self) -> u32 {
        self.core.archive_days()
    }

    /// A Meter has its plan.
    pub fn pushed(&self, key: &str, version: &str) -> Result<(), JsValue> {
        self.core.pushed(key, version).map_err(failed)
    }

    /// Plans that their Meters may not have yet.
    pub fn pending(&self) -> Result<String, JsValue> {
        json(&self.core.pending().map_err(failed)?)
    }
}

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

/// The list of workspaces.
#[wasm_bindgen]
pub struct Directory {
    core: DirectoryObject<JsSql>,
}

#[wasm_bindgen]
impl Directory {
    /// Opens it from its storage.
    #[wasm_bindgen(constructor)]
    pub fn new(sql: JsSql) -> Result<Directory, JsValue> {
        Ok(Directory { core: DirectoryObject::open(sql).map_err(failed)? })
    }

    /// Answers the operator.
    pub fn forget(&self, id: &str) -> Result<(), JsValue> {
        self.core.forget(id).map_err(failed)
    }

    /// Answers the operator.
    pub fn handle(&self, call: &str, random: &[u8], now: f64) -> Result<String, JsValue> {
        let call = serde_json::from_str(call).map_err(failed)?;
        let mut seed = [0; 10];
        for (to, from) in seed.iter_mut().zip(random) {
            *to = *from;
        }
        json(&self.core.handle(&call, &seed, moment(now)).map_err(failed)?)
    }
}
