//! The Alerts object of a workspace: it feeds events, budgets and keys to the detectors, keeps the alerts, and owns the
//! queue of messages to each receiver.
//!
//! It is fed at least once: a Meter numbers its events, and the last number of each Meter that was looked at is kept.
//! When it is down, Meters keep their events and try again; nothing on the way of a request waits for it.
//!
//! Each receiver has its own queue. An attempt begins with a lease on its message, so that one whose end is never heard
//! (the object died) is due again; a receiver may therefore get a message twice, with the same `webhook-id`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tallygate_shared::alerts::alert::{ActionError, Alert, Finding, Notice, alert_id, dedupe_key};
use tallygate_shared::alerts::detect::{BudgetSnapshot, DetectorState, Signal, observe};
use tallygate_shared::alerts::message::{
    slack_body, slack_test_body, webhook_body, webhook_test_body,
};
use tallygate_shared::alerts::target::check_target;
use tallygate_shared::alerts::webhook::{
    Verdict, WebhookSecret, headers, message_id, next_attempt, verdict,
};
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::feedback::ReconcilerFinding;
use tallygate_shared::time::{HOUR_MS, Timestamp};

use super::alerts_plan::{AlertsPlan, ReceiverKind, ReceiverPlan, seal_context};
use super::alerts_store::{AlertsQuery, AlertsStore, DeliveriesQuery, Message, shown};
use super::sql::{Sql, SqlError};
use crate::admin::call::Step;
use crate::admin::merge_standing::MaturityQuery;
use crate::admin::problem::Problem;
use crate::vault::KeyRing;

/// How long an attempt's end is waited for: more than its timeout of 15 seconds.
const LEASE_MS: i64 = 60_000;
/// How often it looks whether what was found went away.
const TICK_MS: i64 = 5 * 60_000;
/// How often it looks at the keys.
const KEYS_MS: i64 = HOUR_MS;
/// Messages about one kind in an hour. What is more becomes an alert without a message: a caller that makes up model
/// names must not be able to flood a channel.
const MESSAGES_PER_HOUR: u32 = 60;
/// Messages that may wait for one receiver; what is more is parked at once, to be delivered again by hand.
pub(super) const WAITING_MAX: u64 = 1_000;

/// Alerts of one workspace.
pub struct AlertsObject<S> {
    pub(super) store: AlertsStore<S>,
    pub(super) state: DetectorState,
    pub(super) plan: Option<AlertsPlan>,
    ticked_at: Timestamp,
    keys_looked_at: Timestamp,
    pub(super) now: Timestamp,
}

/// What a Meter delivers: the same text as to the Ledger.
#[derive(Deserialize)]
struct Batch {
    meter: String,
    events: Vec<Box<RawValue>>,
}

/// An HTTP request for the shell to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outgoing {
    /// The message's id.
    pub id: String,
    /// Where to.
    pub url: String,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ended {
    /// The status, when there was an answer.
    pub status: Option<u16>,
    /// What went wrong when there was none: `timeout` or `connection_failed`.
    pub error: Option<String>,
}

/// What a person wants of an alert or delivery.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wish {
    /// The alert or delivery.
    pub id: String,
    /// Who wants it.
    pub by: String,
    /// Only when it is this owner's.
    pub owner: Option<String>,
    /// Until when to be quiet.
    pub until_ms: Option<i64>,
    /// Why.
    pub reason: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Sent {
    hour: i64,
    count: u32,
}

impl<S: Sql> AlertsObject<S> {
    /// Opens it from its storage.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        let store = AlertsStore::open(sql)?;
        let plan = store.meta("plan")?.map(|text| parsed(&text)).transpose()?;
        let moment = |name: &str| -> Result<Timestamp, SqlError> {
            let ms = store.meta(name)?.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(Timestamp::from_ms(ms))
        };
        let (ticked_at, keys_looked_at) = (moment("ticked_at")?, moment("keys_looked_at")?);
        let state = store.detectors()?;
        let now = Timestamp::from_ms(0);
        Ok(Self { store, state, plan, ticked_at, keys_looked_at, now })
    }

    /// Takes a workspace's plan. An older one than is known changes nothing.
    pub fn apply_config(&mut self, text: &str, now: Timestamp) -> Result<(), SqlError> {
        self.now = now;
        let plan: AlertsPlan = parsed(text)?;
        let known = self.plan.take();
        if let Some(known) = known {
            if known.version > plan.version {
                self.plan = Some(known);
                return Ok(());
            }
            for (name, receiver) in &known.receivers {
                let new = plan.receivers.get(name);
                // A receiver that was changed is asked again, whatever it said before.
                if new != Some(receiver) {
                    self.store.set_back(name)?;
                }
                match new {
                    None => self.store.park(name, "receiver_removed", now)?,
                    Some(new) if !new.enabled => {
                        self.store.park(name, "receiver_disabled", now)?;
                    }
                    Some(_) => {}
                }
            }
        }
        self.store.set_meta("plan", text)?;
        for mut alert in self.store.present_alerts()? {
            if !plan.rules.looks_for(alert.kind) && alert.went_away(now).is_some() {
                self.store.save_alert(&alert)?;
            }
        }
        self.plan = Some(plan);
        self.schedule_review()?;
        self.look_at_keys()?;
        self.store.save_detectors(&mut self.state)
    }

    /// Looks at a Meter's events, and says up to which number.
    pub fn ingest(&mut self, batch: &str, now: Timestamp) -> Result<u64, SqlError> {
        self.now = now;
        let batch: Batch = parsed(batch)?;
        let mut last = self.store.applied(&batch.meter)?;
        for raw in &batch.events {
            let event: UsageEvent = parsed(raw.get())?;
            if event.seq > last {
                last = event.seq;
                self.observe(Signal::Event(&event))?;
            }
        }
        self.store.set_applied(&batch.meter, last)?;
        self.store.save_detectors(&mut self.state)?;
        Ok(last)
    }

    /// Looks at a budget's figures.
    pub fn budget(&mut self, snapshot: &str, now: Timestamp) -> Result<(), SqlError> {
        self.now = now;
        let snapshot: BudgetSnapshot = parsed(snapshot)?;
        self.observe(Signal::Budget(&snapshot))?;
        self.store.save_detectors(&mut self.state)
    }

    /// Takes in what the reconciler found.
    pub fn findings(&mut self, findings: &str, now: Timestamp) -> Result<(), SqlError> {
        self.now = now;
        let findings: Vec<ReconcilerFinding> = parsed(findings)?;
        for finding in &findings {
            self.observe(Signal::Reconciler(finding))?;
        }
        self.store.save_detectors(&mut self.state)
    }

    /// The alarm's work apart from sending: what went away, whose snooze is over, how the keys are.
    pub fn wake(&mut self, now: Timestamp) -> Result<(), SqlError> {
        self.now = now;
        for mut alert in self.store.due_alerts(now)? {
            let notice = alert.tick(now);
            self.keep(&alert, notice)?;
        }
        if now.since_ms(self.ticked_at) >= TICK_MS {
            self.ticked_at = now;
            self.store.set_meta("ticked_at", &now.ms().to_string())?;
            self.observe(Signal::Tick)?;
            self.store.prune(now)?;
        }
        if now.since_ms(self.keys_looked_at) >= KEYS_MS {
            self.look_at_keys()?;
        }
        self.store.save_detectors(&mut self.state)
    }

    /// Receivers that something is due for.
    pub fn due_receivers(&self, now: Timestamp) -> Result<Vec<String>, SqlError> {
        let mut due = Vec::new();
        for receiver in self.store.awaited()? {
            if let Some(message) = self.store.due_message(&receiver, now)? {
                due.push((message.attempts, receiver));
            }
        }
        // Where connections are few, a receiver that did not fail goes before one that did.
        due.sort();
        Ok(due.into_iter().map(|(_, receiver)| receiver).collect())
    }

    /// Begins an attempt at the receiver's message that is due first. What cannot be sent as things are counts as an
    /// attempt that failed, and the next is looked at.
    pub fn take(
        &mut self,
        receiver: &str,
        sender: &Sender<'_>,
        now: Timestamp,
    ) -> Result<Option<Outgoing>, SqlError> {
        self.now = now;
        while let Some(message) = self.store.due_message(receiver, now)? {
            self.store.lease(&message.id, now.plus_ms(LEASE_MS))?;
            match self.outgoing(&message, sender) {
                Ok(outgoing) => return Ok(Some(outgoing)),
                Err(error) => {
                    let ended = Ended { status: None, error: Some(error.to_owned()) };
                    self.delivered(&message.id, &ended, sender.random, now)?;
                }
            }
        }
        Ok(None)
    }

    fn outgoing(&self, message: &Message, sender: &Sender<'_>) -> Result<Outgoing, &'static str> {
        let plan = self.plan.as_ref().ok_or("receiver_removed")?;
        let receiver = plan.receivers.get(&message.receiver).ok_or("receiver_removed")?;
        if self.store.gone().is_ok_and(|gone| gone.contains(&message.receiver)) {
            return Err("receiver_gone");
        }
        let context = seal_context(&plan.workspace, &message.receiver);
        sender.prepare(receiver, &context, &message.id, message.body.clone(), self.now)
    }

    /// An attempt ended.
    pub fn delivered(
        &mut self,
        id: &str,
        ended: &Ended,
        random: u32,
        now: Timestamp,
    ) -> Result<bool, SqlError> {
        // It may have been parked meanwhile.
        let Some(message) = self.store.pending_message(id)? else { return Ok(false) };
        let error = ended.error.as_deref();
        match verdict(ended.status) {
            Verdict::Delivered => {
                self.store.attempt_ended(id, "delivered", now, ended.status, None)?;
                return Ok(true);
            }
            Verdict::Gone => {
                self.store.attempt_ended(id, "failed", now, ended.status, Some("receiver_gone"))?;
                self.store.set_gone(&message.receiver, now)?;
                self.store.park(&message.receiver, "receiver_gone", now)?;
            }
            Verdict::Failed => match next_attempt(message.attempts, now, random) {
                Some(at) => self.store.attempt_ended(id, "pending", at, ended.status, error)?,
                None => self.store.attempt_ended(id, "failed", now, ended.status, error)?,
            },
        }
        Ok(false)
    }

    /// When the alarm must ring next.
    pub fn alarm_at(&self) -> Result<Option<Timestamp>, SqlError> {
        let tick = self.store.has_present()?.then(|| self.ticked_at.plus_ms(TICK_MS));
        let has_keys = self.plan.as_ref().is_some_and(|plan| !plan.keys.is_empty());
        let keys = has_keys.then(|| self.keys_looked_at.plus_ms(KEYS_MS));
        Ok(self
            .store
            .next_due()?
            .into_iter()
            .chain(tick)
            .chain(keys)
            .chain(self.review_at()?)
            .min())
    }

    /// A message that tests a receiver, to be sent now.
    pub fn test_message(
        &self,
        receiver: &str,
        sender: &Sender<'_>,
        now: Timestamp,
    ) -> Result<Outgoing, &'static str> {
        let plan = self.plan.as_ref().ok_or("receiver_removed")?;
        let known = plan.receivers.get(receiver).ok_or("receiver_removed")?;
        let workspace = plan.workspace.as_str();
        let body = match known.kind {
            ReceiverKind::StandardWebhook => webhook_test_body(workspace, receiver, now),
            ReceiverKind::Slack => slack_test_body(workspace, receiver),
        };
        let id = message_id(receiver, now, u64::from(sender.random));
        sender.prepare(known, &seal_context(&plan.workspace, receiver), &id, body, now)
    }

    /// A test ended: a receiver that takes messages again gets them again.
    pub fn tested(&self, receiver: &str, ended: &Ended) -> Result<Step, SqlError> {
        let delivered = verdict(ended.status) == Verdict::Delivered;
        if delivered {
            self.store.set_back(receiver)?;
        }
        let result =
            json!({ "delivered": delivered, "status": ended.status, "error": ended.error });
        Ok(Step::json(200, &result))
    }

    /// Answers the control plane.
    pub fn query(&mut self, method: &str, payload: &str, now: Timestamp) -> Result<Step, SqlError> {
        self.now = now;
        let step = match method {
            "list" => Step::json(200, &self.store.list_alerts(&parsed::<AlertsQuery>(payload)?)?),
            "open" => Step::json(200, &json!(self.store.open_by_severity()?)),
            "counts" => {
                let wish: Wish = parsed(payload)?;
                Step::json(200, &json!(self.store.counts(wish.owner.as_deref())?))
            }
            "show" => {
                let wish = parsed(payload)?;
                match self.seen(&wish)? {
                    Some(alert) => Step::json(200, &shown(&alert)),
                    None => Problem::not_found("alert", &wish.id).into(),
                }
            }
            "budgets" => Step::json(200, &self.standings(&parsed(payload)?)),
            "standing" => self.standing(parsed(payload)?)?,
            "deliveries" => {
                let query: DeliveriesQuery = parsed(payload)?;
                Step::json(200, &self.store.deliveries(None, &query)?)
            }
            "receivers" => {
                let shown: Vec<Value> = parsed(payload)?;
                let data: Result<Vec<Value>, SqlError> =
                    shown.into_iter().map(|receiver| self.with_health(receiver)).collect();
                Step::json(200, &json!({ "data": data? }))
            }
            "receiver" => Step::json(200, &self.with_health(parsed(payload)?)?),
            "review" | "review_markdown" => self.review(payload, method == "review_markdown")?,
            "redeliver" => self.redeliver(&parsed(payload)?)?,
            _ => self.act(method, &parsed(payload)?)?,
        };
        Ok(step)
    }

    /// Adds to what is known of the workspace how its alerts are, and asks the Ledgers next.
    fn standing(&self, mut query: MaturityQuery) -> Result<Step, SqlError> {
        (query.facts.critical_open, query.facts.handled_alerts) = self.store.handled()?;
        let (names, payload) = (query.ledgers.clone(), json!(query).to_string());
        Ok(Step::Ledgers { names, method: "standing", payload })
    }

    /// A receiver as the API shows it, with how its queue is.
    fn with_health(&self, mut receiver: Value) -> Result<Value, SqlError> {
        let name = receiver.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let waiting = self.store.waiting(&name)?;
        let is_gone = self.store.gone()?.contains(&name);
        if let Some(fields) = receiver.as_object_mut() {
            fields.insert("gone".to_owned(), is_gone.into());
            fields.insert("waiting".to_owned(), waiting.into());
        }
        Ok(receiver)
    }

    /// The alert of a wish, where whoever wants it may see it.
    fn seen(&self, wish: &Wish) -> Result<Option<Alert>, SqlError> {
        let found = self.store.alert(&wish.id)?;
        Ok(found.filter(|alert| wish.owner.is_none() || alert.owner == wish.owner))
    }

    fn act(&mut self, method: &str, wish: &Wish) -> Result<Step, SqlError> {
        let Some(mut alert) = self.seen(wish)? else {
            return Ok(Problem::not_found("alert", &wish.id).into());
        };
        let until = wish.until_ms.map_or(self.now, Timestamp::from_ms);
        let done = match method {
            "acknowledge" => alert.acknowledge(&wish.by, self.now).map(|()| None),
            "snooze" => alert.snooze(until, &wish.reason, &wish.by, self.now).map(|()| None),
            "resolve" => Ok(alert.resolve(&wish.by, self.now)),
            _ => return Err(SqlError(format!("no question is called {method:?}"))),
        };
        match done {
            Ok(notice) => {
                self.keep(&alert, notice)?;
                Ok(Step::json(200, &shown(&alert)))
            }
            Err(error) => Ok(problem_of(error).into()),
        }
    }

    fn redeliver(&mut self, wish: &Wish) -> Result<Step, SqlError> {
        let query = DeliveriesQuery { limit: 1, ..DeliveriesQuery::default() };
        let find = |store: &AlertsStore<S>| -> Result<Option<Value>, SqlError> {
            Ok(store.deliveries(Some(&wish.id), &query)?.pointer("/data/0").cloned())
        };
        let Some(found) = find(&self.store)? else {
            return Ok(Problem::not_found("delivery", &wish.id).into());
        };
        let receiver = found.get("receiver").and_then(Value::as_str).unwrap_or_default();
        let is_there = self
            .plan
            .as_ref()
            .and_then(|plan| plan.receivers.get(receiver))
            .is_some_and(|receiver| receiver.enabled);
        if !is_there || self.store.gone()?.iter().any(|gone| gone == receiver) {
            let detail = format!(
                "The receiver `{receiver}` takes no messages. Enable it, or test it if it answered 410 before."
            );
            return Ok(Problem::new(409, "receiver_disabled", detail).into());
        }
        self.store.redeliver(&wish.id, self.now)?;
        Ok(Step::json(200, &find(&self.store)?.unwrap_or_default()))
    }

    fn look_at_keys(&mut self) -> Result<(), SqlError> {
        self.keys_looked_at = self.now;
        self.store.set_meta("keys_looked_at", &self.now.ms().to_string())?;
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let findings = observe(&mut self.state, Signal::Keys(&plan.keys), &plan.rules, self.now);
        self.plan = Some(plan);
        findings.into_iter().try_for_each(|finding| self.apply(finding))
    }

    fn observe(&mut self, signal: Signal<'_>) -> Result<(), SqlError> {
        // Before the first plan the defaults hold: nothing that happens is overlooked.
        let rules = self.plan.as_ref().map(|plan| plan.rules.clone()).unwrap_or_default();
        let findings = observe(&mut self.state, signal, &rules, self.now);
        findings.into_iter().try_for_each(|finding| self.apply(finding))
    }

    fn apply(&mut self, finding: Finding) -> Result<(), SqlError> {
        match finding {
            Finding::Raised(raised) => {
                let id = alert_id(&dedupe_key(raised.kind, &raised.subject));
                match self.store.alert(&id)? {
                    Some(mut alert) => {
                        let notice = alert.seen_again(*raised, self.now);
                        self.keep(&alert, notice)
                    }
                    None => self.keep(&Alert::open(*raised, self.now), Some(Notice::Opened)),
                }
            }
            Finding::Cleared { kind, subject } => {
                let id = alert_id(&dedupe_key(kind, &subject));
                let Some(mut alert) = self.store.alert(&id)? else { return Ok(()) };
                let notice = alert.went_away(self.now);
                self.keep(&alert, notice)
            }
        }
    }

    /// Writes an alert, and queues what there is to tell.
    fn keep(&mut self, alert: &Alert, notice: Option<Notice>) -> Result<(), SqlError> {
        self.store.save_alert(alert)?;
        let Some(notice) = notice else { return Ok(()) };
        let Some(plan) = self.plan.take() else { return Ok(()) };
        let told = self.tell(&plan, alert, notice);
        self.plan = Some(plan);
        told
    }

    fn tell(&mut self, plan: &AlertsPlan, alert: &Alert, notice: Notice) -> Result<(), SqlError> {
        let gone = self.store.gone()?;
        let hearing = plan.receivers.iter().filter(|(_, receiver)| receiver.hears_of(alert));
        let hearing: Vec<_> = hearing.filter(|(name, _)| !gone.contains(name)).collect();
        if hearing.is_empty() || !self.may_tell(alert)? {
            return Ok(());
        }
        let workspace = plan.workspace.as_str();
        let dashboard = plan.dashboard_url.as_deref();
        for (name, receiver) in hearing {
            let body = match receiver.kind {
                ReceiverKind::StandardWebhook => {
                    webhook_body(workspace, notice, alert, dashboard, self.now)
                }
                ReceiverKind::Slack => slack_body(workspace, notice, alert, dashboard),
            };
            let number = self.next_number()?;
            let id = message_id(&format!("{workspace}/{name}/{}", alert.id), self.now, number);
            let message = Message { id, receiver: name.clone(), attempts: 0, body };
            self.store.insert_message(&message, &alert.id, notice.event_type(), self.now)?;
            if self.store.waiting(name)? > WAITING_MAX {
                let error = Some("queue_full");
                self.store.attempt_ended(&message.id, "failed", self.now, None, error)?;
            }
        }
        Ok(())
    }

    /// Whether this kind's messages of this hour are not used up.
    fn may_tell(&self, alert: &Alert) -> Result<bool, SqlError> {
        let name = format!("sent:{}", alert.kind.name());
        let hour = self.now.start_of_hour().ms();
        let sent = self.store.meta(&name)?.and_then(|text| serde_json::from_str(&text).ok());
        let sent: Sent = sent.filter(|sent: &Sent| sent.hour == hour).unwrap_or_default();
        if sent.count >= MESSAGES_PER_HOUR {
            return Ok(false);
        }
        let sent = Sent { hour, count: sent.count + 1 };
        let text = serde_json::to_string(&sent).map_err(|e| SqlError(e.to_string()))?;
        self.store.set_meta(&name, &text)?;
        Ok(true)
    }

    pub(super) fn next_number(&self) -> Result<u64, SqlError> {
        let last = self.store.meta("messages")?.and_then(|text| text.parse::<u64>().ok());
        let next = last.unwrap_or(0).saturating_add(1);
        self.store.set_meta("messages", &next.to_string())?;
        Ok(next)
    }
}

/// What sending needs beyond the queue.
pub struct Sender<'a> {
    /// The ring that opens secrets.
    pub ring: &'a KeyRing,
    /// Whether the operator allows private addresses.
    pub allow_private: bool,
    /// Random bits for the jitter.
    pub random: u32,
}

impl Sender<'_> {
    fn prepare(
        &self,
        receiver: &ReceiverPlan,
        context: &str,
        id: &str,
        body: String,
        now: Timestamp,
    ) -> Result<Outgoing, &'static str> {
        let in_use = |at: Option<Timestamp>| at.is_none_or(|end| end > now);
        let secrets = receiver.secrets.iter().filter(|secret| in_use(secret.expires_at));
        let secrets: Result<Vec<String>, _> =
            secrets.map(|secret| self.ring.open(&secret.sealed, context)).collect();
        let secrets = secrets.map_err(|_| "secret_lost")?;
        let first = secrets.first().ok_or("secret_missing")?;
        let mut list = vec![
            ("content-type", "application/json".to_owned()),
            ("user-agent", concat!("tallygate/", env!("CARGO_PKG_VERSION")).to_owned()),
        ];
        let url = match receiver.kind {
            ReceiverKind::Slack => first.clone(),
            ReceiverKind::StandardWebhook => {
                let keys: Result<Vec<WebhookSecret>, _> =
                    secrets.iter().map(|text| WebhookSecret::parse(text)).collect();
                list.extend(headers(id, now, &body, &keys.map_err(|_| "secret_lost")?));
                receiver.url.clone().ok_or("url_missing")?
            }
        };
        check_target(&url, self.allow_private).map_err(|_| "address_not_allowed")?;
        Ok(Outgoing { id: id.to_owned(), url, headers: list, body })
    }
}

fn problem_of(error: ActionError) -> Problem {
    match error {
        ActionError::Resolved => Problem::new(409, "alert_resolved", format!("{error}.")),
        ActionError::SnoozeInThePast | ActionError::SnoozeTooLong => Problem::field(
            "until",
            "is not a time to snooze until",
            "Give one in the next 90 days.",
        ),
        ActionError::ReasonTooLong => {
            Problem::field("reason", "is too long", "Give at most 500 characters.")
        }
    }
}

pub(super) fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, SqlError> {
    serde_json::from_str(text).map_err(|e| SqlError(format!("a message to Alerts: {e}")))
}
