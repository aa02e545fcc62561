//! The few fields that are read of an answer's JSON, borrowed from it.

use std::borrow::Cow;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

type Raw<'a> = Option<&'a RawValue>;

/// A stream's event or a whole answer: the fields of all dialects, as no two mean different things by one name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Raw<'a>,
    #[serde(borrow)]
    pub(super) id: Raw<'a>,
    #[serde(borrow)]
    pub(super) model: Raw<'a>,
    #[serde(borrow)]
    pub(super) service_tier: Raw<'a>,
    #[serde(borrow)]
    pub(super) usage: Raw<'a>,
    #[serde(borrow)]
    pub(super) choices: Raw<'a>,
    #[serde(borrow)]
    pub(super) delta: Raw<'a>,
    #[serde(borrow)]
    pub(super) error: Raw<'a>,
    #[serde(borrow)]
    pub(super) code: Raw<'a>,
    /// Responses: the answer inside of an event.
    #[serde(borrow)]
    pub(super) response: Raw<'a>,
    /// Anthropic: the answer inside of `message_start`.
    #[serde(borrow)]
    pub(super) message: Raw<'a>,
    #[serde(borrow)]
    pub(super) item: Raw<'a>,
    #[serde(borrow)]
    pub(super) output: Raw<'a>,
    #[serde(borrow)]
    pub(super) x_groq: Raw<'a>,
}

impl<'a> Answer<'a> {
    /// Parses an object, `None` when it is none.
    pub(super) fn parse(json: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// An answer inside of this one.
    pub(super) fn inner(raw: Raw<'a>) -> Option<Self> {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }
}

/// The `finish_reason` of a choice, the `stop_reason` of a delta, the type of an output item.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ending<'a> {
    #[serde(borrow)]
    finish_reason: Raw<'a>,
    #[serde(borrow)]
    stop_reason: Raw<'a>,
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
}

/// A string's text, `None` for anything else and for an empty one.
pub(super) fn text<'a>(raw: Raw<'a>) -> Option<Cow<'a, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let parsed: Option<Text<'a>> = raw.and_then(|raw| serde_json::from_str(raw.get()).ok());
    parsed.map(|text| text.0).filter(|text| !text.is_empty())
}

/// The text of an object, `None` for anything else.
pub(super) fn object<'a>(raw: Raw<'a>) -> Option<&'a str> {
    raw.map(RawValue::get).filter(|json| json.starts_with('{'))
}

/// Whether a list of choices is there and empty.
pub(super) fn is_empty_list(raw: Raw<'_>) -> bool {
    raw.is_some_and(|raw| raw.get().strip_prefix('[').is_some_and(|rest| rest.trim_start() == "]"))
}

/// Whether one of the choices is over.
pub(super) fn has_finish_reason(choices: Raw<'_>) -> bool {
    let choices: Vec<Ending<'_>> =
        choices.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    choices.iter().any(|choice| text(choice.finish_reason).is_some())
}

/// Whether a message's delta says why it stopped.
pub(super) fn has_stop_reason(delta: Raw<'_>) -> bool {
    let delta: Option<Ending<'_>> = delta.and_then(|raw| serde_json::from_str(raw.get()).ok());
    delta.is_some_and(|delta| text(delta.stop_reason).is_some())
}

/// How many of the output's items are web searches.
pub(super) fn web_searches(output: Raw<'_>) -> u64 {
    let items: Vec<Ending<'_>> =
        output.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    let searches =
        items.iter().filter(|item| text(item.kind).as_deref() == Some("web_search_call"));
    u64::try_from(searches.count()).unwrap_or(u64::MAX)
}

/// An error's code: `code`, else `type`. Some providers write numbers.
pub(super) fn error_code(error: &RawValue) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Error<'a> {
        #[serde(borrow)]
        code: Raw<'a>,
        #[serde(borrow, rename = "type")]
        kind: Raw<'a>,
        #[serde(borrow)]
        status: Raw<'a>,
    }
    let error: Error<'_> = serde_json::from_str(error.get()).unwrap_or_default();
    let number = || {
        error.code.map(|raw| raw.get().to_owned()).filter(|code| code != "null" && code.len() < 20)
    };
    text(error.code)
        .or_else(|| text(error.kind))
        .or_else(|| text(error.status))
        .map(Cow::into_owned)
        .or_else(number)
        .unwrap_or_else(|| "error".to_owned())
}

/// Whether the JSON has a key `"usage"` with an object. Inside of a string the quotes would be escaped, so this is no guess.
pub(super) fn may_have_usage(json: &[u8]) -> bool {
    memmem::find_iter(json, b"\"usage\"").any(|at| usage_at(json, at).is_some())
}

/// The last complete usage object in JSON that is torn or too large to be parsed.
pub(super) fn torn_usage(json: &[u8]) -> Option<String> {
    let mut last = None;
    for at in memmem::find_iter(json, b"\"usage\"") {
        let Some(from) = usage_at(json, at) else { continue };
        let mut values = serde_json::Deserializer::from_slice(from).into_iter::<&RawValue>();
        if let Some(Ok(usage)) = values.next() {
            last = Some(usage.get().to_owned());
        }
    }
    last
}

fn usage_at(json: &[u8], at: usize) -> Option<&[u8]> {
    let rest = json.get(at.saturating_add(b"\"usage\"".len())..)?;
    let rest = rest.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    rest.starts_with(b"{").then_some(rest)
}

/// One usage object over another, field by field: what the later one has replaces, what it lacks or calls `null` stays.
pub(super) fn merge(earlier: &str, later: &str) -> String {
    type Fields<'a> = std::collections::BTreeMap<Cow<'a, str>, &'a RawValue>;
    let (Ok(mut fields), Ok(news)) =
        (serde_json::from_str::<Fields<'_>>(earlier), serde_json::from_str::<Fields<'_>>(later))
    else {
        return later.to_owned();
    };
    fields.extend(news.into_iter().filter(|(_, value)| value.get() != "null"));
    serde_json::to_string(&fields).unwrap_or_else(|_| later.to_owned())
}
