//! Rows and their typed cells.

use std::sync::Arc;

use watchbell_core::{Time, Value};

use crate::error::DbError;
use crate::postgres::value::Read;

/// One cell, borrowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// SQL `NULL`.
    Null,
    /// An integer.
    Int(i64),
    /// A double.
    Float(f64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
}

impl Cell<'_> {
    const fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a double",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
        }
    }
}

/// What the rows of one statement have in common.
#[derive(Debug)]
pub(crate) struct Columns {
    pub(crate) target: String,
    pub(crate) names: Vec<String>,
}

impl Columns {
    #[cold]
    fn refuse(&self, index: usize, wanted: &'static str, found: &'static str) -> DbError {
        let column =
            self.names.get(index).map_or_else(|| format!("#{index}"), |n| format!("`{n}`"));
        DbError::Column { target: self.target.clone(), column, wanted, found }
    }
}

/// A row in memory.
#[derive(Debug, Clone)]
pub struct Row {
    cells: Box<[Value]>,
    columns: Arc<Columns>,
}

/// A row of a [`scan`](crate::Database::scan), valid for one call.
#[derive(Debug)]
pub struct RowRef<'a> {
    row: Source<'a>,
    columns: &'a Columns,
}

#[derive(Debug)]
enum Source<'a> {
    File(&'a rusqlite::Row<'a>),
    Server(&'a tokio_postgres::Row),
}

impl Row {
    pub(crate) fn read(
        row: &rusqlite::Row<'_>,
        width: usize,
        columns: &Arc<Columns>,
    ) -> Result<Self, DbError> {
        Self::copy(&RowRef::new(row, columns), width, columns)
    }

    pub(crate) fn of_server(
        row: &tokio_postgres::Row,
        columns: &Arc<Columns>,
    ) -> Result<Self, DbError> {
        Self::copy(&RowRef::server(row, columns), row.len(), columns)
    }

    fn copy(borrowed: &RowRef<'_>, width: usize, columns: &Arc<Columns>) -> Result<Self, DbError> {
        let cells = (0..width)
            .map(|i| {
                Ok(match borrowed.cell(i)? {
                    Cell::Null => Value::Null,
                    Cell::Int(v) => Value::Int(v),
                    Cell::Float(v) => Value::Float(v),
                    Cell::Text(v) => Value::Text(Arc::from(v)),
                    Cell::Bytes(v) => Value::Bytes(Arc::from(v)),
                })
            })
            .collect::<Result<_, DbError>>()?;
        Ok(Self { cells, columns: Arc::clone(columns) })
    }

    /// The cell at `index`, from 0.
    ///
    /// # Errors
    /// [`DbError::Column`] when there is no such column.
    #[inline]
    pub fn cell(&self, index: usize) -> Result<Cell<'_>, DbError> {
        Ok(match self.cells.get(index) {
            Some(Value::Null) => Cell::Null,
            Some(Value::Int(v)) => Cell::Int(*v),
            Some(Value::Float(v)) => Cell::Float(*v),
            Some(Value::Text(v)) => Cell::Text(v),
            Some(Value::Bytes(v)) => Cell::Bytes(v),
            None => return Err(self.columns.refuse(index, "a column of the result", "missing")),
        })
    }

    /// All cells.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.cells
    }

    /// Names of the columns.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.columns.names
    }

    /// Text at `index` that is shared, not copied.
    ///
    /// # Errors
    /// [`DbError::Column`] when the cell is not text.
    pub fn shared_text(&self, index: usize) -> Result<Arc<str>, DbError> {
        match self.cells.get(index) {
            Some(Value::Text(v)) => Ok(Arc::clone(v)),
            _ => Err(self.columns.refuse(index, "text", self.cell(index)?.kind())),
        }
    }
}

impl<'a> RowRef<'a> {
    pub(crate) const fn new(row: &'a rusqlite::Row<'a>, columns: &'a Columns) -> Self {
        Self { row: Source::File(row), columns }
    }

    pub(crate) const fn server(row: &'a tokio_postgres::Row, columns: &'a Columns) -> Self {
        Self { row: Source::Server(row), columns }
    }

    /// The cell at `index`, from 0.
    ///
    /// # Errors
    /// [`DbError::Column`] when there is no such column, its text is not UTF-8, or its type has no
    /// form here.
    #[inline]
    pub fn cell(&self, index: usize) -> Result<Cell<'a>, DbError> {
        match self.row {
            Source::File(row) => self.cell_of_file(row, index),
            Source::Server(row) => self.cell_of_server(row, index),
        }
    }

    /// Small enough to be part of the loops that read millions of numbers.
    #[inline]
    fn cell_of_file(&self, row: &'a rusqlite::Row<'a>, index: usize) -> Result<Cell<'a>, DbError> {
        use rusqlite::types::ValueRef;
        match row.get_ref(index) {
            Ok(ValueRef::Null) => Ok(Cell::Null),
            Ok(ValueRef::Integer(v)) => Ok(Cell::Int(v)),
            Ok(ValueRef::Real(v)) => Ok(Cell::Float(v)),
            Ok(ValueRef::Text(v)) => self.text_of_file(v, index),
            Ok(ValueRef::Blob(v)) => Ok(Cell::Bytes(v)),
            Err(_) => Err(self.columns.refuse(index, "a column of the result", "missing")),
        }
    }

    #[inline(never)]
    fn text_of_file(&self, bytes: &'a [u8], index: usize) -> Result<Cell<'a>, DbError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cell::Text(text)),
            Err(_) => Err(self.columns.refuse(index, "text", "not UTF-8")),
        }
    }

    #[inline(never)]
    fn cell_of_server(
        &self,
        row: &'a tokio_postgres::Row,
        index: usize,
    ) -> Result<Cell<'a>, DbError> {
        match row.try_get(index) {
            Ok(Read::Cell(cell)) => Ok(cell),
            Ok(Read::Foreign) => {
                Err(self.columns.refuse(index, "a type of ours", "of another type: cast it"))
            }
            Err(_) => Err(self.columns.refuse(index, "a column of the result", "missing")),
        }
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $get:ident, $opt:ident: $type:ty, $wanted:literal { $($arm:pat => $value:expr),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`DbError::Column`] when the cell holds something else.
            #[inline]
            pub fn $get(&self, index: usize) -> Result<$type, DbError> {
                match self.cell(index)? {
                    $($arm => Ok($value),)+
                    other => Err(self.columns.refuse(index, $wanted, other.kind())),
                }
            }
            $(#[$doc])*
            /// `NULL` is `None`.
            ///
            /// # Errors
            /// [`DbError::Column`] when the cell holds something else.
            #[inline]
            pub fn $opt(&self, index: usize) -> Result<Option<$type>, DbError> {
                match self.cell(index)? {
                    Cell::Null => Ok(None),
                    $($arm => Ok(Some($value)),)+
                    other => Err(self.columns.refuse(index, $wanted, other.kind())),
                }
            }
        )+

        /// The JSON document at `index`.
        ///
        /// # Errors
        /// [`DbError::Column`] when the cell is no JSON text.
        pub fn json(&self, index: usize) -> Result<serde_json::Value, DbError> {
            let text = self.text(index)?;
            serde_json::from_str(text)
                .map_err(|_| self.columns.refuse(index, "JSON", "text that does not parse"))
        }

        /// The JSON document at `index`; `NULL` is `None`.
        ///
        /// # Errors
        /// [`DbError::Column`] when the cell is no JSON text.
        pub fn opt_json(&self, index: usize) -> Result<Option<serde_json::Value>, DbError> {
            if matches!(self.cell(index)?, Cell::Null) { Ok(None) } else { self.json(index).map(Some) }
        }
    };
    (all) => {
        getters! {
            /// The integer at `index`.
            i64, opt_i64: i64, "an integer" { Cell::Int(v) => v }
            /// The number at `index`; an integer is converted.
            f64, opt_f64: f64, "a number" { Cell::Float(v) => v, Cell::Int(v) => v as f64 }
            /// The truth value at `index`, stored as an integer.
            bool, opt_bool: bool, "a truth value" { Cell::Int(v) => v != 0 }
            /// The instant at `index`, stored as epoch milliseconds.
            time, opt_time: Time, "an instant" { Cell::Int(v) => Time(v) }
            /// The text at `index`.
            text, opt_text: &str, "text" { Cell::Text(v) => v }
            /// The bytes at `index`.
            bytes, opt_bytes: &[u8], "bytes" { Cell::Bytes(v) => v }
        }
    };
}

impl Row {
    getters! { all }
}

impl RowRef<'_> {
    getters! { all }
}
