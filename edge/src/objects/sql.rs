//! The storage port of the Durable Objects: synchronous SQL, so that between a load and a save nothing else runs.
//!
//! Every value crosses as text or NULL. JavaScript's numbers are exact only to 2^53, so a statement binds integers as
//! `CAST(? AS INTEGER)` and reads them as `CAST(x AS TEXT)`. When storage fails the caller refuses the request.

use tallygate_shared::money::Usd;

/// A row: its cells in the order of the SELECT.
pub type Row = Vec<Option<String>>;

/// Storage refused a statement. The text is the engine's and stays inside (logs), never in an answer to a caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("storage: {0}")]
pub struct SqlError(pub String);

/// One object's SQLite database.
pub trait Sql {
    /// Runs one statement; parameters replace its `?` in order.
    fn exec(&self, statement: &str, params: &[Option<&str>]) -> Result<Vec<Row>, SqlError>;
}

/// The text of a cell, or an error that names the column, for cells that the schema declares NOT NULL.
pub fn text(row: &Row, column: usize) -> Result<&str, SqlError> {
    row.get(column)
        .and_then(Option::as_deref)
        .ok_or_else(|| SqlError(format!("column {column} is missing or NULL")))
}

/// The integer of a cell that was read with `CAST(x AS TEXT)`.
pub fn integer<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T, SqlError> {
    text(row, column)?.parse().map_err(|_| SqlError(format!("column {column} is not an integer")))
}

/// Money for an INTEGER column: whole nanodollars, as text.
pub(super) fn nanos(amount: Usd) -> Result<String, SqlError> {
    let nanos =
        amount.nanos().ok_or_else(|| SqlError("an amount is no whole nanodollars".into()))?;
    Ok(nanos.to_string())
}
