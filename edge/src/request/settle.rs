//! The settlement: what happened to a request, in the words of the usage event, and what it cost. Pure; the Meter
//! writes it down. Every ending of every request comes through [`settle`].

use tallygate_shared::events::usage_event::Outcome;
use tallygate_shared::pricing::{Cost, PriceBook, rate_stated, rate_with};
use tallygate_shared::tokens::{Tally, Tokens, Usage};

use crate::providers::catalog::price_book_name;
use crate::request::answer::Facts;
use crate::request::calls::{Admitted, Settlement};
use crate::request::exchange::elapsed;
use crate::request::step::Last;
use crate::request::tap::Observed;

/// How the bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With the provider's own end.
    Complete,
    /// The caller left, but the answer was read to its end.
    GoneComplete,
    /// The caller left, and the answer was not read to its end.
    Gone,
    /// The connection to the provider broke.
    Died,
    /// The provider fell silent.
    Stalled,
    /// The provider answered with an error.
    ProviderError,
    /// The provider could not be reached.
    Unreachable,
    /// The provider sent no headers in time.
    TimedOut,
    /// The gateway failed after the provider had been asked.
    GatewayFailed,
    /// The gateway failed before the provider was asked.
    NeverAsked,
}

impl End {
    /// From the shell's words for the end of a stream.
    pub fn of_stream(ended: &str, gone: bool) -> Self {
        match (ended, gone) {
            ("complete", false) => Self::Complete,
            ("complete", true) => Self::GoneComplete,
            ("stalled", false) => Self::Stalled,
            ("died", false) => Self::Died,
            _ => Self::Gone,
        }
    }
}

/// What was seen of an answer.
pub struct Seen {
    /// How it ended.
    pub end: End,
    /// The status that the caller got.
    pub status: u16,
    /// The code of a failure.
    pub code: Option<String>,
    /// What the answer itself says.
    pub observed: Option<Observed>,
}

/// A settlement ready to be sent, and its cost for the caller.
pub struct Ending {
    /// The message to the Meter.
    pub settlement: String,
    cost: Option<Cost>,
    request_id: String,
    estimated: bool,
}

/// Turns what was seen into the settlement.
pub fn settle(admitted: &Admitted, facts: Facts<'_>, seen: Seen) -> Ending {
    let ticket = admitted.ticket.clone();
    let observed = seen.observed.unwrap_or_default();
    let (outcome, mut code) = outcome_of(seen.end, &observed, seen.code);
    let usage = match seen.end {
        // The provider had the input and may have begun to work on it.
        End::TimedOut => Usage::Estimated(input_only(facts.input_tokens)),
        _ => observed.usage,
    };
    let cost = match (usage.tally(), facts.target) {
        (Some(tally), Some(target)) => match price(target, tally, &ticket) {
            Ok(cost) => cost,
            Err(unpriced) => {
                code.get_or_insert(unpriced);
                None
            }
        },
        _ => None,
    };
    let estimated = matches!(usage, Usage::Estimated(_));
    if matches!(usage, Usage::Absent) && outcome == Outcome::Completed && !is_free(&ticket.endpoint)
    {
        code.get_or_insert_with(|| "usage_absent".to_owned());
    }
    let request_id = ticket.hold.id.as_str().to_owned();
    let settlement = Settlement {
        outcome,
        code,
        status: seen.status,
        provider: facts.target.map(|target| target.provider.clone()),
        model: facts.target.map(|target| target.model.clone()),
        response_model: observed.response_model,
        provider_request_id: observed.provider_response_id,
        attempts: facts.attempts,
        usage,
        cost: cost.clone(),
        duration_ms: elapsed(facts.started, facts.now),
        first_byte_ms: facts.first_byte.map(|at| elapsed(facts.started, at)),
        ticket,
    };
    // A settlement is plain data: it always has a JSON text.
    let settlement = serde_json::to_string(&settlement).unwrap_or_default();
    Ending { settlement, cost, request_id, estimated }
}

fn outcome_of(end: End, observed: &Observed, code: Option<String>) -> (Outcome, Option<String>) {
    let named = |name: &str| code.clone().or_else(|| Some(name.to_owned()));
    match end {
        End::Complete if observed.stream_error.is_some() => {
            (Outcome::ProviderError, observed.stream_error.clone())
        }
        End::Complete if observed.complete => (Outcome::Completed, code),
        // The connection ended in order, but without the end that this endpoint's answers have.
        End::Complete => (Outcome::ProviderDied, named("answer_incomplete")),
        End::GoneComplete | End::Gone => (Outcome::ClientGone, code),
        End::Died => (Outcome::ProviderDied, named("provider_died")),
        End::Stalled => (Outcome::Stalled, named("provider_stalled")),
        End::TimedOut => (Outcome::Stalled, named("provider_timeout")),
        End::ProviderError => (Outcome::ProviderError, named("provider_error")),
        End::Unreachable => (Outcome::ProviderUnreachable, named("provider_unreachable")),
        End::GatewayFailed => (Outcome::Abandoned, named("gateway_error")),
        End::NeverAsked => (Outcome::GatewayError, named("gateway_error")),
    }
}

fn input_only(input: u64) -> Tally {
    Tally { tokens: Tokens { input, ..Tokens::default() }, ..Tally::default() }
}

fn is_free(endpoint: &str) -> bool {
    matches!(endpoint, "/v1/moderations" | "/v1/messages/count_tokens")
}

/// The cost, `None` where nothing prices the model, or the code of why it cannot be rated: then the hold is charged.
fn price(
    target: &crate::request::calls::AdmittedTarget,
    tally: &Tally,
    ticket: &crate::request::calls::Ticket,
) -> Result<Option<Cost>, String> {
    if is_free(&ticket.endpoint) {
        return Ok(None);
    }
    let Some(row) = &target.price else {
        let named = format!("{}/{}", target.provider, target.model);
        let stated = tally.stated_cost.map(|stated| rate_stated(named, stated));
        return stated.map(Some).ok_or_else(|| "model_unpriced".to_owned());
    };
    let at = ticket.hold.at;
    let book = PriceBook::built_in().map_err(|_| "price_book_unreadable".to_owned())?;
    let provider = price_book_name(&target.kind);
    let other = |model: &str| provider.and_then(|provider| book.find(provider, model, at));
    rate_with(row, tally, at, target.region.as_deref(), other)
        .map(Some)
        .map_err(|error| error.code().to_owned())
}

impl Ending {
    /// For a stream: the settlement, and the comment that tells the caller what it was.
    pub fn into_last(self) -> Last {
        let mut last = format!(": tallygate request_id={}", self.request_id);
        if let Some(cost) = &self.cost {
            last.push_str(&format!(" cost_usd={}", cost.total));
        }
        if self.estimated {
            last.push_str(" estimated=true");
        }
        last.push_str("\n\n");
        Last { settlement: self.settlement, last }
    }

    /// Adds `x-tallygate-cost-usd` and its parts.
    pub fn cost_headers(&self, to: &mut Vec<(String, String)>) {
        let Some(cost) = &self.cost else { return };
        to.push(("x-tallygate-cost-usd".to_owned(), cost.total.to_string()));
        for (name, part) in cost.parts.named() {
            if part != tallygate_shared::money::Usd::ZERO {
                to.push((format!("x-tallygate-cost-{name}-usd"), part.to_string()));
            }
        }
        if self.estimated {
            to.push(("x-tallygate-cost-estimated".to_owned(), "true".to_owned()));
        }
    }
}
