//! HTTP for connectors and the edge: retries with jitter that honour `Retry-After`, bodies that end when they should, and
//! cursors that cannot run in a circle.

use std::collections::BTreeSet;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode, Url};

use super::{PullError, RawPage};

/// More than any documented page holds.
const MAX_BODY: usize = 64 * 1024 * 1024;
/// More pages than any range of days has: whoever passes this runs in a circle.
const MAX_PAGES: usize = 10_000;
/// A run waits no longer than this between two attempts, jitter apart.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How often and how patiently to try.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts after the first.
    pub retries: usize,
    /// The first wait. It doubles, with jitter, up to 20 times itself.
    pub first_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { retries: 6, first_wait: Duration::from_millis(500) }
    }
}

impl Patience {
    /// Attempts at asking `source` for `what`.
    pub fn attempts(&self, source: &'static str, what: impl Into<String>) -> Attempts {
        let waits = ExponentialBuilder::default()
            .with_min_delay(self.first_wait)
            .with_max_delay(self.first_wait.saturating_mul(20).min(LONGEST_WAIT))
            .with_max_times(self.retries)
            .with_jitter();
        Attempts { source, what: what.into(), waits: waits.build() }
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failed {
    /// It may pass.
    Again {
        /// What happened.
        reason: String,
        /// How long the other side wants to be left alone.
        after: Option<Duration>,
    },
    /// It will not pass.
    Final(PullError),
}

impl Failed {
    /// It may pass, and nobody said when.
    pub fn again(reason: impl Into<String>) -> Self {
        Self::Again { reason: reason.into(), after: None }
    }

    /// The connection failed. The URL may carry account ids: it is left out.
    pub fn connection(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let hint = if error.is_connect() { "; check the address" } else { "" };
        let causes =
            std::iter::successors(std::error::Error::source(&error), |deeper| deeper.source());
        let cause = causes.last().map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::again(format!("{error}{cause}{hint}"))
    }
}

/// Whether asking again may help after an answer with this status.
pub fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error()
}

/// The waits between the attempts at one request.
#[derive(Debug)]
pub struct Attempts {
    source: &'static str,
    what: String,
    waits: ExponentialBackoff,
}

impl Attempts {
    /// Waits until the next attempt may be made. An error when another attempt would change nothing, or there were enough.
    pub async fn after(&mut self, failed: Failed) -> Result<(), PullError> {
        let wait = self.wait(failed)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// How long to wait: as long as the other side asks for, and on top a time with jitter that grows with each attempt,
    /// so that those who were told the same do not come back together. Whoever asks for more than a run waits is not
    /// asked again in this run: sooner would be refused too, and make it longer.
    fn wait(&mut self, failed: Failed) -> Result<Duration, PullError> {
        let (reason, after) = match failed {
            Failed::Final(error) => return Err(error),
            Failed::Again { reason, after } => (reason, after),
        };
        let unavailable = |reason| PullError::Unavailable {
            source_name: self.source.into(),
            what: self.what.clone(),
            reason,
        };
        let after = after.unwrap_or_default();
        if after > LONGEST_WAIT {
            let seconds = after.as_secs();
            return Err(unavailable(format!(
                "{reason}; it may be asked again in {seconds} seconds, which is longer than a run waits"
            )));
        }
        let wait = self.waits.next().ok_or_else(|| unavailable(reason.clone()))?;
        let wait = after.saturating_add(wait);
        tracing::warn!(source = self.source, what = self.what, reason, ?wait, "trying again");
        Ok(wait)
    }
}

/// A client for one connector.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    source: &'static str,
    patience: Patience,
}

impl Http {
    /// A client that speaks for `source`. Fails only when TLS cannot be set up.
    pub fn new(source: &'static str, patience: Patience) -> Result<Self, PullError> {
        let _already_installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("tallygate-reconciler/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| PullError::Unavailable {
                source_name: source.into(),
                what: "anything".into(),
                reason: error.without_url().to_string(),
            })?;
        Ok(Self { client, source, patience })
    }

    /// The client, to build requests with.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends what `request` builds until there is an answer with a 2xx status, and gives its whole body. 408, 429, 5xx,
    /// broken connections and short bodies are tried again; other statuses are final.
    pub async fn get(
        &self,
        what: &str,
        request: impl Fn(&reqwest::Client) -> RequestBuilder,
    ) -> Result<Bytes, PullError> {
        let mut attempts = self.patience.attempts(self.source, what);
        loop {
            match self.once(what, request(&self.client)).await {
                Ok(body) => return Ok(body),
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }

    /// Asks for one list, page after page, and keeps the pages under `label`. `request` builds the request for a cursor,
    /// `None` for the first page; `next` reads the next cursor from a body.
    ///
    /// A page whose cursor cannot be read ends the list without an error: it is kept like the others, and reading it
    /// says what is wrong with it.
    pub async fn list(
        &self,
        label: &str,
        pages: &mut Vec<RawPage>,
        request: impl Fn(&reqwest::Client, Option<&str>) -> RequestBuilder + Sync,
        next: impl Fn(&[u8]) -> Result<Option<String>, PullError>,
    ) -> Result<(), PullError> {
        let mut cursors = Cursors::new(self.source, label);
        let mut cursor: Option<String> = None;
        loop {
            let body = self.get(label, |client| request(client, cursor.as_deref())).await?;
            cursor = next(&body).unwrap_or_default();
            pages.push(RawPage { label: label.into(), body });
            match &cursor {
                Some(cursor) => cursors.follow(cursor)?,
                None => return Ok(()),
            }
        }
    }

    async fn once(&self, what: &str, request: RequestBuilder) -> Result<Bytes, Failed> {
        let answer = request.send().await.map_err(Failed::connection)?;
        let status = answer.status();
        if may_pass(status) {
            let (reason, after) = (format!("HTTP {status}"), retry_after(answer.headers()));
            return Err(Failed::Again { reason, after });
        }
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(Failed::Final(PullError::Refused {
                source_name: self.source.into(),
                what: what.into(),
                remedy: format!("HTTP {status}: check the admin credential and what it may read"),
            }));
        }
        if !status.is_success() {
            let hint = if status.is_redirection() || status == StatusCode::NOT_FOUND {
                ": check the address"
            } else {
                ""
            };
            return Err(Failed::Final(PullError::Unavailable {
                source_name: self.source.into(),
                what: what.into(),
                reason: format!("HTTP {status}{hint}"),
            }));
        }
        whole_body(self.source, what, answer).await
    }
}

/// An answer's body. One that breaks off is worth another attempt; one that does not end is not.
pub async fn whole_body(
    source: &'static str,
    what: &str,
    mut answer: Response,
) -> Result<Bytes, Failed> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(Failed::connection)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BODY {
            return Err(Failed::Final(PullError::Unavailable {
                source_name: source.into(),
                what: what.into(),
                reason: "more than 64 MiB".into(),
            }));
        }
    }
    Ok(body.freeze())
}

/// The longest wait that the answer asks for. Azure's Cost Management has a header for each of its quotas, and all of
/// them must be met. A date counts from the answer's own `Date`, so no clock needs to be right but the other side's.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let answered = headers.get(DATE).and_then(|value| date(value.to_str().ok()?.trim()));
    let wait = |text: &str| {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let (until, answered) = (date(text)?, answered?);
        Some(until.duration_since(answered).unwrap_or_default())
    };
    let asks = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        *name == RETRY_AFTER
            || (name.starts_with("x-ms-ratelimit-microsoft.costmanagement-")
                && name.ends_with("-retry-after"))
    });
    asks.filter_map(|(_, value)| wait(value.to_str().ok()?.trim())).max()
}

/// Reads a source's address from its settings.
pub fn base_url(source: &'static str, text: &str) -> Result<Url, PullError> {
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http") && url.query().is_none() && !url.cannot_be_a_base()
    });
    url.ok_or_else(|| PullError::Unavailable {
        source_name: source.into(),
        what: "anything".into(),
        reason: "`base_url` is no address such as `https://api.example.com/v1`".into(),
    })
}

/// An address below `base`. The segments and the query are escaped, so no id that a source sends can lead elsewhere.
pub fn address(base: &Url, segments: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// Follows cursors and refuses one that was there before.
#[derive(Debug)]
pub struct Cursors {
    source: &'static str,
    what: String,
    seen: BTreeSet<String>,
}

impl Cursors {
    /// For one list of pages.
    pub fn new(source: &'static str, what: impl Into<String>) -> Self {
        Self { source, what: what.into(), seen: BTreeSet::new() }
    }

    /// Takes the cursor of the next page.
    pub fn follow(&mut self, cursor: &str) -> Result<(), PullError> {
        let reason = if self.seen.len() >= MAX_PAGES {
            "there is no end to the pages"
        } else if self.seen.insert(cursor.to_owned()) {
            return Ok(());
        } else {
            "the cursor was there before: the pages run in a circle"
        };
        Err(PullError::Unreadable {
            source_name: self.source.into(),
            what: self.what.clone(),
            field: "next page".into(),
            reason: reason.into(),
        })
    }
}

#[cfg(test)]
mod tests;
