//! Objects in an S3 bucket, written once: every write says `If-None-Match: *`, so S3 itself refuses a second one, and
//! carries the content's SHA-256, which tells the same content from another, and a name, which tells a writer whose
//! answer was lost that it was itself.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::aws::{Names, failed};
use super::names::{check_key, check_list};
use super::sha256;
use crate::ledger::hex;
use crate::ports::{ObjectMeta, ObjectStore, Put, StoreError};

#[cfg(test)]
mod tests;

const STORE: &str = "S3";
/// The content's hash, as metadata.
const HASH: &str = "sha256";
/// The name of the write, as metadata.
const WRITER: &str = "writer";
/// Larger files are uploaded in parts of this size.
const PART: usize = 8 * 1024 * 1024;
/// The most parts of an upload.
const MAX_PARTS: u64 = 10_000;
/// Times that a write is begun again because others write the same key, and a body is read again because it broke off.
const ROUNDS: u32 = 6;
/// The first wait between rounds. It doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// An [`ObjectStore`] in an S3 bucket.
#[derive(Clone, Debug)]
pub struct S3Objects {
    client: Client,
    bucket: String,
    names: Arc<Names>,
    part: usize,
    pause: Duration,
}

/// What became of one attempt to write.
enum Attempt {
    Written,
    /// The key is taken, or may be.
    Taken,
    /// Another write of the key is under way: begin again.
    Conflict(StoreError),
}

/// What is to be under a key.
struct Content {
    size: u64,
    hash: String,
    writer: String,
}

impl S3Objects {
    /// The objects in `bucket`, through `client`.
    pub fn new(client: Client, bucket: &str) -> Self {
        let names = Arc::new(Names::new());
        Self { client, bucket: bucket.to_owned(), names, part: PART, pause: PAUSE }
    }

    async fn wait(&self, round: u32) {
        tokio::time::sleep(self.pause.saturating_mul(1 << round.min(5))).await;
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<Put, StoreError> {
        let content =
            Content { size: body.len() as u64, hash: sha256(&body), writer: self.names.next() };
        let mut last = None;
        for round in 0..ROUNDS {
            let put = self
                .client
                .put_object()
                .bucket(&self.bucket)
                .key(key)
                .if_none_match("*")
                .metadata(HASH, &content.hash)
                .metadata(WRITER, &content.writer)
                .body(ByteStream::from(body.clone()))
                .send()
                .await;
            let attempt = match put {
                Ok(_) => Attempt::Written,
                Err(error) => attempt_of("s3:PutObject", &error)?,
            };
            if let Some(put) = self.settle(key, &content, attempt, &mut last).await? {
                return Ok(put);
            }
            self.wait(round).await;
        }
        Err(last.unwrap_or_else(|| vanished(key)))
    }

    /// What the caller is told; `None` to begin again.
    async fn settle(
        &self,
        key: &str,
        content: &Content,
        attempt: Attempt,
        last: &mut Option<StoreError>,
    ) -> Result<Option<Put>, StoreError> {
        match attempt {
            Attempt::Written => Ok(Some(Put::Written)),
            Attempt::Taken => self.compare(key, content).await,
            Attempt::Conflict(error) => {
                *last = Some(error);
                Ok(None)
            }
        }
    }

    /// Whether what is there is `ours`. `None` when nothing is there.
    async fn compare(&self, key: &str, ours: &Content) -> Result<Option<Put>, StoreError> {
        let head = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        let head = match head {
            Ok(head) => head,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_not_found()) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(STORE, "s3:GetObject", &error)),
        };
        let size = head.content_length().and_then(|size| u64::try_from(size).ok());
        let noted = head.metadata().and_then(|noted| noted.get(HASH)).cloned();
        let theirs = match noted {
            Some(hash) => Some(hash),
            // Somebody else's upload: only its bytes tell.
            None if size == Some(ours.size) => self.hash_of(key).await?,
            None => None,
        };
        if size == Some(ours.size) && theirs.as_ref() == Some(&ours.hash) {
            let noted = head.metadata().and_then(|noted| noted.get(WRITER));
            let ourselves = noted == Some(&ours.writer);
            return Ok(Some(if ourselves { Put::Written } else { Put::AlreadyThere }));
        }
        let told = |size: Option<u64>, hash: Option<&str>| {
            let size = size.map_or("unknown".to_owned(), |size| size.to_string());
            format!("{size} bytes with SHA-256 {}", hash.unwrap_or("unknown"))
        };
        let (theirs, ours) =
            (told(size, theirs.as_deref()), told(Some(ours.size), Some(&ours.hash)));
        Err(damaged(key, format!("written before were {theirs}, which stay; ours are {ours}")))
    }

    async fn fetch(&self, key: &str) -> Result<Option<GetObjectOutput>, StoreError> {
        match self.client.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(got) => Ok(Some(got)),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_no_such_key()) => Ok(None),
            // Without s3:ListBucket S3 does not say that there is none.
            Err(error) => Err(failed(STORE, "s3:GetObject (with s3:ListBucket)", &error)),
        }
    }

    /// The hash of an object's bytes, without holding them all.
    async fn hash_of(&self, key: &str) -> Result<Option<String>, StoreError> {
        let Some(mut got) = self.fetch(key).await? else { return Ok(None) };
        let mut hash = Sha256::new();
        while let Some(bytes) =
            got.body.try_next().await.map_err(|error| broken_off(key, &error.to_string()))?
        {
            hash.update(&bytes);
        }
        Ok(Some(hex(hash.finalize().as_slice())))
    }

    /// One upload in parts of a file whose content is known.
    async fn upload(
        &self,
        key: &str,
        path: &Path,
        content: &Content,
    ) -> Result<Attempt, StoreError> {
        let made = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .metadata(HASH, &content.hash)
            .metadata(WRITER, &content.writer)
            .send()
            .await
            .map_err(|error| failed(STORE, "s3:PutObject", &error))?;
        let Some(upload) = made.upload_id() else {
            return Err(StoreError::Failed {
                store: STORE,
                reason: format!("the upload of `{key}` has no id"),
            });
        };
        let attempt = self.upload_parts(key, path, content, upload).await;
        if !matches!(attempt, Ok(Attempt::Written)) {
            // Parts cost money until they are removed. If this fails too, the bucket's lifecycle rule does it.
            let _aborted = self
                .client
                .abort_multipart_upload()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(upload)
                .send()
                .await;
        }
        attempt
    }

    async fn upload_parts(
        &self,
        key: &str,
        path: &Path,
        content: &Content,
        upload: &str,
    ) -> Result<Attempt, StoreError> {
        let mut reader = Reader::open(path)?;
        let mut parts = Vec::new();
        for number in 1.. {
            let (next, bytes) = reader.next(part_size(self.part, content.size)).await?;
            reader = next;
            if bytes.is_empty() {
                break;
            }
            let sent = self
                .client
                .upload_part()
                .bucket(&self.bucket)
                .key(key)
                .upload_id(upload)
                .part_number(number)
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .body(ByteStream::from(bytes))
                .send()
                .await
                .map_err(|error| failed(STORE, "s3:PutObject", &error))?;
            let part = CompletedPart::builder()
                .part_number(number)
                .set_e_tag(sent.e_tag().map(str::to_owned))
                .set_checksum_crc32(sent.checksum_crc32().map(str::to_owned));
            parts.push(part.build());
        }
        if reader.read() != (content.size, content.hash.clone()) {
            return Err(StoreError::Failed {
                store: STORE,
                reason: format!("{} was changed while it was uploaded", path.display()),
            });
        }
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self
            .client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload)
            .if_none_match("*")
            .multipart_upload(parts)
            .send()
            .await;
        match completed {
            Ok(_) => Ok(Attempt::Written),
            // The upload is gone: it was completed, and the answer was lost.
            Err(error) if error.code() == Some("NoSuchUpload") => Ok(Attempt::Taken),
            Err(error) => attempt_of("s3:PutObject", &error),
        }
    }
}

fn damaged(key: &str, reason: String) -> StoreError {
    StoreError::Damaged { store: STORE, key: key.to_owned(), reason }
}

fn vanished(key: &str) -> StoreError {
    StoreError::Unavailable {
        store: STORE,
        reason: format!(
            "`{key}` is there when it is written and gone when it is read: who deletes it?"
        ),
    }
}

fn broken_off(key: &str, why: &str) -> StoreError {
    StoreError::Unavailable { store: STORE, reason: format!("reading `{key}` broke off: {why}") }
}

/// What a refused write means.
fn attempt_of<E>(action: &str, error: &SdkError<E, HttpResponse>) -> Result<Attempt, StoreError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error.raw_response().map(|answer| answer.status().as_u16()) {
        Some(412) => Ok(Attempt::Taken),
        Some(409) => Ok(Attempt::Conflict(failed(STORE, action, error))),
        _ => Err(failed(STORE, action, error)),
    }
}

/// Bytes of each part but the last, so that there are not too many.
fn part_size(least: usize, size: u64) -> usize {
    usize::try_from(size.div_ceil(MAX_PARTS)).unwrap_or(usize::MAX).max(least)
}

/// A file read piece by piece, on the threads that may wait, with the hash of what was read.
struct Reader {
    file: std::fs::File,
    hash: Sha256,
    size: u64,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let file =
            std::fs::File::open(path).map_err(|error| unreadable(&path.display(), &error))?;
        Ok(Self { file, hash: Sha256::new(), size: 0 })
    }

    async fn next(mut self, most: usize) -> Result<(Self, Bytes), StoreError> {
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            (&mut self.file).take(most as u64).read_to_end(&mut bytes)?;
            self.hash.update(&bytes);
            self.size += bytes.len() as u64;
            Ok::<_, std::io::Error>((self, Bytes::from(bytes)))
        });
        read.await
            .map_err(|error| unreadable(&"a file to upload", &error))?
            .map_err(|error| unreadable(&"a file to upload", &error))
    }

    fn read(self) -> (u64, String) {
        (self.size, hex(self.hash.finalize().as_slice()))
    }
}

fn unreadable(what: &dyn std::fmt::Display, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed { store: STORE, reason: format!("cannot read {what}: {error}") }
}

#[async_trait]
impl ObjectStore for S3Objects {
    async fn put_once(&self, key: &str, body: Bytes) -> Result<Put, StoreError> {
        check_key(STORE, key)?;
        self.put_bytes(key, body).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        check_key(STORE, key)?;
        let mut broke = String::new();
        for round in 0..ROUNDS {
            let Some(got) = self.fetch(key).await? else { return Ok(None) };
            let size = got.content_length().and_then(|size| usize::try_from(size).ok());
            let noted = got.metadata().and_then(|noted| noted.get(HASH)).cloned();
            match collect(got.body).await {
                Ok(body) if size.is_none_or(|size| size == body.len()) => {
                    if noted.is_some_and(|noted| noted != sha256(&body)) {
                        return Err(damaged(key, "its bytes are not those written".to_owned()));
                    }
                    return Ok(Some(body));
                }
                Ok(body) => broke = format!("{} bytes of {size:?}", body.len()),
                Err(error) => broke = error,
            }
            self.wait(round).await;
        }
        Err(broken_off(key, &broke))
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        check_list(STORE, prefix, limit)?;
        let mut found: Vec<ObjectMeta> = Vec::new();
        while found.len() < limit {
            let last = found.last().map(|object| object.key.as_str());
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_start_after(last.or(after).map(str::to_owned))
                .max_keys(i32::try_from(limit - found.len()).unwrap_or(i32::MAX))
                .send()
                .await
                .map_err(|error| failed(STORE, "s3:ListBucket", &error))?;
            for object in page.contents() {
                let key = object.key().unwrap_or_default().to_owned();
                // A listing that does not move on would never end.
                if found.last().is_some_and(|last| key <= last.key) {
                    return Err(damaged(&key, "the listing is not in order".to_owned()));
                }
                let size = object.size().and_then(|size| u64::try_from(size).ok());
                let size = size.ok_or_else(|| damaged(&key, "it has no size".to_owned()))?;
                found.push(ObjectMeta { key, size });
            }
            if page.is_truncated() != Some(true) || page.contents().is_empty() {
                break;
            }
        }
        Ok(found)
    }

    async fn put_file_once(&self, key: &str, path: &Path) -> Result<Put, StoreError> {
        check_key(STORE, key)?;
        let mut reader = Reader::open(path)?;
        let mut first = Bytes::new();
        loop {
            let (next, bytes) = reader.next(self.part).await?;
            reader = next;
            if bytes.is_empty() {
                break;
            }
            first = if reader.size <= self.part as u64 { bytes } else { Bytes::new() };
        }
        let (size, hash) = reader.read();
        if size <= self.part as u64 {
            return self.put_bytes(key, first).await;
        }
        let content = Content { size, hash, writer: self.names.next() };
        // An upload is refused only after all of it was sent: ask first.
        if let Some(put) = self.compare(key, &content).await? {
            return Ok(put);
        }
        let mut last = None;
        for round in 0..ROUNDS {
            let attempt = self.upload(key, path, &content).await?;
            if let Some(put) = self.settle(key, &content, attempt, &mut last).await? {
                return Ok(put);
            }
            self.wait(round).await;
        }
        Err(last.unwrap_or_else(|| vanished(key)))
    }
}

async fn collect(mut body: ByteStream) -> Result<Bytes, String> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = body.try_next().await.map_err(|error| error.to_string())? {
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}
