//! Answers of AWS by the script, for faults that no emulator makes.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;

/// Must never be in an error.
pub(super) const SECRET: &str = "the-secret-of-the-test";

/// A request, as far as the tests look at it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// `GetItem`, or `PUT /bucket/key?query`.
    pub(super) what: String,
    pub(super) body: String,
    pub(super) if_none_match: Option<String>,
}

impl Asked {
    /// A text attribute of the item that was put.
    pub(super) fn attribute(&self, name: &str) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["Item"][name]["S"].as_str().unwrap().to_owned()
    }
}

pub(super) type Maker = Box<dyn Fn(&[Asked]) -> String + Send>;

/// An answer of the script.
pub(super) enum Answer {
    Say(u16, String),
    SayWith(u16, Vec<(&'static str, String)>, String),
    /// Made of what was asked so far.
    Make(Maker),
    /// The request may have arrived; no answer came.
    Lost,
}

#[derive(Clone)]
pub(super) struct Replay(Arc<Mutex<(VecDeque<Answer>, Vec<Asked>)>>);

impl fmt::Debug for Replay {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Replay")
    }
}

impl Replay {
    pub(super) fn new(script: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new((script.into_iter().collect(), Vec::new()))))
    }

    /// What was asked, once every answer was given.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let inner = self.0.lock().unwrap();
        assert_eq!(inner.0.len(), 0, "answers nobody asked for; asked was {:?}", inner.1);
        inner.1.clone()
    }

    /// The names of what was asked, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.what).collect()
    }

    /// A configuration as the program's own, but for the network, the waits and the credentials.
    pub(super) fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        let retries = RetryConfig::standard()
            .with_max_attempts(super::aws::ATTEMPTS)
            .with_initial_backoff(Duration::from_micros(10))
            .with_max_backoff(Duration::from_micros(50));
        let credentials = Credentials::new("AKID", SECRET, None, None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .retry_config(retries)
            .build()
    }
}

impl HttpConnector for Replay {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut inner = self.0.lock().unwrap();
        let target = request.headers().get("x-amz-target").and_then(|name| name.split('.').nth(1));
        let path = request.uri().splitn(4, '/').nth(3).unwrap_or_default();
        let asked = Asked {
            what: target.map_or(format!("{} {path}", request.method()), str::to_owned),
            body: String::from_utf8_lossy(request.body().bytes().unwrap_or_default()).into_owned(),
            if_none_match: request.headers().get("if-none-match").map(str::to_owned),
        };
        inner.1.push(asked);
        let (status, headers, body) = match inner.0.pop_front() {
            Some(Answer::Say(status, body)) => (status, Vec::new(), body),
            Some(Answer::SayWith(status, headers, body)) => (status, headers, body),
            Some(Answer::Make(make)) => (200, Vec::new(), make(&inner.1)),
            Some(Answer::Lost) => {
                let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                return HttpConnectorFuture::ready(Err(ConnectorError::io(reset.into())));
            }
            None => {
                let end = "the script has ended".into();
                return HttpConnectorFuture::ready(Err(ConnectorError::user(end)));
            }
        };
        let mut response =
            HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.into_bytes()));
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}
