//! Alerts: rules and receivers are configuration; alerts and deliveries are asked of the Alerts object.

use serde_json::{Value, json};
use tallygate_shared::alerts::alert::{AlertKind, REASON_MAX_CHARS, SNOOZE_MAX_MS};
use tallygate_shared::alerts::target::check_target;
use tallygate_shared::alerts::webhook::WebhookSecret;
use tallygate_shared::time::Timestamp;

use super::reports::page;
use super::secrets::overlap_ms;
use super::{Answer, Api};
use crate::admin::bodies::{ReceiverBody, ReceiverRotation, Snooze};
use crate::admin::call::Step;
use crate::admin::config_alerts::{AlertSettings, ReceiverConfig, target_problem};
use crate::admin::problem::Problem;
use crate::objects::alerts_object::Wish;
use crate::objects::alerts_plan::{ReceiverKind, SealedSecret};
use crate::objects::alerts_store::{AlertsQuery, DeliveriesQuery, SEVERITIES, STATES};
use crate::objects::sql::Sql;

/// Alerts or deliveries in one page, where no limit is asked for.
const DEFAULT_PAGE: u64 = 50;
/// Signatures in one message: more than a rotation needs is a leak unnoticed.
const SECRETS_MAX: usize = 4;

impl<S: Sql> Api<'_, S> {
    pub(super) fn ask_alerts(&self, method: &'static str, payload: String) -> Answer {
        Ok(Step::Alerts { name: self.workspace.id()?.to_string(), method, payload })
    }

    pub(super) fn put_alert_settings(&mut self) -> Answer {
        let settings: AlertSettings = self.context.call.body()?;
        self.edit(|config, _| {
            let body = json!(settings);
            config.alerts = settings;
            Ok(body)
        })
    }

    pub(super) fn alerts(&self) -> Answer {
        let owner = self.principal.owner.clone();
        let mut query = AlertsQuery { limit: DEFAULT_PAGE, owner, ..AlertsQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "state" => {
                    query.state = Some(one_of("state", value, &STATES)?);
                }
                "severity" => {
                    query.severity = Some(one_of("severity", value, &SEVERITIES)?);
                }
                "kind" => {
                    query.kind = Some(one_of("kind", value, &AlertKind::ALL.map(AlertKind::name))?)
                }
                "sort" => {
                    let sort = one_of("sort", value, &["newest", "severity"])?;
                    query.gravest_first = sort == "severity";
                }
                "limit" => query.limit = page(&value)?,
                _ => query.cursor = Some(value),
            }
        }
        self.ask_alerts("list", json!(query).to_string())
    }

    pub(super) fn alert_counts(&self) -> Answer {
        let wish = Wish { owner: self.principal.owner.clone(), ..Wish::default() };
        self.ask_alerts("counts", json!(wish).to_string())
    }

    pub(super) fn alert(&self, id: &str) -> Answer {
        let owner = self.principal.owner.clone();
        let wish = Wish { id: id.to_owned(), owner, ..Wish::default() };
        self.ask_alerts("show", json!(wish).to_string())
    }

    /// Acknowledges or resolves.
    pub(super) fn act_on_alert(&self, method: &'static str, id: &str) -> Answer {
        let (by, owner) = (self.principal.who.clone(), self.principal.owner.clone());
        let wish = Wish { id: id.to_owned(), by, owner, ..Wish::default() };
        self.wish(method, &wish)
    }

    pub(super) fn snooze_alert(&self, id: &str) -> Answer {
        let Snooze { until, reason } = self.context.call.body()?;
        let moment = Timestamp::parse(&until).ok_or_else(|| {
            let remedy = "Give UTC in RFC 3339 (2026-11-20T10:00:00Z).";
            Problem::field("until", "is not a time", remedy)
        })?;
        let wait = moment.since_ms(self.context.now);
        if wait <= 0 || wait > SNOOZE_MAX_MS {
            let remedy = "Give a time in the next 90 days.";
            return Err(Problem::field("until", "is not a time to snooze until", remedy).into());
        }
        if reason.trim().is_empty() || reason.chars().count() > REASON_MAX_CHARS {
            let remedy = "Say in 1 to 500 characters why it may wait.";
            return Err(Problem::field("reason", "is empty or too long", remedy).into());
        }
        let (by, owner) = (self.principal.who.clone(), self.principal.owner.clone());
        let wish = Wish { id: id.to_owned(), by, owner, until_ms: Some(moment.ms()), reason };
        self.wish("snooze", &wish)
    }

    fn wish(&self, method: &'static str, wish: &Wish) -> Answer {
        let path = format!("alerts.{}", crate::request::exchange::printable(&wish.id));
        let body = json!({ "until_ms": wish.until_ms, "reason": wish.reason });
        self.workspace.audit(self.principal, method, &path, &body, self.context.now)?;
        self.ask_alerts(method, json!(wish).to_string())
    }

    fn shown_receiver(&self, name: &str) -> Option<Value> {
        let mut shown = serde_json::to_value(self.workspace.config().receivers.get(name)?).ok()?;
        let secrets = self.workspace.secrets().receivers.get(name);
        let now = self.context.now;
        let in_use = |secret: &&SealedSecret| secret.expires_at.is_none_or(|end| end > now);
        let count = secrets.map_or(0, |secrets| secrets.iter().filter(in_use).count());
        let fields = shown.as_object_mut()?;
        fields.insert("name".to_owned(), name.into());
        fields.insert("secrets".to_owned(), count.into());
        Some(shown)
    }

    pub(super) fn receivers(&self) -> Answer {
        let names = self.workspace.config().receivers.keys();
        let shown: Vec<Value> = names.filter_map(|name| self.shown_receiver(name)).collect();
        self.ask_alerts("receivers", json!(shown).to_string())
    }

    pub(super) fn receiver(&self, name: &str) -> Answer {
        let shown =
            self.shown_receiver(name).ok_or_else(|| Problem::not_found("receiver", name))?;
        self.ask_alerts("receiver", shown.to_string())
    }

    /// Creates or replaces a receiver. A webhook without a secret of its own gets one, shown in this answer alone.
    pub(super) fn put_receiver(&mut self, name: &str) -> Answer {
        let body: ReceiverBody = self.context.call.body()?;
        let known = self.workspace.config().receivers.get(name);
        let has_secret = known.is_some_and(|known| known.kind == body.kind)
            && self.workspace.secrets().receivers.contains_key(name);
        let (plain, shown_once, url) = match body.kind {
            ReceiverKind::StandardWebhook => {
                let (plain, minted) = match body.secret {
                    None if has_secret => (None, false),
                    given => {
                        let (secret, minted) = self.given_or_minted(given)?;
                        (Some(secret), minted)
                    }
                };
                (plain, minted, body.url)
            }
            ReceiverKind::Slack => {
                if body.secret.is_some() {
                    let remedy = "Leave it out: Slack's address is its secret.";
                    return Err(Problem::field("secret", "is not for Slack", remedy).into());
                }
                if body.url.is_none() && !has_secret {
                    let remedy = "Give the address of Slack's incoming webhook.";
                    return Err(Problem::field("url", "is missing", remedy).into());
                }
                if let Some(url) = &body.url {
                    check_target(url, self.context.allow_private)
                        .map_err(|error| target_problem("url", error))?;
                }
                (body.url, false, None)
            }
        };
        let receiver = ReceiverConfig {
            kind: body.kind,
            url,
            min_severity: body.min_severity,
            kinds: body.kinds,
            enabled: body.enabled,
        };
        let sealed =
            plain.as_ref().map(|plain| self.sealed(plain, "receiver", name)).transpose()?;
        self.edit_and_show(
            |config, secrets| {
                config.receivers.insert(name.to_owned(), receiver);
                if let Some(sealed) = sealed {
                    let first = SealedSecret { sealed, expires_at: None };
                    secrets.receivers.insert(name.to_owned(), vec![first]);
                }
                Ok(())
            },
            |api| with_secret(api.shown_receiver(name)?, plain.filter(|_| shown_once)),
        )
    }

    fn given_or_minted(&self, given: Option<String>) -> Result<(String, bool), Problem> {
        let Some(given) = given else {
            return Ok((WebhookSecret::mint(&self.context.bytes(64)).reveal(), true));
        };
        WebhookSecret::parse(&given).map_err(|error| {
            let remedy = "Give one of that form, or leave it out to get one.";
            Problem::field("secret", error.to_string(), remedy)
        })?;
        Ok((given, false))
    }

    pub(super) fn delete_receiver(&mut self, name: &str) -> Answer {
        self.edit(|config, secrets| {
            let known = config.receivers.remove(name);
            known.ok_or_else(|| Problem::not_found("receiver", name))?;
            secrets.receivers.remove(name);
            Ok(json!({}))
        })
    }

    /// Gives a webhook a new secret. Until the overlap ends, messages carry both signatures.
    pub(super) fn rotate_receiver(&mut self, name: &str) -> Answer {
        let rotation: ReceiverRotation = self.context.call.optional_body()?;
        let known = self.workspace.config().receivers.get(name);
        let known = known.ok_or_else(|| Problem::not_found("receiver", name))?;
        if known.kind == ReceiverKind::Slack {
            let detail = "Slack's address is its secret: replace the receiver with a new `url`.";
            return Err(Problem::new(409, "no_secret", detail).into());
        }
        let overlap = overlap_ms(rotation.overlap_seconds)?;
        let (plain, minted) = self.given_or_minted(rotation.secret)?;
        let sealed = self.sealed(&plain, "receiver", name)?;
        let now = self.context.now;
        let end = now.plus_ms(overlap);
        self.edit_and_show(
            |_, secrets| {
                let list = secrets.receivers.entry(name.to_owned()).or_default();
                for secret in list.iter_mut() {
                    // Rotating again can only shorten the time.
                    secret.expires_at = Some(secret.expires_at.map_or(end, |at| at.min(end)));
                }
                list.insert(0, SealedSecret { sealed, expires_at: None });
                list.retain(|secret| secret.expires_at.is_none_or(|end| end > now));
                list.truncate(SECRETS_MAX);
                Ok(())
            },
            |api| with_secret(api.shown_receiver(name)?, Some(plain).filter(|_| minted)),
        )
    }

    pub(super) fn test_receiver(&self, name: &str) -> Answer {
        if !self.workspace.config().receivers.contains_key(name) {
            return Err(Problem::not_found("receiver", name).into());
        }
        self.ask_alerts("test", name.to_owned())
    }

    pub(super) fn deliveries(&self) -> Answer {
        let mut query = DeliveriesQuery { limit: DEFAULT_PAGE, ..DeliveriesQuery::default() };
        for (name, value) in self.context.call.parameters() {
            match name.as_str() {
                "receiver" => query.receiver = Some(value),
                "state" => {
                    let known = ["pending", "delivered", "failed"];
                    query.state = Some(one_of("state", value, &known)?);
                }
                "limit" => query.limit = page(&value)?,
                _ => query.cursor = Some(value),
            }
        }
        self.ask_alerts("deliveries", json!(query).to_string())
    }

    pub(super) fn redeliver(&self, id: &str) -> Answer {
        let wish = Wish { id: id.to_owned(), ..Wish::default() };
        self.ask_alerts("redeliver", json!(wish).to_string())
    }
}

fn with_secret(mut shown: Value, secret: Option<String>) -> Option<Value> {
    if let Some(secret) = secret {
        shown.as_object_mut()?.insert("secret".to_owned(), secret.into());
    }
    Some(shown)
}

fn one_of(field: &str, value: String, known: &[&str]) -> Result<String, Problem> {
    if known.contains(&value.as_str()) {
        return Ok(value);
    }
    let remedy = format!("Use one of {}.", known.join(", "));
    Err(Problem::field(field, "is not known", &remedy))
}
