//! The inventory of keys, and where the workspace stands: what the configuration and the audit log know, before the
//! Ledgers add what they know.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallygate_shared::budget::terms::Mode;
use tallygate_shared::maturity::{Facts, LOOKBACK_DAYS};
use tallygate_shared::policy::key_plan::KeyStatus;
use tallygate_shared::time::{DAY_MS, Timestamp};

use super::{Answer, Api};
use crate::admin::call::Step;
use crate::admin::config::{KeyConfig, PolicyRef};
use crate::admin::key_providers::KeyProviders;
use crate::admin::merge_standing::{InventoryQuery, MaturityQuery};
use crate::admin::problem::Problem;
use crate::objects::sql::{Sql, SqlError, integer, text};

/// A key without a request for so many days is unused, where nothing else is asked.
const UNUSED_DAYS: u32 = 30;
/// For so many days back a key's last use is looked for, whatever days are counted.
const LAST_USE_DAYS: i64 = 365;

/// A key's moments.
struct Age {
    created: Timestamp,
    secret: Timestamp,
}

impl<S: Sql> Api<'_, S> {
    /// When keys were issued and when their newest secrets were made, as the audit log says.
    fn ages(&self) -> Result<BTreeMap<String, Age>, SqlError> {
        // Between these two are exactly the paths that begin with `keys.`.
        let select = "SELECT path, MIN(CASE WHEN act = 'added' THEN at END), MAX(at) FROM audit
            WHERE path > 'keys.' AND path < 'keys/' AND act IN ('added', 'secret_changed') GROUP BY path";
        let mut ages = BTreeMap::new();
        for row in &self.workspace.exec(select, &[])? {
            let moment = |place: usize| {
                let text = row.get(place).cloned().flatten();
                text.as_deref().and_then(Timestamp::parse)
            };
            let id = text(row, 0)?.strip_prefix("keys.").map(str::to_owned);
            if let (Some(id), Some(created), Some(secret)) = (id, moment(1), moment(2)) {
                ages.insert(id, Age { created, secret });
            }
        }
        Ok(ages)
    }

    fn rotation_ms(&self) -> i64 {
        i64::from(self.workspace.config().dashboard.rotate_keys_after_days).saturating_mul(DAY_MS)
    }

    pub(super) fn key_inventory(&self) -> Answer {
        let parameter = |name: &str| self.context.call.parameter(name);
        let days = parameter("days").map(|text| {
            let days = text.parse().ok().filter(|days| (1..=365).contains(days));
            days.ok_or_else(|| Problem::field("days", "is out of range", "Give 1 to 365."))
        });
        let days = days.transpose()?.unwrap_or(UNUSED_DAYS);
        let (owner, ages, market) = (parameter("owner"), self.ages()?, self.market());
        let config = self.workspace.config();
        let mut providers = KeyProviders::new(config, &market, self.context.now);
        let dated = |mut key: Value| {
            let id = key.get("id")?.as_str()?;
            let (age, used) = (ages.get(id), providers.of(config.keys.get(id)?));
            let method = |name: &str| config.providers.get(name)?.payment_method.clone();
            let methods: BTreeMap<&str, Option<String>> =
                used.into_iter().map(|name| (name, method(name))).collect();
            let due = age.map(|age| age.secret.plus_ms(self.rotation_ms()).to_string());
            let fields = key.as_object_mut()?;
            fields.insert("created_at".to_owned(), json!(age.map(|age| age.created.to_string())));
            fields.insert("secret_at".to_owned(), json!(age.map(|age| age.secret.to_string())));
            fields.insert("rotation_due_at".to_owned(), json!(due));
            fields.insert("payment_methods".to_owned(), json!(methods));
            Some(key)
        };
        let asked = |key: &Value| {
            owner.as_deref().is_none_or(|it| key.get("owner").and_then(Value::as_str) == Some(it))
        };
        let now = self.context.now;
        let from_ms = now.plus_ms(-i64::from(days) * DAY_MS).start_of_hour().ms();
        let members = self.workspace.config().dashboard.members.keys().cloned().collect();
        let since_ms = now.plus_ms(-LAST_USE_DAYS * DAY_MS).date().midnight().ms();
        let query = InventoryQuery {
            since_ms,
            from_ms,
            to_ms: now.plus_ms(1).ms(),
            days,
            keys: self.keys().into_iter().filter(asked).filter_map(dated).collect(),
            members,
        };
        let names = self.ledgers(Some(since_ms), Some(query.to_ms))?;
        Ok(Step::Ledgers { names, method: "key_use", payload: json!(query).to_string() })
    }

    pub(super) fn maturity(&self) -> Answer {
        let now = self.context.now;
        let from_ms = now.plus_ms(-LOOKBACK_DAYS * DAY_MS).ms();
        let to_ms = now.plus_ms(1).ms();
        let ledgers = self.ledgers(Some(from_ms), Some(to_ms))?;
        let query = MaturityQuery { from_ms, to_ms, ledgers, facts: self.facts(from_ms)? };
        let payload = json!(query).to_string();
        Ok(Step::Alerts { name: self.workspace.id()?.to_string(), method: "standing", payload })
    }

    fn facts(&self, from_ms: i64) -> Result<Facts, SqlError> {
        let (config, now, ages) = (self.workspace.config(), self.context.now, self.ages()?);
        let working: Vec<(&String, &KeyConfig)> =
            config.keys.iter().filter(|(_, key)| key.status == KeyStatus::Active).collect();
        let is_capped = |key: &KeyConfig| match &key.policy {
            PolicyRef::Inline(policy) => !policy.spend_caps.is_empty(),
            PolicyRef::Named(name) => {
                config.policies.get(name).is_some_and(|policy| !policy.spend_caps.is_empty())
            }
        };
        let is_overdue = |id: &str| {
            ages.get(id).is_some_and(|age| now.since_ms(age.secret) >= self.rotation_ms())
        };
        let count = |all: usize| u64::try_from(all).unwrap_or(u64::MAX);
        let limits = config.budgets.values().filter(|terms| terms.limit_usd.is_some());
        let proposals =
            "SELECT CAST(COUNT(*) AS TEXT) FROM price_proposals WHERE state = 'proposed'";
        let proposals = self.workspace.exec(proposals, &[])?;
        let visits = "SELECT DISTINCT who, json_extract(body, '$.after.role') FROM audit
            WHERE path = 'sessions' AND act = 'added' AND at >= ?";
        let since = Timestamp::from_ms(from_ms).to_string();
        let visits = self.workspace.exec(visits, &[Some(&since)])?;
        let distinct = |place: usize| {
            let values = visits.iter().filter_map(|row| row.get(place).cloned().flatten());
            count(values.collect::<BTreeSet<String>>().len())
        };
        Ok(Facts {
            keys: count(working.len()),
            capped_keys: count(working.iter().filter(|(_, key)| is_capped(key)).count()),
            overdue_keys: count(working.iter().filter(|(id, _)| is_overdue(id)).count()),
            budgets: count(limits.clone().count()),
            strict_budgets: count(limits.filter(|terms| terms.mode == Mode::Strict).count()),
            routes: count(config.routes.len()),
            fallbacks: count(config.routes.values().filter(|it| it.targets.len() > 1).count()),
            receivers: count(config.receivers.values().filter(|it| it.enabled).count()),
            telemetry: config
                .telemetry
                .as_ref()
                .is_some_and(|it| it.enabled && it.endpoint.is_some()),
            open_proposals: proposals.first().map_or(Ok(0), |row| integer(row, 0))?,
            reconciler: !self.workspace.secrets().reconcilers.is_empty(),
            visitors: distinct(0),
            visitor_roles: distinct(1),
            ..Facts::default()
        })
    }
}
