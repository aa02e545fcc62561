//! What one field may hold.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use tallygate_shared::money::parse_decimal;
use tallygate_shared::time::Timestamp;

use super::{Found, Rule};
use crate::focus::cell::{Kind, date_time};
use crate::focus::columns::Version;
use crate::focus::export::Record;

/// A column, without the rows it is read from.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    kind: Kind,
    nullable: bool,
}

impl Spec {
    pub(super) fn all<R: Record>(version: Version) -> Vec<Self> {
        let of = |column: &&crate::focus::cell::Column<R>| Self {
            name: column.name,
            kind: column.kind,
            nullable: column.nullable,
        };
        R::columns(version).iter().map(of).collect()
    }
}

/// Checks each value against its column.
pub(super) fn check(specs: &[Spec], values: &[Option<&str>]) -> Vec<Found> {
    let mut found = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        match values.get(place).copied().flatten() {
            None if spec.nullable => {}
            None => found.push((spec.name, Rule::NotNull, "is null and may not be".to_owned())),
            Some(text) => found.extend(
                wrong(spec.kind, text)
                    .map(|(rule, what)| (spec.name, rule, format!("`{text}` {what}"))),
            ),
        }
    }
    found
}

fn wrong(kind: Kind, text: &str) -> Option<(Rule, &'static str)> {
    match kind {
        Kind::Decimal | Kind::Price => match decimal(text) {
            None => Some((Rule::Decimal, "is no plain decimal number of at most 12 places")),
            Some(pico) if kind == Kind::Price && pico < 0 => {
                Some((Rule::NotNegative, "is a price below zero"))
            }
            Some(_) => None,
        },
        Kind::Text => None,
        Kind::OneOf(allowed) => (!allowed.contains(&text))
            .then_some((Rule::AllowedValue, "is none of the allowed values")),
        Kind::Unit => (!is_unit(text)).then_some((Rule::Unit, "is no unit as FOCUS writes them")),
        Kind::Currency => (text != "USD").then_some((Rule::Currency, "is not USD")),
        Kind::Time => {
            moment(text).is_none().then_some((Rule::DateTime, "is not YYYY-MM-DDTHH:mm:ssZ"))
        }
        Kind::KeyValue => (!key_value(text))
            .then_some((Rule::Json, "is no JSON object of texts, numbers and booleans")),
        Kind::Object => object(text).is_none().then_some((Rule::Json, "is no JSON object")),
    }
}

/// Plain decimal text in units of 1e-12. No sign but a minus, no exponent, no separators.
pub(super) fn decimal(text: &str) -> Option<i128> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-'));
    parse_decimal(text, 12).ok().filter(|_| plain)
}

/// A moment as FOCUS writes it.
pub(super) fn moment(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text).filter(|at| date_time(*at) == text)
}

/// The units of this export, and what FOCUS makes of them: `<plural>` or `<whole quantity> <plural>`.
fn is_unit(text: &str) -> bool {
    let (quantity, unit) = text.split_once(' ').unwrap_or(("1", text));
    quantity.bytes().all(|byte| byte.is_ascii_digit())
        && !quantity.starts_with('0')
        && matches!(unit, "Tokens" | "Requests" | "Seats" | "USD")
}

/// A JSON object with each key once.
pub(super) fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str::<UniqueKeys>(text).ok().map(|object| object.0)
}

/// An object as it is written: `serde_json`'s own keeps the last of two equal keys and says nothing.
struct UniqueKeys(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = UniqueKeys;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<UniqueKeys, A::Error> {
                let mut map = Map::new();
                while let Some((key, value)) = from.next_entry::<String, Value>()? {
                    if map.insert(key, value).is_some() {
                        return Err(de::Error::custom("a key stands twice"));
                    }
                }
                Ok(UniqueKeys(map))
            }
        }
        from.deserialize_map(Keys)
    }
}

fn key_value(text: &str) -> bool {
    object(text).is_some_and(|map| {
        map.values().all(|value| !matches!(value, Value::Array(_) | Value::Object(_)))
    })
}
