use super::*;
use crate::stores::aws::{ATTEMPTS, s3_client};
use crate::stores::replay::{Answer, Replay, SECRET};
use std::io::Write;

fn objects(replay: &Replay) -> S3Objects {
    let client = s3_client(&replay.config(), Some("http://s3.test"));
    S3Objects { part: LEAST, pause: Duration::from_micros(10), ..S3Objects::new(client, "bucket") }
}

/// Parts of the tests: small, for they are hashed many times.
const LEAST: usize = 1000;

fn fault(status: u16, code: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>says AWS</Message></Error>"
    );
    Answer::Say(status, body)
}

fn done() -> Answer {
    Answer::Say(200, String::new())
}

fn empty(status: u16) -> Answer {
    Answer::Say(status, String::new())
}

/// A HEAD of an object, with the hash it was written with.
fn head(body: &[u8], hash: Option<String>) -> Answer {
    let mut headers = vec![("content-length", body.len().to_string())];
    headers.extend(hash.map(|hash| ("x-amz-meta-sha256", hash)));
    Answer::SayWith(200, headers, String::new())
}

fn body(body: &str, length: usize, hash: Option<&str>) -> Answer {
    let mut headers = vec![("content-length", length.to_string())];
    headers.extend(hash.map(|hash| ("x-amz-meta-sha256", hash.to_owned())));
    Answer::SayWith(200, headers, body.into())
}

const OURS: &[u8] = b"ours";

async fn put(replay: &Replay) -> Result<Put, StoreError> {
    let put = objects(replay).put_once("a/b", Bytes::from_static(OURS)).await;
    let writes = replay.asked();
    let writes = writes.iter().filter(|asked| asked.what.starts_with("PUT"));
    assert!(writes.clone().count() > 0);
    assert!(writes.clone().all(|asked| asked.if_none_match.as_deref() == Some("*")));
    put
}

#[tokio::test]
async fn a_slow_store_is_waited_for() {
    let slow = [fault(503, "SlowDown"), fault(500, "InternalError"), Answer::Lost, done()];
    assert_eq!(put(&Replay::new(slow)).await.unwrap(), Put::Written);
    let replay = Replay::new((0..ATTEMPTS).map(|_| fault(503, "SlowDown")));
    let error = put(&replay).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { reason, .. } if reason.contains("SlowDown")),
        "{error}"
    );
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_there() {
    let script = [Answer::Lost, fault(412, "PreconditionFailed"), head(OURS, Some(sha256(OURS)))];
    assert_eq!(put(&Replay::new(script)).await.unwrap(), Put::AlreadyThere);
}

#[tokio::test]
async fn what_is_there_is_told_by_length_and_hash() {
    let refused = || fault(412, "PreconditionFailed");
    for other in [head(b"othr", Some(sha256(b"othr"))), head(b"longer", Some(sha256(OURS)))] {
        let error = put(&Replay::new([refused(), other])).await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { key, .. } if key == "a/b"), "{error}");
    }
    // Not written by us: only its bytes tell.
    let script = [refused(), head(OURS, None), body("ours", 4, None)];
    assert_eq!(put(&Replay::new(script)).await.unwrap(), Put::AlreadyThere);
    let script = [refused(), head(OURS, None), body("othr", 4, None)];
    assert!(matches!(put(&Replay::new(script)).await, Err(StoreError::Damaged { .. })));
}

#[tokio::test]
async fn a_write_that_meets_another_begins_again() {
    let conflict = || fault(409, "ConditionalRequestConflict");
    let script = [conflict(), conflict(), done()];
    assert_eq!(put(&Replay::new(script)).await.unwrap(), Put::Written);
    // Taken, then gone: an upload of somebody else that was undone.
    let script = [conflict(), fault(412, "PreconditionFailed"), empty(404), done()];
    assert_eq!(put(&Replay::new(script)).await.unwrap(), Put::Written);
    let replay = Replay::new((0..ROUNDS).map(|_| conflict()));
    let error = put(&replay).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let error = put(&Replay::new([fault(403, "AccessDenied")])).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Denied { action, .. } if action == "s3:PutObject"),
        "{error}"
    );
    // A HEAD has no body that says more.
    let script = [fault(412, "PreconditionFailed"), empty(403)];
    let error = put(&Replay::new(script)).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Denied { action, .. } if action == "s3:GetObject"),
        "{error}"
    );
    let replay = Replay::new([fault(403, "AccessDenied")]);
    let error = objects(&replay).list("a", None, 5).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Denied { action, .. } if action == "s3:ListBucket"),
        "{error}"
    );
    let error = objects(&Replay::new([fault(403, "AccessDenied")])).get("a").await.unwrap_err();
    assert!(error.to_string().contains("s3:ListBucket"), "{error}");
}

#[tokio::test]
async fn credentials_and_buckets_are_told_apart() {
    let cases = [
        (400, "ExpiredToken", true, "expired"),
        (403, "InvalidAccessKeyId", false, "not accepted"),
        (403, "SignatureDoesNotMatch", false, "not accepted"),
        (404, "NoSuchBucket", false, "bucket"),
    ];
    for (status, code, again, says) in cases {
        let error = put(&Replay::new([fault(status, code)])).await.unwrap_err();
        assert_eq!(matches!(error, StoreError::Unavailable { .. }), again, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!format!("{error:?}").contains(SECRET));
    }
}

#[tokio::test]
async fn a_body_that_broke_off_is_read_again() {
    let hash = sha256(OURS);
    let replay = Replay::new([body("ou", 4, Some(&hash)), body("ours", 4, Some(&hash))]);
    let got = objects(&replay).get("a").await.unwrap();
    assert_eq!(got.as_deref(), Some(OURS));
    assert_eq!(replay.names().len(), 2);
    let replay = Replay::new((0..ROUNDS).map(|_| body("ou", 4, None)));
    let error = objects(&replay).get("a").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    replay.asked();
}

#[tokio::test]
async fn bytes_that_are_not_those_written_are_damage() {
    let replay = Replay::new([body("outs", 4, Some(&sha256(OURS)))]);
    let error = objects(&replay).get("a").await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { key, .. } if key == "a"), "{error}");
}

#[tokio::test]
async fn a_listing_that_does_not_move_on_ends() {
    let page = || {
        let object = "<Contents><Key>a/1</Key><Size>1</Size></Contents>";
        Answer::Say(
            200,
            format!("<ListBucketResult><IsTruncated>true</IsTruncated>{object}</ListBucketResult>"),
        )
    };
    let replay = Replay::new([page(), page()]);
    let error = objects(&replay).list("a/", None, 5).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(replay.names()[1].contains("start-after=a%2F1"));
}

/// A file of two parts, and what it hashes to.
fn file() -> (tempfile::NamedTempFile, Vec<u8>) {
    let bytes = vec![7; LEAST + 1];
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&bytes).unwrap();
    (file, bytes)
}

fn begun(id: &str) -> Answer {
    let body = format!(
        "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    );
    Answer::Say(200, body)
}

fn part() -> Answer {
    Answer::SayWith(
        200,
        vec![("etag", "\"e\"".into()), ("x-amz-checksum-crc32", "AAAAAA==".into())],
        String::new(),
    )
}

#[tokio::test]
async fn an_upload_that_meets_another_is_made_anew() {
    let (file, _) = file();
    let replay = Replay::new([
        empty(404),
        begun("one"),
        part(),
        part(),
        fault(409, "ConditionalRequestConflict"),
        empty(204),
        begun("two"),
        fault(503, "SlowDown"),
        part(),
        part(),
        Answer::Say(200, "<CompleteMultipartUploadResult/>".into()),
    ]);
    let put = objects(&replay).put_file_once("k", file.path()).await.unwrap();
    assert_eq!(put, Put::Written);
    let asked = replay.asked();
    assert_eq!(asked[4].if_none_match.as_deref(), Some("*"));
    assert!(asked[4].body.contains("<ChecksumCRC32>AAAAAA==</ChecksumCRC32>"), "{}", asked[4].body);
    assert!(asked[5].what.starts_with("DELETE") && asked[5].what.contains("uploadId=one"));
    assert!(asked[10].what.contains("uploadId=two"));
}

#[tokio::test]
async fn an_upload_that_another_was_quicker_than_is_removed() {
    let (file, bytes) = file();
    let script = |there: Answer| {
        [
            empty(404),
            begun("one"),
            part(),
            part(),
            fault(412, "PreconditionFailed"),
            empty(204),
            there,
        ]
    };
    let replay = Replay::new(script(head(&bytes, Some(sha256(&bytes)))));
    let put = objects(&replay).put_file_once("k", file.path()).await.unwrap();
    assert_eq!(put, Put::AlreadyThere);
    assert!(replay.names()[5].starts_with("DELETE"));
    let replay = Replay::new(script(head(&bytes, Some(sha256(b"other")))));
    let refused = objects(&replay).put_file_once("k", file.path()).await;
    assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn an_upload_whose_last_answer_was_lost_is_there() {
    let (file, bytes) = file();
    let replay = Replay::new([
        empty(404),
        begun("one"),
        part(),
        part(),
        Answer::Lost,
        fault(404, "NoSuchUpload"),
        fault(404, "NoSuchUpload"),
        head(&bytes, Some(sha256(&bytes))),
    ]);
    let put = objects(&replay).put_file_once("k", file.path()).await.unwrap();
    assert_eq!(put, Put::AlreadyThere);
    replay.asked();
}

#[tokio::test]
async fn an_upload_that_fails_inside_a_good_answer_is_tried_again() {
    // S3 answers 200 before it knows.
    let (file, _) = file();
    let replay = Replay::new([
        empty(404),
        begun("one"),
        part(),
        part(),
        fault(200, "InternalError"),
        Answer::Say(200, "<CompleteMultipartUploadResult/>".into()),
    ]);
    let put = objects(&replay).put_file_once("k", file.path()).await.unwrap();
    assert_eq!(put, Put::Written);
    replay.asked();
}

#[test]
fn files_of_any_size_fit_into_the_parts() {
    assert_eq!(part_size(PART, PART as u64 + 1), PART);
    let five_tb = 5 * 1024_u64.pow(4);
    assert!(five_tb.div_ceil(part_size(PART, five_tb) as u64) <= MAX_PARTS);
}
