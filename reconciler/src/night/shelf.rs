//! Sorted lines on the shelf: what a large day was summed to so far, kept in the object store, so that the next invocation
//! goes on from there. It can always be made again: whoever finds it gone begins anew.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::spill::{LineReader, LineWriter, Lines, Run, RunWriter, Summed, spill_error};
use super::write::WriteFailed;
use crate::ledger::hex;
use crate::ports::{ObjectStore, StoreError};
use crate::stores::sha256;

/// Lines in a piece: about 15 MB, which is in memory when it is fetched.
const PIECE_LINES: u64 = 500_000;

/// A piece of sorted lines in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    key: String,
    lines: u64,
}

fn key_of(folder: &str, sha256: &str, ending: &str) -> String {
    format!("sorted/v1/{folder}/{sha256}.{ending}")
}

/// Keeps lines, in pieces.
pub(super) async fn keep<V: Summed>(
    mut lines: Lines<'_, V>,
    folder: &str,
    scratch: &Path,
    objects: &dyn ObjectStore,
) -> Result<Vec<Piece>, WriteFailed> {
    let mut pieces = Vec::new();
    loop {
        let file = tempfile::NamedTempFile::new_in(scratch).map_err(spill_error(scratch))?;
        let count = cut(&mut lines, file.path()).map_err(WriteFailed::Night)?;
        if count == 0 {
            return Ok(pieces);
        }
        let sha256 = hash_of(file.path()).map_err(spill_error(scratch))?;
        let key = key_of(folder, &sha256, "zst");
        objects.put_file_once(&key, file.path()).await?;
        pieces.push(Piece { key, lines: count });
    }
}

/// Writes the next piece. How many lines it has.
fn cut<V: Summed>(lines: &mut Lines<'_, V>, path: &Path) -> Result<u64, super::NightError> {
    let failed = spill_error(path);
    let file = std::fs::File::create(path).map_err(&failed)?;
    // The quickest level: the lines are short already.
    let encoder = zstd::Encoder::new(file, 1).map_err(&failed)?;
    let mut to = LineWriter::new(BufWriter::with_capacity(1 << 17, encoder));
    let mut count = 0;
    while count < PIECE_LINES
        && let Some((key, value)) = lines.next()?
    {
        to.put(key, &value).map_err(&failed)?;
        count += 1;
    }
    let end = to.into_inner().into_inner().map_err(|error| failed(error.into_error()))?;
    end.finish().and_then(|mut file| file.flush()).map_err(&failed)?;
    Ok(count)
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn hash_of(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hex(hash.finalize().as_slice()));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
    }
}

/// Fetches lines back. `None` when they are gone, or are not what was kept.
pub(super) async fn fetch<V: Summed>(
    pieces: &[Piece],
    scratch: &Path,
    objects: &dyn ObjectStore,
) -> Result<Option<Run<V>>, WriteFailed> {
    let mut run = RunWriter::create(scratch)?;
    for piece in pieces {
        let Some(body) = whole(&piece.key, objects).await? else { return Ok(None) };
        let Ok(decoder) = zstd::Decoder::new(body.as_ref()) else { return Ok(None) };
        let mut lines = LineReader::new(BufReader::with_capacity(1 << 17, decoder));
        for _ in 0..piece.lines {
            let Ok(value) = lines.next::<V>() else { return Ok(None) };
            run.put(&lines.key, &value)?;
        }
    }
    Ok(Some(run.finish()?))
}

/// An object whose name is its content's. `None` when it is gone or damaged.
async fn whole(key: &str, objects: &dyn ObjectStore) -> Result<Option<bytes::Bytes>, StoreError> {
    let body = match objects.get(key).await {
        Ok(body) => body,
        Err(StoreError::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    let named = key.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or("");
    let whole = body.filter(|body| sha256(body) == named);
    if whole.is_none() {
        tracing::warn!(key, "what was summed before is gone; it is summed again");
    }
    Ok(whole)
}

/// Keeps a document. Its key.
pub(super) async fn keep_document<T: Serialize>(
    document: &T,
    folder: &str,
    objects: &dyn ObjectStore,
) -> Result<String, StoreError> {
    let body = serde_json::to_vec(document)
        .map_err(|e| StoreError::Failed { store: "sorted", reason: e.to_string() })?;
    let key = key_of(folder, &sha256(&body), "json");
    objects.put_once(&key, body.into()).await?;
    Ok(key)
}

/// Fetches a document back. `None` when it is gone.
pub(super) async fn fetch_document<T: DeserializeOwned>(
    key: &str,
    objects: &dyn ObjectStore,
) -> Result<Option<T>, StoreError> {
    Ok(whole(key, objects).await?.and_then(|body| serde_json::from_slice(&body).ok()))
}
