//! What is known of each text: its translation, and the types that the server gave its parameters.
//!
//! The server infers those types. Where it cannot (`case when $1 is null ..`), or infers one that
//! does not fit the value (`$1 = 1` is a 32-bit integer), the text is prepared again with the types
//! that the values have. What was found out is kept for all connections.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Statement as Prepared;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use watchbell_core::{Statement, Value};

use super::fault::{Failure, Place};
use super::session::Open;
use super::value::{array_of, fits, natural};
use crate::dialect::{self, RowInsert, Translated};
use crate::error::DbError;
use crate::row::Columns;

/// Texts that are made at run time and kept; constant texts are all kept.
const MADE_TEXTS: usize = 1_024;
/// Statements prepared on one connection before all are dropped.
const STATEMENTS: usize = 1_024;
/// Tries to find types for what the server cannot infer.
const GUESSES: usize = 48;
/// What a parameter that is `NULL` may be.
const NULLS: [Type; 5] = [Type::INT8, Type::TEXT, Type::FLOAT8, Type::BYTEA, Type::JSON];

/// All texts in use.
#[derive(Default)]
pub(super) struct Texts {
    constant: Mutex<HashMap<(usize, usize), Arc<Text>>>,
    made: Mutex<HashMap<String, Arc<Text>>>,
}

/// One text in the common form.
pub(super) struct Text {
    pub(super) common: Cow<'static, str>,
    pub(super) target: String,
    pub(super) translated: Translated,
    /// Nothing is left of it on this engine.
    pub(super) empty: bool,
    insert: Option<RowInsert>,
    shapes: Mutex<Shapes>,
}

#[derive(Default)]
struct Shapes {
    known: Vec<Arc<Shape>>,
    /// A better one was looked for in vain: the first has to do.
    settled: bool,
}

/// One way to prepare a text.
pub(super) struct Shape {
    /// Types given when it is prepared; the server infers the others.
    pub(super) pins: Vec<Type>,
    /// The type of each parameter.
    pub(super) types: Vec<Type>,
    pub(super) columns: Arc<Columns>,
    /// The same for many rows at once.
    pub(super) set: Option<Set>,
}

/// A text that runs once for many rows.
pub(super) struct Set {
    pub(super) sql: String,
    /// The arrays that it takes.
    pub(super) types: Vec<Type>,
}

/// How the server is asked for types.
#[derive(Clone, Copy)]
pub(super) struct Probe<'a> {
    pub(super) client: &'a ClientWrapper,
    /// What is prepared must go with the transaction in which it was.
    pub(super) passing: bool,
}

impl Probe<'_> {
    async fn prepare(
        self,
        sql: &str,
        pins: &[Type],
    ) -> Result<(Vec<Type>, Vec<String>), tokio_postgres::Error> {
        if self.passing {
            let open = Open::new(self.client);
            self.client.batch_execute("begin").await?;
            // Dropped, and so closed, before the rollback is sent.
            let described = describe(&self.client.prepare_typed(sql, pins).await?);
            drop(open);
            return Ok(described);
        }
        let cache = &self.client.statement_cache;
        if cache.size() >= STATEMENTS {
            cache.clear();
        }
        Ok(describe(&cache.prepare_typed(self.client, sql, pins).await?))
    }
}

/// The types of the parameters and the names of the columns.
fn describe(prepared: &Prepared) -> (Vec<Type>, Vec<String>) {
    let names = prepared.columns().iter().map(|c| c.name().to_owned()).collect();
    (prepared.params().to_vec(), names)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Texts {
    pub(super) fn get(&self, sql: &Cow<'static, str>) -> Arc<Text> {
        match sql {
            Cow::Borrowed(text) => {
                let key = (text.as_ptr() as usize, text.len());
                let mut known = lock(&self.constant);
                Arc::clone(known.entry(key).or_insert_with(|| Arc::new(Text::new(sql.clone()))))
            }
            Cow::Owned(text) => {
                let mut known = lock(&self.made);
                if let Some(found) = known.get(text) {
                    return Arc::clone(found);
                }
                if known.len() >= MADE_TEXTS {
                    known.clear();
                }
                let new = Arc::new(Text::new(sql.clone()));
                known.insert(text.clone(), Arc::clone(&new));
                new
            }
        }
    }
}

/// The values of one parameter, over all rows.
fn column(params: &[Value], width: usize, place: usize) -> impl Iterator<Item = &Value> {
    params.iter().skip(place).step_by(width.max(1))
}

impl Text {
    fn new(common: Cow<'static, str>) -> Self {
        let target = Statement::new(common.clone(), Vec::new()).target().to_owned();
        let translated = dialect::to_postgres(&common);
        let empty = dialect::is_empty(&translated.sql);
        let insert = if translated.rows { None } else { dialect::row_insert(&translated.sql) };
        Self { common, target, translated, empty, insert, shapes: Mutex::default() }
    }

    pub(super) fn place(&self, index: usize) -> Place<'_> {
        Place { index, target: &self.target, sql: &self.common }
    }

    /// Forgets what the server said: the schema has changed.
    pub(super) fn forget(&self) {
        *lock(&self.shapes) = Shapes::default();
    }

    /// A way to prepare the text that fits these values: of one row, or of rows of `width`.
    pub(super) async fn shape(
        &self,
        probe: Probe<'_>,
        params: &[Value],
        width: usize,
    ) -> Result<Arc<Shape>, Failure> {
        let stride = if width == 0 { params.len() } else { width };
        let suits = |shape: &Shape| {
            self.translated.rows
                || (shape.types.iter().enumerate())
                    .all(|(place, ty)| column(params, stride, place).all(|v| fits(v, ty)))
        };
        let first = {
            let shapes = lock(&self.shapes);
            let found = shapes.known.iter().find(|shape| suits(shape));
            match (found.or(shapes.known.first()), shapes.settled) {
                (Some(shape), settled) if found.is_some() || settled => {
                    return Ok(Arc::clone(shape));
                }
                (first, _) => first.cloned(),
            }
        };
        let first = match first {
            Some(first) => first,
            None => {
                let first = Arc::new(self.learn(probe, Vec::new(), params, stride).await?);
                lock(&self.shapes).known.push(Arc::clone(&first));
                if suits(&first) {
                    return Ok(first);
                }
                first
            }
        };
        let pins = (first.types.iter().enumerate()).map(|(place, ty)| {
            let misfit = column(params, stride, place).find(|v| !fits(v, ty));
            misfit.and_then(natural).unwrap_or_else(|| ty.clone())
        });
        match self.learn(probe, pins.collect(), params, stride).await {
            Ok(better) => {
                let better = Arc::new(better);
                lock(&self.shapes).known.push(Arc::clone(&better));
                Ok(better)
            }
            Err(Failure::Engine(e)) if e.as_db_error().is_some() => {
                lock(&self.shapes).settled = true;
                Ok(first)
            }
            Err(lost) => Err(lost),
        }
    }

    fn set(&self, types: &[Type]) -> Option<Set> {
        if self.translated.rows {
            return Some(Set { sql: self.translated.sql.clone(), types: types.to_vec() });
        }
        let insert = self.insert.as_ref()?;
        let (arrays, casts): (Vec<_>, Vec<_>) = types
            .iter()
            .map(array_of)
            .map(|(array, name, cast)| (array, (name.to_owned(), cast)))
            .unzip();
        Some(Set { sql: insert.sql(&casts), types: arrays })
    }

    /// Prepares the text, and gives a type to what the server cannot infer.
    async fn learn(
        &self,
        probe: Probe<'_>,
        mut pins: Vec<Type>,
        params: &[Value],
        stride: usize,
    ) -> Result<Shape, Failure> {
        let sql = &self.translated.sql;
        // Parameters whose type is a guess, with the place of the guess among `NULLS`.
        let mut guessed: Vec<(usize, usize)> = Vec::new();
        let mut reason = None;
        for _ in 0..GUESSES {
            let error = match probe.prepare(sql, &pins).await {
                Ok((types, names)) => {
                    let columns = Arc::new(Columns { target: self.target.clone(), names });
                    let set = self.set(&types);
                    return Ok(Shape { pins, types, columns, set });
                }
                Err(error) => error,
            };
            let unknown = ambiguous(&error)
                .filter(|n| *n <= params.len().min(stride.max(1)))
                .filter(|n| pins.get(n - 1).is_none_or(|ty| *ty == Type::UNKNOWN));
            match unknown {
                Some(number) => {
                    if pins.len() < number {
                        pins.resize(number, Type::UNKNOWN);
                    }
                    let known = column(params, stride, number - 1).find_map(natural);
                    if known.is_none() {
                        guessed.push((number, 0));
                    }
                    pins[number - 1] = known.unwrap_or_else(|| NULLS[0].clone());
                }
                None => {
                    if !next_guess(&mut guessed, &mut pins) {
                        return Err(reason.unwrap_or(error).into());
                    }
                }
            }
            reason.get_or_insert(error);
        }
        let detail = "the types of its parameters cannot be told: cast them".to_owned();
        let gave_up = || {
            let (target, sql) = (self.target.clone(), self.common.clone().into_owned());
            Failure::Told(DbError::Statement { target, detail, sql })
        };
        Err(reason.map_or_else(gave_up, Failure::Engine))
    }
}

/// The parameter whose type the server could not settle. Its words depend on the language of the
/// server; the number in them does not.
fn ambiguous(error: &tokio_postgres::Error) -> Option<usize> {
    let reported = error.as_db_error()?;
    let code = reported.code();
    if *code != SqlState::AMBIGUOUS_PARAMETER && *code != SqlState::INDETERMINATE_DATATYPE {
        return None;
    }
    let (_, after) = reported.message().split_once('$')?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|n| *n > 0)
}

/// Goes on to the next combination of guesses; false when all were tried.
fn next_guess(guessed: &mut Vec<(usize, usize)>, pins: &mut [Type]) -> bool {
    while let Some((number, guess)) = guessed.pop() {
        if let Some(next) = NULLS.get(guess + 1) {
            guessed.push((number, guess + 1));
            pins[number - 1] = next.clone();
            return true;
        }
        pins[number - 1] = Type::UNKNOWN;
    }
    false
}
