//! Relaying: what the provider sends on its way to the caller, and what is settled when it ends.

use tallygate_shared::time::Timestamp;

use super::Exchange;
use crate::providers::ProviderKind;
use crate::request::answer::{Answer, Facts};
use crate::request::settle::{End, Ending, Seen};
use crate::request::step::{Last, Step};
use crate::request::tap::{Observed, Passed, Tap, TapConfig, read_body};

impl Exchange {
    /// One chunk of a stream came. True when something else goes out in its place: see [`Self::replaced`].
    pub fn push(&mut self, chunk: &[u8]) -> bool {
        match self.tap.as_mut().map(|tap| tap.push(chunk)) {
            Some(Passed::Replaced(bytes)) => {
                self.replaced = bytes;
                true
            }
            Some(Passed::AsIs) | None => false,
        }
    }

    /// What goes out in place of the last chunk.
    pub fn replaced(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replaced)
    }

    /// What was held back when a stream ended.
    pub fn flush(&mut self) -> Vec<u8> {
        self.tap.as_mut().map(Tap::flush).unwrap_or_default()
    }

    /// A stream is over. `ended` is `complete`, `died`, `stalled` or `client_gone`; `gone` says that the caller left.
    pub fn ended(&mut self, ended: &str, gone: bool, now: Timestamp) -> Option<Last> {
        let observed = self.tap.take()?.finish();
        let status = self.upstream.as_ref().map_or(0, |upstream| upstream.status);
        let seen =
            Seen { end: End::of_stream(ended, gone), status, code: None, observed: Some(observed) };
        self.settle(seen, now).map(Ending::into_last)
    }

    /// A whole answer was read. `ended` is `complete`, `died`, `stalled` or `too_large`.
    pub fn finished(&mut self, ended: &str, bytes: &[u8], now: Timestamp) -> Step {
        let Some(upstream) = &self.upstream else {
            return self.gateway_error("no answer to finish");
        };
        let status = upstream.status;
        let good = (200..300).contains(&status);
        if ended != "complete" {
            let observed = self.observe(bytes).filter(|_| good);
            let code = if ended == "stalled" { "provider_stalled" } else { "provider_died" };
            let end = if ended == "stalled" { End::Stalled } else { End::Died };
            let seen = Seen { end, status: 502, code: Some(code.to_owned()), observed };
            let settled = self.settle(seen, now).map(|ending| ending.settlement);
            let detail = "The provider's answer broke off before its end.";
            return match self.error(502, code, detail, None) {
                Step::Respond(answer) => Step::Respond(answer.with_settlement(settled)),
                other => other,
            };
        }
        let end = if good { End::Complete } else { End::ProviderError };
        let observed = if good { self.observe(bytes) } else { None };
        let seen = Seen { end, status, code: None, observed };
        let Some(ending) = self.settle(seen, now) else {
            return self.gateway_error("not admitted");
        };
        let headers = self.response_headers(Some(&ending));
        Step::Respond(Answer::upstream(status, headers, ending.settlement))
    }

    fn observe(&self, bytes: &[u8]) -> Option<Observed> {
        self.tap_config(false).map(|config| read_body(&config, bytes))
    }

    pub(super) fn tap_config(&self, streaming: bool) -> Option<TapConfig> {
        let kind = ProviderKind::parse(&self.target()?.kind)?;
        let endpoint = self.endpoint?;
        let injected = streaming && !self.facts.include_usage && kind.needs_include_usage(endpoint);
        Some(self.facts.tap_config(kind, endpoint, injected))
    }

    pub(super) fn settle(&self, seen: Seen, now: Timestamp) -> Option<Ending> {
        let admitted = self.admitted.as_ref()?;
        let facts = Facts {
            target: self.target(),
            attempts: self.forward.attempts.clone(),
            started: self.started,
            first_byte: self.upstream.as_ref().map(|upstream| upstream.received),
            input_tokens: self.facts.input_tokens,
            now,
        };
        Some(crate::request::settle::settle(admitted, facts, seen))
    }
}
