//! Tests of the event reader.

use super::*;
use proptest::prelude::*;

type Read = (String, String, bool);

fn read(chunks: &[&[u8]], limit: usize) -> Vec<Read> {
    let mut reader = SseReader::with_limit(limit);
    let mut events = Vec::new();
    for chunk in chunks {
        reader.push(chunk, |event| {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            assert!(event.end <= chunk.len() && event.start.is_none_or(|start| start <= event.end));
            events.push((text(event.name), text(event.data), event.oversized));
        });
    }
    events
}

fn check(stream: &str, expect: &[(&str, &str)]) {
    let expect: Vec<Read> =
        expect.iter().map(|(name, data)| (name.to_string(), data.to_string(), false)).collect();
    for size in 1..=stream.len() {
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        assert_eq!(read(&chunks, 1000), expect, "{stream:?} in chunks of {size}");
    }
}

#[test]
fn events_are_read_the_same_however_the_stream_is_cut() {
    check("data: a\n\ndata: b\n\n", &[("", "a"), ("", "b")]);
    check("data: a\r\n\r\ndata:b\r\n\r\n", &[("", "a"), ("", "b")]);
    check("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]);
    check("event: x\ndata: a\ndata:  b\n\n", &[("x", "a\n b")]);
    check(": comment\n\n: more\ndata: a\n\n\n\n", &[("", "a")]);
    check("\u{feff}data: ü€😀\n\n", &[("", "ü€😀")]);
    check("data\n\ndata: \n\n", &[("", ""), ("", "")]);
    check("id: 1\nretry: 5\nother: x\ndata: a\n\n", &[("", "a")]);
    check("event: only\n\ndata: a\n\n", &[("", "a")]);
    check("data: never ended", &[]);
    check("data: never ended\n", &[]);
}

#[test]
fn event_says_where_it_began_and_ended_in_the_chunk() {
    let mut reader = SseReader::default();
    let mut seen = Vec::new();
    for chunk in [&b"data: a\n\ndata: b"[..], b"\n\ndata: c\r\n\r", b"\ndata: d\n\n"] {
        reader.push(chunk, |event| seen.push((event.start, event.end, event.ends_in_cr)));
    }
    assert_eq!(
        seen,
        [(Some(0), 9, false), (None, 2, false), (Some(2), 12, true), (Some(1), 10, false)]
    );
}

#[test]
fn oversized_event_keeps_only_its_end_and_the_next_event_is_whole() {
    let large = "x".repeat(200_000);
    let stream = format!("event: big\ndata: {large}END\n\ndata: next\n\n");
    for size in [1, 7, 1000, 65_536, stream.len()] {
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        let events = read(&chunks, 1000);
        assert_eq!(events.len(), 2, "{size}");
        assert_eq!(events[0].0, "big", "{size}");
        assert!(events[0].1.ends_with("xEND") && events[0].2, "{size}");
        assert_eq!(events[1], (String::new(), "next".into(), false), "{size}");
    }
}

proptest! {
    #[test]
    fn reading_never_depends_on_the_cuts(
        stream in "(data|event|: c|x|d)?(: ?)?[a€\r\n]{0,6}(\r|\n|\r\n){0,3}(data: [b{}\"\r\n]{0,9}){0,4}\n\n",
        size in 1_usize..9,
    ) {
        let whole = read(&[stream.as_bytes()], 1000);
        let chunks: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
        prop_assert_eq!(read(&chunks, 1000), whole);
    }

    #[test]
    fn reading_never_panics_and_ranges_never_overlap(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
    ) {
        let mut reader = SseReader::with_limit(16);
        for chunk in &chunks {
            let mut last = 0;
            reader.push(chunk, |event| {
                assert!(event.start.is_none_or(|start| start >= last) && event.end >= last);
                last = event.end;
            });
        }
    }
}
