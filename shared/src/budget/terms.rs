//! A budget as its workspace sets it: whose spending it counts, how much there may be, and what happens at the cap.
//!
//! Terms are compiled into the plan of each key that they can touch. A budget applies to a request whose key and signed
//! actor have the value that its scope names; any number apply, and all must pass. Each value of a scope has an
//! **account** of its own, and an account has **lines**, which a request's [`Need`]s name:
//!
//! | line | counts | up to |
//! |---|---|---|
//! | `usd:<window>` | money of one window, held at the worst case or at what is expected | the cap |
//! | `worst:<window>` | the same money, always held at the worst case (mode `expected` only) | the cap and the overshoot |
//! | `requests` | requests | a rate per minute |
//! | `tokens` | tokens, input and output | a rate per minute |
//! | `slots` | requests in flight | a number |

use serde::{Deserialize, Serialize};

use crate::budget::calendar::{Calendar, LAST_FISCAL_START, Zone};
use crate::budget::lease::wallet::Need;
use crate::budget::lease::{Pool, Units, money_units};
use crate::budget::window::Window;
use crate::identity::actor::Actor;
use crate::ids::{KeyId, WorkspaceId};
use crate::money::Usd;
use crate::time::Timestamp;

/// What a scope says for "each value has a budget of its own".
pub const EACH: &str = "*";
/// Where alerts are raised unless the budget says otherwise, in percent of the limit.
pub const THRESHOLDS: [u8; 3] = [50, 80, 100];

/// A shared budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BudgetTerms {
    /// Whose spending it counts.
    pub scope: Scope,
    /// Who answers for it and hears its alerts.
    pub owner: String,
    /// The most that may be spent in a window. Without it there are rate limits only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_usd: Option<Usd>,
    /// The window that spending is counted in.
    #[serde(default = "month")]
    pub window: Window,
    /// Where its days begin, by the IANA database.
    #[serde(default, skip_serializing_if = "is_utc")]
    pub time_zone: Zone,
    /// The day on which its fiscal months begin, 1 to 28.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub fiscal_month_start_day: u8,
    /// What is set aside for a request.
    #[serde(default)]
    pub mode: Mode,
    /// In mode `expected`: how far the spending may pass the limit, at most. The limit itself where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_overshoot_usd: Option<Usd>,
    /// What happens to a request that the limit refuses.
    #[serde(default)]
    pub at_cap: AtCap,
    /// Percentages of the limit that raise an alert.
    #[serde(default = "thresholds")]
    pub thresholds: Vec<u8>,
    /// A higher limit for some time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<Raise>,
    /// Requests per minute, for each value of the scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    /// Tokens per minute, input and output together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
    /// Requests in flight at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u64>,
}

/// Whose spending a budget counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// By what requests are told apart.
    pub dimension: Dimension,
    /// The value that is meant; `*` gives each value a budget of its own. A workspace needs none.
    #[serde(default = "each", skip_serializing_if = "is_each")]
    pub value: String,
}

impl Scope {
    /// Whether a value of its dimension is meant.
    pub fn covers(&self, value: &str) -> bool {
        self.dimension == Dimension::Workspace || self.value == EACH || self.value == value
    }
}

/// What requests can be told apart by. All but the key come signed, or from the key itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// All requests of the workspace.
    Workspace,
    /// The actor's team.
    Team,
    /// The actor's application.
    App,
    /// The actor's feature.
    Feature,
    /// The actor's agent.
    Agent,
    /// The actor's user.
    User,
    /// The actor's customer.
    Customer,
    /// The actor's environment, else the key's.
    Environment,
    /// The gateway key, by its public id.
    Key,
}

/// What is set aside for a request under a budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Its worst case: the cap holds.
    #[default]
    Strict,
    /// What such requests have cost so far (95 % of them cost less): more pass at once, and the cap can be passed, by
    /// the stated overshoot at most.
    Expected,
}

/// What happens to a request that the limit refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AtCap {
    /// Refuse it, or serve it with a cheaper model.
    pub action: CapAction,
    /// The cheaper model, as a caller would name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Downgrades from this percentage of the limit on; 100 downgrades what would be refused, and nothing else.
    #[serde(default = "hundred", skip_serializing_if = "is_hundred")]
    pub from_percent: u8,
}

impl Default for AtCap {
    fn default() -> Self {
        Self { action: CapAction::Block, model: None, from_percent: hundred() }
    }
}

/// What a budget does at its cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CapAction {
    /// Refuse.
    Block,
    /// Ask the named model instead, if the budget has room for that. The answer says so.
    Downgrade,
}

/// A higher limit for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Raise {
    /// The limit until then.
    pub limit_usd: Usd,
    /// When the limit falls back.
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    #[serde(with = "crate::time::rfc3339")]
    pub until: Timestamp,
    /// Why.
    pub reason: String,
}

fn month() -> Window {
    Window::Month
}

fn first() -> u8 {
    1
}

fn is_first(day: &u8) -> bool {
    *day == 1
}

fn hundred() -> u8 {
    100
}

fn is_hundred(percent: &u8) -> bool {
    *percent == 100
}

fn thresholds() -> Vec<u8> {
    THRESHOLDS.to_vec()
}

fn each() -> String {
    EACH.to_owned()
}

fn is_each(value: &str) -> bool {
    value == EACH
}

fn is_utc(zone: &Zone) -> bool {
    *zone == Zone::UTC
}

impl Dimension {
    /// Every dimension.
    pub const ALL: [Self; 9] = [
        Self::Workspace,
        Self::Team,
        Self::App,
        Self::Feature,
        Self::Agent,
        Self::User,
        Self::Customer,
        Self::Environment,
        Self::Key,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Team => "team",
            Self::App => "app",
            Self::Feature => "feature",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Customer => "customer",
            Self::Environment => "environment",
            Self::Key => "key",
        }
    }
}

/// Who makes a request, as far as budgets tell requests apart.
#[derive(Clone, Copy, Debug)]
pub struct Spender<'a> {
    /// The tenant.
    pub workspace: &'a WorkspaceId,
    /// The gateway key.
    pub key: &'a KeyId,
    /// The key's environment.
    pub environment: &'a str,
    /// The actor, as signed or as the key fixes it.
    pub actor: &'a Actor,
}

impl<'a> Spender<'a> {
    /// The spender's value in a dimension; `None` where nobody vouches for one.
    pub fn value(&self, dimension: Dimension) -> Option<&'a str> {
        let actor = self.actor;
        match dimension {
            Dimension::Workspace => Some(self.workspace.as_str()),
            Dimension::Key => Some(self.key.as_str()),
            Dimension::Team => actor.team.as_deref(),
            Dimension::App => actor.app.as_deref(),
            Dimension::Feature => actor.feature.as_deref(),
            Dimension::Agent => actor.agent.as_deref(),
            Dimension::User => actor.user.as_deref(),
            Dimension::Customer => actor.customer.as_deref(),
            Dimension::Environment => actor.environment.as_deref().or(Some(self.environment)),
        }
    }
}

/// What a request would set aside, as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Money at the worst case.
    pub worst: Usd,
    /// Money that it is expected to cost; at most the worst case.
    pub expected: Usd,
    /// Tokens.
    pub tokens: u64,
}

impl BudgetTerms {
    /// The value that a request counts under; `None` when this budget does not apply to it.
    pub fn applies_to<'a>(&self, spender: &Spender<'a>) -> Option<&'a str> {
        let value = spender.value(self.scope.dimension)?;
        self.scope.covers(value).then_some(value)
    }

    /// Whether this budget can apply to any request of a key that fixes `actor`: a token may add to what the key fixes,
    /// and overrides nothing but the environment.
    pub fn may_apply_to(&self, key: &str, actor: &Actor) -> bool {
        let fixed = match self.scope.dimension {
            Dimension::Workspace => return true,
            Dimension::Key => Some(key),
            Dimension::Team => actor.team.as_deref(),
            Dimension::App => actor.app.as_deref(),
            Dimension::Feature => actor.feature.as_deref(),
            Dimension::Agent => actor.agent.as_deref(),
            Dimension::User => actor.user.as_deref(),
            Dimension::Customer => actor.customer.as_deref(),
            Dimension::Environment => actor.environment.as_deref(),
        };
        fixed.is_none_or(|fixed| self.scope.covers(fixed))
    }

    /// Whether both count what this value spends on the same line of the same account: then a change from one to the other
    /// goes on with the count that there is. A budget without a limit counts no money. A time zone only moves the ends of
    /// windows, not what they are called.
    pub fn counts_as(&self, other: &Self, value: &str) -> bool {
        let line = |terms: &Self| {
            let begins =
                (terms.window == Window::FiscalMonth).then_some(terms.fiscal_month_start_day);
            (terms.scope.dimension, terms.window, begins, terms.limit_usd.is_some())
        };
        self.scope.covers(value) && other.scope.covers(value) && line(self) == line(other)
    }

    /// The calendar of its windows.
    pub fn calendar(&self) -> Calendar {
        Calendar::new(
            self.time_zone.clone(),
            self.fiscal_month_start_day.clamp(1, LAST_FISCAL_START),
        )
    }

    /// The limit at a moment: a raise counts while it lasts, and never lowers.
    pub fn limit_at(&self, at: Timestamp) -> Option<Usd> {
        let limit = self.limit_usd?;
        let raised = self.raise.as_ref().filter(|raise| at < raise.until);
        Some(raised.map_or(limit, |raise| raise.limit_usd.max(limit)))
    }

    /// How far what is finally spent can pass the limit, at most. Nothing in mode `strict`.
    pub fn overshoot(&self) -> Usd {
        match self.mode {
            Mode::Strict => Usd::ZERO,
            Mode::Expected => self.max_overshoot_usd.or(self.limit_usd).unwrap_or(Usd::ZERO),
        }
    }

    /// The line of its money in the window of this moment.
    pub fn money_line(&self, at: Timestamp) -> String {
        format!("usd:{}", self.calendar().key(self.window, at))
    }

    /// Every line that counts money spent at `at`.
    pub fn money_lines(&self, at: Timestamp) -> Vec<String> {
        let window = self.calendar().key(self.window, at);
        match self.mode {
            Mode::Strict => vec![format!("usd:{window}")],
            Mode::Expected => vec![format!("usd:{window}"), format!("worst:{window}")],
        }
    }

    /// What a request admitted at `at` takes of each line of this budget's account.
    pub fn needs(&self, account: &str, wanted: &Wanted, at: Timestamp) -> Vec<Need> {
        let mut needs = Vec::with_capacity(2);
        let mut push = |line: String, units: Units| {
            needs.push(Need { account: account.to_owned(), line, units });
        };
        if self.limit_usd.is_some() {
            let window = self.calendar().key(self.window, at);
            let worst = money_units(wanted.worst);
            match self.mode {
                Mode::Strict => push(format!("usd:{window}"), worst),
                Mode::Expected => {
                    push(format!("usd:{window}"), money_units(wanted.expected).min(worst));
                    push(format!("worst:{window}"), worst);
                }
            }
        }
        if self.requests_per_minute.is_some() {
            push("requests".to_owned(), 1);
        }
        if let Some(limit) = self.tokens_per_minute {
            // A request that may be larger than a whole minute's tokens passes alone, when nothing else was used.
            push("tokens".to_owned(), Units::try_from(wanted.tokens.min(limit)).unwrap_or(0));
        }
        if self.max_concurrency.is_some() {
            push("slots".to_owned(), 1);
        }
        needs
    }

    /// What a line may give now. A line that these terms do not have gives nothing more.
    pub fn pool(&self, line: &str, now: Timestamp) -> Pool {
        let limit = self.limit_at(now).unwrap_or(Usd::ZERO);
        let cap = |limit: Usd| Pool::Cap { limit: floor_units(limit) };
        match LineKind::of(line) {
            Some(LineKind::Money) => cap(limit),
            Some(LineKind::Worst) => cap(limit.saturating_add(self.overshoot())),
            Some(LineKind::Requests) => {
                Pool::Rate { per_minute: self.requests_per_minute.unwrap_or(0) }
            }
            Some(LineKind::Tokens) => {
                Pool::Rate { per_minute: self.tokens_per_minute.unwrap_or(0) }
            }
            Some(LineKind::Slots) => Pool::Cap {
                limit: Units::try_from(self.max_concurrency.unwrap_or(0)).unwrap_or(Units::MAX),
            },
            None => Pool::Cap { limit: 0 },
        }
    }
}

/// Whole nanodollars of a cap, rounded down: a cap never allows more than it says.
fn floor_units(limit: Usd) -> Units {
    Units::try_from(limit.pico().div_euclid(crate::money::PICO_PER_NANO)).unwrap_or(Units::MAX)
}

/// What a line counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// Money.
    Money,
    /// Money at the worst case.
    Worst,
    /// Requests a minute.
    Requests,
    /// Tokens a minute.
    Tokens,
    /// Requests in flight.
    Slots,
}

impl LineKind {
    /// The kind of a line, by its name.
    pub fn of(line: &str) -> Option<Self> {
        match line.split_once(':').map_or(line, |(kind, _)| kind) {
            "usd" => Some(Self::Money),
            "worst" => Some(Self::Worst),
            "requests" => Some(Self::Requests),
            "tokens" => Some(Self::Tokens),
            "slots" => Some(Self::Slots),
            _ => None,
        }
    }

    /// Whether a line counts money: its books outlive every restart. The others drain by themselves, and each
    /// incarnation of a holder counts them anew.
    pub fn is_money(self) -> bool {
        matches!(self, Self::Money | Self::Worst)
    }
}

/// The name of the account in which a budget counts one value of its scope. It is also the Budget object's name.
pub fn account_name(workspace: &WorkspaceId, budget: &str, value: &str) -> String {
    format!("{}/{budget}/{value}", workspace.as_str())
}

/// The parts of an account's name: workspace, budget, value.
pub fn account_parts(account: &str) -> Option<(&str, &str, &str)> {
    let (workspace, rest) = account.split_once('/')?;
    let (budget, value) = rest.split_once('/')?;
    Some((workspace, budget, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(json: serde_json::Value) -> BudgetTerms {
        serde_json::from_value(json).unwrap()
    }

    fn spender<'a>(workspace: &'a WorkspaceId, key: &'a KeyId, actor: &'a Actor) -> Spender<'a> {
        Spender { workspace, key, environment: "production", actor }
    }

    #[test]
    fn the_least_that_must_be_said_is_a_scope_an_owner_and_a_limit() {
        let budget = terms(serde_json::json!({
            "scope": { "dimension": "workspace" }, "owner": "finance", "limit_usd": "100"
        }));
        assert_eq!(budget.window, Window::Month);
        assert_eq!(budget.mode, Mode::Strict);
        assert_eq!(budget.at_cap.action, CapAction::Block);
        assert_eq!(budget.thresholds, vec![50, 80, 100]);
        assert_eq!(budget.overshoot(), Usd::ZERO);
    }

    #[test]
    fn whom_when_and_whether_money_is_counted_make_a_count_and_the_limit_does_not() {
        let base = serde_json::json!({
            "scope": { "dimension": "team", "value": "*" }, "owner": "finance", "limit_usd": "100" });
        let with = |field: &str, value: serde_json::Value| {
            let mut changed = base.clone();
            changed[field] = value;
            terms(changed).counts_as(&terms(base.clone()), "ads")
        };
        let scope = |dimension: &str, value: &str| serde_json::json!({ "dimension": dimension, "value": value });
        let others = [
            with("scope", scope("team", "search")),
            with("scope", scope("user", "*")),
            with("window", "week".into()),
            with("window", "fiscal_month".into()),
            with("limit_usd", serde_json::Value::Null),
        ];
        assert_eq!(others, [false; 5]);
        let same = [
            with("limit_usd", "7".into()),
            with("owner", "ann".into()),
            with("scope", scope("team", "ads")),
            with("time_zone", "Europe/Berlin".into()),
            with("fiscal_month_start_day", 4.into()),
        ];
        assert_eq!(same, [true; 5]);
        let fiscal = |day: u8| {
            let mut fiscal = base.clone();
            fiscal["window"] = "fiscal_month".into();
            fiscal["fiscal_month_start_day"] = day.into();
            terms(fiscal)
        };
        assert!(!fiscal(4).counts_as(&fiscal(5), "ads"));
    }

    #[test]
    fn a_budget_applies_to_the_value_it_names_and_star_to_each() {
        let (workspace, key) =
            (WorkspaceId::parse("ws_a").unwrap(), KeyId::parse("0123456789abcdef").unwrap());
        let actor = Actor { team: Some("search".into()), ..Actor::default() };
        let who = spender(&workspace, &key, &actor);
        let of = |dimension: &str, value: &str| {
            terms(serde_json::json!({
                "scope": { "dimension": dimension, "value": value }, "owner": "o", "limit_usd": "1"
            }))
        };
        assert_eq!(of("team", "search").applies_to(&who), Some("search"));
        assert_eq!(of("team", "*").applies_to(&who), Some("search"));
        assert_eq!(of("team", "ads").applies_to(&who), None);
        assert_eq!(of("user", "*").applies_to(&who), None);
        assert_eq!(of("workspace", "*").applies_to(&who), Some("ws_a"));
        assert_eq!(of("environment", "*").applies_to(&who), Some("production"));
        assert_eq!(of("key", "*").applies_to(&who), Some("0123456789abcdef"));
        // What the key fixes cannot be overridden; what it leaves open can be signed.
        assert!(!of("team", "ads").may_apply_to("0123456789abcdef", &actor));
        assert!(of("user", "ann").may_apply_to("0123456789abcdef", &actor));
        assert!(!of("key", "ffff").may_apply_to("0123456789abcdef", &actor));
    }

    #[test]
    fn a_raise_counts_while_it_lasts_and_never_lowers() {
        let budget = terms(serde_json::json!({
            "scope": { "dimension": "workspace" }, "owner": "o", "limit_usd": "10",
            "raise": { "limit_usd": "15", "until": "2026-11-21T00:00:00Z", "reason": "launch" }
        }));
        let at = |text| Timestamp::parse(text).unwrap();
        let usd = |text: &str| text.parse::<Usd>().unwrap();
        assert_eq!(budget.limit_at(at("2026-11-20T23:59:59Z")), Some(usd("15")));
        assert_eq!(budget.limit_at(at("2026-11-21T00:00:00Z")), Some(usd("10")));
        let raise = budget.raise.clone().map(|raise| Raise { limit_usd: usd("5"), ..raise });
        let low = BudgetTerms { raise, ..budget };
        assert_eq!(low.limit_at(at("2026-11-20T00:00:00Z")), Some(usd("10")));
    }

    #[test]
    fn a_request_takes_of_each_line_that_the_terms_have() {
        let budget = terms(serde_json::json!({
            "scope": { "dimension": "workspace" }, "owner": "o", "limit_usd": "10", "window": "day",
            "mode": "expected", "max_overshoot_usd": "2", "requests_per_minute": 60,
            "tokens_per_minute": 100, "max_concurrency": 3
        }));
        let now = Timestamp::parse("2026-11-20T12:00:00Z").unwrap();
        let wanted =
            Wanted { worst: "0.5".parse().unwrap(), expected: "0.1".parse().unwrap(), tokens: 500 };
        let needs = budget.needs("ws_a/b/ws_a", &wanted, now);
        let lines: Vec<(&str, Units)> = needs.iter().map(|n| (n.line.as_str(), n.units)).collect();
        assert_eq!(
            lines,
            vec![
                ("usd:day:2026-11-20", 100_000_000),
                ("worst:day:2026-11-20", 500_000_000),
                ("requests", 1),
                ("tokens", 100),
                ("slots", 1),
            ]
        );
        assert_eq!(budget.pool("usd:day:2026-11-20", now), Pool::Cap { limit: 10_000_000_000 });
        assert_eq!(budget.pool("worst:day:2026-11-20", now), Pool::Cap { limit: 12_000_000_000 });
        assert_eq!(budget.pool("requests", now), Pool::Rate { per_minute: 60 });
        assert_eq!(budget.pool("slots", now), Pool::Cap { limit: 3 });
        assert_eq!(budget.pool("unknown", now), Pool::Cap { limit: 0 });
    }

    #[test]
    fn an_account_name_comes_apart_again_whatever_the_value() {
        let workspace = WorkspaceId::parse("ws_a").unwrap();
        let name = account_name(&workspace, "teams", "a/b");
        assert_eq!(account_parts(&name), Some(("ws_a", "teams", "a/b")));
        assert_eq!(account_parts("nothing"), None);
    }
}
