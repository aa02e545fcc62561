//! What each operation answers, by the names that the table of operations uses.

use super::*;

/// What comes out, beyond what goes in.
pub(super) fn answers() -> BTreeMap<&'static str, Value> {
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let money = || json!({ "type": "string", "description": "US dollars as decimal text" });
    let flag = || json!({ "type": "boolean" });
    let owner =
        || json!({ "type": ["string", "null"], "description": "Whose rows a developer sees" });
    let token = || {
        vec![
            ("id", text()),
            ("name", text()),
            ("role", text()),
            ("created_at", text()),
            ("owner", owner()),
        ]
    };
    let session = || {
        answer(&[
            ("id", text()),
            ("who", described_as(text(), "The token it was opened with")),
            ("role", text()),
            ("opened_at", text()),
            ("expires_at", text()),
            ("owner", owner()),
        ])
    };
    let workspace = || {
        vec![("id", text()), ("name", text()), ("created_at", text()), ("config_version", count())]
    };
    let issued = || [token(), vec![("token", text())]].concat();
    let usage_row = answer(&[
        ("requests", count()),
        ("input_tokens", count()),
        ("cached_tokens", count()),
        ("output_tokens", count()),
        ("cost_usd", money()),
        ("charged_usd", money()),
    ]);
    let outcome_row = answer(&[
        ("accepted", count()),
        ("rejected", count()),
        ("value_usd", described_as(money(), "What the accepted ones were worth, US dollars")),
        ("requests", described_as(count(), "The requests behind them that are known, each once")),
        ("cost_usd", described_as(money(), "What these were charged, US dollars")),
        ("cost_unknown", described_as(count(), "Outcomes whose requests are not all known")),
        ("accepted_cost_unknown", described_as(count(), "Accepted ones among them")),
        (
            "cost_per_accepted_usd",
            json!({ "type": ["string", "null"], "description": "cost_usd by accepted ones of known cost, to 1e-9 US dollars" }),
        ),
    ]);
    BTreeMap::from([
        ("OpenApi", json!({ "type": "object" })),
        ("Done", json!({ "type": "object" })),
        ("Session", session()),
        ("Caller", answer(&[("who", text()), ("role", text()), ("owner", owner())])),
        ("BudgetStandings", budget_standings()),
        ("SessionList", list_of("Session")),
        (
            "Problem",
            json!({
            "type": "object", "required": ["type", "title", "status", "detail", "code"],
            "properties": { "type": text(), "title": text(), "status": count(), "detail": text(), "code": text(),
                "errors": { "type": "array", "items": reference("FieldError") } } }),
        ),
        ("Workspace", answer(&workspace())),
        (
            "WorkspaceList",
            answer(&[(
                "data",
                json!({ "type": "array", "items": answer(&[
            ("id", text()), ("name", text()), ("created_at", text())]) }),
            )]),
        ),
        (
            "NewWorkspaceAnswer",
            answer(&[workspace(), vec![("admin_token", reference("IssuedToken"))]].concat()),
        ),
        ("Token", answer(&token())),
        ("TokenList", list_of("Token")),
        ("IssuedToken", answer(&issued())),
        ("Provider", all_of("ProviderConfig", &[("name", text()), ("credential_set", flag())])),
        ("ProviderList", list_of("Provider")),
        ("Key", all_of("KeyConfig", &[("id", text()), ("valid_secrets", count())])),
        ("KeyList", list_of("Key")),
        ("IssuedKey", all_of("Key", &[("key", text())])),
        ("Simulated", json!({ "type": "object", "required": ["decision", "status", "checks"] })),
        ("MeterState", json!({ "type": "object" })),
        (
            "Loop",
            answer(&[
                ("scope", text()),
                ("agent", json!({ "type": ["string", "null"] })),
                ("session", json!({ "type": ["string", "null"] })),
                ("state", json!({ "type": "string", "enum": ["open", "half_open"] })),
                ("evidence", reference("Evidence")),
                ("message", text()),
                ("spent_usd", money()),
                ("requests", count()),
                ("tripped_at", text()),
                ("until", text()),
                ("forgotten_at", text()),
                ("trips_before", count()),
            ]),
        ),
        ("LoopList", list_of("Loop")),
        ("ClearedLoop", answer(&[("scope", text()), ("cleared", flag())])),
        (
            "ActorSecret",
            answer(&[
                ("kid", text()),
                ("expires_at", json!({ "type": ["string", "null"] })),
                ("valid", flag()),
            ]),
        ),
        ("ActorSecretList", list_of("ActorSecret")),
        ("IssuedActorSecret", answer(&[("kid", text()), ("secret", text())])),
        ("Resealed", answer(&[("resealed", count())])),
        ("PolicyMap", json!({ "type": "object", "additionalProperties": reference("KeyPolicy") })),
        (
            "BudgetMap",
            json!({ "type": "object", "additionalProperties": reference("BudgetTerms") }),
        ),
        ("BudgetStatus", budget_status()),
        ("Alert", alert()),
        ("AlertCounts", alert_counts()),
        ("AlertList", pages_of("Alert")),
        ("Receiver", all_of("ReceiverConfig", &receiver())),
        ("ReceiverList", list_of("Receiver")),
        (
            "ChangedReceiver",
            json!({ "allOf": [reference("ReceiverConfig")], "properties": {
                "name": text(), "secrets": count(),
                "secret": { "type": "string", "description": "The new secret, shown once" } } }),
        ),
        (
            "ReceiverTest",
            json!({ "type": "object", "required": ["delivered"], "properties": {
                "delivered": { "type": "boolean" }, "status": { "type": ["integer", "null"] },
                "error": { "type": ["string", "null"] } } }),
        ),
        ("Metrics", described_as(text(), "Prometheus' text format 0.0.4, or OpenMetrics 1.0.0")),
        ("Telemetry", all_of("TelemetryConfig", &[("has_headers", flag())])),
        (
            "TelemetryStatus",
            all_of("TelemetryConfig", &[("has_headers", flag()), ("exports", exports())]),
        ),
        ("Delivery", delivery()),
        ("DeliveryList", pages_of("Delivery")),
        ("RouteMap", json!({ "type": "object", "additionalProperties": reference("Route") })),
        (
            "PriceList",
            answer(&[
                (
                    "overrides",
                    json!({ "type": "object", "additionalProperties": reference("PriceRow") }),
                ),
                ("default", json!({ "anyOf": [reference("PriceRow"), { "type": "null" }] })),
            ]),
        ),
        ("AddedPrice", answer(&[("name", text()), ("row", reference("PriceRow"))])),
        (
            "ImportReport",
            answer(&[
                ("imported", count()),
                ("skipped_count", count()),
                ("skipped", json!({ "type": "array", "items": reference("Skipped") })),
            ]),
        ),
        (
            "RequestList",
            answer(&[
                ("data", json!({ "type": "array", "items": reference("UsageEvent") })),
                ("next_cursor", json!({ "type": ["string", "null"] })),
                (
                    "looked_to",
                    json!({ "type": ["string", "null"], "description": "Filters and sorts look at the newest \
                        10,000 requests of a month: none older than this was looked at" }),
                ),
            ]),
        ),
        ("UsageReport", answer(&[("data", json!({ "type": "array", "items": usage_row }))])),
        ("TrueUps", array_of("TrueUp")),
        ("BudgetCorrections", array_of("BudgetCorrection")),
        ("PriceCorrectionsBody", array_of("PriceCorrection")),
        ("Findings", array_of("ReconcilerFinding")),
        ("Taken", json!({ "type": "object", "properties": { "taken": count() } })),
        (
            "UsageEventLines",
            json!({ "description": "Lines of JSON: usage events, then one `ExportEnd`.",
                    "anyOf": [reference("UsageEvent"), reference("ExportEnd")] }),
        ),
        (
            "OutcomeLines",
            json!({ "description": "Lines of JSON: outcomes, then one `ExportEnd`.",
                    "anyOf": [reference("OutcomeEvent"), reference("ExportEnd")] }),
        ),
        (
            "TrueUpSums",
            answer(&[
                ("estimated_usd", money()),
                ("billed_usd", money()),
                ("estimated_of_billed_usd", money()),
                ("quantity_variance_usd", money()),
                ("price_variance_usd", money()),
                ("unbilled_lines", count()),
                ("provisional_lines", count()),
            ]),
        ),
        (
            "TrueUpGroup",
            answer(&[
                (
                    "group",
                    json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] } }),
                ),
                ("sums", reference("TrueUpSums")),
            ]),
        ),
        ("TrueUpReport", list_of("TrueUpGroup")),
        (
            "ArchiveMonth",
            answer(&[
                ("month", text()),
                ("parts", count()),
                ("events", count()),
                ("bytes", count()),
                ("compressed_bytes", count()),
                ("kept_events", count()),
                ("unarchived_events", count()),
                ("failures", count()),
                ("failures_in_a_row", count()),
                ("error", json!({ "type": ["string", "null"] })),
                ("next_at", time_or_none()),
                ("written_at", described_as(time_or_none(), "When the bucket last took a part")),
            ]),
        ),
        (
            "Archive",
            answer(&[
                ("bound", flag()),
                ("note", json!({ "type": ["string", "null"] })),
                ("data", json!({ "type": "array", "items": reference("ArchiveMonth") })),
            ]),
        ),
        (
            "StatementRow",
            answer(&[
                (
                    "value",
                    json!({ "type": ["string", "null"], "description": "Null: what belongs to nobody" }),
                ),
                ("estimated_usd", money()),
                ("billed_usd", money()),
                ("still_estimated_usd", money()),
                ("unmetered_usd", money()),
                ("adjustments", json!({ "type": "object", "additionalProperties": money() })),
                ("total_usd", money()),
            ]),
        ),
        (
            "Statement",
            answer(&[
                ("month", text()),
                ("by", text()),
                ("data", array_of("StatementRow")),
                ("total", reference("StatementRow")),
                ("provisional", json!({ "type": "boolean" })),
                ("provisional_because", json!({ "type": "array", "items": text() })),
                (
                    "control",
                    answer(&[
                        ("charged_usd", money()),
                        ("corrected_usd", money()),
                        ("ledger_usd", money()),
                        ("agrees", json!({ "type": "boolean" })),
                    ]),
                ),
            ]),
        ),
        (
            "Forecast",
            answer(&[("expected_usd", money()), ("low_usd", money()), ("high_usd", money())]),
        ),
        (
            "ForecastRecord",
            all_of(
                "Forecast",
                &[
                    ("made_on", described_as(text(), "The day that it would have been made on")),
                    ("until", described_as(text(), "The first day that it does not cover")),
                    ("days", count()),
                    ("actual_usd", money()),
                    ("missed_basis_points", json!({ "type": ["integer", "null"] })),
                    ("within_range", json!({ "type": "boolean" })),
                ],
            ),
        ),
        (
            "MonthForecast",
            answer(&[
                ("month", text()),
                ("made_on", text()),
                ("until", text()),
                ("spent_today_usd", money()),
                ("spent_usd", money()),
                ("forecast", json!({ "anyOf": [reference("Forecast"), { "type": "null" }] })),
                ("no_forecast_because", json!({ "type": ["string", "null"] })),
                ("method", text()),
                ("accuracy", array_of("ForecastRecord")),
            ]),
        ),
        (
            "Freshness",
            answer(&[
                ("seen_until", json!({ "type": ["string", "null"] })),
                ("billed_until", json!({ "type": ["string", "null"] })),
                ("final_until", json!({ "type": ["string", "null"] })),
            ]),
        ),
        (
            "Books",
            answer(&[
                ("newest_event_at", json!({ "type": ["string", "null"] })),
                (
                    "providers",
                    json!({ "type": "object", "additionalProperties": reference("Freshness") }),
                ),
                ("charged_usd", money()),
                ("still_estimated_usd", money()),
                ("ledger_usd", money()),
                (
                    "allocated_usd",
                    json!({ "type": "object", "additionalProperties": money(),
                    "description": "What of the month's charges names an owner, a team, a feature, a cost centre" }),
                ),
            ]),
        ),
        ("ReconciliationRuns", array_of("ReconciliationRun")),
        ("FocusExportList", list_of("FocusExport")),
        ("CommittedExport", answer(&[("number", described_as(count(), "The month's newest"))])),
        (
            "FileContent",
            json!({ "type": "string", "format": "binary", "description": "The file, byte for byte" }),
        ),
        ("DemoProgress", answer(&[("done", count()), ("of", count()), ("events", count())])),
        ("DemoRemoved", answer(&[("removed", text())])),
        ("ReconciliationRunList", list_of("ReconciliationRun")),
        (
            "PriceProposal",
            json!({ "type": "object", "required": ["id", "state", "correction"], "properties": {
                "id": text(), "state": { "enum": ["proposed", "applied", "dismissed"] }, "at": text(),
                "by": { "type": ["string", "null"] }, "correction": reference("PriceCorrection") } }),
        ),
        ("Correction", correction()),
        (
            "CorrectionList",
            answer(&[
                ("data", json!({ "type": "array", "items": reference("Correction") })),
                ("next_cursor", json!({ "type": ["string", "null"] })),
            ]),
        ),
        ("PriceProposalList", list_of("PriceProposal")),
        (
            "OutcomeList",
            answer(&[
                ("data", json!({ "type": "array", "items": reference("OutcomeEvent") })),
                ("next_cursor", json!({ "type": ["string", "null"] })),
            ]),
        ),
        ("OutcomeSummary", answer(&[("data", json!({ "type": "array", "items": outcome_row }))])),
        ("OutcomeReport", outcome_report()),
        ("BudgetFinding", all_of("Finding", &[("value", text())])),
        (
            "BudgetProposals",
            answer(&[
                ("dimension", text()),
                ("days", count()),
                ("until", text()),
                ("data", json!({ "type": "array", "items": reference("BudgetFinding") })),
            ]),
        ),
        (
            "AuditEntry",
            answer(&[
                ("seq", count()),
                ("at", text()),
                ("who", text()),
                ("act", text()),
                ("path", text()),
                ("change", json!({ "type": "object" })),
            ]),
        ),
        ("AuditList", list_of("AuditEntry")),
        (
            "Changes",
            answer(&[("changes", json!({ "type": "array", "items": reference("Change") }))]),
        ),
        ("Valid", answer(&[("valid", flag())])),
        (
            "UnitEconomicsReport",
            answer(&[
                ("group_by", text()),
                ("bucket", json!({ "type": ["string", "null"] })),
                ("from", text()),
                ("to", described_as(text(), "The first day that is left out")),
                ("overall", reference("UnitEconomics")),
                ("totals", array_of("UnitEconomics")),
                (
                    "over_time",
                    described_as(
                        array_of("UnitEconomics"),
                        "All names, by bucket; empty without one",
                    ),
                ),
                (
                    "data",
                    described_as(
                        array_of("UnitEconomics"),
                        "By bucket and name; empty without a bucket",
                    ),
                ),
            ]),
        ),
        (
            "ArchetypeReport",
            answer(&[
                ("group_by", text()),
                ("bands", array_of("ArchetypeBand")),
                ("data", array_of("ArchetypeComparison")),
            ]),
        ),
        (
            "WorkloadReport",
            answer(&[
                ("workload", json!({ "type": "object" })),
                ("data", array_of("WorkloadPrice")),
                (
                    "not_able",
                    described_as(count(), "Chat models that cannot take it, or lack a price"),
                ),
            ]),
        ),
        (
            "InventoryKey",
            all_of(
                "Key",
                &[
                    ("created_at", time_or_none()),
                    ("secret_at", described_as(time_or_none(), "When its newest secret was made")),
                    ("rotation_due_at", time_or_none()),
                    (
                        "payment_methods",
                        json!({ "type": "object", "additionalProperties": { "type": ["string", "null"] },
                            "description": "How the providers that its policy lets it use are paid, by their names" }),
                    ),
                    ("age_days", json!({ "type": ["integer", "null"] })),
                    (
                        "last_used_at",
                        described_as(
                            time_or_none(),
                            "The last hour with a request of these days, or a day or hour of the last 365",
                        ),
                    ),
                    ("requests", count()),
                    ("charged_usd", money()),
                    (
                        "findings",
                        json!({ "type": "array", "items": { "enum": ["unused", "unowned", "rotation_due"] } }),
                    ),
                ],
            ),
        ),
        (
            "KeyInventory",
            answer(&[
                ("days", count()),
                ("data", json!({ "type": "array", "items": reference("InventoryKey") })),
            ]),
        ),
        (
            "TakenBudget",
            answer(&[("name", text()), ("created", flag()), ("terms", reference("BudgetTerms"))]),
        ),
        (
            "Maturity",
            answer(&[
                ("capabilities", json!({ "type": "array", "items": reference("Standing") })),
                ("facts", described_as(json!({ "type": "object" }), "What was counted")),
            ]),
        ),
        (
            "ConfigVersionList",
            answer(&[
                (
                    "data",
                    json!({ "type": "array", "items": answer(&[
                        ("version", count()), ("at", text()), ("who", text()), ("note", text()),
                        ("changes", count()),
                        ("changed", json!({ "type": "array", "items": text(), "description": "The first 20 of them" }))]) }),
                ),
                ("current", count()),
            ]),
        ),
        (
            "NotUndone",
            json!({ "type": "array", "items": answer(&[("path", text()), ("why", text())]) }),
        ),
        (
            "ConfigVersion",
            answer(&[
                ("version", count()),
                ("at", json!({ "type": ["string", "null"] })),
                ("who", text()),
                ("note", text()),
                ("config", reference("Config")),
                ("not_undone", reference("NotUndone")),
            ]),
        ),
        (
            "RolledBack",
            answer(&[
                ("version", count()),
                ("changes", json!({ "type": "array", "items": reference("Change") })),
                ("not_undone", reference("NotUndone")),
            ]),
        ),
    ])
}
