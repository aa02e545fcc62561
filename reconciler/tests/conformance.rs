//! The stores' conformance suite: on local disk always; on AWS or what stands for it when
//! `TALLYGATE_TEST_DYNAMODB_ENDPOINT` and `TALLYGATE_TEST_S3_ENDPOINT` name an endpoint. An emulator that is known not to
//! keep to one of the checks has that check named in `TALLYGATE_TEST_KNOWN_GAPS` (names with commas): its failure is
//! told, and does not fail the test.

use tallygate_reconciler::stores::{conformance, local};

fn assert_holds(name: &str, gaps: &str, report: &conformance::Report) {
    let failures = report.failures();
    let held = report.checks.len() - failures.len();
    println!("{name}: {held} of {} checks hold", report.checks.len());
    let is_gap =
        |failure: &&String| gaps.split(',').any(|gap| failure.starts_with(&format!("{gap}:")));
    let (known, broken): (Vec<_>, Vec<_>) = failures.iter().partition(is_gap);
    for failure in known {
        println!("{name}: a known gap: {failure}");
    }
    assert!(broken.is_empty(), "{name}: {broken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn local_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, objects) = local::open(directory.path()).await.unwrap();
    let (ledger_too, objects_too) = local::open(directory.path()).await.unwrap();
    // Twice: a store that lives on is none the worse for it.
    for scope in ["one", "two"] {
        assert_holds("objects", "", &conformance::objects(&objects, &objects_too, scope).await);
        assert_holds("ledger", "", &conformance::ledger(&ledger, &ledger_too, scope).await);
    }
}

/// An endpoint from the environment; says so when there is none.
#[cfg(feature = "aws")]
fn endpoint(variable: &str) -> Option<String> {
    let endpoint = std::env::var(variable).ok().filter(|endpoint| !endpoint.is_empty());
    if endpoint.is_none() {
        println!(
            "SKIPPED: set {variable}, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, to run this"
        );
    }
    endpoint
}

#[cfg(feature = "aws")]
fn gaps() -> String {
    std::env::var("TALLYGATE_TEST_KNOWN_GAPS").unwrap_or_default()
}

/// A name that no earlier run had.
#[cfg(feature = "aws")]
fn fresh() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("run-{}-{}", since.as_millis(), std::process::id())
}

#[cfg(feature = "aws")]
fn settings() -> tallygate_reconciler::stores::aws::Settings {
    tallygate_reconciler::stores::aws::Settings {
        table: "tallygate-conformance".into(),
        bucket: "tallygate-conformance".into(),
        region: Some(std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".into())),
        ..Default::default()
    }
}

#[cfg(feature = "aws")]
#[tokio::test(flavor = "multi_thread")]
async fn dynamodb() {
    use aws_sdk_dynamodb::types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
    };
    use tallygate_reconciler::stores::aws;

    let Some(endpoint) = endpoint("TALLYGATE_TEST_DYNAMODB_ENDPOINT") else { return };
    let settings = aws::Settings { dynamodb_endpoint: Some(endpoint), ..settings() };
    let config = aws::sdk_config(&settings).await;
    let client = aws::dynamodb_client(&config, settings.dynamodb_endpoint.as_deref());
    let mut table =
        client.create_table().table_name(&settings.table).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [("pk", KeyType::Hash), ("sk", KeyType::Range)] {
        let key = KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
        let text = AttributeDefinition::builder()
            .attribute_name(name)
            .attribute_type(ScalarAttributeType::S)
            .build();
        table = table.key_schema(key.unwrap()).attribute_definitions(text.unwrap());
    }
    if let Err(error) = table.send().await {
        // From an earlier run.
        assert!(error.into_service_error().is_resource_in_use_exception());
    }
    let (one, _) = aws::open(&settings).await;
    let (other, _) = aws::open(&settings).await;
    assert_holds("DynamoDB", &gaps(), &conformance::ledger(&one, &other, &fresh()).await);
}

#[cfg(feature = "aws")]
#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    use tallygate_reconciler::stores::aws;

    let Some(endpoint) = endpoint("TALLYGATE_TEST_S3_ENDPOINT") else { return };
    let settings = aws::Settings { s3_endpoint: Some(endpoint), ..settings() };
    let config = aws::sdk_config(&settings).await;
    let client = aws::s3_client(&config, settings.s3_endpoint.as_deref());
    if let Err(error) = client.create_bucket().bucket(&settings.bucket).send().await {
        // From an earlier run.
        let error = error.into_service_error();
        assert!(error.is_bucket_already_owned_by_you() || error.is_bucket_already_exists());
    }
    let (_, one) = aws::open(&settings).await;
    let (_, other) = aws::open(&settings).await;
    assert_holds("S3", &gaps(), &conformance::objects(&one, &other, &fresh()).await);
}
