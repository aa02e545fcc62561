//! The storage port on an SQLite in memory: the same statements as in a Durable Object, run natively in tests.

use std::cell::Cell;
use std::rc::Rc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};

use super::sql::{Row, Sql, SqlError};

/// A database in memory. A clone is the same database, so an object can be dropped and opened again from its storage.
#[derive(Clone)]
pub(crate) struct TestSql {
    connection: Rc<Connection>,
    /// Statements until storage fails; `None` for never.
    fuse: Rc<Cell<Option<u32>>>,
}

impl TestSql {
    pub(crate) fn new() -> Self {
        let connection = Rc::new(Connection::open_in_memory().unwrap());
        Self { connection, fuse: Rc::default() }
    }

    /// Runs `work` as the shell does: one transaction, rolled back when it fails.
    pub(crate) fn transact<T, E>(&self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.connection.execute_batch("BEGIN").unwrap();
        let result = work();
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.connection.execute_batch(end).unwrap();
        result
    }

    /// Lets storage fail after this many more statements; `None` mends it.
    pub(crate) fn fail_after(&self, statements: Option<u32>) {
        self.fuse.set(statements);
    }

    /// Everything that is stored, as text: to look for what must not be there.
    pub(crate) fn dump(&self) -> String {
        let tables = self.exec("SELECT name FROM sqlite_master WHERE type = 'table'", &[]).unwrap();
        let mut all = String::new();
        for table in tables.iter().flatten().flatten() {
            let columns =
                self.exec(&format!("SELECT name FROM pragma_table_info('{table}')"), &[]).unwrap();
            let columns: Vec<String> = columns
                .iter()
                .flatten()
                .flatten()
                .map(|column| format!("CAST(\"{column}\" AS TEXT)"))
                .collect();
            let select = format!("SELECT {} FROM \"{table}\"", columns.join(", "));
            for row in self.exec(&select, &[]).unwrap() {
                all.push_str(&format!("{table}: {row:?}\n"));
            }
        }
        all
    }
}

impl Sql for TestSql {
    fn exec(&self, statement: &str, params: &[Option<&str>]) -> Result<Vec<Row>, SqlError> {
        match self.fuse.get() {
            Some(0) => return Err(SqlError("the test's fuse".to_owned())),
            Some(left) => self.fuse.set(Some(left - 1)),
            None => {}
        }
        let broken = |e: rusqlite::Error| SqlError(e.to_string());
        let mut prepared = self.connection.prepare(statement).map_err(broken)?;
        let columns = prepared.column_count();
        let mut rows = prepared.query(params_from_iter(params)).map_err(broken)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(broken)? {
            let cell = |column| {
                Ok(match row.get_ref(column).map_err(broken)? {
                    ValueRef::Null => None,
                    ValueRef::Text(text) => Some(
                        String::from_utf8(text.to_vec()).map_err(|e| SqlError(e.to_string()))?,
                    ),
                    // In the Workers runtime it would cross as a JavaScript number, exact only to 2^53.
                    other => {
                        let kind = other.data_type();
                        return Err(SqlError(format!(
                            "column {column} crosses as {kind}: cast it to text"
                        )));
                    }
                })
            };
            found.push((0..columns).map(cell).collect::<Result<Row, SqlError>>()?);
        }
        Ok(found)
    }
}
