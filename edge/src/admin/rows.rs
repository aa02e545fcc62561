//! Whose rows a caller sees. A developer whose token names an owner sees what is that owner's, and nothing that shows
//! what is others'. The operations say how: where one takes the filter `owner`, it is set; what is asked of one thing is
//! looked at by the workspace; the rest is closed, so that an operation that nobody thought about shows nothing.

use super::call::Call;
use super::operations::{Operation, Spec};
use super::problem::Problem;
use crate::dashboard::Fields;

/// How far a caller with an owner gets with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nobody's rows are in its answer.
    Open,
    /// The filter `owner` is set.
    Filtered,
    /// The workspace, or the object that it asks, leaves others' things out.
    Own,
    /// Others' rows cannot be taken out of its answer.
    Closed,
}

/// The filter that is set.
const OWNER: &str = "owner";

/// The rule of an operation.
pub fn reach(spec: &Spec) -> Reach {
    if spec.query.contains(&OWNER) {
        return Reach::Filtered;
    }
    match spec.operation {
        Operation::ShowOpenApi
        | Operation::ShowWorkspace
        | Operation::OpenSession
        | Operation::ShowCaller
        | Operation::EndSession
        | Operation::ListProviders
        | Operation::ShowProvider
        | Operation::ListPolicies
        | Operation::ShowPolicy
        | Operation::ListRoutes
        | Operation::ShowRoute
        | Operation::ListPrices
        | Operation::ListPriceProposals
        | Operation::ShowAlertSettings
        | Operation::ShowReconcilerSettings
        | Operation::ShowArchiveSettings
        | Operation::CalculateWorkload
        | Operation::CalculateThroughput => Reach::Open,
        Operation::ListKeys
        | Operation::ShowKey
        | Operation::Simulate
        | Operation::ShowKeyState
        | Operation::ListLoops
        | Operation::ListBudgets
        | Operation::ListBudgetStandings
        | Operation::ShowBudget
        | Operation::ShowBudgetStatus
        | Operation::ListCorrections
        | Operation::ListAlerts
        | Operation::CountAlerts
        | Operation::ShowAlert
        | Operation::AcknowledgeAlert
        | Operation::SnoozeAlert
        | Operation::ResolveAlert
        | Operation::ShowRequest => Reach::Own,
        _ => Reach::Closed,
    }
}

/// The call as far as it concerns this owner.
pub fn scoped(call: &Call, spec: &Spec, owner: &str) -> Result<Call, Problem> {
    let mut own = call.clone();
    match reach(spec) {
        Reach::Open | Reach::Own => {}
        Reach::Filtered => {
            // By whatever spelling and however often: a handler that takes the last of several must not get another's.
            let (own_filter, rest): (Vec<_>, Vec<_>) =
                call.parameters().into_iter().partition(|(name, _)| name == OWNER);
            if own_filter.iter().any(|(_, asked)| asked != owner) {
                return Err(not_yours(owner));
            }
            let rest = rest.into_iter().chain([(OWNER.to_owned(), owner.to_owned())]);
            own.query = Fields(rest.collect()).query().trim_start_matches('?').to_owned();
        }
        Reach::Closed => return Err(not_yours(owner)),
    }
    Ok(own)
}

fn not_yours(owner: &str) -> Problem {
    let detail = format!(
        "This token sees what is {}'s alone, and this shows what is others'. Ask a workspace admin.",
        crate::request::exchange::printable(owner)
    );
    Problem::new(403, "owner_insufficient", detail)
}
