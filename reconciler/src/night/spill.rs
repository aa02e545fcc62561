//! Sums by key in bounded memory: a hash table that is written out as a sorted run when it is full, and runs that are
//! merged when all is read. Keys are bytes whose order is the order of the lines they stand for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::read::{Estimate, estimate};
use super::{NightError, fits};
use crate::bill::{ChargeKind, Meter};
use crate::ledger::LineId;

/// When a table is spilled, and where.
#[derive(Clone, Debug)]
pub struct SpillOptions {
    /// Lines kept in memory. A line takes about 300 bytes there.
    pub max_lines: usize,
    /// An existing directory for the runs. They are deleted when they are no longer read, however the process ends. A line
    /// takes about 250 bytes there; 16 runs and, while they are merged, twice the day's lines are there at most.
    pub directory: PathBuf,
}

/// What is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Picodollars.
    pub(super) estimated: i128,
    /// Whole units of the meter.
    pub(super) metered: u128,
    /// Requests.
    pub(super) requests: u64,
    /// Picodollars.
    pub(super) uncertain: i128,
}

impl Sums {
    pub(super) fn new(estimated: i128, metered: u128) -> Self {
        Self { estimated, metered, requests: 0, uncertain: 0 }
    }

    fn add(&mut self, other: &Self) -> Result<(), NightError> {
        let estimated = self.estimated.checked_add(other.estimated);
        self.estimated = fits(estimated, "estimated")?;
        self.metered = fits(self.metered.checked_add(other.metered), "metered quantity")?;
        self.requests = fits(self.requests.checked_add(other.requests), "requests")?;
        let uncertain = self.uncertain.checked_add(other.uncertain);
        self.uncertain = fits(uncertain, "uncertain")?;
        Ok(())
    }

    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        to.write_all(&self.estimated.to_le_bytes())?;
        to.write_all(&self.metered.to_le_bytes())?;
        to.write_all(&self.requests.to_le_bytes())?;
        to.write_all(&self.uncertain.to_le_bytes())
    }

    fn read(from: &mut impl Read) -> std::io::Result<Self> {
        let (mut wide, mut narrow) = ([0; 16], [0; 8]);
        from.read_exact(&mut wide)?;
        let estimated = i128::from_le_bytes(wide);
        from.read_exact(&mut wide)?;
        let metered = u128::from_le_bytes(wide);
        from.read_exact(&mut narrow)?;
        let requests = u64::from_le_bytes(narrow);
        from.read_exact(&mut wide)?;
        Ok(Self { estimated, metered, requests, uncertain: i128::from_le_bytes(wide) })
    }
}

/// The bytes of (provider, account, model, meter, tier, owner): texts end in `00 01`, a zero within one is `00 FF`, a
/// pair of the owner begins with 1 and the owner ends in 0. So bytes compare as the parts do.
#[derive(Clone, Debug, Default)]
pub(super) struct Key {
    bytes: Vec<u8>,
    meter_at: usize,
}

const METERS: [Meter; 6] =
    [Meter::Input, Meter::CacheRead, Meter::CacheWrite, Meter::Output, Meter::Calls, Meter::Whole];

impl Key {
    pub(super) fn write<'a>(
        &mut self,
        provider: &str,
        account: &str,
        model: &str,
        meter: Meter,
        tier: &str,
        owner: impl Iterator<Item = (&'static str, &'a str)>,
    ) {
        self.bytes.clear();
        self.text(provider);
        self.text(account);
        self.text(model);
        self.meter_at = self.bytes.len();
        self.bytes.push(meter as u8);
        self.text(tier);
        for (name, value) in owner {
            self.bytes.push(1);
            self.text(name);
            self.text(value);
        }
        self.bytes.push(0);
    }

    pub(super) fn set_meter(&mut self, meter: Meter) {
        if let Some(byte) = self.bytes.get_mut(self.meter_at) {
            *byte = meter as u8;
        }
    }

    fn text(&mut self, text: &str) {
        for byte in text.bytes() {
            self.bytes.push(byte);
            if byte == 0 {
                self.bytes.push(0xFF);
            }
        }
        self.bytes.extend_from_slice(&[0, 1]);
    }
}

/// Reads a key's parts back. `None` when the bytes are no key.
struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            // Up to the next zero at once: zeros within a text are rare.
            let zero = self.0.iter().position(|byte| *byte == 0)?;
            let (plain, rest) = self.0.split_at_checked(zero)?;
            bytes.extend_from_slice(plain);
            self.0 = rest.get(1..)?;
            if self.byte()? == 1 {
                return String::from_utf8(bytes).ok();
            }
            bytes.push(0);
        }
    }

    fn line(mut self) -> Option<(String, LineId)> {
        let provider = self.text()?;
        let (account, model) = (self.text()?, self.text()?);
        let meter = *METERS.get(usize::from(self.byte()?))?;
        let tier = self.text()?;
        let mut owner = BTreeMap::new();
        while self.byte()? == 1 {
            owner.insert(self.text()?, self.text()?);
        }
        let kind = ChargeKind::Usage;
        Some((provider, LineId { account, model, meter, tier, kind, owner }))
    }
}

/// The table being filled.
pub(super) struct Table {
    options: SpillOptions,
    lines: HashMap<Box<[u8]>, Sums>,
    runs: Vec<Run>,
}

impl Table {
    pub(super) fn new(options: SpillOptions) -> Self {
        Self { options, lines: HashMap::new(), runs: Vec::new() }
    }

    pub(super) fn add(&mut self, key: &Key, sums: &Sums) -> Result<(), NightError> {
        if let Some(known) = self.lines.get_mut(key.bytes.as_slice()) {
            return known.add(sums);
        }
        if self.lines.len() >= self.options.max_lines.max(1) {
            self.spill()?;
        }
        self.lines.insert(key.bytes.as_slice().into(), *sums);
        Ok(())
    }

    /// Writes the table out as a sorted run.
    fn spill(&mut self) -> Result<(), NightError> {
        let mut run = RunWriter::create(&self.options.directory)?;
        // The table keeps its room for the next filling.
        let mut lines: Vec<(Box<[u8]>, Sums)> = self.lines.drain().collect();
        lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (key, sums) in &lines {
            run.put(key, sums)?;
        }
        self.runs.push(run.finish()?);
        // Owners come back all day: merged, many runs are hardly larger than one, and the disk is not endless.
        if self.runs.len() >= MERGE_WIDTH {
            let merged = merge(&self.options.directory, std::mem::take(&mut self.runs))?;
            self.runs.push(merged);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Estimates, NightError> {
        if self.runs.is_empty() {
            let mut lines: Vec<(Box<[u8]>, Sums)> = self.lines.into_iter().collect();
            lines.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            return Ok(Estimates { kept: Kept::Memory(lines) });
        }
        self.spill()?;
        let Self { options, lines, runs } = self;
        drop(lines);
        Ok(Estimates { kept: Kept::Spilled(merge(&options.directory, runs)?) })
    }
}

/// Runs that are merged into one: so many are open, and on disk, at most.
const MERGE_WIDTH: usize = 16;

/// A sorted file of lines. Its file is deleted with it.
struct Run {
    file: File,
    directory: PathBuf,
    lines: u64,
}

struct RunWriter {
    to: BufWriter<File>,
    directory: PathBuf,
    lines: u64,
}

fn spill_error(directory: &Path) -> impl Fn(std::io::Error) -> NightError {
    let directory = directory.display().to_string();
    move |error| NightError::Spill { directory: directory.clone(), reason: error.to_string() }
}

impl RunWriter {
    fn create(directory: &Path) -> Result<Self, NightError> {
        // Without a name nothing is left behind, however the process ends.
        let file = tempfile::tempfile_in(directory).map_err(spill_error(directory))?;
        let to = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { to, directory: directory.to_owned(), lines: 0 })
    }

    fn put(&mut self, key: &[u8], sums: &Sums) -> Result<(), NightError> {
        let length = fits(u32::try_from(key.len()).ok(), "owner")?;
        let mut write = || {
            self.to.write_all(&length.to_le_bytes())?;
            self.to.write_all(key)?;
            sums.write(&mut self.to)
        };
        write().map_err(spill_error(&self.directory))?;
        self.lines += 1;
        Ok(())
    }

    fn finish(self) -> Result<Run, NightError> {
        let Self { to, directory, lines } = self;
        let file = to.into_inner().map_err(|error| spill_error(&directory)(error.into_error()))?;
        Ok(Run { file, directory, lines })
    }
}

/// Reads a run from its beginning.
struct RunReader<'a> {
    from: BufReader<&'a File>,
    directory: &'a Path,
    left: u64,
}

impl Run {
    fn reader(&self, buffer: usize) -> Result<RunReader<'_>, NightError> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(spill_error(&self.directory))?;
        let from = BufReader::with_capacity(buffer, file);
        Ok(RunReader { from, directory: &self.directory, left: self.lines })
    }
}

impl RunReader<'_> {
    /// The next line, into `key`. `None` at the end.
    fn next(&mut self, key: &mut Vec<u8>) -> Result<Option<Sums>, NightError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut read = || {
            let mut length = [0; 4];
            self.from.read_exact(&mut length)?;
            let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
            key.clear();
            key.resize(length, 0);
            self.from.read_exact(key)?;
            Sums::read(&mut self.from)
        };
        read().map(Some).map_err(spill_error(self.directory))
    }
}

/// Merges runs into one, adding up what has the same key.
fn merge(directory: &Path, runs: Vec<Run>) -> Result<Run, NightError> {
    let mut readers = runs.iter().map(|run| run.reader(1 << 16)).collect::<Result<Vec<_>, _>>()?;
    let mut heap = BinaryHeap::new();
    for (place, reader) in readers.iter_mut().enumerate() {
        let mut key = Vec::new();
        if let Some(sums) = reader.next(&mut key)? {
            heap.push(Reverse(Head { key, place, sums }));
        }
    }
    let mut to = RunWriter::create(directory)?;
    let mut held: Option<(Vec<u8>, Sums)> = None;
    while let Some(Reverse(Head { mut key, place, sums })) = heap.pop() {
        match &mut held {
            Some((same, sum)) if *same == key => sum.add(&sums)?,
            _ => {
                if let Some((done, sum)) = held.replace((key.clone(), sums)) {
                    to.put(&done, &sum)?;
                }
            }
        }
        if let Some(reader) = readers.get_mut(place)
            && let Some(sums) = reader.next(&mut key)?
        {
            heap.push(Reverse(Head { key, place, sums }));
        }
    }
    if let Some((done, sum)) = held {
        to.put(&done, &sum)?;
    }
    to.finish()
}

/// The first unmerged line of a run.
#[derive(PartialEq, Eq)]
struct Head {
    key: Vec<u8>,
    place: usize,
    sums: Sums,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.key, self.place).cmp(&(&other.key, other.place))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Estimates in the order of provider, account, model, meter, tier and owner, in memory or in a file.
pub struct Estimates {
    kept: Kept,
}

enum Kept {
    Memory(Vec<(Box<[u8]>, Sums)>),
    Spilled(Run),
}

impl Estimates {
    /// How many there are.
    pub fn len(&self) -> u64 {
        match &self.kept {
            Kept::Memory(lines) => u64::try_from(lines.len()).unwrap_or(u64::MAX),
            Kept::Spilled(run) => run.lines,
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are on disk.
    pub fn spilled(&self) -> bool {
        matches!(self.kept, Kept::Spilled(_))
    }

    /// Shows each estimate, in order. With `provider`, those of one only.
    pub fn scan(
        &self,
        provider: Option<&str>,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        let mut prefix = Key::default();
        if let Some(provider) = provider {
            prefix.text(provider);
        }
        let mut show = |key: &[u8], sums: &Sums| {
            if !key.starts_with(&prefix.bytes) {
                return Ok(());
            }
            let (provider, line) = Parts(key).line().ok_or_else(|| NightError::Input {
                field: "spill file".to_owned(),
                problem: "holds a line that was not written".to_owned(),
                remedy: "leave the spill directory to the reconciler alone, and run again",
            })?;
            each(&estimate(provider, line, sums)?)
        };
        match &self.kept {
            Kept::Memory(lines) => lines.iter().try_for_each(|(key, sums)| show(key, sums)),
            Kept::Spilled(run) => {
                let (mut reader, mut key) = (run.reader(1 << 18)?, Vec::new());
                while let Some(sums) = reader.next(&mut key)? {
                    show(&key, &sums)?;
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Estimates {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Estimates({}, spilled: {})", self.len(), self.spilled())
    }
}
