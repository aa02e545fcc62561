//! Refusals on their way into the books: they wait for a commit that happens anyway, and a flood of them is sampled.

use std::collections::BTreeMap;

use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::time::Timestamp;

/// Refusals a minute that are recorded one by one; beyond, one record stands for many.
const REFUSALS_PER_MINUTE: u64 = 60;

/// Refusals wait here for the next commit: a flood of them must not cost a disk write each.
#[derive(Default)]
pub(super) struct Refusals {
    minute: i64,
    recorded: u64,
    waiting: Vec<UsageEvent>,
    /// Beyond the limit: one event for each code, counting up.
    sampled: BTreeMap<String, UsageEvent>,
}

impl Refusals {
    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.sampled.is_empty()
    }

    /// Takes a refusal in.
    pub(super) fn note(&mut self, event: UsageEvent, now: Timestamp) {
        let minute = now.seconds().div_euclid(60);
        if minute != self.minute {
            (self.minute, self.recorded) = (minute, 0);
        }
        self.recorded += 1;
        if self.recorded <= REFUSALS_PER_MINUTE {
            self.waiting.push(event);
            return;
        }
        let code = event.code.clone().unwrap_or_default();
        match self.sampled.get_mut(&code) {
            Some(first) => first.sampled = first.sampled.saturating_add(1),
            None => {
                self.sampled.insert(code, event);
            }
        }
    }

    /// Hands over what waits.
    pub(super) fn take(&mut self) -> Vec<UsageEvent> {
        let mut events = std::mem::take(&mut self.waiting);
        events.extend(std::mem::take(&mut self.sampled).into_values());
        events
    }
}
