//! Reads a body in one pass.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use tallygate_shared::budget::loop_breaker::shape::RequestShape;

use super::count::{Counter, Walk};
use super::shape::text_hash;
use super::{Body, BodyError, Spots};
use crate::dialects::Endpoint;
use crate::providers::CacheTtl;

const TEXT: &str = "a string";
const BOOL: &str = "true or false";
const COUNT: &str = "a whole number that is not negative";
const OBJECT: &str = "an object";

/// Fields that are settings, not input. They are read, or known to be nothing for the model.
const SETTINGS: [&str; 22] = [
    "model",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "n",
    "best_of",
    "service_tier",
    "user",
    "metadata",
    "web_search_options",
    "prompt_cache_options",
    "previous_response_id",
    "conversation",
    "temperature",
    "top_p",
    "seed",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "encoding_format",
];

/// Settings that make one request differ from another.
const IDENTITY: [&str; 9] = [
    "model",
    "n",
    "best_of",
    "max_output_tokens",
    "previous_response_id",
    "conversation",
    "temperature",
    "top_p",
    "seed",
];

/// Fields that hold input and may stand there once only: whichever a provider reads, it must be the one we counted.
const INPUTS: [&str; 6] = ["messages", "input", "prompt", "system", "instructions", "tools"];

pub(super) fn read(endpoint: Endpoint, bytes: &[u8]) -> Result<Body<'_>, BodyError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| BodyError::InvalidUtf8 { at: error.valid_up_to() })?;
    let mut fields = Fields::default();
    fields.counter.numbers_are_tokens =
        matches!(endpoint, Endpoint::Embeddings | Endpoint::Completions);
    let mut refusal = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let parsed = json
        .deserialize_any(TopLevel { fields: &mut fields, refusal: &mut refusal })
        .and_then(|()| json.end());
    if let Err(error) = parsed {
        return Err(match refusal {
            Some(refusal) => refusal,
            None if fields.counter.too_deep => BodyError::TooDeep,
            // The parser's own limit, for depth inside of what is not walked.
            None if error.to_string().starts_with("recursion limit") => BodyError::TooDeep,
            None if error.is_data() && !fields.is_object => BodyError::NotAnObject,
            None => BodyError::Malformed { line: error.line(), column: error.column() },
        });
    }
    fields.into_body(endpoint, text)
}

#[derive(Default)]
struct Fields<'a> {
    is_object: bool,
    counter: Counter,
    settings: [Option<&'a RawValue>; SETTINGS.len()],
    inputs: [bool; INPUTS.len()],
}

struct TopLevel<'f, 'a> {
    fields: &'f mut Fields<'a>,
    refusal: &'f mut Option<BodyError>,
}

impl<'a> Visitor<'a> for TopLevel<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { fields, refusal } = self;
        fields.is_object = true;
        let mut duplicate = |field| {
            *refusal = Some(BodyError::Duplicate { field });
            A::Error::custom("duplicate")
        };
        while let Some(key) = map.next_key::<KeyText<'a>>()? {
            let key = &*key.0;
            let mut slots = SETTINGS.iter().zip(&mut fields.settings);
            if let Some((field, slot)) = slots.find(|(name, _)| **name == key) {
                if slot.replace(map.next_value()?).is_some() {
                    return Err(duplicate(field));
                }
                continue;
            }
            let mut slots = INPUTS.iter().zip(&mut fields.inputs);
            if let Some((field, seen)) = slots.find(|(name, _)| **name == key)
                && std::mem::replace(seen, true)
            {
                return Err(duplicate(field));
            }
            fields.counter.has_tools |= matches!(key, "tools" | "functions");
            fields.counter.shaper.on = !matches!(key, "tools" | "functions");
            let start = fields.counter.begin(key);
            let walked = map.next_value_seed(Walk::new(&mut fields.counter))?;
            fields.counter.end(key, start);
            if fields.counter.shaper.on {
                fields.counter.shaper.add(key, walked.hash);
            }
        }
        Ok(())
    }
}

/// A key, borrowed unless it has escapes.
struct KeyText<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for KeyText<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = KeyText<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(KeyText(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(KeyText(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(V)
    }
}

/// Text entries of an object, in order; entries of other types are left out.
struct TextEntries<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'de> Deserialize<'de> for TextEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = TextEntries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<KeyText<'de>>()? {
                    let value: &'de RawValue = map.next_value()?;
                    if let Ok(text) = serde_json::from_str::<KeyText<'de>>(value.get()) {
                        entries.push((key.0, text.0));
                    }
                }
                Ok(TextEntries(entries))
            }
        }
        deserializer.deserialize_map(V)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamOptions<'a> {
    #[serde(borrow, deserialize_with = "even_null")]
    include_usage: Option<&'a RawValue>,
}

/// `Option` would take `null` for absence, and a second `include_usage` would be inserted beside it.
fn even_null<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SearchOptions<'a> {
    #[serde(borrow)]
    search_context_size: Option<Cow<'a, str>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct CacheOptions<'a> {
    #[serde(borrow)]
    ttl: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// The raw value of a setting, `None` also for `null`.
    fn raw(&self, field: &str) -> Option<&'a RawValue> {
        self.even_null(field).filter(|raw| raw.get() != "null")
    }

    fn even_null(&self, field: &str) -> Option<&'a RawValue> {
        let mut slots = SETTINGS.iter().zip(&self.settings);
        slots.find(|(name, _)| **name == field).and_then(|(_, slot)| *slot)
    }

    fn get<T: Deserialize<'a>>(
        &self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<Option<T>, BodyError> {
        let Some(raw) = self.raw(field) else { return Ok(None) };
        let value = serde_json::from_str(raw.get());
        value.map(Some).map_err(|_| BodyError::WrongType { field, expected })
    }

    fn text(&self, field: &'static str) -> Result<Option<Cow<'a, str>>, BodyError> {
        Ok(self.get::<KeyText<'a>>(field, TEXT)?.map(|text| text.0))
    }

    fn into_body(self, endpoint: Endpoint, text: &'a str) -> Result<Body<'a>, BodyError> {
        let at = |raw: &RawValue| position(text, raw.get());
        let model = match self.even_null("model") {
            Some(_) => self.text("model")?.filter(|model| !model.is_empty()),
            None => None,
        };
        let model = model.ok_or(BodyError::MissingModel)?;

        let mut spots = Spots {
            open: text.find('{').map_or(0, |brace| brace.saturating_add(1)),
            ..Spots::default()
        };
        spots.model = self.raw("model").map(at).unwrap_or_default();
        let mut max_output_tokens = None;
        for &field in max_output_fields(endpoint) {
            let value = self.get::<u64>(field, COUNT)?;
            max_output_tokens = max_output_tokens.max(value);
            if let Some(raw) = self.even_null(field) {
                spots.max_output.push((at(raw), value));
            }
        }
        let include_usage = self.read_stream_options(text, &mut spots)?;
        let search: Option<SearchOptions<'_>> = self.get("web_search_options", OBJECT)?;
        let metadata =
            self.get::<TextEntries<'_>>("metadata", OBJECT)?.map(|m| m.0).unwrap_or_default();
        let user = match self.text("user")? {
            Some(user) => Some(user),
            None => metadata.iter().find(|(key, _)| key == "user_id").map(|(_, id)| id.clone()),
        };
        let n = self.get::<u64>("n", COUNT)?.unwrap_or(1);
        let best_of = self.get::<u64>("best_of", COUNT)?.unwrap_or(1);
        let stored = ["previous_response_id", "conversation"];
        Ok(Body {
            text,
            spots,
            model,
            stream: self.get("stream", BOOL)?.unwrap_or(false),
            include_usage,
            max_output_tokens,
            choices: n.max(best_of).max(1),
            service_tier: self.text("service_tier")?,
            user,
            metadata,
            web_search: search.is_some(),
            search_context_size: search.and_then(|options| options.search_context_size),
            cache_ttl: self.cache_ttl()?,
            images: self.counter.images(),
            unseen_input: self.counter.has_unseen()
                || stored.iter().any(|field| self.raw(field).is_some()),
            counted_input_tokens: self.counter.tokens(),
            parts: self.counter.parts(),
            shape: self.shape(),
        })
    }

    fn shape(self) -> RequestShape {
        let settings = IDENTITY.map(|field| self.raw(field));
        let mut shaper = self.counter.shaper;
        for (field, raw) in IDENTITY.iter().zip(settings) {
            if let Some(raw) = raw {
                shaper.add(field, text_hash(raw.get()));
            }
        }
        shaper.into_shape()
    }

    fn read_stream_options(&self, text: &str, spots: &mut Spots) -> Result<bool, BodyError> {
        let Some(raw) = self.even_null("stream_options") else { return Ok(false) };
        spots.stream_options = Some(position(text, raw.get()));
        let Some(options) = self.raw("stream_options") else { return Ok(false) };
        let wrong =
            |field, expected| move |_: serde_json::Error| BodyError::WrongType { field, expected };
        // An array would fit the struct too, by position.
        if !options.get().starts_with('{') {
            return Err(BodyError::WrongType { field: "stream_options", expected: OBJECT });
        }
        let parsed: StreamOptions<'_> = serde_json::from_str(options.get())
            .map_err(|_| BodyError::Duplicate { field: "stream_options.include_usage" })?;
        spots.stream_options_empty = options.get().trim_start_matches('{').trim_start() == "}";
        let Some(flag) = parsed.include_usage else { return Ok(false) };
        spots.include_usage = Some(position(text, flag.get()));
        let flag: Option<bool> = serde_json::from_str(flag.get())
            .map_err(wrong("stream_options.include_usage", BOOL))?;
        Ok(flag.unwrap_or(false))
    }

    fn cache_ttl(&self) -> Result<Option<CacheTtl>, BodyError> {
        let options: Option<CacheOptions<'_>> = self.get("prompt_cache_options", OBJECT)?;
        let ttl = options.and_then(|options| options.ttl);
        Ok(match ttl.as_deref() {
            Some("12h") => Some(CacheTtl::TwelveHours),
            Some("30m") => Some(CacheTtl::ThirtyMinutes),
            Some(_) | None => self.counter.one_hour_cache.then_some(CacheTtl::OneHour),
        })
    }
}

/// Where a part of `text`, borrowed from it, stands in it.
fn position(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
    start..start.saturating_add(part.len())
}

const fn max_output_fields(endpoint: Endpoint) -> &'static [&'static str] {
    match endpoint {
        Endpoint::ChatCompletions => &["max_tokens", "max_completion_tokens"],
        Endpoint::Responses => &["max_output_tokens"],
        Endpoint::Completions | Endpoint::Messages => &["max_tokens"],
        Endpoint::Embeddings | Endpoint::Moderations | Endpoint::Models | Endpoint::CountTokens => {
            &[]
        }
    }
}
