//! An export, put together: pages that a Ledger answers, and the archive's parts that have what it let go, merged in the
//! order of the events. The shell asks and reads what [`Export::proceed`] names, and sends what it gives.
//!
//! A page is one moment of its Ledger: an event behind the page's beginning is either in its lines or in one of its
//! parts, never in both, whatever is archived between two pages. A part is read whole and compared with its hash before
//! any of its lines is sent. The closing line counts and hashes what was sent, so that whoever reads it knows that all of
//! it came; an export that fails has none.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::feedback::ExportEnd;
use tallygate_shared::hex::hex;
use tallygate_shared::time::Timestamp;

use super::problem::Problem;
use crate::objects::archive_part::{Part, Place};
use crate::objects::ledger_requests::RequestQuery;
use crate::objects::ledger_true_ups::ExportQuery;

/// What is sent at once, about: merged lines are collected up to here. In tests that is a line or two.
const CHUNK_BYTES: usize = if cfg!(test) { 1_000 } else { 1024 * 1024 };

/// What the shell does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Next {
    /// Ask the Ledger, then [`Export::page`].
    Ask {
        /// The question.
        payload: String,
    },
    /// Read this part, then [`Export::part`].
    Read {
        /// Its name.
        name: String,
    },
    /// Send these lines, and go on.
    Send {
        /// Whole lines.
        lines: String,
    },
    /// Send the closing line: this is the end.
    End {
        /// The closing line.
        line: String,
    },
    /// It cannot be answered. Once lines were sent, break off.
    Fail {
        /// The status of the answer.
        status: u16,
        /// The problem.
        body: String,
    },
}

/// A Ledger's page.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Page {
    lines: String,
    after: Option<String>,
    parts: VecDeque<Part>,
    pruned: bool,
}

/// Where a line belongs.
#[derive(Deserialize)]
struct Head {
    id: String,
    key: String,
    at: Timestamp,
}

struct Line {
    place: Place,
    text: String,
}

/// A page under way: its own lines, and its parts that are not read yet, in the order of their first events.
struct Merge {
    live: VecDeque<Line>,
    unread: VecDeque<Part>,
    until: Option<Place>,
    next: Option<String>,
}

/// One export under way.
pub struct Export {
    question: ExportQuery,
    merge: Option<Merge>,
    /// What is left of parts that were read: parts reach over pages.
    open: BTreeMap<u64, VecDeque<Line>>,
    /// Merged, and not sent yet.
    lines: String,
    hash: Sha256,
    sent: u64,
    /// All pages are here.
    is_last: bool,
    failed: Option<Problem>,
}

impl Export {
    /// Begins with the question of the first page.
    pub fn new(question: ExportQuery) -> Self {
        Self {
            question,
            merge: None,
            open: BTreeMap::new(),
            lines: String::new(),
            hash: Sha256::new(),
            sent: 0,
            is_last: false,
            failed: None,
        }
    }

    /// What to do next.
    pub fn proceed(&mut self) -> Next {
        if let Some(problem) = &self.failed {
            return Next::Fail { status: problem.status, body: problem.to_json() };
        }
        if let Some(name) = self.merged() {
            return Next::Read { name };
        }
        if !self.lines.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.hash.update(lines.as_bytes());
            let count = lines.bytes().filter(|byte| *byte == b'\n').count();
            self.sent = self.sent.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            return Next::Send { lines };
        }
        if self.is_last {
            let sha256 = hex(&self.hash.clone().finalize());
            let end = ExportEnd { end: true, lines: self.sent, sha256 };
            // Plain fields: serialising them cannot fail.
            return Next::End { line: serde_json::to_string(&end).unwrap_or_default() + "\n" };
        }
        Next::Ask { payload: serde_json::to_string(&self.question).unwrap_or_default() }
    }

    /// The Ledger's answer.
    pub fn page(&mut self, answer: &str) {
        let Ok(page) = serde_json::from_str::<Page>(answer) else {
            self.fail(unreadable());
            return;
        };
        if page.pruned {
            self.fail(super::call::export_pruned());
            return;
        }
        let until = page.after.as_deref().and_then(Place::parse);
        let begin = self.begin();
        self.is_last = page.after.is_none();
        self.open.retain(|_, lines| !lines.is_empty());
        if page.parts.is_empty() && self.open.is_empty() {
            self.lines = page.lines;
            self.go_on(page.after);
            return;
        }
        let unread =
            page.parts.into_iter().filter(|part| !self.open.contains_key(&part.n)).collect();
        match self.read(&page.lines, &begin) {
            Some(live) => {
                self.merge = Some(Merge { live, unread, until, next: page.after });
            }
            None => self.fail(unreadable()),
        }
    }

    /// The lines of the part that [`Next::Read`] named, or why there are none.
    pub fn part(&mut self, read: Result<&str, &str>) {
        let Some(part) = self.merge.as_mut().and_then(|merge| merge.unread.pop_front()) else {
            self.fail(unreadable());
            return;
        };
        let lines = match read {
            Ok(text) if part.is(text) => self.read(text, &self.begin()),
            Ok(_) => {
                self.fail(broken(&part.name, "is not what was written"));
                return;
            }
            Err(why) => {
                self.fail(broken(&part.name, why));
                return;
            }
        };
        match lines {
            Some(lines) => {
                self.open.insert(part.n, lines);
            }
            None => self.fail(broken(&part.name, "has a line that is no event")),
        }
    }

    /// Merges lines until enough are there to be sent, a part is to be read (its name), or the page is at its end.
    fn merged(&mut self) -> Option<String> {
        let mut merge = self.merge.take()?;
        while self.lines.len() < CHUNK_BYTES {
            let heads =
                self.open.iter().filter_map(|(n, lines)| Some((&lines.front()?.place, Some(*n))));
            let live = merge.live.front().map(|line| (&line.place, None));
            let least = heads.chain(live).min();
            if let Some(part) = merge.unread.front()
                && least.is_none_or(|(place, _)| part.first <= *place)
            {
                let name = part.name.clone();
                self.merge = Some(merge);
                return Some(name);
            }
            let within = |place: &Place| merge.until.as_ref().is_none_or(|until| place <= until);
            let line = match least {
                Some((place, source)) if within(place) => match source {
                    Some(n) => self.open.get_mut(&n).and_then(VecDeque::pop_front),
                    None => merge.live.pop_front(),
                },
                _ => None,
            };
            let Some(line) = line else {
                self.go_on(merge.next);
                return None;
            };
            self.lines.push_str(&line.text);
            self.lines.push('\n');
        }
        self.merge = Some(merge);
        None
    }

    /// The place that the page under way begins behind.
    fn begin(&self) -> Place {
        self.question.after.as_deref().and_then(Place::parse).unwrap_or_default()
    }

    fn go_on(&mut self, next: Option<String>) {
        if next.is_some() {
            self.question.after = next;
        }
    }

    /// The lines of the question's span behind a place.
    fn read(&self, text: &str, begin: &Place) -> Option<VecDeque<Line>> {
        let span = self.question.from_ms..self.question.to_ms;
        let mut lines = VecDeque::new();
        for text in text.lines() {
            let Head { id, key, at } = serde_json::from_str(text).ok()?;
            let place = Place { id, key };
            if place > *begin && span.contains(&at.ms()) {
                lines.push_back(Line { place, text: text.to_owned() });
            }
        }
        Some(lines)
    }

    fn fail(&mut self, problem: Problem) {
        self.merge = None;
        self.failed = Some(problem);
    }
}

/// A request's record in the parts that may have it: whoever holds a part's lines asks for it.
pub fn record_in(
    part: &Part,
    lines: Result<&str, &str>,
    query: &RequestQuery,
) -> Result<Option<String>, Problem> {
    let lines = lines.map_err(|why| broken(&part.name, why))?;
    if !part.is(lines) {
        return Err(broken(&part.name, "is not what was written"));
    }
    #[derive(Deserialize)]
    struct Whose {
        id: String,
        owner: String,
    }
    let is_it = |line: &&str| {
        // Most lines are of other requests: they are not worth a parse.
        line.contains(&query.id)
            && serde_json::from_str::<Whose>(line).is_ok_and(|it| {
                it.id == query.id && query.owner.as_ref().is_none_or(|owner| *owner == it.owner)
            })
    };
    Ok(lines.lines().find(is_it).map(str::to_owned))
}

fn broken(name: &str, why: &str) -> Problem {
    let detail = format!(
        "The archive's object {name} {why}. Bind the archive's bucket, restore the object and ask again."
    );
    Problem::new(502, "archive_unreadable", detail)
}

fn unreadable() -> Problem {
    Problem::new(500, "gateway_error", "A month's ledger gave no usable answer. Try again.")
}

#[cfg(test)]
#[path = "export_tests.rs"]
mod tests;
