//! Numbers and texts of an answer: exact, and as a test wants them spoilt.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::quirks::Kind;

/// A JSON number with every digit of its text, or a JSON text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Field {
    Number(Box<RawValue>),
    Text(String),
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) wrong_currency: bool,
    pub(crate) repeated_cursor: bool,
    number_as_text: bool,
    text_as_number: bool,
    missing_amount: bool,
}

impl Shape {
    pub(crate) fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        kinds.fold(Self::default(), |shape, kind| match kind {
            Kind::WrongCurrency => Self { wrong_currency: true, ..shape },
            Kind::RepeatedCursor => Self { repeated_cursor: true, ..shape },
            Kind::NumberAsText => Self { number_as_text: true, ..shape },
            Kind::TextAsNumber => Self { text_as_number: true, ..shape },
            Kind::MissingAmount => Self { missing_amount: true, ..shape },
            Kind::Html | Kind::HalfPage | Kind::Status | Kind::Slow => shape,
        })
    }

    /// A number that is a number in the documents.
    pub(crate) fn number(&self, text: String) -> Field {
        if self.number_as_text { Field::Text(text) } else { number(text) }
    }

    /// A text in the documents, and the number to put in its place.
    pub(crate) fn text(&self, text: String, as_number: String) -> Field {
        if self.text_as_number { number(as_number) } else { Field::Text(text) }
    }

    /// What must be there, unless a test wants the first of them missing.
    pub(crate) fn first(&mut self, field: Field) -> Option<Field> {
        let missing = std::mem::take(&mut self.missing_amount);
        (!missing).then_some(field)
    }
}

fn number(text: String) -> Field {
    RawValue::from_string(text.clone()).map_or(Field::Text(text), Field::Number)
}

/// JSON text of an answer. The answers are plain structures; they cannot fail to be written.
pub(crate) fn text(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).unwrap_or_default()
}
