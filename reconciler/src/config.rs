//! What the reconciler is told: where the books are, which workspaces there are, and where their bills come from.
//!
//! The configuration is one JSON document. Where a text stands, `{"$env": "NAME"}` takes it from the environment,
//! `{"$file": "path"}` from a file, and `{"$secret": "name or ARN"}` from AWS Secrets Manager; with `"field"` beside it, one
//! field of the JSON that is found there. So the document itself holds no secret.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use tallygate_shared::money::Usd;

mod accounts;
mod environment;
pub use accounts::BilledAccount;
pub use environment::{
    Variables, complete_storage, from_environment, secrets_in_environment, storage,
};

use crate::connectors::Secret;
use crate::connectors::anthropic::AnthropicSettings;
use crate::connectors::atlas::AtlasSettings;
use crate::connectors::azure::AzureSettings;
use crate::connectors::claude_code::ClaudeCodeSettings;
use crate::connectors::copilot::CopilotSettings;
use crate::connectors::cursor::CursorSettings;
use crate::connectors::openai::OpenAiSettings;
use crate::connectors::openrouter::OpenRouterSettings;
use crate::connectors::vercel::VercelSettings;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("configuration: `{field}` {problem}")]
pub struct ConfigError {
    /// The path of the field.
    pub field: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// What an error names when it is about no field.
pub(crate) const WHOLE: &str = "the document";

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the books are.
    pub storage: Storage,
    /// The workspaces.
    pub workspaces: Vec<WorkspaceConfig>,
    /// How many days before today are looked at each night: providers change what they said. Default: 35.
    #[serde(default = "lookback")]
    pub lookback_days: u32,
    /// How many of them have their events read from the edge anew: late ones are delivered within minutes. Default: 3.
    #[serde(default = "reread")]
    pub reread_days: u32,
    /// The owner dimensions of the ledger's lines. What an owner has beyond them stays in the full rows. Default: all but
    /// `user`.
    #[serde(default = "ledger_dimensions")]
    pub ledger_dimensions: BTreeSet<String>,
    /// The most calls that cost money in a run: a cent each. Default: 100.
    #[serde(default = "paid_calls")]
    pub max_paid_calls: u32,
    /// Where large intermediate files may lie. Default: the system's place for such files.
    #[serde(default)]
    pub scratch: Option<PathBuf>,
}

fn lookback() -> u32 {
    35
}

fn reread() -> u32 {
    3
}

fn paid_calls() -> u32 {
    100
}

fn ledger_dimensions() -> BTreeSet<String> {
    let all = crate::night::read::OWNER_DIMENSIONS.iter();
    all.filter(|name| **name != "user").map(|name| (*name).to_owned()).collect()
}

/// Where the books are.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Storage {
    /// A directory on this machine.
    Local {
        /// It. It is made when it is not there.
        directory: PathBuf,
    },
    /// DynamoDB and S3.
    Aws {
        /// The table.
        table: String,
        /// The bucket.
        bucket: String,
        /// The region; the environment's where absent.
        #[serde(default)]
        region: Option<String>,
        /// Another endpoint for DynamoDB, for tests.
        #[serde(default)]
        dynamodb_endpoint: Option<String>,
        /// Another endpoint for S3, for tests.
        #[serde(default)]
        s3_endpoint: Option<String>,
    },
}

impl Storage {
    /// Where an object lies, for people: its address, or its path.
    pub fn place(&self, key: &str) -> String {
        match self {
            Self::Local { directory } => directory.join("objects").join(key).display().to_string(),
            Self::Aws { bucket, .. } => format!("s3://{bucket}/{key}"),
        }
    }
}

/// One workspace.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceConfig {
    /// Its id at the edge.
    pub id: String,
    /// How to reach the edge.
    pub edge: EdgeConfig,
    /// Where bills come from.
    pub sources: Vec<Source>,
    /// The billed account behind each of the workspace's providers, by the workspace's name for the provider. With one
    /// source for a provider its account is taken by itself.
    #[serde(default)]
    pub accounts: BTreeMap<String, String>,
    /// What the FOCUS export says of billed accounts beside their ids.
    #[serde(default)]
    pub billed_accounts: Vec<BilledAccount>,
    /// Providers' ids of the API keys that the gateway holds, beside those that are recognised by themselves.
    #[serde(default)]
    pub known_credentials: BTreeSet<String>,
    /// The owner dimension that a tag of a bill line names: `{"team": "team"}`.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The smallest unit in which a provider rounds amounts, by provider. Where absent, as the bill shows it.
    #[serde(default)]
    pub resolution: BTreeMap<String, Usd>,
}

/// How to reach the edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// The gateway's address, for example `https://gateway.example.com`.
    pub url: String,
    /// The id of the reconciler secret.
    pub key_id: String,
    /// The secret.
    pub secret: Secret,
}

/// A source of bills and its settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "connector", rename_all = "snake_case")]
pub enum Source {
    /// OpenAI's organization costs and usage.
    Openai(OpenAiSettings),
    /// Anthropic's cost and usage reports.
    Anthropic(AnthropicSettings),
    /// OpenRouter's activity.
    Openrouter(OpenRouterSettings),
    /// Azure Cost Management.
    Azure(AzureSettings),
    /// Vercel's charges.
    Vercel(VercelSettings),
    /// MongoDB Atlas invoices.
    MongodbAtlas(AtlasSettings),
    /// Claude Code analytics.
    ClaudeCode(ClaudeCodeSettings),
    /// GitHub Copilot seats and usage.
    GithubCopilot(CopilotSettings),
    /// Cursor seats and usage.
    Cursor(CursorSettings),
    /// AWS Cost Explorer: Bedrock, and everything else as harness costs.
    AwsCostExplorer {
        /// The paying account's id.
        account: String,
        /// The cost-allocation tag that says whose a cost is.
        #[serde(default)]
        tag: Option<String>,
        /// Another endpoint, for tests.
        #[serde(default)]
        endpoint: Option<String>,
    },
    /// Files dropped in the object store's `inbox/`, and what they are.
    Inbox {
        /// The mapping document.
        mapping: Value,
    },
}

impl Source {
    /// Its name in reports and storage keys.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Openai(_) => "openai",
            Self::Anthropic(_) => "anthropic",
            Self::Openrouter(_) => "openrouter",
            Self::Azure(_) => "azure",
            Self::Vercel(_) => "vercel",
            Self::MongodbAtlas(_) => "mongodb_atlas",
            Self::ClaudeCode(_) => "claude_code",
            Self::GithubCopilot(_) => "github_copilot",
            Self::Cursor(_) => "cursor",
            Self::AwsCostExplorer { .. } => "aws_cost_explorer",
            Self::Inbox { .. } => "inbox",
        }
    }

    /// Whether each question costs money.
    pub const fn is_paid(&self) -> bool {
        matches!(self, Self::AwsCostExplorer { .. })
    }

    /// The provider and account that it bills, where that is known beforehand.
    pub fn account(&self) -> Option<(&str, &str)> {
        match self {
            Self::Openai(settings) => Some(("openai", &settings.account)),
            Self::Anthropic(settings) => Some(("anthropic", &settings.account)),
            Self::Openrouter(settings) => Some(("openrouter", &settings.account)),
            Self::Azure(settings) => Some((&settings.provider, &settings.account)),
            _ => None,
        }
    }

    /// The providers whose bills it alone has. `None`: it may have anybody's.
    pub fn providers(&self) -> Option<Vec<String>> {
        let names: &[&str] = match self {
            Self::Inbox { .. } => return None,
            Self::Azure(settings) => return Some(vec![settings.provider.clone(), "azure".into()]),
            Self::AwsCostExplorer { .. } => &["bedrock", "bedrock-mantle", "aws"],
            other => &[other.name()],
        };
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }
}

/// When a source has a day's charges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// It has no charges of a day yet for hours after it, and does not say so.
    pub is_slow: bool,
    /// It has none any more so many days after a day, and does not say so.
    pub forgets_after: Option<i64>,
}

impl Source {
    /// What is known of it beforehand.
    pub fn habits(&self) -> Habits {
        match self {
            Self::Azure(_) => Habits { is_slow: true, ..Habits::default() },
            Self::Openrouter(_) => Habits { forgets_after: Some(30), ..Habits::default() },
            _ => Habits::default(),
        }
    }
}

/// Finds texts that the document only names.
pub trait Lookup {
    /// A variable of the environment.
    fn env(&self, name: &str) -> Option<String>;
    /// A file's content.
    fn file(&self, path: &str) -> Result<String, String>;
    /// A secret that was fetched beforehand (see [`secrets_of`]).
    fn secret(&self, name: &str) -> Option<String>;
}

/// The secrets that a document names.
pub fn secrets_of(document: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    visit(document, &mut found);
    found
}

fn visit(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(name) = fields.get("$secret").and_then(Value::as_str) {
                found.insert(name.to_owned());
            }
            fields.values().for_each(|value| visit(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| visit(value, found)),
        _ => {}
    }
}

/// Reads a configuration.
pub fn parse(text: &str, lookup: &dyn Lookup) -> Result<Config, ConfigError> {
    let mut document: Value = serde_json::from_str(text)
        .map_err(|e| ConfigError::new(WHOLE, format!("is no JSON: {e}")))?;
    resolve(&mut document, "", lookup)?;
    from_value(document)
}

/// Reads a configuration from its document, when nothing in it is left to be looked up.
pub fn from_value(document: Value) -> Result<Config, ConfigError> {
    let config: Config = serde_path_to_error::deserialize(document)
        .map_err(|e| ConfigError::new(e.path().to_string(), unquoted(&e.inner().to_string())))?;
    config.check()?;
    Ok(config)
}

/// What a reader says of a text that does not fit holds the text, which may be a secret.
fn unquoted(problem: &str) -> String {
    match (problem.find('"'), problem.rfind('"')) {
        (Some(from), Some(to)) if from < to => {
            let (before, after) = (problem.get(..from), problem.get(to + 1..));
            format!("{}(not shown){}", before.unwrap_or_default(), after.unwrap_or_default())
        }
        _ => problem.to_owned(),
    }
}

/// Puts texts in the place of names.
pub fn resolve(value: &mut Value, path: &str, lookup: &dyn Lookup) -> Result<(), ConfigError> {
    match value {
        Value::Object(fields) => {
            let name = |kind: &str| fields.get(kind).and_then(Value::as_str);
            let found = if let Some(name) = name("$env") {
                let missing = || {
                    ConfigError::new(
                        path,
                        format!("names {name}, which is not set: set this variable"),
                    )
                };
                Some(lookup.env(name).ok_or_else(missing)?)
            } else if let Some(name) = name("$file") {
                let unreadable = |e| ConfigError::new(path, format!("names {name}: {e}"));
                Some(lookup.file(name).map_err(unreadable)?.trim_end().to_owned())
            } else if let Some(name) = name("$secret") {
                let missing =
                    || ConfigError::new(path, format!("names {name}, which is no secret"));
                Some(lookup.secret(name).ok_or_else(missing)?)
            } else {
                None
            };
            let Some(found) = found else {
                return fields.iter_mut().try_for_each(|(name, value)| {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    resolve(value, &path, lookup)
                });
            };
            let field = fields.get("field").and_then(Value::as_str);
            *value = match field {
                None => Value::String(found),
                Some(field) => {
                    let wrong = || ConfigError::new(path, format!("has no text `{field}` in it"));
                    let inner: Value = serde_json::from_str(&found).map_err(|_| wrong())?;
                    Value::String(
                        inner.get(field).and_then(Value::as_str).ok_or_else(wrong)?.into(),
                    )
                }
            };
            Ok(())
        }
        Value::Array(items) => items
            .iter_mut()
            .enumerate()
            .try_for_each(|(place, item)| resolve(item, &format!("{path}[{place}]"), lookup)),
        _ => Ok(()),
    }
}

impl Config {
    fn check(&self) -> Result<(), ConfigError> {
        if self.workspaces.is_empty() {
            return Err(ConfigError::new("workspaces", "is empty: name at least one"));
        }
        if !(1..=400).contains(&self.lookback_days) {
            return Err(ConfigError::new("lookback_days", "is out of range: give 1 to 400"));
        }
        if self.reread_days < 1 || self.reread_days > self.lookback_days {
            let problem = "is out of range: give 1 to lookback_days";
            return Err(ConfigError::new("reread_days", problem));
        }
        let known = crate::night::read::OWNER_DIMENSIONS;
        let unknown = self.ledger_dimensions.iter().find(|name| !known.contains(&name.as_str()));
        if let Some(name) = unknown {
            let problem = format!("has `{name}`: use {}", known.join(", "));
            return Err(ConfigError::new("ledger_dimensions", problem));
        }
        let mut seen = BTreeSet::new();
        for (place, workspace) in self.workspaces.iter().enumerate() {
            let at = |field: &str| format!("workspaces[{place}].{field}");
            if !seen.insert(&workspace.id) {
                return Err(ConfigError::new(at("id"), "is there twice"));
            }
            if !workspace.edge.url.starts_with("http://")
                && !workspace.edge.url.starts_with("https://")
            {
                return Err(ConfigError::new(at("edge.url"), "is no address: https://..."));
            }
            accounts::check(&workspace.billed_accounts, &at("billed_accounts"))?;
            if workspace.sources.is_empty() {
                return Err(ConfigError::new(
                    at("sources"),
                    "is empty: name where bills come from",
                ));
            }
        }
        Ok(())
    }
}

/// The environment and files of this machine, and secrets that were fetched.
#[derive(Default)]
pub struct Machine {
    /// Secrets by name.
    pub secrets: BTreeMap<String, String>,
}

impl Lookup for Machine {
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|e| e.to_string())
    }

    fn secret(&self, name: &str) -> Option<String> {
        self.secrets.get(name).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn env(&self, name: &str) -> Option<String> {
            (name == "ADMIN").then(|| "sk-admin".to_owned())
        }

        fn file(&self, path: &str) -> Result<String, String> {
            if path == "key" { Ok("from-file\n".into()) } else { Err("not found".into()) }
        }

        fn secret(&self, name: &str) -> Option<String> {
            (name == "edge").then(|| r#"{"secret": "inner"}"#.to_owned())
        }
    }

    fn document(change: impl FnOnce(&mut Value)) -> String {
        let mut document = serde_json::json!({
            "storage": { "local": { "directory": "books" } },
            "workspaces": [{ "id": "ws_a",
                "edge": { "url": "https://g", "key_id": "n", "secret": { "$secret": "edge", "field": "secret" } },
                "sources": [{ "connector": "openai", "account": "org", "admin_key": { "$env": "ADMIN" } }] }] });
        change(&mut document);
        document.to_string()
    }

    #[test]
    fn secrets_are_looked_up_and_never_shown() {
        let config = parse(&document(|_| ()), &Fixed).unwrap();
        assert_eq!(config.workspaces[0].edge.secret.expose(), "inner");
        assert!(!format!("{config:?}").contains("sk-admin"));
        let document: Value = serde_json::from_str(&document(|_| ())).unwrap();
        assert_eq!(secrets_of(&document), BTreeSet::from(["edge".to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong =
            |change: fn(&mut Value)| parse(&document(change), &Fixed).unwrap_err().to_string();
        for (problem, expected) in [
            (wrong(|d| d["surprise"] = 1.into()), "surprise"),
            (wrong(|d| d["workspaces"] = serde_json::json!([])), "workspaces"),
            (wrong(|d| d["lookback_days"] = 0.into()), "lookback_days"),
            (wrong(|d| d["ledger_dimensions"] = serde_json::json!(["planet"])), "planet"),
            (wrong(|d| d["workspaces"][0]["edge"]["url"] = "g".into()), "workspaces[0].edge.url"),
            (
                wrong(|d| d["workspaces"][0]["sources"][0]["admin_key"]["$env"] = "NONE".into()),
                "`workspaces[0].sources[0].admin_key` names NONE, which is not set: set",
            ),
            (wrong(|d| d["workspaces"][0]["sources"][0]["connector"] = "x".into()), "sources[0]"),
            (
                wrong(|d| {
                    let known = serde_json::json!({ "provider": "openai", "account": "org" });
                    d["workspaces"][0]["billed_accounts"] = serde_json::json!([known, known]);
                }),
                "billed_accounts[1]` is there twice",
            ),
            (
                wrong(|d| {
                    d["workspaces"][0]["billed_accounts"] = serde_json::json!([{
                        "provider": "openai", "account": "org", "prepaid": { "id": "", "name": "n" } }]);
                }),
                "billed_accounts[0].prepaid` has an empty text",
            ),
        ] {
            assert!(problem.contains(expected), "{problem}");
        }
        let problem = parse("{storage: 1}", &Fixed).unwrap_err().to_string();
        assert!(problem.contains("`the document` is no JSON"), "{problem}");
    }
}
