//! The edge, over signed calls: what the reconciler reads there, and what it brings.

pub mod upload;

use bytes::{Bytes, BytesMut};
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tallygate_shared::events::outcome::OutcomeEvent;
use tallygate_shared::feedback::{ExportEnd, MAX_ITEMS, ReconcilerContext};
use tallygate_shared::identity::signature::{SignedCall, body_sha256};
use tallygate_shared::time::Date;

use crate::config::EdgeConfig;
use crate::connectors::PullError;
use crate::connectors::http::{
    Attempts, Failed, Http, Patience, may_pass, retry_after, whole_body,
};
use crate::connectors::read::Reader;
use crate::ledger::hex;

const NAME: &str = "edge";
/// How often an export is taken up where it broke off.
const RESUMES: usize = 20;
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

    /// Brings one thing, of which the edge says what it makes of it.
    pub async fn tell<T: Serialize + Sync>(&self, what: &str, thing: &T) -> Result<(), PullError> {
        let body = serde_json::to_vec(thing).map_err(|e| self.unavailable(what, e.to_string()))?;
        let _taken: serde_json::Value = self.call("POST", &format!("/{what}"), "", body).await?;
        Ok(())
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
            self.tell(what, &chunk).await?;
        }
        Ok(())
    }

    /// Reads the day's events, as they were recorded, in the order of their ids, behind the place `after`.
    pub fn events(&self, day: Date, after: Option<String>) -> Export<'_> {
        Export::new(self, "events", day, after)
    }

    /// A day's outcomes. They are few, and an export of them that breaks off is made again from its beginning.
    pub async fn outcomes(&self, day: Date) -> Result<Vec<OutcomeEvent>, PullError> {
        let mut attempts = self.attempts("outcomes", day);
        loop {
            let (mut found, mut export) = (Vec::new(), Export::new(self, "outcomes", day, None));
            let broken = loop {
                match export.next_once().await {
                    Ok(None) => return Ok(found),
                    Ok(Some(line)) => {
                        let event = serde_json::from_slice(&line);
                        let event = event.map_err(|e| self.no_line("outcomes", &e.to_string()))?;
                        found.push(event);
                    }
                    Err(failed) => break failed,
                }
            };
            attempts.after(broken).await?;
        }
    }

    fn attempts(&self, what: &str, day: Date) -> Attempts {
        let patience = Patience { retries: RESUMES, first_wait: self.patience.first_wait };
        patience.attempts(NAME, format!("{what} of {day}"))
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

    /// Sends a call.
    async fn send(
        &self,
        method: &'static str,
        path: &str,
        query: &str,
        body: Vec<u8>,
    ) -> Result<reqwest::Response, Failed> {
        let path = format!("{}{path}", self.prefix);
        let hash = body_sha256(&body);
        let ask = if query.is_empty() { String::new() } else { format!("?{query}") };
        let url = format!("{}{path}{ask}", self.base);
        let request = match method {
            "GET" => self.client.get(url),
            _ => self.client.post(url).header("content-type", "application/json").body(body),
        };
        self.signed(request, method, &path, query, &hash).await
    }

    /// Sends a request, signed anew: a signature counts once.
    async fn signed(
        &self,
        request: reqwest::RequestBuilder,
        method: &'static str,
        path: &str,
        query: &str,
        body_sha256: &str,
    ) -> Result<reqwest::Response, Failed> {
        let (timestamp, nonce) = (self.signing.now_seconds(), self.signing.nonce());
        let call = SignedCall { method, path, query, timestamp, nonce: &nonce, body_sha256 };
        let signature = call.sign(self.config.secret.expose().as_bytes());
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
            _ => return Err(Failed::Final(self.unavailable(path, reason))),
        };
        Err(Failed::Final(PullError::Refused {
            source_name: NAME.into(),
            what: path.to_owned(),
            remedy: format!("{reason}; {remedy}"),
        }))
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
    /// Begun anew by each line: only what does not move at all is given up.
    attempts: Attempts,
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
            attempts: edge.attempts(what, day),
        }
    }

    /// The next line. `None` when it was the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, PullError> {
        loop {
            match self.next_once().await {
                Ok(line) => return Ok(line),
                Err(failed) => {
                    if self.lines > 0 {
                        self.attempts = self.edge.attempts(self.what, self.day);
                    }
                    self.attempts.after(failed).await?;
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
                Err(Failed::again("it ended without its closing line"))
            }
            Err(error) => {
                self.answer = None;
                Err(Failed::connection(error))
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;
    use wiremock::matchers::{method, path, query_param, query_param_is_missing};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;
    use crate::connectors::Secret;

    #[derive(Default)]
    pub(crate) struct Counting(AtomicU64);

    impl Signing for Counting {
        fn now_seconds(&self) -> i64 {
            1_795_000_000
        }

        fn nonce(&self) -> String {
            format!("{:016}", self.0.fetch_add(1, Ordering::Relaxed))
        }
    }

    pub(crate) fn config(url: &str) -> EdgeConfig {
        let secret = Secret::new("s".repeat(40));
        EdgeConfig { url: url.to_owned(), key_id: "night".to_owned(), secret }
    }

    pub(crate) fn quick() -> Patience {
        Patience { retries: 3, first_wait: Duration::from_millis(1) }
    }

    pub(crate) async fn answers(server: &MockServer, at: &str, status: u16, body: &str) {
        Mock::given(path(format!("/api/v1/workspaces/acme/reconciler/{at}")))
            .respond_with(ResponseTemplate::new(status).set_body_string(body))
            .up_to_n_times(1)
            .expect(1)
            .mount(server)
            .await;
    }

    #[tokio::test]
    async fn a_call_is_made_again_with_a_signature_of_its_own_when_that_may_help() {
        let server = MockServer::start().await;
        for (status, body) in [(503, ""), (429, "slow down"), (200, "{}")] {
            answers(&server, "true-ups", status, body).await;
        }
        let (config, signing) = (config(&server.uri()), Counting::default());
        let edge = Edge::new("acme", &config, &signing, quick()).unwrap();
        edge.bring("true-ups", &[1, 2]).await.unwrap();
        let requests = server.received_requests().await.unwrap();
        let nonces: BTreeSet<_> =
            requests.iter().map(|request| request.headers["x-tallygate-nonce"].clone()).collect();
        assert_eq!((requests.len(), nonces.len()), (3, 3));
        assert!(requests.iter().all(|request| request.body == b"[1,2]"));
    }

    #[tokio::test]
    async fn what_the_edge_refuses_is_said_with_a_remedy_and_not_asked_again() {
        for (status, body, expected) in [
            (401, r#"{"detail": "The signature does not fit."}"#, "fit; check the edge's `key_id`"),
            (404, "nothing here", "check the workspace's `id` and the edge's `url`"),
            (302, "", "check the edge's `url`"),
            (422, r#"{"detail": "`amount` is no number."}"#, "HTTP 422"),
            (200, "<html>Please log in</html>", "HTML"),
        ] {
            let server = MockServer::start().await;
            answers(&server, "alerts", status, body).await;
            let (config, signing) = (config(&server.uri()), Counting::default());
            let edge = Edge::new("acme", &config, &signing, quick()).unwrap();
            let refused = edge.bring("alerts", &[1]).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert!(!refused.contains("ssss") && !refused.contains("127.0.0.1"), "{refused}");
        }
    }

    #[tokio::test]
    async fn an_export_that_breaks_off_goes_on_behind_its_last_whole_line() {
        let line = |id: &str| format!("{{\"id\":\"{id}\",\"key\":\"k\"}}\n");
        let whole = |lines: &str| {
            let sum = hex(Sha256::digest(lines).as_slice());
            let count = lines.lines().count();
            format!("{lines}{{\"end\":true,\"lines\":{count},\"sha256\":\"{sum}\"}}\n")
        };
        let server = MockServer::start().await;
        let export = || {
            Mock::given(method("GET"))
                .and(path("/api/v1/workspaces/acme/reconciler/events"))
                .and(query_param("day", "2026-11-20"))
        };
        // The second line is cut in its middle.
        let begun = format!("{}{}", line("a"), r#"{"id":"b","ke"#);
        export()
            .and(query_param_is_missing("after"))
            .respond_with(ResponseTemplate::new(200).set_body_string(begun))
            .expect(1)
            .mount(&server)
            .await;
        let rest = whole(&format!("{}{}", line("b"), line("c")));
        export()
            .and(query_param("after", "a~k"))
            .respond_with(ResponseTemplate::new(200).set_body_string(rest))
            .expect(1)
            .mount(&server)
            .await;
        let (config, signing) = (config(&server.uri()), Counting::default());
        let edge = Edge::new("acme", &config, &signing, quick()).unwrap();
        let mut export = edge.events(Date::parse("2026-11-20").unwrap(), None);
        for id in ["a", "b", "c"] {
            assert_eq!(export.next().await.unwrap().unwrap(), line(id));
        }
        assert_eq!(export.next().await.unwrap(), None);
        assert_eq!(export.place().as_deref(), Some("c~k"));
    }
}
