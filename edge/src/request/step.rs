//! The words between the core and the shell: what the shell does next, and what it hears at the end of a stream.

use serde::{Deserialize, Serialize};
use tallygate_shared::policy::refusal::Refusal;

use crate::request::answer::Answer;
use crate::request::outcomes::LedgerCall;

/// What the shell does next.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Step {
    /// Answer the caller.
    Respond(Answer),
    /// Call the key's Meter.
    AskMeter {
        /// The key's public id.
        meter: String,
        /// `admit`, `models`, `request`, `outcomes` or `budget`.
        method: &'static str,
        /// The message.
        call: String,
    },
    /// Have Ledgers record outcomes, then say what they answered.
    AskLedgers {
        /// What each is to record.
        calls: Vec<LedgerCall>,
    },
    /// Wait, then say so.
    Wait {
        /// How long.
        ms: u64,
    },
    /// Ask a provider.
    Fetch {
        /// Where.
        url: String,
        /// How.
        method: &'static str,
        /// With what.
        headers: Vec<(String, String)>,
        /// Until when.
        first_byte_timeout_ms: u64,
        /// The target's place in the admission's list.
        target: usize,
    },
    /// Read the whole answer, then say so.
    Buffer {
        /// Longest silence.
        idle_timeout_ms: u64,
    },
    /// Stream the answer through.
    Relay {
        /// The status.
        status: u16,
        /// The headers.
        headers: Vec<(String, String)>,
        /// Longest silence.
        idle_timeout_ms: u64,
    },
}

/// The last words on a stream.
#[derive(Debug, Serialize)]
pub struct Last {
    /// The settlement, for the Meter.
    pub settlement: String,
    /// The comment that closes the stream, for the caller.
    pub last: String,
}

/// A Meter's finished answer to a question of the key's holder.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum MeterReply {
    /// Here it is.
    Found {
        /// The status.
        status: u16,
        /// The body, JSON text.
        body: String,
    },
    /// The key may not ask.
    Refused {
        /// Why.
        refusal: Refusal,
    },
    /// The outcomes are in order: these Ledgers are to record them.
    Record {
        /// They came as an array.
        listed: bool,
        /// What each Ledger is to record.
        calls: Vec<LedgerCall>,
    },
    /// There is no such thing.
    NotFound,
}
