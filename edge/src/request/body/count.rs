//! Counts the input in one walk over the parsed values, without keeping them.
//!
//! Everything that is text for the model is weighed, keys and structure included: a chat template spends tokens on them too.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use tallygate_shared::events::decision::PromptParts;

use super::shape::{Field, ObjectShape, Shaper, data_hash, list_start, mix, text_hash};
use super::{IMAGE_TOKENS, MAX_DEPTH};
use crate::request::weigh::Weight;

/// Tokens for each object: role markers and separators of a chat template.
const OBJECT_TOKENS: u64 = 3;
/// Tokens for the request as such.
const REQUEST_TOKENS: u64 = 16;
/// What a provider's own tool prompt takes once there are tools. Anthropic's takes about 350, more with some tools.
const TOOLS_TOKENS: u64 = 600;
/// Base64 characters of a file for each token counted.
const FILE_CHARS_PER_TOKEN: u64 = 4;
/// Base64 characters of audio for each token: speech compressed hard has about 160 to a token.
const AUDIO_CHARS_PER_TOKEN: u64 = 64;

/// Where messages stand: objects in the list that is the value of `messages` or `input`.
const ENTRY_DEPTH: u32 = 2;

/// What has been counted so far.
#[derive(Debug, Default)]
pub(super) struct Counter {
    weight: Weight,
    typed_images: u64,
    sent_images: u64,
    documents: u64,
    sources_by_url: u64,
    pub(super) unseen: bool,
    pub(super) one_hour_cache: bool,
    pub(super) too_deep: bool,
    pub(super) has_tools: bool,
    /// Numbers are token ids and not text.
    pub(super) numbers_are_tokens: bool,
    /// Takes the request's shape on the way.
    pub(super) shaper: Shaper,
    parts: PromptParts,
    /// What is walked is the conversation: its entries are messages.
    in_conversation: bool,
    entries: Weight,
}

impl Counter {
    /// Images, as typed content parts or as data, whichever shows more: neither way alone may hide one.
    pub(super) fn images(&self) -> u64 {
        self.typed_images.max(self.sent_images)
    }

    /// Input that the body only refers to.
    pub(super) fn has_unseen(&self) -> bool {
        self.unseen || (self.documents > 0 && self.sources_by_url > 0)
    }

    /// The estimate.
    pub(super) fn tokens(&self) -> u64 {
        self.weight
            .tokens()
            .saturating_add(REQUEST_TOKENS)
            .saturating_add(if self.has_tools { TOOLS_TOKENS } else { 0 })
            .saturating_add(self.images().saturating_mul(IMAGE_TOKENS))
    }

    /// The value of the request's field `key` is walked next.
    pub(super) fn begin(&mut self, key: &str) -> Weight {
        self.in_conversation = matches!(key, "messages" | "input");
        self.weight
    }

    /// The field `key` is walked, whose walk began at `start`.
    pub(super) fn end(&mut self, key: &str, start: Weight) {
        let tokens = self.weight.since(start).tokens();
        match key {
            "system" | "instructions" => {
                self.parts.system = self.parts.system.saturating_add(tokens)
            }
            "tools" | "functions" => self.parts.tools = self.parts.tools.saturating_add(tokens),
            // A prompt that is no list of messages is one.
            "messages" | "input" | "prompt" => {
                let rest = tokens.saturating_sub(std::mem::take(&mut self.entries).tokens());
                self.parts.last = self.parts.last.saturating_add(rest);
            }
            _ => {}
        }
    }

    fn end_message(&mut self, start: Weight, role: Option<u64>) {
        let weight = self.weight.since(start);
        self.entries.add_tokens(weight.tokens());
        let tokens = weight.tokens();
        if ["system", "developer"].iter().any(|name| role == Some(text_hash(name))) {
            self.parts.system = self.parts.system.saturating_add(tokens);
            return;
        }
        let before = std::mem::replace(&mut self.parts.last, tokens);
        self.parts.history = self.parts.history.saturating_add(before);
    }

    /// What the input consists of. What is counted beside the text is `other`, but for the provider's own tool prompt.
    pub(super) fn parts(&self) -> PromptParts {
        let mut parts = self.parts;
        if self.has_tools {
            parts.tools = parts.tools.saturating_add(TOOLS_TOKENS);
        }
        let known = parts.named().iter().fold(0_u64, |sum, (_, part)| sum.saturating_add(*part));
        parts.other = self.tokens().saturating_sub(known);
        parts
    }

    fn weigh(&mut self, text: &str) {
        self.weight.add(text.as_bytes());
    }

    fn weigh_number(&mut self, number: u64) {
        let digits = u64::from(number.checked_ilog10().unwrap_or_default()).saturating_add(1);
        self.weight.add_tokens(if self.numbers_are_tokens { 1 } else { digits });
    }

    fn add_base64(&mut self, media_type: &str, data: &str) {
        let chars = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if media_type.starts_with("image/") {
            self.sent_images = self.sent_images.saturating_add(1);
        } else if media_type.starts_with("audio/") {
            self.weight.add_tokens(chars.div_ceil(AUDIO_CHARS_PER_TOKEN));
        } else {
            self.weight.add_tokens(chars.div_ceil(FILE_CHARS_PER_TOKEN));
        }
    }
}

/// Keys whose values may be something else than text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Type,
    Data,
    MediaType,
    Format,
    /// `url`, `image_url`, `file_data`: may hold a data URL.
    Url,
    /// Names something that the provider has stored, or fetches.
    Reference,
    CacheControl,
    Ttl,
    Other,
}

/// Walks one value into the counter. Strings under special keys are handed up, as their meaning depends on the keys beside them.
pub(super) struct Walk<'c> {
    counter: &'c mut Counter,
    key: Key,
    field: Field,
    in_cache_control: bool,
    /// Inside of a tool call's arguments, whose fields mean nothing to the gateway.
    in_arguments: bool,
    depth: u32,
}

/// What a walk over a value says of it.
#[derive(Default)]
pub(super) struct Walked<'de> {
    /// A string that is handed up.
    text: Option<Cow<'de, str>>,
    /// The value's hash, 0 while none is taken.
    pub(super) hash: u64,
}

impl<'c> Walk<'c> {
    pub(super) fn new(counter: &'c mut Counter) -> Self {
        Self {
            counter,
            key: Key::Other,
            field: Field::Other,
            in_cache_control: false,
            in_arguments: false,
            depth: 0,
        }
    }

    fn walked<'de>(self, text: Cow<'de, str>) -> Walked<'de> {
        let hash = self.hash(&text);
        Walked { hash, text: self.text(text) }
    }

    fn hash(&self, text: &str) -> u64 {
        match (self.counter.shaper.on, self.key, self.field) {
            (false, ..) => 0,
            (true, Key::Data | Key::Url, _) => data_hash(text),
            (true, _, Field::Arguments) => arguments_hash(text),
            (true, ..) => text_hash(text),
        }
    }

    fn scalar<'de>(&self, kind: u64, bits: u64) -> Walked<'de> {
        let hash = if self.counter.shaper.on { mix(kind, bits) } else { 0 };
        Walked { text: None, hash }
    }

    fn text<'de>(self, text: Cow<'de, str>) -> Option<Cow<'de, str>> {
        match self.key {
            Key::Other | Key::CacheControl => {
                self.counter.weigh(&text);
                None
            }
            Key::Reference => {
                self.counter.unseen = true;
                self.counter.weigh(&text);
                None
            }
            Key::Ttl => {
                self.counter.one_hour_cache |= self.in_cache_control && text == "1h";
                self.counter.weigh(&text);
                None
            }
            Key::Type | Key::Data | Key::MediaType | Key::Format | Key::Url => Some(text),
        }
    }

    fn in_arguments(&self) -> bool {
        self.in_arguments || matches!(self.field, Field::Arguments | Field::Input)
    }

    fn deeper(&mut self) -> bool {
        self.depth = self.depth.saturating_add(1);
        self.counter.too_deep |= self.depth > MAX_DEPTH;
        self.counter.too_deep
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Walked<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Walked<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(self.walked(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        if matches!(self.key, Key::Other) {
            self.counter.weigh(text);
            return Ok(Walked { hash: self.hash(text), text: None });
        }
        Ok(self.walked(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        self.counter.weight.add_tokens(1);
        Ok(self.scalar(1, u64::from(value)))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.counter.weight.add_tokens(1);
        Ok(self.scalar(2, 0))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        self.counter.weigh_number(number);
        Ok(self.scalar(3, number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        self.counter.weigh_number(number.unsigned_abs());
        Ok(self.scalar(4, number.unsigned_abs()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        // The most digits that a float prints with.
        self.counter.weight.add_tokens(18);
        Ok(self.scalar(5, number.to_bits()))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        if self.deeper() {
            return Err(A::Error::custom("too deep"));
        }
        let mut hash = list_start();
        let in_arguments = self.in_arguments();
        while let Some(walked) = seq.next_element_seed(Walk {
            counter: &mut *self.counter,
            key: Key::Other,
            field: Field::Other,
            in_cache_control: false,
            in_arguments,
            depth: self.depth,
        })? {
            debug_assert!(walked.text.is_none());
            hash = mix(hash, walked.hash);
        }
        Ok(Walked { text: None, hash })
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        if self.deeper() {
            return Err(A::Error::custom("too deep"));
        }
        let in_cache_control = self.key == Key::CacheControl;
        let start = self.counter.weight;
        self.counter.weight.add_tokens(OBJECT_TOKENS);
        let mut content = Content::default();
        let mut shape = ObjectShape::default();
        let in_arguments = self.in_arguments();
        while let Some(read) = map.next_key_seed(KeySeed { counter: &mut *self.counter })? {
            let KeyRead { key, mut field, hash } = read;
            if in_arguments {
                field = Field::Other;
            }
            let walked = map.next_value_seed(Walk {
                counter: &mut *self.counter,
                key,
                field,
                in_cache_control,
                in_arguments,
                depth: self.depth,
            })?;
            if self.counter.shaper.on {
                shape.put(field, hash, walked.hash);
            }
            if let Some(text) = walked.text {
                content.put(key, text, self.counter);
            }
        }
        let mut hash = 0;
        let role = shape.role();
        if self.counter.shaper.on {
            let kind = content.kind.as_deref().filter(|_| !in_arguments).unwrap_or_default();
            hash = shape.end(kind, self.depth == ENTRY_DEPTH, &mut self.counter.shaper);
        }
        content.count(self.counter);
        if self.counter.in_conversation && self.depth == ENTRY_DEPTH {
            self.counter.end_message(start, role);
        }
        Ok(Walked { text: None, hash })
    }
}

/// The hash of a tool call's arguments, which are JSON in a string: alike, however they are written.
fn arguments_hash(text: &str) -> u64 {
    let mut scratch = Counter::default();
    scratch.shaper.on = true;
    let mut json = serde_json::Deserializer::from_str(text);
    let walk = Walk { in_arguments: true, ..Walk::new(&mut scratch) };
    let walked = walk.deserialize(&mut json);
    let whole = walked.and_then(|walked| json.end().map(|()| walked.hash));
    whole.unwrap_or_else(|_| text_hash(text))
}

/// The strings of one object that only together say what they are.
#[derive(Default)]
struct Content<'de> {
    kind: Option<Cow<'de, str>>,
    data: Option<Cow<'de, str>>,
    media_type: Option<Cow<'de, str>>,
    format: Option<Cow<'de, str>>,
}

impl<'de> Content<'de> {
    fn put(&mut self, key: Key, text: Cow<'de, str>, counter: &mut Counter) {
        let slot = match key {
            Key::Type => &mut self.kind,
            Key::Data => &mut self.data,
            Key::MediaType => &mut self.media_type,
            Key::Format => &mut self.format,
            Key::Url | Key::Reference | Key::CacheControl | Key::Ttl | Key::Other => {
                return count_url(&text, counter);
            }
        };
        // The same key twice: whichever the provider reads, both are counted.
        if let Some(earlier) = slot.replace(text) {
            counter.weigh(&earlier);
        }
    }

    fn count(self, counter: &mut Counter) {
        let kind = self.kind.as_deref().unwrap_or_default();
        match kind {
            "image" | "image_url" | "input_image" => {
                counter.typed_images = counter.typed_images.saturating_add(1);
            }
            "document" => counter.documents = counter.documents.saturating_add(1),
            "url" => counter.sources_by_url = counter.sources_by_url.saturating_add(1),
            _ => {}
        }
        if let Some(data) = &self.data {
            match (kind, self.media_type.as_deref(), self.format.as_deref()) {
                ("base64", Some(media_type), _) => counter.add_base64(media_type, data),
                (
                    "",
                    None,
                    Some("wav" | "mp3" | "flac" | "opus" | "aac" | "ogg" | "m4a" | "pcm16"),
                ) => counter.add_base64("audio/", data),
                _ => counter.weigh(data),
            }
        }
        for text in [self.kind, self.media_type, self.format].into_iter().flatten() {
            counter.weigh(&text);
        }
    }
}

fn count_url(text: &str, counter: &mut Counter) {
    let data_url = text.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    match data_url {
        Some((media_type, data)) => counter.add_base64(media_type, data),
        None => counter.weigh(text),
    }
}

struct KeyRead {
    key: Key,
    field: Field,
    hash: u64,
}

struct KeySeed<'c> {
    counter: &'c mut Counter,
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = KeyRead;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<KeyRead, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = KeyRead;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<KeyRead, E> {
        self.counter.weigh(key);
        let hash = if self.counter.shaper.on { text_hash(key) } else { 0 };
        let field = Field::of(key);
        let key = match key {
            "type" => Key::Type,
            "data" => Key::Data,
            "media_type" => Key::MediaType,
            "format" => Key::Format,
            "url" | "image_url" | "file_data" => Key::Url,
            "file_id" | "file_url" => Key::Reference,
            "cache_control" => Key::CacheControl,
            "ttl" => Key::Ttl,
            _ => Key::Other,
        };
        Ok(KeyRead { key, field, hash })
    }
}
