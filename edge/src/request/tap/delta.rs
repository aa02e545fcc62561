//! Counts the generated text of a stream's event without parsing it: a walk from quote to quote.

use memchr::{memchr, memchr2};

use crate::dialects::Endpoint;
use crate::request::weigh::Weight;

/// Generated text seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Generated {
    pub(super) weight: Weight,
    pub(super) text_bytes: u64,
    pub(super) tool_bytes: u64,
}

/// What a string is, by the key before it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Tool,
}

impl Generated {
    /// Whether anything was generated.
    pub(super) fn any(&self) -> bool {
        self.text_bytes > 0 || self.tool_bytes > 0
    }

    /// Adds the text of one event's data.
    pub(super) fn add_event(&mut self, endpoint: Endpoint, name: &[u8], data: &[u8]) {
        // Where the text stands: of other places (Perplexity repeats the whole answer in each chunk) it is not counted.
        let container: Option<&[u8]> = match endpoint {
            Endpoint::ChatCompletions | Endpoint::Messages => Some(b"delta"),
            Endpoint::Responses | Endpoint::Completions => None,
            Endpoint::Embeddings
            | Endpoint::Moderations
            | Endpoint::Models
            | Endpoint::CountTokens => return,
        };
        if endpoint == Endpoint::Responses && !is_response_delta(name, data) {
            return;
        }
        let is_tool_event = endpoint == Endpoint::Responses
            && memchr::memmem::find(name_or_head(name, data), b"_call").is_some();
        self.walk(data, container, |key| match (endpoint, key) {
            (
                Endpoint::ChatCompletions,
                b"content" | b"reasoning_content" | b"reasoning" | b"refusal",
            ) => Some(Kind::Text),
            (Endpoint::ChatCompletions, b"arguments") => Some(Kind::Tool),
            (Endpoint::Messages, b"text" | b"thinking") => Some(Kind::Text),
            (Endpoint::Messages, b"partial_json") => Some(Kind::Tool),
            (Endpoint::Completions, b"text") => Some(Kind::Text),
            (Endpoint::Responses, b"delta") if is_tool_event => Some(Kind::Tool),
            (Endpoint::Responses, b"delta") => Some(Kind::Text),
            _ => None,
        });
    }

    /// Adds the text of a whole answer whose usage is missing.
    pub(super) fn add_body(&mut self, body: &[u8]) {
        self.walk(body, None, |key| match key {
            b"content" | b"reasoning_content" | b"text" | b"thinking" | b"refusal" => {
                Some(Kind::Text)
            }
            b"arguments" | b"partial_json" => Some(Kind::Tool),
            _ => None,
        });
    }

    fn walk(
        &mut self,
        json: &[u8],
        container: Option<&[u8]>,
        kind_of: impl Fn(&[u8]) -> Option<Kind>,
    ) {
        let mut rest = json;
        let mut depth = 0_u32;
        // The depth inside of the container's object, once it has begun.
        let mut inside: Option<u32> = None;
        let mut key: &[u8] = b"";
        while let Some(quote) = memchr(b'"', rest) {
            let (between, from_quote) = rest.split_at(quote);
            for byte in between {
                match byte {
                    b'{' => {
                        depth = depth.saturating_add(1);
                        if inside.is_none() && container == Some(key) {
                            inside = Some(depth);
                        }
                        key = b"";
                    }
                    b'}' => {
                        if inside == Some(depth) {
                            inside = None;
                        }
                        depth = depth.saturating_sub(1);
                        key = b"";
                    }
                    // A number, a literal or a list ended or began: the next string is not this key's value.
                    b',' | b']' => key = b"",
                    _ => {}
                }
            }
            let Some((text, after)) = split_string(from_quote) else { return };
            rest = after;
            if is_key(after) {
                key = text;
                continue;
            }
            if (container.is_none() || inside.is_some())
                && let Some(kind) = kind_of(key)
            {
                self.add(kind, text);
            }
            key = b"";
        }
    }

    fn add(&mut self, kind: Kind, text: &[u8]) {
        self.weight.add(text);
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let sum = match kind {
            Kind::Text => &mut self.text_bytes,
            Kind::Tool => &mut self.tool_bytes,
        };
        *sum = sum.saturating_add(bytes);
    }
}

/// The inside of the string that `json` begins with, and what follows it.
fn split_string(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = json.get(1..)?;
    let mut at = 0;
    loop {
        let found = memchr2(b'"', b'\\', body.get(at..)?)?;
        let stop = at.saturating_add(found);
        if body.get(stop) == Some(&b'"') {
            return Some((body.get(..stop)?, body.get(stop.saturating_add(1)..)?));
        }
        at = stop.saturating_add(2);
    }
}

fn is_key(after: &[u8]) -> bool {
    after.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// The event's name, or what of its data names it when a proxy took the `event:` lines away.
fn name_or_head<'a>(name: &'a [u8], data: &'a [u8]) -> &'a [u8] {
    if name.is_empty() { data.get(..data.len().min(120)).unwrap_or_default() } else { name }
}

fn is_response_delta(name: &[u8], data: &[u8]) -> bool {
    if name.is_empty() {
        memchr::memmem::find(name_or_head(name, data), b".delta\"").is_some()
    } else {
        name.ends_with(b".delta")
    }
}
