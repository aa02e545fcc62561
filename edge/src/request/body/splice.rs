//! Changes to a body, by replacing exactly the bytes of a value or inserting a field. Nothing is re-serialised.

use std::borrow::Cow;
use std::ops::Range;

use super::Body;

/// The changes that the gateway makes to a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edits<'e> {
    /// The model to ask for instead.
    pub model: Option<&'e str>,
    /// The name of the output limit to insert when the body has none, and the limit. A limit in the body that is larger is
    /// lowered to it; one that is smaller stays.
    pub max_output: Option<(&'e str, u64)>,
    /// Ask for usage in the stream.
    pub include_usage: bool,
}

pub(super) fn apply<'a>(body: &Body<'a>, edits: &Edits<'_>) -> Cow<'a, [u8]> {
    let spots = &body.spots;
    let mut splices: Vec<(Range<usize>, String)> = Vec::new();
    let mut inserted = String::new();

    if let Some(model) = edits.model.filter(|model| *model != body.model) {
        splices.push((spots.model.clone(), quoted(model)));
    }
    if let Some((field, limit)) = edits.max_output {
        if spots.max_output.is_empty() {
            inserted.push_str(&format!("{}:{limit},", quoted(field)));
        }
        for (range, value) in &spots.max_output {
            if value.is_none_or(|value| value > limit) {
                splices.push((range.clone(), limit.to_string()));
            }
        }
    }
    if edits.include_usage && !body.include_usage {
        match (&spots.stream_options, &spots.include_usage) {
            (_, Some(flag)) => splices.push((flag.clone(), "true".into())),
            (Some(options), None) if body.text.get(options.clone()) == Some("null") => {
                splices.push((options.clone(), r#"{"include_usage":true}"#.into()));
            }
            (Some(options), None) => {
                let inside = options.start.saturating_add(1);
                let comma = if spots.stream_options_empty { "" } else { "," };
                splices.push((inside..inside, format!("\"include_usage\":true{comma}")));
            }
            (None, None) => inserted.push_str(r#""stream_options":{"include_usage":true},"#),
        }
    }
    if !inserted.is_empty() {
        // The object has a model, so a comma can follow what is put first.
        splices.push((spots.open..spots.open, inserted));
    }
    if splices.is_empty() {
        return Cow::Borrowed(body.text.as_bytes());
    }
    splices.sort_by_key(|(range, _)| range.start);
    Cow::Owned(splice(body.text, &splices).into_bytes())
}

fn splice(text: &str, splices: &[(Range<usize>, String)]) -> String {
    let added: usize = splices.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len().saturating_add(added));
    let mut at = 0;
    for (range, new) in splices {
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(new);
        at = range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
