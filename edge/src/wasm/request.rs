//! One request, and what an isolate may admit by itself.

use super::{CONFIGURED, ISOLATE, failed, fault, headers, js_error, json, moment, with_ring};
use crate::objects::meter_sublets::Offer;
use crate::request::exchange::Exchange as Core;
use crate::request::exchange::Incoming;
use wasm_bindgen::prelude::*;

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
