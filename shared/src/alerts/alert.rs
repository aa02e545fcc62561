//! An alert: one finding that lasts. It is opened once, counted while it lasts, and opened again only when it went away
//! and came back, when a snooze ends, or when its severity rises.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::money::Usd;
use crate::time::{DAY_MS, HOUR_MS, Timestamp};

/// The longest text of a figure, title or subject, in characters: a message stays far below 20 KB.
const TEXT_MAX_CHARS: usize = 200;
/// The longest reason for a snooze, in characters.
pub const REASON_MAX_CHARS: usize = 500;
/// The longest snooze: 90 days. What nobody wants to hear of for longer is a rule to change.
pub const SNOOZE_MAX_MS: i64 = 90 * DAY_MS;

/// How much it matters, in rising order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    #[default]
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A budget's spending crossed one of its thresholds.
    BudgetThreshold,
    /// A budget is being spent much faster than evenly.
    Pace,
    /// An hour's spending is far above the same hour of earlier weeks.
    Anomaly,
    /// One request cost a lot.
    ExpensiveRequest,
    /// A provider fails too often.
    ProviderErrors,
    /// Nothing prices a model that is asked for.
    UnpricedModel,
    /// A model was used for the first time.
    NewModel,
    /// A key expires soon.
    KeyExpiring,
    /// A key is not used.
    KeyUnused,
    /// A key was used from a network that it was not used from before.
    KeyNewNetwork,
    /// A bill has use that the gateway never saw.
    UnmeteredUsage,
    /// A day's estimate and its bill differ by more than the workspace tolerates.
    BillVariance,
    /// A provider knows a key that the gateway does not hold.
    UnknownCredential,
    /// A night's reconciliation lacks something.
    ReconciliationIncomplete,
}

impl AlertKind {
    /// Every kind, in the order of its declaration.
    pub const ALL: [Self; 14] = [
        Self::BudgetThreshold,
        Self::Pace,
        Self::Anomaly,
        Self::ExpensiveRequest,
        Self::ProviderErrors,
        Self::UnpricedModel,
        Self::NewModel,
        Self::KeyExpiring,
        Self::KeyUnused,
        Self::KeyNewNetwork,
        Self::UnmeteredUsage,
        Self::BillVariance,
        Self::UnknownCredential,
        Self::ReconciliationIncomplete,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BudgetThreshold => "budget_threshold",
            Self::Pace => "pace",
            Self::Anomaly => "anomaly",
            Self::ExpensiveRequest => "expensive_request",
            Self::ProviderErrors => "provider_errors",
            Self::UnpricedModel => "unpriced_model",
            Self::NewModel => "new_model",
            Self::KeyExpiring => "key_expiring",
            Self::KeyUnused => "key_unused",
            Self::KeyNewNetwork => "key_new_network",
            Self::UnmeteredUsage => "unmetered_usage",
            Self::BillVariance => "bill_variance",
            Self::UnknownCredential => "unknown_credential",
            Self::ReconciliationIncomplete => "reconciliation_incomplete",
        }
    }

    /// After how long without being seen again it counts as gone. Where a detector says when it is gone, this is for what
    /// the detector has forgotten: longer than any month.
    pub const fn gone_after_ms(self) -> i64 {
        match self {
            Self::ExpensiveRequest | Self::UnpricedModel => 24 * HOUR_MS,
            Self::NewModel | Self::KeyNewNetwork => 7 * DAY_MS,
            Self::BudgetThreshold
            | Self::Pace
            | Self::Anomaly
            | Self::ProviderErrors
            | Self::KeyExpiring
            | Self::KeyUnused
            | Self::UnmeteredUsage
            | Self::BillVariance
            | Self::UnknownCredential
            | Self::ReconciliationIncomplete => 35 * DAY_MS,
        }
    }
}

/// One typed figure of the evidence: never a part of a prompt or an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Figure {
    /// A count, in the unit that its name ends in.
    Number(i64),
    /// A name or an exact amount.
    Text(String),
}

impl From<i64> for Figure {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Figure {
    fn from(text: &str) -> Self {
        Self::Text(short(text))
    }
}

impl From<Usd> for Figure {
    fn from(amount: Usd) -> Self {
        Self::Text(amount.to_string())
    }
}

impl From<Timestamp> for Figure {
    fn from(at: Timestamp) -> Self {
        Self::Text(at.to_string())
    }
}

/// The figures behind a finding, by name.
pub type Evidence = BTreeMap<String, Figure>;

/// `text` cut to a length that fits a message.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX_CHARS).collect()
}

/// What a detector found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is so.
    Raised(Box<Raised>),
    /// It is so no longer.
    Cleared {
        /// What was found.
        kind: AlertKind,
        /// About what.
        subject: String,
    },
}

/// A finding that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// What was found.
    pub kind: AlertKind,
    /// About what: with the kind, what makes two findings the same alert.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// Who answers for it, where somebody does.
    pub owner: Option<String>,
    /// One sentence.
    pub title: String,
    /// The figures.
    pub evidence: Evidence,
    /// The dashboard's path.
    pub link: String,
    /// How often: more than 1 where one record stands for several requests.
    pub count: u64,
}

impl Raised {
    pub(crate) fn new(kind: AlertKind, subject: &str, severity: Severity, title: &str) -> Self {
        Self {
            kind,
            subject: short(subject),
            severity,
            owner: None,
            title: short(title),
            evidence: Evidence::new(),
            link: "/alerts".to_owned(),
            count: 1,
        }
    }

    pub(crate) fn owner(mut self, owner: &str) -> Self {
        self.owner = (!owner.is_empty()).then(|| short(owner));
        self
    }

    pub(crate) fn link(mut self, link: String) -> Self {
        self.link = link;
        self
    }

    pub(crate) fn with(mut self, name: &str, figure: impl Into<Figure>) -> Self {
        self.evidence.insert(name.to_owned(), figure.into());
        self
    }

    pub(crate) fn found(self) -> Finding {
        Finding::Raised(Box::new(self))
    }
}

/// The stable name of a finding: two findings with the same one are the same alert.
pub fn dedupe_key(kind: AlertKind, subject: &str) -> String {
    format!("{}:{subject}", kind.name())
}

/// The alert's id: `al_` and 24 characters that follow from the dedupe key, so that a link to it lasts.
pub fn alert_id(dedupe: &str) -> String {
    let digest = Sha256::digest(dedupe.as_bytes());
    format!("al_{}", crate::hex::hex(digest.iter().take(12)))
}

/// Where an alert stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Status {
    /// Nobody has taken it.
    Open,
    /// Somebody has.
    Acknowledged {
        /// Who.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// Quiet until a moment.
    Snoozed {
        /// Until when.
        until: Timestamp,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Over.
    Resolved {
        /// Who said so. `None`: it went away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        /// When.
        at: Timestamp,
    },
}

impl Status {
    /// Its name on the wire.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Snoozed { .. } => "snoozed",
            Self::Resolved { .. } => "resolved",
        }
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Its id.
    pub id: String,
    /// What makes two findings the same alert.
    pub dedupe_key: String,
    /// What was found.
    pub kind: AlertKind,
    /// The highest severity since it was opened.
    pub severity: Severity,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// One sentence.
    pub title: String,
    /// The figures of the latest finding.
    pub evidence: Evidence,
    /// The dashboard's path.
    pub link: String,
    /// Where it stands.
    pub status: Status,
    /// Whether it is so still, whatever people said about it.
    pub present: bool,
    /// When it was found first.
    pub first_seen: Timestamp,
    /// When it was found last.
    pub last_seen: Timestamp,
    /// When it was opened last.
    pub opened_at: Timestamp,
    /// How often it was found since it was opened.
    pub count: u64,
}

/// What to tell the receivers about an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// It is new.
    Opened,
    /// It matters more than before.
    Escalated,
    /// It is back, or its snooze is over.
    Reopened,
    /// It is over.
    Resolved,
}

impl Notice {
    /// The message's `type`.
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Opened => "alert.opened",
            Self::Escalated => "alert.escalated",
            Self::Reopened => "alert.reopened",
            Self::Resolved => "alert.resolved",
        }
    }
}

/// Why a person's wish about an alert was not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// There is nothing to take on.
    #[error("the alert is resolved; it opens again by itself when it comes back")]
    Resolved,
    /// A snooze ends later than now.
    #[error("`until` must be in the future")]
    SnoozeInThePast,
    /// A snooze ends some day.
    #[error("`until` must be within 90 days")]
    SnoozeTooLong,
    /// A reason is a sentence.
    #[error("`reason` must have at most 500 characters")]
    ReasonTooLong,
}

impl Alert {
    /// A new alert.
    pub fn open(raised: Raised, now: Timestamp) -> Self {
        let dedupe_key = dedupe_key(raised.kind, &raised.subject);
        Self {
            id: alert_id(&dedupe_key),
            dedupe_key,
            kind: raised.kind,
            severity: raised.severity,
            owner: raised.owner,
            title: raised.title,
            evidence: raised.evidence,
            link: raised.link,
            status: Status::Open,
            present: true,
            first_seen: now,
            last_seen: now,
            opened_at: now,
            count: raised.count,
        }
    }

    /// It was found again.
    pub fn seen_again(&mut self, raised: Raised, now: Timestamp) -> Option<Notice> {
        let back = !self.present;
        let worse = raised.severity > self.severity;
        self.present = true;
        self.last_seen = self.last_seen.max(now);
        // The figures belong to the severity that is shown: a calmer finding does not replace a worse one's.
        if back || raised.severity >= self.severity {
            self.severity = raised.severity;
            self.title = raised.title;
            self.evidence = raised.evidence;
            self.link = raised.link;
            self.owner = raised.owner;
        }
        if back {
            self.count = raised.count;
            self.opened_at = now;
            self.status = Status::Open;
            return Some(Notice::Reopened);
        }
        self.count = self.count.saturating_add(raised.count);
        if worse {
            if matches!(self.status, Status::Resolved { .. }) {
                self.opened_at = now;
            }
            self.status = Status::Open;
            return Some(Notice::Escalated);
        }
        self.tick(now)
    }

    /// It is so no longer.
    pub fn went_away(&mut self, now: Timestamp) -> Option<Notice> {
        if !self.present {
            return None;
        }
        self.present = false;
        if matches!(self.status, Status::Resolved { .. }) {
            return None;
        }
        self.status = Status::Resolved { by: None, at: now };
        Some(Notice::Resolved)
    }

    /// Time went by: a snooze may be over, and a finding that was not repeated is gone.
    pub fn tick(&mut self, now: Timestamp) -> Option<Notice> {
        if self.present && now.since_ms(self.last_seen) >= self.kind.gone_after_ms() {
            return self.went_away(now);
        }
        if matches!(self.status, Status::Snoozed { until, .. } if until <= now) {
            self.status = Status::Open;
            return Some(Notice::Reopened);
        }
        None
    }

    /// When [`Self::tick`] has something to do.
    pub fn due_at(&self) -> Option<Timestamp> {
        let gone = self.present.then(|| self.last_seen.plus_ms(self.kind.gone_after_ms()));
        let awake = match self.status {
            Status::Snoozed { until, .. } => Some(until),
            Status::Open | Status::Acknowledged { .. } | Status::Resolved { .. } => None,
        };
        gone.into_iter().chain(awake).min()
    }

    /// Somebody takes it.
    pub fn acknowledge(&mut self, by: &str, now: Timestamp) -> Result<(), ActionError> {
        match self.status {
            Status::Resolved { .. } => return Err(ActionError::Resolved),
            Status::Acknowledged { .. } => {}
            Status::Open | Status::Snoozed { .. } => {
                self.status = Status::Acknowledged { by: by.to_owned(), at: now };
            }
        }
        Ok(())
    }

    /// Somebody wants quiet until a moment.
    pub fn snooze(
        &mut self,
        until: Timestamp,
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<(), ActionError> {
        if matches!(self.status, Status::Resolved { .. }) {
            return Err(ActionError::Resolved);
        }
        if until <= now {
            return Err(ActionError::SnoozeInThePast);
        }
        if until.since_ms(now) > SNOOZE_MAX_MS {
            return Err(ActionError::SnoozeTooLong);
        }
        if reason.chars().count() > REASON_MAX_CHARS {
            return Err(ActionError::ReasonTooLong);
        }
        self.status = Status::Snoozed { until, by: by.to_owned(), reason: reason.to_owned() };
        Ok(())
    }

    /// Somebody says it is over. While it is so still, it stays quiet until it went away and came back.
    pub fn resolve(&mut self, by: &str, now: Timestamp) -> Option<Notice> {
        if matches!(self.status, Status::Resolved { .. }) {
            return None;
        }
        self.status = Status::Resolved { by: Some(by.to_owned()), at: now };
        Some(Notice::Resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    fn raised(kind: AlertKind, severity: Severity) -> Raised {
        Raised::new(kind, "team-a", severity, "It is so").with("usd", Usd::from_nanos(5))
    }

    #[test]
    fn a_finding_that_lasts_is_told_once_and_counted() {
        let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Warning), at(1));
        for ms in 2..=5 {
            assert_eq!(alert.seen_again(raised(AlertKind::Pace, Severity::Warning), at(ms)), None);
        }
        assert_eq!((alert.count, alert.first_seen, alert.last_seen), (5, at(1), at(5)));
    }

    #[test]
    fn it_opens_again_only_when_it_went_away_and_came_back() {
        let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Warning), at(1));
        assert_eq!(alert.resolve("ann", at(2)), Some(Notice::Resolved));
        assert_eq!(alert.resolve("ann", at(2)), None);
        assert_eq!(alert.seen_again(raised(AlertKind::Pace, Severity::Warning), at(3)), None);
        assert_eq!(alert.status.name(), "resolved");
        assert_eq!(alert.went_away(at(4)), None);
        let again = alert.seen_again(raised(AlertKind::Pace, Severity::Info), at(5));
        assert_eq!((again, alert.status.name()), (Some(Notice::Reopened), "open"));
        assert_eq!((alert.severity, alert.count), (Severity::Info, 1));
        assert_eq!(alert.went_away(at(6)), Some(Notice::Resolved));
        assert_eq!(alert.went_away(at(7)), None);
    }

    #[test]
    fn a_rise_in_severity_opens_it_whoever_had_taken_it() {
        for state in ["open", "acknowledged", "snoozed", "resolved"] {
            let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Warning), at(1));
            match state {
                "acknowledged" => alert.acknowledge("ann", at(2)).unwrap(),
                "snoozed" => alert.snooze(at(100), "known", "ann", at(2)).unwrap(),
                "resolved" => assert!(alert.resolve("ann", at(2)).is_some()),
                _ => {}
            }
            assert_eq!(alert.status.name(), state);
            let notice = alert.seen_again(raised(AlertKind::Pace, Severity::Critical), at(3));
            assert_eq!((notice, alert.status.name()), (Some(Notice::Escalated), "open"));
            // Falling is no news, and the figures of the worse finding stay.
            let calmer = Raised::new(AlertKind::Pace, "team-a", Severity::Warning, "Calmer");
            assert_eq!(alert.seen_again(calmer, at(4)), None);
            assert_eq!((alert.severity, alert.title.as_str()), (Severity::Critical, "It is so"));
        }
    }

    #[test]
    fn a_snooze_ends() {
        let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Warning), at(1));
        alert.snooze(at(10), "deploying", "ann", at(2)).unwrap();
        assert_eq!(alert.due_at(), Some(at(10)));
        assert_eq!(alert.tick(at(9)), None);
        assert_eq!(alert.tick(at(10)), Some(Notice::Reopened));
        assert_eq!(alert.tick(at(11)), None);
        let long = at(2).plus_ms(SNOOZE_MAX_MS + 1);
        assert_eq!(alert.snooze(at(2), "", "ann", at(2)), Err(ActionError::SnoozeInThePast));
        assert_eq!(alert.snooze(long, "", "ann", at(2)), Err(ActionError::SnoozeTooLong));
        let essay = "x".repeat(REASON_MAX_CHARS + 1);
        assert_eq!(alert.snooze(at(3), &essay, "ann", at(2)), Err(ActionError::ReasonTooLong));
        alert.resolve("ann", at(12));
        assert_eq!(alert.acknowledge("ann", at(13)), Err(ActionError::Resolved));
        assert_eq!(alert.snooze(at(99), "", "ann", at(13)), Err(ActionError::Resolved));
    }

    #[test]
    fn what_is_not_repeated_is_gone_after_its_time() {
        let mut alert = Alert::open(raised(AlertKind::UnpricedModel, Severity::Warning), at(0));
        let gone = at(24 * HOUR_MS);
        assert_eq!(alert.due_at(), Some(gone));
        assert_eq!(alert.tick(gone.plus_ms(-1)), None);
        assert_eq!(alert.tick(gone), Some(Notice::Resolved));
        assert_eq!(alert.due_at(), None);
        let again = alert.seen_again(raised(AlertKind::UnpricedModel, Severity::Warning), gone);
        assert_eq!(again, Some(Notice::Reopened));
    }

    #[test]
    fn the_format_is_unchanged() {
        let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Critical), at(1));
        alert.snooze(at(10), "known", "ann", at(2)).unwrap();
        let expected = r#"{"id":"al_9a4a4e8f8d05ab2f0a80ffa0","dedupe_key":"pace:team-a","kind":"pace","severity":"critical","title":"It is so","evidence":{"usd":"0.000000005"},"link":"/alerts","status":{"state":"snoozed","until":10,"by":"ann","reason":"known"},"present":true,"first_seen":1,"last_seen":1,"opened_at":1,"count":1}"#;
        let text = serde_json::to_string(&alert).unwrap();
        assert_eq!(text.get(40..), expected.get(40..));
        assert_eq!(serde_json::from_str::<Alert>(&text).unwrap(), alert);
        assert_eq!(alert.id, alert_id("pace:team-a"));
        for kind in AlertKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.name()));
        }
    }

    proptest! {
        /// Whatever happens, each telling that it is open is followed by at most one telling that it is over.
        #[test]
        fn openings_and_endings_alternate(steps in proptest::collection::vec((0_u8..6, 0_u8..3), 0..60)) {
            let mut alert = Alert::open(raised(AlertKind::Pace, Severity::Info), at(0));
            let mut is_open = true;
            for (ms, (step, severity)) in (1..).zip(steps) {
                let severity = [Severity::Info, Severity::Warning, Severity::Critical]
                    .into_iter().nth(usize::from(severity)).unwrap();
                let notice = match step {
                    0 | 1 => alert.seen_again(raised(AlertKind::Pace, severity), at(ms)),
                    2 => alert.went_away(at(ms)),
                    3 => { let _ = alert.acknowledge("a", at(ms)); None }
                    4 => { let _ = alert.snooze(at(ms + 2), "", "a", at(ms)); None }
                    _ => alert.resolve("a", at(ms)),
                };
                match notice {
                    Some(Notice::Resolved) => { prop_assert!(is_open); is_open = false; }
                    Some(Notice::Reopened | Notice::Escalated | Notice::Opened) => is_open = true,
                    None => {}
                }
                prop_assert_eq!(is_open, alert.status.name() != "resolved");
            }
        }
    }
}
