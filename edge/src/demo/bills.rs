//! What a demo's bills say: mostly what was estimated, and sometimes not, as bills do.

use std::collections::BTreeMap;

use tallygate_shared::alerts::alert::Severity;
use tallygate_shared::events::usage_event::UsageEvent;
use tallygate_shared::feedback::{FindingKind, ReconcilerFinding, TrueUp};
use tallygate_shared::money::Usd;
use tallygate_shared::reconciliation_run::{ReconciliationRun, RunProvider, RunStatus};
use tallygate_shared::time::DAY_MS;

use super::{DAYS, Demo};

/// From this day on a provider bills a model dearer than the price book has it.
const PRICE_DAY: u32 = 16;
/// Somebody uses a key of a provider that the gateway does not hold, on these days.
const LEAK_DAYS: std::ops::Range<u32> = 11..15;
/// A night that found a provider down.
const DARK_DAY: u32 = 9;
/// Days whose bills may still change.
const PROVISIONAL_DAYS: u32 = 6;
/// Who uses a key that the gateway does not hold.
const STRANGER: &str = "sk-...kq7d";

type Group = (String, String, BTreeMap<String, String>);

/// A line for each provider, model and owner of a day, and what bills have beside use.
pub(super) fn true_ups(demo: &Demo, day: u32, events: &[UsageEvent]) -> Vec<TrueUp> {
    let mut groups: BTreeMap<Group, Usd> = BTreeMap::new();
    for event in events.iter().filter(|event| event.charged != Usd::ZERO) {
        let (Some(provider), Some(model)) = (&event.provider, &event.model) else { continue };
        let sum = groups.entry((provider.clone(), model.clone(), owner_of(event))).or_default();
        *sum = sum.saturating_add(event.charged);
    }
    let line = |name: String, provider: &str, model: &str, kind: &str| TrueUp {
        day: demo.date(day).to_string(),
        provider: provider.to_owned(),
        line: name,
        revision: 1,
        model: model.to_owned(),
        meter: "whole".to_owned(),
        kind: kind.to_owned(),
        owner: BTreeMap::new(),
        estimated: Usd::ZERO,
        billed: None,
        quantity_variance: Usd::ZERO,
        price_variance: Usd::ZERO,
        provisional: day + PROVISIONAL_DAYS >= DAYS,
    };
    let mut lines = Vec::new();
    let mut all: BTreeMap<String, i128> = BTreeMap::new();
    for (place, ((provider, model, owner), estimated)) in groups.into_iter().enumerate() {
        let pico = estimated.pico();
        // Two parts in a thousand more tokens than were counted, and once a price that is not ours.
        let quantity = if place.is_multiple_of(3) { pico / 500 } else { 0 };
        let price = if model == "gpt-6-luna" && day >= PRICE_DAY { pico / 5 } else { 0 };
        let billed = pico + quantity + price;
        *all.entry(provider.clone()).or_default() += billed;
        lines.push(TrueUp {
            owner,
            estimated,
            billed: Some(Usd::from_pico(billed)),
            quantity_variance: Usd::from_pico(quantity),
            price_variance: Usd::from_pico(price),
            ..line(place.to_string(), &provider, &model, "usage")
        });
    }
    let extra = |lines: &mut Vec<TrueUp>, it: TrueUp, pico: i128| {
        let amount = Usd::from_pico(pico);
        lines.push(TrueUp { billed: Some(amount), quantity_variance: amount, ..it });
    };
    for (provider, billed) in &all {
        extra(&mut lines, line("tax".to_owned(), provider, "", "tax"), billed / 20);
        if provider == "openai" {
            extra(&mut lines, line("credit".to_owned(), provider, "", "credit"), -billed / 25);
        }
        if provider == "anthropic" && LEAK_DAYS.contains(&day) {
            let mut leaked = line("leak".to_owned(), provider, "claude-opus-5-5", "usage");
            leaked.owner.insert("unmetered".to_owned(), STRANGER.to_owned());
            extra(&mut lines, leaked, billed / 8);
        }
    }
    lines
}

fn owner_of(event: &UsageEvent) -> BTreeMap<String, String> {
    let actor = &event.actor;
    let values = [
        ("key", Some(event.key.as_str())),
        ("owner", Some(event.owner.as_str())),
        ("cost_centre", Some(event.cost_centre.as_str())),
        ("environment", Some(event.environment.as_str())),
        ("team", actor.team.as_deref()),
        ("app", actor.app.as_deref()),
        ("feature", actor.feature.as_deref()),
        ("agent", actor.agent.as_deref()),
        ("customer", actor.customer.as_deref()),
    ];
    let known =
        values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    known.collect()
}

/// What the reconciler told people of a day.
pub(super) fn findings(demo: &Demo, day: u32) -> Vec<ReconcilerFinding> {
    let date = demo.date(day).to_string();
    let finding = |kind, severity, subject: String, title: String| ReconcilerFinding {
        kind,
        subject,
        severity,
        title,
        owner: String::new(),
        evidence: BTreeMap::from([("day".to_owned(), date.clone())]),
        present: true,
    };
    let mut found = Vec::new();
    if day == LEAK_DAYS.start {
        found.push(finding(
            FindingKind::UnmeteredUsage,
            Severity::Critical,
            format!("anthropic {STRANGER}"),
            format!("The credential {STRANGER} is billed by anthropic and does not go through the gateway"),
        ));
        found.push(finding(
            FindingKind::UnknownCredential,
            Severity::Warning,
            STRANGER.to_owned(),
            format!("anthropic knows the key {STRANGER}, the gateway does not"),
        ));
    }
    if day == PRICE_DAY {
        found.push(finding(
            FindingKind::BillVariance,
            Severity::Warning,
            format!("openai {date}"),
            format!("openai billed gpt-6-luna a fifth dearer than estimated on {date}"),
        ));
    }
    found
}

/// How the night after a day ended.
pub(super) fn run(demo: &Demo, day: u32, lines: &[TrueUp]) -> ReconciliationRun {
    let (from, to) = (demo.date(day), demo.date(day + 1));
    let mut providers: BTreeMap<String, RunProvider> = BTreeMap::new();
    let add = |to: &mut Usd, amount: Usd| *to = to.saturating_add(amount);
    for line in lines {
        let it = providers.entry(line.provider.clone()).or_default();
        let billed = line.billed.unwrap_or_default();
        add(&mut it.estimated_usd, line.estimated);
        add(&mut it.estimated_of_billed_usd, line.estimated);
        add(&mut it.billed_usd, billed);
        add(&mut it.booked_usd, billed);
        add(&mut it.quantity_variance_usd, line.quantity_variance);
        add(&mut it.price_variance_usd, line.price_variance);
        if line.owner.contains_key("unmetered") {
            add(&mut it.unmetered_usd, billed);
        }
    }
    let dark = day == DARK_DAY;
    let missing =
        dark.then(|| ("mistral".to_owned(), "its cost report did not answer (503)".to_owned()));
    ReconciliationRun {
        run: format!("night-{to}"),
        ended_at: to.midnight().plus_ms(DAY_MS / 8 + i64::from(day) * 1_000),
        from: from.to_string(),
        to: to.to_string(),
        status: if dark { RunStatus::Partial } else { RunStatus::Complete },
        missing: missing.into_iter().collect(),
        held: Vec::new(),
        notes: Vec::new(),
        days_settled: 1,
        days_unchanged: 0,
        rows_written: u64::try_from(lines.len()).unwrap_or(0),
        providers,
        exports: Default::default(),
    }
}
