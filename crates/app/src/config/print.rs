//! The configuration for people and editors: its schema, its commented default, and the values in
//! effect with where each came from.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;
use super::problem::{Origin, redact};
use super::raw::Raw;

/// In place of what a program of the team's own is told: it may be a password.
const HIDDEN: &str = "***";

/// The JSON Schema of the configuration file.
pub(crate) fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Raw>().to_value();
    schema["title"] = Value::from("Watchbell configuration");
    schema
}

/// The default configuration, with each key's documentation above it. It reads back as the default.
pub(crate) fn default_yaml() -> String {
    let schema = schema();
    let mut text = String::new();
    comment(&mut text, 0, schema["description"].as_str().unwrap_or_default());
    for line in lines(&Raw::default()) {
        let Line { indent, path, text: yaml } = line;
        let described = path.iter().try_fold(&schema, |s, key| s["properties"].get(key));
        if let Some(key) = described.filter(|_| !path.is_empty()) {
            if indent == 0 {
                text.push('\n');
            }
            comment(&mut text, indent, key["description"].as_str().unwrap_or_default());
            if let Some(words) = key["oneOf"].as_array() {
                for word in words {
                    let (name, meaning) = (word["const"].as_str(), word["description"].as_str());
                    let note =
                        format!("  {}: {}", name.unwrap_or_default(), meaning.unwrap_or_default());
                    comment(&mut text, indent, &note);
                }
            }
            // A map is empty by default: show what an entry may hold.
            if let Some(entry) = key["additionalProperties"]["properties"].as_object() {
                comment(&mut text, indent, "An entry may have these keys:");
                for (name, field) in entry {
                    let meaning = field["description"].as_str().unwrap_or_default();
                    comment(&mut text, indent, &format!("  {name}: {meaning}"));
                }
            }
        }
        text.push_str(&yaml);
        text.push('\n');
    }
    text
}

fn comment(out: &mut String, indent: usize, text: &str) {
    for line in text.lines() {
        out.push_str(&" ".repeat(indent));
        out.push_str(format!("# {line}").trim_end());
        out.push('\n');
    }
}

impl Config {
    /// The values in effect as YAML, each with its origin. With `redacted`, passwords in URLs and the
    /// values of variables for programs are replaced by `***`.
    pub(crate) fn render(&self, redacted: bool) -> String {
        let lines = lines(&self.raw);
        let width = lines.iter().map(|l| l.text.chars().count()).max().unwrap_or(0).min(48);
        let mut text = String::new();
        for (i, line) in lines.iter().enumerate() {
            // A section has no origin of its own; its keys do.
            let section = lines.get(i + 1).is_some_and(|next| {
                next.path.len() > line.path.len() && next.path.starts_with(&line.path)
            });
            let yaml = match line.path.as_slice() {
                [workers, _, env, name] if redacted && workers == "workers" && env == "env" => {
                    format!("{}{name}: {HIDDEN}", " ".repeat(line.indent))
                }
                _ if redacted => redact(&line.text),
                _ => line.text.clone(),
            };
            if section || line.path.is_empty() {
                text.push_str(&yaml);
            } else {
                let pad = width.saturating_sub(yaml.chars().count());
                let origin = self.origin(&line.path.join("."));
                text.push_str(&format!("{yaml}{}  # {origin}", " ".repeat(pad)));
            }
            text.push('\n');
        }
        text
    }

    /// The values in effect, for `--json`.
    pub(crate) fn effective(&self, redacted: bool) -> Value {
        let mut value = serde_json::to_value(&self.raw)
            .unwrap_or_else(|e| Value::String(format!("unprintable configuration: {e}")));
        if redacted {
            redact_all(&mut value);
            let workers = value["workers"].as_object_mut().into_iter().flatten();
            for variables in workers.filter_map(|(_, w)| w.get_mut("env")?.as_object_mut()) {
                variables.values_mut().for_each(|v| *v = Value::from(HIDDEN));
            }
        }
        value
    }

    fn origin(&self, path: &str) -> String {
        match self.tree.find(path).map_or(&Origin::Default, |n| &n.origin) {
            Origin::Default => "default".to_owned(),
            Origin::File { line, .. } => {
                let file = self.file().map_or_else(String::new, |f| f.display().to_string());
                format!("{file}:{line}")
            }
            Origin::Env { name, dotenv_line: Some(line) } => format!("{name} (.env:{line})"),
            Origin::Env { name, dotenv_line: None } => name.clone(),
            Origin::Flag { name } => (*name).to_owned(),
        }
    }
}

fn redact_all(value: &mut Value) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(items) => items.iter_mut().for_each(redact_all),
        Value::Object(map) => map.values_mut().for_each(redact_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A line of generated YAML.
struct Line {
    indent: usize,
    /// The keys down to the one on this line; empty for an item of a list.
    path: Vec<String>,
    text: String,
}

/// The configuration as YAML in the order of the declaration, line by line. The writer is ours to
/// rely on: block style, two spaces a level, one key or item a line.
fn lines(raw: &Raw) -> Vec<Line> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let yaml = serde_saphyr::to_string_with_options(raw, options)
        .unwrap_or_else(|e| format!("# unprintable configuration: {e}\n"));
    let mut path: Vec<(usize, String)> = Vec::new();
    yaml.lines()
        .map(|text| {
            let body = text.trim_start();
            let indent = text.len() - body.len();
            let key = body.split_once(':').map(|(k, _)| k.trim_matches('"'));
            let keys = match key.filter(|_| !body.starts_with("- ") && !body.starts_with('#')) {
                Some(key) => {
                    path.retain(|(at, _)| *at < indent);
                    path.push((indent, key.to_owned()));
                    path.iter().map(|(_, k)| k.clone()).collect()
                }
                None => Vec::new(),
            };
            Line { indent, path: keys, text: text.to_owned() }
        })
        .collect()
}
