//! The suite on endpoints of DynamoDB and S3, once as they are and once with every fifth request or answer lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use tallygate_reconciler::stores::aws::{self, Settings};
use tallygate_reconciler::stores::{conformance, dynamodb::DynamoLedger, s3::S3Objects};

use super::assert_holds;

const NAME: &str = "tallygate-conformance";

/// An endpoint from the environment; says so when there is none.
fn endpoint(variable: &str) -> Option<String> {
    let endpoint = std::env::var(variable).ok().filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_none() {
        println!(
            "SKIPPED: set {variable}, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to run this"
        );
    }
    endpoint
}

fn gaps() -> String {
    std::env::var("TALLYGATE_TEST_KNOWN_GAPS").unwrap_or_default()
}

/// A name that no earlier run had.
fn fresh(kind: &str) -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{kind}-{}-{}", since.as_millis(), std::process::id())
}

fn settings() -> Settings {
    Settings {
        table: NAME.into(),
        bucket: NAME.into(),
        region: Some(std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".into())),
        ..Settings::default()
    }
}

async fn make_table(settings: &Settings) {
    let config = aws::sdk_config(settings).await;
    let client = aws::dynamodb_client(&config, settings.dynamodb_endpoint.as_deref());
    let names = [("pk", KeyType::Hash), ("sk", KeyType::Range)];
    let keys = names.clone().map(|(name, kind)| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build()
    });
    let texts = names.map(|(name, _)| {
        let text = AttributeDefinition::builder().attribute_name(name);
        text.attribute_type(ScalarAttributeType::S).build()
    });
    let table = client
        .create_table()
        .table_name(&settings.table)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(keys.into_iter().flatten().collect()))
        .set_attribute_definitions(Some(texts.into_iter().flatten().collect()));
    if let Err(error) = table.send().await {
        let error = error.into_service_error();
        assert!(error.is_resource_in_use_exception(), "it is not from an earlier run: {error:?}");
    }
}

async fn make_bucket(settings: &Settings) {
    let config = aws::sdk_config(settings).await;
    let client = aws::s3_client(&config, settings.s3_endpoint.as_deref());
    if let Err(error) = client.create_bucket().bucket(&settings.bucket).send().await {
        let error = error.into_service_error();
        let ours = error.is_bucket_already_owned_by_you() || error.is_bucket_already_exists();
        assert!(ours, "it is not from an earlier run: {error:?}");
    }
}

/// Loses a request now and then, and twice as often the answer to one that arrived.
#[derive(Debug)]
struct Unreliable {
    inner: SharedHttpConnector,
    count: Arc<AtomicU64>,
}

impl HttpConnector for Unreliable {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let reset =
            || ConnectorError::io(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into());
        // The golden ratio's multiples: even, and in step with nothing.
        let turn = self.count.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match turn >> 60 {
            0 => HttpConnectorFuture::ready(Err(reset())),
            1 | 2 => {
                let answer = self.inner.call(request);
                HttpConnectorFuture::new(async move {
                    answer.await?;
                    Err(reset())
                })
            }
            _ => self.inner.call(request),
        }
    }
}

/// The program's configuration on a bad line, without its long waits, and how often the line was used.
async fn unreliable(settings: &Settings) -> (SdkConfig, Arc<AtomicU64>) {
    let config = aws::sdk_config(settings).await;
    let count = Arc::new(AtomicU64::new(0));
    let (good, counted) = (config.http_client(), count.clone());
    let retries = RetryConfig::standard()
        .with_max_attempts(12)
        .with_initial_backoff(Duration::from_millis(1))
        .with_max_backoff(Duration::from_millis(5));
    let mut config = config.to_builder().retry_config(retries);
    if let Some(good) = good {
        config = config.http_client(http_client_fn(move |settings, components| {
            let inner = good.http_connector(settings, components);
            SharedHttpConnector::new(Unreliable { inner, count: counted.clone() })
        }));
    }
    (config.build(), count)
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb() {
    let Some(endpoint) = endpoint("TALLYGATE_TEST_DYNAMODB_ENDPOINT") else { return };
    let settings = Settings { dynamodb_endpoint: Some(endpoint), ..settings() };
    make_table(&settings).await;
    let (one, _) = aws::open(&settings).await;
    let (other, _) = aws::open(&settings).await;
    assert_holds("DynamoDB", &gaps(), &conformance::ledger(&one, &other, &fresh("run")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_on_a_bad_line() {
    let Some(endpoint) = endpoint("TALLYGATE_TEST_DYNAMODB_ENDPOINT") else { return };
    let settings = Settings { dynamodb_endpoint: Some(endpoint), ..settings() };
    make_table(&settings).await;
    let (config, count) = unreliable(&settings).await;
    let open = || {
        let client = aws::dynamodb_client(&config, settings.dynamodb_endpoint.as_deref());
        DynamoLedger::new(client, &settings.table)
    };
    let report = conformance::ledger(&open(), &open(), &fresh("bad")).await;
    assert!(count.load(Ordering::Relaxed) > 1000, "the line was not used");
    assert_holds("DynamoDB on a bad line", &gaps(), &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let Some(endpoint) = endpoint("TALLYGATE_TEST_S3_ENDPOINT") else { return };
    let settings = Settings { s3_endpoint: Some(endpoint), ..settings() };
    make_bucket(&settings).await;
    let (_, one) = aws::open(&settings).await;
    let (_, other) = aws::open(&settings).await;
    assert_holds("S3", &gaps(), &conformance::objects(&one, &other, &fresh("run")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_on_a_bad_line() {
    let Some(endpoint) = endpoint("TALLYGATE_TEST_S3_ENDPOINT") else { return };
    let settings = Settings { s3_endpoint: Some(endpoint), ..settings() };
    make_bucket(&settings).await;
    let (config, count) = unreliable(&settings).await;
    let open = || {
        let client = aws::s3_client(&config, settings.s3_endpoint.as_deref());
        S3Objects::new(client, &settings.bucket)
    };
    let report = conformance::objects(&open(), &open(), &fresh("bad")).await;
    assert!(count.load(Ordering::Relaxed) > 500, "the line was not used");
    assert_holds("S3 on a bad line", &gaps(), &report);
}
