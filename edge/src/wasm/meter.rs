//! The objects that decide about money: a key's Meter, and an account's Budget.

use super::{JsSql, failed, json, millis, moment, with_ring};
use crate::objects::budget_object::BudgetObject;
use crate::objects::meter_object::MeterObject;
use wasm_bindgen::prelude::*;

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
