//! W3C Trace Context: the caller's trace, and the gateway's span in it.
//!
//! The gateway makes no sampling decision and starts no trace of its own accord: it continues what the caller brought.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::RequestId;

/// The flags that this gateway understands: sampled, and random trace id. Others are not passed on, as the
/// specification wants it.
const KNOWN_FLAGS: u8 = 0b11;
/// Entries that a `tracestate` may have.
const STATE_MAX_ENTRIES: usize = 32;
/// What is passed on of a `tracestate`: the least that the specification asks for.
const STATE_MAX_CHARS: usize = 512;
const KEY_MAX_CHARS: usize = 256;
const VALUE_MAX_CHARS: usize = 256;

/// The gateway's span in a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// 32 lowercase hex digits.
    pub trace_id: String,
    /// The gateway's own span: 16 lowercase hex digits.
    pub span_id: String,
    /// [`KNOWN_FLAGS`] of what the caller sent.
    pub flags: u8,
}

impl Span {
    /// The span of a request under the caller's `traceparent`. `None` where that is malformed: such a header is
    /// ignored.
    pub fn under(traceparent: &str, request: &RequestId) -> Option<Self> {
        let (trace_id, parent, flags) = parse_parent(traceparent)?;
        let mut span_id = derived(request, "span", 8);
        // A span must not be its own parent. No caller can want this; it costs nothing to rule it out.
        if span_id == parent {
            span_id = derived(request, "span2", 8);
        }
        Some(Self { trace_id: trace_id.to_owned(), span_id, flags: flags & KNOWN_FLAGS })
    }

    /// The first span of a new trace, where the workspace wants one for requests that came without.
    pub fn started_by(request: &RequestId) -> Self {
        let trace_id = derived(request, "trace", 16);
        // Sampled, so that the provider's side is seen; the id is a hash and so as good as random.
        Self { trace_id, span_id: derived(request, "span", 8), flags: KNOWN_FLAGS }
    }

    /// The `traceparent` for the provider.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Trace id, parent id and flags. A version above 00 may have more fields, which are not looked at.
fn parse_parent(text: &str) -> Option<(&str, &str, u8)> {
    let text = text.trim();
    let mut fields = text.split('-');
    let (version, trace, parent, flags) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let has_more = fields.next().is_some();
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && !(version == "00" && has_more)
        && is_id(trace, 32)
        && is_id(parent, 16)
        && is_hex(flags, 2);
    let flags = u8::from_str_radix(flags, 16).ok()?;
    is_valid.then_some((trace, parent, flags))
}

/// The caller's `tracestate` as it is passed on: whole entries from the left, up to 512 characters. One that breaks the
/// specification's form is dropped as a whole, and the trace goes on without it.
pub fn passed_state(text: &str) -> Option<String> {
    let mut keys = Vec::new();
    let mut passed = String::new();
    let mut is_full = false;
    for entry in text.split(',').map(|entry| entry.trim_matches([' ', '\t'])) {
        if entry.is_empty() {
            continue;
        }
        let (key, value) = entry.split_once('=')?;
        if !is_state_key(key) || !is_state_value(value) || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        if keys.len() > STATE_MAX_ENTRIES {
            return None;
        }
        is_full |= passed.len() + entry.len() + 1 > STATE_MAX_CHARS;
        if !is_full {
            if !passed.is_empty() {
                passed.push(',');
            }
            passed.push_str(entry);
        }
    }
    (!passed.is_empty()).then_some(passed)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Hex, and not all zeros.
fn is_id(text: &str, digits: usize) -> bool {
    is_hex(text, digits) && text.bytes().any(|b| b != b'0')
}

fn is_state_key(key: &str) -> bool {
    let starts = key.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let known = |b: u8| {
        b.is_ascii_lowercase()
            || b.is_ascii_digit()
            || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    starts && key.len() <= KEY_MAX_CHARS && key.bytes().all(known)
}

fn is_state_value(value: &str) -> bool {
    let known = |b: u8| matches!(b, 0x20..=0x7e) && b != b',' && b != b'=';
    !value.is_empty() && value.len() <= VALUE_MAX_CHARS && value.bytes().all(known)
}

/// An id that follows from the request's: no more randomness is needed, and each part of the gateway finds the same.
fn derived(request: &RequestId, what: &str, bytes: usize) -> String {
    let digest = Sha256::digest(format!("{what}\n{}", request.as_str()));
    crate::hex::hex(digest.iter().take(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request() -> RequestId {
        RequestId::mint(crate::time::Timestamp::from_ms(1_790_000_000_000), &[7; 10])
    }

    #[test]
    fn a_span_keeps_the_trace_and_has_an_id_of_its_own() {
        let span = Span::under(PARENT, &request()).unwrap();
        assert_eq!(span.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_ne!(span.span_id, "00f067aa0ba902b7");
        assert!(is_id(&span.span_id, 16));
        let passed = span.traceparent();
        assert_eq!(passed, format!("00-{}-{}-01", span.trace_id, span.span_id));
        assert_eq!(Span::under(&passed, &request()).unwrap().trace_id, span.trace_id);
        let own_child = Span::under(&passed, &request()).unwrap();
        assert_ne!(own_child.span_id, span.span_id, "no span is its own parent");
    }

    #[test]
    fn flags_are_kept_where_they_are_known() {
        for (sent, kept) in [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("fc", 0)] {
            let text = format!("{}{sent}", PARENT.strip_suffix("01").unwrap());
            assert_eq!(Span::under(&text, &request()).unwrap().flags, kept, "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        let later = PARENT.replacen("00-", "cc-", 1);
        assert!(Span::under(&later, &request()).is_some());
        assert!(Span::under(&format!("{later}-what-comes-later"), &request()).is_some());
        for text in [
            "",
            "00",
            "-",
            "---",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-+1",
        ] {
            assert_eq!(Span::under(text, &request()), None, "{text:?}");
        }
    }

    #[test]
    fn a_trace_that_is_started_is_the_same_wherever_it_is_asked_for() {
        let span = Span::started_by(&request());
        assert_eq!(span, Span::started_by(&request()));
        assert!(is_id(&span.trace_id, 32) && is_id(&span.span_id, 16));
        assert!(parse_parent(&span.traceparent()).is_some());
    }

    #[test]
    fn a_state_is_passed_on_as_it_came() {
        for (sent, passed) in [
            ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"),
            (" a=1 ,\t, b@x=y z ", "a=1,b@x=y z"),
            ("0start=v", "0start=v"),
        ] {
            assert_eq!(passed_state(sent).as_deref(), Some(passed), "{sent}");
        }
        for sent in ["", ",", "a", "=1", "a=", "A=1", "a=1,a=2", "a=b=c", "a=\u{e9}", "_a=1"] {
            assert_eq!(passed_state(sent), None, "{sent}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        assert_eq!(passed_state(&many.join(",")), None);
        assert!(passed_state(&many[..32].join(",")).is_some());
    }

    #[test]
    fn a_long_state_loses_whole_entries_from_its_end() {
        let long = "v".repeat(250);
        let sent = format!("a={long},b={long},c=short,d={long}");
        assert_eq!(passed_state(&sent).unwrap(), format!("a={long},b={long}"));
    }
}
