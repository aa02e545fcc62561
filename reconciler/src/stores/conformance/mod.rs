//! What the ports promise, put to the proof: one suite that every implementation passes, on any endpoint. It writes
//! below a `scope` of the caller's choice and assumes nothing of what else the store holds, so that it can be run
//! again against a store that lives on.

mod ledger;
mod objects;
mod runs;
#[cfg(test)]
mod tests;

pub use ledger::ledger;
pub use objects::objects;

use crate::ports::StoreError;

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken(pub String);

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}

/// What became of each check, by name.
#[derive(Debug, Default)]
pub struct Report {
    /// All checks, in the order they ran.
    pub checks: Vec<(&'static str, Result<(), Broken>)>,
}

impl Report {
    /// The checks that failed, with the reason.
    pub fn failures(&self) -> Vec<String> {
        let failed = |(name, outcome): &(&str, Result<(), Broken>)| {
            outcome.as_ref().err().map(|Broken(why)| format!("{name}: {why}"))
        };
        self.checks.iter().filter_map(failed).collect()
    }
}

/// Fails the check unless the condition holds.
macro_rules! hold {
    ($condition:expr, $($say:tt)+) => {
        if !$condition {
            return Err($crate::stores::conformance::Broken(format!($($say)+)));
        }
    };
}

/// Fails the check unless both are equal.
macro_rules! same {
    ($got:expr, $want:expr, $($say:tt)+) => {
        match (&$got, &$want) {
            (got, want) => {
                if got != want {
                    let what = format!($($say)+);
                    // A large value says no more than its beginning.
                    return Err($crate::stores::conformance::Broken(format!(
                        "{what}: got {:.800}, want {:.800}",
                        format!("{got:?}"),
                        format!("{want:?}"),
                    )));
                }
            }
        }
    };
}

/// Runs checks by name.
macro_rules! checks {
    ($bench:expr, [$($check:ident),+ $(,)?]) => {{
        let mut report = $crate::stores::conformance::Report::default();
        $(if $bench.only.is_none_or(|only| only == stringify!($check)) {
            report.checks.push((stringify!($check), $check($bench).await));
        })+
        report
    }};
}

use {checks, hold, same};
