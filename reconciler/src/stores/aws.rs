//! DynamoDB and S3, opened alike: one HTTP client with `ring`, patient retries, and one reading of what AWS answers.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::dynamodb::DynamoLedger;
use super::s3::S3Objects;
use crate::ports::StoreError;

/// Attempts at a request, the first one among them. With the waits in between, about a minute of throttling.
pub(super) const ATTEMPTS: u32 = 8;
/// Longest reason that is passed on: AWS repeats the request's names in it.
const MAX_REASON: usize = 400;

/// Where the stores are. Credentials come from where AWS's tools look for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The DynamoDB table, with string keys `pk` and `sk`.
    pub table: String,
    /// The S3 bucket.
    pub bucket: String,
    /// The region, where the environment does not say.
    pub region: Option<String>,
    /// Another DynamoDB than AWS's: `http://127.0.0.1:8000`.
    pub dynamodb_endpoint: Option<String>,
    /// Another S3 than AWS's. Its buckets are named in the path.
    pub s3_endpoint: Option<String>,
}

/// Opens both stores. Nothing is asked of them yet.
pub async fn open(settings: &Settings) -> (DynamoLedger, S3Objects) {
    let config = sdk_config(settings).await;
    let dynamodb = dynamodb_client(&config, settings.dynamodb_endpoint.as_deref());
    let s3 = s3_client(&config, settings.s3_endpoint.as_deref());
    (DynamoLedger::new(dynamodb, &settings.table), S3Objects::new(s3, &settings.bucket))
}

/// What all AWS clients of the reconciler share: region, credentials, HTTP, retries and timeouts.
pub async fn sdk_config(settings: &Settings) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https();
    // A part of 8 MiB must get through on a slow line; a connection that nobody answers must not hold up the night.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(30))
        .operation_attempt_timeout(Duration::from_secs(120));
    let mut config = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(timeouts.build());
    if let Some(region) = &settings.region {
        config = config.region(Region::new(region.clone()));
    }
    config.load().await
}

/// A DynamoDB client of the shared configuration.
pub fn dynamodb_client(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_dynamodb::Client {
    let mut own = aws_sdk_dynamodb::config::Builder::from(config).retry_classifier(AlsoPasses);
    if let Some(endpoint) = endpoint {
        own = own.endpoint_url(endpoint);
    }
    aws_sdk_dynamodb::Client::from_conf(own.build())
}

/// An S3 client of the shared configuration.
pub fn s3_client(config: &SdkConfig, endpoint: Option<&str>) -> aws_sdk_s3::Client {
    let mut own = aws_sdk_s3::config::Builder::from(config)
        .retry_classifier(AlsoPasses)
        .force_path_style(endpoint.is_some());
    if let Some(endpoint) = endpoint {
        own = own.endpoint_url(endpoint);
    }
    aws_sdk_s3::Client::from_conf(own.build())
}

/// Names for writes, no two alike: by its name a writer knows its own write again when the answer to it was lost.
#[derive(Debug)]
pub(super) struct Names {
    own: String,
    given: AtomicU64,
}

impl Names {
    pub(super) fn new() -> Self {
        // Seeded by the system: different in every process.
        let random = || RandomState::new().build_hasher().finish();
        Self { own: format!("{:016x}{:016x}", random(), random()), given: AtomicU64::new(0) }
    }

    pub(super) fn next(&self) -> String {
        format!("{}-{}", self.own, self.given.fetch_add(1, Ordering::Relaxed))
    }
}

/// Two faults that pass, which the SDK does not try again by itself: somebody's transaction touches the same item at
/// this moment, and an answer that says it is good and cannot be read (half of it, or a proxy's page).
#[derive(Debug)]
struct AlsoPasses;

impl ClassifyRetry for AlsoPasses {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(_)) = context.output_or_error() else {
            return RetryAction::NoActionIndicated;
        };
        let Some(response) = context.response() else { return RetryAction::NoActionIndicated };
        let named = b"TransactionConflictException";
        let mut parts = response.body().bytes().unwrap_or_default().windows(named.len());
        if response.status().is_success() || parts.any(|part| part == named) {
            RetryAction::transient_error()
        } else {
            RetryAction::NoActionIndicated
        }
    }

    fn name(&self) -> &'static str {
        "faults that also pass"
    }
}

/// What AWS answered, after all attempts, as a [`StoreError`]. `action` is as IAM names it.
pub(super) fn failed<E>(
    store: &'static str,
    action: &str,
    error: &SdkError<E, HttpResponse>,
) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let SdkError::ServiceError(answer) = error else {
        let causes =
            std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
        let causes: Vec<_> = causes.map(ToString::to_string).collect();
        let reason = cut(&format!("{action}: {}", causes.join(": ")));
        return match error {
            SdkError::ConstructionFailure(_) => StoreError::Failed { store, reason },
            // The request was not even sent.
            SdkError::DispatchFailure(failure) if failure.is_other() => StoreError::Failed {
                store,
                reason: format!(
                    "check the region and the credentials (AWS_REGION; AWS_PROFILE, or AWS_ACCESS_KEY_ID with \
                     AWS_SECRET_ACCESS_KEY): {reason}"
                ),
            },
            _ => StoreError::Unavailable { store, reason },
        };
    };
    let status = answer.raw().status().as_u16();
    let code = answer.err().code().unwrap_or_default();
    let reason =
        cut(&format!("{action}: {status} {code} {}", answer.err().message().unwrap_or_default()));
    match code {
        _ if answer.raw().status().is_success() => StoreError::Unavailable {
            store,
            reason: format!("the answer cannot be read: {reason}"),
        },
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => StoreError::Unavailable {
            store,
            reason: format!("the credentials have expired, renew them: {reason}"),
        },
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignatureException"
        | "InvalidToken" => StoreError::Failed {
            store,
            reason: format!("the credentials are not accepted, check them: {reason}"),
        },
        "ResourceNotFoundException" | "NoSuchBucket" => StoreError::Failed {
            store,
            reason: format!(
                "there is no such table or bucket, check its name and region: {reason}"
            ),
        },
        "ThrottlingException"
        | "Throttling"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TransactionConflictException"
        | "TransactionInProgressException"
        | "SlowDown"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict" => StoreError::Unavailable { store, reason },
        "AccessDeniedException" | "AccessDenied" | "KMSAccessDeniedException" => {
            denied(store, action, reason)
        }
        // A HEAD has no body to name the code in.
        _ if status == 403 => denied(store, action, reason),
        _ if status >= 500 || status == 429 => StoreError::Unavailable { store, reason },
        _ => StoreError::Failed { store, reason },
    }
}

fn denied(store: &'static str, action: &str, reason: String) -> StoreError {
    StoreError::Denied { store, action: action.to_owned(), reason }
}

fn cut(reason: &str) -> String {
    let end = reason.char_indices().nth(MAX_REASON).map_or(reason.len(), |(at, _)| at);
    reason.get(..end).unwrap_or_default().trim_end().to_owned()
}

/// The shared configuration for other clients, with another endpoint where tests want one.
pub async fn shared_config(endpoint: Option<&str>) -> SdkConfig {
    let config = sdk_config(&Settings::default()).await;
    match endpoint {
        Some(endpoint) => config.into_builder().endpoint_url(endpoint).build(),
        None => config,
    }
}

/// Fetches secrets from AWS Secrets Manager, by name or ARN.
pub async fn secrets(
    names: impl IntoIterator<Item = String>,
) -> Result<std::collections::BTreeMap<String, String>, crate::ports::StoreError> {
    let client = aws_sdk_secretsmanager::Client::new(&shared_config(None).await);
    let mut found = std::collections::BTreeMap::new();
    for name in names {
        let answer = client.get_secret_value().secret_id(&name).send().await;
        let answer = answer.map_err(|error| {
            use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
            let reason = error.code().unwrap_or("no answer").to_owned();
            let action = "secretsmanager:GetSecretValue".to_owned();
            match error.code() {
                Some("AccessDeniedException") => crate::ports::StoreError::Denied {
                    store: "Secrets Manager",
                    action,
                    reason: format!("for {name}"),
                },
                Some("ResourceNotFoundException") => crate::ports::StoreError::Failed {
                    store: "Secrets Manager",
                    reason: format!("{name} does not exist or has no value: put one in"),
                },
                _ => crate::ports::StoreError::Unavailable {
                    store: "Secrets Manager",
                    reason: format!("{reason} for {name}"),
                },
            }
        })?;
        let Some(text) = answer.secret_string() else {
            let reason = format!("{name} is binary: put its value in as text");
            return Err(crate::ports::StoreError::Failed { store: "Secrets Manager", reason });
        };
        found.insert(name, text.to_owned());
    }
    Ok(found)
}
