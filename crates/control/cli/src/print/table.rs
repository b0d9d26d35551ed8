//! Tables: aligned columns, two spaces between them, no lines, no wrapping. Columns keep their
//! width to the letter, so `cut`, `awk` and eyes can follow them; only the last one may be long.

use crate::print::style::{Style, Tone};

/// Rows under a header.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

#[derive(Debug, Clone)]
struct Column {
    title: String,
    right: bool,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
    /// What is not there.
    #[must_use]
    pub fn none() -> Self {
        Self::new("-", Tone::Faint)
    }
    /// Text, or what is not there.
    pub fn or_none(text: Option<impl Into<String>>) -> Self {
        text.map_or_else(Self::none, |t| Self::new(t, Tone::Plain))
    }
    /// A number, with another tone than usual when it is not zero.
    #[must_use]
    pub fn number(n: i64, not_zero: Tone) -> Self {
        match n {
            0 => Self::new("0", Tone::Faint),
            n => Self::new(super::thousands(n), not_zero),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

impl Table {
    /// A table with these columns; a title that begins with `>` is set to the right, for numbers.
    #[must_use]
    pub fn new<T: AsRef<str>>(titles: &[T]) -> Self {
        let columns = titles.iter().map(|t| match t.as_ref().strip_prefix('>') {
            Some(title) => Column { title: title.to_owned(), right: true },
            None => Column { title: t.as_ref().to_owned(), right: false },
        });
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has another number of cells than the table has columns.
    pub fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has one cell per column");
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text.
    #[must_use]
    pub fn print(&self, style: Style) -> String {
        let width = |s: &str| s.chars().count();
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                let cells = self.rows.iter().map(|r| width(&r[i].text));
                cells.chain([width(&c.title)]).max().unwrap_or(0)
            })
            .collect();
        let header = self.columns.iter().map(|c| (c.title.as_str(), Tone::Faint)).collect();
        let rows = self.rows.iter().map(|r| r.iter().map(|c| (c.text.as_str(), c.tone)).collect());
        let mut text = String::new();
        for row in std::iter::once(header).chain(rows) {
            let row: Vec<(&str, Tone)> = row;
            let mut gap = 0;
            for (i, (cell, tone)) in row.into_iter().enumerate() {
                let pad = widths[i] - width(cell);
                // Space is written only before text, so no line ends in it.
                let before = gap + if self.columns[i].right { pad } else { 0 };
                if cell.is_empty() {
                    gap += widths[i] + 2;
                    continue;
                }
                text.push_str(&" ".repeat(before));
                text.push_str(&style.paint(cell, tone));
                gap = 2 + if self.columns[i].right { 0 } else { pad };
            }
            text.push('\n');
        }
        text
    }
}

/// Names and values below each other, for one thing; values that are `None` are left out.
#[must_use]
pub fn facts(style: Style, facts: &[(&str, Option<String>)]) -> String {
    let width = facts.iter().map(|(n, _)| n.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in facts {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            let name = style.faint(&format!("{name:width$}"));
            super::add(&mut text, format_args!("{name}  {value}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_the_letters_and_colours() {
        let mut table = Table::new(&["NAME", ">RUNS", "STATE", "WHY"]);
        table.row(vec!["übung".into(), Cell::number(1_204, Tone::Plain), "ok".into(), "".into()]);
        table.row(vec![
            "a".into(),
            Cell::number(0, Tone::Bad),
            Cell::new("failing", Tone::Bad),
            "long\u{2026}".into(),
        ]);
        assert_eq!(
            table.print(Style::Plain),
            "NAME    RUNS  STATE    WHY\nübung  1,204  ok\na          0  failing  long…\n"
        );
        let coloured = table.print(Style::Colour);
        let mut plain = String::new();
        let mut rest = coloured.as_str();
        while let Some((before, after)) = rest.split_once('\x1b') {
            plain.push_str(before);
            rest = after.split_once('m').unwrap().1;
        }
        plain.push_str(rest);
        assert_eq!(plain, table.print(Style::Plain));
    }

    #[test]
    fn facts_leave_out_what_is_not_known() {
        let some = [("store", Some("SQLite".to_owned())), ("x", None), ("y", Some(String::new()))];
        assert_eq!(facts(Style::Plain, &some), "store  SQLite\n");
    }
}
