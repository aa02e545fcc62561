//! The Workspace: one tenant's configuration, its secrets (as hashes or sealed), its API tokens and its audit log.
//!
//! A change is validated as a whole, then written with its audit rows in one transaction; the plans of the keys that it
//! touches are queued in the same transaction and leave the queue when their Meters have them.

mod plans;
mod stored;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tallygate_shared::identity::api_token::ApiToken;
use tallygate_shared::identity::secret::SecretHash;
use tallygate_shared::identity::signature::{SignedCall, TOLERANCE_MS, body_sha256};
use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::{Date, Timestamp};

use super::migrations::migrate;
use super::sql::{Sql, SqlError, integer, text};
use crate::admin::bodies::{NewToken, NewWorkspace};
use crate::admin::call::{CREATE, Call, Push, Signed, Step};
use crate::admin::config::{Config, Secrets, whole};
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
", super::workspace_api::FOCUS, super::workspace_api::CORRECTIONS];

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
        // Of a body that goes to the bucket unread, the signer says the hash, and the bucket sees that it is right.
        let said = context.call.content_sha256.clone();
        let body_sha256 = said.unwrap_or_else(|| body_sha256(context.call.body.as_bytes()));
        let signed_call = SignedCall {
            method: &context.call.method,
            path: &context.call.path,
            query: &context.call.query,
            timestamp: signed.timestamp.parse().unwrap_or(i64::MIN),
            nonce: &signed.nonce,
            body_sha256: &body_sha256,
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

    /// When this workspace came to be.
    pub(super) fn created(&self) -> Option<Timestamp> {
        Timestamp::parse(&self.created_at)
    }
}

pub(super) fn stored<T: serde::de::DeserializeOwned>(body: &str) -> Result<T, SqlError> {
    serde_json::from_str(body).map_err(|e| SqlError(format!("stored configuration: {e}")))
}
