//! Step 1: what each source says it billed. Every answer is kept byte for byte before it is read; a pull that is kept is
//! not made again when a run is resumed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallygate_shared::time::Date;

use crate::bill::Bill;
use crate::config::Source;
use crate::connectors::anthropic::Anthropic;
use crate::connectors::atlas::Atlas;
use crate::connectors::azure::Azure;
use crate::connectors::claude_code::ClaudeCode;
use crate::connectors::copilot::Copilot;
use crate::connectors::cost_explorer::PaidCalls;
use crate::connectors::cursor::Cursor;
use crate::connectors::http::Patience;
use crate::connectors::inbox::Inbox;
use crate::connectors::inbox::mapping::Mapping;
use crate::connectors::openai::OpenAi;
use crate::connectors::openrouter::OpenRouter;
use crate::connectors::vercel::Vercel;
use crate::connectors::{Connector, Days, PullError, RawPage};
use crate::ports::{ObjectStore, StoreError};
use crate::stores::raw::{self, ContentRef};

/// What a pull brought, in order: the list by which it can be read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The source.
    pub source: String,
    /// The first day asked for.
    pub from: String,
    /// The day after the last.
    pub to: String,
    /// The pages.
    pub pages: Vec<ContentRef>,
}

/// A bill, and where it comes from.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The bill.
    pub bill: Bill,
    /// What was left out until a person has looked at it.
    pub held: Vec<PullError>,
    /// The manifest's key in the object store: the bill's content address.
    pub manifest: String,
}

/// Why a source gave no bill.
#[derive(Debug, thiserror::Error)]
pub enum PullFailed {
    /// The source.
    #[error(transparent)]
    Source(#[from] PullError),
    /// The object store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What sources share in a run.
#[derive(Clone)]
pub struct Shared {
    /// Objects, for the inbox.
    pub objects: Arc<dyn ObjectStore>,
    /// The brake on calls that cost money.
    pub paid_calls: Arc<PaidCalls>,
    /// How patient to be.
    pub patience: Patience,
}

/// The connector of a source.
pub async fn connector(source: &Source, shared: &Shared) -> Result<Box<dyn Connector>, PullError> {
    let patience = shared.patience;
    Ok(match source.clone() {
        Source::Openai(settings) => Box::new(OpenAi::new(settings, patience)?),
        Source::Anthropic(settings) => Box::new(Anthropic::new(settings, patience)?),
        Source::Openrouter(settings) => Box::new(OpenRouter::new(settings, patience)?),
        Source::Azure(settings) => Box::new(Azure::new(settings, patience)?),
        Source::Vercel(settings) => Box::new(Vercel::new(settings, patience)?),
        Source::MongodbAtlas(settings) => Box::new(Atlas::new(settings, patience)?),
        Source::ClaudeCode(settings) => Box::new(ClaudeCode::new(settings, patience)?),
        Source::GithubCopilot(settings) => Box::new(Copilot::new(settings, patience)?),
        Source::Cursor(settings) => Box::new(Cursor::new(settings, patience)?),
        Source::Inbox { mapping } => {
            // From a file it comes as text.
            let text = mapping.as_str().map_or_else(|| mapping.to_string(), str::to_owned);
            let mapping = Mapping::parse(&text).map_err(|error| PullError::Refused {
                source_name: "inbox".into(),
                what: "the mapping".into(),
                remedy: format!("`{}` {}", error.field, error.reason),
            })?;
            Box::new(Inbox::new(shared.objects.clone(), mapping))
        }
        Source::AwsCostExplorer { account, tag, endpoint } => {
            cost_explorer(account, tag, endpoint, shared).await?
        }
    })
}

#[cfg(feature = "aws")]
async fn cost_explorer(
    account: String,
    tag: Option<String>,
    endpoint: Option<String>,
    shared: &Shared,
) -> Result<Box<dyn Connector>, PullError> {
    use crate::connectors::cost_explorer::{CostExplorer, Sdk, Settings};
    let config = crate::stores::aws::shared_config(endpoint.as_deref()).await;
    let models = bedrock_models();
    let settings = Settings { account, tag, models };
    let sdk = Sdk::from_config(&config);
    Ok(Box::new(CostExplorer::new(sdk, settings, shared.paid_calls.clone(), shared.patience)))
}

/// Bedrock's models, as the price book calls them.
#[cfg(feature = "aws")]
fn bedrock_models() -> Vec<String> {
    let book = tallygate_shared::pricing::PriceBook::built_in();
    let rows = book.map(|book| book.rows()).unwrap_or_default();
    let bedrock = rows.iter().filter(|row| row.provider.starts_with("bedrock"));
    bedrock.map(|row| row.model.clone()).collect()
}

#[cfg(not(feature = "aws"))]
async fn cost_explorer(
    _account: String,
    _tag: Option<String>,
    _endpoint: Option<String>,
    _shared: &Shared,
) -> Result<Box<dyn Connector>, PullError> {
    Err(PullError::Refused {
        source_name: "aws_cost_explorer".into(),
        what: "anything".into(),
        remedy: "this build is without AWS: build it with the feature `aws`".into(),
    })
}

/// What a source answered, as it is kept.
pub struct Kept {
    /// The manifest's key in the object store.
    pub manifest: String,
    days: Days,
    pages: Vec<RawPage>,
}

/// Pulls, keeps and reads. `today` is what the kept answers are filed under.
pub async fn pull(
    connector: &dyn Connector,
    days: Days,
    today: Date,
    objects: &dyn ObjectStore,
) -> Result<Pulled, PullFailed> {
    Ok(read(connector, fetch(connector, days, today, objects).await?)?)
}

/// Asks a source, and keeps what it answers.
pub async fn fetch(
    connector: &dyn Connector,
    days: Days,
    today: Date,
    objects: &dyn ObjectStore,
) -> Result<Kept, PullFailed> {
    let pages = connector.fetch(days).await?;
    let mut kept = Vec::with_capacity(pages.len());
    for page in &pages {
        kept.push(raw::keep(objects, connector.name(), today, page).await?);
    }
    let manifest = Manifest {
        source: connector.name().to_owned(),
        from: days.from.to_string(),
        to: days.to.to_string(),
        pages: kept,
    };
    let manifest = keep_manifest(objects, &manifest).await?;
    Ok(Kept { manifest, days, pages })
}

/// Whether a kept pull is this source's.
pub fn is_of(manifest: &str, source: &str) -> bool {
    let rest = manifest.strip_prefix("pull/v1/").and_then(|rest| rest.strip_prefix(source));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

/// What was kept before.
pub async fn load(manifest: &str, objects: &dyn ObjectStore) -> Result<Kept, StoreError> {
    let damaged = |reason: &str| StoreError::Damaged {
        store: "raw answers",
        key: manifest.to_owned(),
        reason: reason.to_owned(),
    };
    let body = objects.get(manifest).await?.ok_or_else(|| damaged("it is gone"))?;
    let list: Manifest =
        serde_json::from_slice(&body).map_err(|_| damaged("it is no list of pages"))?;
    let day = |text: &str| Date::parse(text).ok_or_else(|| damaged("it names no days"));
    let days = Days { from: day(&list.from)?, to: day(&list.to)? };
    let mut pages = Vec::with_capacity(list.pages.len());
    for kept in &list.pages {
        pages.push(raw::load(objects, kept).await?);
    }
    Ok(Kept { manifest: manifest.to_owned(), days, pages })
}

/// Reads what was kept.
pub fn read(connector: &dyn Connector, kept: Kept) -> Result<Pulled, PullError> {
    let Kept { manifest, days, pages } = kept;
    let bill = connector.read(days, &pages)?;
    let held = connector.held(days, &pages)?;
    Ok(Pulled { bill, held, manifest })
}

async fn keep_manifest(
    objects: &dyn ObjectStore,
    manifest: &Manifest,
) -> Result<String, StoreError> {
    let failed =
        |e: serde_json::Error| StoreError::Failed { store: "raw answers", reason: e.to_string() };
    let body = serde_json::to_vec(manifest).map_err(failed)?;
    let key = format!("pull/v1/{}/{}.json", manifest.source, crate::stores::sha256(&body));
    objects.put_once(&key, body.into()).await?;
    Ok(key)
}
