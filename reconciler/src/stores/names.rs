//! Which names and sizes every store takes. The limits are DynamoDB's and S3's, with room for escaping; local disk
//! keeps to them too, so that what works on a laptop works on AWS.

use tallygate_shared::time::Date;

use crate::ledger::{Revision, UnitId};
use crate::ports::{PAGE_MAX, RunId, RunState, StoreError};

/// Bytes of a mark's value.
pub(super) const MAX_MARK: usize = 64 * 1024;
/// Bytes of a revision as JSON: below DynamoDB's 400 KB for an item with its names.
pub(super) const MAX_ROW: usize = 256 * 1024;
/// Bytes of a run's state as JSON.
pub(super) const MAX_STATE: usize = 8 * 1024 * 1024;
/// Bytes of one part of a name. Three of them, escaped, stay below the 2,048 of a partition key.
const MAX_PART: usize = 200;
/// Bytes of the name of a run, a number or a mark: escaped, below the 2,048 of a partition key.
const MAX_NAME: usize = 600;
/// Bytes of an object's key, as in S3.
const MAX_KEY: usize = 1024;
/// Keys in one listing, as in S3.
const MAX_LIST: usize = 1000;

fn refuse(store: &'static str, reason: String) -> StoreError {
    StoreError::Failed { store, reason }
}

/// S3 lists keys in XML, which has no way to write the others.
fn printable(key: &str) -> bool {
    !key.chars().any(|c| c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

/// An object's key must mean the same as a path and as a name in S3.
pub(super) fn check_key(store: &'static str, key: &str) -> Result<(), StoreError> {
    let wrong = if key.is_empty() || key.len() > MAX_KEY {
        format!("has {} bytes: 1 to {MAX_KEY} are possible", key.len())
    } else if !printable(key) {
        "holds control characters: leave them out".to_owned()
    } else if key.split('/').any(|part| matches!(part, "" | "." | "..")) {
        "has an empty, `.` or `..` part between slashes: leave it out".to_owned()
    } else {
        return Ok(());
    };
    Err(refuse(store, format!("the object key `{}` {wrong}", key.escape_debug())))
}

/// What a listing asks for.
pub(super) fn check_list(
    store: &'static str,
    prefix: &str,
    limit: usize,
) -> Result<(), StoreError> {
    if prefix.len() > MAX_KEY || !printable(prefix) {
        return Err(refuse(
            store,
            format!("the prefix `{}` cannot begin a key", prefix.escape_debug()),
        ));
    }
    if limit == 0 || limit > MAX_LIST {
        return Err(refuse(store, format!("a listing of {limit} keys: ask for 1 to {MAX_LIST}")));
    }
    Ok(())
}

/// A unit's day must be one: its month is where `units` finds it.
pub(super) fn check_unit(store: &'static str, unit: &UnitId) -> Result<(), StoreError> {
    for (field, part) in [("workspace", &unit.workspace), ("provider", &unit.provider)] {
        if part.len() > MAX_PART {
            return Err(refuse(
                store,
                format!("`{field}` of a unit has {} bytes: at most {MAX_PART}", part.len()),
            ));
        }
    }
    if unit.day.len() != 10 || Date::parse(&unit.day).is_none() {
        return Err(refuse(
            store,
            format!("`day` of a unit is `{}`: write YYYY-MM-DD", unit.day.escape_debug()),
        ));
    }
    Ok(())
}

/// What a page of rows asks for.
pub(super) fn check_page(
    store: &'static str,
    unit: &UnitId,
    after: Option<&str>,
    limit: usize,
) -> Result<(), StoreError> {
    check_unit(store, unit)?;
    if limit == 0 || limit > PAGE_MAX {
        return Err(refuse(store, format!("a page of {limit} rows: ask for 1 to {PAGE_MAX}")));
    }
    let digest = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match after {
        Some(after) if !digest(after) => {
            let after = after.escape_debug();
            Err(refuse(store, format!("a page after `{after}`: give the digest of a line")))
        }
        Some(_) | None => Ok(()),
    }
}

/// `YYYY-MM`.
pub(super) fn check_month(
    store: &'static str,
    workspace: &str,
    month: &str,
) -> Result<(), StoreError> {
    check_unit(
        store,
        &UnitId {
            workspace: workspace.into(),
            day: format!("{month}-01"),
            provider: String::new(),
        },
    )
}

/// A revision as JSON, with the number that the store gives it. One that could not be read back would spoil its unit
/// for good: amounts of 39 digits can be added up, but not parsed.
pub(super) fn row_json(
    store: &'static str,
    row: &Revision,
    rev: u32,
) -> Result<String, StoreError> {
    let row = Revision { rev, ..row.clone() };
    let wrong = |what: String| refuse(store, format!("a revision of {} {what}", row.unit));
    let text = serde_json::to_string(&row)
        .map_err(|error| wrong(format!("cannot be written: {error}")))?;
    if text.len() > MAX_ROW {
        return Err(wrong(format!("has {} bytes: at most {MAX_ROW}", text.len())));
    }
    match serde_json::from_str::<Revision>(&text) {
        Ok(read) if read == row => Ok(text),
        Ok(_) => Err(wrong("would read back otherwise".to_owned())),
        Err(error) => Err(wrong(format!("could not be read back: {error}"))),
    }
}

/// The name of a run, a number or a mark.
pub(super) fn check_name(store: &'static str, what: &str, name: &str) -> Result<(), StoreError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(refuse(
            store,
            format!("the name of a {what} has {} bytes: 1 to {MAX_NAME} are possible", name.len()),
        ));
    }
    Ok(())
}

/// A mark's value.
pub(super) fn check_mark(store: &'static str, name: &str, value: &str) -> Result<(), StoreError> {
    check_name(store, "mark", name)?;
    if value.len() > MAX_MARK {
        return Err(refuse(
            store,
            format!("the mark `{name}` would have {} bytes: at most {MAX_MARK}", value.len()),
        ));
    }
    Ok(())
}

/// A run's state as JSON.
pub(super) fn state_json(
    store: &'static str,
    run: &RunId,
    state: &RunState,
) -> Result<String, StoreError> {
    check_name(store, "run", &run.0)?;
    let text = serde_json::to_string(state)
        .map_err(|error| refuse(store, format!("the state of run `{}`: {error}", run.0)))?;
    if text.len() > MAX_STATE {
        return Err(refuse(
            store,
            format!(
                "the state of run `{}` has {} bytes, at most {MAX_STATE}: split the run's days",
                run.0,
                text.len()
            ),
        ));
    }
    Ok(text)
}

/// What a store holds as JSON, read back.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(
    store: &'static str,
    key: &str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Damaged {
        store,
        key: key.to_owned(),
        reason: format!("not what was written there: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_a_path_would_read_otherwise_are_refused() {
        for key in ["", "/a", "a/", "a//b", "a/../b", "./a", "a\nb", &"k".repeat(1025)] {
            assert!(check_key("test", key).is_err(), "{key}");
        }
        for key in ["a", "a.b/c d", "größe/Ω#%2F", &"k".repeat(1024)] {
            assert!(check_key("test", key).is_ok(), "{key}");
        }
    }

    #[test]
    fn days_and_months_are_read_before_they_are_stored() {
        let unit =
            |day: &str| UnitId { workspace: "w".into(), day: day.into(), provider: "p".into() };
        assert!(check_unit("test", &unit("2026-11-20")).is_ok());
        for day in ["2026-11-31", "2026-1-1", "20261120", ""] {
            assert!(check_unit("test", &unit(day)).is_err(), "{day}");
        }
        assert!(check_month("test", "w", "2026-11").is_ok());
        assert!(check_month("test", "w", "2026-11-20").is_err());
    }
}
