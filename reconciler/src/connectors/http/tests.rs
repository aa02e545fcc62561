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
    assert!(gone.to_string().contains("404") && !gone.to_string().contains("127.0.0.1"), "{gone}");
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
    assert_eq!(url.as_str(), "https://api.example.com/v1/projects/..%2Fa%3Fb?group_by%5B%5D=x%26y");
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
