//! What the connectors' tests share: days, pages, a server that follows a script, and the usual ways to answer badly.

use std::time::Duration;

use tallygate_shared::money::Usd;
use tallygate_shared::time::{Date, Timestamp};
use wiremock::matchers::{method, path, query_param, query_param_is_missing};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::http::Patience;
use super::{Connector, Days, PullError, RawPage};
use crate::bill::Bill;

pub(super) fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

/// `days("2026-11-01", 2)` is the first two days of November.
pub(super) fn days(from: &str, count: i64) -> Days {
    let from = Date::parse(from).unwrap();
    Days { from, to: Date::from_days(from.days() + count) }
}

pub(super) fn page(label: &str, body: impl Into<String>) -> RawPage {
    RawPage { label: label.into(), body: body.into().into() }
}

pub(super) const fn quick() -> Patience {
    Patience { retries: 3, first_wait: Duration::from_millis(1) }
}

/// The sum of a bill's lines.
pub(super) fn total(bill: &Bill) -> Usd {
    bill.lines.iter().try_fold(Usd::ZERO, |sum, line| sum.checked_add(line.amount)).unwrap()
}

/// The field and the reason of an unreadable answer.
pub(super) fn unreadable<T: std::fmt::Debug>(result: Result<T, PullError>) -> (String, String) {
    match result.unwrap_err() {
        PullError::Unreadable { field, reason, .. } => (field, reason),
        other => panic!("{other}"),
    }
}

/// Answers `GET at` with `body`, for the given cursor in `parameter` or for the first page.
pub(super) async fn answer(
    server: &MockServer,
    at: &str,
    cursor: (&str, Option<&str>),
    body: &str,
) {
    let mock = Mock::given(method("GET")).and(path(at));
    let mock = match cursor {
        (parameter, Some(value)) => mock.and(query_param(parameter, value)),
        (parameter, None) => mock.and(query_param_is_missing(parameter)),
    };
    mock.respond_with(ResponseTemplate::new(200).set_body_string(body)).mount(server).await;
}

/// Answers the first request to `at` with 429 and a wait.
pub(super) async fn busy_once(server: &MockServer, verb: &str, at: &str) {
    Mock::given(method(verb))
        .and(path(at))
        .respond_with(ResponseTemplate::new(429).insert_header("retry-after", "0"))
        .up_to_n_times(1)
        .expect(1)
        .with_priority(1)
        .mount(server)
        .await;
}

/// Fetches and reads. A page that cannot be read must have been kept.
pub(super) async fn pull(connector: &impl Connector, days: Days) -> Result<Bill, PullError> {
    let pages = connector.fetch(days).await?;
    connector.read(days, &pages)
}

/// Puts bad bodies in the place of page `index` and demands that reading fails and says why.
pub(super) fn refuses_bad_bodies(
    connector: &impl Connector,
    days: Days,
    pages: &[RawPage],
    index: usize,
) {
    connector.read(days, pages).unwrap();
    let whole = pages[index].body.clone();
    let half = &whole[..whole.len() * 2 / 3];
    let with = |body: &[u8]| {
        let mut pages = pages.to_vec();
        pages[index].body = bytes::Bytes::copy_from_slice(body);
        connector.read(days, &pages)
    };
    // Cut anywhere, a page is never taken for a whole one; and no damage to a byte ends in a panic. Every third place
    // keeps the test quick.
    for cut in (0..whole.trim_ascii_end().len()).step_by(3) {
        unreadable(with(&whole[..cut]));
        let mut damaged = whole.to_vec();
        damaged[cut] = b"\"0-{"[cut % 4];
        let _ = with(&damaged);
    }
    for (body, expect) in [
        (&b"<html><body>Sign in</body></html>"[..], "HTML"),
        (b"", "is empty"),
        (half, "ends in the middle"),
        (b"[]", ""),
        (b"{}", ""),
    ] {
        let (field, reason) = unreadable(with(body));
        assert!(reason.contains(expect), "{field}: {reason}");
    }
}

/// Replaces a part of a fixture and gives the field and the reason of the error that this must be.
pub(super) fn replaced(
    connector: &impl Connector,
    days: Days,
    pages: &[RawPage],
    (from, to): (&str, &str),
) -> (String, String) {
    let mut changed = pages.to_vec();
    let mut hits = 0;
    for page in &mut changed {
        let text = String::from_utf8(page.body.to_vec()).unwrap();
        hits += usize::from(text.contains(from));
        page.body = text.replacen(from, to, 1).into();
    }
    assert!(hits > 0, "the fixture has no {from}");
    unreadable(connector.read(days, &changed))
}
