//! Outcomes: what became of a request, or of a session of requests, in the eyes of who asked. With the money spent on
//! them they say what an accepted outcome costs.
//!
//! A caller reports one ([`read_reports`]); with who the caller is it becomes an [`OutcomeEvent`].

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::identity::actor::{Actor, check_value};
use crate::ids::{KeyId, RequestId, WorkspaceId};
use crate::money::Usd;
use crate::time::{DAY_MS, Timestamp};

/// The version of this format. A change of meaning takes a new number and a migration.
pub const OUTCOME_EVENT_VERSION: u32 = 1;

/// Outcomes in one call.
pub const MAX_REPORTS: usize = 100;
/// The longest label, in characters.
const LABEL_MAX_CHARS: usize = 64;
/// The largest value of one outcome: 10^6 USD are 10^18 picodollars, which 64 bits hold.
const VALUE_MAX: Usd = Usd::from_nanos(1_000_000_000_000_000);
/// How far ahead of this clock the caller's may be.
const AHEAD_MAX_MS: i64 = 5 * 60_000;
/// How long after the fact an outcome may be reported.
const REPORT_AGE_MAX_DAYS: i64 = 40;
/// How old the request itself may be: a year, and a month for what takes long to be judged.
const REQUEST_AGE_MAX_DAYS: i64 = 400;

/// Whether the result was of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was taken.
    Accepted,
    /// It was not.
    Rejected,
}

/// What an outcome is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// One request.
    Request(RequestId),
    /// All requests of one session and key.
    Session(String),
}

/// What a caller says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeReport {
    /// Of what.
    pub subject: Subject,
    /// The verdict.
    pub outcome: Verdict,
    /// What it was worth.
    pub value_usd: Option<Usd>,
    /// Tells several outcomes of one subject apart.
    pub label: Option<String>,
    /// When it was decided; `None`: now.
    pub at: Option<Timestamp>,
}

/// One outcome as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OutcomeEvent {
    /// [`OUTCOME_EVENT_VERSION`].
    pub v: u32,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The gateway key that reported it, and that the request was made with.
    pub key: KeyId,
    /// Of what.
    pub subject: Subject,
    /// Tells several outcomes of one subject apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The verdict.
    pub outcome: Verdict,
    /// What it was worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_usd: Option<Usd>,
    /// When it was decided. Of two different outcomes of one subject and label, the later counts.
    pub at: Timestamp,
    /// When the gateway heard of it.
    pub recorded_at: Timestamp,
    /// Who answers for the key.
    pub owner: String,
    /// Who pays.
    pub cost_centre: String,
    /// The key's environment.
    pub environment: String,
    /// Who reported it: what the key fixes and what a signed token said. What both leave open is taken from the
    /// request itself.
    #[serde(default)]
    pub actor: Actor,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ReportError {
    /// The field, with its place in an array: `[2].at`.
    pub field: Option<String>,
    /// What is wrong with it, and what to do.
    pub detail: String,
}

/// The reports of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reports {
    /// They came as an array.
    pub listed: bool,
    /// In order; never empty.
    pub reports: Vec<OutcomeReport>,
}

impl OutcomeEvent {
    /// Whether this takes the place of `stored`, an outcome of the same subject and label. `dated`: the caller gave
    /// `at`. The same again changes nothing, whenever it is said; of different ones the later counts.
    pub fn replaces(&self, stored: &Self, dated: bool) -> bool {
        let same = self.outcome == stored.outcome && self.value_usd == stored.value_usd;
        let repeated = same && (!dated || self.at == stored.at);
        !repeated && self.at >= stored.at
    }

    /// The moment that the outcome counts at: the request's own, so that it meets its cost; a session's is when it was
    /// decided.
    pub fn counts_at(&self) -> Timestamp {
        match &self.subject {
            Subject::Request(id) => id.minted_at(),
            Subject::Session(_) => self.at,
        }
    }
}

/// The body as the caller wrote it. Every field is looked at by itself, so that its error can name it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    request: Option<Value>,
    session: Option<Value>,
    outcome: Option<Value>,
    value_usd: Option<Value>,
    label: Option<Value>,
    at: Option<Value>,
}

/// Reads a call's body: one report or an array of them. `now` bounds the times in it.
pub fn read_reports(body: &str, now: Timestamp) -> Result<Reports, ReportError> {
    let invalid = |place: &str, error: &serde_json::Error| ReportError {
        field: None,
        detail: format!("The body{place} is no outcome: {error}."),
    };
    if !body.trim_start().starts_with('[') {
        let fields: Fields = serde_json::from_str(body).map_err(|e| invalid("", &e))?;
        return Ok(Reports { listed: false, reports: vec![fields.report("", now)?] });
    }
    let items: Vec<&RawValue> = serde_json::from_str(body).map_err(|e| invalid("", &e))?;
    if items.is_empty() || items.len() > MAX_REPORTS {
        let detail = format!("The array has {} outcomes. Send 1 to {MAX_REPORTS}.", items.len());
        return Err(ReportError { field: None, detail });
    }
    let reports = items.iter().enumerate().map(|(place, item)| {
        let place = format!("[{place}]");
        let fields: Fields = serde_json::from_str(item.get()).map_err(|e| invalid(&place, &e))?;
        fields.report(&format!("{place}."), now)
    });
    Ok(Reports { listed: true, reports: reports.collect::<Result<_, _>>()? })
}

impl Fields {
    fn report(self, place: &str, now: Timestamp) -> Result<OutcomeReport, ReportError> {
        let wrong = |field: &str, problem: &str| ReportError {
            field: Some(format!("{place}{field}")),
            detail: format!("`{place}{field}` {problem}"),
        };
        let subject = match (self.request, self.session) {
            (Some(id), None) => request(&id, now).map_err(|e| wrong("request", &e))?,
            (None, Some(name)) => session(&name).map_err(|e| wrong("session", &e))?,
            (Some(_), Some(_)) => {
                return Err(wrong("session", "came with `request`. Send exactly one of them."));
            }
            (None, None) => {
                return Err(wrong("request", "is missing. Send `request` or `session`."));
            }
        };
        let outcome = match self.outcome.as_ref().map(Value::as_str) {
            Some(Some("accepted")) => Verdict::Accepted,
            Some(Some("rejected")) => Verdict::Rejected,
            Some(_) => {
                return Err(wrong("outcome", "is not known. Send `accepted` or `rejected`."));
            }
            None => return Err(wrong("outcome", "is missing. Send `accepted` or `rejected`.")),
        };
        let value_usd = self.value_usd.as_ref().map(value).transpose();
        let label = self.label.as_ref().map(label).transpose();
        let at = self.at.as_ref().map(|at| moment(at, now)).transpose();
        Ok(OutcomeReport {
            subject,
            outcome,
            value_usd: value_usd.map_err(|e| wrong("value_usd", &e))?,
            label: label.map_err(|e| wrong("label", &e))?,
            at: at.map_err(|e| wrong("at", &e))?,
        })
    }
}

fn request(id: &Value, now: Timestamp) -> Result<Subject, String> {
    let remedy = "Send the id from `x-tallygate-request-id`.";
    let id = id.as_str().ok_or_else(|| format!("is no text. {remedy}"))?;
    let id = RequestId::parse(id).map_err(|error| format!("{error}. {remedy}"))?;
    let at = id.minted_at();
    if at > now.plus_ms(AHEAD_MAX_MS) || at < now.plus_ms(-REQUEST_AGE_MAX_DAYS * DAY_MS) {
        return Err(format!("is not of the last {REQUEST_AGE_MAX_DAYS} days. {remedy}"));
    }
    Ok(Subject::Request(id))
}

fn session(name: &Value) -> Result<Subject, String> {
    let remedy = "Send the session's name as its actor tokens have it.";
    let name = name.as_str().ok_or_else(|| format!("is no text. {remedy}"))?;
    check_value(name).map_err(|problem| format!("{problem}. {remedy}"))?;
    Ok(Subject::Session(name.to_owned()))
}

fn value(value: &Value) -> Result<Usd, String> {
    let remedy = "Send 0 to 1000000 US dollars as a decimal text, such as \"12.50\".";
    let text = value.as_str().ok_or_else(|| format!("is no text. {remedy}"))?;
    let value: Usd = text.parse().map_err(|error| format!("{error}. {remedy}"))?;
    if value.is_negative() || value > VALUE_MAX {
        return Err(format!("is out of range. {remedy}"));
    }
    Ok(value)
}

fn label(label: &Value) -> Result<String, String> {
    let allowed = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let label = label
        .as_str()
        .filter(|text| (1..=LABEL_MAX_CHARS).contains(&text.len()) && text.bytes().all(allowed));
    label.map(str::to_owned).ok_or_else(|| {
        format!(
            "is no label. Send 1 to {LABEL_MAX_CHARS} characters of a-z, 0-9, `_`, `.` and `-`."
        )
    })
}

fn moment(at: &Value, now: Timestamp) -> Result<Timestamp, String> {
    let remedy = "Send UTC in RFC 3339, such as 2026-11-20T10:00:00Z, or leave it out for now.";
    // A day alone is a time elsewhere; here it would be a guess at the hour.
    let text = at.as_str().filter(|text| text.contains('T'));
    let at = text.and_then(Timestamp::parse).ok_or_else(|| format!("is no time. {remedy}"))?;
    if at > now.plus_ms(AHEAD_MAX_MS) {
        return Err(format!("is more than 5 minutes ahead of {now}. {remedy}"));
    }
    if at < now.plus_ms(-REPORT_AGE_MAX_DAYS * DAY_MS) {
        return Err(format!("is more than {REPORT_AGE_MAX_DAYS} days ago. {remedy}"));
    }
    Ok(at)
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
