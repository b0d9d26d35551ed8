//! Named lines of migrations: what to apply, and when to refuse. Pure; the engines carry it out.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::error::DbError;

/// The migrations of one owner of tables, in order.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Whose tables, such as `runtime` or `market`.
    pub name: &'static str,
    /// Numbered 1, 2, 3, ...
    pub migrations: &'static [Migration],
}

/// One change of the schema. Once released, its text never changes.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its number, from 1.
    pub number: u32,
    /// A few words, such as `window_corrections`.
    pub name: &'static str,
    /// Statements in the common form, separated by semicolons.
    pub sql: &'static str,
}

impl Migration {
    /// SHA-256 of the text, in hex: recorded when it is applied.
    #[must_use]
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.sql.as_bytes());
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            for nibble in [byte >> 4, byte & 15] {
                hex.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
            hex
        })
    }
}

/// A migration by its place: `runtime/3 window_corrections`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The line.
    pub line: &'static str,
    /// The number.
    pub number: u32,
    /// The name.
    pub name: &'static str,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.line, self.number, self.name)
    }
}

/// Checksums of what was applied, by line and number.
pub(crate) type History = BTreeMap<(String, u32), String>;

/// What is still to apply, in order.
///
/// # Errors
/// The schema is newer, a text changed, or there is a hole.
pub(crate) fn plan<'a>(
    lines: &'a [Line],
    history: &History,
) -> Result<Vec<(&'a Line, &'a Migration)>, DbError> {
    let mut todo = Vec::new();
    for line in lines {
        let hole = |number| DbError::MigrationHole { line: line.name.to_owned(), number };
        let known = line.migrations.len() as u32;
        let newest = history.keys().filter(|(l, _)| l == line.name).map(|(_, n)| *n).max();
        let newest = newest.unwrap_or(0);
        if newest > known {
            return Err(DbError::SchemaNewer { line: line.name.to_owned(), found: newest, known });
        }
        for (number, migration) in (1..).zip(line.migrations) {
            if migration.number != number {
                return Err(hole(number));
            }
            match history.get(&(line.name.to_owned(), number)) {
                Some(applied) if *applied != migration.checksum() => {
                    return Err(DbError::MigrationChanged {
                        line: line.name.to_owned(),
                        number,
                        name: migration.name.to_owned(),
                    });
                }
                Some(_) => {}
                None if number < newest => return Err(hole(number)),
                None => todo.push((line, migration)),
            }
        }
    }
    Ok(todo)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: Line = Line {
        name: "runtime",
        migrations: &[
            Migration { number: 1, name: "one", sql: "a" },
            Migration { number: 2, name: "two", sql: "b" },
            Migration { number: 3, name: "three", sql: "c" },
        ],
    };

    fn history(numbers: &[u32]) -> History {
        numbers
            .iter()
            .map(|&n| {
                let text = LINE.migrations.get(n as usize - 1).map(Migration::checksum);
                (("runtime".to_owned(), n), text.unwrap_or_default())
            })
            .collect()
    }

    #[test]
    fn a_plan_continues_where_the_history_ends_and_refuses_what_it_does_not_know() {
        let numbers = |h: &[u32]| {
            plan(&[LINE], &history(h)).map(|p| p.iter().map(|(_, m)| m.number).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&[]).unwrap(), [1, 2, 3]);
        assert_eq!(numbers(&[1, 2]).unwrap(), [3]);
        assert!(numbers(&[1, 2, 3]).unwrap().is_empty());
        for (applied, says) in [
            (&[1, 2, 3, 4][..], "is at runtime/4, this binary knows up to runtime/3"),
            (&[1, 3], "runtime/2 is missing"),
        ] {
            assert!(numbers(applied).unwrap_err().to_string().contains(says), "{applied:?}");
        }
        let mut changed = history(&[1]);
        changed.insert(("runtime".to_owned(), 1), "other".to_owned());
        let refused = plan(&[LINE], &changed).unwrap_err();
        assert!(matches!(refused, DbError::MigrationChanged { number: 1, .. }), "{refused}");
    }

    #[test]
    fn a_checksum_is_sha256_in_hex() {
        let m = Migration { number: 1, name: "", sql: "abc" };
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(m.checksum(), known);
    }
}
