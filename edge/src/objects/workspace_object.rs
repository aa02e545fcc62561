//! The Workspace: one tenant's configuration, its secrets (as hashes or sealed), its API tokens and its audit log.
//!
//! A change is validated as a whole, then written with its audit rows in one transaction; the plans of the keys that it
//! touches are queued in the same transaction and leave the queue when their Meters have them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallygate_shared::identity::api_token::{ApiToken, TokenScope};
use tallygate_shared::identity::secret::SecretHash;
use tallygate_shared::identity::signature::{SignedCall, TOLERANCE_MS};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::{Date, Timestamp};

use super::migrations::migrate;
use super::sql::{Sql, SqlError, integer, text};
use crate::admin::bodies::{NewToken, NewWorkspace};
use crate::admin::call::{CREATE, Call, Push, Signed, Step};
use crate::admin::config::{Change, Config, KeyConfig, Secrets, whole};
use crate::admin::operations::{Match, find};
use crate::admin::problem::Problem;
use crate::admin::roles::Role;
use crate::admin::rows::scoped;
use crate::demo::DAYS;
use crate::request::exchange::printable;
use crate::vault::KeyRing;

/// The schema.
pub const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE entries (path TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE secrets (kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE tokens (id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, role TEXT NOT NULL, name TEXT NOT NULL,
        created_at TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE pushes (key TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE audit (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, act TEXT NOT NULL,
        path TEXT NOT NULL, body TEXT NOT NULL)
", "
    CREATE TABLE nonces (nonce TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX nonces_by_age ON nonces (at_ms);
    CREATE TABLE price_proposals (id TEXT PRIMARY KEY, state TEXT NOT NULL, at TEXT NOT NULL, by TEXT, body TEXT NOT NULL)
        WITHOUT ROWID
", "
    CREATE TABLE sessions (id TEXT PRIMARY KEY, who TEXT NOT NULL, role TEXT NOT NULL, opened_at TEXT NOT NULL,
        expires_ms INTEGER NOT NULL) WITHOUT ROWID
", super::workspace_api::RUNS, "
    ALTER TABLE tokens ADD COLUMN owner TEXT;
    ALTER TABLE sessions ADD COLUMN owner TEXT;
    CREATE TABLE versions (version INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, note TEXT NOT NULL);
    CREATE TABLE version_changes (version INTEGER NOT NULL, path TEXT NOT NULL, before TEXT, after TEXT,
        PRIMARY KEY (version, path)) WITHOUT ROWID;
    CREATE INDEX audit_by_path ON audit (path, act, at)
", super::workspace_api::CORRECTIONS];

/// The Alerts object's place in the queue of pushes. No key has this id.
const ALERTS: &str = "alerts";
/// The Telemetry object's, likewise.
const TELEMETRY: &str = "telemetry";
/// Plans handed over at once: 200 x about 10 KB = 2 MB. The shell asks for the next ones when it has delivered these.
const PUSHES_AT_ONCE: usize = 200;
/// Plans handed over at once, in bytes, where plans are large: an isolate has 128 MB, and a plan crosses three times.
const PUSHED_BYTES: usize = 8 * 1024 * 1024;
/// The largest plan. It is one value in its Meter's storage, where the platform ends at 2 MB.
const MAX_PLAN_BYTES: usize = 1_900_000;

/// One tenant.
pub struct WorkspaceObject<S> {
    sql: S,
    id: Option<WorkspaceId>,
    name: String,
    created_at: String,
    version: u64,
    config: Config,
    secrets: Secrets,
}

/// Plans to deliver with an answer.
#[derive(Default)]
pub struct Delivery {
    /// The first of them.
    pub pushes: Vec<Push>,
    /// Whether more wait behind them.
    pub more: bool,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Principal {
    /// For the audit log: `operator`, or `token:<id>`.
    pub who: String,
    /// What they may do.
    pub role: Role,
    /// Whose rows they see; `None` for everybody's.
    pub owner: Option<String>,
}

impl Principal {
    /// Somebody who sees everybody's rows.
    pub(super) const fn whole(who: String, role: Role) -> Self {
        Self { who, role, owner: None }
    }
}

/// Something refused: by storage, or with a problem for the caller.
pub enum Refused {
    /// Storage.
    Storage(SqlError),
    /// The caller's doing.
    Problem(Box<Problem>),
}

impl From<SqlError> for Refused {
    fn from(error: SqlError) -> Self {
        Self::Storage(error)
    }
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

/// One request's surroundings.
pub struct Context<'a> {
    /// The request.
    pub call: &'a Call,
    /// The ring that seals.
    pub ring: &'a KeyRing,
    /// 128 random bytes.
    pub random: &'a [u8],
    /// The time.
    pub now: Timestamp,
    /// Whether the operator lets messages go to private addresses.
    pub allow_private: bool,
}

impl Context<'_> {
    /// Random bytes from `start` on.
    pub fn bytes<const N: usize>(&self, start: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(self.random.iter().skip(start)) {
            *to = *from;
        }
        bytes
    }
}

impl<S: Sql> WorkspaceObject<S> {
    /// Opens the workspace from its storage. Nothing is stored for one that was not created, so that a stranger cannot
    /// fill storage with names.
    pub fn open(sql: S) -> Result<Self, SqlError> {
        let known =
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_version'";
        let created = !sql.exec(known, &[])?.is_empty();
        let mut workspace = Self {
            sql,
            id: None,
            name: String::new(),
            created_at: String::new(),
            version: 0,
            config: Config::default(),
            secrets: Secrets::default(),
        };
        if created {
            migrate(&workspace.sql, MIGRATIONS)?;
            workspace.load()?;
        }
        Ok(workspace)
    }

    fn load(&mut self) -> Result<(), SqlError> {
        let rows = self.sql.exec("SELECT name, value FROM meta", &[])?;
        for row in &rows {
            let value = text(row, 1)?;
            match text(row, 0)? {
                "id" => self.id = WorkspaceId::parse(value).ok(),
                "name" => self.name = value.to_owned(),
                "created_at" => self.created_at = value.to_owned(),
                "version" => self.version = integer(row, 1)?,
                _ => {}
            }
        }
        let rows = self.sql.exec("SELECT path, body FROM entries", &[])?;
        let entry = |row: &super::sql::Row| Ok((text(row, 0)?.to_owned(), stored(text(row, 1)?)?));
        let entries =
            rows.iter().map(entry).collect::<Result<BTreeMap<String, Value>, SqlError>>()?;
        self.config = whole(entries).map_err(|e| SqlError(format!("stored configuration: {e}")))?;
        let rows = self.sql.exec("SELECT kind, name, body FROM secrets", &[])?;
        for row in &rows {
            let (name, body) = (text(row, 1)?.to_owned(), text(row, 2)?);
            match text(row, 0)? {
                "credential" => {
                    self.secrets.credentials.insert(name, body.to_owned());
                }
                "key" => {
                    self.secrets.keys.insert(name, stored(body)?);
                }
                "receiver" => {
                    self.secrets.receivers.insert(name, stored(body)?);
                }
                "telemetry" => self.secrets.collector = Some(body.to_owned()),
                "reconciler" => self.secrets.reconcilers.push(stored(body)?),
                _ => self.secrets.actors.push(stored(body)?),
            }
        }
        Ok(())
    }

    /// The version of the configuration, and of the plans made from it.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// For how many days the archive keeps events.
    pub fn archive_days(&self) -> u32 {
        self.config.archive.keep_days.into()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The tenant's id; a workspace that was not created has none.
    pub(super) fn id(&self) -> Result<&WorkspaceId, Problem> {
        self.id
            .as_ref()
            .ok_or_else(|| Problem::new(404, "not_found", "There is no such workspace."))
    }

    /// Answers one request. An error is storage's: the shell then rolls everything back.
    pub fn handle(&mut self, context: &Context<'_>) -> Result<Step, SqlError> {
        match self.answer(context) {
            Ok(step) => Ok(step),
            Err(Refused::Problem(problem)) => Ok(Step::problem(&problem)),
            Err(Refused::Storage(error)) => Err(error),
        }
    }

    fn answer(&mut self, context: &Context<'_>) -> Result<Step, Refused> {
        let call = context.call;
        // The Directory's message: no row of the table has this method here, so no caller can send it.
        if call.method == CREATE && call.operator {
            return self.create(context);
        }
        let Match::Found(spec, parameters) = find(&call.method, &call.path) else {
            return Err(Problem::new(404, "not_found", "There is no such resource.").into());
        };
        let principal = match &call.signed {
            Some(signed) => self.signer(signed, context)?,
            None => match (&call.session, &call.person) {
                (Some(id), _) => self.person(id, context.now)?,
                (None, Some(mail)) => {
                    let member = self.member(mail)?;
                    let once = call.once.as_deref().map(|it| format!("sign-in:{it}"));
                    let again = once.map(|it| self.is_first(&it, context.now)).transpose()?;
                    if again == Some(false) {
                        let detail = "This sign-in was used already. Sign in again.";
                        return Err(Problem::new(403, "sign_in_used", detail).into());
                    }
                    member
                }
                (None, None) => self.principal(call)?,
            },
        };
        if !principal.role.may(spec.act) {
            let detail = format!(
                "The role {} does not allow this. Ask a workspace admin.",
                principal.role.name()
            );
            return Err(Problem::new(403, "role_insufficient", detail).into());
        }
        if let Some((name, _)) =
            call.parameters().iter().find(|(name, _)| !spec.query.contains(&name.as_str()))
        {
            let remedy = match spec.query {
                [] => "Leave it out.".to_owned(),
                known => format!("Use one of {}.", known.join(", ")),
            };
            return Err(Problem::field(&printable(name), "is not known here", &remedy).into());
        }
        let parameters: Vec<&str> = parameters.iter().skip(1).map(String::as_str).collect();
        let Some(owner) = &principal.owner else {
            return super::workspace_api::answer(self, context, &principal, spec, &parameters);
        };
        let call = scoped(call, spec, owner)?;
        let context = &Context { call: &call, ..*context };
        super::workspace_api::answer(self, context, &principal, spec, &parameters)
    }

    /// Fills a new workspace and issues its first admin token.
    fn create(&mut self, context: &Context<'_>) -> Result<Step, Refused> {
        let NewWorkspace { id, name, demo } = context.call.body()?;
        if self.id.is_some() {
            return Err(
                Problem::new(409, "already_exists", "The workspace is there already.").into()
            );
        }
        let id =
            id.ok_or_else(|| Problem::field("id", "is missing", "Send the Directory's message."))?;
        migrate(&self.sql, MIGRATIONS)?;
        self.name = name;
        self.created_at = context.now.to_string();
        if demo {
            // A demo's month lies before it.
            let first = context.now.date().days() - i64::from(DAYS - 1);
            self.created_at = Date::from_days(first).midnight().to_string();
            self.set_meta("demo_until", &context.now.ms().to_string())?;
        }
        for (name, value) in [
            ("id", id.as_str()),
            ("name", &self.name),
            ("created_at", &self.created_at),
            ("version", "0"),
        ] {
            self.set_meta(name, value)?;
        }
        self.id = Some(id);
        let principal = Principal::whole("operator".to_owned(), Role::Operator);
        let first = NewToken { name: "first admin".to_owned(), role: Role::Admin, owner: None };
        let (token, shown) = self.issue_token(&first, context)?;
        self.audit(
            &principal,
            "added",
            "workspace",
            &json!({ "after": { "admin_token": token } }),
            context.now,
        )?;
        let mut body = self.describe();
        if let Some(fields) = body.as_object_mut() {
            fields.insert("admin_token".to_owned(), shown);
        }
        Ok(Step::json(201, &body))
    }

    /// The workspace as the API shows it.
    pub(super) fn describe(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "created_at": self.created_at,
                "config_version": self.version })
    }

    fn principal(&self, call: &Call) -> Result<Principal, Refused> {
        if call.operator {
            self.id()?;
            return Ok(Principal::whole("operator".to_owned(), Role::Operator));
        }
        // Whether a workspace exists is nobody's business who has no token of it.
        let invalid =
            || Problem::new(401, "token_invalid", "The API token is not known in this workspace.");
        self.id().map_err(|_| invalid())?;
        let token = call.token().unwrap_or_default();
        let token = ApiToken::parse(token).map_err(|_| invalid())?;
        let id = token.token_id().as_str();
        let rows =
            self.sql.exec("SELECT sha256, role, owner FROM tokens WHERE id = ?", &[Some(id)])?;
        let row = rows.first().ok_or_else(invalid)?;
        let known =
            SecretHash::parse(text(row, 0)?).map_err(|e| SqlError(format!("stored token {e}")))?;
        if !known.matches(&token) {
            return Err(invalid().into());
        }
        let role = stored(&format!("\"{}\"", text(row, 1)?))?;
        let owner = row.get(2).cloned().flatten();
        Ok(Principal { who: format!("token:{id}"), role, owner })
    }

    /// Who signed a call. A signature counts once: its nonce is remembered for as long as its time is believed.
    fn signer(&self, signed: &Signed, context: &Context<'_>) -> Result<Principal, Refused> {
        let invalid = |detail: String| Problem::new(401, "signature_invalid", detail);
        let unknown = || invalid("No secret of this workspace has this key id.".to_owned());
        let workspace = self.id().map_err(|_| unknown())?;
        let secret = self.secrets.reconcilers.iter().find(|known| known.kid == signed.key_id);
        let secret = secret.filter(|s| s.expires_at.is_none_or(|end| end > context.now));
        let secret = secret.ok_or_else(unknown)?;
        let name = format!("{workspace}/reconciler/{}", secret.kid);
        let plain = context.ring.open(&secret.sealed, &name).map_err(|error| {
            Problem::new(503, "key_ring_missing", format!("The secret does not open: {error}."))
        })?;
        let signed_call = SignedCall {
            method: &context.call.method,
            path: &context.call.path,
            query: &context.call.query,
            timestamp: signed.timestamp.parse().unwrap_or(i64::MIN),
            nonce: &signed.nonce,
            body: context.call.body.as_bytes(),
        };
        signed_call
            .verify(&signed.signature, plain.as_bytes(), context.now)
            .map_err(|error| invalid(format!("The signature {error}.")))?;
        if !self.is_first(&signed.nonce, context.now)? {
            return Err(invalid("This call was made before: sign a new one.".to_owned()).into());
        }
        let who = format!("reconciler:{}", secret.kid);
        Ok(Principal::whole(who, Role::Reconciler))
    }

    /// Whether this was not seen before, in the last ten minutes; it is now.
    fn is_first(&self, nonce: &str, now: Timestamp) -> Result<bool, SqlError> {
        let old = now.plus_ms(-2 * TOLERANCE_MS).ms().to_string();
        self.sql.exec("DELETE FROM nonces WHERE at_ms < CAST(? AS INTEGER)", &[Some(&old)])?;
        let seen = "SELECT '1' FROM nonces WHERE nonce = ?";
        if !self.sql.exec(seen, &[Some(nonce)])?.is_empty() {
            return Ok(false);
        }
        let remember = "INSERT INTO nonces (nonce, at_ms) VALUES (?, CAST(? AS INTEGER))";
        self.sql.exec(remember, &[Some(nonce), Some(&now.ms().to_string())])?;
        Ok(true)
    }

    pub(super) fn exec(
        &self,
        statement: &str,
        params: &[Option<&str>],
    ) -> Result<Vec<super::sql::Row>, SqlError> {
        self.sql.exec(statement, params)
    }

    /// A new API token: its public record, and what is shown once.
    pub(super) fn issue_token(
        &mut self,
        new: &NewToken,
        context: &Context<'_>,
    ) -> Result<(Value, Value), Refused> {
        let scope = TokenScope::Workspace(self.id()?.clone());
        let token = ApiToken::mint(scope, &context.bytes(64));
        let id = token.token_id().as_str().to_owned();
        let insert = "INSERT INTO tokens (id, sha256, role, name, created_at, owner) VALUES (?, ?, ?, ?, ?, ?)";
        let hash = token.secret_hash();
        let created_at = context.now.to_string();
        let NewToken { name, role, owner } = new;
        let mut params =
            [id.as_str(), hash.as_str(), role.name(), name, &created_at].map(Some).to_vec();
        params.push(owner.as_deref());
        self.sql.exec(insert, &params)?;
        let record = json!({ "id": id, "name": name, "role": role.name(), "created_at": created_at,
                             "owner": owner });
        let mut shown = record.clone();
        if let Some(fields) = shown.as_object_mut() {
            fields.insert("token".to_owned(), token.expose().into());
        }
        Ok((record, shown))
    }

    pub(super) fn tokens(&self) -> Result<Vec<Value>, SqlError> {
        let rows = self.sql.exec(
            "SELECT id, name, role, created_at, owner FROM tokens ORDER BY created_at, id",
            &[],
        )?;
        let token = |row: &super::sql::Row| {
            Ok(json!({ "id": text(row, 0)?, "name": text(row, 1)?, "role": text(row, 2)?,
                       "created_at": text(row, 3)?, "owner": row.get(4).cloned().flatten() }))
        };
        rows.iter().map(token).collect()
    }

    /// Deletes a token; `None` when there is none, else its public record.
    pub(super) fn delete_token(&self, id: &str) -> Result<Option<Value>, SqlError> {
        let known = self
            .tokens()?
            .into_iter()
            .find(|token| token.get("id").and_then(Value::as_str) == Some(id));
        if known.is_some() {
            self.sql.exec("DELETE FROM tokens WHERE id = ?", &[Some(id)])?;
            self.end_sessions_of(&format!("token:{id}"))?;
        }
        Ok(known)
    }

    /// Replaces configuration and secrets: validates, writes what differs, audits each difference, and queues the plans.
    /// Returns the plans to deliver at once.
    pub(super) fn change(
        &mut self,
        config: Config,
        secrets: Secrets,
        principal: &Principal,
        context: &Context<'_>,
    ) -> Result<Delivery, Refused> {
        config.validate()?;
        config.check_receivers(&self.config, context.allow_private)?;
        config.check_collector(&self.config, context.allow_private)?;
        self.check_plan_size(&config, &secrets)?;
        // After this point the change must succeed: a problem now would leave half of it.
        let changes = self.config.diff(&config);
        for change in &changes {
            self.write_entry(change)?;
            let body = json!({ "before": change.before, "after": change.after });
            self.audit(principal, change.change, &change.path, &body, context.now)?;
        }
        let secret_changes = self.write_secrets(&secrets)?;
        for path in &secret_changes {
            // That a secret changed is recorded, never what it is.
            self.audit(principal, "secret_changed", path, &json!({}), context.now)?;
        }
        if changes.is_empty() && secret_changes.is_empty() {
            return Ok(Delivery::default());
        }
        let before = self.version;
        self.version += 1;
        self.set_meta("version", &self.version.to_string())?;
        if !changes.is_empty() {
            self.keep_version(before, &changes, principal, context.now)?;
        }
        let touched = self.touched(&config, &changes, &secret_changes);
        (self.config, self.secrets) = (config, secrets);
        for key in &touched {
            let queue = "INSERT INTO pushes (key, version) VALUES (?, CAST(? AS INTEGER))
                ON CONFLICT (key) DO UPDATE SET version = excluded.version";
            self.sql.exec(queue, &[Some(key), Some(&self.version.to_string())])?;
        }
        let pushes = self.pushes(touched.iter());
        let more = pushes.len() < touched.len();
        Ok(Delivery { pushes, more })
    }

    /// All keys share nearly all of their plans, so one is measured.
    fn check_plan_size(&self, config: &Config, secrets: &Secrets) -> Result<(), Problem> {
        let Some((workspace, key)) = self.id.as_ref().zip(config.keys.keys().next()) else {
            return Ok(());
        };
        let plan = config.compile(workspace, self.version, key, secrets);
        let size = serde_json::to_string(&plan).map_or(usize::MAX, |text| text.len());
        if size <= MAX_PLAN_BYTES {
            return Ok(());
        }
        let detail =
            format!("make plans of {size} bytes; at most {MAX_PLAN_BYTES} fit a key's Meter");
        let remedy = "Remove routes, deployments or prices that are not used.";
        Err(Problem::field("providers, routes and prices", detail, remedy))
    }

    /// The keys whose plans a change touches: the keys named in it, or all where something shared changed.
    fn touched(&self, config: &Config, changes: &[Change], secrets: &[String]) -> BTreeSet<String> {
        let paths = changes.iter().map(|change| &change.path).chain(secrets);
        let mut touched = BTreeSet::new();
        for path in paths {
            match path.split_once('.') {
                Some(("keys", id)) => {
                    touched.extend([id.to_owned(), ALERTS.to_owned()]);
                }
                // The reconciler's secrets and settings are in no plan, nor are the dashboard's and what it compares with;
                // Ledgers ask for the archive's.
                Some(("reconciler" | "archetypes" | "commitments", _)) => {}
                None if matches!(path.as_str(), "reconciler" | "dashboard" | "archive") => {}
                Some(("telemetry", _)) => {
                    touched.insert(TELEMETRY.to_owned());
                }
                None if path == TELEMETRY => {
                    touched.insert(TELEMETRY.to_owned());
                    if self.config.starts_traces() != config.starts_traces() {
                        touched.extend(config.keys.keys().cloned());
                    }
                }
                Some(("receivers", _)) | None if path != "default_price" => {
                    touched.insert(ALERTS.to_owned());
                }
                Some(("budgets", name)) => {
                    touched.insert(TELEMETRY.to_owned());
                    let terms = [self.config.budgets.get(name), config.budgets.get(name)];
                    let has_it = |(id, key): &(&String, &KeyConfig)| {
                        terms.iter().flatten().any(|terms| terms.may_apply_to(id, &key.actor))
                    };
                    touched.extend(config.keys.iter().filter(has_it).map(|(id, _)| id.clone()));
                }
                section => {
                    // Providers have names by the conventions.
                    if section.is_some_and(|(section, _)| section == "providers") {
                        touched.insert(TELEMETRY.to_owned());
                    }
                    touched.extend(config.keys.keys().cloned());
                }
            }
        }
        touched.retain(|id| id == ALERTS || id == TELEMETRY || config.keys.contains_key(id));
        touched
    }

    /// The plans of the first of these keys, as many as cross at once.
    fn pushes<'k>(&self, keys: impl Iterator<Item = &'k String>) -> Vec<Push> {
        let Some(workspace) = &self.id else { return Vec::new() };
        let mut left = PUSHED_BYTES;
        let mut pushes = Vec::new();
        for key in keys.take(PUSHES_AT_ONCE) {
            if key == ALERTS {
                pushes.extend(self.alerts_push(workspace));
                continue;
            }
            if key == TELEMETRY {
                pushes.extend(self.telemetry_push(workspace));
                continue;
            }
            let plan = self.config.compile(workspace, self.version, key, &self.secrets);
            let Some(plan) = plan.and_then(|plan| serde_json::to_string(&plan).ok()) else {
                continue;
            };
            left = left.saturating_sub(plan.len());
            pushes.push(Push {
                key: key.clone(),
                version: self.version.to_string(),
                plan,
                alerts_of: None,
                telemetry_of: None,
            });
            if left == 0 {
                break;
            }
        }
        pushes
    }

    fn alerts_push(&self, workspace: &WorkspaceId) -> Option<Push> {
        let created = self.keys_created().ok()?;
        let plan = self.config.compile_alerts(workspace, self.version, &self.secrets, &created);
        Some(Push {
            key: ALERTS.to_owned(),
            version: self.version.to_string(),
            plan: serde_json::to_string(&plan).ok()?,
            alerts_of: Some(workspace.to_string()),
            telemetry_of: None,
        })
    }

    fn telemetry_push(&self, workspace: &WorkspaceId) -> Option<Push> {
        let plan = self.config.compile_telemetry(workspace, self.version, &self.secrets);
        Some(Push {
            key: TELEMETRY.to_owned(),
            version: self.version.to_string(),
            plan: serde_json::to_string(&plan).ok()?,
            alerts_of: None,
            telemetry_of: Some(workspace.to_string()),
        })
    }

    /// When each key was issued, as the audit log says.
    fn keys_created(&self) -> Result<BTreeMap<String, Timestamp>, SqlError> {
        let select = "SELECT path, MIN(at) FROM audit WHERE act = 'added' AND path LIKE 'keys.%' GROUP BY path";
        let mut created = BTreeMap::new();
        for row in &self.sql.exec(select, &[])? {
            if let (Some(id), Some(at)) =
                (text(row, 0)?.strip_prefix("keys."), Timestamp::parse(text(row, 1)?))
            {
                created.insert(id.to_owned(), at);
            }
        }
        Ok(created)
    }

    /// A Meter has the plan of this version.
    pub fn pushed(&self, key: &str, version: &str) -> Result<(), SqlError> {
        let done = "DELETE FROM pushes WHERE key = ? AND version <= CAST(? AS INTEGER)";
        self.sql.exec(done, &[Some(key), Some(version)]).map(|_| ())
    }

    /// Plans that their Meters may not have yet.
    pub fn pending(&self) -> Result<Vec<Push>, SqlError> {
        let select = format!("SELECT key FROM pushes LIMIT {PUSHES_AT_ONCE}");
        let rows = self.sql.exec(&select, &[])?;
        let keys: Vec<String> =
            rows.iter().map(|row| text(row, 0).map(str::to_owned)).collect::<Result<_, _>>()?;
        Ok(self.pushes(keys.iter()))
    }

    fn write_entry(&self, change: &Change) -> Result<(), SqlError> {
        match &change.after {
            None => self.sql.exec("DELETE FROM entries WHERE path = ?", &[Some(&change.path)])?,
            Some(body) => {
                let upsert = "INSERT INTO entries (path, body) VALUES (?, ?)
                    ON CONFLICT (path) DO UPDATE SET body = excluded.body";
                self.sql.exec(upsert, &[Some(&change.path), Some(&body.to_string())])?
            }
        };
        Ok(())
    }

    /// Writes the secrets that differ; returns their paths.
    fn write_secrets(&self, secrets: &Secrets) -> Result<Vec<String>, SqlError> {
        let (before, after) = (secret_rows(&self.secrets), secret_rows(secrets));
        let mut changed = Vec::new();
        for ((kind, name), body) in &after {
            if before.get(&(*kind, name.clone())) != Some(body) {
                let upsert = "INSERT INTO secrets (kind, name, body) VALUES (?, ?, ?)
                    ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body";
                self.sql.exec(upsert, &[Some(kind), Some(name), Some(body)])?;
                changed.push(secret_path(kind, name));
            }
        }
        for (kind, name) in before.keys().filter(|key| !after.contains_key(*key)) {
            let delete = "DELETE FROM secrets WHERE kind = ? AND name = ?";
            self.sql.exec(delete, &[Some(kind), Some(name)])?;
            changed.push(secret_path(kind, name));
        }
        Ok(changed)
    }

    fn set_meta(&self, name: &str, value: &str) -> Result<(), SqlError> {
        let upsert = "INSERT INTO meta (name, value) VALUES (?, ?)
            ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.sql.exec(upsert, &[Some(name), Some(value)]).map(|_| ())
    }

    pub(super) fn audit(
        &self,
        principal: &Principal,
        act: &str,
        path: &str,
        body: &Value,
        now: Timestamp,
    ) -> Result<(), SqlError> {
        let insert = "INSERT INTO audit (at, who, act, path, body) VALUES (?, ?, ?, ?, ?)";
        let (at, body) = (now.to_string(), body.to_string());
        let params = [at.as_str(), &principal.who, act, path, &body].map(Some);
        self.sql.exec(insert, &params).map(|_| ())
    }

    /// The audit log, newest first, older than `before`.
    pub(super) fn audit_log(
        &self,
        before: Option<u64>,
        limit: u64,
    ) -> Result<Vec<Value>, SqlError> {
        let before = before.unwrap_or(i64::MAX.unsigned_abs()).to_string();
        let select = format!(
            "SELECT CAST(seq AS TEXT), at, who, act, path, body FROM audit WHERE seq < CAST(? AS INTEGER)
             ORDER BY seq DESC LIMIT {}",
            limit.clamp(1, 1_000)
        );
        let rows = self.sql.exec(&select, &[Some(&before)])?;
        let entry = |row: &super::sql::Row| {
            Ok(json!({ "seq": integer::<u64>(row, 0)?, "at": text(row, 1)?, "who": text(row, 2)?,
                       "act": text(row, 3)?, "path": text(row, 4)?, "change": stored::<Value>(text(row, 5)?)? }))
        };
        rows.iter().map(entry).collect()
    }

    /// When this workspace came to be.
    pub(super) fn created(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.created_at)
    }
}

pub(super) fn stored<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, SqlError> {
    serde_json::from_str(body).map_err(|e| SqlError(format!("stored configuration: {e}")))
}

fn secret_path(kind: &str, name: &str) -> String {
    match kind {
        "key" => format!("keys.{name}"),
        "credential" => format!("providers.{name}"),
        "receiver" => format!("receivers.{name}"),
        "reconciler" => format!("reconciler.{name}"),
        "telemetry" => format!("telemetry.{name}"),
        _ => format!("actor_secrets.{name}"),
    }
}

fn secret_rows(secrets: &Secrets) -> BTreeMap<(&'static str, String), String> {
    let json = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
    let credentials = secrets
        .credentials
        .iter()
        .map(|(name, sealed)| (("credential", name.clone()), sealed.clone()));
    let keys = secrets
        .keys
        .iter()
        .map(|(id, list)| (("key", id.clone()), json(serde_json::to_string(list))));
    let actors = secrets
        .actors
        .iter()
        .map(|secret| (("actor", secret.kid.clone()), json(serde_json::to_string(secret))));
    let reconcilers = secrets
        .reconcilers
        .iter()
        .map(|secret| (("reconciler", secret.kid.clone()), json(serde_json::to_string(secret))));
    let receivers = secrets
        .receivers
        .iter()
        .map(|(name, list)| (("receiver", name.clone()), json(serde_json::to_string(list))));
    let collector = secrets
        .collector
        .iter()
        .map(|sealed| (("telemetry", "collector".to_owned()), sealed.clone()));
    let shared = actors.chain(reconcilers).chain(receivers).chain(collector);
    credentials.chain(keys).chain(shared).collect()
}
