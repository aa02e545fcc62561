//! What a day's events were summed to, line by line.

use std::io::{Read, Result as IoResult, Write};

use super::line_key::{Key, line_of};
use super::read::{Estimate, estimate};
use super::spill::{Sorted, Summed, read_number, unzigzag, write_number, zigzag};
use super::{NightError, fits};

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
}

impl Summed for Sums {
    fn add(&mut self, other: &Self) -> Result<(), NightError> {
        let estimated = self.estimated.checked_add(other.estimated);
        self.estimated = fits(estimated, "estimated")?;
        self.metered = fits(self.metered.checked_add(other.metered), "metered quantity")?;
        self.requests = fits(self.requests.checked_add(other.requests), "requests")?;
        let uncertain = self.uncertain.checked_add(other.uncertain);
        self.uncertain = fits(uncertain, "uncertain")?;
        Ok(())
    }

    fn write(&self, to: &mut impl Write) -> IoResult<()> {
        write_number(to, zigzag(self.estimated))?;
        write_number(to, self.metered)?;
        write_number(to, u128::from(self.requests))?;
        write_number(to, zigzag(self.uncertain))
    }

    fn read(from: &mut impl Read) -> IoResult<Self> {
        Ok(Self {
            estimated: unzigzag(read_number(from)?),
            metered: read_number(from)?,
            requests: u64::try_from(read_number(from)?).map_err(std::io::Error::other)?,
            uncertain: unzigzag(read_number(from)?),
        })
    }
}

/// Estimates in the order of provider, account, model, meter, tier and owner, in memory or in a file.
pub struct Estimates {
    pub(super) sorted: Sorted<Sums>,
}

impl Estimates {
    /// How many there are.
    pub fn len(&self) -> u64 {
        self.sorted.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether they are on disk.
    pub fn spilled(&self) -> bool {
        matches!(self.sorted, Sorted::Spilled(_))
    }

    /// Shows each estimate, in order. With `provider`, those of one only.
    pub fn scan(
        &self,
        provider: Option<&str>,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.show(provider, true, each)
    }

    /// The same without owners, which take longest to read.
    pub(super) fn scan_sums(
        &self,
        provider: Option<&str>,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        self.show(provider, false, each)
    }

    fn show(
        &self,
        provider: Option<&str>,
        with_owner: bool,
        each: &mut dyn FnMut(&Estimate) -> Result<(), NightError>,
    ) -> Result<(), NightError> {
        let prefix = provider.map_or_else(Key::default, Key::of_provider);
        let mut lines = self.sorted.lines()?;
        while let Some((key, sums)) = lines.next()? {
            if !key.starts_with(prefix.bytes()) {
                continue;
            }
            let (provider, line) = line_of(key, with_owner).ok_or_else(|| NightError::Input {
                field: "spill file".to_owned(),
                problem: "holds a line that was not written".to_owned(),
                remedy: "leave the spill directory to the reconciler alone, and run again",
            })?;
            each(&estimate(provider, line, &sums)?)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Estimates {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "Estimates({}, spilled: {})", self.len(), self.spilled())
    }
}
