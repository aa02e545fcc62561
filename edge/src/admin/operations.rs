//! Every operation of the control plane, once. The router, the roles and the OpenAPI document read this table, so they
//! cannot disagree.

use super::roles::Act;
use crate::dimensions::{
    BUDGET_DIMENSIONS, DIMENSIONS, OUTCOME_DIMENSIONS, REFUSAL_DIMENSIONS, TRUE_UP_DIMENSIONS,
    TRUE_UP_OWNER_DIMENSIONS, join,
};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is described by its row of the table")]
pub enum Operation {
    ShowOpenApi,
    ListWorkspaces,
    CreateWorkspace,
    ShowWorkspace,
    ListTokens,
    IssueToken,
    DeleteToken,
    OpenSession,
    ListSessions,
    EndSession,
    RevokeSession,
    ListProviders,
    CreateProvider,
    ShowProvider,
    ChangeProvider,
    DeleteProvider,
    ListKeys,
    IssueKey,
    ShowKey,
    ChangeKey,
    RotateKey,
    SuspendKey,
    ResumeKey,
    RevokeKey,
    Simulate,
    ShowKeyState,
    ListLoops,
    ClearLoop,
    ListActorSecrets,
    AddActorSecret,
    RetireActorSecret,
    Reseal,
    ListPolicies,
    ShowPolicy,
    PutPolicy,
    DeletePolicy,
    ListRoutes,
    ShowRoute,
    PutRoute,
    DeleteRoute,
    ListBudgets,
    ShowBudget,
    PutBudget,
    DeleteBudget,
    RaiseBudget,
    EndRaise,
    ShowBudgetStatus,
    ShowAlertSettings,
    PutAlertSettings,
    ListAlerts,
    CountAlerts,
    ShowAlert,
    AcknowledgeAlert,
    SnoozeAlert,
    ResolveAlert,
    ShowMetrics,
    ShowTelemetry,
    PutTelemetry,
    DeleteTelemetry,
    ListReceivers,
    ShowReceiver,
    PutReceiver,
    DeleteReceiver,
    RotateReceiver,
    TestReceiver,
    ListDeliveries,
    Redeliver,
    ListReconcilerSecrets,
    AddReconcilerSecret,
    RetireReconcilerSecret,
    ShowReconcilerSettings,
    PutReconcilerSettings,
    ShowArchive,
    ShowArchiveSettings,
    PutArchiveSettings,
    ShowReconcilerContext,
    ExportEvents,
    ExportOutcomes,
    BringTrueUps,
    CorrectBudgets,
    BringPriceCorrections,
    BringFindings,
    ShowTrueUps,
    ListCorrections,
    ListPriceProposals,
    ApplyPriceProposal,
    DismissPriceProposal,
    ListPrices,
    AddPrice,
    PutDefaultPrice,
    DeleteDefaultPrice,
    ImportPrices,
    DeletePrice,
    ListRequests,
    ShowRequest,
    ShowUsage,
    ListOutcomes,
    SummarizeOutcomes,
    ProposeBudgets,
    ListAudit,
    ExportConfig,
    ApplyConfig,
    ValidateConfig,
    DiffConfig,
    ShowStatement,
    ShowForecast,
    ShowBooks,
    BringRuns,
    ListRuns,
    StoreFocusFile,
    CommitFocusExport,
    ListFocusExports,
    DownloadFocusFile,
    ShowModelPerformance,
    ShowPromptShapes,
    ListAgentSessions,
    ShowAgentSession,
    ShowRefusals,
    SimulateRefusals,
    ShowUnitEconomics,
    ShowWeeklyReview,
    ShowSavings,
    ShowArchetypes,
    CalculateWorkload,
    CalculateThroughput,
    ListConfigVersions,
    ShowConfigVersion,
    CompareConfigVersions,
    RollBackConfig,
    ShowKeyInventory,
    ShowMaturity,
    TakeBudgetProposal,
    FillDemo,
    RemoveDemo,
}

/// One row of the table.
#[derive(Debug)]
pub struct Spec {
    /// What it is.
    pub operation: Operation,
    /// The method.
    pub method: &'static str,
    /// The path behind `/api/v1`, with `{parameters}`. A `{price}` at the end may contain slashes.
    pub path: &'static str,
    /// What the caller must be allowed to do.
    pub act: Act,
    /// What it does.
    pub summary: &'static str,
    /// The schema of the request's body.
    pub body: Option<&'static str>,
    /// The status of success.
    pub status: u16,
    /// The schema of the answer.
    pub answer: &'static str,
    /// The query parameters it understands. Others are refused: a filter that is ignored would show the wrong money.
    pub query: &'static [&'static str],
}

impl Spec {
    const fn takes(self, body: &'static str) -> Self {
        Self { body: Some(body), ..self }
    }

    const fn creates(self, answer: &'static str) -> Self {
        Self { status: 201, answer, ..self }
    }

    const fn answers(self, answer: &'static str) -> Self {
        Self { answer, ..self }
    }

    const fn asks(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }
}

const fn get(operation: Operation, path: &'static str, summary: &'static str) -> Spec {
    change(operation, "GET", path, summary).with(Act::ReadConfig)
}

const fn change(
    operation: Operation,
    method: &'static str,
    path: &'static str,
    summary: &'static str,
) -> Spec {
    let act = Act::WriteConfig;
    Spec {
        operation,
        method,
        path,
        act,
        summary,
        body: None,
        status: 200,
        answer: "Done",
        query: &[],
    }
}

impl Spec {
    const fn with(self, act: Act) -> Self {
        Self { act, ..self }
    }
}

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
const RECONCILER_SECRETS: &str = "/workspaces/{workspace}/reconciler-secrets";
const ARCHIVE_SETTINGS: &str = "/workspaces/{workspace}/archive-settings";
const RECONCILER_SETTINGS: &str = "/workspaces/{workspace}/reconciler-settings";
const TELEMETRY: &str = "/workspaces/{workspace}/telemetry";
const RECEIVER: &str = "/workspaces/{workspace}/receivers/{receiver}";
const PRICES: &str = "/workspaces/{workspace}/prices";
const DEFAULT_PRICE: &str = "/workspaces/{workspace}/prices/default";
const CONFIG: &str = "/workspaces/{workspace}/config";
const VERSIONS: &str = "/workspaces/{workspace}/config/versions";

const REQUEST_QUERY: &[&str] = &join::<25>(
    &[
        "from",
        "to",
        "cursor",
        "limit",
        "sort",
        "status",
        "session",
        "min_charged_usd",
        "max_charged_usd",
    ],
    &DIMENSIONS,
);
const USAGE_QUERY: &[&str] = &join::<20>(&["from", "to", "bucket", "group_by"], &DIMENSIONS);
const TRUE_UP_QUERY: &[&str] = &join::<19>(
    &["from", "to", "group_by"],
    &join::<16>(&TRUE_UP_DIMENSIONS, &TRUE_UP_OWNER_DIMENSIONS),
);
const OUTCOMES_QUERY: &[&str] = &join::<19>(
    &["from", "to", "cursor", "limit", "request", "session", "outcome"],
    &OUTCOME_DIMENSIONS,
);
const OUTCOME_SUMMARY_QUERY: &[&str] =
    &join::<18>(&["from", "to", "group_by", "request", "session", "outcome"], &OUTCOME_DIMENSIONS);
const PROPOSALS_QUERY: &[&str] = &join::<16>(&["dimension", "days"], BUDGET_DIMENSIONS);
/// What a refusal has: it reached no provider.
const REFUSAL_QUERY: &[&str] =
    &join::<17>(&["from", "to", "bucket", "group_by"], &REFUSAL_DIMENSIONS);

/// The table. Where two paths match, the first one counts.
pub const OPERATIONS: &[Spec] = &[
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
    get(Operation::ListAlerts, "/workspaces/{workspace}/alerts", "List alerts, the last opened first, filtered and paged")
        .with(Act::ReadUsage)
        .answers("AlertList")
        .asks(&["state", "severity", "kind", "cursor", "limit"]),
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
    get(Operation::ListReconcilerSecrets, RECONCILER_SECRETS, "List the secrets that the reconciler signs with, without them")
        .answers("ActorSecretList"),
    change(Operation::AddReconcilerSecret, "POST", RECONCILER_SECRETS, "Add a secret for the reconciler; one that is made up is shown once")
        .takes("NewActorSecret")
        .creates("IssuedActorSecret"),
    change(
        Operation::RetireReconcilerSecret,
        "DELETE",
        "/workspaces/{workspace}/reconciler-secrets/{secret}",
        "Retire a secret of the reconciler, at once or after an overlap",
    )
    .asks(&["overlap_seconds"]),
    get(Operation::ShowReconcilerSettings, RECONCILER_SETTINGS, "What is done with differences between estimates and bills")
        .answers("ReconcilerSettings"),
    change(
        Operation::PutReconcilerSettings,
        "PUT",
        RECONCILER_SETTINGS,
        "Set what is done with differences; what is absent takes its default",
    )
    .takes("ReconcilerSettings")
    .answers("ReconcilerSettings"),
    get(
        Operation::ShowArchive,
        "/workspaces/{workspace}/archive",
        "How the archive of each month's events stands: what it has, what waits, what failed",
    )
    .answers("Archive"),
    get(Operation::ShowArchiveSettings, ARCHIVE_SETTINGS, "For how long archived events are kept")
        .answers("ArchiveSettings"),
    change(
        Operation::PutArchiveSettings,
        "PUT",
        ARCHIVE_SETTINGS,
        "Set for how long archived events are kept; older ones are deleted for good",
    )
    .takes("ArchiveSettings")
    .answers("ArchiveSettings"),
    get(
        Operation::ShowReconcilerContext,
        "/workspaces/{workspace}/reconciler/context",
        "What the reconciler needs to know of the workspace (signed calls only)",
    )
    .with(Act::Reconcile)
    .answers("ReconcilerContext"),
    get(
        Operation::ExportEvents,
        "/workspaces/{workspace}/reconciler/events",
        "A day's usage events as NDJSON, with a closing line that counts and hashes them (signed calls only)",
    )
    .with(Act::Reconcile)
    .answers("UsageEventLines")
    .asks(&["day", "after"]),
    get(
        Operation::ExportOutcomes,
        "/workspaces/{workspace}/reconciler/outcomes",
        "A day's outcomes as NDJSON, with a closing line that counts and hashes them (signed calls only)",
    )
    .with(Act::Reconcile)
    .answers("OutcomeLines")
    .asks(&["day", "after"]),
    change(Operation::BringTrueUps, "POST", "/workspaces/{workspace}/reconciler/true-ups", "Bring reconciled lines (signed calls only)")
        .with(Act::Reconcile)
        .takes("TrueUps")
        .answers("Taken"),
    change(
        Operation::CorrectBudgets,
        "POST",
        "/workspaces/{workspace}/reconciler/budget-corrections",
        "Correct what budgets count as spent (signed calls only)",
    )
    .with(Act::Reconcile)
    .takes("BudgetCorrections")
    .answers("Taken"),
    change(
        Operation::BringPriceCorrections,
        "POST",
        "/workspaces/{workspace}/reconciler/price-corrections",
        "Propose prices as billed, or have them applied (signed calls only)",
    )
    .with(Act::Reconcile)
    .takes("PriceCorrectionsBody")
    .answers("Taken"),
    change(Operation::BringFindings, "POST", "/workspaces/{workspace}/reconciler/findings", "Raise or end alerts (signed calls only)")
        .with(Act::Reconcile)
        .takes("Findings")
        .answers("Taken"),
    get(
        Operation::ShowTrueUps,
        "/workspaces/{workspace}/true-ups",
        "Estimates against bills, added up by day, provider, model, meter, kind and owner dimensions",
    )
    .with(Act::ReadUsage)
    .answers("TrueUpReport")
    .asks(TRUE_UP_QUERY),
    get(
        Operation::ListCorrections,
        "/workspaces/{workspace}/corrections",
        "What bills changed of what budgets count as spent, the newest first, filtered and paged; kept for 400 days",
    )
    .with(Act::ReadUsage)
    .answers("CorrectionList")
    .asks(&["from", "to", "provider", "budget", "cursor", "limit"]),
    get(Operation::ListPriceProposals, "/workspaces/{workspace}/price-proposals", "Prices on bills that are not the ones requests are rated with")
        .with(Act::ReadUsage)
        .answers("PriceProposalList"),
    change(
        Operation::ApplyPriceProposal,
        "POST",
        "/workspaces/{workspace}/price-proposals/{proposal}/apply",
        "Rate requests with a billed price, from the next day on",
    )
    .answers("PriceProposal"),
    change(
        Operation::DismissPriceProposal,
        "POST",
        "/workspaces/{workspace}/price-proposals/{proposal}/dismiss",
        "Keep the price as it is; the same proposal is not made again",
    )
    .answers("PriceProposal"),
    get(Operation::ListPrices, PRICES, "List the workspace's own prices").answers("PriceList"),
    change(Operation::AddPrice, "POST", PRICES, "Add or replace a price; it wins over the price book")
        .takes("PriceRow")
        .creates("AddedPrice"),
    change(
        Operation::PutDefaultPrice,
        "PUT",
        DEFAULT_PRICE,
        "Set the price of models that nothing else prices; without one they are refused",
    )
    .takes("PriceRow")
    .answers("PriceRow"),
    change(Operation::DeleteDefaultPrice, "DELETE", DEFAULT_PRICE, "Remove the default price"),
    change(
        Operation::ImportPrices,
        "POST",
        "/workspaces/{workspace}/prices/import",
        "Import LiteLLM's price map: all of the providers that are named, or nothing",
    )
    .takes("PriceImport")
    .answers("ImportReport"),
    change(Operation::DeletePrice, "DELETE", "/workspaces/{workspace}/prices/{price}", "Remove a price: `provider/model`, or `provider/model@day`"),
    get(Operation::ListRequests, "/workspaces/{workspace}/requests", "List requests, newest first or sorted, filtered and paged")
        .with(Act::ReadUsage)
        .answers("RequestList")
        .asks(REQUEST_QUERY),
    get(Operation::ShowRequest, "/workspaces/{workspace}/requests/{request}", "Describe a request")
        .with(Act::ReadUsage)
        .answers("UsageEvent"),
    get(Operation::ShowUsage, "/workspaces/{workspace}/usage", "Add up usage by hour or day and any dimensions")
        .with(Act::ReadUsage)
        .answers("UsageReport")
        .asks(USAGE_QUERY),
    get(
        Operation::ListOutcomes,
        "/workspaces/{workspace}/outcomes",
        "List what became of requests and sessions, newest first by the time of the request, filtered and paged",
    )
    .with(Act::ReadUsage)
    .asks(OUTCOMES_QUERY)
    .answers("OutcomeList"),
    get(
        Operation::SummarizeOutcomes,
        "/workspaces/{workspace}/outcomes/summary",
        "What was accepted and rejected, what it was worth, and what the requests behind it cost",
    )
    .with(Act::ReadUsage)
    .asks(OUTCOME_SUMMARY_QUERY)
    .answers("OutcomeSummary"),
    get(
        Operation::ProposeBudgets,
        "/workspaces/{workspace}/budget-proposals",
        "A monthly budget for each team, key, ... from what it usually spends, and why",
    )
    .with(Act::ReadUsage)
    .asks(PROPOSALS_QUERY)
    .answers("BudgetProposals"),
    get(Operation::ListAudit, "/workspaces/{workspace}/audit", "Who changed what, newest first")
        .with(Act::ReadAudit)
        .answers("AuditList")
        .asks(&["before", "limit"]),
    get(Operation::ExportConfig, CONFIG, "Export the configuration, without secrets").answers("Config"),
    change(
        Operation::ApplyConfig,
        "PUT",
        CONFIG,
        "Apply a configuration, whole or not at all. Secrets stay with what they belong to; a key that is left out is revoked. With `version`, the one it was made from, it is refused when the configuration changed since",
    )
    .takes("Config")
    .answers("Changes")
    .asks(&["version"]),
    change(Operation::ValidateConfig, "POST", "/workspaces/{workspace}/config/validate", "Check a configuration without applying it")
        .with(Act::ReadConfig)
        .takes("Config")
        .answers("Valid"),
    change(Operation::DiffConfig, "POST", "/workspaces/{workspace}/config/diff", "What applying a configuration would change")
        .with(Act::ReadConfig)
        .takes("Config")
        .answers("Changes"),
    get(
        Operation::ShowStatement,
        "/workspaces/{workspace}/statements",
        "A month's statement by cost centre or another owner: estimated, billed, adjustments, and the sum of the trued-up ledger",
    )
    .with(Act::ReadUsage)
    .asks(&["month", "by"])
    .answers("Statement"),
    get(
        Operation::ShowForecast,
        "/workspaces/{workspace}/forecast",
        "What this month will have cost when it ends, with its range, and how forecasts made before have done",
    )
    .with(Act::ReadUsage)
    .asks(BUDGET_DIMENSIONS)
    .answers("MonthForecast"),
    get(
        Operation::ShowBooks,
        "/workspaces/{workspace}/books",
        "How fresh the books are, provider by provider, and how much of the month's charges names an owner",
    )
    .with(Act::ReadUsage)
    .answers("Books"),
    change(
        Operation::BringRuns,
        "POST",
        "/workspaces/{workspace}/reconciler/runs",
        "Say how runs of the reconciler ended (signed calls only)",
    )
    .with(Act::Reconcile)
    .takes("ReconciliationRuns")
    .answers("Taken"),
    get(
        Operation::ListRuns,
        "/workspaces/{workspace}/reconciliation-runs",
        "How runs of the reconciler ended, the newest first; kept for 400 days",
    )
    .with(Act::ReadUsage)
    .asks(&["limit"])
    .answers("ReconciliationRunList"),
    change(
        Operation::StoreFocusFile,
        "PUT",
        "/workspaces/{workspace}/reconciler/focus-files/{month}/{number}/{file}",
        "Upload a file of a month's FOCUS export; x-tallygate-content-sha256 says what is signed of its body (signed calls only)",
    )
    .with(Act::Reconcile)
    .takes("FileContent")
    .answers("FileTaken"),
    change(
        Operation::CommitFocusExport,
        "POST",
        "/workspaces/{workspace}/reconciler/focus-exports",
        "Commit a month's FOCUS export, whose files are uploaded; an older one changes nothing (signed calls only)",
    )
    .with(Act::Reconcile)
    .takes("FocusExport")
    .answers("CommittedExport"),
    get(
        Operation::ListFocusExports,
        "/workspaces/{workspace}/focus-exports",
        "List the files of the newest FOCUS export of each month that these days touch, the newest month first",
    )
    .with(Act::ReadUsage)
    .asks(&["from", "to"])
    .answers("FocusExportList"),
    get(
        Operation::DownloadFocusFile,
        "/workspaces/{workspace}/focus-exports/{month}/{file}",
        "Download a file of a month's FOCUS export, as the reconciler wrote it",
    )
    .with(Act::ReadUsage)
    .answers("FileContent"),
    get(
        Operation::ShowModelPerformance,
        "/workspaces/{workspace}/model-performance",
        "Models side by side: requests, latency and time to first byte, errors, retries, tokens by bucket, cost of tokens and outcomes",
    )
    .with(Act::ReadUsage)
    .answers("ModelPerformanceReport")
    .asks(&["from", "to", "bucket", "group_by", "provider", "model"]),
    get(
        Operation::ShowPromptShapes,
        "/workspaces/{workspace}/prompt-shapes",
        "What prompts look like, by feature and model: sizes and parts, never content",
    )
    .with(Act::ReadUsage)
    .answers("PromptShapeReport")
    .asks(&["from", "to", "feature", "model", "shape"]),
    get(
        Operation::ListAgentSessions,
        "/workspaces/{workspace}/agent-sessions",
        "Sessions that actor tokens name: the dearest, or those that grew most",
    )
    .with(Act::ReadUsage)
    .answers("AgentSessionList")
    .asks(&["from", "to", "sort", "limit", "session", "key"]),
    get(
        Operation::ShowAgentSession,
        "/workspaces/{workspace}/agent-sessions/{session}",
        "One session's requests in order, each with its input tokens and their increase",
    )
    .with(Act::ReadUsage)
    .answers("AgentSession")
    .asks(&["from", "to", "key"]),
    get(
        Operation::ShowRefusals,
        "/workspaces/{workspace}/refusals",
        "How many requests were refused, by reason, owner and time",
    )
    .with(Act::ReadUsage)
    .answers("RefusalReport")
    .asks(REFUSAL_QUERY),
    change(
        Operation::SimulateRefusals,
        "POST",
        "/workspaces/{workspace}/refusals/simulate",
        "What refused requests would have met under another policy, from what is recorded of them; nothing is changed",
    )
    .with(Act::ReadUsage)
    .takes("PolicyTrial")
    .answers("RefusalSimulation"),
    get(
        Operation::ShowUnitEconomics,
        "/workspaces/{workspace}/unit-economics",
        "What a feature, customer, team, ... costs, models and harness together, for each request and accepted outcome",
    )
    .with(Act::ReadUsage)
    .asks(&["from", "to", "bucket", "group_by"])
    .answers("UnitEconomicsReport"),
    get(
        Operation::ShowWeeklyReview,
        "/workspaces/{workspace}/weekly-review",
        "What moved in a week and why, what outcomes cost, what is new, what is near its cap; as JSON, or as Markdown",
    )
    .with(Act::ReadUsage)
    .asks(&["week", "format"])
    .answers("WeeklyReview"),
    get(
        Operation::ShowSavings,
        "/workspaces/{workspace}/savings",
        "What could cost less, with evidence, dollars a month and how sure that is; never the same tokens twice",
    )
    .with(Act::ReadUsage)
    .asks(&["days"])
    .answers("SavingsReport"),
    get(
        Operation::ShowArchetypes,
        "/workspaces/{workspace}/archetypes",
        "Each feature's use of tokens beside the usual range of applications of its kind",
    )
    .with(Act::ReadUsage)
    .asks(&["days", "group_by"])
    .answers("ArchetypeReport"),
    get(
        Operation::CalculateWorkload,
        "/workspaces/{workspace}/calculators/workload",
        "What a workload would cost in a month at each model of the workspace's providers, the cheapest first",
    )
    .with(Act::ReadUsage)
    .asks(&["requests", "input_tokens", "cached_tokens", "output_tokens", "batch_percent"])
    .answers("WorkloadReport"),
    get(
        Operation::CalculateThroughput,
        "/workspaces/{workspace}/calculators/provisioned-throughput",
        "From which utilisation on provisioned throughput is cheaper than paying by the token",
    )
    .with(Act::ReadUsage)
    .asks(&[
        "price_per_unit_hour_usd",
        "units",
        "tokens_per_minute",
        "on_demand_per_million_usd",
        "tokens_per_month",
    ])
    .answers("ThroughputAnswer"),
    get(Operation::ListConfigVersions, VERSIONS, "List the last versions of the configuration, who made each and what it changed")
        .answers("ConfigVersionList"),
    get(
        Operation::ShowConfigVersion,
        "/workspaces/{workspace}/config/versions/{version}",
        "The configuration of a version, or of `current`, and what going back to it would not bring back",
    )
    .answers("ConfigVersion"),
    get(
        Operation::CompareConfigVersions,
        "/workspaces/{workspace}/config/versions/{version}/diff",
        "What changes from the version `from` to this one; without `from`, from the current one",
    )
    .answers("Changes")
    .asks(&["from"]),
    change(
        Operation::RollBackConfig,
        "POST",
        "/workspaces/{workspace}/config/rollback",
        "Make a new version with the content of an old one; what is revoked stays so, and secrets that were deleted stay deleted",
    )
    .takes("RollBack")
    .answers("RolledBack"),
    get(
        Operation::ShowKeyInventory,
        "/workspaces/{workspace}/key-inventory",
        "The keys with their age, last use and rotation; which are unused for `days`, unowned, or due for a new secret",
    )
    .answers("KeyInventory")
    .asks(&["days", "owner"]),
    get(
        Operation::ShowMaturity,
        "/workspaces/{workspace}/maturity",
        "Where the workspace stands on the scale crawl, walk, run, from what it really uses, and the next steps",
    )
    .answers("Maturity"),
    change(
        Operation::TakeBudgetProposal,
        "POST",
        "/workspaces/{workspace}/budget-proposals",
        "Take a proposed budget: the month's budget of this team, key, ... gets the limit, or is made",
    )
    .takes("TakenProposal")
    .answers("TakenBudget"),
    change(
        Operation::FillDemo,
        "POST",
        "/workspaces/{workspace}/demo",
        "Bring one day of demo traffic into a demo workspace; `done` and `of` say how far it is",
    )
    .takes("FillDemo")
    .answers("DemoProgress"),
    change(
        Operation::RemoveDemo,
        "DELETE",
        "/workspaces/{workspace}/demo",
        "Remove a demo workspace with everything in it",
    )
    .answers("DemoRemoved"),
];

/// What the table says about a request.
#[derive(Debug)]
pub enum Match {
    /// An operation, and the path's parameters in order, percent-decoded.
    Found(&'static Spec, Vec<String>),
    /// The path is there; it has these methods.
    WrongMethod(Vec<&'static str>),
    /// Nothing has this path.
    Unknown,
}

/// Finds the operation of a request.
pub fn find(method: &str, path: &str) -> Match {
    let Some(rest) = path.strip_prefix("/api/v1/") else { return Match::Unknown };
    // Split before decoding: an encoded slash is part of a name.
    let segments: Vec<String> =
        rest.strip_suffix('/').unwrap_or(rest).split('/').map(super::call::decoded).collect();
    let mut methods = Vec::new();
    for spec in OPERATIONS {
        let Some(parameters) = parameters(spec.path, &segments) else { continue };
        if spec.method == method {
            return Match::Found(spec, parameters);
        }
        methods.push(spec.method);
    }
    if methods.is_empty() { Match::Unknown } else { Match::WrongMethod(methods) }
}

fn parameters(template: &str, segments: &[String]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = segments.iter();
    for part in template.split('/').skip(1) {
        let segment = rest.next()?;
        match part {
            "{price}" => {
                let more = rest.by_ref().map(String::as_str);
                let all: Vec<&str> = std::iter::once(segment.as_str()).chain(more).collect();
                found.push(all.join("/"));
            }
            _ if part.starts_with('{') => found.push(segment.clone()),
            _ if part == segment => {}
            _ => return None,
        }
    }
    let whole = rest.next().is_none() && found.iter().all(|parameter| !parameter.is_empty());
    whole.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(Operation, Vec<String>)> {
        match find(method, path) {
            Match::Found(spec, parameters) => Some((spec.operation, parameters)),
            Match::WrongMethod(_) | Match::Unknown => None,
        }
    }

    #[test]
    fn each_operation_is_found_by_its_own_row_and_no_other() {
        for spec in OPERATIONS {
            let path = format!("/api/v1{}", spec.path.replace(['{', '}'], ""));
            assert_eq!(
                found(spec.method, &path).map(|(operation, _)| operation),
                Some(spec.operation),
                "{path}"
            );
            let rows = OPERATIONS.iter().filter(|other| other.operation == spec.operation);
            assert_eq!(rows.count(), 1, "{:?}", spec.operation);
        }
    }

    #[test]
    fn a_name_may_be_encoded_and_a_price_may_have_slashes() {
        let path = "/api/v1/workspaces/ws_a/policies/a%2Fb%3Ac";
        assert_eq!(
            found("PUT", path),
            Some((Operation::PutPolicy, vec!["ws_a".into(), "a/b:c".into()]))
        );
        for path in [
            "openrouter/anthropic/claude@2026-01-01",
            "openrouter%2Fanthropic%2Fclaude%402026-01-01",
        ] {
            let path = format!("/api/v1/workspaces/ws_a/prices/{path}");
            let price = "openrouter/anthropic/claude@2026-01-01".to_owned();
            assert_eq!(
                found("DELETE", &path),
                Some((Operation::DeletePrice, vec!["ws_a".into(), price]))
            );
        }
    }

    #[test]
    fn a_path_that_is_not_there_and_a_method_that_does_not_fit_are_told_apart() {
        for path in [
            "/api/v1",
            "/api/v2/workspaces",
            "/api/v1/workspaces/ws_a/nothing",
            "/api/v1/workspaces//keys",
            "",
        ] {
            assert!(matches!(find("GET", path), Match::Unknown), "{path}");
        }
        match find("PUT", "/api/v1/workspaces/ws_a/keys/") {
            Match::WrongMethod(methods) => assert_eq!(methods, ["GET", "POST"]),
            other => panic!("{other:?}"),
        }
    }
}
