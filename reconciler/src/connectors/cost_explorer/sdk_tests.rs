use std::time::Duration;

use aws_sdk_costexplorer::config::{BehaviorVersion, Credentials, Region};
use serde_json::{Value, json};
use tallygate_shared::time::Date;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::super::{CostExplorer, PaidCalls, Settings};
use super::*;
use crate::connectors::Connector;
use crate::connectors::http::Patience;

fn days() -> Days {
    Days { from: Date::parse("2026-11-18").unwrap(), to: Date::parse("2026-11-19").unwrap() }
}

fn sdk(endpoint: &str) -> Sdk {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::for_tests())
        .http_client(http)
        .endpoint_url(endpoint)
        .build();
    Sdk::new(Client::from_conf(config))
}

fn explorer(endpoint: &str) -> CostExplorer<Sdk> {
    let settings =
        Settings { account: "111122223333".into(), tag: Some("team".into()), models: vec![] };
    let patience = Patience { retries: 2, first_wait: Duration::from_millis(1) };
    CostExplorer::new(sdk(endpoint), settings, Arc::new(PaidCalls::new(20)), patience)
}

fn day(keys: [&str; 2], amount: &str, next: Option<&str>) -> Value {
    let mut page = json!({"ResultsByTime": [{
        "TimePeriod": {"Start": "2026-11-18", "End": "2026-11-19"}, "Total": {},
        "Groups": [{"Keys": keys, "Metrics": {
            "UnblendedCost": {"Amount": amount, "Unit": "USD"},
            "UsageQuantity": {"Amount": "433.893", "Unit": "N/A"},
        }}],
        "Estimated": true,
    }]});
    if let Some(next) = next {
        page["NextPageToken"] = json!(next);
    }
    page
}

/// A server that gives one answer to every call.
async fn server(status: u16, body: String, error: Option<&str>) -> MockServer {
    let server = MockServer::start().await;
    let mut answer = ResponseTemplate::new(status).set_body_raw(body, "application/x-amz-json-1.1");
    if let Some(error) = error {
        answer = answer.insert_header("x-amzn-ErrorType", error);
    }
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    server
}

async fn failed(status: u16, code: &str) -> (PullError, usize) {
    let body = json!({"message": "for a reason"}).to_string();
    let server = server(status, body, Some(code)).await;
    let error = explorer(&server.uri()).fetch(days()).await.unwrap_err();
    (error, server.received_requests().await.unwrap().len())
}

#[tokio::test]
async fn what_is_asked_for_and_what_came_byte_for_byte() {
    // Odd blanks: whoever parses and prints the answer again loses them.
    let body = "{ \"ResultsByTime\":[],\n  \"Unknown\": 1.10 }";
    let server = server(200, body.into(), None).await;
    let sdk = sdk(&server.uri());
    let services = Question::Services { tag: Some("team".into()) };
    assert_eq!(sdk.answer(days(), &services, Some("p2")).await.unwrap(), body);
    let services = vec!["Amazon Bedrock".to_owned()];
    sdk.answer(days(), &Question::Bedrock { services }, None).await.unwrap();
    sdk.answer(days(), &Question::Records, None).await.unwrap();

    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests[0].headers["x-amz-target"], "AWSInsightsIndexService.GetCostAndUsage");
    let bodies: Vec<Value> = requests.iter().map(|request| request.body_json().unwrap()).collect();
    let usage = json!({"Dimensions": {"Key": "RECORD_TYPE", "MatchOptions": ["EQUALS"],
        "Values": ["Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"]}});
    assert_eq!(
        bodies[0],
        json!({
            "TimePeriod": {"Start": "2026-11-18", "End": "2026-11-19"},
            "Granularity": "DAILY",
            "Metrics": ["UnblendedCost", "NetUnblendedCost", "UsageQuantity"],
            "Filter": usage,
            "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}, {"Type": "TAG", "Key": "team"}],
            "NextPageToken": "p2",
        })
    );
    assert_eq!(bodies[1]["Filter"]["And"][0], usage);
    assert_eq!(bodies[1]["Filter"]["And"][1]["Dimensions"]["Values"], json!(["Amazon Bedrock"]));
    assert_eq!(bodies[2]["Filter"], json!({"Not": usage}));
    assert_eq!(bodies[2]["GroupBy"][0]["Key"], "RECORD_TYPE");
}

#[tokio::test]
async fn errors_of_aws_say_what_to_do() {
    let (error, calls) = failed(400, "AccessDeniedException").await;
    assert!(
        matches!(&error, PullError::Refused { remedy, .. } if remedy.contains("ce:GetCostAndUsage"))
    );
    assert_eq!(calls, 1);
    let (error, calls) = failed(400, "UnrecognizedClientException").await;
    assert!(matches!(&error, PullError::Refused { .. }), "{error}");
    assert_eq!(calls, 1);
    let (error, calls) = failed(400, "DataUnavailableException").await;
    assert!(matches!(&error, PullError::Unavailable { reason, .. } if reason.contains("no data")));
    assert_eq!(calls, 1);
    for (status, code) in [(400, "LimitExceededException"), (500, "InternalServerException")] {
        let (error, calls) = failed(status, code).await;
        assert!(matches!(&error, PullError::Unavailable { reason, .. } if reason.contains(code)));
        assert_eq!(calls, 3, "each paid for by the caller's own count");
    }
    let error = explorer("http://127.0.0.1:9").fetch(days()).await.unwrap_err();
    assert!(matches!(&error, PullError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn html_is_kept_and_refused_by_read() {
    let server = server(200, "<html>".into(), None).await;
    let explorer = explorer(&server.uri());
    let pages = explorer.fetch(days()).await.unwrap();
    assert_eq!(pages[0].body, "<html>");
    assert!(explorer.read(days(), &pages).is_err());
}

/// Against moto: `TALLYGATE_TEST_AWS_ENDPOINT=http://127.0.0.1:5555`.
#[tokio::test]
#[ignore = "needs a moto server"]
async fn a_night_against_moto() {
    let endpoint = std::env::var("TALLYGATE_TEST_AWS_ENDPOINT").unwrap();
    let client = reqwest_client();
    let results = json!({"results": [
        day(["Amazon Bedrock", "team$red"], "1.7898086250", Some("p2")),
        day(["AWS Lambda", "team$"], "12.3456789012", None),
        day(["Amazon Bedrock", "USE1-Claude4.6Sonnet-input-tokens"], "1.7898086250", None),
        day(["Tax", "AWS Lambda"], "0.3300000000", None),
    ]});
    let seed = format!("{endpoint}/moto-api/static/ce/cost-and-usage-results");
    let seeded = client.post(seed).body(results.to_string()).send().await.unwrap();
    assert!(seeded.status().is_success());
    let explorer = explorer(&endpoint);
    let pages = explorer.fetch(days()).await.unwrap();
    let bill = explorer.read(days(), &pages).unwrap();
    let total: i128 = bill.lines.iter().map(|line| line.amount.pico()).sum();
    let expected: tallygate_shared::money::Usd = "14.4654875262".parse().unwrap();
    assert_eq!((pages.len(), total), (4, expected.pico()));
    assert!(bill.lines.iter().all(|line| line.provisional));
}

fn reqwest_client() -> reqwest::Client {
    let http = crate::connectors::http::Http::new("test", Patience::default()).unwrap();
    http.client().clone()
}
