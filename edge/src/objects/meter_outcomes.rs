//! Outcomes at the Meter: it knows whether the key may speak, and for whom. It keeps nothing of them.

use std::collections::BTreeMap;

use tallygate_shared::events::outcome::{OUTCOME_EVENT_VERSION, OutcomeEvent, read_reports};
use tallygate_shared::identity::actor::{Actor, ActorError};
use tallygate_shared::policy::decide::{Problem, check_address};
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::policy::refusal::Refusal;
use tallygate_shared::time::Timestamp;

use super::meter_object::{MeterError, MeterObject};
use super::sql::Sql;
use crate::request::outcomes::{LedgerCall, OutcomesCall, Sent};
use crate::request::step::MeterReply;

impl<S: Sql> MeterObject<S> {
    /// Checks a call of the key's holder, and says what which Ledger is to record.
    pub(super) fn take_outcomes(
        &self,
        call: &str,
        now: Timestamp,
    ) -> Result<MeterReply, MeterError> {
        let call: OutcomesCall = serde_json::from_str(call)?;
        Ok(match self.outcomes_of(&call, now) {
            Ok((listed, ledgers)) => {
                let calls = ledgers.into_iter().map(|(ledger, sent)| {
                    Ok(LedgerCall { ledger, call: serde_json::to_string(&sent)? })
                });
                MeterReply::Record { listed, calls: calls.collect::<Result<_, MeterError>>()? }
            }
            Err(refusal) => MeterReply::Refused { refusal },
        })
    }

    fn outcomes_of(
        &self,
        call: &OutcomesCall,
        now: Timestamp,
    ) -> Result<(bool, BTreeMap<String, Vec<Sent>>), Refusal> {
        let plan = self.authenticate(&call.key_sha256, now)?;
        check_address(plan, call.address)?;
        let actor = self.reporter(plan, call.actor_token.as_deref(), now)?;
        let body = call.body.as_ref().map_err(|problem| unreadable(problem.clone()))?;
        let read = read_reports(body, now).map_err(|error| {
            let code = "invalid_request_body".to_owned();
            unreadable(Problem { code, detail: error.detail, param: error.field })
        })?;
        let mut ledgers: BTreeMap<String, Vec<Sent>> = BTreeMap::new();
        for (place, report) in read.reports.into_iter().enumerate() {
            let event = OutcomeEvent {
                v: OUTCOME_EVENT_VERSION,
                workspace: plan.workspace.clone(),
                key: plan.key.clone(),
                subject: report.subject,
                label: report.label,
                outcome: report.outcome,
                value_usd: report.value_usd,
                at: report.at.unwrap_or(now),
                recorded_at: now,
                owner: plan.owner.owner.clone(),
                cost_centre: plan.owner.cost_centre.clone(),
                environment: plan.owner.environment.clone(),
                actor: actor.clone(),
            };
            let date = event.counts_at().date();
            let ledger = format!("{}:{:04}-{:02}", plan.workspace, date.year, date.month);
            let sent = Sent { place, dated: report.at.is_some(), event };
            ledgers.entry(ledger).or_default().push(sent);
        }
        Ok((read.listed, ledgers))
    }

    /// Who reports: what the key fixes, and what a token adds if one came. The session is left out: it says which
    /// requests are meant, not whose they are, and the report itself names it.
    fn reporter(
        &self,
        plan: &KeyPlan,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Actor, Refusal> {
        let actor = match self.actor_of(plan, token, now) {
            Ok(actor) => actor,
            Err(ActorError::Missing) => plan.owner.actor.clone(),
            Err(error) => {
                let (code, detail) = (error.code().to_owned(), error.to_string());
                return Err(Refusal::Actor { code, detail });
            }
        };
        Ok(Actor { session: None, ..actor })
    }
}

fn unreadable(problem: Problem) -> Refusal {
    Refusal::BadRequest { code: problem.code, detail: problem.detail, param: problem.param }
}
