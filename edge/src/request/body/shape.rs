//! The shape of a request: hashes of what it asks and of its tool calls, taken in the walk that counts it.
//!
//! Equal requests must hash alike although a client wrote them anew, and different ones must not. So:
//!
//! - blanks in text count as one space, and none at its ends; a clock time (`12:30`, `12:30:59.5`) as nothing; other digits count,
//!   for a batch over documents often differs in a number only
//! - an object's fields count in any order, a list's entries in theirs
//! - the ids of tool calls and the marks of prompt caching do not count, nor do the tools on offer
//! - sampling settings count: an evaluation that asks the same with another seed is another request
//!
//! The hash is fast and not cryptographic. A client that wants to evade it can: it protects clients from themselves.

use tallygate_shared::budget::loop_breaker::rules::MAX_TOOL_CALLS;
use tallygate_shared::budget::loop_breaker::shape::RequestShape;

/// Odd, with its bits spread: the multiplier of the mixing steps.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Starts of hashes, so that values of different kinds differ.
const TEXT: u64 = 0x51;
const LIST: u64 = 0x52;
const OBJECT: u64 = 0x53;
/// Stands before the bytes that wait to be mixed, so that their number counts.
const MARK: u64 = 1;
/// The bits of a hash that cross JavaScript as a number.
const KEPT_BITS: u32 = 52;

/// What the walk has seen so far.
#[derive(Debug, Default)]
pub(super) struct Shaper {
    /// Whether values are hashed at all: not while the tools on offer are walked.
    pub(super) on: bool,
    sum: u64,
    calls: Vec<u64>,
    messages: u32,
    /// The message in hand brings a tool's result: it is not a person's.
    brings_result: bool,
}

/// What the hashes of one object's fields say together.
#[derive(Debug)]
pub(super) struct ObjectShape {
    sum: u64,
    name: Option<u64>,
    arguments: Option<u64>,
    input: Option<u64>,
    role: Option<u64>,
}

/// Fields that say something about a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Name,
    Arguments,
    Input,
    Role,
    /// Differs although nothing does.
    Ignored,
    Other,
}

impl Field {
    pub(super) fn of(key: &str) -> Self {
        match key {
            "name" => Self::Name,
            "arguments" => Self::Arguments,
            "input" => Self::Input,
            "role" => Self::Role,
            "id" | "call_id" | "tool_call_id" | "tool_use_id" | "cache_control" => Self::Ignored,
            _ => Self::Other,
        }
    }
}

impl Shaper {
    /// Adds a field of the request itself, under its key.
    pub(super) fn add(&mut self, key: &str, value: u64) {
        self.sum = self.sum.wrapping_add(mix(text_hash(key), value));
    }

    pub(super) fn into_shape(self) -> RequestShape {
        RequestShape {
            fingerprint: kept(self.sum),
            tool_calls: self.calls,
            messages: self.messages,
        }
    }

    fn call(&mut self, name: u64, arguments: u64) {
        // The newest are kept.
        if self.calls.len() >= MAX_TOOL_CALLS {
            self.calls.remove(0);
        }
        self.calls.push(kept(mix(name, arguments)));
    }
}

impl Default for ObjectShape {
    fn default() -> Self {
        Self { sum: OBJECT, name: None, arguments: None, input: None, role: None }
    }
}

impl ObjectShape {
    /// The hash of its `role`.
    pub(super) const fn role(&self) -> Option<u64> {
        self.role
    }

    pub(super) fn put(&mut self, field: Field, key: u64, value: u64) {
        match field {
            Field::Name => self.name = Some(value),
            Field::Arguments => self.arguments = Some(value),
            Field::Input => self.input = Some(value),
            Field::Role => self.role = Some(value),
            Field::Ignored => return,
            Field::Other => {}
        }
        self.sum = self.sum.wrapping_add(mix(key, value));
    }

    /// The object is whole. `kind` is its `type`; a message stands directly in the conversation.
    pub(super) fn end(self, kind: &str, is_entry: bool, shaper: &mut Shaper) -> u64 {
        match (kind, self.name, self.arguments, self.input) {
            (_, Some(name), Some(arguments), _) => shaper.call(name, arguments),
            ("tool_use" | "custom_tool_call", Some(name), None, Some(input)) => {
                shaper.call(name, input);
            }
            ("tool_result", ..) => shaper.brings_result = true,
            _ => {}
        }
        if is_entry && let Some(role) = self.role {
            shaper.messages = shaper.messages.saturating_add(1);
            // Somebody spoke: what the agent does from here on is a new attempt.
            if !std::mem::take(&mut shaper.brings_result) && role == text_hash("user") {
                shaper.calls.clear();
            }
        }
        mix(OBJECT, self.sum)
    }
}

/// One hash from two, order kept.
pub(super) const fn mix(a: u64, b: u64) -> u64 {
    let folded = (a.rotate_left(5) ^ b).wrapping_mul(SPREAD);
    folded ^ (folded >> 32)
}

pub(super) const fn list_start() -> u64 {
    LIST
}

/// The hash of text for people: see above for what does not count.
pub(super) fn text_hash(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut stream = Stream::default();
    let mut fed = 0;
    for colon in memchr::memchr_iter(b':', bytes) {
        let start = colon.saturating_sub(2);
        let window = bytes.get(start..colon.saturating_add(3));
        if start < fed || !window.is_some_and(is_clock) {
            continue;
        }
        stream.feed(bytes.get(fed..start).unwrap_or_default());
        let in_clock = |byte: &&u8| byte.is_ascii_digit() || matches!(**byte, b':' | b'.');
        let clock = bytes.iter().skip(start).take_while(in_clock).count();
        fed = start.saturating_add(clock);
    }
    stream.feed(bytes.get(fed..).unwrap_or_default());
    stream.end()
}

/// The hash of data, as it is.
pub(super) fn data_hash(data: &str) -> u64 {
    let (chunks, rest) = data.as_bytes().as_chunks::<8>();
    let hash = chunks.iter().fold(TEXT, |hash, chunk| mix(hash, u64::from_le_bytes(*chunk)));
    let tail = rest.iter().fold(MARK, |tail, byte| (tail << 8) | u64::from(*byte));
    mix(hash, tail)
}

/// Hashes text whose blanks are made one space each, seven bytes at a time.
struct Stream {
    hash: u64,
    /// Up to seven bytes, below a mark that tells how many.
    rest: u64,
    /// A space is due before the next byte. None is at the start or the end.
    blank: bool,
}

/// Takes a byte in, and mixes seven of them when they are together.
const fn push(hash: u64, rest: u64, byte: u8) -> (u64, u64) {
    if rest >> 56 == 0 {
        (hash, (rest << 8) | byte as u64)
    } else {
        (mix(hash, rest), (MARK << 8) | byte as u64)
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self { hash: TEXT, rest: MARK, blank: false }
    }
}

impl Stream {
    fn feed(&mut self, bytes: &[u8]) {
        let Self { mut hash, mut rest, mut blank } = *self;
        for &byte in bytes {
            // Control characters are blanks too.
            if byte <= b' ' {
                blank = true;
                continue;
            }
            // Nothing but the mark: the text begins here.
            if std::mem::take(&mut blank) && rest != MARK {
                (hash, rest) = push(hash, rest, b' ');
            }
            (hash, rest) = push(hash, rest, byte);
        }
        *self = Self { hash, rest, blank };
    }

    fn end(self) -> u64 {
        mix(self.hash, self.rest)
    }
}

/// `12:30`.
fn is_clock(window: &[u8]) -> bool {
    let [a, b, colon, c, d] = window else { return false };
    *colon == b':' && [a, b, c, d].iter().all(|byte| byte.is_ascii_digit())
}

const fn kept(hash: u64) -> u64 {
    // The high bits of a product are its best mixed.
    hash >> (64 - KEPT_BITS)
}
