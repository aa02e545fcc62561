//! A review's sentences: questions chosen by the dominant cause, and the review as Markdown and for Slack.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decompose::Cause;
use super::dollars;
use super::review::{Change, NearCap, OutcomeCost, Review, Sides};
use super::traffic::Traffic;
use crate::alerts::detect::BudgetSnapshot;
use crate::money::{Usd, div_half_even};

/// Sections of a Slack message have room for 3,000 characters.
const SLACK_TEXT_MAX: usize = 2_900;

fn called(name: &str) -> &str {
    if name.is_empty() { "what names none" } else { name }
}

/// What to ask about a change: about its largest cause, with its figures.
pub(super) fn question(name: &str, change: &Change, sides: &Sides<'_>) -> String {
    let name = called(name);
    let [before, after] = sides;
    let (was, is) = (dollars(change.before_usd), dollars(change.after_usd));
    if change.requests_before == 0 {
        return format!(
            "{name} is new this week at {is}: who expects it, and which budget is it in?"
        );
    }
    if change.requests_after == 0 {
        return format!("{name} cost {was} and nothing this week: is it switched off for good?");
    }
    let effects = change.effects;
    let part = |amount: Usd| dollars(amount);
    match effects.dominant() {
        Cause::Volume => format!(
            "{name}: requests went from {} to {} ({} of the change): was that expected, and will it last?",
            change.requests_before,
            change.requests_after,
            part(effects.volume_usd)
        ),
        Cause::Mix => {
            let (model, from, to) = largest_shift(before, after, change);
            format!(
                "{name}: {model} went from {from} % to {to} % of the requests ({} of the change): does this work need \
                 that model?",
                part(effects.mix_usd)
            )
        }
        Cause::Tokens => {
            let mean = |side: &BTreeMap<&str, Traffic>, requests: u64| {
                let tokens: u64 = side.values().map(Traffic::tokens).fold(0, u64::saturating_add);
                tokens.checked_div(requests).unwrap_or(0)
            };
            format!(
                "{name}: a request used {} tokens and now uses {} ({} of the change): what makes prompts or answers \
                 longer, or keeps them from the cache?",
                mean(before, change.requests_before),
                mean(after, change.requests_after),
                part(effects.tokens_usd)
            )
        }
        Cause::Price => {
            let (way, size) = match effects.price_usd {
                less if less.is_negative() => ("less", Usd::from_pico(-less.pico())),
                more => ("more", more),
            };
            let size = dollars(size);
            format!(
                "{name}: the same tokens cost {size} {way} than a week ago: which price changed, and is it the agreed one?"
            )
        }
    }
}

/// The model whose share of the requests moved most, and that share in whole percent, before and after.
fn largest_shift<'a>(
    before: &BTreeMap<&'a str, Traffic>,
    after: &BTreeMap<&'a str, Traffic>,
    change: &Change,
) -> (&'a str, i128, i128) {
    let share = |side: &BTreeMap<&str, Traffic>, model: &str, all: u64| {
        let requests = side.get(model).map_or(0, |traffic| traffic.requests);
        div_half_even(i128::from(requests) * 100, i128::from(all.max(1)))
    };
    let shares = before.keys().chain(after.keys()).map(|model| {
        let from = share(before, model, change.requests_before);
        (*model, from, share(after, model, change.requests_after))
    });
    shares.max_by_key(|(_, from, to)| (to - from).abs()).unwrap_or(("", 0, 0))
}

pub(super) fn outcome_question(one: &OutcomeCost) -> String {
    let name = called(&one.feature);
    let cost = dollars(one.cost_usd);
    let left_out = match one.accepted_cost_unknown {
        0 => String::new(),
        unknown => format!(" (without {unknown} accepted whose cost is not known)"),
    };
    let Some(each) = one.per_accepted_usd else {
        if one.accepted > 0 {
            return format!("{name} cost {cost}{left_out}: what is missing?");
        }
        return format!(
            "{name} cost {cost} and none of its {} outcomes was accepted: what is missing?",
            one.rejected
        );
    };
    let before = one
        .per_accepted_before_usd
        .map_or(String::new(), |it| format!(", after {} the week before", dollars(it)));
    format!(
        "{name}: an accepted outcome cost {}{before}{left_out}; {} of {} were rejected: what would make the next one cheaper?",
        dollars(each),
        one.rejected,
        one.accepted.saturating_add(one.rejected)
    )
}

pub(super) fn new_question(dimension: &str, name: &str, charged: Usd) -> String {
    let cost = dollars(charged);
    match dimension {
        "key" => {
            format!("The key {name} was used for the first time and cost {cost}: what is it for?")
        }
        "model" => format!(
            "{name} was used for the first time and cost {cost}: who chose it, and by what test?"
        ),
        "feature" => {
            format!("The feature {name} is new and cost {cost}: what should it cost by the month?")
        }
        _ => format!("{name} spends for the first time, {cost}: which budget is that in?"),
    }
}

pub(super) fn cap_question(budget: &BudgetSnapshot) -> String {
    let left = budget.limit.remaining_after(budget.spent).remaining_after(budget.held);
    format!(
        "{} of {} are spent and {} left: is the limit right, or what should stop first?",
        dollars(budget.spent),
        dollars(budget.limit),
        dollars(left)
    )
}

/// Names come from callers: none may become a link, a heading or a command.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_control() {
            out.push(' ');
            continue;
        }
        if "\\`*_{}[]()<>#+!|~&@".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn causes(change: &Change) -> String {
    let parts = change
        .effects
        .named()
        .map(|(cause, amount)| format!("{} {}", cause.words(), signed(amount)));
    parts.join(", ")
}

fn signed(amount: Usd) -> String {
    let sign = if amount > Usd::ZERO { "+" } else { "" };
    format!("{sign}{}", dollars(amount))
}

fn moved(change: &Change) -> String {
    let (before, after) = (dollars(change.before_usd), dollars(change.after_usd));
    format!("{before} to {after} ({}): {}", signed(change.change_usd), causes(change))
}

pub(super) fn markdown(review: &Review, workspace: &str, dashboard: Option<&str>) -> String {
    let mut lines = vec![
        format!("# {} in {}", escape(workspace), review.week),
        String::new(),
        format!(
            "{} until before {}, UTC. In all {}.",
            review.from,
            review.to,
            moved(&review.total)
        ),
    ];
    if !review.complete {
        lines.push("The week is not over: it is compared with a whole one.".to_owned());
    }
    let mut section = |title: &str, entries: Vec<String>, none: &str| {
        lines.extend([String::new(), format!("## {title}"), String::new()]);
        if entries.is_empty() {
            lines.push(none.to_owned());
        }
        lines.extend(entries);
    };
    let movers = review.movers.iter().map(|it| {
        let to = asked(&it.owner);
        format!(
            "- {} **{}**: {}.\n  {to}{}",
            it.dimension,
            escape(called(&it.name)),
            moved(&it.change),
            escape(&it.question)
        )
    });
    section("Top movers", movers.collect(), "Nothing moved.");
    let outcomes = review.outcomes.iter().map(|it| {
        let none = if it.accepted == 0 { "none accepted" } else { "no known cost" };
        let each = it.per_accepted_usd.map_or_else(|| none.to_owned(), dollars);
        format!(
            "- **{}**: {each} for each accepted outcome, {} accepted, {} rejected. Its cost: {}.\n  {}{}",
            escape(called(&it.feature)),
            it.accepted,
            it.rejected,
            moved(&it.change),
            asked(&it.owner),
            escape(&it.question)
        )
    });
    section("Worst cost per outcome", outcomes.collect(), "No outcome was reported.");
    let new = review.new.iter().map(|it| {
        let name = escape(&it.name);
        format!(
            "- {} **{name}**, since {}.\n  {}",
            it.dimension,
            it.first_seen,
            escape(&it.question)
        )
    });
    section("New", new.collect(), "Nothing new.");
    section(
        "Near the cap",
        review.near_cap.iter().map(near).collect(),
        "No budget is near its cap.",
    );
    lines.extend([String::new(), format!("Method: {}", review.method)]);
    if let Some(dashboard) = dashboard {
        let link = format!("{}/review?week={}", dashboard.trim_end_matches('/'), review.week);
        lines.extend([String::new(), format!("[Open the review]({link})")]);
    }
    lines.push(String::new());
    lines.join("\n")
}

fn asked(owner: &str) -> String {
    if owner.is_empty() { String::new() } else { format!("To {}: ", escape(owner)) }
}

fn near(it: &NearCap) -> String {
    let value =
        if it.value.is_empty() { String::new() } else { format!(" ({})", escape(&it.value)) };
    let change =
        it.change.as_ref().map_or(String::new(), |change| format!(" Its cost: {}.", moved(change)));
    let name = escape(&it.budget);
    format!(
        "- **{name}**{value}: {} %.{change}\n  {}{}",
        it.percent,
        asked(&it.owner),
        escape(&it.question)
    )
}

/// The week in a few lines, and where the rest is.
pub(super) fn slack_body(review: &Review, workspace: &str, dashboard: Option<&str>) -> String {
    let plain = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let head = format!("{workspace} in {}: {}", review.week, moved(&review.total));
    let movers = review.movers.iter().map(|it| format!("• {}", it.question));
    let outcomes = review.outcomes.iter().take(2).map(|it| format!("• {}", it.question));
    let near = review
        .near_cap
        .iter()
        .take(5)
        .map(|it| format!("• {} {}: {}", it.budget, it.value, it.question));
    let mut text: String = movers.chain(outcomes).chain(near).collect::<Vec<_>>().join("\n");
    if text.chars().count() > SLACK_TEXT_MAX / 2 {
        text = text.chars().take(SLACK_TEXT_MAX / 2).chain("…".chars()).collect();
    }
    let section =
        |text: &str| json!({ "type": "section", "text": { "type": "mrkdwn", "text": text } });
    let mut blocks: Vec<Value> = vec![section(&format!("*{}*", plain(&head)))];
    if !text.is_empty() {
        blocks.push(section(&plain(&text)));
    }
    if let Some(dashboard) = dashboard {
        let link = format!("{}/review?week={}", dashboard.trim_end_matches('/'), review.week);
        blocks.push(section(&format!("<{}|Open the review>", plain(&link))));
    }
    json!({ "text": plain(&head), "blocks": blocks }).to_string()
}
