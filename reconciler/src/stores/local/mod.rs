//! Both ports in one directory of local disk, for a first run without AWS: `objects/` holds one file for each object,
//! `ledger.sqlite` the ledger. Any number of processes of one machine may work in it at once; network file systems,
//! which do not keep SQLite's locks, are no place for it.

mod ledger;
mod objects;

pub use ledger::LocalLedger;
pub use objects::LocalObjects;

use std::path::Path;

use crate::ports::StoreError;

/// Opens the stores in `directory`, and makes what is not there yet.
pub async fn open(directory: &Path) -> Result<(LocalLedger, LocalObjects), StoreError> {
    let objects = LocalObjects::open(directory).await?;
    let ledger = LocalLedger::open(&directory.join("ledger.sqlite")).await?;
    Ok((ledger, objects))
}

/// Runs what waits for the disk where it may wait.
async fn blocking<T: Send + 'static>(
    store: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StoreError::Failed { store, reason: format!("the work on disk broke off: {error}") })
    })
}
