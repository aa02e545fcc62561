//! Files, uploaded to the edge: read while they are sent, and known by a hash that is signed.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tallygate_shared::focus_export::FileTaken;

use super::{Edge, NAME};
use crate::connectors::PullError;
use crate::connectors::http::{Failed, whole_body};
use crate::connectors::read::Reader;

/// For one file: 90 MB at 2.5 Mbit/s.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// A file that is uploaded.
#[derive(Clone, Debug)]
pub struct Upload<'a> {
    /// What is in it.
    pub content: Content<'a>,
    /// How many bytes that are.
    pub bytes: u64,
    /// Their SHA-256, in hexadecimal: the edge takes no others.
    pub sha256: &'a str,
}

/// Where the content of a file comes from.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// Local disk: it is read while it is sent.
    File(&'a Path),
    /// Memory.
    Bytes(Bytes),
}

impl Edge<'_> {
    /// Uploads a file; whether the edge stored it. It does not where it has no bucket.
    pub async fn upload(&self, path: &str, file: &Upload<'_>) -> Result<bool, PullError> {
        let mut attempts = self.patience.attempts(NAME, path);
        loop {
            let answer = match self.upload_once(path, file).await {
                Ok(answer) => whole_body(NAME, path, answer).await,
                Err(failed) => Err(failed),
            };
            match answer {
                Ok(body) => {
                    let taken: FileTaken = Reader::new(NAME, path).json(&body)?;
                    return Ok(taken.stored);
                }
                Err(failed) => attempts.after(failed).await?,
            }
        }
    }

    async fn upload_once(
        &self,
        path: &str,
        file: &Upload<'_>,
    ) -> Result<reqwest::Response, Failed> {
        let body = match &file.content {
            Content::Bytes(bytes) => reqwest::Body::from(bytes.clone()),
            Content::File(place) => {
                let opened = tokio::fs::File::open(place).await.map_err(|error| {
                    Failed::Final(
                        self.unavailable(path, format!("its file does not open: {error}")),
                    )
                })?;
                reqwest::Body::from(opened)
            }
        };
        let path = format!("{}{path}", self.prefix);
        let request = self
            .client
            .put(format!("{}{path}", self.base))
            .timeout(UPLOAD_TIMEOUT)
            .header("content-type", "application/octet-stream")
            .header("content-length", file.bytes)
            .header("x-tallygate-content-sha256", file.sha256)
            .body(body);
        self.signed(request, "PUT", &path, "", file.sha256).await
    }
}

#[cfg(test)]
mod tests {
    use tallygate_shared::identity::signature::{SignedCall, body_sha256};
    use wiremock::MockServer;

    use super::*;
    use crate::edge::Signing;
    use crate::edge::tests::{Counting, answers, config, quick};

    #[tokio::test]
    async fn a_file_is_sent_as_it_lies_on_disk_and_again_when_that_may_help() {
        let server = MockServer::start().await;
        for (status, body) in [(503, ""), (200, r#"{"stored":true}"#)] {
            answers(&server, "focus-files/a.csv", status, body).await;
        }
        let (config, signing) = (config(&server.uri()), Counting::default());
        let edge = Edge::new("acme", &config, &signing, quick()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a,b\n").unwrap();
        let sha256 = body_sha256(b"a,b\n");
        let content = Content::File(file.path());
        let upload = Upload { content, bytes: 4, sha256: &sha256 };
        assert!(edge.upload("/focus-files/a.csv", &upload).await.unwrap());
        let requests = server.received_requests().await.unwrap();
        assert_eq!(requests.len(), 2);
        for request in &requests {
            assert_eq!((request.method.as_str(), request.body.as_slice()), ("PUT", &b"a,b\n"[..]));
            assert_eq!(request.headers["content-length"], "4");
            assert_eq!(request.headers["x-tallygate-content-sha256"], sha256.as_str());
            let nonce = request.headers["x-tallygate-nonce"].to_str().unwrap();
            let call = SignedCall {
                method: "PUT",
                path: "/api/v1/workspaces/acme/reconciler/focus-files/a.csv",
                query: "",
                timestamp: signing.now_seconds(),
                nonce,
                body_sha256: &sha256,
            };
            let signature = call.sign("s".repeat(40).as_bytes());
            assert_eq!(request.headers["x-tallygate-signature"], signature.as_str());
        }
        assert_ne!(
            requests[0].headers["x-tallygate-nonce"],
            requests[1].headers["x-tallygate-nonce"]
        );
    }
}
