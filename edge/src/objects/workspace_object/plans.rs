//! Which plans a change touches, and their way to the Meters and to the objects that watch.

use std::collections::{BTreeMap, BTreeSet};

use tallygate_shared::ids::WorkspaceId;
use tallygate_shared::time::Timestamp;

use super::WorkspaceObject;
use crate::admin::call::Push;
use crate::admin::config::{Change, Config, KeyConfig, Secrets};
use crate::admin::problem::Problem;
use crate::objects::sql::{Sql, SqlError, text};

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

impl<S: Sql> WorkspaceObject<S> {
    /// All keys share nearly all of their plans, so one is measured.
    pub(in crate::objects) fn check_plan_size(
        &self,
        config: &Config,
        secrets: &Secrets,
    ) -> Result<(), Problem> {
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
    pub(super) fn touched(
        &self,
        config: &Config,
        changes: &[Change],
        secrets: &[String],
    ) -> BTreeSet<String> {
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
    pub(super) fn pushes<'k>(&self, keys: impl Iterator<Item = &'k String>) -> Vec<Push> {
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
}
