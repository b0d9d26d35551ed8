//! Checks a document against the JSON Schema of the configuration, which is the very schema that
//! `config schema` prints: what an editor accepts, start-up accepts.

use serde_json::{Map, Value, json};
use watchbell_core::Millis;
use watchbell_core::graph::nearest;

use super::problem::{Origin, Problem, Source};
use super::raw::KEEP;
use super::tree::{Data, Node};

/// Problems found so far, and what is needed to place them.
pub(super) struct Report<'a> {
    pub(super) source: Option<&'a Source>,
    pub(super) problems: Vec<Problem>,
}

impl Report<'_> {
    pub(super) fn at(
        &mut self,
        origin: &Origin,
        key: &str,
        message: impl Into<String>,
        allowed: Option<String>,
    ) {
        self.problems.push(Problem::new(origin, self.source, key, message, allowed));
    }
}

/// The part of `node` that is right, as JSON, with everything wrong reported and left out. `None`
/// when nothing is right, so that the default takes its place and the rest is still checked.
pub(super) fn check(
    node: &Node,
    schema: &Value,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Value> {
    let schema = without_null(schema);
    match branch(schema, node) {
        Some(branch) if !std::ptr::eq(branch, schema) => check(node, branch, path, report),
        _ => match type_of(schema) {
            "object" => check_section(node, schema, path, report),
            "array" => check_list(node, schema, path, report),
            _ => check_scalar(node, schema, path, report),
        },
    }
}

/// Of `X or null`, X: a key that may be absent is not a key that may be empty.
fn without_null(schema: &Value) -> &Value {
    schema["anyOf"]
        .as_array()
        .and_then(|any| any.iter().find(|s| s["type"] != "null"))
        .unwrap_or(schema)
}

/// Of a choice between a word and a section, the one that `node` tries to be.
fn branch<'a>(schema: &'a Value, node: &Node) -> Option<&'a Value> {
    let choice = schema["oneOf"].as_array()?;
    let section = choice.iter().find(|s| s["type"] == "object")?;
    matches!(node.data, Data::Map(_)).then_some(section)
}

fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(s) => s,
        Value::Array(types) => {
            types.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or("string")
        }
        _ => "string",
    }
}

/// The schema of the key `name` in a section; a map has one schema for all names.
fn member<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema["properties"]
        .get(name)
        .or_else(|| Some(&schema["additionalProperties"]).filter(|s| s.is_object()))
}

fn keys(schema: &Value) -> Vec<&str> {
    schema["properties"]
        .as_object()
        .map_or_else(Vec::new, |p| p.keys().map(String::as_str).collect())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn check_section(
    node: &Node,
    schema: &Value,
    path: &str,
    report: &mut Report<'_>,
) -> Option<Value> {
    let entries = match &node.data {
        Data::Map(entries) => entries.as_slice(),
        // `market:` with every line below it commented out.
        Data::Empty => &[],
        Data::Scalar(_) | Data::List(_) => {
            let allowed = match keys(schema).join(", ") {
                none if none.is_empty() => "names with a colon, each with its value".to_owned(),
                some => format!("a section with the keys {some}"),
            };
            report.at(
                &node.origin,
                path,
                format!("{} is not a section", shown(node)),
                Some(allowed),
            );
            return None;
        }
    };
    let mut right = Map::new();
    for entry in entries {
        match member(schema, &entry.key) {
            Some(member) => {
                if let Some(value) = check(&entry.node, member, &join(path, &entry.key), report) {
                    right.insert(entry.key.clone(), value);
                }
            }
            None => {
                let (message, allowed) = unknown("key", &entry.key, &keys(schema));
                report.at(&entry.key_origin, path, message, Some(allowed));
            }
        }
    }
    let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for key in needed {
        // A key that is not known may well be this one, misspelt: that is said already.
        if entries.iter().all(|e| member(schema, &e.key).is_some() && e.key != key) {
            let allowed = format!("a section with the keys {}", keys(schema).join(", "));
            report.at(&node.origin, path, format!("the key `{key}` is missing"), Some(allowed));
        }
        if !right.contains_key(key) {
            return None;
        }
    }
    Some(Value::Object(right))
}

fn check_list(node: &Node, schema: &Value, path: &str, report: &mut Report<'_>) -> Option<Value> {
    let split;
    let items = match (&node.data, &node.origin) {
        (Data::List(items), _) => items,
        // From the environment, a list is written `a,b,c`.
        (Data::Scalar(text), Origin::Env { .. }) => {
            split = text.split(',').map(|s| Node::outside(s, &node.origin)).collect();
            &split
        }
        (Data::Scalar(_) | Data::Empty | Data::Map(_), _) => {
            let example = schema["default"].as_array().map_or_else(
                || "a list, such as [a, b]".to_owned(),
                |d| {
                    let words: Vec<_> = d.iter().filter_map(Value::as_str).take(3).collect();
                    format!("a list, such as [{}]", words.join(", "))
                },
            );
            report.at(&node.origin, path, format!("{} is not a list", shown(node)), Some(example));
            return None;
        }
    };
    let right = items
        .iter()
        .enumerate()
        .filter_map(|(i, item)| check(item, &schema["items"], &format!("{path}[{i}]"), report));
    Some(right.collect())
}

fn check_scalar(node: &Node, schema: &Value, path: &str, report: &mut Report<'_>) -> Option<Value> {
    let words = words(schema);
    let allowed = schema["x-allowed"].as_str().map(ToOwned::to_owned);
    let result = match &node.data {
        Data::Scalar(text) if !words.is_empty() => {
            if words.contains(&text.as_str()) {
                Ok(json!(text))
            } else {
                let hint = nearest(text, words.iter().copied())
                    .map_or_else(String::new, |w| format!(", did you mean `{w}`?"));
                Err((format!("unknown value `{text}`{hint}"), words.join(", ")))
            }
        }
        Data::Scalar(text) => scalar(text, schema),
        Data::Empty if words.is_empty() => {
            Err(("there is no value".to_owned(), format!("{}, or no such key", range(schema))))
        }
        Data::Empty => Err(("there is no value".to_owned(), words.join(", "))),
        Data::List(_) | Data::Map(_) if words.is_empty() => {
            Err((format!("{} is not a single value", shown(node)), range(schema)))
        }
        Data::List(_) | Data::Map(_) => {
            Err((format!("{} is not a single value", shown(node)), words.join(", ")))
        }
    };
    match result {
        Ok(value) => Some(value),
        Err((message, derived)) => {
            report.at(&node.origin, path, message, Some(allowed.unwrap_or(derived)));
            None
        }
    }
}

/// The words that a key takes, if it takes only some.
fn words(schema: &Value) -> Vec<&str> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let choice = schema["oneOf"].as_array().into_iter().flatten();
    let nested = choice.clone().flat_map(|s| s["enum"].as_array().into_iter().flatten());
    listed.chain(choice.map(|s| &s["const"])).chain(nested).filter_map(Value::as_str).collect()
}

/// A text as the schema's type, or what is wrong with it and what would be right.
fn scalar(text: &str, schema: &Value) -> Result<Value, (String, String)> {
    let keeps = schema["x-type"] == "keep";
    if keeps && [KEEP, "0"].contains(&text) {
        return Ok(json!(text));
    }
    if keeps || schema["x-type"] == "duration" {
        let Ok(length) = Millis::parse(text) else {
            return Err((format!("`{text}` is not a duration"), range(schema)));
        };
        return match schema["x-minimum"].as_str().and_then(|m| Some((m, Millis::parse(m).ok()?))) {
            Some((least, minimum)) if length < minimum => {
                let or = if keeps { format!(", or {KEEP}") } else { String::new() };
                Err((format!("`{text}` is too short"), format!("{least} or longer{or}")))
            }
            _ => Ok(json!(text)),
        };
    }
    match type_of(schema) {
        "boolean" => match text {
            "true" => Ok(json!(true)),
            "false" => Ok(json!(false)),
            _ => Err((format!("`{text}` is neither true nor false"), "true, false".to_owned())),
        },
        "integer" => match text.parse::<i64>() {
            Ok(n) if in_range(n as f64, schema) => Ok(json!(n)),
            Ok(_) => Err((format!("`{text}` is out of range"), range(schema))),
            Err(_) => Err((format!("`{text}` is not a whole number"), range(schema))),
        },
        "number" => match text.parse::<f64>() {
            Ok(n) if n.is_finite() && in_range(n, schema) => Ok(json!(n)),
            Ok(_) => Err((format!("`{text}` is out of range"), range(schema))),
            Err(_) => Err((format!("`{text}` is not a number"), range(schema))),
        },
        _ => Ok(json!(text)),
    }
}

const DURATION: &str = "a number and a unit (ms, s, m, h, d), such as 250ms, 5s, 30m, 1h30m";

fn in_range(n: f64, schema: &Value) -> bool {
    // The bounds of u32, where the schema names none: no key takes more.
    let (least, most) = bounds(schema);
    n >= least && n <= most.unwrap_or(f64::from(u32::MAX))
}

fn bounds(schema: &Value) -> (f64, Option<f64>) {
    (schema["minimum"].as_f64().unwrap_or(0.0), schema["maximum"].as_f64())
}

/// What a scalar key takes, in words.
fn range(schema: &Value) -> String {
    if schema["x-type"] == "duration" {
        return DURATION.to_owned();
    }
    if schema["x-type"] == "keep" {
        return format!("{DURATION}, or {KEEP}");
    }
    let kind = match type_of(schema) {
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => return "true, false".to_owned(),
        _ => return "a text".to_owned(),
    };
    match bounds(schema) {
        (least, Some(most)) => format!("{kind} from {least} to {most}"),
        (least, None) => format!("{kind}, {least} or more"),
    }
}

/// A value in a message: its text, or what it is.
fn shown(node: &Node) -> String {
    match &node.data {
        Data::Scalar(text) => format!("`{text}`"),
        Data::Empty => "an empty value".to_owned(),
        Data::List(_) => "a list".to_owned(),
        Data::Map(_) => "a section".to_owned(),
    }
}

/// `unknown WHAT NAME, did you mean X?` and the names that exist.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> (String, String) {
    let hint = nearest(name, known.iter().copied())
        .map_or_else(String::new, |n| format!(", did you mean `{n}`?"));
    (format!("unknown {what} `{name}`{hint}"), known.join(", "))
}

/// What a variable's name leads to.
pub(super) enum Target {
    /// A key that takes a value.
    Key(Vec<String>),
    /// A section; the text names a key of it to set instead.
    Section(String),
    /// Nothing: what is unknown, and the names that exist there.
    Unknown(String, String),
}

/// The key that `WATCHBELL_HTTP__BIND` sets. Names of workers and profiles are written with `_` for
/// `-`.
pub(super) fn target(variable: &str, schema: &Value) -> Target {
    let mut path = Vec::new();
    let mut schema = schema;
    for part in variable.strip_prefix("WATCHBELL_").unwrap_or(variable).split("__") {
        let name = part.to_ascii_lowercase();
        let name =
            if schema["additionalProperties"].is_object() { name.replace('_', "-") } else { name };
        let Some(next) = member(schema, &name).filter(|_| !name.is_empty()) else {
            let (message, known) = unknown("key", &name, &keys(schema));
            return Target::Unknown(message, known);
        };
        path.push(name);
        schema = without_null(next);
    }
    if type_of(schema) == "object" {
        let key = keys(schema).first().map_or_else(|| "NAME".to_owned(), |k| k.to_uppercase());
        return Target::Section(format!("{variable}__{key}"));
    }
    Target::Key(path)
}
