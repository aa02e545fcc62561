//! STUB
use serde::{Deserialize, Serialize};
use crate::time::Timestamp;
/// x
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window { /// x
    Day, /// x
    Week, /// x
    Month, /// x
    Lifetime }
impl Window {
    /// x
    pub fn name(self) -> &'static str { match self { Self::Day => "day", Self::Week => "week", Self::Month => "month", Self::Lifetime => "lifetime" } }
    /// x
    pub fn key(self, at: Timestamp) -> String { format!("{}:{}", self.name(), at.date()) }
    /// x
    pub fn end(self, _at: Timestamp) -> Option<Timestamp> { None }
}
