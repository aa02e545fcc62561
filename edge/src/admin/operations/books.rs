//! The rows of the books: the reconciler's calls, prices, usage, reports and versions.

use super::{Operation, Spec, change, get};
use crate::admin::roles::Act;
use crate::dimensions::{
    BUDGET_DIMENSIONS, DIMENSIONS, OUTCOME_DIMENSIONS, REFUSAL_DIMENSIONS, TRUE_UP_DIMENSIONS,
    TRUE_UP_OWNER_DIMENSIONS, join,
};

const RECONCILER_SECRETS: &str = "/workspaces/{workspace}/reconciler-secrets";
const ARCHIVE_SETTINGS: &str = "/workspaces/{workspace}/archive-settings";
const RECONCILER_SETTINGS: &str = "/workspaces/{workspace}/reconciler-settings";
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

/// The rows, in their order.
pub(super) const ROWS: &[Spec] = &[
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
        "Estimates against bills, added up by day, provider, model, meter, kind and owner dimensions; without `from`, since the workspace was created",
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
    get(Operation::ListRequests, "/workspaces/{workspace}/requests", "List requests, newest first or sorted, filtered and paged; a dimension with an empty value asks for those that have none")
        .with(Act::ReadUsage)
        .answers("RequestList")
        .asks(REQUEST_QUERY),
    get(Operation::ShowRequest, "/workspaces/{workspace}/requests/{request}", "Describe a request")
        .with(Act::ReadUsage)
        .answers("UsageEvent"),
    get(Operation::ShowUsage, "/workspaces/{workspace}/usage", "Add up usage by hour or day and any dimensions; a dimension with an empty value asks for what has none")
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
