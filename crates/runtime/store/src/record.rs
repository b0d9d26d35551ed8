//! Rows to records: the words in the columns, and what is said when a word is not one of ours.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;
use watchbell_core::port::StoreError;
use watchbell_core::{Millis, SessionId, Value};
use watchbell_db::{DbError, Row};

/// A failure of the database, as the port says it.
pub(crate) fn failed(error: DbError) -> StoreError {
    StoreError::Database(Box::new(error))
}

/// A column holds a word or document that no version of ours writes.
#[derive(Debug, thiserror::Error)]
#[error("column {index} of {table} holds {found}, which is not a {wanted}: was it edited by hand?")]
struct Foreign {
    table: &'static str,
    index: usize,
    found: String,
    wanted: &'static str,
}

/// Reads the columns of one table's rows.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) table: &'static str,
    pub(crate) row: &'a Row,
}

impl Reader<'_> {
    fn foreign(self, index: usize, found: &dyn Display, wanted: &'static str) -> ReadError {
        let (table, found) = (self.table, found.to_string());
        ReadError(StoreError::Database(Box::new(Foreign { table, index, found, wanted })))
    }

    /// A word that `parse` knows.
    pub(crate) fn word<T>(
        self,
        index: usize,
        wanted: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ReadError> {
        let word = self.row.text(index)?;
        parse(word).ok_or_else(|| self.foreign(index, &word, wanted))
    }

    /// A JSON document of a known shape.
    pub(crate) fn doc<T: DeserializeOwned>(
        self,
        index: usize,
        wanted: &'static str,
    ) -> Result<T, ReadError> {
        let text = self.row.text(index)?;
        serde_json::from_str(text).map_err(|_| self.foreign(index, &text, wanted))
    }

    /// A JSON document of a known shape, or `NULL`.
    pub(crate) fn opt_doc<T: DeserializeOwned>(
        self,
        index: usize,
        wanted: &'static str,
    ) -> Result<Option<T>, ReadError> {
        self.row.opt_text(index)?.map(|_| self.doc(index, wanted)).transpose()
    }

    /// A count.
    pub(crate) fn count(self, index: usize) -> Result<u32, ReadError> {
        let n = self.row.i64(index)?;
        u32::try_from(n).map_err(|_| self.foreign(index, &n, "count"))
    }

    pub(crate) fn string(self, index: usize) -> Result<String, ReadError> {
        Ok(self.row.text(index)?.to_owned())
    }

    pub(crate) fn opt_string(self, index: usize) -> Result<Option<String>, ReadError> {
        Ok(self.row.opt_text(index)?.map(str::to_owned))
    }

    pub(crate) fn opt_millis(self, index: usize) -> Result<Option<Millis>, ReadError> {
        Ok(self.row.opt_i64(index)?.map(Millis))
    }

    /// A document that may be missing: `null` then.
    pub(crate) fn json_or_null(self, index: usize) -> Result<serde_json::Value, ReadError> {
        Ok(self.row.opt_json(index)?.unwrap_or(serde_json::Value::Null))
    }
}

/// An error of the store that a `?` on the database's error becomes.
#[derive(Debug)]
pub(crate) struct ReadError(pub(crate) StoreError);

impl From<DbError> for ReadError {
    fn from(e: DbError) -> Self {
        Self(failed(e))
    }
}
impl From<StoreError> for ReadError {
    fn from(e: StoreError) -> Self {
        Self(e)
    }
}
impl From<ReadError> for StoreError {
    fn from(e: ReadError) -> Self {
        e.0
    }
}

/// Reads all rows of one table.
pub(crate) fn all<T>(
    table: &'static str,
    rows: &[Row],
    read: impl Fn(Reader<'_>) -> Result<T, ReadError>,
) -> Result<Vec<T>, StoreError> {
    let records = rows.iter().map(|row| read(Reader { table, row })).collect::<Result<_, _>>();
    records.map_err(StoreError::from)
}

/// Reads one row.
pub(crate) fn one<T>(
    table: &'static str,
    row: &Row,
    read: impl Fn(Reader<'_>) -> Result<T, ReadError>,
) -> Result<T, StoreError> {
    read(Reader { table, row }).map_err(StoreError::from)
}

/// A document as a parameter.
pub(crate) fn json(value: &impl Serialize) -> Value {
    // Our own records always serialise; a foreign map with keys that are no texts is the one case
    // that does not, and it is stored as null rather than lost with its commit.
    serde_json::to_string(value).map_or(Value::Null, Value::from)
}

/// A document as a parameter; JSON null is `NULL`.
pub(crate) fn json_or_null(value: &serde_json::Value) -> Value {
    if value.is_null() { Value::Null } else { Value::from(value.to_string()) }
}

/// A session as a parameter.
pub(crate) fn session(id: &SessionId) -> Value {
    Value::Text(id.shared())
}
