//! Cost Explorer itself, by AWS's SDK. The SDK decides nothing: the body is kept as it came and read by us.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use aws_sdk_costexplorer::Client;
use aws_sdk_costexplorer::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_costexplorer::config::retry::RetryConfig;
use aws_sdk_costexplorer::config::{Config, ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_costexplorer::error::{BoxError, DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_costexplorer::types::{
    DateInterval, Dimension, DimensionValues, Expression, Granularity, GroupDefinition,
    GroupDefinitionType, MatchOption,
};
use bytes::Bytes;

use super::{ACTION, Answers, NAME, Question, USE};
use crate::connectors::http::Failed;
use crate::connectors::{Days, PullError};

/// Cost Explorer's client.
#[derive(Clone, Debug)]
pub struct Sdk {
    client: Client,
}

impl Sdk {
    /// Cost Explorer with the credentials of `shared`, in the one region that has it.
    pub fn from_config(shared: &aws_config::SdkConfig) -> Self {
        let region = aws_sdk_costexplorer::config::Region::new("us-east-1");
        let config = aws_sdk_costexplorer::config::Builder::from(shared).region(region).build();
        Self::new(Client::from_conf(config))
    }

    /// Asks with this client. Its retries are turned off: each call is paid for, so the caller counts them.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

/// Keeps the body of the answer, whatever the SDK makes of it.
#[derive(Debug, Default)]
struct Keep(Arc<Mutex<Option<Bytes>>>);

impl Intercept for Keep {
    fn name(&self) -> &'static str {
        "KeepBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answer = context.response();
        if let (true, Some(body)) = (answer.status().is_success(), answer.body().bytes()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Bytes::copy_from_slice(body));
        }
        Ok(())
    }
}

#[async_trait]
impl Answers for Sdk {
    async fn answer(
        &self,
        days: Days,
        question: &Question,
        next: Option<&str>,
    ) -> Result<Bytes, Failed> {
        let period = DateInterval::builder()
            .start(days.from.to_string())
            .end(days.to.to_string())
            .build()
            .map_err(|error| Failed::Final(unavailable(question, error.to_string())))?;
        let kept = Arc::new(Mutex::new(None));
        let asked = self
            .client
            .get_cost_and_usage()
            .time_period(period)
            .granularity(Granularity::Daily)
            .set_metrics(Some(
                ["UnblendedCost", "NetUnblendedCost", "UsageQuantity"].map(String::from).into(),
            ))
            .filter(filter(question))
            .set_group_by(Some(groups(question)))
            .set_next_page_token(next.map(str::to_owned))
            .customize()
            .config_override(Config::builder().retry_config(RetryConfig::disabled()))
            .interceptor(Keep(Arc::clone(&kept)))
            .send()
            .await;
        let body = kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (body, asked) {
            (Some(body), _) => Ok(body),
            (None, Ok(_)) => {
                Err(Failed::Final(unavailable(question, "the answer has no body".into())))
            }
            (None, Err(error)) => Err(unanswered(question, error)),
        }
    }
}

fn unavailable(question: &Question, reason: String) -> PullError {
    PullError::Unavailable { source_name: NAME.into(), what: question.label().into(), reason }
}

fn one_of(dimension: Dimension, values: impl IntoIterator<Item = String>) -> Expression {
    let values = DimensionValues::builder()
        .key(dimension)
        .set_values(Some(values.into_iter().collect()))
        .match_options(MatchOption::Equals)
        .build();
    Expression::builder().dimensions(values).build()
}

/// The filters of the three questions are disjoint, and together they are everything.
fn filter(question: &Question) -> Expression {
    let usage = one_of(Dimension::RecordType, USE.map(String::from));
    match question {
        Question::Services { .. } => usage,
        Question::Bedrock { services } => {
            let services = one_of(Dimension::Service, services.iter().cloned());
            Expression::builder().and(usage).and(services).build()
        }
        Question::Records => Expression::builder().not(usage).build(),
    }
}

fn groups(question: &Question) -> Vec<GroupDefinition> {
    let by = |kind, key: &str| GroupDefinition::builder().r#type(kind).key(key).build();
    let dimension = |key| by(GroupDefinitionType::Dimension, key);
    match question {
        Question::Services { tag } => {
            let tag = tag.as_deref().map(|tag| by(GroupDefinitionType::Tag, tag));
            [dimension("SERVICE")].into_iter().chain(tag).collect()
        }
        Question::Bedrock { .. } => vec![dimension("SERVICE"), dimension("USAGE_TYPE")],
        Question::Records => vec![dimension("RECORD_TYPE"), dimension("SERVICE")],
    }
}

/// What an error means for us. Messages of AWS name roles and accounts, and no credential.
fn unanswered<E, R>(question: &Question, error: SdkError<E, R>) -> Failed
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let SdkError::ServiceError(failed) = &error else {
        let reason: &str = match &error {
            SdkError::TimeoutError(_) => "the call took too long",
            SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
                "the connection broke"
            }
            // No credentials, no region: asking again changes nothing.
            SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
                let reason = DisplayErrorContext(&error).to_string();
                return Failed::Final(unavailable(question, reason));
            }
            _ => "the answer broke off",
        };
        return Failed::again(reason);
    };
    let code = failed.err().code().unwrap_or("an error without a code").to_owned();
    let reason = match failed.err().message() {
        Some(message) => format!("{code}: {message}"),
        None => code.clone(),
    };
    if code.starts_with("AccessDenied") || code == "UnauthorizedOperation" {
        let how = "and open Cost Explorer to IAM in the paying account";
        let remedy = format!("{code}: allow {ACTION} to the reconciler's role, {how}");
        return refused(question, remedy);
    }
    if ["UnrecognizedClient", "ExpiredToken", "InvalidSignature", "InvalidClientToken"]
        .iter()
        .any(|start| code.starts_with(start))
    {
        return refused(question, format!("{code}: {ACTION} needs valid AWS credentials"));
    }
    match code.as_str() {
        "LimitExceededException"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "InternalServerException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout" => Failed::again(reason),
        "DataUnavailableException" => {
            let reason = format!("{reason}: there is no data for these days yet, or no more");
            Failed::Final(unavailable(question, reason))
        }
        _ => Failed::Final(unavailable(question, reason)),
    }
}

fn refused(question: &Question, remedy: String) -> Failed {
    let (source_name, what) = (NAME.into(), question.label().into());
    Failed::Final(PullError::Refused { source_name, what, remedy })
}

#[cfg(test)]
#[path = "sdk_tests.rs"]
mod tests;
