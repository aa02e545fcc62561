//! Exports, handed over to the edge, where people download them: each file is uploaded, then the export is committed.
//!
//! The object store has the files first and for good. What is too large for the edge, or finds no bucket there, is
//! committed with its place alone. Handed over again, an export is what it was.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, TryStreamExt};
use tallygate_shared::focus_export::{FocusExport, FocusFile, MAX_FILE_BYTES};

use crate::app::App;
use crate::config::WorkspaceConfig;
use crate::connectors::PullError;
use crate::edge::Edge;
use crate::edge::upload::{Content, Upload};
use crate::focus::export::Part;
use crate::night::export::Delivery;
use crate::ports::{ObjectStore, StoreError};

/// Files that are uploaded at a time.
const WIDTH: usize = 4;

/// Why an export is not at the edge.
#[derive(Debug, thiserror::Error)]
pub enum NotHandedOver {
    /// The edge.
    #[error(transparent)]
    Edge(#[from] PullError),
    /// A file could not be read back.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Uploads an export's files and commits it.
pub async fn hand_over(
    app: &App,
    workspace: &WorkspaceConfig,
    month: &str,
    delivery: &Delivery,
) -> Result<(), NotHandedOver> {
    let edge = Edge::new(&workspace.id, &workspace.edge, &app.clock, app.patience)?;
    let number = delivery.number;
    let folder = format!("/focus-files/{month}/{number}");
    let has_bucket = AtomicBool::new(true);
    let (edge, folder, has_bucket) = (&edge, folder.as_str(), &has_bucket);
    // What is read back from the object store is held in memory: one file at a time.
    let on_disk = delivery.parts.iter().all(|part| !part.path.as_os_str().is_empty());
    let uploads = delivery.parts.iter().map(|part| async move {
        if part.bytes > MAX_FILE_BYTES || !has_bucket.load(Ordering::Relaxed) {
            return Ok::<_, NotHandedOver>(false);
        }
        let content = content(part, app.objects.as_ref()).await?;
        let upload = Upload { content, bytes: part.bytes, sha256: &part.sha256 };
        let stored = edge.upload(&format!("{folder}/{}", part.file), &upload).await?;
        has_bucket.fetch_and(stored, Ordering::Relaxed);
        Ok(stored)
    });
    let uploaded: Vec<bool> = futures::stream::iter(uploads)
        .buffered(if on_disk { WIDTH } else { 1 })
        .try_collect()
        .await?;
    let files = delivery.parts.iter().zip(uploaded);
    let export = FocusExport {
        month: month.to_owned(),
        number,
        made_at: delivery.made_at,
        files: files.map(|(part, uploaded)| told(app, part, uploaded)).collect(),
    };
    Ok(edge.tell("focus-exports", &export).await?)
}

async fn content<'p>(part: &'p Part, objects: &dyn ObjectStore) -> Result<Content<'p>, StoreError> {
    if !part.path.as_os_str().is_empty() {
        return Ok(Content::File(&part.path));
    }
    let bytes = objects.get(&part.key).await?.ok_or_else(|| StoreError::Damaged {
        store: "exports",
        key: part.key.clone(),
        reason: "its list names it, and it is gone".to_owned(),
    })?;
    Ok(Content::Bytes(bytes))
}

fn told(app: &App, part: &Part, uploaded: bool) -> FocusFile {
    FocusFile {
        file: part.file.clone(),
        focus_version: part.focus_version.clone(),
        table: part.table,
        format: part.format,
        day: part.day.clone(),
        rows: part.rows,
        bytes: part.bytes,
        sha256: part.sha256.clone(),
        place: app.config.storage.place(&part.key),
        uploaded,
    }
}
