//! Objects as files. A file appears under its name whole and on disk, or not at all: it is written and synced under
//! another name and then linked, which fails when the name is taken. A killed process leaves at most a file in `tmp/`,
//! which the next one to open the store removes.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::blocking;
use crate::ports::{ObjectMeta, ObjectStore, Put, StoreError};
use crate::stores::names::{check_key, check_list};

const STORE: &str = "local objects";
/// Bytes of a name in a directory; file systems stop at 255.
const PIECE: usize = 200;
/// Ends the file name of an object whose own name has no dot. A directory's name never has one, so an object `a` and
/// another `a/b` do not meet.
const PLAIN: &str = ".object";

/// An [`ObjectStore`] in a directory.
#[derive(Clone, Debug)]
pub struct LocalObjects {
    place: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    root: PathBuf,
    temporary: PathBuf,
    /// Directories that this process knows to be on disk.
    durable: Mutex<HashSet<PathBuf>>,
}

impl LocalObjects {
    /// Opens the objects below `directory`, and makes what is not there yet.
    pub async fn open(directory: &Path) -> Result<Self, StoreError> {
        let (root, temporary) = (directory.join("objects"), directory.join("tmp"));
        blocking(STORE, move || {
            for path in [&root, &temporary] {
                fs::create_dir_all(path).map_err(|error| failed("make", path, &error))?;
            }
            sweep(&temporary);
            let place = Place { root, temporary, durable: Mutex::default() };
            Ok(Self { place: Arc::new(place) })
        })
        .await
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put_once(&self, key: &str, body: Bytes) -> Result<Put, StoreError> {
        check_key(STORE, key)?;
        let (place, key) = (self.place.clone(), key.to_owned());
        blocking(STORE, move || place.put(&key, || Ok(io::Cursor::new(body.clone())))).await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        check_key(STORE, key)?;
        let path = path_of(&self.place.root, key);
        blocking(STORE, move || match fs::read(&path) {
            Ok(body) => Ok(Some(body.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path, &error)),
        })
        .await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, StoreError> {
        check_list(STORE, prefix, limit)?;
        let place = self.place.clone();
        let mut listing = Listing {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            found: BTreeMap::new(),
        };
        blocking(STORE, move || {
            listing
                .walk(&place.root, "", "")
                .map_err(|error| failed("list", &place.root, &error))?;
            let found = listing.found.into_iter();
            Ok(found.map(|(key, size)| ObjectMeta { key, size }).collect())
        })
        .await
    }

    async fn put_file_once(&self, key: &str, path: &Path) -> Result<Put, StoreError> {
        check_key(STORE, key)?;
        let (place, key, path) = (self.place.clone(), key.to_owned(), path.to_owned());
        blocking(STORE, move || {
            place.put(&key, || File::open(&path).map_err(|error| failed("read", &path, &error)))
        })
        .await
    }
}

impl Place {
    /// Writes what `open` reads, unless `key` is taken: then compares.
    fn put<R: Read>(
        &self,
        key: &str,
        open: impl Fn() -> Result<R, StoreError>,
    ) -> Result<Put, StoreError> {
        let path = path_of(&self.root, key);
        let directory = path.parent().unwrap_or(&self.root);
        // Mostly the same work again: no need to write it all for the link to fail.
        if path.exists() {
            return self.compare(key, &path, open()?);
        }
        self.make(directory)?;
        let mut sweeps = 0;
        loop {
            let refused = match self.write(open()?)?.persist_noclobber(&path) {
                Ok(_) => {
                    sync(directory)?;
                    return Ok(Put::Written);
                }
                Err(refused) => refused.error,
            };
            match refused.kind() {
                io::ErrorKind::AlreadyExists => return self.compare(key, &path, open()?),
                // Swept before it was locked.
                io::ErrorKind::NotFound if sweeps < 8 => sweeps += 1,
                _ => return Err(failed("write", &path, &refused)),
            }
        }
    }

    /// All of `from` in a file of its own, on disk.
    fn write(&self, mut from: impl Read) -> Result<tempfile::NamedTempFile, StoreError> {
        let written = || -> io::Result<tempfile::NamedTempFile> {
            let mut file = tempfile::Builder::new().prefix("put-").tempfile_in(&self.temporary)?;
            // Tells a process that opens the store that this one is alive.
            file.as_file().lock_shared()?;
            io::copy(&mut from, file.as_file_mut())?;
            file.as_file().sync_all()?;
            Ok(file)
        }();
        written.map_err(|error| failed("write", &self.temporary, &error))
    }

    /// Whether what is under `path` is what `ours` reads.
    fn compare(&self, key: &str, path: &Path, ours: impl Read) -> Result<Put, StoreError> {
        let theirs = File::open(path).map_err(|error| failed("read", path, &error))?;
        let same = same(io::BufReader::new(theirs), io::BufReader::new(ours))
            .map_err(|error| failed("read", path, &error))?;
        if !same {
            return Err(StoreError::Damaged {
                store: STORE,
                key: key.to_owned(),
                reason: "it was written before, with other bytes; what was there stays".to_owned(),
            });
        }
        // Whoever linked it may not have come to this yet, and our caller counts on it now.
        sync(path.parent().unwrap_or(&self.root))?;
        Ok(Put::AlreadyThere)
    }

    /// Makes `directory`, and sees to it that it outlives a power cut.
    fn make(&self, directory: &Path) -> Result<(), StoreError> {
        let known = |path: &Path| {
            let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
            durable.contains(path)
        };
        if known(directory) {
            return Ok(());
        }
        fs::create_dir_all(directory).map_err(|error| failed("make", directory, &error))?;
        for path in directory.ancestors().take_while(|path| path.starts_with(&self.root)) {
            sync(path)?;
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(directory.to_owned());
        Ok(())
    }
}

fn sync(directory: &Path) -> Result<(), StoreError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|error| failed("sync", directory, &error))
}

/// Removes what killed processes left. A file whose lock is free has no living writer; one that is taken between its
/// making and its locking fails to link, and its writer begins again.
fn sweep(temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let dead = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if dead {
            // Another process may have been quicker.
            let _removed = fs::remove_file(&path);
        }
    }
}

fn same(mut one: impl io::BufRead, mut other: impl io::BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if both == 0 {
            return Ok(left.len() == right.len());
        }
        if left.get(..both) != right.get(..both) {
            return Ok(false);
        }
        one.consume(both);
        other.consume(both);
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> StoreError {
    let reason = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            StoreError::Denied { store: STORE, action: format!("to {action} a file"), reason }
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Unavailable {
            store: STORE,
            reason: format!("no room left on the disk to {action} {reason}"),
        },
        _ => StoreError::Failed { store: STORE, reason: format!("cannot {action} {reason}") },
    }
}

/// The file of a key: a directory for each part but the last.
fn path_of(root: &Path, key: &str) -> PathBuf {
    let mut path = root.to_owned();
    let (above, name) = key.rsplit_once('/').unwrap_or(("", key));
    for part in above.split('/').filter(|part| !part.is_empty()) {
        push_pieces(&mut path, escape(part, true));
    }
    let mut name = escape(name, false);
    if !name.contains('.') || name.ends_with(PLAIN) {
        name.push_str(PLAIN);
    }
    push_pieces(&mut path, name);
    path
}

/// A part of a key in ASCII without `%`, since file systems differ in what they make of other letters; without dots in
/// a directory's name.
fn escape(part: &str, directory: bool) -> String {
    let mut name = String::with_capacity(part.len());
    for byte in part.bytes() {
        let plain = (byte.is_ascii_graphic() || byte == b' ')
            && !matches!(byte, b'%' | b'\\' | b':')
            && !(directory && byte == b'.');
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// The reverse of [`escape`]; `None` for a name that it does not give.
fn unescape(name: &str) -> Option<String> {
    let mut part = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((plain, escaped)) = rest.split_once('%') {
        part.extend_from_slice(plain.as_bytes());
        part.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        rest = escaped.get(2..)?;
    }
    part.extend_from_slice(rest.as_bytes());
    String::from_utf8(part).ok()
}

/// A name that is too long for one directory entry goes on in a directory that ends with `%`.
fn push_pieces(path: &mut PathBuf, name: String) {
    let mut rest = name.as_str();
    while rest.len() > PIECE {
        // ASCII: every place is a boundary.
        let (piece, more) = rest.split_at_checked(PIECE).unwrap_or((rest, ""));
        path.push(format!("{piece}%"));
        rest = more;
    }
    path.push(rest);
}

/// The first keys of a prefix, after a key.
struct Listing {
    prefix: String,
    after: Option<String>,
    limit: usize,
    found: BTreeMap<String, u64>,
}

impl Listing {
    /// Looks through `directory`, whose keys begin with `above`. `begun` is the beginning of a long name, escaped.
    fn walk(&mut self, directory: &Path, above: &str, begun: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            // Not ours: a name that no key gives.
            let Some(name) = entry.file_name().to_str().map(|name| format!("{begun}{name}")) else {
                continue;
            };
            if !entry.file_type()?.is_dir() {
                self.take(above, &name, &entry)?;
            } else if let Some(begun) = name.strip_suffix('%') {
                self.walk(&entry.path(), above, begun)?;
            } else if let Some(part) = unescape(&name) {
                let below = format!("{above}{part}/");
                if self.may_hold(&below) {
                    self.walk(&entry.path(), &below, "")?;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, above: &str, name: &str, entry: &fs::DirEntry) -> io::Result<()> {
        let Some(part) = unescape(name.strip_suffix(PLAIN).unwrap_or(name)) else { return Ok(()) };
        let key = format!("{above}{part}");
        let wanted =
            key.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| key > *after);
        if wanted && !self.is_past(&key) {
            self.found.insert(key, entry.metadata()?.len());
            if self.found.len() > self.limit {
                self.found.pop_last();
            }
        }
        Ok(())
    }

    /// Whether a key that begins with `below` can be among those wanted.
    fn may_hold(&self, below: &str) -> bool {
        let in_prefix = below.starts_with(&self.prefix) || self.prefix.starts_with(below);
        let all_before = self
            .after
            .as_ref()
            .is_some_and(|after| below <= after.as_str() && !after.starts_with(below));
        in_prefix && !all_before && !self.is_past(below)
    }

    /// Whether the listing is full with keys before `key`.
    fn is_past(&self, key: &str) -> bool {
        self.found.len() == self.limit
            && self.found.last_key_value().is_some_and(|(last, _)| key > last.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_path_of_its_own() {
        let long = "ä".repeat(300);
        let keys = [
            "a",
            "a.object",
            "a.object.object",
            "a/b",
            "a.b",
            "a.b/c",
            "a%2eb/c",
            "a%",
            "a%25",
            "ä",
            "%c3%a4",
            "a:b",
            "a\\b",
            &long,
            &format!("{long}/x"),
            &format!("x/{long}"),
            &"k".repeat(201),
            &format!("{}/k", "k".repeat(200)),
            &"k".repeat(1024),
        ];
        let paths: HashSet<PathBuf> = keys.iter().map(|key| path_of(Path::new("r"), key)).collect();
        assert_eq!(paths.len(), keys.len());
        for path in &paths {
            // No file is where another key needs a directory.
            assert!(
                paths.iter().all(|other| other == path || !other.starts_with(path)),
                "{path:?}"
            );
            assert!(path.iter().all(|name| name.len() <= 255), "{path:?}");
        }
    }

    #[tokio::test]
    async fn what_a_killed_writer_left_is_swept_and_a_living_ones_stays() {
        let directory = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(directory.path()).await.unwrap();
        let living = objects.place.write(io::Cursor::new(b"half")).unwrap();
        let dead = directory.path().join("tmp/put-dead");
        fs::write(&dead, b"half").unwrap();
        let again = LocalObjects::open(directory.path()).await.unwrap();
        assert!(living.path().exists());
        assert!(!dead.exists());
        assert_eq!(again.list("", None, 10).await.unwrap(), []);
    }

    #[tokio::test]
    async fn an_object_that_was_changed_on_disk_is_not_taken_for_ours() {
        let directory = tempfile::tempdir().unwrap();
        let objects = LocalObjects::open(directory.path()).await.unwrap();
        objects.put_once("a/b", Bytes::from_static(b"one")).await.unwrap();
        fs::write(directory.path().join("objects/a/b.object"), b"onE").unwrap();
        let again = objects.put_once("a/b", Bytes::from_static(b"one")).await;
        assert!(matches!(again, Err(StoreError::Damaged { key, .. }) if key == "a/b"));
    }
}
