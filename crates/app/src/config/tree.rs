//! A YAML document in which every value knows where it came from.
//!
//! The file is read into this tree, variables and flags are laid over it, and only then is it
//! checked and read into [`Raw`](super::raw::Raw). So all problems are found in one go, each with
//! its place, and `config show` can name the origin of each value.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::problem::{ConfigError, Origin, Problem, Source};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) data: Data,
}

/// What a value is. Scalars are kept as text: what a text means (`off`, `1e3`) depends on the key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Data {
    Empty,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_origin: Origin,
    pub(super) node: Node,
}

impl Node {
    /// An empty document.
    pub(super) fn empty() -> Self {
        Self { origin: Origin::Default, data: Data::Empty }
    }

    /// A text from outside the file. One that begins with `[` or `{` is read as YAML.
    pub(super) fn outside(text: &str, origin: &Origin) -> Self {
        let mut node = match text.trim_start().starts_with(['[', '{']).then(|| read(text)) {
            Some(Ok(node)) => node,
            Some(Err(_)) | None => {
                Self { origin: origin.clone(), data: Data::Scalar(text.trim().to_owned()) }
            }
        };
        node.move_to(origin);
        node
    }

    fn move_to(&mut self, origin: &Origin) {
        self.origin = origin.clone();
        match &mut self.data {
            Data::List(items) => items.iter_mut().for_each(|n| n.move_to(origin)),
            Data::Map(entries) => entries.iter_mut().for_each(|e| {
                e.key_origin = origin.clone();
                e.node.move_to(origin);
            }),
            Data::Empty | Data::Scalar(_) => {}
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is not YAML, or has a key twice, with its place.
    pub(super) fn parse(source: &Source) -> Result<Self, ConfigError> {
        read(&source.text).map_err(|error| {
            let error = error.without_snippet();
            let origin = error.location().map_or(Origin::Default, |l| at(l, &source.text));
            let (message, allowed) = plain_words(error);
            let mut problem = Problem::new(&origin, Some(source), "", message, allowed);
            if problem.place.is_empty() {
                problem.place.clone_from(&source.name);
            }
            ConfigError { problems: vec![problem] }
        })
    }

    /// The value of a key of this map.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|e| &e.node)
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|e| e.key == key),
            Data::Empty | Data::Scalar(_) | Data::List(_) => None,
        }
    }

    /// The scalar at a path, as text.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        match &self.find(path)?.data {
            Data::Scalar(text) => Some(text),
            Data::Empty | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The value at `market.windows[1]`.
    pub(super) fn find(&self, path: &str) -> Option<&Self> {
        path.split(['.', '[']).filter(|s| !s.is_empty()).try_fold(self, |node, step| {
            match step.strip_suffix(']').and_then(|i| i.parse::<usize>().ok()) {
                Some(index) => match &node.data {
                    Data::List(items) => items.get(index),
                    Data::Empty | Data::Scalar(_) | Data::Map(_) => None,
                },
                None => node.get(step),
            }
        })
    }

    /// Where the value at `path` came from: its own origin, or that of the nearest value around it.
    pub(super) fn origin_of(&self, path: &str) -> Origin {
        let mut path = path;
        loop {
            if let Some(node) = self.find(path) {
                return node.origin.clone();
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return Origin::Default,
            }
        }
    }

    /// Where the last key of `path` is written, for a problem with the name itself.
    pub(super) fn key_origin_of(&self, path: &str) -> Origin {
        let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.find(parent)
            .and_then(|node| node.entry(key))
            .map_or_else(|| self.origin_of(path), |e| e.key_origin.clone())
    }

    /// Puts `node` at the path, over what is there. A value of the wrong shape on the way is left
    /// alone: it is a problem of its own.
    pub(super) fn put(&mut self, path: &[String], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if self.data == Data::Empty {
            self.data = Data::Map(Vec::new());
        }
        let Data::Map(entries) = &mut self.data else { return };
        let index = entries.iter().position(|e| e.key == *first).unwrap_or_else(|| {
            entries.push(Entry {
                key: first.clone(),
                key_origin: node.origin.clone(),
                node: Self::empty(),
            });
            entries.len() - 1
        });
        entries[index].node.put(rest, node);
    }
}

/// The parser's error in words that speak of the file, not of the parser's interface.
fn plain_words(error: &serde_saphyr::Error) -> (String, Option<String>) {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    if let Some(rest) = text.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(',').next().unwrap_or(rest);
        return (format!("the key `{key}` is here twice"), Some("each key once".to_owned()));
    }
    if text.starts_with("multiple YAML documents") {
        let allowed = Some("one document; remove the `---` and what follows".to_owned());
        return ("there is a second YAML document".to_owned(), allowed);
    }
    if text.starts_with("tabs disallowed") {
        return ("a tab indents this line".to_owned(), Some("spaces".to_owned()));
    }
    let hints = [
        ("alias", "`*` and `&` begin a reference: quotes around the value, as in \"*/5 * * * *\""),
        ("mapping values are not allowed", "quotes around a value with a colon in it"),
        ("illegal placement of ':'", "a `]` or `}` for each bracket of the lines above"),
    ];
    let hint = hints.iter().find(|(part, _)| text.contains(part));
    (format!("not YAML: {text}"), hint.map(|(_, allowed)| (*allowed).to_owned()))
}

fn at(location: Location, text: &str) -> Origin {
    let line = usize::try_from(location.line()).unwrap_or(1);
    let column = usize::try_from(location.column()).unwrap_or(1);
    let width =
        slice(location, text).and_then(|s| s.lines().next()).map_or(1, |s| s.chars().count());
    Origin::File { line, column, width: width.max(1) }
}

fn slice(location: Location, text: &str) -> Option<&str> {
    let span = location.span();
    let from = usize::try_from(span.byte_offset()?).ok()?;
    let len = usize::try_from(span.byte_len()?).ok()?;
    text.get(from..from.checked_add(len)?)
}

fn read(text: &str) -> Result<Node, serde_saphyr::Error> {
    serde_saphyr::from_str::<Spanned<Yaml>>(text).map(|y| node(y, text))
}

fn node(spanned: Spanned<Yaml>, text: &str) -> Node {
    let Spanned { value, referenced, defined } = spanned;
    let data = match value {
        Yaml::Empty => Data::Empty,
        Yaml::Text(s) => Data::Scalar(s),
        // What YAML takes for a number or a truth value may be meant as a word: keep the text.
        Yaml::Typed(s) => Data::Scalar(slice(defined, text).map_or(s, |raw| raw.trim().to_owned())),
        Yaml::List(items) => Data::List(items.into_iter().map(|n| node(n, text)).collect()),
        Yaml::Map(entries) => Data::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    key_origin: key_at(key.referenced, &key.value, text),
                    key: key.value,
                    node: node(value, text),
                })
                .collect(),
        ),
    };
    Node { origin: at(referenced, text), data }
}

fn key_at(location: Location, key: &str, text: &str) -> Origin {
    match at(location, text) {
        Origin::File { line, column, .. } => {
            Origin::File { line, column, width: key.chars().count().max(1) }
        }
        other => other,
    }
}

/// A document as the parser gives it.
enum Yaml {
    Empty,
    Text(String),
    Typed(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_i128<E>(self, v: i128) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_u128<E>(self, v: u128) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Yaml, E> {
        Ok(Yaml::Typed(v.to_string()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Yaml, E> {
        Ok(Yaml::Text(v.to_owned()))
    }
    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Empty)
    }
    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Empty)
    }
    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(d)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key()? {
            entries.push((key, map.next_value()?));
        }
        Ok(Yaml::Map(entries))
    }
}
