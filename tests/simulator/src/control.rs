//! What a test asks of the simulator: in the body's `sim` field, or in a script for requests to come.

use std::collections::VecDeque;

use serde::Deserialize;

/// How to behave. Everything is optional; an unknown field is refused, or a test would test nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sim {
    /// Wait before the headers.
    pub(crate) latency_ms: u64,
    /// Wait before each chunk.
    pub(crate) chunk_delay_ms: u64,
    /// Chunks of content.
    pub(crate) chunks: Option<u64>,
    /// Counts to report.
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) cached_tokens: u64,
    pub(crate) cache_write_tokens: u64,
    pub(crate) cache_write_1h_tokens: u64,
    pub(crate) reasoning_tokens: u64,
    /// The tier to report.
    pub(crate) service_tier: Option<String>,
    /// Answer with this status.
    pub(crate) status: Option<u16>,
    /// Seconds in `retry-after`.
    pub(crate) retry_after: Option<u64>,
    /// `html`, `empty` or `garbage` for a body.
    pub(crate) error_body: Option<String>,
    /// Cut the connection after so many chunks.
    pub(crate) die_after_chunks: Option<u64>,
    /// Fall silent after so many chunks.
    pub(crate) stall_after_chunks: Option<u64>,
    /// `absent`, `garbage`, `negative`, `absurd` or `zero`.
    pub(crate) usage: Option<String>,
    /// One line of so many bytes.
    pub(crate) long_line_bytes: usize,
    /// Bytes that are no UTF-8 in the content.
    pub(crate) invalid_utf8: bool,
    /// Close without an answer.
    pub(crate) hang_up: bool,
    /// Write the stream in pieces of this size.
    pub(crate) split_bytes: usize,
    /// Lines end in CR LF.
    pub(crate) crlf: bool,
    /// An error inside the stream.
    pub(crate) error_in_stream: bool,
    /// The model to name in the answer.
    pub(crate) model: Option<String>,
    /// Answer with the received headers' names and the body's hash.
    pub(crate) echo: bool,
    /// What to answer.
    pub(crate) text: Option<String>,
}

/// Behaviour for requests to come.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    #[serde(default)]
    credential: Option<String>,
    steps: VecDeque<Sim>,
    #[serde(default)]
    repeat: bool,
}

/// The scripts, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Scripts(Vec<Script>);

impl Scripts {
    pub(crate) fn add(&mut self, script: Script) {
        self.0.push(script);
    }

    /// The next step for a credential, if a script has one.
    pub(crate) fn next(&mut self, credential: &str) -> Option<Sim> {
        let mine = |script: &&mut Script| {
            script.credential.as_deref().is_none_or(|wanted| wanted == credential)
        };
        let script = self.0.iter_mut().filter(mine).find(|script| !script.steps.is_empty())?;
        let step = script.steps.pop_front()?;
        if script.repeat {
            script.steps.push_back(step.clone());
        }
        Some(step)
    }
}
