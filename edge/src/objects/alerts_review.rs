//! The weekly review in the Alerts object: when it is due, what the budgets add to it, and its messages. It is sent once
//! for each week: the next moment is stored, and moves in the transaction that queues the messages.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tallygate_shared::alerts::webhook::message_id;
use tallygate_shared::insights::review::{Draft, EVENT, WEEKS_BACK};
use tallygate_shared::insights::week::{DAYS, Week, WeeklyAt};
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::alerts_object::{AlertsObject, WAITING_MAX, parsed};
use super::alerts_plan::ReceiverKind;
use super::alerts_store::Message;
use super::ledger_insights::ReviewQuery;
use super::sql::{Sql, SqlError};
use crate::admin::call::Step;

const SCHEDULE: &str = "weekly_review";
/// How long an attempt to make a review may take until it is made again.
const LEASE_MS: i64 = 5 * 60_000;

/// When the next review is due.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Schedule {
    at: WeeklyAt,
    next: Timestamp,
    /// Not before this moment: an attempt is under way.
    leased_until: Timestamp,
}

/// The months that a review asks.
pub fn months_of(workspace: &str, week: Week) -> Vec<String> {
    let mut month = week.plus(-WEEKS_BACK).monday().first_of_month();
    let mut names = Vec::new();
    while month.midnight() < week.end() {
        names.push(format!("{workspace}:{:04}-{:02}", month.year, month.month));
        month = month.first_of_next_month();
    }
    names
}

impl<S: Sql> AlertsObject<S> {
    fn schedule(&self) -> Result<Option<Schedule>, SqlError> {
        let text = self.store.meta(SCHEDULE)?.filter(|text| !text.is_empty());
        text.map(|text| parsed(&text)).transpose()
    }

    fn save_schedule(&self, schedule: Option<Schedule>) -> Result<(), SqlError> {
        let text = schedule.map_or(Ok(String::new()), |schedule| serde_json::to_string(&schedule));
        self.store.set_meta(SCHEDULE, &text.map_err(|e| SqlError(e.to_string()))?)
    }

    /// Takes the plan's moment on. One that is as it was keeps its next time; a new one begins with the next that comes.
    pub(super) fn schedule_review(&self) -> Result<(), SqlError> {
        let wanted =
            self.plan.as_ref().and_then(|plan| plan.weekly_review.as_ref()).map(|plan| plan.at);
        let known = self.schedule()?;
        if known.map(|schedule| schedule.at) == wanted {
            return Ok(());
        }
        let leased_until = Timestamp::default();
        self.save_schedule(wanted.map(|at| Schedule {
            at,
            next: at.next_after(self.now),
            leased_until,
        }))
    }

    /// When the alarm must ring for a review.
    pub(super) fn review_at(&self) -> Result<Option<Timestamp>, SqlError> {
        Ok(self.schedule()?.map(|schedule| schedule.next.max(schedule.leased_until)))
    }

    /// The Ledgers to ask for a review that is due. Until their answer is there, or the lease is over, it is not due again.
    pub fn review_due(&mut self, now: Timestamp) -> Result<Option<Step>, SqlError> {
        self.now = now;
        let Some(schedule) = self.schedule()? else { return Ok(None) };
        let Some(plan) = &self.plan else { return Ok(None) };
        if now < schedule.next || now < schedule.leased_until {
            return Ok(None);
        }
        self.save_schedule(Some(Schedule { leased_until: now.plus_ms(LEASE_MS), ..schedule }))?;
        // Whoever slept for weeks sends the last one.
        let due = schedule.at.next_after(now).plus_ms(-DAYS * DAY_MS);
        let (week, workspace) = (Week::of(due.date()).plus(-1), plan.workspace.to_string());
        let names = months_of(&workspace, week);
        let query = ReviewQuery { workspace, week, at: now, markdown: false };
        Ok(Some(Step::Ledgers {
            names,
            method: "weekly_review",
            payload: json!(query).to_string(),
        }))
    }

    /// Queues a review for its receivers. One that is not due any more changes nothing.
    pub fn deliver_review(&mut self, draft: &str, now: Timestamp) -> Result<(), SqlError> {
        self.now = now;
        let Some(schedule) = self.schedule()?.filter(|schedule| schedule.next <= now) else {
            return Ok(());
        };
        let draft: Draft = parsed(draft)?;
        let review = draft.finish(self.state.budgets(), now);
        let leased_until = Timestamp::default();
        let next = schedule.at.next_after(now);
        self.save_schedule(Some(Schedule { next, leased_until, ..schedule }))?;
        let Some(plan) = &self.plan else { return Ok(()) };
        let Some(wanted) = &plan.weekly_review else { return Ok(()) };
        let (workspace, dashboard) = (plan.workspace.as_str(), plan.dashboard_url.as_deref());
        let gone = self.store.gone()?;
        let hears = |name: &String| wanted.receivers.is_empty() || wanted.receivers.contains(name);
        let hearing =
            plan.receivers.iter().filter(|(name, receiver)| receiver.enabled && hears(name));
        for (name, receiver) in hearing.filter(|(name, _)| !gone.contains(name)) {
            let body = match receiver.kind {
                ReceiverKind::StandardWebhook => review.webhook_body(workspace, dashboard, now),
                ReceiverKind::Slack => review.slack_body(workspace, dashboard),
            };
            let subject = format!("review:{}", review.week);
            let number = self.next_number()?;
            let id = message_id(&format!("{workspace}/{name}/{subject}"), now, number);
            let message = Message { id, receiver: name.clone(), attempts: 0, body };
            self.store.insert_message(&message, &subject, EVENT, now)?;
            if self.store.waiting(name)? > WAITING_MAX {
                let error = Some("queue_full");
                self.store.attempt_ended(&message.id, "failed", now, None, error)?;
            }
        }
        Ok(())
    }

    /// Answers with a review, once the budgets are in it.
    pub(super) fn review(&self, draft: &str, markdown: bool) -> Result<Step, SqlError> {
        let draft: Draft = parsed(draft)?;
        let workspace = draft.workspace.clone();
        let review = draft.finish(self.state.budgets(), self.now);
        if !markdown {
            return Ok(Step::json(200, &json!(review)));
        }
        let dashboard = self.plan.as_ref().and_then(|plan| plan.dashboard_url.as_deref());
        let text = review.markdown(&workspace, dashboard);
        Ok(Step::respond(200, "text/markdown; charset=utf-8", text))
    }
}
