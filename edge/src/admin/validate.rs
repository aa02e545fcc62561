//! What a configuration must be like before anything of it is stored. Everything that is wrong is reported at once.

use std::collections::BTreeSet;

use tallygate_shared::budget::window::Window;
use tallygate_shared::ids::KeyId;
use tallygate_shared::money::Usd;
use tallygate_shared::policy::key_plan::{KeyPolicy, KeyStatus, Route, Strategy};
use tallygate_shared::pricing::PriceRow;
use tallygate_shared::time::Timestamp;

use super::config::{Config, KeyConfig, PolicyRef, ProviderConfig};
use super::config_alerts::MAX_RECEIVERS;
use super::config_commitments::{MAX_COMMITMENTS, validate_commitments};
use super::problem::{FieldError, Problem};
use super::validate_budget::validate_budget;
use crate::providers::ProviderKind;
use crate::request::exchange::printable;

/// Longest name of anything.
const MAX_NAME: usize = 128;
/// Longest base URL.
const MAX_URL: usize = 500;
/// Patterns or addresses in one policy.
const MAX_RULES: usize = 500;
/// Largest limit of tokens, requests or bytes: beyond every use, and far below what a JavaScript number holds exactly.
pub(super) const MAX_COUNT: u64 = 1_000_000_000_000;
/// Errors in one answer.
const MAX_ERRORS: usize = 50;
/// Entries of each section. A key's plan holds all but the keys, and is one value in its Meter's storage, where 2 MB is
/// the platform's limit: 100 providers x 1 KB + 500 routes x 1 KB + 2,000 prices x 0.5 KB = 1.6 MB.
const MAX_PROVIDERS: usize = 100;
const MAX_ROUTES: usize = 500;
const MAX_PRICES: usize = 2_000;
const MAX_POLICIES: usize = 500;
const MAX_BUDGETS: usize = 500;
const MAX_ARCHETYPES: usize = 1_000;
/// Keys, revoked ones included. The configuration is in memory: 10,000 x about 1 KB = 10 MB of an isolate's 128.
const MAX_KEYS: usize = 10_000;

impl Config {
    /// Checks everything that does not depend on secrets, references included.
    pub fn validate(&self) -> Result<(), Problem> {
        let mut found = Found::default();
        for (section, count, most) in [
            ("providers", self.providers.len(), MAX_PROVIDERS),
            ("routes", self.routes.len(), MAX_ROUTES),
            ("prices", self.prices.len(), MAX_PRICES),
            ("policies", self.policies.len(), MAX_POLICIES),
            ("budgets", self.budgets.len(), MAX_BUDGETS),
            ("receivers", self.receivers.len(), MAX_RECEIVERS),
            ("archetypes", self.archetypes.len(), MAX_ARCHETYPES),
            ("commitments", self.commitments.len(), MAX_COMMITMENTS),
            ("keys", self.keys.len(), MAX_KEYS),
        ] {
            if count > most {
                let detail = format!("has {count} entries; at most {most} fit a workspace");
                found.note(Err(Problem::field(section, detail, "Remove what is not used.")));
            }
        }
        for (name, provider) in &self.providers {
            found.note(check_name("providers", name).and_then(|()| provider.validate(name)));
        }
        for (name, route) in &self.routes {
            found.note(check_alias(name).and_then(|()| self.validate_route(name, route)));
        }
        for (name, policy) in &self.policies {
            found.note(check_name("policies", name));
            found.note(validate_policy(&format!("policies.{name}"), policy));
        }
        for (name, terms) in &self.budgets {
            found.note(check_name("budgets", name));
            found.note(validate_budget(&format!("budgets.{name}"), terms));
        }
        for (name, row) in &self.prices {
            found.note(self.validate_price(name, row));
        }
        found.note(self.prices_are_apart());
        if let Some(row) = &self.default_price {
            found.note(validate_row("default_price", row));
        }
        for problem in
            self.alerts.validate(&self.receivers).into_iter().chain(self.dashboard.validate())
        {
            found.note(Err(problem));
        }
        for problem in validate_commitments(self) {
            found.note(Err(problem));
        }
        for name in self.archetypes.keys() {
            found.note(check_text("archetypes", name));
        }
        for (name, receiver) in &self.receivers {
            found.note(receiver.validate(name));
        }
        if let Some(telemetry) = &self.telemetry {
            found.note(telemetry.validate());
        }
        for (id, key) in &self.keys {
            found.note(self.validate_key(id, key));
        }
        found.note(self.key_names_differ());
        if found.0.is_empty() { Ok(()) } else { Err(Problem::invalid(found.0)) }
    }

    fn validate_price(&self, name: &str, row: &PriceRow) -> Result<(), Problem> {
        let field = format!("prices.{name}");
        validate_row(&field, row)?;
        let expected = price_name(row);
        if name != expected {
            let detail = format!("is not what this row is called: `{expected}`");
            return Err(Problem::field(&field, detail, "Name it so, or change the row."));
        }
        if self.providers.contains_key(&row.provider) {
            return Ok(());
        }
        let detail = format!("names the unknown provider `{}`", row.provider);
        Err(Problem::field(&field, detail, "Use the name of one of `providers`."))
    }

    /// Two rows for one model at one moment would leave it to chance which one is billed.
    fn prices_are_apart(&self) -> Result<(), Problem> {
        let mut rows: Vec<&PriceRow> = self.prices.values().collect();
        let key = |row: &PriceRow| (row.provider.clone(), row.model.clone(), row.effective_from);
        rows.sort_by_cached_key(|row| key(row));
        for (earlier, later) in rows.iter().zip(rows.iter().skip(1)) {
            let same = (&earlier.provider, &earlier.model) == (&later.provider, &later.model);
            let apart =
                earlier.effective_to.zip(later.effective_from).is_some_and(|(to, from)| to <= from);
            if same && !apart {
                let field = format!("prices.{}", price_name(later));
                let detail = format!("is in force together with `{}`", price_name(earlier));
                return Err(Problem::field(
                    &field,
                    detail,
                    "Give the earlier one an `effective_to`.",
                ));
            }
        }
        Ok(())
    }

    /// A name is how people tell keys apart; a revoked key gives its name free.
    fn key_names_differ(&self) -> Result<(), Problem> {
        let mut names = BTreeSet::new();
        for (id, key) in self.keys.iter().filter(|(_, key)| key.status != KeyStatus::Revoked) {
            if !names.insert(&key.name) {
                let detail = format!("is `{}`, which another key has", key.name);
                return Err(Problem::field(
                    &format!("keys.{id}.name"),
                    detail,
                    "Choose another name.",
                ));
            }
        }
        Ok(())
    }

    fn validate_route(&self, name: &str, route: &Route) -> Result<(), Problem> {
        let field = format!("routes.{name}.targets");
        if route.targets.is_empty() || route.targets.len() > 16 {
            return Err(Problem::field(&field, "must have 1 to 16 targets", "Name at least one."));
        }
        for target in &route.targets {
            if !self.providers.contains_key(&target.provider) {
                let detail = format!("names the unknown provider `{}`", target.provider);
                return Err(Problem::field(&field, detail, "Use the name of one of `providers`."));
            }
            check_text(&field, &target.model)?;
        }
        if route.strategy == Strategy::Weighted
            && route.targets.iter().all(|target| target.weight == 0)
        {
            let remedy = "Give one target a weight above 0.";
            return Err(Problem::field(&field, "have no weight", remedy));
        }
        if !(1..=10).contains(&route.attempts) {
            let field = format!("routes.{name}.attempts");
            return Err(Problem::field(&field, "must be 1 to 10", "Set it to 2, the default."));
        }
        for (field, ms) in [
            ("first_byte_timeout_ms", route.first_byte_timeout_ms),
            ("idle_timeout_ms", route.idle_timeout_ms),
        ] {
            if !(100..=800_000).contains(&ms) {
                let field = format!("routes.{name}.{field}");
                return Err(Problem::field(&field, "must be 100 to 800000", "Give milliseconds."));
            }
        }
        Ok(())
    }

    fn validate_key(&self, id: &str, key: &KeyConfig) -> Result<(), Problem> {
        let at = |field: &str| format!("keys.{id}.{field}");
        if KeyId::parse(id).is_err() {
            return Err(Problem::field(
                "keys",
                format!("has the bad key id `{}`", printable(id)),
                "Export first.",
            ));
        }
        for (field, text) in [
            ("name", &key.name),
            ("owner", &key.owner),
            ("cost_centre", &key.cost_centre),
            ("purpose", &key.purpose),
            ("environment", &key.environment),
        ] {
            check_text(&at(field), text)?;
        }
        if let Err(error) = key.actor.validate() {
            return Err(Problem::field(&at("actor"), error.to_string(), "Correct the claim."));
        }
        if let Some(text) = &key.expires_at
            && Timestamp::parse(text).is_none()
        {
            let remedy = "Give UTC in RFC 3339, for example 2027-01-01T00:00:00Z.";
            return Err(Problem::field(&at("expires_at"), "is not a time", remedy));
        }
        match &key.policy {
            PolicyRef::Inline(policy) => validate_policy(&at("policy"), policy),
            PolicyRef::Named(name) if self.policies.contains_key(name) => Ok(()),
            PolicyRef::Named(name) => {
                let detail = format!("names the unknown policy `{name}`");
                Err(Problem::field(
                    &at("policy"),
                    detail,
                    "Use a name of `policies`, or an object.",
                ))
            }
        }
    }
}

/// The errors found so far.
#[derive(Default)]
struct Found(Vec<FieldError>);

impl Found {
    fn note(&mut self, checked: Result<(), Problem>) {
        if let Err(problem) = checked {
            let room = MAX_ERRORS.saturating_sub(self.0.len());
            self.0.extend(problem.into_errors().into_iter().take(room));
        }
    }
}

/// What a price is called: `provider/model`, and `@day` when it begins on one.
pub fn price_name(row: &PriceRow) -> String {
    let since = row.effective_from.map(|day| format!("@{day}")).unwrap_or_default();
    format!("{}/{}{since}", row.provider, row.model)
}

fn validate_row(field: &str, row: &PriceRow) -> Result<(), Problem> {
    check_text(field, &row.provider)?;
    check_text(field, &row.model)?;
    row.validate().map_err(|error| Problem::field(field, error.to_string(), "Correct the row."))
}

impl ProviderConfig {
    fn validate(&self, name: &str) -> Result<(), Problem> {
        let at = |field: &str| format!("providers.{name}.{field}");
        if let Some(text) = &self.payment_method {
            check_text(&at("payment_method"), text)?;
        }
        let Some(kind) = ProviderKind::parse(&self.kind) else {
            let kinds = ProviderKind::ALL.map(ProviderKind::name).join(", ");
            return Err(Problem::field(
                &at("kind"),
                "is not known",
                &format!("Use one of {kinds}."),
            ));
        };
        match &self.base_url {
            None if kind.facts().base_url.is_none() => {
                return Err(Problem::field(
                    &at("base_url"),
                    "is missing",
                    "This kind has none of its own.",
                ));
            }
            Some(url) if !is_base_url(url) => {
                let remedy =
                    "Give http(s)://host[:port][/path], without credentials, query or fragment.";
                return Err(Problem::field(&at("base_url"), "is not a base URL", remedy));
            }
            _ => {}
        }
        if let Some(header) = &self.auth_header
            && !is_credential_header(header)
        {
            return Err(Problem::field(
                &at("auth_header"),
                "cannot carry a credential",
                "Use a header name in lower case, for example api-key.",
            ));
        }
        if let Some(region) = &self.region
            && !matches!(region.as_str(), "us" | "eu")
        {
            return Err(Problem::field(
                &at("region"),
                "is not known",
                "Use us or eu, or leave it out.",
            ));
        }
        if let Some(version) = &self.api_version
            && !is_plain(version)
        {
            return Err(Problem::field(
                &at("api_version"),
                "is not a version",
                "For example 2025-04-01.",
            ));
        }
        if self.models.len() > MAX_RULES {
            return Err(Problem::field(&at("models"), "has too many entries", "Use at most 500."));
        }
        self.models.iter().try_for_each(|(name, model)| {
            check_text(&at("models"), name)?;
            check_text(&at("models"), model)
        })
    }
}

/// Whether the rules of a policy can be kept.
pub fn validate_policy(at: &str, policy: &KeyPolicy) -> Result<(), Problem> {
    let bounded = |field: &str, value: Option<u64>| match value {
        None | Some(1..=MAX_COUNT) => Ok(()),
        Some(_) => {
            let field = format!("{at}.{field}");
            let remedy = "Leave it out for no limit; to stop a key, suspend it.";
            Err(Problem::field(&field, "must be from 1 to 1,000,000,000,000", remedy))
        }
    };
    bounded("max_output_tokens", policy.max_output_tokens)?;
    bounded("requests_per_minute", policy.requests_per_minute)?;
    bounded("tokens_per_minute", policy.tokens_per_minute)?;
    bounded("max_concurrency", policy.max_concurrency)?;
    bounded("max_request_bytes", policy.max_request_bytes)?;
    let ranges = policy.ip_ranges.clone().map_or(0, |ranges| Vec::from(ranges).len());
    if policy.models.allow.len() + policy.models.deny.len() + ranges > MAX_RULES {
        return Err(Problem::field(
            at,
            "has too many model patterns or addresses",
            "Use at most 500.",
        ));
    }
    let claims = ["user", "team", "app", "feature", "agent", "customer", "environment", "session"];
    if let Some(claim) =
        policy.required_claims.iter().find(|claim| !claims.contains(&claim.as_str()))
    {
        let remedy = format!("Use one of {}.", claims.join(", "));
        let field = format!("{at}.required_claims");
        return Err(Problem::field(&field, format!("has the unknown claim `{claim}`"), &remedy));
    }
    let money = policy.spend_caps.iter().map(|cap| cap.limit_usd).chain(policy.max_request_usd);
    for amount in money {
        if amount < Usd::ZERO {
            let remedy = "Give dollars as text, for example \"12.50\".";
            return Err(Problem::field(at, "has a negative amount", remedy));
        }
        // Durable money is whole nanodollars in 64 bits.
        if amount.nanos().is_none() {
            let remedy = "Give at most 9 decimal places, and at most 9 billion dollars.";
            return Err(Problem::field(at, "has an amount that is too fine or too large", remedy));
        }
    }
    if policy.spend_caps.iter().any(|cap| cap.window == Window::FiscalMonth) {
        let field = format!("{at}.spend_caps");
        let remedy = "Use a budget with the scope `key` and a `fiscal_month_start_day`.";
        return Err(Problem::field(&field, "has a cap by fiscal month", remedy));
    }
    let windows: Vec<&str> = policy.spend_caps.iter().map(|cap| cap.window.name()).collect();
    let distinct: BTreeSet<&&str> = windows.iter().collect();
    if distinct.len() != windows.len() {
        let field = format!("{at}.spend_caps");
        return Err(Problem::field(&field, "has two caps for one window", "Keep the smaller."));
    }
    if let Some((name, must)) = policy.loop_breaker.fault() {
        let field = format!("{at}.loop_breaker.{name}");
        return Err(Problem::field(&field, must, "Leave it out for its default."));
    }
    Ok(())
}

pub(super) fn check_name(section: &str, name: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let remedy = "Use 1 to 128 of A-Z, a-z, 0-9 and -_.:@";
        return Err(Problem::field(
            section,
            format!("has the bad name `{}`", printable(name)),
            remedy,
        ));
    }
    Ok(())
}

/// A route's name is a model's name to its callers, so it may have what model names have.
fn check_alias(name: &str) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:@/".contains(&b);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let remedy = "Use 1 to 128 of A-Z, a-z, 0-9 and -_.:@/";
        return Err(Problem::field(
            "routes",
            format!("has the bad name `{}`", printable(name)),
            remedy,
        ));
    }
    Ok(())
}

/// Refuses a text for people that is empty, too long, or has control characters.
pub fn check_text(field: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() || text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return Err(Problem::field(
            field,
            "is missing or not plain text",
            "Give 1 to 128 characters.",
        ));
    }
    Ok(())
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A header that may be set: those that frame the message belong to the connection.
fn is_credential_header(name: &str) -> bool {
    const FRAMING: [&str; 9] = [
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "transfer-encoding",
        "upgrade",
    ];
    is_plain(name)
        && name.len() <= 64
        && *name == name.to_ascii_lowercase()
        && !FRAMING.contains(&name)
}

/// `http(s)://host[:port][/path]`: no credentials, query or fragment, and nothing that another reader could take for
/// another host.
fn is_base_url(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, port) = match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((address, port)) => (address, port),
            None => host.find(':').and_then(|at| host.split_at_checked(at)).unwrap_or((host, "")),
        };
        let name_fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_host = match host.starts_with('[') {
            true => name.parse::<std::net::Ipv6Addr>().is_ok(),
            false => !name.is_empty() && name.bytes().all(name_fits),
        };
        let is_port =
            port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok());
        let path_fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&b);
        url.len() <= MAX_URL
            && is_host
            && is_port
            && path.bytes().all(path_fits)
            && !path.split('/').any(|part| part == ".." || part == ".")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_a_host_and_nothing_that_hides_another() {
        for good in [
            "https://api.openai.com/v1",
            "http://127.0.0.1:8788/openai/v1",
            "http://[::1]:11434/v1/",
            "https://acme.openai.azure.com",
            "http://vllm:8000",
        ] {
            assert!(is_base_url(good), "{good}");
        }
        for bad in [
            "",
            "api.openai.com",
            "ftp://a",
            "https://",
            "https:///v1",
            "https://user:pw@a/v1",
            "https://a@b",
            "https://a/v1?x=1",
            "https://a/v1#x",
            "https://a/../b",
            "https://a b",
            "https://a:99999",
            "https://a:x",
            "https://[::1",
            "https://[zz]",
            "https://a\\b",
            "https://a/%2e%2e/",
            "https://ä",
            "https://a\n.b",
        ] {
            assert!(!is_base_url(bad), "{bad}");
        }
    }
}
