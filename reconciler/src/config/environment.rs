//! The configuration from variables of the environment, as `infra/lambda.tf` sets them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{
    Config, ConfigError, EdgeConfig, Source, Storage, WorkspaceConfig, ledger_dimensions, lookback,
    paid_calls, reread, unquoted,
};

/// A variable's value. What is empty counts as not set.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

const EDGE_SECRET: &str = "TALLYGATE_EDGE_SECRET_ARN";
const PROVIDER_SECRETS: &str = "TALLYGATE_PROVIDER_SECRETS";
const WORKSPACES: &str = "TALLYGATE_WORKSPACES";
const EDGE_URL: &str = "TALLYGATE_EDGE_URL";

fn needed(variables: Variables<'_>, name: &str) -> Result<String, ConfigError> {
    let found = variables(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    found.ok_or_else(|| ConfigError::new(name, "is not set in the environment: set it"))
}

fn whole(variables: Variables<'_>, name: &str, default: u32) -> Result<u32, ConfigError> {
    match variables(name).filter(|text| !text.is_empty()) {
        None => Ok(default),
        Some(text) => text.trim().parse().map_err(|_| {
            let problem = format!("is `{text}`: give a whole number such as {default}");
            ConfigError::new(name, problem)
        }),
    }
}

/// Where the books are: TALLYGATE_TABLE and TALLYGATE_BUCKET.
pub fn storage(variables: Variables<'_>) -> Result<Storage, ConfigError> {
    Ok(Storage::Aws {
        table: needed(variables, "TALLYGATE_TABLE")?,
        bucket: needed(variables, "TALLYGATE_BUCKET")?,
        region: None,
        dynamodb_endpoint: None,
        s3_endpoint: None,
    })
}

/// Puts the environment's storage in a document that says nothing of it.
pub fn complete_storage(document: &mut Value, variables: Variables<'_>) -> Result<(), ConfigError> {
    let Some(fields) = document.as_object_mut() else {
        return Err(ConfigError::new(".", "is no JSON object: { \"workspaces\": [...] }"));
    };
    if !fields.contains_key("storage") {
        let (table, bucket) =
            (needed(variables, "TALLYGATE_TABLE")?, needed(variables, "TALLYGATE_BUCKET")?);
        fields.insert("storage".into(), json!({ "aws": { "table": table, "bucket": bucket } }));
    }
    Ok(())
}

/// The secrets that the environment names: they are fetched first.
pub fn secrets_in_environment(variables: Variables<'_>) -> Result<BTreeSet<String>, ConfigError> {
    let mut names: BTreeSet<String> = provider_secrets(variables)?.into_values().collect();
    names.insert(needed(variables, EDGE_SECRET)?);
    Ok(names)
}

fn provider_secrets(variables: Variables<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let text = needed(variables, PROVIDER_SECRETS)?;
    serde_json::from_str(&text).map_err(|_| {
        let problem = "is no JSON object of providers and their secrets: {\"openai\": \"arn:...\"}";
        ConfigError::new(PROVIDER_SECRETS, problem)
    })
}

/// The configuration that the environment describes, with the values of [`secrets_in_environment`].
///
/// Each provider's secret holds its connector's settings, for example `{"account": "org-1", "admin_key": "..."}`. The
/// provider's name is the connector's, unless the settings name a `connector`. With several workspaces they also name the
/// `workspace` whose bill it is: the bill in two books would be two bills.
pub fn from_environment(
    variables: Variables<'_>,
    secrets: &BTreeMap<String, String>,
) -> Result<Config, ConfigError> {
    let arn = needed(variables, EDGE_SECRET)?;
    let mut workspaces = workspaces(variables, &arn, secrets)?;
    let max_paid_calls = whole(variables, "TALLYGATE_MAX_PAID_CALLS", paid_calls())?;
    for (provider, arn) in provider_secrets(variables)? {
        let (workspace, source) = source(&provider, value(secrets, &provider, &arn)?)?;
        place(&mut workspaces, workspace.as_deref(), &provider)?.sources.push(source);
    }
    if max_paid_calls > 0 {
        let source = cost_explorer(variables, &arn)?;
        place(&mut workspaces, None, "TALLYGATE_MAX_PAID_CALLS")?.sources.push(source);
    }
    let lookback_days = whole(variables, "TALLYGATE_LOOKBACK_DAYS", lookback())?;
    let config = Config {
        storage: storage(variables)?,
        workspaces,
        lookback_days,
        reread_days: reread().min(lookback_days),
        ledger_dimensions: ledger_dimensions(),
        max_paid_calls,
        scratch: None,
    };
    config.check()?;
    Ok(config)
}

fn value<'a>(
    secrets: &'a BTreeMap<String, String>,
    field: &str,
    arn: &str,
) -> Result<&'a str, ConfigError> {
    let missing = || ConfigError::new(field, format!("names {arn}, which has no value: put it in"));
    Ok(secrets.get(arn).ok_or_else(missing)?.trim())
}

/// A secret's JSON object. What is wrong with it is said without a word of it.
fn fields(field: &str, text: &str, example: &str) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_str(text)
        .map_err(|_| ConfigError::new(field, format!("has a secret that is not JSON as {example}")))
}

fn workspaces(
    variables: Variables<'_>,
    arn: &str,
    secrets: &BTreeMap<String, String>,
) -> Result<Vec<WorkspaceConfig>, ConfigError> {
    let url = needed(variables, EDGE_URL)?;
    let example = r#"{"<workspace>": {"key_id": "...", "secret": "..."}}"#;
    let mut keys = fields(EDGE_SECRET, value(secrets, EDGE_SECRET, arn)?, example)?;
    let named = variables(WORKSPACES).unwrap_or_default();
    let mut ids: Vec<String> = named.split(',').map(|id| id.trim().to_owned()).collect();
    ids.retain(|id| !id.is_empty());
    if ids.is_empty() {
        ids = keys.keys().cloned().collect();
    }
    if ids.is_empty() {
        return Err(ConfigError::new(EDGE_SECRET, format!("has no workspaces in it: {example}")));
    }
    let mut found = Vec::with_capacity(ids.len());
    for id in ids {
        let wrong = || {
            let problem = format!("has a secret without key_id and secret of {id}: {example}");
            ConfigError::new(EDGE_SECRET, problem)
        };
        let Some(Value::Object(mut key)) = keys.remove(&id) else { return Err(wrong()) };
        key.insert("url".into(), url.clone().into());
        let edge: EdgeConfig = serde_json::from_value(Value::Object(key)).map_err(|_| wrong())?;
        found.push(WorkspaceConfig {
            billed_accounts: Vec::new(),
            id,
            edge,
            sources: Vec::new(),
            accounts: BTreeMap::new(),
            known_credentials: BTreeSet::new(),
            tags: BTreeMap::new(),
            resolution: BTreeMap::new(),
        });
    }
    Ok(found)
}

fn source(provider: &str, text: &str) -> Result<(Option<String>, Source), ConfigError> {
    let field = format!("{PROVIDER_SECRETS}.{provider}");
    let example = r#"{"account": "...", "admin_key": "..."}: the settings of its connector"#;
    let mut settings = fields(&field, text, example)?;
    settings.entry("connector").or_insert_with(|| provider.into());
    let workspace = match settings.remove("workspace") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(ConfigError::new(field, "has a `workspace` that is no text")),
    };
    let source = serde_path_to_error::deserialize(Value::Object(settings))
        .map_err(|error| ConfigError::new(field, unquoted(&error.inner().to_string())))?;
    Ok((workspace, source))
}

fn place<'a>(
    workspaces: &'a mut [WorkspaceConfig],
    id: Option<&str>,
    whose: &str,
) -> Result<&'a mut WorkspaceConfig, ConfigError> {
    let several = workspaces.len() > 1;
    let found = match id {
        None if several => {
            let problem = "is one bill, and there are several workspaces: name the `workspace` in its settings, or write \
                           config/reconciler.json";
            return Err(ConfigError::new(whose, problem));
        }
        None => workspaces.first_mut(),
        Some(id) => workspaces.iter_mut().find(|workspace| workspace.id == id),
    };
    found.ok_or_else(|| {
        let id = id.unwrap_or("any workspace");
        let problem = format!("belongs to {id}, which is not among {WORKSPACES} and its secret");
        ConfigError::new(whose, problem)
    })
}

/// Cost Explorer of the account that this runs in, which the secret's ARN names.
fn cost_explorer(variables: Variables<'_>, arn: &str) -> Result<Source, ConfigError> {
    let account = arn.split(':').nth(4).filter(|account| !account.is_empty());
    let account = account.ok_or_else(|| {
        ConfigError::new(EDGE_SECRET, "is no ARN with an account: Cost Explorer needs to know it")
    })?;
    let tag = variables("TALLYGATE_COST_TAG").filter(|tag| !tag.is_empty());
    Ok(Source::AwsCostExplorer { account: account.to_owned(), tag, endpoint: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: &str =
        "arn:aws:secretsmanager:eu-central-1:111122223333:secret:tallygate/edge-abcdef";
    const ONE: &str = r#"{"ws_a": {"key_id": "night", "secret": "sk-edge"}}"#;
    const TWO: &str = r#"{"ws_a": {"key_id": "night", "secret": "sk-edge"},
        "ws_b": {"key_id": "night", "secret": "sk-edge-b"}}"#;
    const OPENAI: &str = r#"{"account": "org-1", "admin_key": "sk-admin"}"#;

    /// The variables as the Terraform sets them, and the secrets' values.
    struct World {
        variables: BTreeMap<&'static str, String>,
        secrets: BTreeMap<String, String>,
    }

    impl World {
        fn new(edge: &str, openai: &str) -> Self {
            let variables = [
                ("TALLYGATE_BUCKET", "books"),
                ("TALLYGATE_TABLE", "ledger"),
                ("TALLYGATE_EDGE_URL", "https://gateway.example.com"),
                ("TALLYGATE_EDGE_SECRET_ARN", EDGE),
                ("TALLYGATE_PROVIDER_SECRETS", r#"{"openai": "arn:openai"}"#),
                ("TALLYGATE_WORKSPACES", ""),
                ("TALLYGATE_LOOKBACK_DAYS", "40"),
                ("TALLYGATE_MAX_PAID_CALLS", "0"),
                ("TALLYGATE_COST_TAG", "app"),
            ];
            let variables = variables.map(|(name, value)| (name, value.to_owned())).into();
            let secrets = [(EDGE, edge), ("arn:openai", openai)];
            let secrets = secrets.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            Self { variables, secrets }
        }

        fn set(mut self, name: &'static str, value: &str) -> Self {
            self.variables.insert(name, value.to_owned());
            self
        }

        fn read(&self) -> Result<Config, String> {
            let variables = |name: &str| self.variables.get(name).cloned();
            from_environment(&variables, &self.secrets).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn the_terraforms_variables_are_a_configuration() {
        let world = World::new(ONE, OPENAI);
        let config = world.read().unwrap();
        assert!(matches!(&config.storage,
            Storage::Aws { table, bucket, .. } if table == "ledger" && bucket == "books"));
        assert_eq!((config.lookback_days, config.max_paid_calls), (40, 0));
        let [workspace] = config.workspaces.as_slice() else { panic!() };
        assert_eq!((workspace.id.as_str(), workspace.edge.key_id.as_str()), ("ws_a", "night"));
        assert_eq!(workspace.edge.url, "https://gateway.example.com");
        assert_eq!(workspace.edge.secret.expose(), "sk-edge");
        let [Source::Openai(openai)] = workspace.sources.as_slice() else { panic!() };
        assert_eq!((openai.account.as_str(), openai.admin_key.expose()), ("org-1", "sk-admin"));
        assert!(!format!("{config:?}").contains("sk-"));
        let variables = |name: &str| world.variables.get(name).cloned();
        let names = secrets_in_environment(&variables).unwrap();
        assert_eq!(names, [EDGE.to_owned(), "arn:openai".to_owned()].into());
    }

    #[test]
    fn paid_calls_bring_cost_explorer_of_this_account() {
        let world = World::new(ONE, OPENAI).set("TALLYGATE_MAX_PAID_CALLS", "20");
        let config = world.read().unwrap();
        let last = config.workspaces[0].sources.last();
        let Some(Source::AwsCostExplorer { account, tag, endpoint: None }) = last else { panic!() };
        assert_eq!((account.as_str(), tag.as_deref()), ("111122223333", Some("app")));
        assert_eq!(config.max_paid_calls, 20);
    }

    #[test]
    fn with_several_workspaces_a_bill_names_its_own() {
        let named =
            r#"{"workspace": "ws_b", "connector": "openai", "account": "o", "admin_key": "k"}"#;
        let world = World::new(TWO, named);
        let error = world.read().unwrap_err();
        assert!(error.contains("workspaces[0].sources"), "ws_a has none: {error}");
        let mut world = world
            .set("TALLYGATE_PROVIDER_SECRETS", r#"{"eu": "arn:openai", "openai": "arn:other"}"#);
        let other = OPENAI.replace('{', r#"{"workspace": "ws_a","#);
        world.secrets.insert("arn:other".into(), other);
        let config = world.read().unwrap();
        let accounts =
            config.workspaces.iter().map(|one| (one.id.as_str(), one.sources[0].account()));
        assert_eq!(
            accounts.collect::<Vec<_>>(),
            [("ws_a", Some(("openai", "org-1"))), ("ws_b", Some(("openai", "o")))]
        );
    }

    #[test]
    fn what_is_wrong_is_named_without_a_secret() {
        let world = || World::new(ONE, OPENAI);
        let no_edge = |name| {
            let mut world = world();
            world.variables.remove(name);
            world
        };
        let mut no_value = world();
        no_value.secrets.remove("arn:openai");
        for (world, expected) in [
            (no_edge("TALLYGATE_EDGE_URL"), "TALLYGATE_EDGE_URL"),
            (no_edge("TALLYGATE_EDGE_SECRET_ARN"), "TALLYGATE_EDGE_SECRET_ARN"),
            (no_edge("TALLYGATE_PROVIDER_SECRETS"), "TALLYGATE_PROVIDER_SECRETS"),
            (no_edge("TALLYGATE_TABLE"), "TALLYGATE_TABLE"),
            (no_value, "arn:openai, which has no value"),
            (world().set("TALLYGATE_LOOKBACK_DAYS", "many"), "TALLYGATE_LOOKBACK_DAYS"),
            (world().set("TALLYGATE_LOOKBACK_DAYS", "0"), "lookback_days"),
            (world().set("TALLYGATE_WORKSPACES", "ws_b"), "key_id and secret of ws_b"),
            (world().set("TALLYGATE_WORKSPACES", "ws_a,ws_a"), "ws_a"),
            (World::new("sk-edge", OPENAI), "TALLYGATE_EDGE_SECRET_ARN"),
            (World::new(r#"{"ws_a": "sk-edge"}"#, OPENAI), "key_id and secret of ws_a"),
            (World::new(r#"{"ws_a": {"key_id": "n"}}"#, OPENAI), "key_id and secret of ws_a"),
            (World::new("{}", OPENAI), "no workspaces"),
            (World::new(ONE, "sk-admin"), "TALLYGATE_PROVIDER_SECRETS.openai"),
            (World::new(ONE, r#"{"account": "o"}"#), "admin_key"),
            (World::new(ONE, r#"{"account":"o","admin_key":"k","list_keys":"sk-x"}"#), "bool"),
            (World::new(ONE, r#"{"workspace":"ws_c","account":"o","admin_key":"k"}"#), "ws_c"),
            (World::new(TWO, OPENAI), "name the `workspace`"),
            (World::new(TWO, OPENAI).set("TALLYGATE_PROVIDER_SECRETS", "[]"), "PROVIDER_SECRETS"),
        ] {
            let error = world.read().unwrap_err();
            assert!(error.contains(expected) && !error.contains("sk-"), "{expected}: {error}");
        }
    }

    #[test]
    fn a_document_may_leave_storage_to_the_environment() {
        let variables = |name: &str| match name {
            "TALLYGATE_TABLE" => Some("ledger".to_owned()),
            "TALLYGATE_BUCKET" => Some("books".to_owned()),
            _ => None,
        };
        let mut document = json!({ "workspaces": [] });
        complete_storage(&mut document, &variables).unwrap();
        assert_eq!(document["storage"]["aws"]["table"], "ledger");
        let own = json!({ "storage": { "local": { "directory": "d" } } });
        let mut document = own.clone();
        complete_storage(&mut document, &variables).unwrap();
        assert_eq!(document, own);
        assert!(complete_storage(&mut json!([]), &variables).is_err());
    }
}
