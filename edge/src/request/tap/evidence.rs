//! What a stream or a body has shown so far, and the conclusion at its end: reported, estimated or absent.

use tallygate_shared::tokens::{Calls, Tally, Tokens, Usage, UsageFlag};

use super::delta::Generated;
use super::event::{
    Answer, error_code, has_finish_reason, has_stop_reason, is_empty_list, may_have_usage, merge,
    object, text, torn_usage, web_searches,
};
use super::{Observed, TapConfig};
use crate::dialects::{Dialect, Endpoint};
use crate::providers::Report;
use crate::request::sse::Event;

/// Events at a stream's beginning that are parsed to learn the answer's id and model: Azure's first one has neither.
const INTRODUCTION: u32 = 4;

#[derive(Debug, Default)]
pub(super) struct Evidence {
    generated: Generated,
    events: u32,
    usage: Option<String>,
    /// The usage is the final one, even if the end marker never came.
    usage_is_final: bool,
    complete: bool,
    error: Option<String>,
    model: Option<String>,
    id: Option<String>,
    service_tier: Option<String>,
    searches_done: u64,
    searches_listed: u64,
}

impl Evidence {
    pub(super) fn has_content(&self) -> bool {
        self.generated.any()
    }

    /// Takes in an event. True for the usage chunk that exists only because `include_usage` was set.
    pub(super) fn take_event(&mut self, config: &TapConfig, event: &Event<'_>) -> bool {
        if event.data == b"[DONE]" {
            self.complete = true;
            return false;
        }
        if event.oversized {
            self.take_torn(config.endpoint, event);
            return false;
        }
        self.generated.add_event(config.endpoint, event.name, event.data);
        self.events = self.events.saturating_add(1);
        let introduces = self.events <= INTRODUCTION && self.model.is_none();
        if !introduces && !self.is_telling(config.endpoint, event) {
            return false;
        }
        let Some(answer) = Answer::parse(event.data) else {
            self.take_torn(config.endpoint, event);
            return false;
        };
        match config.endpoint {
            Endpoint::Messages => self.take_message_event(&answer),
            Endpoint::Responses => self.take_response_event(&answer),
            Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Models
            | Endpoint::CountTokens => return self.take_chunk(&answer),
        }
        false
    }

    /// Whether an event is worth parsing. Ordinary deltas are not.
    fn is_telling(&self, endpoint: Endpoint, event: &Event<'_>) -> bool {
        let has = |needle: &[u8]| memchr::memmem::find(event.data, needle).is_some();
        match endpoint {
            Endpoint::Messages | Endpoint::Responses => {
                let is_delta =
                    event.name.ends_with(b"_block_delta") || event.name.ends_with(b".delta");
                !is_delta
            }
            Endpoint::ChatCompletions
            | Endpoint::Completions
            | Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Models
            | Endpoint::CountTokens => may_have_usage(event.data) || has(b"\"error\""),
        }
    }

    fn introduce(&mut self, answer: &Answer<'_>) {
        if self.model.is_none() {
            self.model = text(answer.model).map(Into::into);
        }
        if self.id.is_none() {
            self.id = text(answer.id).map(Into::into);
        }
        // The last one said is the one that was used.
        if let Some(tier) = text(answer.service_tier) {
            self.service_tier = Some(tier.into_owned());
        }
    }

    fn take_chunk(&mut self, answer: &Answer<'_>) -> bool {
        self.introduce(answer);
        if let Some(error) = object(answer.error).and(answer.error) {
            self.error = Some(error_code(error));
        }
        let groq = Answer::inner(answer.x_groq);
        if let Some(error) = groq.as_ref().and_then(|groq| object(groq.error).and(groq.error)) {
            self.error = Some(error_code(error));
        }
        let own = object(answer.usage);
        let Some(usage) = own.or_else(|| groq.as_ref().and_then(|groq| object(groq.usage))) else {
            return false;
        };
        let is_alone = is_empty_list(answer.choices);
        self.usage = Some(usage.to_owned());
        self.usage_is_final = is_alone || has_finish_reason(answer.choices);
        is_alone && own.is_some()
    }

    fn take_message_event(&mut self, answer: &Answer<'_>) {
        match text(answer.kind).as_deref() {
            Some("message_start") => {
                if let Some(message) = Answer::inner(answer.message) {
                    self.introduce(&message);
                    self.usage = object(message.usage).map(str::to_owned);
                }
            }
            Some("message_delta") => {
                if let Some(usage) = object(answer.usage) {
                    let merged = self.usage.as_deref().map(|earlier| merge(earlier, usage));
                    self.usage = Some(merged.unwrap_or_else(|| usage.to_owned()));
                }
                self.usage_is_final |= has_stop_reason(answer.delta);
            }
            Some("message_stop") => self.complete = true,
            Some("error") => self.error = Some(answer.error.map_or("error".into(), error_code)),
            Some(_) | None => {}
        }
    }

    fn take_response_event(&mut self, answer: &Answer<'_>) {
        let kind = text(answer.kind);
        match kind.as_deref() {
            Some("response.completed" | "response.incomplete" | "response.failed") => {
                self.complete = true;
            }
            Some("error") => {
                let code = text(answer.code).map(Into::into);
                self.error = code.or_else(|| answer.error.map(error_code)).or(Some("error".into()));
            }
            Some("response.output_item.done") => {
                let item = Answer::inner(answer.item);
                if item.and_then(|item| text(item.kind)).as_deref() == Some("web_search_call") {
                    self.searches_done = self.searches_done.saturating_add(1);
                }
            }
            Some(_) | None => {}
        }
        if let Some(response) = Answer::inner(answer.response) {
            self.take_response(&response);
        }
    }

    fn take_response(&mut self, response: &Answer<'_>) {
        self.introduce(response);
        if let Some(usage) = object(response.usage) {
            self.usage = Some(usage.to_owned());
            self.usage_is_final = true;
        }
        if let Some(error) = object(response.error).and(response.error) {
            self.error = Some(error_code(error));
        }
        self.searches_listed = self.searches_listed.max(web_searches(response.output));
    }

    /// An event that cannot be parsed whole: too large, or torn at the beginning of a tail.
    fn take_torn(&mut self, endpoint: Endpoint, event: &Event<'_>) {
        if let Some(usage) = torn_usage(event.data) {
            self.usage = Some(match (endpoint.dialect(), self.usage.as_deref()) {
                (Dialect::Anthropic, Some(earlier)) => merge(earlier, &usage),
                (Dialect::Anthropic | Dialect::OpenAi, _) => usage,
            });
            self.usage_is_final = true;
        }
        let ends = ["response.completed", "response.incomplete", "response.failed"];
        if endpoint == Endpoint::Responses && ends.iter().any(|end| event.name == end.as_bytes()) {
            self.complete = true;
        }
    }

    /// Takes in an answer that came in one piece.
    pub(super) fn take_body(&mut self, endpoint: Endpoint, body: &[u8]) {
        // Embeddings have megabytes of numbers and no text.
        if !matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations) {
            self.generated.add_body(body);
        }
        let Some(answer) = Answer::parse(body) else {
            // Cut short, most likely. Its usage is not searched for: a tool's input, which the model writes, may look like one.
            return;
        };
        self.complete = true;
        self.take_response(&answer);
        self.take_chunk(&answer);
        self.usage_is_final = self.usage.is_some();
    }

    /// What it all means.
    pub(super) fn conclude(self, config: &TapConfig) -> Observed {
        let mut flags = Vec::new();
        let usage = self.usage(config, &mut flags);
        if let Some(tally) = usage.tally() {
            for flag in &tally.flags {
                push(&mut flags, *flag);
            }
        }
        if !self.complete {
            push(&mut flags, UsageFlag::StreamIncomplete);
        }
        Observed {
            usage: with_flags(usage, &flags),
            complete: self.complete,
            stream_error: self.error,
            response_model: self.model,
            provider_response_id: self.id,
            output_estimate_tokens: self.generated.weight.tokens(),
            text_bytes: self.generated.text_bytes,
            tool_bytes: self.generated.tool_bytes,
            first_content: self.generated.any(),
            flags,
        }
    }

    fn usage(&self, config: &TapConfig, flags: &mut Vec<UsageFlag>) -> Usage {
        if !config.endpoint.is_billed() {
            return Usage::Reported(Tally::default());
        }
        let web_search_calls = self.searches_done.max(self.searches_listed);
        let reported = self.usage.as_deref().map(|usage| {
            config.provider.read_usage(&Report {
                endpoint: config.endpoint,
                usage,
                service_tier: self.service_tier.as_deref(),
                cache_ttl: config.cache_ttl,
                search_context_size: config.search_context_size.as_deref(),
                web_search_calls,
            })
        });
        match reported {
            Some(Ok(tally)) if self.complete || self.usage_is_final => Usage::Reported(tally),
            // The report of an answer that was not over: its input is real, its output only what had been counted by then.
            Some(Ok(mut tally)) => {
                let missing =
                    self.generated.weight.tokens().saturating_sub(tally.tokens.output_total());
                tally.tokens.output = tally.tokens.output.saturating_add(missing);
                tally.stated_cost = None;
                Usage::Estimated(tally)
            }
            Some(Err(error)) => {
                push(flags, error.flag());
                Usage::Estimated(self.estimate(config, web_search_calls))
            }
            // An error before anything was generated costs nothing.
            None if self.error.is_some() && !self.generated.any() => Usage::Absent,
            None => Usage::Estimated(self.estimate(config, web_search_calls)),
        }
    }

    fn estimate(&self, config: &TapConfig, web_search: u64) -> Tally {
        Tally {
            tokens: Tokens {
                input: config.counted_input_tokens,
                output: self.generated.weight.tokens(),
                ..Tokens::default()
            },
            calls: Calls { web_search, ..Calls::default() },
            service_tier: self.service_tier.clone(),
            search_context_size: config.search_context_size.clone(),
            ..Tally::default()
        }
    }
}

fn push(flags: &mut Vec<UsageFlag>, flag: UsageFlag) {
    if !flags.contains(&flag) {
        flags.push(flag);
    }
}

/// The tally is what is stored, so it carries the stream's flags too.
fn with_flags(usage: Usage, flags: &[UsageFlag]) -> Usage {
    match usage {
        Usage::Reported(tally) => Usage::Reported(Tally { flags: flags.to_vec(), ..tally }),
        Usage::Estimated(tally) => Usage::Estimated(Tally { flags: flags.to_vec(), ..tally }),
        Usage::Absent => Usage::Absent,
    }
}
