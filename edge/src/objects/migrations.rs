//! STUB
use super::sql::{Sql, SqlError};
/// x
pub fn migrate<S: Sql>(sql: &S, steps: &[&str]) -> Result<(), SqlError> {
    sql.exec("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)", &[])?;
    let rows = sql.exec("SELECT 1 FROM schema_version", &[])?;
    if rows.is_empty() { for step in steps { for statement in step.split(';').filter(|s| !s.trim().is_empty()) { sql.exec(statement, &[])?; } } sql.exec("INSERT INTO schema_version (version) VALUES (1)", &[])?; }
    Ok(())
}
