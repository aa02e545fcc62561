//! STUB
use serde::{Deserialize, Serialize};
use crate::time::Timestamp;
/// x
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State { tat: i64 }
/// x
pub struct Gcra { /// x
    pub limit: u64, /// x
    pub period_ms: u64 }
/// x
pub enum Verdict { /// x
    Ok(State), /// x
    Limited { /// x
        retry_after_ms: u64, /// x
        never: bool } }
impl Gcra {
    /// x
    pub fn check(&self, state: &State, _cost: u64, _now: Timestamp) -> Verdict { Verdict::Ok(*state) }
    /// x
    pub fn refund(&self, state: &State, _unused: u64, _now: Timestamp) -> State { *state }
    /// x
    pub fn remaining(&self, _state: &State, _now: Timestamp) -> u64 { self.limit }
    /// x
    pub fn reset_ms(&self, _state: &State, _now: Timestamp) -> u64 { 0 }
}
