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
mod tests {
    use wiremock::matchers::{method, path};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    use super::*;

    fn http() -> Http {
        let patience = Patience { retries: 3, first_wait: Duration::from_millis(1) };
        Http::new("test", patience).unwrap()
    }

    #[tokio::test]
    async fn tries_again_what_may_pass_and_nothing_else() {
        let server = MockServer::start().await;
        let script = [("/busy", 503, 2), ("/busy", 429, 1), ("/busy", 200, 1), ("/no", 403, 1)];
        for (at, status, times) in script {
            Mock::given(method("GET"))
                .and(path(at))
                .respond_with(ResponseTemplate::new(status).set_body_string("body"))
                .up_to_n_times(times)
                .expect(times)
                .mount(&server)
                .await;
        }
        let ask = |at: &str| {
            let url = format!("{}{at}", server.uri());
            move |client: &reqwest::Client| client.get(&url)
        };
        assert_eq!(http().get("pages", ask("/busy")).await.unwrap(), "body");
        let refused = http().get("pages", ask("/no")).await.unwrap_err();
        assert!(matches!(refused, PullError::Refused { .. }), "{refused}");
        let gone = http().get("pages", ask("/gone")).await.unwrap_err();
        assert!(
            gone.to_string().contains("404") && !gone.to_string().contains("127.0.0.1"),
            "{gone}"
        );
    }

    #[tokio::test]
    async fn nobody_at_the_address_is_said_with_the_cause_and_without_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/account-7", listener.local_addr().unwrap());
        drop(listener);
        let gone = http().get("pages", |client| client.get(&url)).await.unwrap_err().to_string();
        assert!(gone.contains("refused") && gone.ends_with("check the address"), "{gone}");
        assert!(!gone.contains("account-7") && !gone.contains("127.0.0.1"), "{gone}");
    }

    #[tokio::test]
    async fn a_body_shorter_than_announced_is_asked_for_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for body in ["{\"line\":1}", "{\"line\":1}\n{\"line\":2}"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _ = std::io::Read::read(&mut stream, &mut request).unwrap();
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 21\r\nconnection: close\r\n\r\n";
                std::io::Write::write_all(&mut stream, format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let body = http().get("lines", |client| client.get(&url)).await.unwrap();
        assert_eq!(body, "{\"line\":1}\n{\"line\":2}");
        server.join().unwrap();
    }

    #[test]
    fn waits_grow_with_jitter_and_are_no_shorter_than_asked_for() {
        let patience = Patience { retries: 4, first_wait: Duration::from_secs(2) };
        let mut attempts = patience.attempts("test", "costs");
        let asked = |seconds| Failed::Again {
            reason: "busy".into(),
            after: Some(Duration::from_secs(seconds)),
        };
        for (failed, least, most) in [
            (Failed::again("busy"), 2, 4),
            (Failed::again("busy"), 4, 8),
            (asked(17), 17 + 8, 17 + 16),
            (asked(60), 60 + 16, 60 + 32),
        ] {
            let wait = attempts.wait(failed).unwrap();
            assert!(wait >= Duration::from_secs(least), "{wait:?}");
            assert!(wait <= Duration::from_secs(most), "{wait:?}");
        }
        let over = attempts.wait(Failed::again("busy")).unwrap_err();
        assert_eq!(over.to_string(), "test could not be asked for costs: busy");
        let refused = PullError::Refused {
            source_name: "test".into(),
            what: "costs".into(),
            remedy: "a new key".into(),
        };
        let mut attempts = patience.attempts("test", "costs");
        assert_eq!(attempts.wait(Failed::Final(refused.clone())), Err(refused));
        let wait = || patience.attempts("test", "costs").wait(asked(17)).unwrap();
        let waits: BTreeSet<_> = (0..20).map(|_| wait()).collect();
        assert!(waits.len() > 1, "without jitter all come back together: {waits:?}");
    }

    #[test]
    fn who_asks_for_a_longer_wait_than_a_run_has_is_left_alone() {
        let mut attempts = Patience::default().attempts("azure", "query");
        let after = Some(Duration::from_secs(1_800));
        let left = attempts.wait(Failed::Again { reason: "HTTP 429".into(), after }).unwrap_err();
        assert!(matches!(left, PullError::Unavailable { .. }), "{left:?}");
        assert_eq!(
            left.to_string(),
            "azure could not be asked for query: HTTP 429; it may be asked again in 1800 seconds, \
             which is longer than a run waits"
        );
    }

    #[tokio::test]
    async fn a_source_that_asks_for_half_an_hour_is_asked_once() {
        let server = MockServer::start().await;
        Mock::given(method("GET"))
            .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "1800"))
            .expect(1)
            .mount(&server)
            .await;
        let url = server.uri();
        let left = http().get("query", |client| client.get(&url)).await.unwrap_err();
        assert!(left.to_string().contains("in 1800 seconds"), "{left}");
    }

    #[test]
    fn a_date_counts_from_the_date_of_the_answer() {
        let wait = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            if let Some(date) = date {
                headers.insert(DATE, date.parse().unwrap());
            }
            retry_after(&headers).map(|wait| wait.as_secs())
        };
        let now = Some("Sat, 21 Nov 2026 10:00:00 GMT");
        for (after, date, expected) in [
            ("Sat, 21 Nov 2026 10:30:00 GMT", now, Some(1_800)),
            // The older forms, which must be understood too.
            ("Saturday, 21-Nov-26 10:00:07 GMT", now, Some(7)),
            ("Sat Nov 21 10:01:00 2026", now, Some(60)),
            ("Sat, 21 Nov 2026 09:59:00 GMT", now, Some(0)),
            // From when is not known.
            ("Sat, 21 Nov 2026 10:30:00 GMT", None, None),
            (" 30 ", None, Some(30)),
            ("99999999999999999999999", now, Some(u64::MAX)),
            ("-5", now, None),
            ("soon", now, None),
            ("", now, None),
        ] {
            assert_eq!(wait(after, date), expected, "{after}");
        }
    }

    #[test]
    fn the_longest_wait_asked_for_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        for (name, value) in [
            ("retry-after", "2"),
            ("x-ms-ratelimit-microsoft.costmanagement-tenant-retry-after", "17"),
            ("x-ms-ratelimit-microsoft.costmanagement-qpu-retry-after", "9"),
            ("x-ms-ratelimit-microsoft.costmanagement-qpu-remaining", "600"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(17)));
    }

    #[test]
    fn addresses_stay_below_their_base() {
        let base = base_url("test", "https://api.example.com/v1/").unwrap();
        let url = address(&base, &["projects", "../a?b"], &[("group_by[]", "x&y")]);
        assert_eq!(
            url.as_str(),
            "https://api.example.com/v1/projects/..%2Fa%3Fb?group_by%5B%5D=x%26y"
        );
        for bad in ["", "api.example.com", "mailto:a@b", "ftp://a/b", "https://a/?b=c"] {
            assert!(base_url("test", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_comes_once() {
        let mut cursors = Cursors::new("test", "costs");
        cursors.follow("a").unwrap();
        cursors.follow("b").unwrap();
        assert!(cursors.follow("a").is_err());
    }
}
