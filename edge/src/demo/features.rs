//! Who asks for what in a demo: six teams with twenty features, each with its model, its size and its rhythm.

/// One feature of an application.
pub(super) struct Feature {
    pub(super) team: &'static str,
    pub(super) app: &'static str,
    pub(super) name: &'static str,
    /// The agent that asks, where it is one.
    pub(super) agent: Option<&'static str>,
    /// It is done for customers.
    pub(super) customers: bool,
    /// Conversations: each turn sends all turns before it.
    pub(super) chat: bool,
    pub(super) provider: &'static str,
    pub(super) model: &'static str,
    /// Tokens of a usual request.
    pub(super) input: u64,
    pub(super) output: u64,
    /// How much of the input usually comes from a cache, in percent.
    pub(super) cached: u64,
    /// Requests on a usual working day at the month's beginning.
    pub(super) daily: u64,
}

const fn feature(
    team: &'static str,
    app: &'static str,
    name: &'static str,
    (provider, model): (&'static str, &'static str),
    (input, output, cached): (u64, u64, u64),
    daily: u64,
) -> Feature {
    let (agent, customers, chat) = (None, false, false);
    Feature {
        team,
        app,
        name,
        agent,
        customers,
        chat,
        provider,
        model,
        input,
        output,
        cached,
        daily,
    }
}

impl Feature {
    const fn by(self, agent: &'static str) -> Self {
        Self { agent: Some(agent), ..self }
    }

    const fn for_customers(self) -> Self {
        Self { customers: true, ..self }
    }

    const fn in_turns(self) -> Self {
        Self { chat: true, ..self }
    }
}

const LUNA: (&str, &str) = ("openai", "gpt-6-luna");
const SOL: (&str, &str) = ("openai", "gpt-6-sol");
const ASTRA: (&str, &str) = ("openai", "gpt-6-astra");
const SONNET: (&str, &str) = ("anthropic", "claude-sonnet-5-5");
const OPUS: (&str, &str) = ("anthropic", "claude-opus-5-5");
const HAIKU: (&str, &str) = ("anthropic", "claude-haiku-5-5");
const LARGE: (&str, &str) = ("mistral", "mistral-large-4");
const SMALL: (&str, &str) = ("mistral", "mistral-small-2603");

/// The features.
pub(super) const FEATURES: [Feature; 20] = [
    feature("support", "helpdesk", "reply-draft", SONNET, (2_400, 380, 55), 70).for_customers(),
    feature("support", "helpdesk", "live-chat", SONNET, (900, 220, 40), 60)
        .for_customers()
        .in_turns(),
    feature("support", "helpdesk", "triage", HAIKU, (700, 40, 30), 80).for_customers(),
    feature("support", "helpdesk", "summary", LUNA, (5_200, 260, 0), 25),
    feature("search", "website", "answers", LUNA, (3_100, 240, 35), 95),
    feature("search", "website", "query-rewrite", SMALL, (240, 60, 0), 60),
    feature("search", "website", "product-tagging", LUNA, (600, 80, 20), 40),
    feature("sales", "crm", "call-notes", SOL, (9_000, 700, 0), 16).for_customers(),
    feature("sales", "crm", "mail-draft", LARGE, (1_300, 420, 10), 24).for_customers(),
    feature("sales", "crm", "lead-research", OPUS, (16_000, 1_500, 60), 8).by("researcher"),
    feature("data", "warehouse", "sql-assistant", SONNET, (3_800, 420, 70), 26).in_turns(),
    feature("data", "warehouse", "report-writer", SOL, (12_000, 2_200, 15), 9),
    feature("data", "pipelines", "document-extraction", SOL, (22_000, 900, 0), 14).for_customers(),
    feature("data", "pipelines", "classification", SMALL, (420, 12, 0), 45),
    feature("platform", "ide", "code-completion", HAIKU, (2_600, 160, 65), 70),
    feature("platform", "ide", "code-review", OPUS, (14_000, 1_300, 50), 10).by("reviewer"),
    feature("platform", "ci", "test-repair", SONNET, (18_000, 1_600, 75), 12).by("fixer"),
    feature("growth", "campaigns", "ad-copy", LARGE, (800, 700, 0), 18),
    feature("growth", "campaigns", "translation", LUNA, (1_500, 1_600, 0), 28),
    feature("growth", "studio", "strategy-review", ASTRA, (8_000, 2_400, 0), 3),
];

/// For whom it is done.
pub(super) const CUSTOMERS: [&str; 8] =
    ["acme", "borealis", "cobalt", "delmar", "eastwick", "fjord", "granite", "harbour"];
/// Requests in each hour of a working day, in parts.
pub(super) const HOURS: [u64; 24] =
    [2, 1, 1, 1, 1, 2, 4, 8, 14, 19, 20, 18, 14, 17, 19, 18, 16, 12, 8, 6, 5, 4, 3, 2];
