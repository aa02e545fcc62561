//! What an answer is billed, and how each flavour of provider reports it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::control::Sim;

/// Tokens in disjoint buckets, as the books keep them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Billed {
    pub(crate) input: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_write_5m: u64,
    pub(crate) cache_write_1h: u64,
    /// Reasoning included.
    pub(crate) output: u64,
    pub(crate) reasoning: u64,
}

impl Billed {
    /// The sum.
    pub(crate) fn plus(self, more: Self) -> Self {
        Self {
            input: self.input + more.input,
            cache_read: self.cache_read + more.cache_read,
            cache_write_5m: self.cache_write_5m + more.cache_write_5m,
            cache_write_1h: self.cache_write_1h + more.cache_write_1h,
            output: self.output + more.output,
            reasoning: self.reasoning + more.reasoning,
        }
    }

    fn prompt(self) -> u64 {
        self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h
    }

    /// As OpenAI's chat reports it, in the flavour's own way.
    pub(crate) fn chat(self, flavour: &str, sim: &Sim) -> Value {
        if let Some(odd) = odd(sim, "prompt_tokens", "completion_tokens") {
            return odd;
        }
        let (prompt, output, reasoning) = (self.prompt(), self.output, self.reasoning);
        // xAI counts reasoning outside of the completion.
        let completion = if flavour == "xai" { output - reasoning } else { output };
        let mut usage = json!({
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + output,
            "prompt_tokens_details": { "cached_tokens": self.cache_read },
            "completion_tokens_details": { "reasoning_tokens": reasoning },
        });
        let mut add = |name: &str, value: Value| {
            if let Some(fields) = usage.as_object_mut() {
                fields.insert(name.to_owned(), value);
            }
        };
        match flavour {
            "deepseek" => {
                add("prompt_cache_hit_tokens", self.cache_read.into());
                add("prompt_cache_miss_tokens", (prompt - self.cache_read).into());
            }
            "xai" => add("cost_in_usd_ticks", (self.nanos("grok") * 10).into()),
            "openrouter" => add("cost", dollars(self.nanos("openrouter"))),
            "perplexity" => {
                add("cost", json!({ "total_cost": dollars(self.nanos("perplexity") + 5_000_000) }))
            }
            _ => {}
        }
        if self.cache_write_5m > 0
            && let Some(details) =
                usage.get_mut("prompt_tokens_details").and_then(Value::as_object_mut)
        {
            details.insert("cache_write_tokens".to_owned(), self.cache_write_5m.into());
        }
        usage
    }

    /// As OpenAI's Responses report it.
    pub(crate) fn responses(self, sim: &Sim) -> Value {
        odd(sim, "input_tokens", "output_tokens").unwrap_or_else(|| {
            let prompt = self.prompt();
            json!({
                "input_tokens": prompt, "output_tokens": self.output, "total_tokens": prompt + self.output,
                "input_tokens_details": { "cached_tokens": self.cache_read },
                "output_tokens_details": { "reasoning_tokens": self.reasoning },
            })
        })
    }

    /// As Anthropic reports it: cache reads and writes are not in `input_tokens`.
    pub(crate) fn messages(self, sim: &Sim) -> Value {
        odd(sim, "input_tokens", "output_tokens").unwrap_or_else(|| {
            json!({
                "input_tokens": self.input,
                "cache_read_input_tokens": self.cache_read,
                "cache_creation_input_tokens": self.cache_write_5m + self.cache_write_1h,
                "cache_creation": { "ephemeral_5m_input_tokens": self.cache_write_5m,
                                    "ephemeral_1h_input_tokens": self.cache_write_1h },
                "output_tokens": self.output,
                "service_tier": sim.service_tier.as_deref().unwrap_or("standard"),
            })
        })
    }

    /// What it costs, in nanodollars, by a table of its own: each component is rounded half to even.
    pub(crate) fn nanos(self, model: &str) -> u64 {
        let [input, cache_read, write_5m, write_1h, output] = prices(model);
        let components = [
            u128::from(self.input) * input,
            u128::from(self.cache_read) * cache_read,
            u128::from(self.cache_write_5m) * write_5m + u128::from(self.cache_write_1h) * write_1h,
            u128::from(self.output - self.reasoning) * output,
            u128::from(self.reasoning) * output,
        ];
        components.into_iter().map(half_even).sum()
    }
}

/// As [`prices`], where the flavour reports a price of its own with each answer.
pub(crate) fn flavour_prices(flavour: &str, model: &str) -> [u128; 5] {
    match flavour {
        "xai" => prices("grok"),
        "openrouter" | "perplexity" => prices(flavour),
        _ => prices(model),
    }
}

/// Picodollars a request, beside its tokens.
pub(crate) fn request_price(flavour: &str) -> u128 {
    if flavour == "perplexity" { 5_000_000_000 } else { 0 }
}

/// Picodollars a token: input, cache read, cache writes of 5 minutes (30 at OpenAI) and 1 hour, output.
fn prices(model: &str) -> [u128; 5] {
    match model {
        m if m.starts_with("gpt-6-luna") => [100_000, 10_000, 125_000, 0, 500_000],
        m if m.starts_with("gpt-6-sol") => [2_000_000, 200_000, 2_500_000, 0, 10_000_000],
        m if m.starts_with("gpt-5.4-mini") => [750_000, 75_000, 750_000, 0, 4_500_000],
        m if m.starts_with("claude-haiku-4-5") => {
            [1_000_000, 100_000, 1_250_000, 2_000_000, 5_000_000]
        }
        m if m.starts_with("claude-sonnet-5-5") => {
            [2_000_000, 100_000, 2_500_000, 4_000_000, 10_000_000]
        }
        m if m.starts_with("text-embedding-3-small") => [20_000, 0, 0, 0, 0],
        "grok" => [2_000_000, 500_000, 0, 0, 6_000_000],
        "perplexity" => [1_000_000, 0, 0, 0, 1_000_000],
        "openrouter" => [3_000_000, 300_000, 0, 0, 15_000_000],
        _ => [0; 5],
    }
}

fn half_even(pico: u128) -> u64 {
    let (nanos, rest) = (pico / 1_000, pico % 1_000);
    let up = rest > 500 || (rest == 500 && nanos % 2 == 1);
    u64::try_from(nanos + u128::from(up)).unwrap_or(u64::MAX)
}

/// Nanodollars as a JSON number of dollars, written out in full.
fn dollars(nanos: u64) -> Value {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// A usage report that is not right, where a test wants one.
fn odd(sim: &Sim, input: &str, output: &str) -> Option<Value> {
    let counts = |input_count: Value, output_count: Value| json!({ input: input_count, output: output_count });
    match sim.usage.as_deref()? {
        "absent" => Some(Value::Null),
        "garbage" => Some(json!("a lot")),
        "negative" => Some(counts((-5).into(), (-7).into())),
        "absurd" => Some(counts(9_007_199_254_740_993_u64.into(), u64::MAX.into())),
        "zero" => Some(counts(0.into(), 0.into())),
        _ => None,
    }
}
