//! The rows of a workspace's configuration, its keys, budgets, alerts and telemetry.

use super::{Operation, Spec, change, get};
use crate::admin::roles::Act;

const TOKENS: &str = "/workspaces/{workspace}/tokens";
const TOKEN: &str = "/workspaces/{workspace}/tokens/{token}";
const SESSIONS: &str = "/workspaces/{workspace}/sessions";
const PROVIDERS: &str = "/workspaces/{workspace}/providers";
const PROVIDER: &str = "/workspaces/{workspace}/providers/{provider}";
const KEYS: &str = "/workspaces/{workspace}/keys";
const KEY: &str = "/workspaces/{workspace}/keys/{key}";
const LOOPS: &str = "/workspaces/{workspace}/keys/{key}/loops";
const LOOP: &str = "/workspaces/{workspace}/keys/{key}/loops/{loop}";
const ACTOR_SECRETS: &str = "/workspaces/{workspace}/actor-secrets";
const POLICY: &str = "/workspaces/{workspace}/policies/{policy}";
const ROUTE: &str = "/workspaces/{workspace}/routes/{route}";
const BUDGET: &str = "/workspaces/{workspace}/budgets/{budget}";
const RAISE: &str = "/workspaces/{workspace}/budgets/{budget}/raise";
const ALERT_SETTINGS: &str = "/workspaces/{workspace}/alert-settings";
const TELEMETRY: &str = "/workspaces/{workspace}/telemetry";
const RECEIVER: &str = "/workspaces/{workspace}/receivers/{receiver}";

/// The rows, in their order.
pub(super) const ROWS: &[Spec] = &[
    get(Operation::ShowOpenApi, "/openapi.json", "This document; needs no token").answers("OpenApi"),
    get(Operation::ListWorkspaces, "/workspaces", "List the workspaces")
        .with(Act::Operate)
        .answers("WorkspaceList"),
    change(Operation::CreateWorkspace, "POST", "/workspaces", "Create a workspace; its first admin token is shown once")
        .with(Act::Operate)
        .takes("NewWorkspace")
        .creates("NewWorkspaceAnswer"),
    get(Operation::ShowWorkspace, "/workspaces/{workspace}", "Describe the workspace").answers("Workspace"),
    get(Operation::ListTokens, TOKENS, "List the API tokens, without their secrets").answers("TokenList"),
    change(Operation::IssueToken, "POST", TOKENS, "Issue an API token; it is shown once")
        .takes("NewToken")
        .creates("IssuedToken"),
    change(Operation::DeleteToken, "DELETE", TOKEN, "Delete an API token; it stops working at once"),
    change(Operation::OpenSession, "POST", SESSIONS, "Open a session of the dashboard with an API token; it lasts 12 hours")
        .with(Act::ReadConfig)
        .creates("Session"),
    get(Operation::ListSessions, SESSIONS, "List the open sessions of the dashboard")
        .with(Act::ReadAudit)
        .answers("SessionList"),
    get(Operation::ShowCaller, "/workspaces/{workspace}/session", "Who makes this call: the role and whose rows it sees, as they are now")
        .answers("Caller"),
    change(Operation::EndSession, "DELETE", "/workspaces/{workspace}/session", "End the session that makes this call")
        .with(Act::ReadConfig),
    change(Operation::RevokeSession, "DELETE", "/workspaces/{workspace}/sessions/{session}", "End a session; it stops working at once"),
    get(Operation::ListProviders, PROVIDERS, "List the providers").answers("ProviderList"),
    change(Operation::CreateProvider, "POST", PROVIDERS, "Register a provider; its credential is write-only")
        .takes("NewProvider")
        .creates("Provider"),
    get(Operation::ShowProvider, PROVIDER, "Describe a provider").answers("Provider"),
    change(Operation::ChangeProvider, "PATCH", PROVIDER, "Change a provider or its credential; null takes a field away")
        .takes("ProviderChange")
        .answers("Provider"),
    change(Operation::DeleteProvider, "DELETE", PROVIDER, "Remove a provider that no route and no price names"),
    get(Operation::ListKeys, KEYS, "List the gateway keys, without their secrets").answers("KeyList"),
    change(Operation::IssueKey, "POST", KEYS, "Issue a gateway key; it is shown once").takes("NewKey").creates("IssuedKey"),
    get(Operation::ShowKey, KEY, "Describe a gateway key").answers("Key"),
    change(Operation::ChangeKey, "PATCH", KEY, "Change a gateway key; null takes its expiry away")
        .takes("KeyChange")
        .answers("Key"),
    change(
        Operation::RotateKey,
        "POST",
        "/workspaces/{workspace}/keys/{key}/rotate",
        "Give a key a new secret, shown once; the old one works until the overlap ends",
    )
    .takes("Rotation")
    .answers("IssuedKey"),
    change(Operation::SuspendKey, "POST", "/workspaces/{workspace}/keys/{key}/suspend", "Stop a key for now").answers("Key"),
    change(Operation::ResumeKey, "POST", "/workspaces/{workspace}/keys/{key}/resume", "Let a suspended key work again")
        .answers("Key"),
    change(Operation::RevokeKey, "POST", "/workspaces/{workspace}/keys/{key}/revoke", "Stop a key for ever").answers("Key"),
    change(
        Operation::Simulate,
        "POST",
        "/workspaces/{workspace}/keys/{key}/simulate",
        "What would this request get, and why? Nothing is sent and nothing is set aside",
    )
    .with(Act::ReadConfig)
    .takes("Thought")
    .answers("Simulated"),
    get(Operation::ShowKeyState, "/workspaces/{workspace}/keys/{key}/state", "What the key's Meter has counted")
        .with(Act::ReadUsage)
        .answers("MeterState"),
    get(Operation::ListLoops, LOOPS, "List the agents and sessions that were stopped as loops, with the evidence")
        .with(Act::ReadUsage)
        .answers("LoopList"),
    change(Operation::ClearLoop, "DELETE", LOOP, "Let a stopped agent go on before its cool-down ends")
        .answers("ClearedLoop"),
    get(Operation::ListActorSecrets, ACTOR_SECRETS, "List the ids of the secrets for actor tokens")
        .answers("ActorSecretList"),
    change(Operation::AddActorSecret, "POST", ACTOR_SECRETS, "Add a secret for actor tokens, yours or a new one; it is shown once")
        .takes("NewActorSecret")
        .creates("IssuedActorSecret"),
    change(
        Operation::RetireActorSecret,
        "DELETE",
        "/workspaces/{workspace}/actor-secrets/{kid}",
        "Retire a secret for actor tokens, at once or after `overlap_seconds`",
    )
    .asks(&["overlap_seconds"]),
    change(
        Operation::Reseal,
        "POST",
        "/workspaces/{workspace}/reseal",
        "Seal every stored secret under the first key of TALLYGATE_KEY_RING, after which older keys may leave the ring",
    )
    .answers("Resealed"),
    get(Operation::ListPolicies, "/workspaces/{workspace}/policies", "List the policies by name").answers("PolicyMap"),
    get(Operation::ShowPolicy, POLICY, "Describe a policy").answers("KeyPolicy"),
    change(Operation::PutPolicy, "PUT", POLICY, "Create or replace a policy; its keys follow it from the next request on")
        .takes("KeyPolicy")
        .answers("KeyPolicy"),
    change(Operation::DeletePolicy, "DELETE", POLICY, "Remove a policy that no key names"),
    get(Operation::ListRoutes, "/workspaces/{workspace}/routes", "List the model aliases by name").answers("RouteMap"),
    get(Operation::ShowRoute, ROUTE, "Describe a model alias").answers("Route"),
    change(Operation::PutRoute, "PUT", ROUTE, "Create or replace a model alias").takes("Route").answers("Route"),
    change(Operation::DeleteRoute, "DELETE", ROUTE, "Remove a model alias"),
    get(Operation::ListBudgets, "/workspaces/{workspace}/budgets", "List the shared budgets by name").answers("BudgetMap"),
    get(
        Operation::ListBudgetStandings,
        "/workspaces/{workspace}/budget-standings",
        "Accounts of budgets, the fullest first, also of each value that has its own; of 500 accounts, those heard of last",
    )
    .with(Act::ReadUsage)
    .answers("BudgetStandings")
    .asks(&["budget", "limit"]),
    get(Operation::ShowBudget, BUDGET, "Describe a shared budget").answers("BudgetTerms"),
    change(Operation::PutBudget, "PUT", BUDGET, "Create or replace a shared budget; what is spent stays spent")
        .takes("BudgetTerms")
        .answers("BudgetTerms"),
    change(Operation::DeleteBudget, "DELETE", BUDGET, "Remove a shared budget"),
    change(Operation::RaiseBudget, "PUT", RAISE, "Raise a budget's limit for some time, with a reason")
        .takes("Raise")
        .answers("BudgetTerms"),
    change(Operation::EndRaise, "DELETE", RAISE, "End a raise before its time").answers("BudgetTerms"),
    get(
        Operation::ShowBudgetStatus,
        "/workspaces/{workspace}/budgets/{budget}/status",
        "What a budget has spent, holds and leaves; `value` names the team, user, ... where each has its own",
    )
    .with(Act::ReadUsage)
    .answers("BudgetStatus")
    .asks(&["value"]),
    get(Operation::ShowAlertSettings, ALERT_SETTINGS, "Describe when alerts are raised").answers("AlertSettings"),
    change(Operation::PutAlertSettings, "PUT", ALERT_SETTINGS, "Set when alerts are raised; what is absent takes its default")
        .takes("AlertSettings")
        .answers("AlertSettings"),
    get(Operation::ListAlerts, "/workspaces/{workspace}/alerts", "List alerts, filtered and paged: the last opened first; by `sort=severity` those not resolved first, the gravest first")
        .with(Act::ReadUsage)
        .answers("AlertList")
        .asks(&["state", "severity", "kind", "sort", "cursor", "limit"]),
    get(
        Operation::CountAlerts,
        "/workspaces/{workspace}/alert-counts",
        "How many alerts there are, by severity and state",
    )
    .with(Act::ReadUsage)
    .answers("AlertCounts"),
    get(Operation::ShowAlert, "/workspaces/{workspace}/alerts/{alert}", "Describe an alert")
        .with(Act::ReadUsage)
        .answers("Alert"),
    change(
        Operation::AcknowledgeAlert,
        "POST",
        "/workspaces/{workspace}/alerts/{alert}/acknowledge",
        "Take an alert on: it stays quiet until it is worse, or went away and comes back",
    )
    .with(Act::HandleAlerts)
    .answers("Alert"),
    change(Operation::SnoozeAlert, "POST", "/workspaces/{workspace}/alerts/{alert}/snooze", "Keep an alert quiet until a moment")
        .with(Act::HandleAlerts)
        .takes("Snooze")
        .answers("Alert"),
    change(
        Operation::ResolveAlert,
        "POST",
        "/workspaces/{workspace}/alerts/{alert}/resolve",
        "Close an alert: it opens again only when it went away and comes back, or is worse",
    )
    .with(Act::HandleAlerts)
    .answers("Alert"),
    get(
        Operation::ShowMetrics,
        "/workspaces/{workspace}/metrics",
        "Counters and gauges for Prometheus, in its text format or, by `accept`, as OpenMetrics",
    )
    .with(Act::ReadUsage)
    .answers("Metrics"),
    get(Operation::ShowTelemetry, TELEMETRY, "Describe where metrics and log events go, and how their export stands")
        .answers("TelemetryStatus"),
    change(Operation::PutTelemetry, "PUT", TELEMETRY, "Set where metrics and log events go (OTLP/HTTP, JSON)")
        .takes("TelemetryBody")
        .answers("Telemetry"),
    change(Operation::DeleteTelemetry, "DELETE", TELEMETRY, "Export nothing any more; what waits is let go"),
    get(Operation::ListReceivers, "/workspaces/{workspace}/receivers", "List the receivers of alerts").answers("ReceiverList"),
    get(Operation::ShowReceiver, RECEIVER, "Describe a receiver of alerts").answers("Receiver"),
    change(
        Operation::PutReceiver,
        "PUT",
        RECEIVER,
        "Create or replace a receiver; a secret that is made up is shown once",
    )
    .takes("ReceiverBody")
    .answers("ChangedReceiver"),
    change(Operation::DeleteReceiver, "DELETE", RECEIVER, "Remove a receiver; what waits for it is parked"),
    change(
        Operation::RotateReceiver,
        "POST",
        "/workspaces/{workspace}/receivers/{receiver}/rotate",
        "Give a webhook a new secret; messages carry both signatures until the overlap ends",
    )
    .takes("ReceiverRotation")
    .answers("ChangedReceiver"),
    change(
        Operation::TestReceiver,
        "POST",
        "/workspaces/{workspace}/receivers/{receiver}/test",
        "Send a test message now and say how it went; one that answered 410 is used again when it takes it",
    )
    .answers("ReceiverTest"),
    get(Operation::ListDeliveries, "/workspaces/{workspace}/deliveries", "List messages to receivers, newest first")
        .answers("DeliveryList")
        .asks(&["receiver", "state", "cursor", "limit"]),
    change(
        Operation::Redeliver,
        "POST",
        "/workspaces/{workspace}/deliveries/{delivery}/redeliver",
        "Send a message again that was delivered or given up",
    )
    .answers("Delivery"),
];
