//! May it: the plan of a key, the parts of its rules, the decision, and the reasons to refuse.

pub mod decide;
pub mod globs;
pub mod ip_ranges;
pub mod key_plan;
pub mod refusal;
