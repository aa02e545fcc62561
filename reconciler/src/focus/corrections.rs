//! What a later revision says of a closed month: the month stays as it was exported, and an open month gets the earlier
//! row reversed and the later one restated. Both are computed from the ledger as it stood before and after.

use std::collections::BTreeMap;

use super::ExportError;
use super::charges::Groups;
use super::month::Month;
use super::row::{FocusRow, Step};
use crate::ledger::{LineId, Revision};

/// The newest revision of each line among those that `counts` takes.
pub(super) fn snapshot(
    revisions: &[Revision],
    counts: impl Fn(Option<Month>) -> bool,
) -> Result<BTreeMap<&LineId, &Revision>, ExportError> {
    let mut lines: BTreeMap<&LineId, &Revision> = BTreeMap::new();
    for revision in revisions {
        let booked = match &revision.booked_in {
            None => None,
            Some(text) => Some(Month::parse(text).ok_or_else(|| ExportError::BookedIn {
                unit: revision.unit.to_string(),
                text: text.clone(),
            })?),
        };
        if counts(booked) {
            let newest = lines.entry(&revision.line).or_insert(revision);
            if newest.rev < revision.rev {
                *newest = revision;
            }
        }
    }
    Ok(lines)
}

/// Reversal and restatement of every charge that reads differently. The parts of a split charge are corrected together,
/// so that their ratios add up in both.
pub(super) fn corrections(
    before: Groups<'_>,
    mut after: Groups<'_>,
) -> Result<Vec<FocusRow>, ExportError> {
    let mut rows = Vec::new();
    let mut book = |earlier: Vec<(&LineId, FocusRow)>, later: Vec<(&LineId, FocusRow)>| {
        let same = earlier.len() == later.len()
            && earlier.iter().zip(&later).all(|((a, x), (b, y))| a == b && x.says_the_same(y));
        if same {
            return Ok(());
        }
        let mut steps: BTreeMap<(&LineId, Step), FocusRow> = BTreeMap::new();
        for (line, row) in earlier {
            let reversed =
                row.reversed().ok_or(ExportError::Overflow { what: "a reversed charge" })?;
            steps.insert((line, Step::Reversal), reversed);
        }
        steps.extend(later.into_iter().map(|(line, row)| ((line, Step::Restatement), row)));
        rows.extend(steps.into_iter().map(|((_, step), mut row)| {
            row.correction = Some(step);
            row.description = format!("{}: {}", step.as_str(), row.description);
            row
        }));
        Ok(())
    };
    for (name, earlier) in before.rows {
        book(earlier, after.rows.remove(&name).unwrap_or_default())?;
    }
    for later in after.rows.into_values() {
        book(Vec::new(), later)?;
    }
    Ok(rows)
}
