//! Schemas that grow: each object has a list of steps, and its database knows how many it has taken.

use super::sql::{Sql, SqlError, integer};

/// Takes the steps that this database lacks. A step is never edited once it shipped. A database that has taken more
/// steps than this build knows was written by a newer build: it is refused rather than misread.
pub fn migrate<S: Sql>(sql: &S, steps: &[&str]) -> Result<(), SqlError> {
    let create = "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)";
    sql.exec(create, &[])?;
    let rows = sql.exec("SELECT CAST(MAX(version) AS TEXT) FROM schema_version", &[])?;
    let version: usize = match rows.first() {
        Some(row) if row.first().is_some_and(Option::is_some) => integer(row, 0)?,
        _ => 0,
    };
    if version > steps.len() {
        return Err(SqlError(format!("schema version {version} is newer than this build")));
    }
    for (place, step) in steps.iter().enumerate().skip(version) {
        for statement in step.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            sql.exec(statement, &[])?;
        }
        let insert = "INSERT INTO schema_version (version) VALUES (CAST(? AS INTEGER))";
        sql.exec(insert, &[Some(&(place + 1).to_string())])?;
    }
    Ok(())
}
