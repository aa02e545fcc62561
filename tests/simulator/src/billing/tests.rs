//! The billing APIs as a client sees them.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;
use crate::bills::key_id;
use crate::bills::tests::{books, quirks, span};
use crate::clock::Move;
use crate::invoice;
use crate::money::Usd;

const DAYS: &str = "2026-11-20/2026-11-22";
const OPENAI: &str = "/openai/v1/organization/costs?start_time=1795132800&end_time=1795305600";
const ANTHROPIC: &str = "/anthropic/v1/organizations/cost_report?starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-22T00:00:00Z";
const OPENROUTER: &str = "/openrouter/api/v1/activity";

/// A simulator of account 1 on 25 November, with use on two days.
fn simulator(provider: &str, document: &str) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let models = match provider {
        "anthropic" => ["claude-haiku-4-5", "claude-sonnet-5-5"],
        _ => ["gpt-6-luna", "gpt-6-sol"],
    };
    shared.books(|of| *of = books(provider, models));
    set(&shared, provider, document);
    let asked: Move =
        serde_json::from_str(r#"{"now": "2026-11-25T08:00:00Z", "frozen": true}"#).unwrap();
    shared.clock.lock().unwrap().set(&asked).unwrap();
    shared
}

fn set(shared: &Shared, provider: &str, document: &str) {
    let head = format!(r#"{{"provider": "{provider}", "account": "1""#);
    let document = match document {
        "" => format!("{head}}}"),
        more => format!("{head}, {more}}}"),
    };
    shared.quirks(provider, "1", |old| *old = quirks(&document));
}

async fn ask(shared: &Arc<Shared>, key: &str, path: &str) -> (StatusCode, HeaderMap, String) {
    let uri: Uri = path.parse().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    headers.insert("x-api-key", key.parse().unwrap());
    headers.insert("anthropic-version", "2023-06-01".parse().unwrap());
    headers.insert("anthropic-beta", "other, analytics-usage-cost-2026-08-24".parse().unwrap());
    let endpoint = Endpoint::of(&uri).unwrap();
    let response = answer(Arc::clone(shared), endpoint, &headers, &uri).await;
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn admin(path: &str) -> &'static str {
    match path {
        path if path.contains("organizations") => "sk-ant-admin01-sim-1",
        path if path.contains("/api/v1") => "sk-or-v1-sim-1",
        _ => "sk-admin-sim-1",
    }
}

async fn get(shared: &Arc<Shared>, path: &str) -> String {
    let (status, _, text) = ask(shared, admin(path), path).await;
    assert_eq!(status, 200, "{path}: {text}");
    text
}

async fn json(shared: &Arc<Shared>, path: &str) -> Value {
    serde_json::from_str(&get(shared, path).await).unwrap()
}

#[derive(Deserialize)]
struct Amount {
    value: Box<RawValue>,
    currency: String,
}

/// The amount of either provider: an object of a number, or text.
#[derive(Deserialize)]
struct CostRow {
    amount: Box<RawValue>,
}

#[derive(Deserialize)]
struct Bucket<T> {
    results: Vec<T>,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<Bucket<T>>,
    has_more: bool,
    next_page: Option<String>,
}

/// Picodollars from decimal text, moved two places where the text is in cents.
fn pico(text: &str, cents: bool) -> i128 {
    let scale = if cents { 100 } else { 1 };
    let Usd(pico) = Usd::try_from(text.to_owned()).unwrap();
    assert_eq!(pico % scale, 0);
    pico / scale
}

fn amount(row: &CostRow) -> i128 {
    let raw = row.amount.get();
    if raw.starts_with('"') {
        return pico(raw.trim_matches('"'), true);
    }
    let amount: Amount = serde_json::from_str(raw).unwrap();
    assert_eq!(amount.currency, "usd");
    pico(amount.value.get(), false)
}

/// The sum of all pages, and how many pages there were.
async fn sum(shared: &Arc<Shared>, path: &str) -> (i128, usize) {
    let (mut sum, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let page: Page<CostRow> =
            serde_json::from_str(&get(shared, &format!("{path}{cursor}")).await).unwrap();
        sum += page.data.iter().flat_map(|bucket| &bucket.results).map(amount).sum::<i128>();
        pages += 1;
        assert_eq!(page.has_more, page.next_page.is_some());
        match page.next_page {
            Some(next) => cursor = format!("&page={next}"),
            None => return (sum, pages),
        }
    }
}

fn invoiced(shared: &Shared, provider: &str, field: &str) -> i128 {
    let quirks = shared.quirks(provider, "1", |quirks| quirks.clone());
    let invoice = shared.books(|books| invoice::document(books, &quirks, span(DAYS)));
    pico(invoice[field].as_str().unwrap(), false)
}

#[tokio::test]
async fn cost_lines_sum_to_the_invoice_however_they_are_grouped() {
    let quirks = [
        "",
        r#""rounding": {"places": 2, "adjustment": true}"#,
        r#""rounding": {"places": 4, "adjustment": true},
           "price": [{"model": "gpt-6-sol", "per_million": "3.1"}]"#,
        r#""credit": [{"days": "2026-11-21", "amount": "1.5"}],
           "tax": [{"days": "2026-11-20/2026-11-22", "basis_points": 825}],
           "discount": [{"days": "2026-11-20", "basis_points": 77}],
           "minimum_fee": [{"days": "2026-11-20/2026-11-22", "amount": "9.99"}]"#,
        r#""late": [{"percent": 10, "pulls": 0}], "page_size": 1"#,
    ];
    let grouped = [
        (OPENAI, &["project_id", "line_item", "api_key_id"][..], "openai"),
        (ANTHROPIC, &["workspace_id", "description"][..], "anthropic"),
    ];
    for (path, groups, provider) in grouped {
        for document in quirks {
            let shared = simulator(provider, document);
            let whole = invoiced(&shared, provider, "total");
            assert_ne!(whole, 0);
            let mut query = String::new();
            for group in ["limit"].iter().chain(groups) {
                match *group {
                    "limit" => query.push_str("&limit=1"),
                    group => query.push_str(&format!("&group_by[]={group}")),
                }
                let (sum, pages) = sum(&shared, &format!("{path}{query}")).await;
                assert_eq!((sum, pages), (whole, 2), "{provider} {document} {query}");
            }
            assert_eq!(sum(&shared, path).await.0, whole);
        }
    }
}

#[tokio::test]
async fn rounding_without_an_adjustment_shows_another_sum() {
    let document = r#""rounding": {"places": 2, "adjustment": false}"#;
    for (path, provider) in [(OPENAI, "openai"), (ANTHROPIC, "anthropic")] {
        let shared = simulator(provider, document);
        let (sum, _) = sum(&shared, path).await;
        assert_eq!(sum, invoiced(&shared, provider, "shown"));
        assert_ne!(sum, invoiced(&shared, provider, "total"));
        assert_eq!(sum % 10_000_000_000, 0);
    }
}

#[tokio::test]
async fn openai_s_shapes_are_the_documented_ones() {
    let shared = simulator("openai", "");
    let path = format!("{OPENAI}&group_by[]=line_item&group_by=project_id&bucket_width=1d");
    let page = json(&shared, &path).await;
    assert_eq!(page["object"], "page");
    let bucket = &page["data"][0];
    assert_eq!(bucket["object"], "bucket");
    assert_eq!(
        (&bucket["start_time"], &bucket["end_time"]),
        (&1_795_132_800.into(), &1_795_219_200.into())
    );
    let rows = bucket["results"].as_array().unwrap();
    let row = rows.iter().find(|row| row["line_item"] == "gpt-6-sol, cached input").unwrap();
    assert_eq!(row["quantity"], 41_152);
    assert_eq!(row["quantity_unit"], "tokens");
    assert_eq!(row["project_id"], "proj_sim");
    assert!(row["api_key_id"].is_null() && row["amount"]["value"].is_number());
    assert!(rows.iter().any(|row| row["line_item"] == "gpt-6-luna, batch input"));

    let usage = "/v1/organization/usage/completions?start_time=1795132800&limit=31";
    let page =
        json(&shared, &format!("{usage}&group_by[]=model&group_by[]=api_key_id&group_by[]=batch"))
            .await;
    assert_eq!(page["data"].as_array().unwrap().len(), 6);
    let rows = page["data"][0]["results"].as_array().unwrap();
    let id = key_id("openai", "sk-sim-1-b");
    let row = rows.iter().find(|row| row["api_key_id"] == id.as_str()).unwrap();
    assert_eq!(row["input_tokens"], 123_457 + 41_152);
    assert_eq!(
        (&row["input_uncached_tokens"], &row["output_tokens"]),
        (&123_457.into(), &9_999.into())
    );
    assert_eq!((&row["num_model_requests"], &row["batch"]), (&2.into(), &false.into()));
    assert_eq!(row["object"], "organization.usage.completions.result");
    assert!(row["service_tier"].is_null());
    let only = json(&shared, &format!("{usage}&api_key_ids[]={id}")).await;
    assert_eq!(only["data"][0]["results"][0]["output_tokens"], 9_999);
    for kind in ["embeddings", "images"] {
        let page = json(&shared, &usage.replace("completions", kind)).await;
        assert_eq!(page["data"][0]["results"].as_array().unwrap().len(), 0, "{kind}");
    }
}

#[tokio::test]
async fn anthropic_s_shapes_are_the_documented_ones() {
    let shared =
        simulator("anthropic", r#""keys": [{"credential": "sk-sim-1-b", "project": "wrkspc_b"}]"#);
    let page =
        json(&shared, &format!("{ANTHROPIC}&group_by[]=description&group_by[]=workspace_id")).await;
    let bucket = &page["data"][0];
    assert_eq!(bucket["starting_at"], "2026-11-20T00:00:00Z");
    assert_eq!(bucket["ending_at"], "2026-11-21T00:00:00Z");
    let rows = bucket["results"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["workspace_id"] == "wrkspc_b" && row["token_type"] == "output_tokens");
    // 9999 tokens at 10 dollars a million, in cents.
    assert_eq!(row.unwrap()["amount"], "9.999");
    assert_eq!(row.unwrap()["description"], "Claude Sonnet 5 5 Usage - Output Tokens");
    let nothing = json(&shared, ANTHROPIC).await;
    for field in ["description", "workspace_id", "model", "token_type", "cost_type", "service_tier"]
    {
        assert!(nothing["data"][0]["results"][0][field].is_null(), "{field}");
    }
    let usage = "/v1/organizations/usage_report/messages?starting_at=2026-11-20T00:00:00Z\
        &ending_at=2026-11-21T00:00:00Z&bucket_width=1d&group_by[]=service_tier&group_by[]=model";
    let page = json(&shared, usage).await;
    let rows = page["data"][0]["results"].as_array().unwrap();
    let row = rows.iter().find(|row| row["service_tier"] == "batch").unwrap();
    assert_eq!(
        (&row["uncached_input_tokens"], &row["cache_read_input_tokens"]),
        (&77.into(), &25.into())
    );
    assert_eq!(row["cache_creation"]["ephemeral_5m_input_tokens"], 0);
    assert_eq!(row["server_tool_use"]["web_search_requests"], 0);
    assert!(row["api_key_id"].is_null());
}

const ANALYTICS: &str = "/anthropic/v1/organizations/analytics/cost?time_bucket_width=1d\
    &starting_at=2026-11-20T00:00:00Z&ending_at=2026-11-22T00:00:00Z";

#[tokio::test]
async fn anthropic_s_newer_report_sums_to_the_invoice_too() {
    let shared = simulator(
        "anthropic",
        r#""rounding": {"places": 4, "adjustment": true},
           "discount": [{"days": "2026-11-20/2026-11-22", "basis_points": 500}]"#,
    );
    let groups = ["", "api_key_id", "model", "token_type", "cost_type", "service_tier"];
    let (mut query, mut lists) = (String::new(), Vec::new());
    for group in groups {
        if !group.is_empty() {
            query.push_str(&format!("&group_by[]={group}"));
        }
        let (mut sum, mut list, mut cursor) = (0, 0, String::new());
        loop {
            let page = json(&shared, &format!("{ANALYTICS}{query}&limit=1{cursor}")).await;
            let rows = page["data"].as_array().unwrap();
            assert_eq!(rows.len(), 1);
            sum += rows
                .iter()
                .map(|row| pico(row["cost"]["amount"].as_str().unwrap(), true))
                .sum::<i128>();
            list += rows
                .iter()
                .map(|row| pico(row["cost"]["list_amount"].as_str().unwrap(), true))
                .sum::<i128>();
            assert_eq!(page["data_refreshed_at"], "2026-11-25T08:00:00Z");
            match page["next_page"].as_str() {
                Some(next) => cursor = format!("&page={next}"),
                None => break,
            }
        }
        assert_eq!(sum, invoiced(&shared, "anthropic", "total"), "{query}");
        lists.push(list);
    }
    // A discount is in the amount alone.
    assert!(lists.iter().all(|list| *list > invoiced(&shared, "anthropic", "total")));
    let id = key_id("anthropic", "sk-sim-1-b");
    let page = json(
        &shared,
        &format!("{ANALYTICS}&group_by[]=api_key_id&group_by[]=token_type&limit=100"),
    )
    .await;
    let rows = page["data"].as_array().unwrap();
    let fits = |row: &&Value| {
        row["group"]["api_key_id"] == id && row["group"]["token_type"] == "output_tokens"
    };
    let row = rows.iter().find(fits).unwrap();
    assert_eq!(row["cost"]["amount"], "10");
    assert!(row["group"]["model"].is_null() && row["cost"]["requests"].is_null());
    let usage = ANALYTICS.replace("analytics/cost", "analytics/usage");
    let page = json(&shared, &format!("{usage}&group_by[]=model&models[]=claude-sonnet-5-5")).await;
    assert_eq!(page["data"][0]["usage"]["requests"], 2);
    assert_eq!(page["data"][0]["usage"]["total_tokens"], 123_457 + 41_152 + 9_999);
    let six = "&group_by[]=model&group_by[]=api_key_id&group_by[]=actor&group_by[]=speed\
        &group_by[]=product&group_by[]=session_id";
    for wrong in [six, "&time_bucket_width=1d", "&group_by[]=tea"] {
        let path = format!("{ANALYTICS}{wrong}");
        assert_eq!(ask(&shared, admin(ANALYTICS), &path).await.0, 400, "{wrong}");
    }
}

#[derive(Deserialize)]
struct Rows {
    data: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    usage: Box<RawValue>,
}

#[tokio::test]
async fn openrouter_tells_completed_days_only() {
    let shared = simulator("openrouter", "");
    let whole = invoiced(&shared, "openrouter", "total");
    let rows: Rows = serde_json::from_str(&get(&shared, OPENROUTER).await).unwrap();
    assert_eq!(rows.data.iter().map(|row| pico(row.usage.get(), false)).sum::<i128>(), whole);
    let page = json(&shared, &format!("{OPENROUTER}?date=2026-11-21")).await;
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    let row = &page["data"][0];
    assert_eq!((&row["date"], &row["prompt_tokens"]), (&"2026-11-21".into(), &13.into()));
    assert_eq!((&row["completion_tokens"], &row["cached_tokens"]), (&1.into(), &3.into()));
    let id = key_id("openrouter", "sk-sim-1-b");
    let page = json(&shared, &format!("{OPENROUTER}?api_key_hash={id}")).await;
    assert_eq!(page["data"][0]["requests"], 2);
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    for day in ["2026-11-25", "2026-10-25", "soon"] {
        let (status, _, _) =
            ask(&shared, "sk-or-v1-sim-1", &format!("{OPENROUTER}?date={day}")).await;
        assert_eq!(status, 400, "{day}");
    }
}

#[tokio::test]
async fn only_an_admin_credential_reads_bills_and_only_its_account_s() {
    for (path, provider) in
        [(OPENAI, "openai"), (ANTHROPIC, "anthropic"), (OPENROUTER, "openrouter")]
    {
        let shared = simulator(provider, "");
        for (key, wanted) in [("sk-sim-1", 403), ("sk-other", 401), ("sk-admin-simulator", 401)] {
            let (status, _, text) = ask(&shared, key, path).await;
            assert_eq!(status, wanted, "{path} {key}");
            assert!(text.contains("error"), "{text}");
        }
    }
    let shared = simulator("openai", "");
    let mine = get(&shared, OPENAI).await;
    let (_, _, other) = ask(&shared, "sk-admin-sim-12", OPENAI).await;
    let (_, _, all) = ask(&shared, "sk-admin-sim", OPENAI).await;
    let nobody = ask(&shared, "sk-admin-sim-99", OPENAI).await.2;
    assert!(mine != other && other != all && mine != all && nobody.contains("\"results\":[]"));
    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", "sk-ant-admin01-sim".parse().unwrap());
    let uri: Uri = ANTHROPIC.parse().unwrap();
    let response = answer(shared, Endpoint::AnthropicCosts, &headers, &uri).await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn a_request_that_is_not_as_documented_is_refused() {
    let shared = simulator("openai", "");
    let wrong = [
        "/v1/organization/costs".to_owned(),
        "/v1/organization/costs?start_time=soon".to_owned(),
        "/v1/organization/costs?start_time=5&end_time=5".to_owned(),
        format!("{OPENAI}&start_time=5"),
        format!("{OPENAI}&bucket_width=1h"),
        format!("{OPENAI}&limit=181"),
        format!("{OPENAI}&limit=0"),
        format!("{OPENAI}&group_by[]=model"),
        format!("{OPENAI}&grup_by[]=line_item"),
        format!("{OPENAI}&page=page_2"),
        "/v1/organizations/cost_report".to_owned(),
        format!("{ANTHROPIC}&limit=32"),
        format!("{ANTHROPIC}&group_by[]=api_key_id"),
        "/v1/organizations/usage_report/messages?starting_at=2026-11-20".to_owned(),
    ];
    for path in wrong {
        let (status, _, text) = ask(&shared, admin(&path), &path).await;
        assert_eq!(status, 400, "{path}: {text}");
    }
    let page = json(&shared, &format!("{OPENAI}&limit=1")).await;
    let cursor = page["next_page"].as_str().unwrap();
    // The other parameters may not change from page to page.
    let (status, _, _) =
        ask(&shared, "sk-admin-sim-1", &format!("{OPENAI}&limit=2&page={cursor}")).await;
    assert_eq!(status, 400);
    let (status, _, _) =
        ask(&shared, "sk-admin-sim-1", "/v1/organization/usage/tea?start_time=5").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn late_use_comes_after_its_pulls_in_costs_and_usage_alike() {
    let shared =
        simulator("openai", r#""late": [{"percent": 40, "pulls": 2, "days": "2026-11-21"}]"#);
    let whole = invoiced(&shared, "openai", "total");
    let usage = "/v1/organization/usage/completions?start_time=1795219200&end_time=1795305600";
    let mut seen = Vec::new();
    for _ in 0..3 {
        // A second page is no second pull.
        let (sum, _) = sum(&shared, &format!("{OPENAI}&limit=1")).await;
        let page = json(&shared, usage).await;
        seen.push((sum == whole, page["data"][0]["results"][0]["input_uncached_tokens"].as_u64()));
    }
    assert_eq!(seen, [(false, Some(6)), (false, Some(6)), (true, Some(10))]);
    set(&shared, "openai", r#""late": [{"percent": 40}]"#);
    assert_ne!(sum(&shared, OPENAI).await.0, whole);
    shared.quirks("openai", "1", Quirks::release);
    assert_eq!(sum(&shared, OPENAI).await.0, whole);
}

/// The first answer with a fault.
async fn faulty(provider: &str, path: &str, fault: &str) -> (StatusCode, HeaderMap, String) {
    let shared = simulator(provider, &format!(r#""faults": [{{"times": 1, {fault}}}]"#));
    let spoilt = ask(&shared, admin(path), path).await;
    let (status, _, sound) = ask(&shared, admin(path), path).await;
    assert_eq!(status, 200);
    assert_ne!(spoilt.2, sound, "{path} {fault}");
    serde_json::from_str::<Value>(&sound).unwrap();
    spoilt
}

#[tokio::test]
async fn an_answer_is_spoilt_as_often_as_asked() {
    let all = [(OPENAI, "openai"), (ANTHROPIC, "anthropic"), (OPENROUTER, "openrouter")];
    for (path, provider) in all {
        let (_, headers, text) = faulty(provider, path, r#""kind": "html""#).await;
        assert!(
            text.starts_with("<html>")
                && headers["content-type"].to_str().unwrap().contains("html")
        );
        let (status, _, text) = faulty(provider, path, r#""kind": "half_page""#).await;
        assert!(status == 200 && serde_json::from_str::<Value>(&text).is_err());
        let fault = r#""kind": "status", "status": 429, "retry_after": 7"#;
        let (status, headers, _) = faulty(provider, path, fault).await;
        assert!(status == 429 && headers["retry-after"] == "7");
        for status in [500, 403] {
            let fault = format!(r#""kind": "status", "status": {status}"#);
            assert_eq!(faulty(provider, path, &fault).await.0, status);
        }
    }
}

#[tokio::test]
async fn amounts_and_texts_are_spoilt_in_each_provider_s_way() {
    let first = |text: &str| -> Value {
        let page: Value = serde_json::from_str(text).unwrap();
        page.pointer("/data/0/results/0").or(page.pointer("/data/0")).unwrap().clone()
    };
    let of = async |provider, path, kind| {
        first(&faulty(provider, path, &format!(r#""kind": "{kind}""#)).await.2)
    };
    assert!(of("openai", OPENAI, "number_as_text").await["amount"]["value"].is_string());
    assert!(of("openai", OPENAI, "text_as_number").await["amount"]["currency"].is_number());
    assert!(of("openai", OPENAI, "missing_amount").await["amount"].get("value").is_none());
    assert_eq!(of("openai", OPENAI, "wrong_currency").await["amount"]["currency"], "eur");
    assert!(of("anthropic", ANTHROPIC, "text_as_number").await["amount"].is_number());
    assert!(of("anthropic", ANTHROPIC, "missing_amount").await.get("amount").is_none());
    assert_eq!(of("anthropic", ANTHROPIC, "wrong_currency").await["currency"], "EUR");
    assert!(of("openrouter", OPENROUTER, "number_as_text").await["usage"].is_string());
    assert!(of("openrouter", OPENROUTER, "text_as_number").await["date"].is_number());
    assert!(of("openrouter", OPENROUTER, "missing_amount").await.get("usage").is_none());
    let usage =
        "/v1/organizations/usage_report/messages?bucket_width=1d&starting_at=2026-11-20T00:00:00Z";
    assert!(of("anthropic", usage, "number_as_text").await["uncached_input_tokens"].is_string());
    assert!(of("anthropic", usage, "missing_amount").await.get("output_tokens").is_none());
    let usage = "/v1/organization/usage/completions?start_time=1795132800";
    assert!(of("openai", usage, "number_as_text").await["input_tokens"].is_string());
    assert!(of("openai", usage, "missing_amount").await.get("input_tokens").is_none());
}

#[tokio::test]
async fn a_repeated_cursor_leads_to_the_same_page_again() {
    for (path, provider) in [(OPENAI, "openai"), (ANTHROPIC, "anthropic")] {
        let shared = simulator(provider, r#""faults": [{"kind": "repeated_cursor", "page": 2}]"#);
        let path = format!("{path}&limit=1");
        let first = json(&shared, &path).await;
        let cursor = first["next_page"].as_str().unwrap();
        let second = json(&shared, &format!("{path}&page={cursor}")).await;
        assert_eq!((&second["next_page"], &second["has_more"]), (&cursor.into(), &true.into()));
        let again = json(&shared, &format!("{path}&page={cursor}")).await;
        assert_eq!(again, second);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_takes_its_time() {
    let shared = simulator("openai", r#""faults": [{"kind": "slow", "latency_ms": 90000}]"#);
    let start = tokio::time::Instant::now();
    get(&shared, OPENAI).await;
    assert_eq!(start.elapsed().as_secs(), 90);
}

#[tokio::test]
async fn keys_are_listed_page_by_page_without_their_secrets() {
    let more = r#""keys": [{"credential": "sk-sim-unused-key", "name": "Old", "inactive": true},
        {"credential": "sk-sim-1-b", "name": "Backup"}], "page_size": 2"#;
    let shared = simulator("anthropic", more);
    let first = json(&shared, "/v1/organizations/api_keys").await;
    assert_eq!(first["has_more"], true);
    let after = first["last_id"].as_str().unwrap();
    let second = json(&shared, &format!("/v1/organizations/api_keys?after_id={after}")).await;
    assert_eq!(second["has_more"], false);
    let rows =
        [first["data"].as_array().unwrap().clone(), second["data"].as_array().unwrap().clone()]
            .concat();
    assert_eq!(rows.len(), 3);
    let backup = rows.iter().find(|row| row["id"] == key_id("anthropic", "sk-sim-1-b")).unwrap();
    assert_eq!((&backup["name"], &backup["status"]), (&"Backup".into(), &"active".into()));
    let old = rows.iter().find(|row| row["name"] == "Old").unwrap();
    assert_eq!(old["status"], "inactive");
    assert!(rows.iter().all(|row| !row.to_string().contains("sk-sim-")));

    let shared =
        simulator("openai", r#""keys": [{"credential": "sk-sim-1-b", "project": "proj_b"}]"#);
    let projects = json(&shared, "/v1/organization/projects?limit=100").await;
    let ids: Vec<&Value> =
        projects["data"].as_array().unwrap().iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, ["proj_b", "proj_sim"]);
    let keys = json(&shared, "/v1/organization/projects/proj_b/api_keys").await;
    assert_eq!(keys["data"].as_array().unwrap().len(), 1);
    assert_eq!(keys["data"][0]["id"], key_id("openai", "sk-sim-1-b"));
    assert_eq!(keys["data"][0]["object"], "organization.project.api_key");
    let admin = json(&shared, "/v1/organization/admin_api_keys").await;
    assert_eq!(admin["data"][0]["object"], "organization.admin_api_key");
    let (status, _, _) =
        ask(&shared, "sk-admin-sim-1", "/v1/organization/projects/none/api_keys").await;
    assert_eq!(status, 404);

    let shared = simulator("openrouter", "");
    let keys = json(&shared, "/api/v1/keys").await;
    assert_eq!(keys["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_request_is_billed_on_the_day_of_the_simulator_s_clock() {
    let shared = simulator("openai", "");
    shared.books(|books| *books = crate::books::Books::default());
    let call = || {
        crate::reply::Call {
        flavour: "openai".to_owned(),
        endpoint: "chat/completions".to_owned(),
        credential: "sk-sim-1".to_owned(),
        headers: Vec::new(),
        gateway_request_id: None,
        bytes: r#"{"model": "gpt-6-sol", "messages": [], "sim": {"input_tokens": 1000000, "output_tokens": 1}}"#.into(),
    }
    };
    for now in ["2026-11-20T23:59:59Z", "2026-11-21T00:00:00Z", "2026-11-21T12:00:00Z"] {
        let asked: Move =
            serde_json::from_str(&format!(r#"{{"now": "{now}", "frozen": true}}"#)).unwrap();
        shared.clock.lock().unwrap().set(&asked).unwrap();
        crate::reply::answer(Arc::clone(&shared), call()).await;
    }
    let page = json(&shared, OPENAI).await;
    let value = |day: usize| page["data"][day]["results"][0]["amount"]["value"].to_string();
    assert_eq!((value(0), value(1)), ("2.00001".to_owned(), "4.00002".to_owned()));
    let books = shared.books(|books| books.show(None, 10));
    assert_eq!(books["entries"][2]["day"], "2026-11-20");
    assert_eq!(books["entries"][0]["at"], "2026-11-21T12:00:00Z");
}
