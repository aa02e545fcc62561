//! The stores' conformance suite: on local disk always; on AWS or what stands for it when
//! `TALLYGATE_TEST_DYNAMODB_ENDPOINT` and `TALLYGATE_TEST_S3_ENDPOINT` name an endpoint.

use tallygate_reconciler::stores::{conformance, local};

fn assert_holds(name: &str, report: &conformance::Report) {
    let failures = report.failures();
    println!(
        "{name}: {} of {} checks hold",
        report.checks.len() - failures.len(),
        report.checks.len()
    );
    assert!(failures.is_empty(), "{name}:\n{}", failures.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn local_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (ledger, objects) = local::open(directory.path()).await.unwrap();
    let (ledger_too, objects_too) = local::open(directory.path()).await.unwrap();
    // Twice: a store that lives on is none the worse for it.
    for scope in ["one", "two"] {
        assert_holds("objects", &conformance::objects(&objects, &objects_too, scope).await);
        assert_holds("ledger", &conformance::ledger(&ledger, &ledger_too, scope).await);
    }
}
