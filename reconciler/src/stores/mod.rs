//! The ports on local disk and on AWS. What one store takes and refuses the others do too: `names` says it for all of
//! them, and `conformance` holds them to it.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(any(test, feature = "test-support"))]
pub mod conformance;
#[cfg(feature = "aws")]
pub mod dynamodb;
pub mod local;
mod names;
pub mod raw;
#[cfg(feature = "aws")]
#[cfg(test)]
mod replay;
#[cfg(feature = "aws")]
pub mod s3;

use sha2::{Digest, Sha256};

use crate::ledger::hex;

/// SHA-256 of the bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}
