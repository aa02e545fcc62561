//! The simulator's own books: what each credential was billed, request by request. They owe nothing to the gateway.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::usage::Billed;

/// Entries beyond this are summed up only: the totals stay exact.
const MAX_ENTRIES: usize = 200_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) credential: String,
    pub(crate) flavour: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    /// `in_flight`, `completed`, `client_gone`, `died`, `stalled` or `error`.
    pub(crate) status: &'static str,
    pub(crate) http_status: u16,
    pub(crate) stream: bool,
    pub(crate) chunks_sent: u64,
    pub(crate) billed: Billed,
    pub(crate) gateway_request_id: Option<String>,
    pub(crate) body_sha256: String,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Total {
    requests: u64,
    input: u64,
    cache_read: u64,
    cache_write: u64,
    output: u64,
    cost_nanodollars: u64,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Books {
    entries: Vec<Entry>,
    totals: BTreeMap<(String, String), Total>,
    count: u64,
}

impl Books {
    /// The place of the next entry.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// Enters a request that is over.
    pub(crate) fn enter(&mut self, entry: Entry) {
        let total = self.totals.entry((entry.credential.clone(), entry.model.clone())).or_default();
        let billed = entry.billed;
        total.requests += 1;
        total.input += billed.input;
        total.cache_read += billed.cache_read;
        total.cache_write += billed.cache_write_5m + billed.cache_write_1h;
        total.output += billed.output;
        total.cost_nanodollars += billed.nanos(&entry.model);
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        }
    }

    /// Totals by credential and model, and the entries.
    pub(crate) fn show(&self, credential: Option<&str>, limit: usize) -> Value {
        let wanted = |of: &str| credential.is_none_or(|wanted| wanted == of);
        let totals: Vec<Value> = self
            .totals
            .iter()
            .filter(|((of, _), _)| wanted(of))
            .map(|((credential, model), total)| json!({ "credential": credential, "model": model, "total": total }))
            .collect();
        let sum: u64 = self
            .totals
            .iter()
            .filter(|((of, _), _)| wanted(of))
            .map(|(_, total)| total.cost_nanodollars)
            .sum();
        let entries: Vec<&Entry> = self
            .entries
            .iter()
            .rev()
            .filter(|entry| wanted(&entry.credential))
            .take(limit)
            .collect();
        json!({ "totals": totals, "cost_nanodollars": sum, "entries": entries })
    }
}
