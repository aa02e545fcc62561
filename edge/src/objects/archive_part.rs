//! A part of the archive: some events of one hour as one immutable object, a line each, in the order of the export.
//!
//! Pure: what an hour is, when it is closed, what a part is called, and whether lines are the ones that were written.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tallygate_shared::hex::hex;
use tallygate_shared::time::{HOUR_MS, Timestamp};

use super::ledger_performance::time_of_id;
use super::ledger_search::first_id;

/// Events of one part, and their bytes: who reads a part holds it whole. 2,000 events x about 1 KB = 2 MB. Few in tests,
/// so that there are many parts.
pub(crate) const PART_EVENTS: usize = if cfg!(test) { 4 } else { 2_000 };
/// See [`PART_EVENTS`].
pub(crate) const PART_BYTES: usize = 4 * 1024 * 1024;
/// An hour is closed so long after its end: a request holds its money for 15 minutes at most, and a Meter delivers
/// within seconds. What comes later still (a Meter that could not deliver) is late, and goes to a further part.
const CLOSED_AFTER_MS: i64 = HOUR_MS / 2;
/// Digits of a part's hash in its name.
const NAMED_DIGITS: usize = 8;

/// An event's place in the order of the export. As text, a cursor: `<id>~<key>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// The request's id.
    pub id: String,
    /// The key's public id.
    pub key: String,
}

impl Place {
    /// The place that a cursor names.
    pub fn parse(cursor: &str) -> Option<Self> {
        let (id, key) = cursor.split_once('~')?;
        Some(Self { id: id.to_owned(), key: key.to_owned() })
    }

    /// The place before all requests that were made at this moment or later.
    pub(crate) fn before(moment: Timestamp) -> Self {
        Self { id: first_id(moment.ms()), key: String::new() }
    }

    /// The hour that the request was made in. An id begins with its time.
    pub(crate) fn hour(&self) -> Timestamp {
        Timestamp::from_ms(time_of_id(&self.id).unwrap_or_default()).start_of_hour()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.id, self.key)
    }
}

/// When an hour that begins at `hour` is closed.
pub(crate) const fn closes_at(hour: Timestamp) -> Timestamp {
    hour.plus_ms(HOUR_MS + CLOSED_AFTER_MS)
}

/// All hours before this one are closed.
pub(crate) const fn open_hour(now: Timestamp) -> Timestamp {
    now.plus_ms(-CLOSED_AFTER_MS).start_of_hour()
}

/// A part, as whoever reads it needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its number in its Ledger.
    pub n: u64,
    /// Its name in the bucket.
    pub name: String,
    /// Its first event.
    pub first: Place,
    /// Its last event.
    pub last: Place,
    /// How many events it has.
    pub events: u64,
    /// SHA-256 of its lines.
    pub sha256: String,
}

impl Part {
    /// Whether these are the lines that were written.
    pub fn is(&self, lines: &str) -> bool {
        sha256_of(lines) == self.sha256
    }
}

/// The hash of lines.
pub(crate) fn sha256_of(lines: &str) -> String {
    hex(&Sha256::digest(lines.as_bytes()))
}

/// A part's name: by workspace, day and hour. A request at the turn of a month may be counted in either month's Ledger,
/// so the Ledger is in the name as well, and so is the content: another content never comes under a name that is taken.
pub(crate) fn name_of(ledger: &str, hour: Timestamp, n: u64, sha256: &str) -> String {
    let (workspace, month) = ledger.split_once(':').unwrap_or((ledger, ""));
    let (day, hours) = (hour.date(), hour.ms_of_day() / HOUR_MS);
    let digits = sha256.get(..NAMED_DIGITS).unwrap_or(sha256);
    format!("events/v1/{workspace}/{day}/{hours:02}/{month}.{n:06}-{digits}.ndjson.gz")
}

/// The front of some events that fits into one part: how many, and their lines.
pub(crate) fn front<'a>(bodies: impl Iterator<Item = &'a str>) -> (usize, String) {
    let (mut count, mut lines) = (0, String::new());
    for body in bodies.take(PART_EVENTS) {
        if count > 0 && lines.len() + body.len() >= PART_BYTES {
            break;
        }
        lines.push_str(body);
        lines.push('\n');
        count += 1;
    }
    (count, lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_name_v1_format_unchanged() {
        // 2026-11-20T10:00:00Z
        let hour = Timestamp::from_ms(1_795_168_800_000);
        let name = name_of("ws_acme:2026-11", hour, 3, "0123456789abcdef");
        assert_eq!(name, "events/v1/ws_acme/2026-11-20/10/2026-11.000003-01234567.ndjson.gz");
    }

    #[test]
    fn an_hour_is_closed_half_an_hour_after_its_end() {
        let hour = Timestamp::from_ms(1_795_168_800_000);
        let closed = closes_at(hour);
        assert_eq!(closed.since_ms(hour), 90 * 60 * 1000);
        assert_eq!(open_hour(closed), hour.plus_ms(HOUR_MS));
        assert_eq!(open_hour(closed.plus_ms(-1)), hour);
    }

    #[test]
    fn places_are_ordered_as_their_cursors_say() {
        let hour = Timestamp::from_ms(1_795_168_800_000);
        let place = Place::parse("req_01a1f9a4c5a07fffbfffffffffffffff~k").unwrap();
        assert_eq!(place.to_string(), "req_01a1f9a4c5a07fffbfffffffffffffff~k");
        assert_eq!(Place::before(hour).hour(), hour);
        assert!(Place::before(place.hour()) < place);
        assert!(place < Place::before(place.hour().plus_ms(HOUR_MS)));
        assert_eq!(Place::parse("req_1"), None);
    }

    #[test]
    fn a_part_ends_before_it_is_too_large_and_has_an_event_at_least() {
        let large = "x".repeat(PART_BYTES + 1);
        assert_eq!(front([large.as_str(), "y"].into_iter()).0, 1);
        assert_eq!(front(["y", large.as_str()].into_iter()), (1, "y\n".to_owned()));
        assert_eq!(front(std::iter::repeat_n("z", PART_EVENTS + 1)).0, PART_EVENTS);
    }
}
