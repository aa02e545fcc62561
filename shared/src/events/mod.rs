//! What happened: the record of each request.

pub mod usage_event;
