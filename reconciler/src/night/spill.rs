//! Sums by key in bounded memory: a hash table that is written out as a sorted run when it is full, and runs that are
//! merged when all is read. What is summed is told by [`Summed`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Read, Result as IoResult, Write};
use std::io::{Seek, SeekFrom};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use super::NightError;

/// When a table is spilled, and where.
#[derive(Clone, Debug)]
pub struct SpillOptions {
    /// Lines kept in memory. A line of estimates takes about 300 bytes there.
    pub max_lines: usize,
    /// An existing directory for the runs. They are deleted when they are no longer read, however the process ends. A line
    /// takes about 60 bytes there; 16 runs and, while they are merged, twice the day's lines are there at most.
    pub directory: PathBuf,
}

/// What a table sums by key.
pub(super) trait Summed: Clone {
    fn add(&mut self, other: &Self) -> Result<(), NightError>;
    fn write(&self, to: &mut impl Write) -> IoResult<()>;
    fn read(from: &mut impl Read) -> IoResult<Self>;
}

/// A number as its length and its bytes: most are small.
pub(super) fn write_number(to: &mut impl Write, number: u128) -> IoResult<()> {
    let bytes = number.to_le_bytes();
    let length = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    to.write_all(&[u8::try_from(length).unwrap_or(16)])?;
    to.write_all(bytes.get(..length).unwrap_or_default())
}

pub(super) fn read_number(from: &mut impl Read) -> IoResult<u128> {
    let (mut length, mut bytes) = ([0], [0; 16]);
    from.read_exact(&mut length)?;
    let [length] = length;
    let room = bytes.get_mut(..usize::from(length)).ok_or_else(no_line)?;
    from.read_exact(room)?;
    Ok(u128::from_le_bytes(bytes))
}

/// A number below zero as an odd one.
pub(super) const fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)).cast_unsigned()
}

pub(super) const fn unzigzag(number: u128) -> i128 {
    (number >> 1).cast_signed() ^ -((number & 1).cast_signed())
}

fn no_line() -> Error {
    Error::new(ErrorKind::InvalidData, "it holds a line that was not written")
}

/// Longer than any key or line that is written.
const MAX_BYTES: usize = 1 << 24;

pub(super) fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> IoResult<()> {
    write_number(to, bytes.len() as u128)?;
    to.write_all(bytes)
}

pub(super) fn read_bytes(from: &mut impl Read, into: &mut Vec<u8>) -> IoResult<()> {
    let length = usize::try_from(read_number(from)?).ok().filter(|length| *length <= MAX_BYTES);
    let start = into.len();
    into.resize(start.saturating_add(length.ok_or_else(no_line)?), 0);
    from.read_exact(into.get_mut(start..).unwrap_or_default())
}

/// Writes sorted lines, of each key what differs from the one before.
pub(super) struct LineWriter<W> {
    to: W,
    last: Vec<u8>,
}

impl<W: Write> LineWriter<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, last: Vec::new() }
    }

    pub(super) fn put<V: Summed>(&mut self, key: &[u8], value: &V) -> IoResult<()> {
        let shared = self.last.iter().zip(key).take_while(|(one, other)| one == other).count();
        let rest = key.get(shared..).unwrap_or_default();
        write_number(&mut self.to, shared as u128)?;
        write_bytes(&mut self.to, rest)?;
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        value.write(&mut self.to)
    }

    pub(super) fn into_inner(self) -> W {
        self.to
    }
}

/// Reads what [`LineWriter`] wrote.
pub(super) struct LineReader<R> {
    from: R,
    pub(super) key: Vec<u8>,
}

impl<R: Read> LineReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, key: Vec::new() }
    }

    /// The next line's value; its key is in `key`.
    pub(super) fn next<V: Summed>(&mut self) -> IoResult<V> {
        let shared = usize::try_from(read_number(&mut self.from)?).unwrap_or(usize::MAX);
        if shared > self.key.len() {
            return Err(no_line());
        }
        self.key.truncate(shared);
        read_bytes(&mut self.from, &mut self.key)?;
        V::read(&mut self.from)
    }
}

/// The table being filled.
pub(super) struct Table<V> {
    options: SpillOptions,
    lines: HashMap<Box<[u8]>, V>,
    runs: Vec<Run<V>>,
}

impl<V: Summed> Table<V> {
    pub(super) fn new(options: SpillOptions) -> Self {
        Self { options, lines: HashMap::new(), runs: Vec::new() }
    }

    /// A table that goes on from what another had summed.
    pub(super) fn going_on(options: SpillOptions, run: Run<V>) -> Self {
        Self { options, lines: HashMap::new(), runs: vec![run] }
    }

    /// Lines in memory and in runs.
    pub(super) fn lines(&self) -> u64 {
        let in_memory = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        self.runs.iter().fold(in_memory, |sum, run| sum.saturating_add(run.lines))
    }

    pub(super) fn add(&mut self, key: &[u8], value: &V) -> Result<(), NightError> {
        match self.known(key) {
            Some(known) => known.add(value),
            None => self.insert(key, value.clone()),
        }
    }

    /// What is in memory of a key: it may be added to.
    pub(super) fn known(&mut self, key: &[u8]) -> Option<&mut V> {
        self.lines.get_mut(key)
    }

    /// Takes in a key that is not in memory.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Result<(), NightError> {
        if self.lines.len() >= self.options.max_lines.max(1) {
            self.spill()?;
            // Owners come back all day: merged, many runs are hardly larger than one, and the disk is not endless.
            if self.runs.len() >= MERGE_WIDTH {
                self.merge()?;
            }
        }
        self.lines.insert(key.into(), value);
        Ok(())
    }

    /// Writes the table out as a sorted run.
    fn spill(&mut self) -> Result<(), NightError> {
        let mut run = RunWriter::create(&self.options.directory)?;
        // The table keeps its room for the next filling.
        let mut lines: Vec<(Box<[u8]>, V)> = self.lines.drain().collect();
        lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in &lines {
            run.put(key, value)?;
        }
        self.runs.push(run.finish()?);
        Ok(())
    }

    fn merge(&mut self) -> Result<(), NightError> {
        let merged = merge(&self.options.directory, std::mem::take(&mut self.runs))?;
        self.runs.push(merged);
        Ok(())
    }

    /// All that was summed so far, as one run. The table can be gone on with.
    pub(super) fn so_far(&mut self) -> Result<&Run<V>, NightError> {
        if !self.lines.is_empty() || self.runs.is_empty() {
            self.spill()?;
        }
        if self.runs.len() > 1 {
            self.merge()?;
        }
        let directory = self.options.directory.display().to_string();
        let reason = "a run is gone".to_owned();
        self.runs.first().ok_or(NightError::Spill { directory, reason })
    }

    pub(super) fn finish(mut self) -> Result<Sorted<V>, NightError> {
        if self.runs.is_empty() {
            let mut lines: Vec<(Box<[u8]>, V)> = self.lines.into_iter().collect();
            lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            return Ok(Sorted::Memory(lines));
        }
        if !self.lines.is_empty() {
            self.spill()?;
        }
        let Self { options, lines, mut runs } = self;
        drop(lines);
        match runs.pop() {
            Some(only) if runs.is_empty() => Ok(Sorted::Spilled(only)),
            last => {
                runs.extend(last);
                Ok(Sorted::Spilled(merge(&options.directory, runs)?))
            }
        }
    }
}

/// Runs that are merged into one: so many are open, and on disk, at most.
const MERGE_WIDTH: usize = 16;

/// A sorted file of lines. Its file is deleted with it.
pub(super) struct Run<V> {
    file: File,
    directory: PathBuf,
    lines: u64,
    of: PhantomData<fn() -> V>,
}

pub(super) struct RunWriter<V> {
    to: LineWriter<BufWriter<File>>,
    directory: PathBuf,
    lines: u64,
    of: PhantomData<fn() -> V>,
}

pub(super) fn spill_error(directory: &Path) -> impl Fn(Error) -> NightError {
    let directory = directory.display().to_string();
    move |error| NightError::Spill { directory: directory.clone(), reason: error.to_string() }
}

impl<V: Summed> RunWriter<V> {
    pub(super) fn create(directory: &Path) -> Result<Self, NightError> {
        // Without a name nothing is left behind, however the process ends.
        let file = tempfile::tempfile_in(directory).map_err(spill_error(directory))?;
        let to = LineWriter::new(BufWriter::with_capacity(1 << 18, file));
        Ok(Self { to, directory: directory.to_owned(), lines: 0, of: PhantomData })
    }

    pub(super) fn put(&mut self, key: &[u8], value: &V) -> Result<(), NightError> {
        self.to.put(key, value).map_err(spill_error(&self.directory))?;
        self.lines += 1;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Run<V>, NightError> {
        let Self { to, directory, lines, of } = self;
        let file = to.into_inner().into_inner();
        let file = file.map_err(|error| spill_error(&directory)(error.into_error()))?;
        Ok(Run { file, directory, lines, of })
    }
}

/// Reads a run from its beginning.
pub(super) struct RunReader<'a, V> {
    from: LineReader<BufReader<&'a File>>,
    directory: &'a Path,
    left: u64,
    of: PhantomData<fn() -> V>,
}

impl<V: Summed> Run<V> {
    fn reader(&self, buffer: usize) -> Result<RunReader<'_, V>, NightError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(spill_error(&self.directory))?;
        let from = LineReader::new(BufReader::with_capacity(buffer, file));
        Ok(RunReader { from, directory: &self.directory, left: self.lines, of: PhantomData })
    }

    /// Its lines, in order. One reading at a time.
    pub(super) fn lines(&self) -> Result<Lines<'_, V>, NightError> {
        Ok(Lines::Spilled(self.reader(1 << 18)?))
    }

    pub(super) fn len(&self) -> u64 {
        self.lines
    }
}

impl<V: Summed> RunReader<'_, V> {
    /// The next line's value; its key is in `from`. `None` at the end.
    fn next(&mut self) -> Result<Option<V>, NightError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.from.next().map(Some).map_err(spill_error(self.directory))
    }
}

/// Merges runs into one, adding up what has the same key.
fn merge<V: Summed>(directory: &Path, runs: Vec<Run<V>>) -> Result<Run<V>, NightError> {
    let mut readers = runs.iter().map(|run| run.reader(1 << 16)).collect::<Result<Vec<_>, _>>()?;
    let mut heap = BinaryHeap::new();
    for (place, reader) in readers.iter_mut().enumerate() {
        if let Some(value) = reader.next()? {
            heap.push(Reverse(Head { key: reader.from.key.clone(), place, value }));
        }
    }
    let mut to = RunWriter::create(directory)?;
    let mut held: Option<(Vec<u8>, V)> = None;
    while let Some(Reverse(Head { mut key, place, value })) = heap.pop() {
        match &mut held {
            Some((same, sum)) if *same == key => sum.add(&value)?,
            _ => {
                if let Some((done, sum)) = held.replace((std::mem::take(&mut key), value)) {
                    to.put(&done, &sum)?;
                    key = done;
                }
            }
        }
        if let Some(reader) = readers.get_mut(place)
            && let Some(value) = reader.next()?
        {
            key.clear();
            key.extend_from_slice(&reader.from.key);
            heap.push(Reverse(Head { key, place, value }));
        }
    }
    if let Some((done, sum)) = held {
        to.put(&done, &sum)?;
    }
    to.finish()
}

/// The first unmerged line of a run.
struct Head<V> {
    key: Vec<u8>,
    place: usize,
    value: V,
}

impl<V> Ord for Head<V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.key, self.place).cmp(&(&other.key, other.place))
    }
}

impl<V> PartialOrd for Head<V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<V> PartialEq for Head<V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<V> Eq for Head<V> {}

/// Sums in the order of their keys, in memory or in a file.
pub(super) enum Sorted<V> {
    Memory(Vec<(Box<[u8]>, V)>),
    Spilled(Run<V>),
}

impl<V: Summed> Sorted<V> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(lines) => u64::try_from(lines.len()).unwrap_or(u64::MAX),
            Self::Spilled(run) => run.len(),
        }
    }

    /// The lines, in order. One reading at a time.
    pub(super) fn lines(&self) -> Result<Lines<'_, V>, NightError> {
        match self {
            Self::Memory(lines) => Ok(Lines::Memory(lines.iter())),
            Self::Spilled(run) => run.lines(),
        }
    }
}

/// A reading of sorted lines.
pub(super) enum Lines<'a, V> {
    Memory(std::slice::Iter<'a, (Box<[u8]>, V)>),
    Spilled(RunReader<'a, V>),
}

impl<V: Summed> Lines<'_, V> {
    /// The next key and value. `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(&[u8], V)>, NightError> {
        match self {
            Self::Memory(lines) => Ok(lines.next().map(|(key, value)| (&**key, value.clone()))),
            Self::Spilled(reader) => {
                let Some(value) = reader.next()? else { return Ok(None) };
                Ok(Some((&reader.from.key, value)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_whatever_their_sign_and_size() {
        for number in [0, 1, -1, 255, 256, -256, i128::from(i64::MIN), i128::MAX, i128::MIN] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, zigzag(number)).unwrap();
            assert!(bytes.len() <= 17);
            assert_eq!(unzigzag(read_number(&mut bytes.as_slice()).unwrap()), number);
        }
        assert!(read_number(&mut [17_u8; 20].as_slice()).is_err());
    }
}
