//! Fills a Ledger's database with a month of requests by the Ledger's own code, for `make bench-pages`: the file of an
//! object that the runtime has made, and is not running on.
//!
//! `fill_ledger <file> <first ms> <last ms> <events> <rollup rows>`. Each event that is kept stands for five requests:
//! the other four were let go, and are in the sums. A fifth of those that are kept have outcomes.

use std::fmt::Write;
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};
use serde_json::{Value, json};
use tallygate_edge::objects::ledger_object::LedgerObject;
use tallygate_edge::objects::sql::{Row, Sql, SqlError};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
const BATCH: u64 = 20_000;
const TEAMS: u64 = 8;
const FEATURES: u64 = 25;
const KEYS: u64 = 40;
const SESSIONS: u64 = 500_000;
/// Of so many requests one has an outcome.
const JUDGED: u64 = 5;
/// Of so many requests one has a session with an outcome.
const TOLD: u64 = 500;
const MODELS: [(&str, &str); 6] = [
    ("openai", "gpt-6-luna"),
    ("openai", "gpt-6-sol"),
    ("anthropic", "claude-5-haiku"),
    ("anthropic", "claude-5-sonnet"),
    ("gemini", "gemini-4-flash"),
    ("mistral", "mistral-large-4"),
];

type Failure = Box<dyn std::error::Error>;

/// An SQLite file. A clone is the same one.
#[derive(Clone)]
struct File(Rc<Connection>);

impl Sql for File {
    fn exec(&self, statement: &str, params: &[Option<&str>]) -> Result<Vec<Row>, SqlError> {
        let broken = |e: rusqlite::Error| SqlError(e.to_string());
        let mut prepared = self.0.prepare_cached(statement).map_err(broken)?;
        let columns = prepared.column_count();
        let mut rows = prepared.query(params_from_iter(params)).map_err(broken)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(broken)? {
            let cell = |column| match row.get_ref(column).map_err(broken)? {
                ValueRef::Text(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
                _ => Ok(None),
            };
            found.push((0..columns).map(cell).collect::<Result<Row, SqlError>>()?);
        }
        Ok(found)
    }
}

/// Numbers that look random and come again.
fn mixed(seed: u64) -> u64 {
    let mut it = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}

/// Who asks whom: one of so many ways, the same in each hour.
struct Way {
    key: u64,
    team: u64,
    feature: u64,
    model: (&'static str, &'static str),
}

fn way(number: u64) -> Way {
    let dice = mixed(number ^ 0x7761_7973);
    let at = usize::try_from(dice % 6).unwrap_or(0);
    Way {
        key: dice / 6 % KEYS,
        team: dice / 600 % TEAMS,
        feature: dice / 60_000 % FEATURES,
        model: MODELS.get(at).copied().unwrap_or(("openai", "gpt-6-luna")),
    }
}

struct Month {
    first_ms: i64,
    hours: u64,
    events: u64,
    ways: u64,
}

impl Month {
    /// When an event is, and which way it goes.
    fn place(&self, seq: u64) -> Result<(i64, u64), Failure> {
        // In the order of time, as events come; in each hour first every way once, then as chance has it.
        let an_hour = self.events.div_ceil(self.hours).max(1);
        let (hour, within) = ((seq - 1) / an_hour, (seq - 1) % an_hour);
        let number = if within < self.ways { within } else { mixed(seq) % self.ways };
        let offset = HOUR_MS * i64::try_from(within)? / i64::try_from(an_hour)?;
        Ok((self.first_ms + i64::try_from(hour)? * HOUR_MS + offset, number))
    }

    /// What is said of some events' requests: of one in [`JUDGED`], and of the sessions of one in [`TOLD`], of which most
    /// have several models and owners.
    fn outcomes(&self, first: u64, last: u64) -> Result<Vec<Value>, Failure> {
        let mut sent = Vec::new();
        for seq in first..=last {
            let dice = mixed(seq);
            let (at, number) = self.place(seq)?;
            let Way { key, team, .. } = way(number);
            let subject = if dice.is_multiple_of(TOLD) && team != 0 {
                json!({ "session": format!("s{}", dice % SESSIONS) })
            } else if dice.is_multiple_of(JUDGED) {
                json!({ "request": format!("req_{at:012x}7{seq:019x}") })
            } else {
                continue;
            };
            let verdict = if dice.is_multiple_of(7) { "rejected" } else { "accepted" };
            sent.push(json!({ "place": sent.len(), "dated": false, "event": {
                "v": 1, "workspace": "ws_bench", "key": format!("{key:016}"), "subject": subject, "outcome": verdict,
                "value_usd": "1.5", "at": at + 60_000, "recorded_at": at + 60_000, "owner": format!("owner-{}", key % 12),
                "cost_centre": format!("cc-{}", key % 10), "environment": "production" } }));
        }
        Ok(sent)
    }

    fn event(&self, into: &mut String, seq: u64) -> Result<(), Failure> {
        let dice = mixed(seq);
        let (at, number) = self.place(seq)?;
        let Way { key, team, feature, model: (provider, model) } = way(number);
        let (input, cached, output) = (200 + dice % 9_000, dice / 11 % 2_000, 20 + dice / 13 % 900);
        let nanos = input * 1_250 + cached * 125 + output * 10_000;
        let usd = |nanos: u64| format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
        let refused = dice.is_multiple_of(97);
        let (outcome, code) =
            if refused { ("refused", ",\"code\":\"budget_exceeded\"") } else { ("completed", "") };
        let charged = if refused { "0".to_owned() } else { usd(nanos) };
        // What has no team is unallocated.
        let actor = if team == 0 {
            "{}".to_owned()
        } else {
            format!(
                "{{\"team\":\"team-{team}\",\"feature\":\"feature-{feature}\",\"user\":\"user-{}\",\"session\":\"s{}\"}}",
                number % 9,
                dice % SESSIONS
            )
        };
        write!(
            into,
            "{{\"v\":1,\"id\":\"req_{at:012x}7{seq:019x}\",\"seq\":{seq},\"workspace\":\"ws_bench\",\
             \"key\":\"{key:016}\",\"at\":{at},\"settled_at\":{},\"key_name\":\"key-{key}\",\"owner\":\"owner-{}\",\
             \"cost_centre\":\"cc-{}\",\"purpose\":\"bench\",\"environment\":\"production\",\"actor\":{actor},\
             \"endpoint\":\"/v1/chat/completions\",\"stream\":true,\"requested_model\":\"{model}\",\
             \"provider\":\"{provider}\",\"model\":\"{model}\",\"response_model\":\"{model}-2026-10-01\",\
             \"provider_request_id\":\"chatcmpl-{dice:016x}\",\
             \"attempts\":[{{\"provider\":\"{provider}\",\"model\":\"{model}\",\"status\":200,\"started_ms\":3,\
             \"took_ms\":{}}}],\"outcome\":\"{outcome}\"{code},\"status\":{},\
             \"usage\":{{\"source\":\"reported\",\"tally\":{{\"tokens\":{{\"input\":{input},\"cache_read\":{cached},\
             \"output\":{output}}}}}}},\"charged\":\"{charged}\",\"hold\":\"0.25\",\"duration_ms\":{},\
             \"first_byte_ms\":{},\"sampled\":5}}",
            at + 900,
            key % 12,
            key % 10,
            dice % 700,
            if refused { 429 } else { 200 },
            300 + dice % 9_000,
            100 + dice % 700,
        )?;
        Ok(())
    }

    /// A bill for each way of each day but the last three.
    fn true_ups(&self, ledger: &LedgerObject<File>) -> Result<(), Failure> {
        let days = i64::try_from(self.hours / 24)? - 3;
        for day in 0..days {
            let date =
                tallygate_shared::time::Timestamp::from_ms(self.first_ms + day * DAY_MS).date();
            let mut lines = Vec::new();
            for number in 0..self.ways {
                let Way { key, team, feature, model: (provider, model) } = way(number);
                for meter in ["input", "cache_read", "output"] {
                    let owner = json!({ "team": format!("team-{team}"), "feature": format!("feature-{feature}"),
                        "key": format!("{key:016}"), "cost_centre": format!("cc-{}", key % 10), "owner": "o" });
                    lines.push(json!({ "day": date.to_string(), "provider": provider,
                        "line": format!("{number}-{meter}"), "revision": 1, "model": model, "meter": meter,
                        "kind": "usage", "owner": owner, "estimated": "0.5", "billed": "0.51",
                        "quantity_variance": "0.004", "price_variance": "0.006", "provisional": day + 3 > days }));
                }
            }
            ledger.true_up(&json!(lines).to_string())?;
        }
        Ok(())
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, first, last, events, rollups] = arguments.as_slice() else {
        return Err("give: file, first ms, last ms, events, rollup rows".into());
    };
    let (first_ms, last_ms): (i64, i64) = (first.parse()?, last.parse()?);
    let (events, rollups): (u64, u64) = (events.parse()?, rollups.parse()?);
    let hours = u64::try_from((last_ms - first_ms) / HOUR_MS)?.max(1);
    let month = Month { first_ms, hours, events, ways: (rollups / hours).max(1) };
    let file = File(Rc::new(Connection::open(path)?));
    file.0.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
        PRAGMA cache_size = -600000;",
    )?;
    file.0.set_prepared_statement_cache_capacity(64);
    let ledger = LedgerObject::open(file.clone())?;
    let mut next = 0;
    while next < events {
        let end = (next + BATCH).min(events);
        let mut text = "{\"meter\":\"0000000000000001\",\"events\":[".to_owned();
        for seq in next + 1..=end {
            month.event(&mut text, seq)?;
            text.push(if seq == end { ']' } else { ',' });
        }
        text.push('}');
        file.0.execute_batch("BEGIN")?;
        ledger.apply(&text)?;
        ledger.record_outcomes(&json!(month.outcomes(next + 1, end)?).to_string())?;
        file.0.execute_batch("COMMIT")?;
        next = end;
    }
    file.0.execute_batch("BEGIN")?;
    month.true_ups(&ledger)?;
    file.0.execute_batch("COMMIT")?;
    // As the runtime keeps it.
    file.0.execute_batch("PRAGMA journal_mode = WAL;")?;
    Ok(())
}
