//! Evidence.

use serde_json::Value;
use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table};
use watchbell_cli::print::time::relative;
use watchbell_cli::print::{add, count};
use watchbell_core::Time;
use watchbell_market::ops::{Item, Level, Pack, Smoke};
use watchbell_market::view::PackLine;

/// The list of checks.
pub(crate) fn smokes(smokes: &[Smoke], style: Style) -> String {
    let mut table = Table::new(&["SMOKE", "WHAT IT LOOKS AT"]);
    for smoke in smokes {
        table.row(vec![smoke.name.into(), smoke.about.into()]);
    }
    table.print(style)
}

/// What a run found.
pub(crate) fn evidence(pack: &Pack, style: Style) -> String {
    let mut text = items(&pack.items, style);
    let of = |level: Level| pack.items.iter().filter(|i| i.level == level).count() as i64;
    let all = count(pack.items.len() as i64, "item", "items");
    let end = match (of(Level::Err), of(Level::Warn)) {
        (0, 0) => style.good(&format!("{all}: all is well")),
        (0, warn) => {
            style.paint(&format!("{all}: {}", count(warn, "warning", "warnings")), Tone::Warn)
        }
        (err, 0) => style.bad(&format!("{all}: {}", count(err, "error", "errors"))),
        (err, warn) => style.bad(&format!(
            "{all}: {}, {}",
            count(err, "error", "errors"),
            count(warn, "warning", "warnings")
        )),
    };
    add(&mut text, format_args!("\n{end}\n"));
    text
}

/// The newest pack of each scope.
pub(crate) fn packs(packs: &[PackLine], now: Time, style: Style) -> String {
    if packs.is_empty() {
        return "no packs\n".to_owned();
    }
    let mut table = Table::new(&["SCOPE", ">PACK", "LEVEL", "WHEN", "THE WORST OF IT"]);
    for pack in packs {
        let items = of(pack);
        let worst = items.iter().filter(|i| i.level != Level::Ok).max_by_key(|i| i.level);
        table.row(vec![
            pack.scope.as_str().into(),
            pack.id.to_string().into(),
            Cell::new(pack.level.as_str(), word(&pack.level)),
            relative(pack.ts, now).into(),
            worst.map_or_else(String::new, |i| format!("{}: {}", i.label, i.message)).into(),
        ]);
    }
    table.print(style)
}

/// One pack with all of its items.
pub(crate) fn pack(pack: &PackLine, now: Time, style: Style) -> String {
    let level = style.paint(&pack.level, word(&pack.level));
    let head = format!("{} pack {}  {level}  {}\n\n", pack.scope, pack.id, relative(pack.ts, now));
    head + &items(&of(pack), style)
}

/// Items that an earlier version stored in another form are left out.
fn of(pack: &PackLine) -> Vec<Item> {
    let list = pack.items.as_array().into_iter().flatten();
    list.filter_map(|item| serde_json::from_value(item.clone()).ok()).collect()
}

fn items(items: &[Item], style: Style) -> String {
    let mut table = Table::new(&["LEVEL", "ITEM", ">VALUE", "MESSAGE"]);
    for item in items {
        table.row(vec![
            Cell::new(item.level.as_str(), word(item.level.as_str())),
            item.key.as_str().into(),
            value(&item.value),
            item.message.as_str().into(),
        ]);
    }
    table.print(style)
}

fn value(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::none(),
        Value::Number(n) if n.is_i64() || n.is_u64() => {
            watchbell_cli::print::thousands(n.as_i64().unwrap_or(i64::MAX)).into()
        }
        Value::Number(n) => match n.as_f64().unwrap_or_default() {
            v if v != 0.0 && v.abs() < 1e-3 => format!("{v:.1e}").into(),
            v => format!("{v:.4}").into(),
        },
        Value::String(s) => watchbell_cli::print::cut(s, 24).into(),
        other => watchbell_cli::print::cut(&watchbell_cli::print::inline(other), 24).into(),
    }
}

fn word(level: &str) -> Tone {
    match level {
        "ok" => Tone::Good,
        "warn" => Tone::Warn,
        _ => Tone::Bad,
    }
}
