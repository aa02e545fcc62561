//! The edge, over signed calls: what the reconciler reads there, and what it brings.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tallygate_shared::events::outcome::OutcomeEvent;
use tallygate_shared::feedback::{ExportEnd, MAX_ITEMS, ReconcilerContext};
use tallygate_shared::identity::signature::SignedCall;
use tallygate_shared::time::Date;

use crate::config::EdgeConfig;
use crate::connectors::PullError;
use crate::connectors::http::Patience;
use crate::ledger::hex;

const NAME: &str = "edge";
/// How often an export is taken up where it broke off.
const RESUMES: u32 = 20;
/// Longer than any usage event.
const MAX_LINE: usize = 4 * 1024 * 1024;
/// Longer than a closing line: its names, 20 digits and 64, are about 120 bytes.
const MAX_END: usize = 256;

/// Gives the time and randomness of signatures.
pub trait Signing: Send + Sync {
    /// Seconds since 1970.
    fn now_seconds(&self) -> i64;
    /// What no call had before: 16 to 64 of A-Z, a-z, 0-9, `-` and `_`.
    fn nonce(&self) -> String;
}

/// The edge of one workspace.
pub struct Edge<'a> {
    client: reqwest::Client,
    base: String,
    prefix: String,
    config: &'a EdgeConfig,
    signing: &'a dyn Signing,
    patience: Patience,
}

enum Failed {
    Again(String),
    Final(PullError),
}

impl<'a> Edge<'a> {
    /// The edge of `workspace`.
    pub fn new(
        workspace: &str,
        config: &'a EdgeConfig,
        signing: &'a dyn Signing,
        patience: Patience,
    ) -> Result<Self, PullError> {
        let http = crate::connectors::http::Http::new(NAME, patience)?;
        Ok(Self {
            client: http.client().clone(),
            base: config.url.trim_end_matches('/').to_owned(),
            prefix: format!("/api/v1/workspaces/{workspace}/reconciler"),
            config,
            signing,
            patience,
        })
    }

    /// What the workspace is.
    pub async fn context(&self) -> Result<ReconcilerContext, PullError> {
        self.call("GET", "/context", "", Vec::new()).await
    }

    /// Brings items, a call for each handful.
    pub async fn bring<T: Serialize + Sync>(
        &self,
        what: &str,
        items: &[T],
    ) -> Result<(), PullError> {
        for chunk in items.chunks(MAX_ITEMS) {
            let body =
                serde_json::to_vec(chunk).map_err(|e| self.unavailable(what, e.to_string()))?;
            let _taken: serde_json::Value =
                self.call("POST", &format!("/{what}"), "", body).await?;
        }
        Ok(())
    }

    /// Reads the day's events, as they were recorded, in the order of their ids, behind the place `after`.
    pub fn events(&self, day: Date, after: Option<String>) -> Export<'_> {
        Export::new(self, "events", day, after)
    }

    /// A day's outcomes. They are few, and an export of them that breaks off is made again from its beginning.
    pub async fn outcomes(&self, day: Date) -> Result<Vec<OutcomeEvent>, PullError> {
        let mut reason = String::new();
        for attempt in 0..=RESUMES {
            let (mut found, mut export) = (Vec::new(), Export::new(self, "outcomes", day, None));
            loop {
                match export.next_once().await {
                    Ok(None) => return Ok(found),
                    Ok(Some(line)) => {
                        let event = serde_json::from_slice(&line);
                        let event = event.map_err(|e| self.no_line("outcomes", &e.to_string()))?;
                        found.push(event);
                    }
                    Err(Failed::Final(error)) => return Err(error),
                    Err(Failed::Again(why)) => {
                        reason = why;
                        break;
                    }
                }
            }
            tokio::time::sleep(self.wait(attempt)).await;
        }
        Err(self.unavailable("outcomes", reason))
    }

    fn wait(&self, attempt: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempt.min(5)).unwrap_or(32);
        self.patience.first_wait.saturating_mul(factor).min(Duration::from_secs(20))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        query: &str,
        body: Vec<u8>,
    ) -> Result<T, PullError> {
        let attempts = u32::try_from(self.patience.retries).unwrap_or(0);
        for attempt in 0..=attempts {
            let answer = match self.send(method, path, query, body.clone()).await {
                Ok(answer) => {
                    answer.bytes().await.map_err(|e| Failed::Again(e.without_url().to_string()))
                }
                Err(failed) => Err(failed),
            };
            match answer {
                Ok(body) => {
                    let mut json = serde_json::Deserializer::from_slice(&body);
                    return serde_path_to_error::deserialize(&mut json).map_err(|e| {
                        PullError::Unreadable {
                            source_name: NAME.into(),
                            what: path.into(),
                            field: e.path().to_string(),
                            reason: e.inner().to_string(),
                        }
                    });
                }
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Again(reason)) if attempt == attempts => {
                    return Err(self.unavailable(path, reason));
                }
                Err(Failed::Again(reason)) => {
                    tracing::warn!(path, reason, "the edge did not answer; trying again");
                    tokio::time::sleep(self.wait(attempt)).await;
                }
            }
        }
        Err(self.unavailable(path, "it was not asked".to_owned()))
    }

    /// Sends a call, signed anew: a signature counts once.
    async fn send(
        &self,
        method: &'static str,
        path: &str,
        query: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, Failed> {
        let path = format!("{}{path}", self.prefix);
        let (timestamp, nonce) = (self.signing.now_seconds(), self.signing.nonce());
        let signed =
            SignedCall { method, path: &path, query, timestamp, nonce: &nonce, body: &body };
        let signature = signed.sign(self.config.secret.expose().as_bytes());
        let ask = if query.is_empty() { String::new() } else { format!("?{query}") };
        let url = format!("{}{path}{ask}", self.base);
        let request = match method {
            "GET" => self.client.get(url),
            _ => self.client.post(url).header("content-type", "application/json").body(body),
        };
        let answer = request
            .header("x-tallygate-key-id", &self.config.key_id)
            .header("x-tallygate-timestamp", timestamp)
            .header("x-tallygate-nonce", &nonce)
            .header("x-tallygate-signature", signature)
            .send()
            .await
            .map_err(|e| Failed::Again(e.without_url().to_string()))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem.get("detail").and_then(serde_json::Value::as_str);
        let reason = format!("HTTP {status}: {}", detail.unwrap_or("no word why"));
        if status.is_server_error() || status.as_u16() == 429 {
            return Err(Failed::Again(reason));
        }
        if status.as_u16() == 401 || status.as_u16() == 403 {
            return Err(Failed::Final(PullError::Refused {
                source_name: NAME.into(),
                what: path,
                remedy: format!("{reason} Check key_id, secret, and this machine's clock."),
            }));
        }
        Err(Failed::Final(self.unavailable(&path, reason)))
    }

    fn unavailable(&self, what: &str, reason: String) -> PullError {
        PullError::Unavailable { source_name: NAME.into(), what: what.into(), reason }
    }

    /// What a line of an export is that cannot be used.
    pub fn no_line(&self, what: &str, reason: &str) -> PullError {
        PullError::Unreadable {
            source_name: NAME.into(),
            what: what.into(),
            field: "line".into(),
            reason: reason.into(),
        }
    }
}

/// An export that is being read. One that breaks off is taken up behind its last whole line.
pub struct Export<'e> {
    edge: &'e Edge<'e>,
    what: &'static str,
    day: Date,
    after: Option<String>,
    answer: Option<reqwest::Response>,
    buffer: BytesMut,
    /// So much of the buffer has no line's end.
    searched: usize,
    hash: Sha256,
    lines: u64,
    last: Bytes,
    resumes: u32,
}

impl<'e> Export<'e> {
    fn new(edge: &'e Edge<'e>, what: &'static str, day: Date, after: Option<String>) -> Self {
        Self {
            edge,
            what,
            day,
            after,
            answer: None,
            buffer: BytesMut::new(),
            searched: 0,
            hash: Sha256::new(),
            lines: 0,
            last: Bytes::new(),
            resumes: 0,
        }
    }

    /// The next line. `None` when it was the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            match self.next_once().await {
                Ok(line) => return Ok(line),
                Err(Failed::Final(error)) => return Err(error),
                Err(Failed::Again(reason)) if self.resumes >= RESUMES => {
                    return Err(self.edge.unavailable(self.what, reason));
                }
                Err(Failed::Again(reason)) => {
                    let (what, day) = (self.what, self.day);
                    tracing::warn!(what, %day, reason, "the export broke off; going on from its last line");
                    tokio::time::sleep(self.edge.wait(self.resumes)).await;
                    self.resumes += 1;
                }
            }
        }
    }

    /// Where it stands: behind the last line that was given.
    pub fn place(&self) -> Option<String> {
        place_of(&self.last).or_else(|| self.after.clone())
    }

    async fn next_once(&mut self) -> Result<Option<Bytes>, Failed> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unsearched) {
                let line = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                if line.len() <= MAX_END
                    && let Ok(closing) = serde_json::from_slice::<ExportEnd>(&line)
                {
                    return self.end(&closing).map(|()| None);
                }
                self.hash.update(&line);
                self.lines += 1;
                self.last = line.clone();
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(Failed::Final(self.edge.no_line(self.what, "a line has no end")));
            }
            self.more().await?;
        }
    }

    /// Reads on, from the beginning or from behind the last line where need be.
    async fn more(&mut self) -> Result<(), Failed> {
        let answer = match &mut self.answer {
            Some(answer) => answer,
            none => {
                self.after = place_of(&self.last).or(self.after.take());
                let day = self.day;
                let query = match &self.after {
                    Some(after) => format!("day={day}&after={after}"),
                    None => format!("day={day}"),
                };
                (self.hash, self.lines, self.searched) = (Sha256::new(), 0, 0);
                self.buffer.clear();
                let path = format!("/{}", self.what);
                none.insert(self.edge.send("GET", &path, &query, Vec::new()).await?)
            }
        };
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                self.buffer.extend_from_slice(&chunk);
                Ok(())
            }
            Ok(None) => {
                self.answer = None;
                Err(Failed::Again("it ended without its closing line".to_owned()))
            }
            Err(error) => {
                self.answer = None;
                Err(Failed::Again(error.without_url().to_string()))
            }
        }
    }

    fn end(&mut self, closing: &ExportEnd) -> Result<(), Failed> {
        let sum = hex(std::mem::take(&mut self.hash).finalize().as_slice());
        if closing.lines == self.lines && closing.sha256 == sum {
            return Ok(());
        }
        let problem = "the closing line is of other lines";
        Err(Failed::Final(self.edge.no_line(self.what, problem)))
    }
}

/// Where an event stands in its export: `<id>~<key>`.
fn place_of(line: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Place<'l> {
        #[serde(borrow)]
        id: std::borrow::Cow<'l, str>,
        #[serde(borrow)]
        key: std::borrow::Cow<'l, str>,
    }
    let place: Place<'_> = serde_json::from_slice(line).ok()?;
    Some(format!("{}~{}", place.id, place.key))
}
