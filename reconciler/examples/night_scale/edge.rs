//! A gateway that is played: a day of as many requests as wanted, made while they are asked for, by 50,000 users of 20
//! models. It runs on a thread of its own, whose time is not the night's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

const USERS: u64 = 50_000;
const MODELS: u64 = 20;
/// 2026-11-20.
const DAY_MS: u64 = 20_777 * 86_400_000;
pub(crate) const DAY: &str = "2026-11-20";
const KEY: &str = "0123456789abcdef";

/// One request: who, what, and tokens on three meters.
pub(crate) struct Request {
    user: u64,
    model: u64,
    tokens: [u64; 3],
}

pub(crate) const METERS: [&str; 3] = ["in", "cached", "out"];

impl Request {
    /// The same number is always the same request.
    pub(crate) fn numbered(number: u64) -> Self {
        let mut state = number;
        let mut roll = |sides: u64| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            (mixed ^ (mixed >> 31)) % sides
        };
        let (user, model) = (roll(USERS), roll(MODELS));
        Self { user, model, tokens: [100 + roll(4000), roll(2000), 20 + roll(800)] }
    }

    /// What each meter costs, in nanodollars.
    pub(crate) fn nanos(&self) -> [u64; 3] {
        let [input, cached, output] = self.tokens;
        let model = self.model;
        [input * (2500 + model), cached * (250 + model), output * (10_000 + model)]
    }

    fn line(&self, number: u64, into: &mut String) {
        let Self { user, model, tokens: [input, cached, output] } = self;
        let at = DAY_MS + number % 86_000_000;
        let [of_input, of_cached, of_output] = self.nanos().map(dollars);
        let total = dollars(self.nanos().iter().sum());
        let _ = writeln!(
            into,
            r#"{{"v":1,"id":"req_{number:032x}","seq":{number},"workspace":"ws_acme","key":"{KEY}","at":{at},"settled_at":{at},"key_name":"ci","owner":"ann","cost_centre":"cc-1","purpose":"","environment":"production","actor":{{"team":"team-{:03}","app":"shop","user":"user-{user:06}","customer":"customer-{:05}"}},"endpoint":"/v1/chat/completions","stream":false,"requested_model":"small","provider":"oa","model":"m","response_model":"m-2026-01-02","attempts":[{{"provider":"oa","model":"m","status":200,"started_ms":1,"took_ms":640}}],"outcome":"completed","status":200,"usage":{{"source":"reported","tally":{{"tokens":{{"input":{input},"cache_read":{cached},"output":{output}}}}}}},"cost":{{"total":"{total}","parts":{{"input":"{of_input}","cache_read":"{of_cached}","output":"{of_output}"}},"price":{{"row":"openai/model-{model:02}","book":"2026-11-20.1","tier":"standard"}}}},"charged":"{total}","hold":"1","duration_ms":812}}"#,
            user % 400,
            user % 2000,
        );
    }
}

fn dollars(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// What the provider bills, by model and meter: nanodollars and tokens.
pub(crate) fn billed(events: u64) -> BTreeMap<(u64, usize), (u64, u64)> {
    let mut sums: BTreeMap<(u64, usize), (u64, u64)> = BTreeMap::new();
    for number in 0..events {
        let request = Request::numbered(number);
        for (meter, (nanos, tokens)) in request.nanos().iter().zip(request.tokens).enumerate() {
            let sum = sums.entry((request.model, meter)).or_default();
            sum.0 += nanos;
            sum.1 += tokens;
        }
    }
    sums
}

/// A played gateway.
#[derive(Clone, Default)]
pub(crate) struct Played {
    /// Nanoseconds of processor time that it took.
    busy: Arc<AtomicU64>,
    /// Lines of the books that it was told.
    pub(crate) told: Arc<AtomicU64>,
    pub(crate) sent: Arc<AtomicU64>,
}

impl Played {
    /// Starts it. Its address.
    pub(crate) fn start(&self, events: u64) -> std::io::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let played = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A caller that goes away in the middle is no failure.
                let _ = played.answer(stream, events);
                played.busy.store(processor_ns("/proc/thread-self/schedstat"), Ordering::Relaxed);
            }
        });
        Ok(address)
    }

    /// Milliseconds of processor time that it took.
    pub(crate) fn busy_ms(&self) -> u64 {
        self.busy.load(Ordering::Relaxed) / 1_000_000
    }

    fn answer(&self, mut stream: TcpStream, events: u64) -> std::io::Result<()> {
        let mut from = BufReader::new(stream.try_clone()?);
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        from.read_line(&mut first)?;
        loop {
            line.clear();
            from.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body)?;
        let path = first.split(' ').nth(1).unwrap_or_default();
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        if let Some(query) = path.split("/events?").nth(1) {
            return self.export(stream, query, events);
        }
        if path.ends_with("/true-ups") {
            let items: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&body)?;
            self.told.fetch_add(items.len() as u64, Ordering::Relaxed);
        }
        let answer = if path.ends_with("/context") {
            r#"{"workspace":"ws_acme","config_version":1,"budgets":{},"prices":[],"providers":{"oa":{"price_book":"openai"}}}"#
        } else {
            "{}"
        };
        stream.write_all(answer.as_bytes())
    }

    fn export(&self, mut to: TcpStream, query: &str, events: u64) -> std::io::Result<()> {
        let events = if query.starts_with(&format!("day={DAY}")) { events } else { 0 };
        let after = query.split("after=req_").nth(1).and_then(|text| text.get(..32));
        let first = after.and_then(|id| u64::from_str_radix(id, 16).ok()).map_or(0, |id| id + 1);
        let (mut hash, mut text) = (Sha256::new(), String::new());
        for number in first..events {
            Request::numbered(number).line(number, &mut text);
            if text.len() > 1 << 16 || number + 1 == events {
                hash.update(&text);
                to.write_all(text.as_bytes())?;
                self.sent.fetch_add(text.len() as u64, Ordering::Relaxed);
                text.clear();
                self.busy.store(processor_ns("/proc/thread-self/schedstat"), Ordering::Relaxed);
            }
        }
        let sha256 = tallygate_shared::hex::hex(hash.finalize().as_slice());
        let lines = events.saturating_sub(first);
        writeln!(to, r#"{{"end":true,"lines":{lines},"sha256":"{sha256}"}}"#)
    }
}

/// Nanoseconds of processor time, as the system counts them.
pub(crate) fn processor_ns(file: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}
