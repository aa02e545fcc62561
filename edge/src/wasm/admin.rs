//! The control plane, the dashboard, and the object that a workspace's configuration is in.

use super::{CONFIGURED, Configured, FAILURES, JsSql, failed, json, moment};
use crate::admin::call as admin;
use crate::dashboard::Around;
use crate::objects::directory_object::DirectoryObject;
use crate::objects::workspace_object::Context;
use crate::objects::workspace_object::WorkspaceObject;
use wasm_bindgen::prelude::*;

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

    /// A demo is over.
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
