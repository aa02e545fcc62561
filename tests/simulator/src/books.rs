//! The simulator's own books: what each credential was billed, request by request. They owe nothing to the gateway.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Day;
use crate::usage::Billed;

/// Entries beyond this are summed up only: the totals stay exact.
const MAX_ENTRIES: usize = 200_000;

/// One request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// When it came, by the simulator's clock.
    pub(crate) at: String,
    pub(crate) day: Day,
    pub(crate) credential: String,
    pub(crate) flavour: String,
    pub(crate) endpoint: String,
    pub(crate) model: String,
    /// The service tier, where a test asked for one.
    pub(crate) tier: Option<String>,
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

/// What a provider's bill tells apart, and whether it was used outside of the gateway, which no provider knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub(crate) struct Account {
    pub(crate) day: Day,
    pub(crate) flavour: String,
    pub(crate) credential: String,
    pub(crate) embeddings: bool,
    pub(crate) model: String,
    pub(crate) tier: Option<String>,
    pub(crate) leaked: bool,
}

/// What was used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Used {
    pub(crate) requests: u64,
    pub(crate) billed: Billed,
}

/// A line of the file that books are kept in.
#[derive(Deserialize, Serialize)]
struct Line {
    account: Account,
    used: Used,
}

/// All of it.
#[derive(Default)]
pub(crate) struct Books {
    entries: Vec<Entry>,
    totals: BTreeMap<(String, String), Total>,
    used: BTreeMap<Account, Used>,
    count: u64,
    file: Option<File>,
}

impl Books {
    /// Books that go on from a file: what the bills are made from is in it, line by line. A last line that was cut off is
    /// dropped.
    pub(crate) fn kept_in(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut books = Self::default();
        let mut whole = 0;
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Line { account, used } = serde_json::from_str(line).map_err(|e| {
                Error::new(ErrorKind::InvalidData, format!("{}: {e}", path.display()))
            })?;
            books.add(account, used);
            whole += line.len();
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
        books.file = Some(file);
        Ok(books)
    }

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
        // Refusals and free endpoints are on no bill.
        if billed != Billed::default() {
            let account = Account {
                day: entry.day,
                flavour: entry.flavour.clone(),
                credential: entry.credential.clone(),
                embeddings: entry.endpoint == "embeddings",
                model: entry.model.clone(),
                tier: entry.tier.clone(),
                leaked: false,
            };
            self.add(account, Used { requests: 1, billed });
        }
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push(entry);
        }
    }

    /// Adds to what the bills are made from.
    pub(crate) fn add(&mut self, account: Account, more: Used) {
        if let Some(file) = &mut self.file {
            let line = Line { account: account.clone(), used: more };
            let written = serde_json::to_string(&line).map_err(Error::from);
            if let Err(error) =
                written.and_then(|line| file.write_all(format!("{line}\n").as_bytes()))
            {
                eprintln!("simulator: its books were not written down: {error}");
            }
        }
        let used = self.used.entry(account).or_default();
        used.requests += more.requests;
        used.billed = used.billed.plus(more.billed);
    }

    /// What the bills are made from.
    pub(crate) fn used(&self) -> impl Iterator<Item = (&Account, &Used)> {
        self.used.iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry {
            id: format!("sim_{number}"),
            at: "2026-11-20T10:00:00Z".to_owned(),
            day: Day::parse("2026-11-20").unwrap(),
            credential: "sk-sim-1".to_owned(),
            flavour: "openai".to_owned(),
            endpoint: "chat/completions".to_owned(),
            model: "gpt-6-luna".to_owned(),
            tier: None,
            status: "completed",
            http_status: 200,
            stream: false,
            chunks_sent: 0,
            billed: Billed { input: number, output: 1, ..Billed::default() },
            gateway_request_id: None,
            body_sha256: String::new(),
        }
    }

    #[test]
    fn books_go_on_from_their_file_without_a_line_that_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.ndjson");
        let mut books = Books::kept_in(&path).unwrap();
        for number in 1..4 {
            books.enter(entry(number));
        }
        let used =
            |books: &Books| books.used().map(|(it, used)| (it.clone(), *used)).collect::<Vec<_>>();
        let mut text = std::fs::read_to_string(&path).unwrap();
        text.push_str("{\"account\":");
        std::fs::write(&path, text).unwrap();
        let mut again = Books::kept_in(&path).unwrap();
        assert_eq!((used(&again), again.used().count()), (used(&books), 1));
        again.enter(entry(4));
        let requests = used(&Books::kept_in(&path).unwrap())[0].1.requests;
        assert_eq!((requests, used(&again)[0].1.requests), (4, 4));
        std::fs::write(&path, "no books\n").unwrap();
        assert!(Books::kept_in(&path).err().unwrap().to_string().contains("books.ndjson"));
    }

    #[test]
    fn bills_are_made_from_totals_that_go_on_when_entries_stop() {
        let mut books = Books::default();
        let count = u64::try_from(MAX_ENTRIES).unwrap() + 10;
        for number in 0..count {
            books.enter(entry(number));
        }
        let refused = Entry { billed: Billed::default(), http_status: 500, ..entry(0) };
        books.enter(refused);
        assert_eq!(books.entries.len(), MAX_ENTRIES);
        let used: Vec<Used> = books.used().map(|(_, used)| *used).collect();
        let billed = Billed { input: count * (count - 1) / 2, output: count, ..Billed::default() };
        assert_eq!(used, [Used { requests: count, billed }]);
    }
}
