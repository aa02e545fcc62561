//! One model, many names: what the price book, an answer and a bill call it, and which of them mean the same.

use std::collections::{BTreeMap, BTreeSet};

/// Regions that Bedrock puts before an inference profile's model.
const REGIONS: [&str; 9] =
    ["us.", "eu.", "apac.", "global.", "jp.", "au.", "ca.", "us-gov.", "sa."];
/// Vendors that Bedrock puts before a model.
const VENDORS: [&str; 14] = [
    "ai21.",
    "amazon.",
    "anthropic.",
    "cohere.",
    "deepseek.",
    "google.",
    "meta.",
    "minimax.",
    "mistral.",
    "moonshot.",
    "openai.",
    "qwen.",
    "writer.",
    "zai.",
];

/// A model's name without what tells snapshots, regions and spellings apart: `us.anthropic.claude-haiku-4-5-20251001-v1:0`
/// and `claude-haiku-4.5` are both `claude-haiku-4-5`. For names that do not match as they are; never for prices.
pub fn normal_form(name: &str) -> String {
    let lower = name.trim().to_ascii_lowercase();
    // `publishers/anthropic/models/x`, `openai/x`: the last part names the model.
    let mut rest = lower.rsplit('/').next().unwrap_or(&lower);
    for region in REGIONS {
        rest = rest.strip_prefix(region).unwrap_or(rest);
    }
    for vendor in VENDORS {
        rest = rest.strip_prefix(vendor).unwrap_or(rest);
    }
    // "Claude Sonnet 4.6 (Amazon Bedrock Edition)"
    let rest = rest.split(" (").next().unwrap_or(rest);
    let mut name: String =
        rest.chars().map(|c| if matches!(c, '.' | ' ' | '_') { '-' } else { c }).collect();
    while let Some(shorter) = without_ending(&name) {
        name = shorter;
    }
    name
}

/// The name without one ending that tells a snapshot. `None` when it has none.
fn without_ending(name: &str) -> Option<String> {
    for alias in ["-latest", "@latest", "@default"] {
        if let Some(rest) = name.strip_suffix(alias) {
            return some(rest);
        }
    }
    if let Some((rest, version)) = name.rsplit_once('@')
        && is_number(version, 8)
    {
        return some(rest);
    }
    // `-v1:0`, `-1:0`
    if let Some((rest, minor)) = name.rsplit_once(':')
        && !minor.is_empty()
        && minor.bytes().all(|b| b.is_ascii_digit())
        && let Some((rest, major)) = rest.rsplit_once('-')
    {
        let major = major.strip_prefix('v').unwrap_or(major);
        if !major.is_empty() && major.bytes().all(|b| b.is_ascii_digit()) {
            return some(rest);
        }
    }
    let (rest, last) = name.rsplit_once('-')?;
    // `-20250929`, `-2603`, `-002`
    if is_date(last) || is_year_month(last) || (is_number(last, 3) && last.starts_with("00")) {
        return some(rest);
    }
    let (rest, middle) = rest.rsplit_once('-')?;
    // `-08-2024`
    if is_month(middle) && is_year(last) {
        return some(rest);
    }
    let (rest, first) = rest.rsplit_once('-')?;
    // `-2024-08-06`
    (is_year(first) && is_month(middle) && is_number(last, 2)).then(|| rest.to_owned())
}

fn some(rest: &str) -> Option<String> {
    (!rest.is_empty()).then(|| rest.to_owned())
}

fn is_number(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_year(text: &str) -> bool {
    is_number(text, 4) && text.starts_with("20")
}

fn is_month(text: &str) -> bool {
    is_number(text, 2) && ("01"..="12").contains(&text)
}

fn is_date(text: &str) -> bool {
    is_number(text, 8) && text.starts_with("20")
}

/// `2603`, `0613`: year and month, or month and day, in four digits. Not a size such as `4096`.
fn is_year_month(text: &str) -> bool {
    let halves = text.get(..2).zip(text.get(2..));
    is_number(text, 4)
        && halves.is_some_and(|(first, second)| {
            ("20".."40").contains(&first) && is_month(second)
                || is_month(first) && ("01"..="31").contains(&second)
        })
}

/// Whether one of our names and one of theirs mean the same.
type Rule<'a> = dyn Fn(&str, &str) -> bool + 'a;

/// Which names mean the same model, as small numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    ours: BTreeMap<String, usize>,
    theirs: BTreeMap<String, usize>,
}

impl Classes {
    /// Matches the price book's names (`ours`, with the names that answers gave) with those of bills (`theirs`): by
    /// the name itself; else by an answer's name; else by the normal form. A name that fits several joins them: their
    /// sum is right, and a guess may not be.
    pub(super) fn new(
        ours: &BTreeSet<&str>,
        aliases: &BTreeMap<String, BTreeSet<String>>,
        theirs: &BTreeSet<&str>,
    ) -> Self {
        let (ours, theirs): (Vec<&str>, Vec<&str>) =
            (ours.iter().copied().collect(), theirs.iter().copied().collect());
        let answers = |our: &str| aliases.get(our).into_iter().flatten().map(String::as_str);
        let exact = |our: &str, their: &str| our == their;
        let answered = |our: &str, their: &str| answers(our).any(|name| name == their);
        let alike = |our: &str, their: &str| {
            let normal = normal_form(their);
            normal_form(our) == normal || answers(our).any(|name| normal_form(name) == normal)
        };
        let mut joined = Union::new(ours.len() + theirs.len());
        let mut matched = vec![false; ours.len() + theirs.len()];
        let rules: [&Rule<'_>; 3] = [&exact, &answered, &alike];
        for rule in rules {
            // Each rule is for the names, on either side, that no better rule has matched.
            let before = matched.clone();
            let is_matched = |at: usize| before.get(at).copied().unwrap_or(false);
            for (o, our) in ours.iter().enumerate() {
                for (t, their) in theirs.iter().enumerate() {
                    let t = ours.len() + t;
                    if (!is_matched(o) || !is_matched(t)) && rule(our, their) {
                        joined.join(o, t);
                        for at in [o, t] {
                            if let Some(flag) = matched.get_mut(at) {
                                *flag = true;
                            }
                        }
                    }
                }
            }
        }
        // A bill and a usage report may spell a model that the gateway never saw in two ways.
        let mut lone: BTreeMap<String, usize> = BTreeMap::new();
        for (t, their) in theirs.iter().enumerate() {
            let t = ours.len() + t;
            if !matched.get(t).copied().unwrap_or(false) {
                let first = *lone.entry(normal_form(their)).or_insert(t);
                joined.join(first, t);
            }
        }
        let mut class = |at: usize| joined.find(at);
        Self {
            ours: ours.iter().enumerate().map(|(o, n)| ((*n).to_owned(), class(o))).collect(),
            theirs: theirs
                .iter()
                .enumerate()
                .map(|(t, n)| ((*n).to_owned(), class(ours.len() + t)))
                .collect(),
        }
    }

    /// The class of a name of the price book.
    pub(super) fn ours(&self, name: &str) -> Option<usize> {
        self.ours.get(name).copied()
    }

    /// The class of a name of a bill.
    pub(super) fn theirs(&self, name: &str) -> Option<usize> {
        self.theirs.get(name).copied()
    }
}

/// Disjoint sets: each is named by its smallest member, whatever the order of joins.
#[derive(Clone, Debug)]
pub(super) struct Union {
    parents: Vec<usize>,
}

impl Union {
    pub(super) fn new(len: usize) -> Self {
        Self { parents: (0..len).collect() }
    }

    pub(super) fn find(&mut self, at: usize) -> usize {
        let mut root = at;
        while let Some(parent) = self.parents.get(root).copied().filter(|parent| *parent != root) {
            root = parent;
        }
        let mut next = at;
        while let Some(parent) = self.parents.get_mut(next).filter(|parent| **parent != root) {
            next = std::mem::replace(parent, root);
        }
        root
    }

    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if let Some(parent) = self.parents.get_mut(a.max(b)) {
            *parent = a.min(b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_their_normal_forms() {
        for (name, normal) in [
            ("gpt-4o", "gpt-4o"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            ("gpt-4-0613", "gpt-4"),
            ("gpt-5.1", "gpt-5-1"),
            ("openai/gpt-oss-120b", "gpt-oss-120b"),
            ("openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            ("claude-sonnet-5", "claude-sonnet-5"),
            ("claude-opus-4-8", "claude-opus-4-8"),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
            ("global.anthropic.claude-opus-5-5", "claude-opus-5-5"),
            ("Claude Sonnet 4.6 (Amazon Bedrock Edition)", "claude-sonnet-4-6"),
            ("anthropic/claude-haiku-4.5", "claude-haiku-4-5"),
            ("publishers/anthropic/models/claude-opus-5@default", "claude-opus-5"),
            ("amazon.nova-lite-v1:0", "nova-lite"),
            ("meta.llama4-scout-17b-instruct-v1:0", "llama4-scout-17b-instruct"),
            ("gemini-2.5-pro", "gemini-2-5-pro"),
            ("gemini-2.5-flash-002", "gemini-2-5-flash"),
            ("models/gemini-3.8-flash", "gemini-3-8-flash"),
            ("mistral-small-2603", "mistral-small"),
            ("devstral-medium-latest", "devstral-medium"),
            ("command-r-08-2024", "command-r"),
            ("sonar-deep-research", "sonar-deep-research"),
            // A variant with a price of its own stays apart, and a size is no date.
            ("deepseek/deepseek-v4:free", "deepseek-v4:free"),
            ("embed-4096", "embed-4096"),
            ("grok-4.7", "grok-4-7"),
            ("2024-08-06", "2024-08-06"),
            ("", ""),
        ] {
            assert_eq!(normal_form(name), normal, "{name}");
            assert_eq!(normal_form(normal), normal, "{name} again");
        }
    }

    /// The classes as text: members with `+` between them, theirs marked with `'`.
    fn classes(ours: &[&str], aliases: &[(&str, &str)], theirs: &[&str]) -> Vec<String> {
        let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (our, alias) in aliases {
            known.entry((*our).into()).or_default().insert((*alias).into());
        }
        let found = Classes::new(
            &ours.iter().copied().collect(),
            &known,
            &theirs.iter().copied().collect(),
        );
        let mut by_class: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (name, class) in &found.ours {
            by_class.entry(*class).or_default().push(name.clone());
        }
        for (name, class) in &found.theirs {
            by_class.entry(*class).or_default().push(format!("{name}'"));
        }
        by_class.into_values().map(|names| names.join("+")).collect()
    }

    #[test]
    fn the_best_rule_matches_and_doubt_joins() {
        assert_eq!(classes(&["a", "b"], &[], &["b", "c"]), ["a", "b+b'", "c'"]);
        assert_eq!(classes(&["gpt"], &[("gpt", "x")], &["x"]), ["gpt+x'"]);
        assert_eq!(classes(&["gpt"], &[], &["gpt-2024-08-06"]), ["gpt+gpt-2024-08-06'"]);
        // Two of theirs are one of ours.
        assert_eq!(
            classes(&["gpt"], &[], &["gpt-2024-05-13", "gpt-2024-08-06"]),
            ["gpt+gpt-2024-05-13'+gpt-2024-08-06'"]
        );
        // Each has its own: the answer's name joins nothing.
        assert_eq!(
            classes(
                &["gpt", "gpt-2024-08-06"],
                &[("gpt", "gpt-2024-08-06")],
                &["gpt", "gpt-2024-08-06"]
            ),
            ["gpt+gpt'", "gpt-2024-08-06+gpt-2024-08-06'"]
        );
        // The bill knows the snapshot only: it is both of ours.
        assert_eq!(
            classes(&["gpt", "gpt-2024-08-06"], &[("gpt", "gpt-2024-08-06")], &["gpt-2024-08-06"]),
            ["gpt+gpt-2024-08-06+gpt-2024-08-06'"]
        );
        // Unknown to us, spelled in two ways.
        assert_eq!(
            classes(&[], &[], &["Claude Opus 5", "claude-opus-5"]),
            ["Claude Opus 5'+claude-opus-5'"]
        );
    }

    proptest! {
        #[test]
        fn a_normal_form_is_its_own_and_is_never_lost(name in "[a-z0-9.:@/ -]{0,30}") {
            let normal = normal_form(&name);
            prop_assert_eq!(normal_form(&normal), normal);
        }

        /// Whatever the names: equal ones are one class, and the order of rules cannot lose one.
        #[test]
        fn every_name_has_a_class_and_equal_names_share_it(
            ours in prop::collection::btree_set("(us\\.)?[ab](-2024-08-06|-latest)?", 0..6),
            theirs in prop::collection::btree_set("[abc](-2024-08-06|-latest)?", 0..6),
        ) {
            let classes = Classes::new(
                &ours.iter().map(String::as_str).collect(),
                &BTreeMap::new(),
                &theirs.iter().map(String::as_str).collect(),
            );
            for name in &theirs {
                prop_assert!(classes.theirs(name).is_some());
                if ours.contains(name) {
                    prop_assert_eq!(classes.theirs(name), classes.ours(name));
                }
                // No name of theirs stays alone while one of ours that could be it does, too.
                let alone = |our: &&String| theirs.iter().all(|t| classes.theirs(t) != classes.ours(our));
                let mut unmatched = ours.iter().filter(alone);
                prop_assert!(unmatched.all(|our| normal_form(our) != normal_form(name)));
            }
        }
    }
}
