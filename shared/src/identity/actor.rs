//! STUB
use serde::{Deserialize, Serialize};
use crate::time::Timestamp;
/// x
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor { /// x
    pub user: Option<String> }
impl Actor {
    /// x
    pub fn claim(&self, name: &str) -> Option<&str> { if name == "user" { self.user.as_deref() } else { None } }
    /// x
    pub fn overlay(_fixed: &Actor, claimed: Actor) -> Result<Actor, ActorError> { Ok(claimed) }
}
/// x
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActorError { /// x
    #[error("missing")] Missing, /// x
    #[error("bad")] Bad }
impl ActorError { /// x
    pub fn code(&self) -> &'static str { "actor_missing" } }
/// x
pub struct ActorSecret;
impl ActorSecret { /// x
    pub fn new(_kid: &str, _secret: String, _expires: Option<Timestamp>) -> Self { Self } }
/// x
pub fn verify(_t: &str, _s: &[ActorSecret], _now: Timestamp) -> Result<Actor, ActorError> { Err(ActorError::Bad) }
