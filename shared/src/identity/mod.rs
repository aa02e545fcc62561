//! WHO is asking. In the order of a request: the key (or, for administration, the token), then the actor behind it.
//!
//! - [`gateway_key`]: what an application holds
//! - [`api_token`]: what an administrator holds
//! - [`secret`]: what the two have in common, and the hash that is stored
//! - [`actor`]: who is behind the key's holder, and what the key itself fixes
//! - [`signature`]: how the reconciler signs its calls
//! - `jws`: the signed envelope of an actor token
//!
//! Nothing here looks anything up: a parsed key is well formed, not yet known.

pub mod actor;
pub mod api_token;
pub mod gateway_key;
mod jws;
pub mod secret;
pub mod signature;
