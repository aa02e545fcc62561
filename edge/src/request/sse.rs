//! Server-sent events, read from chunks that may be cut anywhere. Owns line ends, fields and event borders; never knows
//! what an event means.
//!
//! It only reads along: the bytes that the client gets are the provider's. So each event says where in the current chunk
//! it began and ended, and a filter can leave out exactly one event.

use memchr::memchr2;

/// An event larger than this is passed on but not kept for parsing: memory of an isolate is bounded.
pub const EVENT_LIMIT: usize = 1 << 20;
/// Of an oversized event the last bytes are kept: that is where a provider's final event has its usage.
pub const OVERSIZED_TAIL: usize = 16 << 10;

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field, empty when there was none.
    pub name: &'a [u8],
    /// The `data:` lines, joined by newlines. Of an oversized event, its last [`OVERSIZED_TAIL`] bytes at least.
    pub data: &'a [u8],
    /// Where the event began in this chunk; `None` when it began in an earlier one.
    pub start: Option<usize>,
    /// Where it ended in this chunk: just past the empty line.
    pub end: usize,
    /// The empty line ended in a carriage return at the very end of the chunk: a line feed that comes next is part of it.
    pub ends_in_cr: bool,
    /// Too large to be kept whole.
    pub oversized: bool,
}

/// Reads events out of a stream of chunks.
#[derive(Debug)]
pub struct SseReader {
    limit: usize,
    /// A line that the chunk cut.
    line: Vec<u8>,
    /// Length of that line, also when it is too long to be kept.
    line_len: usize,
    /// Data of the event so far, apart from a data line that can still be borrowed from the chunk.
    data: Vec<u8>,
    has_data: bool,
    name: Vec<u8>,
    event_len: usize,
    after_cr: bool,
    at_stream_start: bool,
    /// Bytes of the current event have been seen in an earlier chunk.
    open: bool,
}

impl Default for SseReader {
    fn default() -> Self {
        Self::with_limit(EVENT_LIMIT)
    }
}

impl SseReader {
    /// A reader that keeps no event larger than `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            line_len: 0,
            data: Vec::new(),
            has_data: false,
            name: Vec::new(),
            event_len: 0,
            after_cr: false,
            at_stream_start: true,
            open: false,
        }
    }

    /// Reads a chunk and hands each event that ends in it to `on_event`.
    ///
    /// Returns where in the chunk the event begins that is not over yet: the chunk's length if there is none, `None` if it began
    /// in an earlier chunk. Blocks without data (comments) end like events, but are not handed on.
    pub fn push(&mut self, chunk: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Option<usize> {
        let mut at = usize::from(self.after_cr && chunk.first() == Some(&b'\n'));
        if !chunk.is_empty() {
            self.after_cr = false;
        }
        let mut start = (!self.open).then_some(at);
        // The one data line of the event, while it can be borrowed: nearly every event has just one.
        let mut borrowed: Option<&[u8]> = None;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            self.open = true;
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.keep_partial_line(rest);
                break;
            };
            let (piece, line_end) = rest.split_at(found);
            let is_cr = line_end.first() == Some(&b'\r');
            let is_crlf = is_cr && line_end.get(1) == Some(&b'\n');
            at = at.saturating_add(found).saturating_add(if is_crlf { 2 } else { 1 });
            let ends_in_cr = is_cr && !is_crlf && at == chunk.len();
            self.after_cr = ends_in_cr;

            let line_len = self.line_len.saturating_add(piece.len());
            if line_len == 0 {
                if let Some(data) = borrowed.take() {
                    self.emit(Some(data), start, at, ends_in_cr, &mut on_event);
                } else if self.has_data {
                    self.emit(None, start, at, ends_in_cr, &mut on_event);
                }
                self.begin_event();
                start = Some(at);
                continue;
            }
            self.event_len = self.event_len.saturating_add(line_len);
            if self.line_len == 0 {
                self.take_line(piece, &mut borrowed);
            } else {
                self.keep_partial_line(piece);
                let line = std::mem::take(&mut self.line);
                self.take_cut_line(&line);
                self.line = line;
                self.line.clear();
            }
            self.line_len = 0;
        }
        if let Some(data) = borrowed {
            self.append(data);
        }
        start
    }

    fn begin_event(&mut self) {
        self.data.clear();
        self.name.clear();
        self.has_data = false;
        self.event_len = 0;
        self.line_len = 0;
        self.line.clear();
        self.open = false;
    }

    fn keep_partial_line(&mut self, piece: &[u8]) {
        self.line_len = self.line_len.saturating_add(piece.len());
        self.line.extend_from_slice(piece);
        self.shed();
    }

    /// Keeps memory bounded: of what is beyond the limit only the end is kept.
    fn shed(&mut self) {
        for buffer in [&mut self.line, &mut self.data] {
            if buffer.len() > self.limit.saturating_add(OVERSIZED_TAIL.saturating_mul(2)) {
                let surplus = buffer.len().saturating_sub(OVERSIZED_TAIL);
                buffer.drain(..surplus);
            }
        }
    }

    fn take_line<'c>(&mut self, line: &'c [u8], borrowed: &mut Option<&'c [u8]>) {
        match self.field(line) {
            Field::Data(value) => {
                if self.has_data || borrowed.is_some() {
                    if let Some(first) = borrowed.take() {
                        self.append(first);
                    }
                    self.append(value);
                } else {
                    *borrowed = Some(value);
                }
            }
            Field::Name(value) => self.set_name(value),
            Field::Other => {}
        }
    }

    fn take_cut_line(&mut self, line: &[u8]) {
        // A line that lost its beginning to the limit has no field name any more: its end is data.
        let lost_beginning = line.len() < self.line_len;
        match if lost_beginning { Field::Data(line) } else { self.field(line) } {
            Field::Data(value) => self.append(value),
            Field::Name(value) => self.set_name(value),
            Field::Other => {}
        }
    }

    fn set_name(&mut self, value: &[u8]) {
        self.name.clear();
        self.name.extend_from_slice(value);
    }

    fn append(&mut self, value: &[u8]) {
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
        self.shed();
    }

    fn emit(
        &self,
        borrowed: Option<&[u8]>,
        start: Option<usize>,
        end: usize,
        ends_in_cr: bool,
        on_event: &mut impl FnMut(Event<'_>),
    ) {
        on_event(Event {
            name: &self.name,
            data: borrowed.unwrap_or(&self.data),
            start,
            end,
            ends_in_cr,
            oversized: self.event_len > self.limit,
        });
    }

    fn field<'l>(&mut self, line: &'l [u8]) -> Field<'l> {
        let line = if std::mem::take(&mut self.at_stream_start) {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        } else {
            line
        };
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => {
                let (name, rest) = line.split_at(colon);
                let value = rest.strip_prefix(b":").unwrap_or(rest);
                (name, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match name {
            b"data" => Field::Data(value),
            b"event" => Field::Name(value),
            // Comments have an empty name; `id` and `retry` say nothing about usage.
            _ => Field::Other,
        }
    }
}

enum Field<'l> {
    Data(&'l [u8]),
    Name(&'l [u8]),
    Other,
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
