//! What is left when the core died in the middle of a request: the admission's text, a few facts, and the two ends of
//! the answer. A new instance of the core makes the settlement from them.

use tallygate_shared::tokens::Usage;

use crate::dialects::{Dialect, Endpoint};
use crate::providers::ProviderKind;
use crate::request::answer::{Answer, Facts};
use crate::request::calls::{AdmitAnswer, Admitted};
use crate::request::exchange::BodyFacts;
use crate::request::settle::{End, Ending, Seen, settle};
use crate::request::step::Last;
use crate::request::tap::rescan;
use tallygate_shared::time::Timestamp;

/// The two ends of a stream, and how it ended.
pub struct Ends<'a> {
    /// `complete`, `died`, `stalled` or `client_gone`.
    pub ended: &'a str,
    /// The caller left.
    pub gone: bool,
    /// Its first bytes.
    pub head: &'a [u8],
    /// Its last bytes.
    pub tail: &'a [u8],
}

/// The settlement of a stream whose reader died. `None` when the text is no admission.
pub fn rescue(
    answer: &str,
    target: usize,
    status: u16,
    ends: &Ends<'_>,
    started: Timestamp,
    now: Timestamp,
) -> Option<Last> {
    let admitted = admission(answer)?;
    let endpoint = Endpoint::ALL.into_iter().find(|e| e.path() == admitted.ticket.endpoint)?;
    let chosen = admitted.targets.get(target);
    let kind = chosen.and_then(|target| ProviderKind::parse(&target.kind))?;
    let config = BodyFacts::default().tap_config(kind, endpoint, false);
    let mut observed = rescan(&config, ends.head, ends.tail);
    if matches!(observed.usage, Usage::Estimated(_)) {
        // The middle of the stream was not read, so an estimate from its ends would be far too low: the hold stands.
        observed.usage = Usage::Absent;
    }
    let end = End::of_stream(ends.ended, ends.gone);
    let seen = Seen { end, status, code: None, observed: Some(observed) };
    Some(settle(&admitted, facts(&admitted, target, started, now), seen).into_last())
}

/// The settlement of a request that broke before its answer began. `None` when nothing was admitted.
pub fn give_up(
    answer: &str,
    target: usize,
    asked: bool,
    started: Timestamp,
    now: Timestamp,
) -> Option<String> {
    let admitted = admission(answer)?;
    // A provider that was asked may bill an answer that nobody read: then the hold is charged.
    let end = if asked { End::GatewayFailed } else { End::NeverAsked };
    let seen = Seen { end, status: 500, code: None, observed: None };
    let ending: Ending = settle(&admitted, facts(&admitted, target, started, now), seen);
    Some(ending.settlement)
}

/// What a caller hears when the gateway itself failed.
pub fn gateway_error(path: &str) -> Answer {
    let detail = "The gateway failed on this request. Try again.";
    Answer::error(Dialect::guess(path, false), 500, "gateway_error", detail, None, "")
}

fn admission(answer: &str) -> Option<Box<Admitted>> {
    match serde_json::from_str(answer) {
        Ok(AdmitAnswer::Admit(admitted)) => Some(admitted),
        Ok(AdmitAnswer::Refuse { .. } | AdmitAnswer::Ask { .. }) | Err(_) => None,
    }
}

fn facts(admitted: &Admitted, target: usize, started: Timestamp, now: Timestamp) -> Facts<'_> {
    Facts {
        target: admitted.targets.get(target),
        attempts: Vec::new(),
        started,
        first_byte: None,
        input_tokens: 0,
        now,
    }
}
