//! Usage events as a Meter makes them: from a plan and what is known of a request.

use std::collections::BTreeMap;

use tallygate_shared::events::usage_event::{Outcome, USAGE_EVENT_VERSION, UsageEvent};
use tallygate_shared::ids::RequestId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::decide::RequestFacts;
use tallygate_shared::policy::ip_ranges::network_of;
use tallygate_shared::policy::key_plan::KeyPlan;
use tallygate_shared::time::Timestamp;
use tallygate_shared::tokens::Usage;

use crate::request::calls::Settlement;

/// An event with who and when, and nothing of what happened: a refusal until more is said.
pub(super) fn blank_event(
    plan: &KeyPlan,
    id: RequestId,
    facts: &RequestFacts,
    now: Timestamp,
) -> UsageEvent {
    UsageEvent {
        v: USAGE_EVENT_VERSION,
        id,
        seq: 0,
        workspace: plan.workspace.clone(),
        key: plan.key.clone(),
        at: now,
        settled_at: now,
        key_name: plan.owner.name.clone(),
        owner: plan.owner.owner.clone(),
        cost_centre: plan.owner.cost_centre.clone(),
        purpose: plan.owner.purpose.clone(),
        environment: plan.owner.environment.clone(),
        actor: plan.owner.actor.clone(),
        labels: BTreeMap::new(),
        network: facts.ip.map(network_of),
        endpoint: facts.endpoint.clone(),
        stream: false,
        requested_model: facts.model.clone(),
        downgraded_by: None,
        provider: None,
        model: None,
        response_model: None,
        provider_request_id: None,
        attempts: Vec::new(),
        outcome: Outcome::Refused,
        code: None,
        status: 0,
        usage: Usage::Absent,
        cost: None,
        charged: Usd::ZERO,
        hold: Usd::ZERO,
        duration_ms: 0,
        first_byte_ms: None,
        trace_id: None,
        span_id: None,
        decided: None,
        sampled: 1,
    }
}

/// The event of a settled request.
pub(super) fn event_of(
    plan: &KeyPlan,
    settlement: Settlement,
    charged: Usd,
    now: Timestamp,
) -> UsageEvent {
    let ticket = settlement.ticket;
    let (trace_id, span_id) = ticket.trace.map(|span| (span.trace_id, span.span_id)).unzip();
    UsageEvent {
        at: ticket.hold.at,
        settled_at: now,
        actor: ticket.actor,
        labels: ticket.labels,
        endpoint: ticket.endpoint,
        stream: ticket.stream,
        requested_model: ticket.requested_model,
        downgraded_by: ticket.downgraded_by,
        network: ticket.network,
        provider: settlement.provider,
        model: settlement.model,
        response_model: settlement.response_model,
        provider_request_id: settlement.provider_request_id,
        attempts: settlement.attempts,
        outcome: settlement.outcome,
        code: settlement.code,
        status: settlement.status,
        usage: settlement.usage,
        cost: settlement.cost,
        charged,
        hold: ticket.hold.amount,
        duration_ms: settlement.duration_ms,
        first_byte_ms: settlement.first_byte_ms,
        trace_id,
        span_id,
        decided: ticket.decided,
        ..blank_event(plan, ticket.hold.id, &RequestFacts::default(), now)
    }
}
