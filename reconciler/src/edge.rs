//! The edge, over signed calls: what the reconciler reads there, and what it brings.

use bytes::BytesMut;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tallygate_shared::events::outcome::OutcomeEvent;
use tallygate_shared::feedback::{ExportEnd, MAX_ITEMS, ReconcilerContext};
use tallygate_shared::identity::signature::SignedCall;
use tallygate_shared::time::Date;

use crate::config::EdgeConfig;
use crate::connectors::PullError;
use crate::connectors::http::{Failed, Http, Patience, may_pass, retry_after, whole_body};
use crate::connectors::read::Reader;
use crate::ledger::hex;

const NAME: &str = "edge";
/// How often an export is taken up where it broke off.
const RESUMES: usize = 20;
/// Longer than any usage event.
const MAX_LINE: usize = 4 * 1024 * 1024;

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

impl<'a> Edge<'a> {
    /// The edge of `workspace`.
    pub fn new(
        workspace: &str,
        config: &'a EdgeConfig,
        signing: &'a dyn Signing,
        patience: Patience,
    ) -> Result<Self, PullError> {
        let http = Http::new(NAME, patience)?;
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

    /// Shows each of the day's events, as it was recorded, in the order of their ids. An export that breaks off is taken
    /// up behind its last whole line. `what` is `events` or `outcomes`.
    pub async fn export(
        &self,
        what: &str,
        day: Date,
        each: &mut (dyn FnMut(&str) -> Result<(), String> + Send),
    ) -> Result<u64, PullError> {
        let mut attempts = self.resumes().attempts(NAME, format!("{what} of {day}"));
        let (mut after, mut seen) = (None, 0);
        loop {
            match self.export_once(what, day, &mut after, &mut seen, each).await {
                Ok(()) => return Ok(seen),
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }

    /// A day's outcomes. They are few, and an export of them that breaks off is made again from its beginning.
    pub async fn outcomes(&self, day: Date) -> Result<Vec<OutcomeEvent>, PullError> {
        let mut attempts = self.resumes().attempts(NAME, format!("outcomes of {day}"));
        loop {
            let (mut found, mut seen, mut after) = (Vec::new(), 0, None);
            let mut each = |line: &str| {
                let event = serde_json::from_str(line).map_err(|e| format!("outcome: {e}"))?;
                found.push(event);
                Ok(())
            };
            match self.export_once("outcomes", day, &mut after, &mut seen, &mut each).await {
                Ok(()) => return Ok(found),
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }

    const fn resumes(&self) -> Patience {
        Patience { retries: RESUMES, first_wait: self.patience.first_wait }
    }

    async fn export_once(
        &self,
        what: &str,
        day: Date,
        after: &mut Option<String>,
        seen: &mut u64,
        each: &mut (dyn FnMut(&str) -> Result<(), String> + Send),
    ) -> Result<(), Failed> {
        let query = match after {
            Some(after) => format!("day={day}&after={after}"),
            None => format!("day={day}"),
        };
        let mut answer = self.send("GET", &format!("/{what}"), &query, Vec::new()).await?;
        let (mut hash, mut lines) = (Sha256::new(), 0_u64);
        let mut buffer = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(Failed::connection)? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line = buffer.split_to(end + 1);
                let text = std::str::from_utf8(&line)
                    .map_err(|_| self.unreadable(what, "a line is no UTF-8"))?;
                if let Ok(closing) = serde_json::from_str::<ExportEnd>(text) {
                    let sum = hex(hash.finalize().as_slice());
                    if closing.lines == lines && closing.sha256 == sum {
                        return Ok(());
                    }
                    return Err(self.unreadable(what, "the closing line is of other lines"));
                }
                let text = text.trim_end();
                each(text).map_err(|problem| self.unreadable(what, &problem))?;
                hash.update(&line);
                lines += 1;
                *seen += 1;
                if let Some(place) = place_of(text) {
                    *after = Some(place);
                }
            }
            if buffer.len() > MAX_LINE {
                return Err(self.unreadable(what, "a line has no end"));
            }
        }
        Err(Failed::again("it ended without its closing line"))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        path: &str,
        query: &str,
        body: Vec<u8>,
    ) -> Result<T, PullError> {
        let mut attempts = self.patience.attempts(NAME, path);
        loop {
            let answer = match self.send(method, path, query, body.clone()).await {
                Ok(answer) => whole_body(NAME, path, answer).await,
                Err(failed) => Err(failed),
            };
            match answer {
                Ok(body) => return Reader::new(NAME, path).json(&body),
                Err(failed) => attempts.after(failed).await?,
            }
        }
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
            .map_err(Failed::connection)?;
        let (status, after) = (answer.status(), retry_after(answer.headers()));
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let detail = problem.get("detail").and_then(serde_json::Value::as_str);
        let reason =
            format!("HTTP {status}: {}", detail.unwrap_or("no word why").trim_end_matches('.'));
        if may_pass(status) {
            return Err(Failed::Again { reason, after });
        }
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "check the edge's `key_id` and `secret`, and this machine's clock"
            }
            StatusCode::NOT_FOUND => "check the workspace's `id` and the edge's `url`",
            _ if detail.is_none() => {
                "check the edge's `url`: the gateway says why it refuses a call"
            }
            _ => return Err(Failed::Final(self.unavailable(&path, reason))),
        };
        Err(Failed::Final(PullError::Refused {
            source_name: NAME.into(),
            what: path,
            remedy: format!("{reason}; {remedy}"),
        }))
    }

    fn unavailable(&self, what: &str, reason: String) -> PullError {
        PullError::Unavailable { source_name: NAME.into(), what: what.into(), reason }
    }

    fn unreadable(&self, what: &str, reason: &str) -> Failed {
        Failed::Final(PullError::Unreadable {
            source_name: NAME.into(),
            what: what.into(),
            field: "line".into(),
            reason: reason.into(),
        })
    }
}

/// Where an event stands in its export: `<id>~<key>`.
fn place_of(line: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Place<'l> {
        #[serde(borrow)]
        id: std::borrow::Cow<'l, str>,
        #[serde(borrow)]
        key: std::borrow::Cow<'l, str>,
    }
    let place: Place<'_> = serde_json::from_str(line).ok()?;
    Some(format!("{}~{}", place.id, place.key))
}
