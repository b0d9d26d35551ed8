//! Answers read piece by piece, so that what is wrong is named by its place: `data[0].asks[3].price`.
//!
//! Numbers are read from the text of the answer itself, whether they come as text or as JSON numbers.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::binance::wire::{cut, parse_amount, parse_price};

/// An answer that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError {
    path: String,
    problem: String,
}

impl PayloadError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self { path: String::new(), problem: problem.into() }
    }

    /// The same, one level further out.
    pub(super) fn within(mut self, step: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{dot}{}", self.path);
        self
    }

    pub(super) fn row(self, i: usize) -> Self {
        self.within(&format!("[{i}]"))
    }

    /// Where: field names and row numbers from 0, such as `data[0].asks[3].price`. Empty for the
    /// answer as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong there.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", cut(&self.path, 80))?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for PayloadError {}

pub(super) type Read<T> = Result<T, PayloadError>;

/// A value in an answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a>(&'a RawValue);

impl<'a> Node<'a> {
    /// The whole answer, proved to be JSON to its last byte.
    pub(super) fn parse(body: &'a [u8]) -> Read<Self> {
        let body = body.trim_ascii();
        match body.first() {
            None => return Err(PayloadError::new("the body is empty")),
            Some(b'<') => return Err(PayloadError::new("HTML where JSON was expected")),
            Some(_) => {}
        }
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|e| PayloadError::new(format!("not JSON: {}", cut(&e.to_string(), 120))))
    }

    /// What it is, for messages.
    fn shape(self) -> &'static str {
        match self.0.get().as_bytes().first() {
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b'"') => "text",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') | None => "null",
            Some(_) => "a number",
        }
    }

    fn not(self, wanted: &str) -> PayloadError {
        PayloadError::new(format!("{} where {wanted} was expected", self.shape()))
    }

    pub(super) fn is_array(self) -> bool {
        self.shape() == "an array"
    }

    pub(super) fn object(self) -> Read<Object<'a>> {
        Object::deserialize(self.0).map_err(|_| self.not("an object"))
    }

    /// Reads each element of an array.
    pub(super) fn each<T>(self, mut read: impl FnMut(usize, Self) -> Read<T>) -> Read<Vec<T>> {
        if !self.is_array() {
            return Err(self.not("an array"));
        }
        let List(nodes) = List::deserialize(self.0).map_err(|_| self.not("an array"))?;
        nodes.into_iter().enumerate().map(|(i, n)| read(i, n).map_err(|e| e.row(i))).collect()
    }

    /// The cells of a row that has exactly `width`.
    pub(super) fn row(self, width: usize) -> Read<Row<'a>> {
        let row = Row::deserialize(self.0).map_err(|_| self.not("a row"))?;
        if row.len != width {
            return Err(PayloadError::new(format!("{} values where {width} belong", row.len)));
        }
        Ok(row)
    }

    pub(super) fn text(self) -> Read<Cow<'a, str>> {
        Text::deserialize(self.0).map(|t| t.0).map_err(|_| self.not("text"))
    }

    pub(super) fn string(self) -> Read<String> {
        self.text().map(Cow::into_owned)
    }

    pub(super) fn flag(self) -> Read<bool> {
        bool::deserialize(self.0).map_err(|_| self.not("true or false"))
    }

    /// A whole number, as a JSON number.
    pub(super) fn integer(self) -> Read<i64> {
        i64::deserialize(self.0).map_err(|_| self.not("a whole number"))
    }

    /// A whole number as text.
    pub(super) fn integer_text(self) -> Read<i64> {
        let text = self.text()?;
        text.parse().map_err(|_| wrong(&text, "a whole number"))
    }

    /// A positive price as decimal text, with no more digits than a double keeps.
    pub(super) fn price(self) -> Read<f64> {
        let value = parse_price(&self.text()?).map_err(PayloadError::new)?;
        positive(value)
    }

    /// An amount as decimal text, zero or more, rounded to the nearest double.
    pub(super) fn amount(self) -> Read<f64> {
        let value = parse_amount(&self.text()?).map_err(PayloadError::new)?;
        not_negative(value)
    }

    /// A positive price as a JSON number.
    pub(super) fn price_number(self) -> Read<f64> {
        positive(self.number()?)
    }

    /// An amount as a JSON number, zero or more.
    pub(super) fn amount_number(self) -> Read<f64> {
        not_negative(self.number()?)
    }

    fn number(self) -> Read<f64> {
        if self.shape() != "a number" {
            return Err(self.not("a number"));
        }
        let text = self.0.get();
        text.parse().map_err(|_| wrong(text, "a number"))
    }
}

fn wrong(text: &str, wanted: &str) -> PayloadError {
    PayloadError::new(format!("`{}` is not {wanted}", cut(text, 40)))
}

fn positive(value: f64) -> Read<f64> {
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(PayloadError::new(format!("{value} is not a positive price")))
}

fn not_negative(value: f64) -> Read<f64> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(PayloadError::new(format!("{value} is not an amount")))
}

/// An object, with its fields in their order.
#[derive(Debug)]
pub(super) struct Object<'a> {
    fields: Vec<(Cow<'a, str>, Node<'a>)>,
}

impl<'a> Object<'a> {
    pub(super) fn find(&self, name: &str) -> Option<Node<'a>> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, node)| *node)
    }

    /// Reads a field that must be there.
    pub(super) fn get<T>(&self, name: &str, read: impl FnOnce(Node<'a>) -> Read<T>) -> Read<T> {
        let node = self.find(name).ok_or_else(|| PayloadError::new("the field is missing"));
        node.and_then(read).map_err(|e| e.within(name))
    }

    /// Reads a field that may be absent or `null`.
    pub(super) fn get_if<T>(
        &self,
        name: &str,
        read: impl FnOnce(Node<'a>) -> Read<T>,
    ) -> Read<Option<T>> {
        let node = self.find(name).filter(|n| n.shape() != "null");
        node.map(read).transpose().map_err(|e| e.within(name))
    }

    /// Reads each field.
    pub(super) fn each<T>(&self, mut read: impl FnMut(&str, Node<'a>) -> Read<T>) -> Read<Vec<T>> {
        let fields = self.fields.iter();
        fields.map(|(name, node)| read(name, *node).map_err(|e| e.within(name))).collect()
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_ref())
    }
}

/// The most cells that a row of any exchange has, and some more to count them.
const CELLS: usize = 16;

/// A row of a table: an array of known width.
#[derive(Debug)]
pub(super) struct Row<'a> {
    cells: [Option<Node<'a>>; CELLS],
    len: usize,
}

impl<'a> Row<'a> {
    /// Reads cell `at`, which goes by `name`.
    pub(super) fn get<T>(
        &self,
        at: usize,
        name: &str,
        read: impl FnOnce(Node<'a>) -> Read<T>,
    ) -> Read<T> {
        let cell = self.cells.get(at).copied().flatten();
        let node = cell.ok_or_else(|| PayloadError::new("the value is missing"));
        node.and_then(read).map_err(|e| e.within(name))
    }
}

/// Text, borrowed from the answer where nothing in it is escaped.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct List<'a>(#[serde(borrow)] Vec<Node<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(d).map(Self)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((Text(name), node)) = map.next_entry::<Text<'de>, Node<'de>>()? {
                    fields.push((name, node));
                }
                Ok(Object { fields })
            }
        }
        d.deserialize_map(Fields)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Row<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Cells;
        impl<'de> Visitor<'de> for Cells {
            type Value = Row<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Row<'de>, A::Error> {
                let mut row = Row { cells: [None; CELLS], len: 0 };
                while let Some(node) = seq.next_element::<Node<'de>>()? {
                    if let Some(cell) = row.cells.get_mut(row.len) {
                        *cell = Some(node);
                    }
                    row.len += 1;
                }
                Ok(row)
            }
        }
        d.deserialize_seq(Cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(json: &str) -> Node<'_> {
        Node::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let text = r#"{"data":[{"asks":[["1.5","2"],["x","3"]],"ts":5,"on":null}]}"#;
        let levels = |n: Node<'_>| {
            n.each(|_, level| {
                let row = level.row(2)?;
                Ok((row.get(0, "price", Node::price)?, row.get(1, "size", Node::amount)?))
            })
        };
        let read = |field: &'static str| {
            node(text).object()?.get("data", |n| n.each(|_, n| n.object()?.get(field, levels)))
        };
        let error = read("asks").unwrap_err();
        assert_eq!(error.path(), "data[0].asks[1].price");
        assert_eq!(error.to_string(), "data[0].asks[1].price: `x` is not a decimal number");
        let error = read("bids").unwrap_err();
        assert_eq!(error.to_string(), "data[0].bids: the field is missing");
        let error = read("ts").unwrap_err();
        assert_eq!(error.to_string(), "data[0].ts: a number where an array was expected");
        assert_eq!(node("[1,2,3]").row(2).unwrap_err().problem(), "3 values where 2 belong");
        assert_eq!(
            node("null").object().unwrap_err().problem(),
            "null where an object was expected"
        );
        let odd = node(r#"{"a":null}"#).object().unwrap();
        assert_eq!(odd.get_if("a", Node::integer), Ok(None));
        assert_eq!(odd.get_if("b", Node::integer), Ok(None));
    }

    #[test]
    fn numbers_keep_their_digits_and_their_kind() {
        for (json, value) in [("63733.03", 63_733.03), ("1e-7", 1e-7), ("12", 12.0), ("0.1", 0.1)] {
            assert_eq!(node(json).price_number(), Ok(value));
        }
        for json in ["0", "-1", "\"5\"", "null", "1e999", "[1]"] {
            assert!(node(json).price_number().is_err(), "{json}");
        }
        for json in ["\"NaN\"", "\"inf\"", "\"-1\"", "\"\"", "\"1e5\"", "5", "null", "\"0x1\""] {
            assert!(node(json).price().is_err(), "{json}");
            assert!(node(json).amount().is_err(), "{json}");
        }
        assert_eq!((node("\"0\"").amount(), node("0.0").amount_number()), (Ok(0.0), Ok(0.0)));
        assert!(node("\"0.000\"").price().is_err());
        assert_eq!(node("\"a\\u0062\"").string(), Ok("ab".into()));
        assert!(node("1.5").integer().is_err() && node("\"1.5\"").integer_text().is_err());
    }

    #[test]
    fn whole_answers_that_are_none() {
        for (body, want) in [
            ("", "the body is empty"),
            (" \n", "the body is empty"),
            ("<!DOCTYPE html>", "HTML where JSON was expected"),
            ("{\"a\":[1,2", "not JSON: EOF while parsing"),
            ("[1] x", "not JSON: trailing characters"),
            ("upstream timed out", "not JSON: expected value"),
        ] {
            let error = Node::parse(body.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(want) && error.path().is_empty(), "{error}");
        }
        assert!(Node::parse(b"\"\xff\"").is_err());
    }
}
