//! The client's body: what the gateway must know of it, and the few changes it makes to it.
//!
//! A body can be megabytes of pictures, so it is read once, borrowed, and never rebuilt: a change is a splice, and every byte
//! outside of it goes on as it came. Knows the requests' fields; never knows prices, plans or providers.

mod count;
mod read;
mod shape;
mod splice;

#[cfg(test)]
mod parts_tests;
#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use tallygate_shared::budget::loop_breaker::shape::RequestShape;
use tallygate_shared::events::decision::PromptParts;

pub use self::splice::Edits;
use crate::dialects::Endpoint;
use crate::providers::CacheTtl;

/// Tokens that one image is counted with: what the largest images cost at current providers, whatever their bytes.
pub const IMAGE_TOKENS: u64 = 4_800;
/// Nesting beyond this is refused: no request needs it, and a provider's parser may read it otherwise than ours.
pub const MAX_DEPTH: u32 = 96;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    text: &'a str,
    spots: Spots,
    /// The model, as the client names it.
    pub model: Cow<'a, str>,
    /// The client wants a stream.
    pub stream: bool,
    /// The client itself asked for usage in the stream.
    pub include_usage: bool,
    /// The most output tokens that the client asks for, the largest of the fields that say so.
    pub max_output_tokens: Option<u64>,
    /// Answers generated: `n` or `best_of`, the larger, 1 if unset.
    pub choices: u64,
    /// The service tier asked for.
    pub service_tier: Option<Cow<'a, str>>,
    /// The end user: `user`, or `metadata.user_id` for Anthropic.
    pub user: Option<Cow<'a, str>>,
    /// Text entries of `metadata`. They may label a request; they are not signed.
    pub metadata: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The client switched on web search by `web_search_options`.
    pub web_search: bool,
    /// `web_search_options.search_context_size`.
    pub search_context_size: Option<Cow<'a, str>>,
    /// The longest cache lifetime asked for.
    pub cache_ttl: Option<CacheTtl>,
    /// Images in the input.
    pub images: u64,
    /// The request has input that is not in its body: a stored conversation, a file by id. It cannot be counted.
    pub unseen_input: bool,
    /// Input tokens, practically never too few. See [`crate::request::weigh`] for text; an image is [`IMAGE_TOKENS`], a file
    /// a token for every four base64 characters, audio one for every 64, a token id one.
    pub counted_input_tokens: u64,
    /// What they consist of.
    pub parts: PromptParts,
    /// What the loop breaker may know of the request.
    pub shape: RequestShape,
}

/// Where in the body the fields stand that may be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Spots {
    /// Just past the opening brace.
    open: usize,
    model: Range<usize>,
    max_output: Vec<(Range<usize>, Option<u64>)>,
    stream_options: Option<Range<usize>>,
    include_usage: Option<Range<usize>>,
    stream_options_empty: bool,
}

/// Why a body is refused. Each text says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8.
    #[error("the body is not UTF-8 from byte {at} on")]
    InvalidUtf8 {
        /// Bytes before the first bad one.
        at: usize,
    },
    /// Not JSON.
    #[error("the body is not JSON: line {line}, column {column}")]
    Malformed {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but no object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// Nested too deeply.
    #[error("the body is nested more than {MAX_DEPTH} levels deep")]
    TooDeep,
    /// No model.
    #[error("`model` is missing: name the model to use")]
    MissingModel,
    /// A field of the wrong type.
    #[error("`{field}` must be {expected}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A field that stands there twice: providers may read the other one.
    #[error("`{field}` occurs more than once: send it once")]
    Duplicate {
        /// The field.
        field: &'static str,
    },
}

impl BodyError {
    /// The field at fault, for the error's `param`.
    pub const fn field(&self) -> Option<&'static str> {
        match self {
            Self::MissingModel => Some("model"),
            Self::WrongType { field, .. } | Self::Duplicate { field } => Some(field),
            Self::InvalidUtf8 { .. }
            | Self::Malformed { .. }
            | Self::NotAnObject
            | Self::TooDeep => None,
        }
    }
}

impl<'a> Body<'a> {
    /// Reads a body.
    pub fn read(endpoint: Endpoint, bytes: &'a [u8]) -> Result<Self, BodyError> {
        read::read(endpoint, bytes)
    }

    /// The body with `edits` made, borrowed when they change nothing.
    pub fn edited(&self, edits: &Edits<'_>) -> Cow<'a, [u8]> {
        splice::apply(self, edits)
    }
}
