//! Where bills come from. One small module for each source, behind one trait: fetch keeps every answer byte for byte,
//! read turns kept answers into a [`Bill`] and is pure.

pub mod anthropic;
pub mod atlas;
pub mod azure;
pub mod claude_code;
pub mod copilot;
pub mod cost_explorer;
pub mod cursor;
pub mod http;
pub mod inbox;
mod oauth;
pub mod openai;
pub mod openrouter;
pub mod read;
#[cfg(test)]
mod testing;
pub mod vercel;

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tallygate_shared::time::{Date, Timestamp};

use crate::bill::Bill;

/// Whole UTC days: `from` inclusive, `to` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days {
    /// The first day.
    pub from: Date,
    /// The day after the last.
    pub to: Date,
}

impl Days {
    /// Midnight before the first day.
    pub fn start(&self) -> Timestamp {
        self.from.midnight()
    }

    /// Each of the days, in order.
    pub fn each(&self) -> impl Iterator<Item = Date> + use<> {
        let (first, end) = (self.from.days(), self.to.days());
        (first..end).map(Date::from_days)
    }

    /// Midnight after the last day.
    pub fn end(&self) -> Timestamp {
        self.to.midnight()
    }
}

/// One answer of a source, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPage {
    /// What it answers, for people and for `read`: `costs`, `usage/completions`, `api_keys`, an inbox file's name.
    /// Never a query string or a credential.
    pub label: String,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// Why a source gave nothing usable. Neither variant names a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum PullError {
    /// The source could not be asked, after retries: the next night takes it up.
    #[error("{source_name} could not be asked for {what}: {reason}")]
    Unavailable {
        /// The connector.
        source_name: String,
        /// What was asked for.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The source refuses our credential or a permission is missing. A person must act.
    #[error("{source_name} refuses {what}: {remedy}")]
    Refused {
        /// The connector.
        source_name: String,
        /// What was asked for.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The answer is not in the documented shape. Nothing of it is taken.
    #[error("{source_name} answered {what} with something else: `{field}` {reason}")]
    Unreadable {
        /// The connector.
        source_name: String,
        /// What was asked for.
        what: String,
        /// The path of the field in the answer.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A part of a source's answers that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct HeldPart {
    /// Where it is, and why it waits.
    pub why: PullError,
    /// Whose bills it may have: they are not whole without it.
    pub providers: BTreeSet<String>,
}

/// A credential. It is printed nowhere: neither `Debug` nor an error shows it, and it is never serialised.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a credential.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The credential itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A header value of `prefix` and the credential, marked so that no log shows it. An empty credential, or one with
    /// characters that a header cannot carry (a line break copied along), is refused before anything is asked.
    pub fn header(&self, source: &'static str, prefix: &str) -> Result<HeaderValue, PullError> {
        let value = HeaderValue::from_str(&format!("{prefix}{}", self.0)).ok();
        let usable = !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = value.filter(|_| usable).ok_or_else(|| PullError::Refused {
            source_name: source.into(),
            what: "its credential".into(),
            remedy: "it is empty or holds spaces or line breaks: store it again".into(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Secret")
    }
}

/// A source of bills.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The source's name in reports and storage keys: `openai`, `anthropic`, `aws_cost_explorer`, `inbox`.
    fn name(&self) -> &'static str;

    /// Asks for the days, page by page. What came is kept even when reading fails later.
    async fn fetch(&self, days: Days) -> Result<Vec<RawPage>, PullError>;

    /// Reads kept answers. Pure: the same pages give the same bill on any day.
    fn read(&self, days: Days, pages: &[RawPage]) -> Result<Bill, PullError>;

    /// Parts of the answers that `read` left out because a person must look at them first. The bill is not whole while
    /// there are any. Pure. Most sources have none: they are read as a whole, or not.
    fn held(&self, days: Days, pages: &[RawPage]) -> Result<Vec<HeldPart>, PullError> {
        let _ = (days, pages);
        Ok(Vec::new())
    }
}

/// Goes on without the list of API keys where the credential may not read it: the bill matters more. What came of the
/// list is dropped, and [`without_keys`] says so when the bill is read.
fn keys_if_allowed(
    outcome: Result<(), PullError>,
    pages: &mut Vec<RawPage>,
    before: usize,
) -> Result<(), PullError> {
    match outcome {
        Err(refused @ PullError::Refused { .. }) => {
            tracing::warn!(%refused, "going on without API keys");
            pages.truncate(before);
            Ok(())
        }
        other => other,
    }
}

/// The note on a bill whose pull has no page of the list of keys, which was asked for.
fn without_keys(source: &str, asked: bool, pages: &[RawPage], label: &str) -> Option<String> {
    (asked && pages.iter().all(|page| page.label != label)).then(|| {
        format!(
            "{source}: its API keys could not be listed, so unknown ones cannot be told: let the credential read them, \
             or set `list_keys` to false"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_nowhere() {
        let secret = Secret::new("sk-very-secret");
        assert_eq!(format!("{secret:?}"), "Secret");
        let header = secret.header("test", "Bearer ").unwrap();
        assert!(!format!("{header:?}").contains("very"));
        for bad in ["", "sk-very secret", "sk-very\n", "sk-véry"] {
            let error = Secret::new(bad).header("test", "Bearer ").unwrap_err();
            assert!(!format!("{error:?} {error}").contains("sk-"), "{bad}");
        }
    }
}
