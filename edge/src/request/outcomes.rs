//! `POST /v1/outcomes`: from the caller to the key's Meter, which knows who is asking, and on to the Ledgers of the
//! months in question. Both ends of each message are this build; only the outcome event is kept.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::events::outcome::{OutcomeEvent, Subject};
use tallygate_shared::policy::decide::Problem;
use tallygate_shared::policy::refusal::Refusal;

/// The path.
pub const PATH: &str = "/v1/outcomes";
/// The largest body: 100 outcomes x about 400 bytes, and room to spare.
pub const MAX_BYTES: usize = 128 * 1024;

/// "Take these outcomes."
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomesCall {
    /// SHA-256 of the key that the caller presented, lowercase hex.
    pub key_sha256: String,
    /// The signed actor token, if one came.
    pub actor_token: Option<String>,
    /// Where the caller is.
    pub address: Option<IpAddr>,
    /// The body, or why there is none.
    pub body: Result<String, Problem>,
}

/// What one Ledger is to record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerCall {
    /// Its name.
    pub ledger: String,
    /// A list of [`Sent`], as JSON text.
    pub call: String,
}

/// An outcome on its way to its Ledger.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sent {
    /// Its place in the caller's list.
    pub place: usize,
    /// The caller said when it was decided.
    pub dated: bool,
    /// The outcome.
    pub event: OutcomeEvent,
}

/// A Ledger's answer: all of a call is recorded, or nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recorded {
    /// Done.
    Done(Vec<Standing>),
    /// Not done.
    Refused {
        /// The place of the outcome at fault.
        place: usize,
        /// What is wrong.
        why: Unrecorded,
    },
}

/// The outcome that counts for a subject and label, after a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// The place of the outcome that was sent.
    pub place: usize,
    /// It took the place of another.
    pub replaced: bool,
    /// What counts.
    pub event: OutcomeEvent,
}

/// Why a Ledger records nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unrecorded {
    /// The request was made with another key.
    NotOfThisKey,
    /// The month has no room for more.
    Full,
}

/// What the caller hears when every Ledger answered; `None` when an answer cannot be read.
pub fn reply(listed: bool, answers: &[String]) -> Option<Result<String, Refusal>> {
    let mut standings = Vec::new();
    let mut refused: Option<(usize, Unrecorded)> = None;
    for answer in answers {
        match serde_json::from_str(answer).ok()? {
            Recorded::Done(done) => standings.extend(done),
            Recorded::Refused { place, why } => {
                if refused.is_none_or(|(first, _)| place < first) {
                    refused = Some((place, why));
                }
            }
        }
    }
    if let Some((place, why)) = refused {
        return Some(Err(refusal(listed, place, why)));
    }
    standings.sort_by_key(|standing| standing.place);
    let mut data: Vec<Value> = standings.iter().map(shown).collect();
    let body = if listed { json!({ "object": "list", "data": data }) } else { data.pop()? };
    Some(Ok(body.to_string()))
}

fn shown(standing: &Standing) -> Value {
    let event = &standing.event;
    let mut shown = json!({ "object": "outcome", "label": event.label, "outcome": event.outcome,
        "value_usd": event.value_usd, "at": event.at.to_string(), "replaced": standing.replaced });
    let (name, of) = match &event.subject {
        Subject::Request(id) => ("request", id.as_str()),
        Subject::Session(session) => ("session", session.as_str()),
    };
    if let Some(fields) = shown.as_object_mut() {
        fields.insert(name.to_owned(), of.into());
    }
    shown
}

fn refusal(listed: bool, place: usize, why: Unrecorded) -> Refusal {
    let place = if listed { format!("[{place}].") } else { String::new() };
    let (code, detail, param) = match why {
        Unrecorded::NotOfThisKey => (
            "request_not_found",
            format!(
                "`{place}request` is no request of this key. Report it with the key that made it."
            ),
            Some(format!("{place}request")),
        ),
        Unrecorded::Full => (
            "outcomes_full",
            "This month's ledger has no room for more outcomes. Report fewer labels for each \
             request, or one outcome for each session."
                .to_owned(),
            None,
        ),
    };
    Refusal::BadRequest { code: code.to_owned(), detail, param }
}
