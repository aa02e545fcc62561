//! Reads along while an answer passes to the client, and says at its end what was consumed.
//!
//! The bytes are the provider's: they go out as they came and when they came. The one exception is the usage chunk that the
//! gateway itself asked for; it is left out, and only then are the bytes of an unfinished event held back until it is known
//! whether it is that chunk. Knows the shapes of streams; how a usage object counts is the provider's file's business.

mod delta;
mod event;
mod evidence;

#[cfg(test)]
mod tests;

use tallygate_shared::tokens::{Usage, UsageFlag};

use self::evidence::Evidence;
use super::sse::{EVENT_LIMIT, SseReader};
use crate::dialects::Endpoint;
use crate::providers::{CacheTtl, ProviderKind};

/// What must be known of a request to read its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Who answers.
    pub provider: ProviderKind,
    /// The endpoint that was called.
    pub endpoint: Endpoint,
    /// Leave out the usage chunk: the gateway asked for it, the client did not.
    pub strip_usage_chunk: bool,
    /// Input tokens as counted before the request was sent: the estimate if the provider reports none.
    pub counted_input_tokens: u64,
    /// The cache lifetime that the request asked for.
    pub cache_ttl: Option<CacheTtl>,
    /// The search context size that the request asked for.
    pub search_context_size: Option<String>,
}

/// What goes to the client in place of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The chunk itself.
    AsIs,
    /// These bytes, possibly none.
    Replaced(Vec<u8>),
}

/// What an answer turned out to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// What it consumed.
    pub usage: Usage,
    /// It ended as this endpoint's answers end.
    pub complete: bool,
    /// The code of an error that came inside an answer of status 200.
    pub stream_error: Option<String>,
    /// The model that the provider says answered.
    pub response_model: Option<String>,
    /// The provider's id of the answer.
    pub provider_response_id: Option<String>,
    /// Output tokens estimated from the text seen.
    pub output_estimate_tokens: u64,
    /// Bytes of text seen, as JSON has them.
    pub text_bytes: u64,
    /// Bytes of tool arguments seen.
    pub tool_bytes: u64,
    /// Something was generated.
    pub first_content: bool,
    /// What does not add up, about the usage and about the stream.
    pub flags: Vec<UsageFlag>,
}

/// Reads a stream along.
#[derive(Debug)]
pub struct Tap {
    config: TapConfig,
    reader: SseReader,
    evidence: Evidence,
    /// Bytes of an event that is not over, while it may still be the one to leave out.
    held: Vec<u8>,
    /// The event is too large to be a usage chunk: its bytes are not held back any more.
    letting_through: bool,
    /// The event that was left out ended in a carriage return: a line feed that follows is its own.
    drop_line_feed: bool,
}

impl Tap {
    /// A tap on a stream that is about to begin.
    pub fn new(config: TapConfig) -> Self {
        Self {
            config,
            reader: SseReader::default(),
            evidence: Evidence::default(),
            held: Vec::new(),
            letting_through: false,
            drop_line_feed: false,
        }
    }

    /// Reads a chunk, and says what to send in its place.
    pub fn push(&mut self, chunk: &[u8]) -> Passed {
        if !self.config.strip_usage_chunk {
            self.read(chunk, |_, _, _| {});
            return Passed::AsIs;
        }
        self.push_stripping(chunk)
    }

    /// Whether something of the answer's content has come.
    pub fn has_content(&self) -> bool {
        self.evidence.has_content()
    }

    /// Bytes held back, to be sent when the stream ends, however it ends.
    pub fn flush(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// The stream is over.
    pub fn finish(self) -> Observed {
        self.evidence.conclude(&self.config)
    }

    fn read(
        &mut self,
        chunk: &[u8],
        mut on_event: impl FnMut(Option<usize>, usize, Verdict),
    ) -> Option<usize> {
        let Self { reader, evidence, config, .. } = self;
        reader.push(chunk, |event| {
            let is_usage_chunk = evidence.take_event(config, &event);
            let verdict = Verdict { is_usage_chunk, ends_in_cr: event.ends_in_cr };
            on_event(event.start, event.end, verdict);
        })
    }

    fn push_stripping(&mut self, chunk: &[u8]) -> Passed {
        let held = std::mem::take(&mut self.held);
        // Ranges of the chunk that are left out, in order.
        let mut dropped: Vec<(usize, usize)> = Vec::new();
        if !chunk.is_empty()
            && std::mem::take(&mut self.drop_line_feed)
            && chunk.first() == Some(&b'\n')
        {
            dropped.push((0, 1));
        }
        let letting_through = self.letting_through;
        let (mut drop_held, mut drop_line_feed) = (false, false);
        let open_from = self.read(chunk, |start, end, verdict| {
            // Half of the event may be out already; then the other half has to follow.
            let is_partly_out = start.is_none() && letting_through;
            if verdict.is_usage_chunk && !is_partly_out {
                drop_held |= start.is_none();
                dropped.push((start.unwrap_or(0), end));
                drop_line_feed = verdict.ends_in_cr;
            }
        });
        self.drop_line_feed |= drop_line_feed;

        let held_len = if open_from.is_none() { held.len() } else { 0 };
        let open_len =
            held_len.saturating_add(chunk.len().saturating_sub(open_from.unwrap_or_default()));
        self.letting_through = (letting_through && open_from.is_none()) || open_len > EVENT_LIMIT;
        let send_until =
            if self.letting_through { chunk.len() } else { open_from.unwrap_or_default() };

        if held.is_empty() && dropped.is_empty() && send_until == chunk.len() {
            return Passed::AsIs;
        }
        if open_from.is_none() && !self.letting_through {
            // Still the same event: all of it stays here.
            self.held = held;
            self.held.extend_from_slice(chunk);
            return Passed::Replaced(Vec::new());
        }
        let mut out = if drop_held { Vec::new() } else { held };
        let mut at = 0;
        for (start, end) in dropped {
            out.extend_from_slice(chunk.get(at..start).unwrap_or_default());
            at = end;
        }
        out.extend_from_slice(chunk.get(at..send_until).unwrap_or_default());
        self.held = chunk.get(send_until.max(at)..).unwrap_or_default().to_vec();
        Passed::Replaced(out)
    }
}

#[derive(Clone, Copy)]
struct Verdict {
    is_usage_chunk: bool,
    ends_in_cr: bool,
}

/// Reads an answer that came in one piece.
pub fn read_body(config: &TapConfig, body: &[u8]) -> Observed {
    let mut evidence = Evidence::default();
    evidence.take_body(config.endpoint, body);
    evidence.conclude(config)
}

/// Reads what is left of a stream whose first reader died: its first bytes, and its last. `tail` must not overlap `head`, and where
/// nothing is missing between them all of it belongs in `head`.
pub fn rescan(config: &TapConfig, head: &[u8], tail: &[u8]) -> Observed {
    let mut evidence = Evidence::default();
    for part in [head, tail] {
        // The tail begins anywhere; a torn first event is no JSON, and only its usage is looked for.
        SseReader::default().push(part, |event| {
            evidence.take_event(config, &event);
        });
    }
    evidence.conclude(config)
}
