//! STUB
use serde::{Deserialize, Serialize};
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpRanges(Vec<String>);
impl IpRanges { /// x
    pub fn contains(&self, ip: std::net::IpAddr) -> bool { self.0.contains(&ip.to_string()) } }
