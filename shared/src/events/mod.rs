//! What happened: the record of each request, and of what became of it.

pub mod decision;
pub mod outcome;
pub mod usage_event;
