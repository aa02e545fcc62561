//! STUB
use serde::{Deserialize, Serialize};
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRules { /// x
    pub allow: Vec<String>, /// x
    pub deny: Vec<String> }
impl ModelRules {
    /// x
    pub fn denied_by(&self, model: &str) -> Option<&str> { self.deny.iter().find(|p| *p == model).map(|s| s.as_str()) }
    /// x
    pub fn allows(&self, model: &str) -> bool { self.allow.is_empty() || self.allow.iter().any(|p| p == model) }
}
