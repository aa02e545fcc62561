//! The Meter's alarm: what expired is settled, and what others lack is delivered, in order.

use serde::Serialize;
use serde_json::value::RawValue;
use tallygate_shared::ids::KeyId;
use tallygate_shared::money::Usd;
use tallygate_shared::time::Timestamp;

use super::meter_object::{MeterError, MeterObject};
use super::meter_settle::JOURNAL_AFTER_MS;
use super::sql::Sql;

/// How long an event may wait for company before the outbox is delivered.
const DELIVERY_DELAY_MS: i64 = 250;

/// How long a Meter without requests in flight keeps its ceiling: the next request then needs no commit.
const IDLE_MS: i64 = 5_000;

/// Events delivered in one call to a Ledger: 200 x about 1.5 KB stays far below the 32 MiB limit of a call.
const DELIVERY_BATCH: usize = 200;
/// How far events that wait for the Ledger are counted: beyond it, how many more says nothing new.
const WAITING_TOLD: u64 = 10_000;

/// Leases that stay in memory although they are done with. Beyond these, a budget for each of very many users costs
/// storage and no memory. Tests let go of them all.
const LEASES_KEPT: usize = if cfg!(test) { 0 } else { 1_024 };

/// Deliveries that an alarm must make, in order.
#[derive(Debug, Serialize)]
pub struct Wake {
    /// One call to a Ledger each.
    pub batches: Vec<Delivery>,
    /// Budgets that should hear of this Meter.
    pub accounts: Vec<String>,
    /// The call to the Alerts object, where it lacks events.
    pub alerts: Option<AlertsDelivery>,
}

/// One call to an Alerts object.
#[derive(Debug, Serialize)]
pub struct AlertsDelivery {
    /// Its name: the workspace.
    pub workspace: String,
    /// The batch as JSON text.
    pub payload: String,
    /// The sequence number that it has looked at when the call returns.
    pub up_to: u64,
}

/// One call to a Telemetry object.
#[derive(Debug, Serialize)]
pub struct TelemetryDelivery {
    /// Its name: the workspace.
    pub workspace: String,
    /// The batch as JSON text.
    pub payload: String,
    /// The sequence number that it has counted when the call returns, where it gets events.
    pub up_to: Option<u64>,
    /// Events that wait for the Ledger, as the batch says.
    pub waiting: u64,
}

/// One call to a Ledger.
#[derive(Debug, Serialize)]
pub struct Delivery {
    /// The Ledger's name: `<workspace>:<YYYY-MM>`.
    pub ledger: String,
    /// The batch as JSON text.
    pub payload: String,
    /// The sequence number that is delivered when the call returns.
    pub up_to: u64,
}

#[derive(Serialize)]
struct Batch<'a> {
    meter: &'a KeyId,
    events: Vec<&'a RawValue>,
}

#[derive(Serialize)]
struct TelemetryBatch<'a> {
    meter: &'a KeyId,
    events: Vec<&'a RawValue>,
    waiting: u64,
}

impl<S: Sql> MeterObject<S> {
    /// The alarm's work: record refusals, settle what expired, lower an idle ceiling; then say what to deliver.
    pub fn wake(&mut self, now: Timestamp) -> Result<Wake, MeterError> {
        self.flush_refusals()?;
        for hold in self.account.expired(now) {
            self.abandon(&hold, now)?;
        }
        self.account.forget_unclear(now);
        self.store.prune_loop_trips(now)?;
        self.journal(now)?;
        if self.account.is_idle() && self.account.ceiling() != Usd::ZERO {
            self.account.set_ceiling(Usd::ZERO);
        }
        self.save_state()?;
        if std::mem::take(&mut self.budgets.learned) {
            let known = serde_json::to_string(&self.budgets.expectations)?;
            self.store.save_expectations(&known)?;
        }
        let wallet = &mut self.budgets.wallet;
        if wallet.len() > LEASES_KEPT {
            wallet.forget_done(wallet.boot().wrapping_add(1), now);
        }
        let mut wake = self.deliveries()?;
        wake.accounts = self.due_accounts(now);
        wake.alerts = self.alerts_delivery()?;
        Ok(wake)
    }

    fn deliveries(&self) -> Result<Wake, MeterError> {
        let Some(plan) = &self.plan else {
            return Ok(Wake { batches: Vec::new(), accounts: Vec::new(), alerts: None });
        };
        let mut batches: Vec<(String, u64, Vec<String>)> = Vec::new();
        for (seq, at, body) in self.store.undelivered(DELIVERY_BATCH)? {
            let date = at.date();
            let ledger = format!("{}:{:04}-{:02}", plan.workspace, date.year, date.month);
            // Order within the key is kept, so a batch ends where the month changes.
            match batches.last_mut() {
                Some((name, up_to, events)) if *name == ledger => {
                    *up_to = seq;
                    events.push(body);
                }
                _ => batches.push((ledger, seq, vec![body])),
            }
        }
        let batches = batches
            .into_iter()
            .map(|(ledger, up_to, events)| {
                let events: Result<Vec<&RawValue>, _> =
                    events.iter().map(|body| serde_json::from_str(body)).collect();
                let payload = serde_json::to_string(&Batch { meter: &plan.key, events: events? })?;
                Ok(Delivery { ledger, payload, up_to })
            })
            .collect::<Result<_, serde_json::Error>>()?;
        Ok(Wake { batches, accounts: Vec::new(), alerts: None })
    }

    /// What the Alerts object lacks. Its mark is its own, so that it can be down while the Ledger is not. What it misses
    /// of the kept events is gone for it: alerts are about now.
    fn alerts_delivery(&self) -> Result<Option<AlertsDelivery>, MeterError> {
        let Some(plan) = &self.plan else { return Ok(None) };
        let events = self.store.unalerted(DELIVERY_BATCH)?;
        let Some((up_to, _)) = events.last() else { return Ok(None) };
        let bodies: Result<Vec<&RawValue>, _> =
            events.iter().map(|(_, body)| serde_json::from_str(body)).collect();
        let payload = serde_json::to_string(&Batch { meter: &plan.key, events: bodies? })?;
        Ok(Some(AlertsDelivery { workspace: plan.workspace.to_string(), payload, up_to: *up_to }))
    }

    /// The Alerts object has looked at everything up to this sequence number.
    pub fn alerted(&mut self, up_to: u64) -> Result<(), MeterError> {
        Ok(self.store.set_alerted(up_to)?)
    }

    /// What the Telemetry object lacks: events, or word of how many wait for the Ledger. Its mark is its own too. `None`
    /// when it lacks nothing.
    pub fn telemetry_delivery(&self) -> Result<Option<TelemetryDelivery>, MeterError> {
        let Some(plan) = &self.plan else { return Ok(None) };
        let events = self.store.unexported(DELIVERY_BATCH)?;
        let waiting =
            if self.undelivered { self.store.count_undelivered(WAITING_TOLD)? } else { 0 };
        if events.is_empty() && waiting == self.told_waiting {
            return Ok(None);
        }
        let bodies: Result<Vec<&RawValue>, _> =
            events.iter().map(|(_, body)| serde_json::from_str(body)).collect();
        let batch = TelemetryBatch { meter: &plan.key, events: bodies?, waiting };
        Ok(Some(TelemetryDelivery {
            workspace: plan.workspace.to_string(),
            payload: serde_json::to_string(&batch)?,
            up_to: events.last().map(|(seq, _)| *seq),
            waiting,
        }))
    }

    /// The Telemetry object took a delivery in.
    pub fn exported(&mut self, up_to: Option<u64>, waiting: u64) -> Result<(), MeterError> {
        self.told_waiting = waiting;
        if let Some(up_to) = up_to {
            self.store.set_exported(up_to)?;
        }
        Ok(())
    }

    /// The Ledger has everything up to this sequence number.
    pub fn delivered(&mut self, up_to: u64) -> Result<(), MeterError> {
        self.store.mark_delivered(up_to)?;
        self.undelivered = self.store.has_undelivered()?;
        Ok(())
    }

    /// When the alarm must ring next, in milliseconds since the epoch. A ceiling above zero always has one.
    pub fn alarm_at(&self, now: Timestamp) -> Option<Timestamp> {
        let outbox = self.undelivered || !self.refusals.is_empty();
        let delivery = outbox.then(|| now.plus_ms(DELIVERY_DELAY_MS));
        let idle = (self.account.ceiling() > Usd::ZERO).then(|| now.plus_ms(IDLE_MS));
        let deadline = self.account.next_deadline().map(|at| at.max(now));
        let own = match (delivery, deadline) {
            (Some(delivery), _) => Some(delivery),
            (None, Some(deadline)) => Some(deadline.min(now.plus_ms(JOURNAL_AFTER_MS * 60))),
            (None, None) => idle,
        };
        let report = self.budgets.wallet.next_due(now).map(|at| at.max(now));
        own.into_iter().chain(report).min()
    }
}
