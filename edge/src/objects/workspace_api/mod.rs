//! The workspace's resources: from an authorised request to a changed configuration and an answer.

mod alerts;
mod archive;
mod budgets;
mod corrections;
pub(crate) mod demo;
mod document;
mod focus;
mod insights;
mod keys;
mod outcomes;
mod performance;
mod prices_billed;
mod providers;
mod reconciler;
mod reports;
mod rules;
mod runs;
mod secrets;
mod sessions;
mod standing;
mod statements;
mod telemetry;
mod versions;

use serde_json::{Value, json};

pub(super) use corrections::CORRECTIONS;
pub(super) use focus::FOCUS;
pub(super) use runs::RUNS;
use secrets::Shared;

use super::sql::Sql;
use super::workspace_object::{Context, Delivery, Principal, Refused, WorkspaceObject};
use crate::admin::call::Step;
use crate::admin::config::{Config, Secrets};
use crate::admin::operations::{Operation, Spec};
use crate::admin::problem::Problem;
use tallygate_shared::policy::key_plan::KeyStatus;

type Answer = Result<Step, Refused>;

/// One request, and what it may touch.
struct Api<'a, S> {
    workspace: &'a mut WorkspaceObject<S>,
    context: &'a Context<'a>,
    principal: &'a Principal,
    spec: &'a Spec,
}

/// Answers a request whose role was checked. `parameters` are the path's, behind the workspace.
pub(super) fn answer<S: Sql>(
    workspace: &mut WorkspaceObject<S>,
    context: &Context<'_>,
    principal: &Principal,
    spec: &Spec,
    parameters: &[&str],
) -> Answer {
    let mut api = Api { workspace, context, principal, spec };
    // A path has one name behind its workspace, or none; a loop has its key's before its own, and a file its
    // month's.
    let name = parameters.first().copied().unwrap_or_default();
    match spec.operation {
        Operation::ShowOpenApi | Operation::ListWorkspaces | Operation::CreateWorkspace => {
            Err(Problem::new(404, "not_found", "This is not a workspace's resource.").into())
        }
        Operation::ShowWorkspace => Ok(Step::json(200, &api.workspace.describe())),
        Operation::ListTokens => Ok(list(api.workspace.tokens()?)),
        Operation::IssueToken => api.issue_token(),
        Operation::DeleteToken => api.delete_token(name),
        Operation::OpenSession => api.open_session(),
        Operation::ListSessions => Ok(list(api.workspace.sessions(api.context.now)?)),
        Operation::ShowCaller => Ok(api.caller()),
        Operation::EndSession => api.end_session(),
        Operation::RevokeSession => api.revoke_session(name),
        Operation::ListProviders => Ok(list(api.providers())),
        Operation::CreateProvider => api.create_provider(),
        Operation::ShowProvider => api.provider(name),
        Operation::ChangeProvider => api.change_provider(name),
        Operation::DeleteProvider => api.delete_provider(name),
        Operation::ListKeys => Ok(list(api.keys())),
        Operation::IssueKey => api.issue_key(),
        Operation::ShowKey => api.key(name),
        Operation::ChangeKey => api.change_key(name),
        Operation::RotateKey => api.rotate_key(name),
        Operation::SuspendKey => api.set_status(name, KeyStatus::Suspended),
        Operation::ResumeKey => api.set_status(name, KeyStatus::Active),
        Operation::RevokeKey => api.set_status(name, KeyStatus::Revoked),
        Operation::Simulate => api.simulate(name),
        Operation::ShowKeyState => api.key_state(name),
        Operation::ListLoops => api.loops(name),
        Operation::ClearLoop => {
            api.clear_loop(name, parameters.get(1).copied().unwrap_or_default())
        }
        Operation::ListActorSecrets => Ok(list(api.shared_secrets(Shared::Actor))),
        Operation::AddActorSecret => api.add_shared_secret(Shared::Actor),
        Operation::RetireActorSecret => api.retire_shared_secret(Shared::Actor, name),
        Operation::ListReconcilerSecrets => Ok(list(api.shared_secrets(Shared::Reconciler))),
        Operation::AddReconcilerSecret => api.add_shared_secret(Shared::Reconciler),
        Operation::RetireReconcilerSecret => api.retire_shared_secret(Shared::Reconciler, name),
        Operation::ShowReconcilerSettings => api.section(|config| json!(config.reconciler)),
        Operation::PutReconcilerSettings => api.put_reconciler_settings(),
        Operation::ShowArchive => api.archive(),
        Operation::ShowArchiveSettings => api.section(|config| json!(config.archive)),
        Operation::PutArchiveSettings => api.put_archive_settings(),
        Operation::ShowReconcilerContext => api.reconciler_context(),
        Operation::ExportEvents => api.export_events(),
        Operation::ExportOutcomes => api.export_outcomes(),
        Operation::BringTrueUps => api.bring_true_ups(),
        Operation::CorrectBudgets => api.correct_budgets(),
        Operation::BringPriceCorrections => api.bring_price_corrections(),
        Operation::BringFindings => api.bring_findings(),
        Operation::ShowTrueUps => api.true_ups(),
        Operation::ListCorrections => api.corrections(),
        Operation::ListPriceProposals => api.price_proposals(),
        Operation::ApplyPriceProposal => api.apply_price_proposal(name),
        Operation::DismissPriceProposal => api.dismiss_price_proposal(name),
        Operation::Reseal => api.reseal(),
        Operation::ListPolicies => api.section(|config| json!(config.policies)),
        Operation::ShowPolicy => api.policy(name),
        Operation::PutPolicy => api.put_policy(name),
        Operation::DeletePolicy => api.delete_policy(name),
        Operation::ListRoutes => api.section(|config| json!(config.routes)),
        Operation::ShowRoute => api.route(name),
        Operation::PutRoute => api.put_route(name),
        Operation::DeleteRoute => api.delete_route(name),
        Operation::ListBudgets => api.budgets(),
        Operation::ListBudgetStandings => api.budget_standings(),
        Operation::ShowBudget => api.budget(name),
        Operation::PutBudget => api.put_budget(name),
        Operation::DeleteBudget => api.delete_budget(name),
        Operation::RaiseBudget => api.raise_budget(name),
        Operation::EndRaise => api.end_raise(name),
        Operation::ShowBudgetStatus => api.budget_status(name),
        Operation::ShowAlertSettings => api.section(|config| json!(config.alerts)),
        Operation::PutAlertSettings => api.put_alert_settings(),
        Operation::ListAlerts => api.alerts(),
        Operation::CountAlerts => api.alert_counts(),
        Operation::ShowAlert => api.alert(name),
        Operation::AcknowledgeAlert => api.act_on_alert("acknowledge", name),
        Operation::SnoozeAlert => api.snooze_alert(name),
        Operation::ResolveAlert => api.act_on_alert("resolve", name),
        Operation::ShowMetrics => api.metrics(),
        Operation::ShowTelemetry => api.telemetry(),
        Operation::PutTelemetry => api.put_telemetry(),
        Operation::DeleteTelemetry => api.delete_telemetry(),
        Operation::ListReceivers => api.receivers(),
        Operation::ShowReceiver => api.receiver(name),
        Operation::PutReceiver => api.put_receiver(name),
        Operation::DeleteReceiver => api.delete_receiver(name),
        Operation::RotateReceiver => api.rotate_receiver(name),
        Operation::TestReceiver => api.test_receiver(name),
        Operation::ListDeliveries => api.deliveries(),
        Operation::Redeliver => api.redeliver(name),
        Operation::ListPrices => api.section(
            |config| json!({ "overrides": config.prices, "default": config.default_price }),
        ),
        Operation::AddPrice => api.add_price(),
        Operation::PutDefaultPrice => api.put_default_price(),
        Operation::DeleteDefaultPrice => api.delete_default_price(),
        Operation::ImportPrices => api.import_prices(),
        Operation::DeletePrice => api.delete_price(name),
        Operation::ListRequests => api.requests(),
        Operation::ShowRequest => api.request(name),
        Operation::ShowUsage => api.usage(),
        Operation::ListOutcomes => api.outcomes(),
        Operation::SummarizeOutcomes => api.outcome_summary(),
        Operation::ProposeBudgets => api.budget_proposals(),
        Operation::ListAudit => api.audit(),
        Operation::ExportConfig => api.section(|config| json!(config)),
        Operation::ApplyConfig => api.apply_config(),
        Operation::ValidateConfig => api.validate_config(),
        Operation::DiffConfig => api.diff_config(),
        Operation::ShowStatement => api.statement(),
        Operation::ShowForecast => api.forecast(),
        Operation::ShowBooks => api.books(),
        Operation::BringRuns => api.bring_runs(),
        Operation::ListRuns => api.runs(),
        Operation::StoreFocusFile => api.store_focus_file(parameters),
        Operation::CommitFocusExport => api.commit_focus_export(),
        Operation::ListFocusExports => api.focus_exports(),
        Operation::DownloadFocusFile => api.focus_file(parameters),
        Operation::ShowModelPerformance => api.model_performance(),
        Operation::ShowPromptShapes => api.prompt_shapes(),
        Operation::ListAgentSessions => api.agent_sessions(),
        Operation::ShowAgentSession => api.agent_session(name),
        Operation::ShowRefusals => api.refusals(),
        Operation::SimulateRefusals => api.simulate_refusals(),
        Operation::ShowUnitEconomics => api.unit_economics(),
        Operation::ShowWeeklyReview => api.weekly_review(),
        Operation::ShowSavings => api.savings(),
        Operation::ShowArchetypes => api.archetypes(),
        Operation::CalculateWorkload => api.workload(),
        Operation::CalculateThroughput => api.provisioned_throughput(),
        Operation::ListConfigVersions => api.config_versions(),
        Operation::ShowConfigVersion => api.config_version(name),
        Operation::CompareConfigVersions => api.compare_versions(name),
        Operation::RollBackConfig => api.roll_back(),
        Operation::ShowKeyInventory => api.key_inventory(),
        Operation::ShowMaturity => api.maturity(),
        Operation::TakeBudgetProposal => api.take_proposal(),
        Operation::FillDemo => api.fill_demo(),
        Operation::RemoveDemo => api.remove_demo(),
    }
}

fn list(data: Vec<Value>) -> Step {
    Step::json(200, &json!({ "data": data }))
}

fn exists(what: &str, name: &str) -> Problem {
    Problem::new(409, "already_exists", format!("The {what} `{name}` is there already."))
}

fn in_use(detail: String) -> Problem {
    Problem::new(409, "in_use", detail)
}

impl<S: Sql> Api<'_, S> {
    /// Edits a copy of configuration and secrets; the workspace takes it whole or not at all. The answer is what `work`
    /// returns.
    fn edit(
        &mut self,
        work: impl FnOnce(&mut Config, &mut Secrets) -> Result<Value, Problem>,
    ) -> Answer {
        let (body, delivery) = self.applied(work)?;
        Ok(self.answered(&body, delivery))
    }

    /// Edits likewise; the answer is a resource as it is afterwards.
    fn edit_and_show(
        &mut self,
        work: impl FnOnce(&mut Config, &mut Secrets) -> Result<(), Problem>,
        show: impl FnOnce(&Self) -> Option<Value>,
    ) -> Answer {
        let ((), delivery) = self.applied(work)?;
        let body = show(self).unwrap_or(Value::Null);
        Ok(self.answered(&body, delivery))
    }

    fn applied<T>(
        &mut self,
        work: impl FnOnce(&mut Config, &mut Secrets) -> Result<T, Problem>,
    ) -> Result<(T, Delivery), Refused> {
        let mut config = self.workspace.config().clone();
        let mut secrets = self.workspace.secrets().clone();
        let done = work(&mut config, &mut secrets)?;
        let delivery = self.workspace.change(config, secrets, self.principal, self.context)?;
        Ok((done, delivery))
    }

    fn answered(&self, body: &Value, delivery: Delivery) -> Step {
        Step::json(self.spec.status, body).with_delivery(delivery.pushes, delivery.more)
    }

    /// Whether the caller sees what has this owner.
    fn sees(&self, owner: &str) -> bool {
        self.principal.owner.as_deref().is_none_or(|own| own == owner)
    }

    fn section(&self, pick: impl FnOnce(&Config) -> Value) -> Answer {
        Ok(Step::json(200, &pick(self.workspace.config())))
    }
}
