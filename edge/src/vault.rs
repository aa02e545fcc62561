//! STUB
/// x
#[derive(Default)]
pub struct KeyRing;
/// x
#[derive(Debug, thiserror::Error)]
#[error("vault")]
pub struct VaultError;
impl KeyRing {
    /// x
    pub fn parse(_text: &str) -> Result<Self, VaultError> { Ok(Self) }
    /// x
    pub fn open(&self, sealed: &str, _context: &str) -> Result<String, VaultError> { Ok(sealed.to_owned()) }
}
