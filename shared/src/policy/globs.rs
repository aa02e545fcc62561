//! Which models a key may use: patterns with `*` (any run of characters) and `?` (any one character).

use std::fmt;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

/// The longest pattern, in characters.
const PATTERN_MAX: usize = 256;
/// The longest model name that is looked at, in bytes. Matching costs pattern times name, and the name is a stranger's.
const MODEL_MAX: usize = 512;
/// What other pattern languages give a meaning. Taken as plain text, a rule that denies would silently deny nothing.
const FOREIGN: [char; 6] = ['[', ']', '{', '}', '!', '\\'];

/// A pattern for model names. Letters match in either case: some providers take names in any case, and a rule that
/// denies must not be passed by writing a name differently.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing to match.
    #[error("a model pattern must not be empty; \"*\" matches every model")]
    Empty,
    /// Longer than any model's name.
    #[error("a model pattern has at most 256 characters")]
    TooLong,
    /// White space or a control character: no model's name has one.
    #[error("the model pattern {pattern:?} has white space or a control character")]
    Blank {
        /// The pattern.
        pattern: String,
    },
    /// A sign of another pattern language.
    #[error("the model pattern {pattern:?} has {sign:?}: only * and ? are special here")]
    Foreign {
        /// The pattern.
        pattern: String,
        /// The sign.
        sign: char,
    },
}

impl Glob {
    /// Takes a pattern.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        Self::try_from(text.to_owned())
    }

    /// Whether the whole of `name` matches.
    pub fn matches(&self, name: &str) -> bool {
        WildMatch::new_case_insensitive(&self.0).matches(name)
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Glob {
    type Error = GlobError;

    fn try_from(pattern: String) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.chars().nth(PATTERN_MAX).is_some() {
            return Err(GlobError::TooLong);
        }
        if pattern.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(GlobError::Blank { pattern });
        }
        match pattern.chars().find(|c| FOREIGN.contains(c)) {
            Some(sign) => Err(GlobError::Foreign { pattern, sign }),
            None => Ok(Self(pattern)),
        }
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Allowed and denied models. What is denied is denied whatever is allowed; an empty `allow` allows the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ModelRules {
    /// Patterns of models that may be used; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<Glob>,
    /// Patterns of models that may not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<Glob>,
}

/// What the rules say about a model, and which pattern decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling<'a> {
    /// Allowed; by no pattern in particular when all are.
    Allowed {
        /// The pattern that allows it.
        by: Option<&'a Glob>,
    },
    /// Denied by a pattern.
    Denied {
        /// The pattern that denies it.
        by: &'a Glob,
    },
    /// In no pattern of those that are allowed.
    NotListed,
    /// No model has so long a name.
    NameTooLong,
}

impl Ruling<'_> {
    /// Whether the model may be used.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl ModelRules {
    /// What the rules say about a model, and which pattern decided.
    pub fn ruling(&self, model: &str) -> Ruling<'_> {
        if model.len() > MODEL_MAX {
            return Ruling::NameTooLong;
        }
        if let Some(by) = self.deny.iter().find(|glob| glob.matches(model)) {
            return Ruling::Denied { by };
        }
        match self.allow.iter().find(|glob| glob.matches(model)) {
            None if !self.allow.is_empty() => Ruling::NotListed,
            by => Ruling::Allowed { by },
        }
    }

    /// Whether the model may be used.
    pub fn allows(&self, model: &str) -> bool {
        self.ruling(model).is_allowed()
    }

    /// The pattern that denies the model, if one does: where a request names a model by an alias, a denial of either
    /// name counts, and an allowance of one is enough.
    pub fn denied_by(&self, model: &str) -> Option<&str> {
        match self.ruling(model) {
            Ruling::Denied { by } => Some(by.as_str()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(allow: &[&str], deny: &[&str]) -> ModelRules {
        let globs = |texts: &[&str]| texts.iter().map(|text| Glob::parse(text).unwrap()).collect();
        ModelRules { allow: globs(allow), deny: globs(deny) }
    }

    fn check(allow: &[&str], deny: &[&str], model: &str, expected: &str) {
        let rules = rules(allow, deny);
        let ruling = match rules.ruling(model) {
            Ruling::Allowed { by } => format!("allowed by {}", by.map_or("default", Glob::as_str)),
            Ruling::Denied { by } => format!("denied by {by}"),
            Ruling::NotListed => "not listed".to_owned(),
            Ruling::NameTooLong => "name too long".to_owned(),
        };
        assert_eq!(ruling, expected, "{model}");
    }

    #[test]
    fn denial_wins_and_the_deciding_pattern_is_named() {
        check(&[], &[], "gpt-5", "allowed by default");
        check(&["gpt-*"], &["*-pro", "gpt-5?pro"], "gpt-5-pro", "denied by *-pro");
        check(&["claude-*", "gpt-*"], &["*-pro"], "gpt-5", "allowed by gpt-*");
        check(&["claude-*"], &[], "gpt-5", "not listed");
        check(&[], &["gpt-?"], "gpt-5", "denied by gpt-?");
        check(&[], &["gpt-?"], "gpt-51", "allowed by default");
        check(&["*"], &["gpt-5"], "GPT-5", "denied by gpt-5");
        check(&["*"], &[], &"x".repeat(513), "name too long");
    }

    #[test]
    fn a_pattern_that_would_not_mean_what_it_says_is_refused() {
        let long = "a".repeat(257);
        for bad in ["", "gpt-[45]", "{a,b}", "!gpt", "a b", "a\n", "a\\*", &long] {
            assert!(Glob::parse(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<ModelRules>(r#"{"allow":["a[b"]}"#).is_err());
        assert!(serde_json::from_str::<ModelRules>(r#"{"allowed":["a"]}"#).is_err());
    }

    #[test]
    fn a_pattern_made_to_backtrack_is_answered_at_once() {
        let glob = Glob::parse(&format!("{}b", "*a".repeat(127))).unwrap();
        assert!(!glob.matches(&"a".repeat(MODEL_MAX)));
    }

    /// The definition of a match, slow and plain.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some((b'*', rest)), None) => defined(rest, name),
            (Some((b'*', rest)), Some((_, after))) => {
                defined(rest, name) || defined(pattern, after)
            }
            (Some(_), None) => false,
            (Some((p, rest)), Some((n, after))) => (*p == b'?' || p == n) && defined(rest, after),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_it_is_defined_as(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let expected = defined(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Glob::parse(&pattern).unwrap().matches(&name), expected);
        }

        #[test]
        fn nothing_panics(pattern in "\\PC{0,40}", name in "\\PC{0,40}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = glob.matches(&name);
            }
        }
    }
}
