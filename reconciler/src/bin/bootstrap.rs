//! The reconciler as a Lambda: one invocation is one slot of the night.

use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::Value;
use tallygate_reconciler::app::{self, App, SystemClock};
use tallygate_reconciler::lambda::{Answer, Failed, read, work};
use tallygate_reconciler::metrics::{self, Outcome};
use tallygate_reconciler::night::run::Clock;

/// What the runtime is told of a failure.
struct Told(Failed);

/// The runtime logs it: what happened stands in the reconciler's own line.
impl std::fmt::Debug for Told {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(self.0.kind())
    }
}

impl From<Told> for Diagnostic {
    fn from(told: Told) -> Self {
        Self { error_type: told.0.kind().to_owned(), error_message: told.0.message() }
    }
}

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    tracing_subscriber::fmt().json().with_env_filter(filter()).init();
    lambda_runtime::run(service_fn(invoked)).await
}

/// RUST_LOG as one word is the level of the reconciler's own lines. Libraries are asked for warnings only: below that they
/// write down requests with all that is in them.
fn filter() -> tracing_subscriber::EnvFilter {
    let level = std::env::var("RUST_LOG").unwrap_or_default().to_lowercase();
    let level = match level.as_str() {
        "trace" | "debug" | "warn" | "error" => level.as_str(),
        _ => "info",
    };
    format!("warn,tallygate_reconciler={level},bootstrap={level}").into()
}

async fn invoked(event: LambdaEvent<Value>) -> Result<Answer, Told> {
    let mut clock = SystemClock::default();
    match handle(event, &mut clock).await {
        Ok(answer) => {
            tracing::info!(status = ?answer.status, already = answer.already, "done");
            Ok(answer)
        }
        Err(failed) => {
            println!("{}", metrics::line(Outcome::Failed, clock.now()));
            tracing::error!(kind = failed.kind(), "{}", failed.message());
            Err(Told(failed))
        }
    }
}

async fn handle(event: LambdaEvent<Value>, clock: &mut SystemClock) -> Result<Answer, Failed> {
    let tests = std::env::var("TALLYGATE_FAULTS").is_ok_and(|value| value == "on");
    let read = read(event.payload, tests)?;
    tracing::info!(command = ?read.command, "begun");
    if let Some(now) = read.now {
        *clock = SystemClock::showing(now);
    }
    clock.deadline_ms = i64::try_from(event.context.deadline).ok();
    let app = App::open(app::config_of_lambda().await?, clock.clone()).await?;
    work(&app, &read.command, &mut |line| println!("{line}")).await
}
