//! Every operation of the control plane, once. The router, the roles and the OpenAPI document read this table, so they
//! cannot disagree.

mod books;
mod configuration;

use super::roles::Act;

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
    ShowCaller,
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
    ListBudgetStandings,
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

/// The table. Where two paths match, the first one counts.
pub fn operations() -> impl Iterator<Item = &'static Spec> {
    [configuration::ROWS, books::ROWS].into_iter().flatten()
}

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
    for spec in operations() {
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
        for spec in operations() {
            let path = format!("/api/v1{}", spec.path.replace(['{', '}'], ""));
            assert_eq!(
                found(spec.method, &path).map(|(operation, _)| operation),
                Some(spec.operation),
                "{path}"
            );
            let rows = operations().filter(|other| other.operation == spec.operation);
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
