//! What prompts look like in the Ledger, never what they say: sums by shape, and how a session's requests grow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallygate_shared::events::decision::PromptParts;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::money::Usd;
use tallygate_shared::tokens::Tokens;

use super::ledger_object::{Filter, LedgerObject};
use super::ledger_performance::body;
use super::sql::{Sql, SqlError, text};

/// Sessions in one answer.
const MAX_SESSIONS: u64 = 1_000;
/// Requests of one session in one answer: 5,000 x about 300 bytes.
pub const MAX_TURNS: u64 = 5_000;
/// Bounds of the bands of input, in tokens: powers of four.
const BANDS: [u64; 5] = [1_024, 4_096, 16_384, 65_536, 262_144];
const BAND_NAMES: [&str; 6] =
    ["under 1k", "1k to 4k", "4k to 16k", "16k to 64k", "64k to 256k", "over 256k"];
/// What the largest part is called; `last` is the last message.
const PART_NAMES: [(&str, &str); 5] = [
    ("system", "mostly instructions"),
    ("tools", "mostly tools"),
    ("history", "mostly history"),
    ("last", "mostly the last message"),
    ("other", "mostly images or other"),
];

/// What prompts are grouped by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShapeKey {
    pub(super) feature: String,
    pub(super) model: String,
    pub(super) shape: String,
}

impl ShapeKey {
    /// The group of a request that reached a model.
    pub(super) fn of(event: &UsageEvent) -> Option<Self> {
        let tokens = event.usage.tally()?.tokens;
        let input = tokens.input_total();
        let band = BANDS.partition_point(|bound| *bound <= input);
        let band = BAND_NAMES.get(band)?;
        let parts = event.decided.as_ref().and_then(|decided| decided.asked.parts);
        let kind = match parts {
            Some(parts) => {
                let largest = parts.largest();
                PART_NAMES.iter().find(|(part, _)| *part == largest)?.1.to_owned()
            }
            None => ratio_band(input, tokens.output_total()).to_owned(),
        };
        Some(Self {
            feature: event.actor.feature.clone().unwrap_or_default(),
            model: event.model.clone()?,
            shape: format!("{kind}, {band}"),
        })
    }
}

/// Input to output, where the parts of the input are not known.
fn ratio_band(input: u64, output: u64) -> &'static str {
    match input.checked_div(output) {
        None => "no output",
        Some(0) => "more output than input",
        Some(1..=4) => "input 1 to 5 times output",
        Some(5..=19) => "input 5 to 20 times output",
        Some(_) => "input over 20 times output",
    }
}

/// The sums of a shape.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptSums {
    /// Requests.
    pub requests: u64,
    /// Tokens as the provider counts them.
    pub tokens: Tokens,
    /// The parts of their input, by the gateway's estimate; of those requests of which they are known.
    pub parts: PromptParts,
    /// What was charged.
    pub charged: Usd,
}

impl PromptSums {
    /// Takes a request in.
    pub fn observe(&mut self, event: &UsageEvent) {
        self.requests = self.requests.saturating_add(1);
        if let Some(tally) = event.usage.tally() {
            self.tokens.add(&tally.tokens);
        }
        if let Some(parts) = event.decided.as_ref().and_then(|decided| decided.asked.parts) {
            self.parts.add(&parts);
        }
        self.charged = self.charged.saturating_add(event.charged);
    }

    /// Adds other sums.
    pub fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.tokens.add(&other.tokens);
        self.parts.add(&other.parts);
        self.charged = self.charged.saturating_add(other.charged);
    }
}

/// A shape's row as it crosses to where answers are merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShapeRow {
    /// The feature; empty for none.
    pub feature: String,
    /// The model.
    pub model: String,
    /// What the prompts look like.
    pub shape: String,
    /// Their sums.
    pub sums: PromptSums,
}

/// A session's requests of one month, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conversation {
    /// When its first request was.
    pub first_ms: i64,
    /// When its last one was.
    pub last_ms: i64,
    /// Requests that used tokens.
    pub requests: u64,
    /// Input tokens of the first.
    pub first_input: u64,
    /// Input tokens of the last.
    pub last_input: u64,
    /// The most of any.
    pub largest_input: u64,
    /// Input tokens of all.
    pub input_tokens: u64,
    /// Those of them that came from a cache.
    pub cached_tokens: u64,
    /// Output tokens of all.
    pub output_tokens: u64,
    /// What was charged.
    pub charged: Usd,
    /// The agent that said so last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent: String,
    /// The feature likewise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub feature: String,
}

impl Conversation {
    /// Takes a request in.
    pub fn observe(&mut self, event: &UsageEvent) {
        let Some(tally) = event.usage.tally() else { return };
        let input = tally.tokens.input_total();
        let named = |name: &Option<String>| name.clone().unwrap_or_default();
        self.add(&Self {
            first_ms: event.at.ms(),
            last_ms: event.at.ms(),
            requests: 1,
            first_input: input,
            last_input: input,
            largest_input: input,
            input_tokens: input,
            cached_tokens: tally.tokens.cache_read_total(),
            output_tokens: tally.tokens.output_total(),
            charged: event.charged,
            agent: named(&event.actor.agent),
            feature: named(&event.actor.feature),
        });
    }

    /// Adds other requests of the same session, wherever they stand in it.
    pub fn add(&mut self, other: &Self) {
        if other.requests == 0 {
            return;
        }
        if self.requests == 0 {
            self.clone_from(other);
            return;
        }
        if other.first_ms < self.first_ms {
            (self.first_ms, self.first_input) = (other.first_ms, other.first_input);
        }
        if other.last_ms >= self.last_ms {
            (self.last_ms, self.last_input) = (other.last_ms, other.last_input);
            (self.agent, self.feature) = (other.agent.clone(), other.feature.clone());
        }
        self.largest_input = self.largest_input.max(other.largest_input);
        for (mine, theirs) in [
            (&mut self.requests, other.requests),
            (&mut self.input_tokens, other.input_tokens),
            (&mut self.cached_tokens, other.cached_tokens),
            (&mut self.output_tokens, other.output_tokens),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.charged = self.charged.saturating_add(other.charged);
    }

    /// Input tokens that the last request has more than the first.
    pub fn growth(&self) -> i64 {
        let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
        signed(self.last_input).saturating_sub(signed(self.first_input))
    }
}

/// A session's row as it crosses to where answers are merged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConversationRow {
    /// Its name.
    pub session: String,
    /// The gateway key.
    pub key: String,
    /// Its sums.
    pub sums: Conversation,
}

/// A question about shapes or sessions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptsQuery {
    /// From this moment on: midnight for shapes.
    pub from_ms: Option<i64>,
    /// Before this moment.
    pub to_ms: Option<i64>,
    /// How sessions are sorted: `charged`, `growth`, `requests` or `last`.
    pub sort: String,
    /// How many sessions.
    pub limit: u64,
    /// Only these: of `feature` and `model`, or of `session` and `key`.
    pub filters: BTreeMap<String, String>,
}

impl<S: Sql> LedgerObject<S> {
    /// Prompts by feature, model and shape.
    pub(super) fn shapes(&self, query: &PromptsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.span("day_ms", query.from_ms, query.to_ms);
        for name in ["feature", "model", "shape"] {
            if let Some(value) = query.filters.get(name) {
                filter.add(&format!("{name} = ?"), value);
            }
        }
        let select =
            format!("SELECT feature, model, shape, body FROM prompt_shapes {}", filter.clause());
        let mut groups: BTreeMap<[String; 3], PromptSums> = BTreeMap::new();
        for row in self.exec(&select, &filter.params())? {
            let key = [text(&row, 0)?, text(&row, 1)?, text(&row, 2)?].map(str::to_owned);
            groups.entry(key).or_default().add(&body(&row, 3)?);
        }
        let row = |([feature, model, shape], sums): ([String; 3], PromptSums)| ShapeRow {
            feature,
            model,
            shape,
            sums,
        };
        let data: Vec<ShapeRow> = groups.into_iter().map(row).collect();
        Ok(json!({ "data": data, "measured_after": self.measured_after()? }))
    }

    /// Sessions, the largest by what they are sorted by. Each month gives its own largest.
    pub(super) fn conversations(&self, query: &PromptsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.span("last_ms", query.from_ms, query.to_ms);
        for name in ["session", "key"] {
            if let Some(value) = query.filters.get(name) {
                filter.add(&format!("{name} = ?"), value);
            }
        }
        let column = match query.sort.as_str() {
            "growth" => "growth",
            "requests" => "requests",
            "last" => "last_ms",
            _ => "charged_nanos",
        };
        let limit = query.limit.clamp(1, MAX_SESSIONS);
        let select = format!(
            "SELECT session, key, body FROM conversations {}
             ORDER BY {column} DESC, session, key LIMIT {limit}",
            filter.clause()
        );
        let rows = self.exec(&select, &filter.params())?;
        let data = rows.iter().map(|row| {
            let (session, key) = (text(row, 0)?.to_owned(), text(row, 1)?.to_owned());
            Ok(ConversationRow { session, key, sums: body(row, 2)? })
        });
        let data = data.collect::<Result<Vec<_>, SqlError>>()?;
        Ok(json!({ "data": data, "measured_after": self.measured_after()? }))
    }

    /// The requests of one session in a span of time, in order, at most [`MAX_TURNS`] and one more.
    pub(super) fn turns(&self, query: &PromptsQuery) -> Result<Value, SqlError> {
        let mut filter = Filter::default();
        filter.ids(query.from_ms, query.to_ms);
        filter.span("at_ms", query.from_ms, query.to_ms);
        for name in ["session", "key"] {
            if let Some(value) = query.filters.get(name) {
                filter.add(&format!("{name} = ?"), value);
            }
        }
        let select = format!(
            "SELECT body FROM events {} ORDER BY id LIMIT {}",
            filter.clause(),
            MAX_TURNS + 1
        );
        let rows = self.exec(&select, &filter.params())?;
        let data = rows.iter().map(|row| {
            let event: UsageEvent = body(row, 0)?;
            let tokens = event.usage.tally().map(|tally| tally.tokens).unwrap_or_default();
            let parts = event.decided.as_ref().and_then(|decided| decided.asked.parts);
            Ok(json!({
                "id": event.id, "at": event.at.to_string(), "key": event.key, "model": event.model,
                "outcome": event.outcome, "code": event.code,
                "input_tokens": tokens.input_total(), "cached_tokens": tokens.cache_read_total(),
                "output_tokens": tokens.output_total(), "charged_usd": event.charged, "parts": parts,
            }))
        });
        Ok(json!({ "data": data.collect::<Result<Vec<_>, SqlError>>()? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(at: i64, input: u64) -> Conversation {
        Conversation {
            first_ms: at,
            last_ms: at,
            requests: 1,
            first_input: input,
            last_input: input,
            largest_input: input,
            input_tokens: input,
            charged: Usd::from_nanos(1),
            ..Conversation::default()
        }
    }

    #[test]
    fn a_session_is_the_same_in_whatever_order_its_requests_come() {
        let turns = [turn(3, 900), turn(1, 100), turn(2, 5_000)];
        let mut forwards = Conversation::default();
        turns.iter().for_each(|turn| forwards.add(turn));
        let mut backwards = Conversation::default();
        turns.iter().rev().for_each(|turn| backwards.add(turn));
        assert_eq!(forwards, backwards);
        assert_eq!((forwards.first_ms, forwards.last_ms, forwards.growth()), (1, 3, 800));
        assert_eq!((forwards.largest_input, forwards.requests), (5_000, 3));
    }

    #[test]
    fn ratios_have_bands() {
        assert_eq!(ratio_band(5, 0), "no output");
        assert_eq!(ratio_band(1, 2), "more output than input");
        assert_eq!(ratio_band(8, 2), "input 1 to 5 times output");
        assert_eq!(ratio_band(10, 2), "input 5 to 20 times output");
        assert_eq!(ratio_band(40, 2), "input over 20 times output");
    }
}
