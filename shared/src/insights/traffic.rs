//! Traffic added up: how many requests, which tokens, which money. What every insight is made from.

use serde::{Deserialize, Serialize};

use crate::money::Usd;

/// What some requests used and cost. Requests that used nothing (refused ones) are not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Requests.
    pub requests: u64,
    /// Those that were streamed: somebody reads along.
    pub streamed: u64,
    /// Those that belong to a session.
    pub turns: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Hours of the span with a request; 0 in a weekly review, which does not ask for them.
    pub hours: u64,
    /// Input at the full price.
    pub input: u64,
    /// Input read from a cache.
    pub cache_read: u64,
    /// Input written to a cache.
    pub cache_write: u64,
    /// Output, reasoning included.
    pub output: u64,
    /// Input that the session's turn before had sent too, and that came from no cache.
    pub resent: u64,
    /// The longest input of a request.
    pub longest_input: u64,
    /// The shortest input of a request; `None` where that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortest_input: Option<u64>,
    /// What input cost.
    pub input_usd: Usd,
    /// What reading from the cache cost.
    pub cache_read_usd: Usd,
    /// What writing to the cache cost.
    pub cache_write_usd: Usd,
    /// What output cost.
    pub output_usd: Usd,
    /// What the requests were charged in all.
    pub charged: Usd,
}

impl Traffic {
    /// Adds more traffic to this; `None` when a sum does not fit.
    pub fn add(&mut self, more: &Self) -> Option<()> {
        for (sum, part) in [
            (&mut self.requests, more.requests),
            (&mut self.streamed, more.streamed),
            (&mut self.turns, more.turns),
            (&mut self.sessions, more.sessions),
            (&mut self.hours, more.hours),
            (&mut self.input, more.input),
            (&mut self.cache_read, more.cache_read),
            (&mut self.cache_write, more.cache_write),
            (&mut self.output, more.output),
            (&mut self.resent, more.resent),
        ] {
            *sum = sum.checked_add(part)?;
        }
        for (sum, part) in [
            (&mut self.input_usd, more.input_usd),
            (&mut self.cache_read_usd, more.cache_read_usd),
            (&mut self.cache_write_usd, more.cache_write_usd),
            (&mut self.output_usd, more.output_usd),
            (&mut self.charged, more.charged),
        ] {
            *sum = sum.checked_add(part)?;
        }
        self.longest_input = self.longest_input.max(more.longest_input);
        let shortest = [self.shortest_input, more.shortest_input];
        self.shortest_input = shortest.into_iter().flatten().min();
        Some(())
    }

    /// All input.
    pub fn input_total(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.input_total().saturating_add(self.output)
    }

    /// Sessions; a request of none is one by itself.
    pub fn conversations(&self) -> u64 {
        self.sessions.saturating_add(self.requests.saturating_sub(self.turns))
    }

    /// What was charged beyond the four kinds of tokens: calls, other models, and whatever nobody could take apart.
    pub(crate) fn other_pico(&self) -> i128 {
        let parts = [self.input_usd, self.cache_read_usd, self.cache_write_usd, self.output_usd];
        let parts = parts.iter().fold(0_i128, |sum, part| sum.saturating_add(part.pico()));
        self.charged.pico().saturating_sub(parts)
    }
}
