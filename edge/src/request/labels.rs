//! Unsigned labels: what a caller says about a request without proof. They show up on its event and select no budget.

use std::collections::BTreeMap;

use crate::request::body::Body;
use crate::request::headers::Headers;

/// More labels than this say nothing more, and fill the ledger.
const MAX_LABELS: usize = 16;
const MAX_NAME_CHARS: usize = 64;
const MAX_VALUE_CHARS: usize = 256;

/// The labels of a request: the header `x-tallygate-tags` (`name=value, name=value`), then the body's `metadata`, then
/// its `user`. The first of a name stays.
pub fn labels_of(headers: &Headers, body: &Body<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for pair in headers.get("x-tallygate-tags").unwrap_or_default().split(',') {
        // A tag without a value is a label all the same.
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        add(&mut labels, name, value);
    }
    for (name, value) in &body.metadata {
        add(&mut labels, name, value);
    }
    if let Some(user) = &body.user {
        add(&mut labels, "user", user);
    }
    labels
}

fn add(labels: &mut BTreeMap<String, String>, name: &str, value: &str) {
    let name = clean(name, MAX_NAME_CHARS);
    if !name.is_empty() && labels.len() < MAX_LABELS {
        labels.entry(name).or_insert_with(|| clean(value, MAX_VALUE_CHARS));
    }
}

fn clean(text: &str, max_chars: usize) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(max_chars).collect()
}
