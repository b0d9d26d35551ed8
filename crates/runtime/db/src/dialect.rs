//! The common form of SQL, and its translation for SQLite.
//!
//! | written | SQLite |
//! |---|---|
//! | `$1` | `?1` |
//! | `ops.cycles`, for a schema of [`SCHEMAS`] | `ops_cycles` |
//! | `/*pg*/ for update skip locked /*end*/` | nothing |
//! | `/*sqlite*/ strict /*end*/` | `strict` |
//! | `{id}` (a key that is never used twice) | `integer primary key autoincrement` |
//! | `{i64}` `{f64}` `{text}` `{json}` `{bytes}` | `integer` `real` `text` `text` `blob` |
//! | `{utc:started_at}` (milliseconds as readable UTC) | a call of `strftime` |
//!
//! String literals, quoted identifiers and comments stay as they are. A table alias must not have
//! the name of a schema.

/// The schemas of Watchbell: real ones on PostgreSQL, a prefix of the table's name on SQLite.
pub const SCHEMAS: [&str; 12] = [
    "ops",
    "ingest",
    "market",
    "str_aux",
    "matrices",
    "mea_dynamics",
    "mood",
    "cin_aux",
    "settings",
    "scan",
    "arena",
    "selfplay",
];

const PG: &str = "/*pg*/";
const SQLITE: &str = "/*sqlite*/";
const END: &str = "/*end*/";

/// Translates one or more statements to SQLite's form.
pub(crate) fn to_sqlite(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 32);
    let mut rest = sql;
    let mut after_dot = false;
    while let Some(first) = rest.as_bytes().first().copied() {
        let length = match first {
            b'\'' | b'"' => quoted(rest, first),
            b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(PG) => {
                rest = rest.find(END).map_or("", |at| &rest[at + END.len()..]);
                continue;
            }
            b'/' if rest.starts_with(SQLITE) => {
                rest = &rest[SQLITE.len()..];
                continue;
            }
            b'/' if rest.starts_with(END) => {
                rest = &rest[END.len()..];
                continue;
            }
            b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            b'$' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                out.push('?');
                rest = &rest[1..];
                continue;
            }
            b'{' => {
                if let Some((length, text)) = token(rest) {
                    out.push_str(&text);
                    rest = &rest[length..];
                    continue;
                }
                1
            }
            c if c.is_ascii_alphabetic() || c == b'_' => {
                let word = word(rest);
                let table = rest[word.len()..].strip_prefix('.').unwrap_or("");
                if !after_dot
                    && table.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                    && SCHEMAS.contains(&word)
                {
                    out.push_str(word);
                    out.push('_');
                    rest = table;
                    continue;
                }
                word.len()
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        after_dot = first == b'.';
        out.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    out
}

/// Length of the literal that starts `text`. A doubled quote inside closes one literal and opens
/// the next, which comes to the same.
fn quoted(text: &str, quote: u8) -> usize {
    text[1..].find(quote as char).map_or(text.len(), |at| at + 2)
}

/// The identifier or keyword that starts `text`.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
    &text[..end.unwrap_or(text.len())]
}

/// The `{token}` that starts `text`: its length and what SQLite calls it.
fn token(text: &str) -> Option<(usize, String)> {
    let end = text.find('}')?;
    let name = &text[1..end];
    let sqlite = match name {
        "id" => "integer primary key autoincrement".to_owned(),
        "i64" => "integer".to_owned(),
        "f64" => "real".to_owned(),
        "text" | "json" => "text".to_owned(),
        "bytes" => "blob".to_owned(),
        _ => {
            let column = name.strip_prefix("utc:")?;
            format!("strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')")
        }
    };
    Some((end + 1, sqlite))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_the_module_holds() {
        for (common, sqlite) in [
            ("select $1, $12", "select ?1, ?12"),
            ("select * from ops.cycles c", "select * from ops_cycles c"),
            ("update ops.cycles set a = ops.cycles.a", "update ops_cycles set a = ops_cycles.a"),
            ("select w.ops.x, shops.y, ops, ops . z", "select w.ops.x, shops.y, ops, ops . z"),
            ("select 'ops.cycles $1 {id}', $1", "select 'ops.cycles $1 {id}', ?1"),
            ("select 'it''s ops.x', ops.x", "select 'it''s ops.x', ops_x"),
            ("select \"ops.x\"", "select \"ops.x\""),
            ("select 1 -- it's ops.x $1\n, $1", "select 1 -- it's ops.x $1\n, ?1"),
            ("select 1 /* it's ops.x $1 */, $1", "select 1 /* it's ops.x $1 */, ?1"),
            ("select 1/*pg*/ for update 'x/*end*/;", "select 1;"),
            ("a/*sqlite*/ strict/*end*/;/*pg*/ b/*end*/c", "a strict;c"),
            (
                "create t(id {id}, v {f64}, j {json})",
                "create t(id integer primary key autoincrement, v real, j text)",
            ),
            ("select '{' , {unknown} {", "select '{' , {unknown} {"),
            ("select 'größe', größe, scan.größe", "select 'größe', größe, scan_größe"),
            ("select 'open ops.x $1", "select 'open ops.x $1"),
        ] {
            assert_eq!(to_sqlite(common), sqlite, "{common}");
        }
        assert!(to_sqlite("{utc:at}").starts_with("strftime('%Y"));
    }

    proptest! {
        #[test]
        fn literals_and_comments_survive(text in "[^']{0,40}", comment in "[a-z .$'{}1]{0,20}") {
            let literal = format!("'{}'", text.replace('\'', "''"));
            let sql = format!("select {literal} /* {comment} */ from ops.t where a = $1");
            let expected = format!("select {literal} /* {comment} */ from ops_t where a = ?1");
            prop_assert_eq!(to_sqlite(&sql), expected);
        }

        #[test]
        fn any_text_is_translated_and_a_second_time_changes_nothing(sql in "\\PC{0,60}") {
            let once = to_sqlite(&sql);
            if !sql.contains('{') && !sql.contains('/') {
                prop_assert_eq!(to_sqlite(&once), once);
            }
        }
    }
}
