//! How the scans look.

use serde_json::Value;
use watchbell_cli::print::style::{Style, Tone};
use watchbell_cli::print::table::{Cell, Table, facts};
use watchbell_cli::print::time::{relative, short, span};
use watchbell_cli::print::{add, count, cut, thousands};
use watchbell_core::{Millis, Time};
use watchbell_scan::input::Universe;
use watchbell_scan::view::{Explained, Run, StoredRegime};

use super::schedule::{Finished, Listed, SchedulerStatus};

/// The configured jobs, in the frame of the scans' founding document.
pub(super) fn listed(jobs: &[Listed<'_>]) -> String {
    let mut text = format!("📋 Scheduled Jobs ({})\n", jobs.len());
    let mut row = |name: &str, schedule: &str, status: &str, description: &str| {
        add(&mut text, format_args!("{name:<20} {schedule:<15} {status:<8} {description}\n"));
    };
    let titles = ["JOB NAME", "SCHEDULE", "STATUS", "DESCRIPTION"];
    let dashes = titles.map(|title| "-".repeat(title.len()));
    row(titles[0], titles[1], titles[2], titles[3]);
    row(&dashes[0], &dashes[1], &dashes[2], &dashes[3]);
    for job in jobs {
        let status = if job.enabled { "enabled" } else { "disabled" };
        row(job.name, job.schedule, status, job.description);
    }
    text
}

/// What a run would do.
pub(super) fn planned(job: &str, plan: &Value, style: Style) -> String {
    let mut text = format!(
        "{}: nothing is asked of any venue, and nothing is written\n",
        style.strong(&format!("dry run of {job}"))
    );
    let universe = &plan["universe"];
    let known = match (universe["known_symbols"].as_i64(), universe["known_since"].as_str()) {
        (Some(symbols), Some(since)) => format!(", of {symbols} known since {since}"),
        _ => ", not known yet".to_owned(),
    };
    text.push_str(&facts(
        style,
        &[
            ("  regime", plan["regime"].as_str().map(str::to_owned)),
            (
                "  universe",
                Some(format!(
                    "{}, {} at most{known}",
                    words(&universe["spec"]),
                    universe["max_sample"]
                )),
            ),
            ("  venues", Some(list(&plan["venues"]))),
        ],
    ));
    for path in plan["would_write"].as_array().into_iter().flatten() {
        add(&mut text, format_args!("  {} (dry-run)\n", words(path)));
    }
    text
}

/// What stands above a run: regime, health, latency, sources; what is not known is a dash.
pub(super) fn header(header: &Value) -> String {
    let venues = header["venues"].as_array().map(Vec::as_slice).unwrap_or_default();
    let healthy = venues.iter().filter(|v| v["health"] == "HEALTHY").count();
    let apis = if venues.is_empty() {
        "-".to_owned()
    } else {
        let mut apis = format!("{healthy}/{} Healthy", venues.len());
        for ill in venues.iter().filter(|v| v["health"] != "HEALTHY") {
            let health = ill["health"].as_str().unwrap_or("-");
            add(&mut apis, format_args!(", {} {health}", words(&ill["venue"])));
        }
        apis
    };
    let latency = header["latency_ms"].as_i64().map_or_else(|| "-".into(), |ms| format!("{ms}ms"));
    let sources = header["sources"].as_array().map_or_else(|| "-".into(), |s| s.len().to_string());
    let regime = header["regime"].as_str().unwrap_or("-");
    format!("Regime: {regime} | APIs: {apis} | Lat {latency} | Sources: {sources}")
}

/// A run that ended well.
pub(super) fn finished(finished: &Finished<'_>, style: Style) -> String {
    let report = finished.report;
    let summary = &report.summary;
    let mut text = format!("{}\n", header(&summary["header"]));
    for stage in summary["stages"].as_array().into_iter().flatten() {
        let took = Millis(stage["took_ms"].as_i64().unwrap_or_default());
        add(
            &mut text,
            format_args!(
                "  {:<14} {:>8}  {}\n",
                words(&stage["stage"]),
                seconds(took),
                words(&stage["detail"])
            ),
        );
    }
    if summary["top"].is_array() {
        text.push_str(&top(summary, style));
    } else if let Some(votes) = summary["regime"]["votes"].as_object() {
        let votes: Vec<String> =
            votes.iter().map(|(name, vote)| format!("{name} {}", words(vote))).collect();
        add(&mut text, format_args!("  {}\n", votes.join(", ")));
    }
    let took = report.cycle.as_ref().and_then(|c| Some(c.finished_at?.since(c.started_at)));
    add(&mut text, format_args!("✅ Job '{}' completed successfully\n", report.worker));
    add(&mut text, format_args!("Duration: {}\n", took.map_or_else(|| "-".to_owned(), seconds)));
    add(&mut text, format_args!("Artifacts: {} files\n", finished.artifacts.len()));
    if !finished.artifacts.is_empty() {
        text.push_str("Generated artifacts:\n");
        for path in finished.artifacts {
            add(&mut text, format_args!("  {path}\n"));
        }
    }
    text
}

/// `1.23s`.
fn seconds(took: Millis) -> String {
    format!("{:.2}s", took.as_secs_f64())
}

/// Those that passed, then those that came closest.
fn top(summary: &Value, style: Style) -> String {
    let rows = summary["top"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut table = Table::new(&[
        ">#",
        "SYMBOL",
        ">SCORE",
        ">MOMENTUM",
        ">VADR",
        "FRESH",
        "DEPTH",
        "VENUE",
        "SOURCES",
        "VERDICT",
    ]);
    let one =
        |value: &Value| Cell::or_none(value.as_f64().map(|n| watchbell_scan::decimal::fixed(n, 1)));
    for (i, row) in rows.iter().enumerate() {
        let passed = row["passed"] == true;
        let fresh = if row["fresh"] == true { "●" } else { "○" };
        let deep = if row["deep"] == true { "✓" } else { "✗" };
        let verdict = if passed { Tone::Good } else { Tone::Faint };
        table.row(vec![
            (i + 1).to_string().as_str().into(),
            words(&row["symbol"]).into(),
            one(&row["score"]),
            one(&row["momentum_core"]),
            one(&row["vadr"]),
            format!("[Fresh {fresh}]").as_str().into(),
            format!("[Depth {deep}]").as_str().into(),
            format!("[{}]", row["venue"].as_str().unwrap_or("-")).as_str().into(),
            format!("[Sources {}]", row["sources"]).as_str().into(),
            Cell::new(cut(words(&row["reason"]), 60), verdict),
        ]);
    }
    let (passed, scanned) = (&summary["passed"], &summary["scanned"]);
    let mut text = format!("\n{passed} of {scanned} symbols pass");
    let rejections = summary["rejections"].as_object().into_iter().flatten();
    let rejections: Vec<String> = rejections.map(|(why, n)| format!("{why} {n}")).collect();
    if !rejections.is_empty() {
        add(&mut text, format_args!("; rejected: {}", rejections.join(", ")));
    }
    text.push_str("\n\n");
    text.push_str(&table.print(style));
    text.push('\n');
    text
}

/// The scheduler at one moment.
pub(super) fn scheduler(status: &SchedulerStatus, style: Style) -> String {
    let at = |time: Option<Time>, none: &str| {
        time.map_or_else(|| none.to_owned(), |t| t.floor(Millis::from_secs(1)).rfc3339())
    };
    let mut text = "🕐 Scheduler Status\n".to_owned();
    let running = match (&status.node, status.running) {
        (Some(url), true) => format!("true ({url})"),
        (_, running) => running.to_string(),
    };
    let uptime = status.uptime.map_or_else(|| "-".to_owned(), span);
    for (name, value) in [
        ("Running:", running),
        ("Jobs Enabled:", status.jobs_enabled.to_string()),
        ("Jobs Disabled:", status.jobs_disabled.to_string()),
        ("Next Run:", at(status.next_run, "never")),
        ("Last Run:", at(status.last_run, "never")),
        ("Uptime:", uptime),
        ("Regime:", status.regime.clone().unwrap_or_else(|| "-".to_owned())),
    ] {
        add(&mut text, format_args!("{name:<15} {value}\n"));
    }
    text.push('\n');
    let mut table = Table::new(&[
        "JOB",
        "STATE",
        "LAST RUN",
        ">TOOK",
        ">PASSED",
        ">RUNS",
        "NEXT RUN",
        "ARTIFACT",
        "LAST ERROR",
    ]);
    for job in &status.jobs {
        let state = if job.enabled { job.state.as_str() } else { "disabled" };
        let passed = job.passed.map(|(passed, scanned)| format!("{passed}/{scanned}"));
        let error = job.last_error.as_deref().filter(|_| job.errors > 0);
        table.row(vec![
            job.name.as_str().into(),
            state.into(),
            Cell::or_none(job.last_run.map(|t| relative(t, status.now))),
            Cell::or_none(job.took.map(seconds)),
            Cell::or_none(passed),
            thousands(job.runs).as_str().into(),
            Cell::or_none(job.next_run.map(|t| relative(t, status.now))),
            Cell::or_none(job.artifact.clone()),
            Cell::new(cut(error.unwrap_or_default(), 80), Tone::Bad),
        ]);
    }
    text.push_str(&table.print(style));
    text
}

/// Why a symbol is in or out.
pub(super) fn explained(explained: &Explained, style: Style) -> String {
    let e = &explained.explanation;
    let mut text = String::new();
    let included = e["decision"] == "included";
    let verdict = if included { style.good("included") } else { style.bad("excluded") };
    add(
        &mut text,
        format_args!(
            "{}  {verdict} by {} of {}: {}\n",
            style.strong(words(&e["symbol"])),
            explained.job,
            explained.started_at.floor(Millis::from_secs(1)).rfc3339(),
            words(&e["reason"])
        ),
    );
    let number = |value: &Value, places: usize| {
        value.as_f64().map(|n| watchbell_scan::decimal::fixed(n, places))
    };
    let micro = &e["microstructure"];
    let book = micro["venue"].as_str().map(|venue| {
        format!(
            "{venue} in {}, spread {} bps, depth {}{}, {} ms old",
            words(&micro["quote"]),
            number(&micro["spread_bps"], 1).unwrap_or_else(|| "-".into()),
            number(&micro["depth_usd"], 0).unwrap_or_else(|| "-".into()),
            if micro["truncated"] == true { " at least" } else { "" },
            micro["age_ms"]
        )
    });
    let checked = micro["venues_checked"].as_array().into_iter().flatten();
    let checked: Vec<String> =
        checked.map(|v| format!("{} {}", words(&v["venue"]), words(&v["reason"]))).collect();
    let vadr = &e["vadr"];
    let frozen = if vadr["frozen"] == true { ", frozen" } else { "" };
    text.push_str(&facts(
        style,
        &[
            ("score", number(&e["score"], 1).map(|s| format!("{s}, rank {}", e["rank"]))),
            ("momentum", number(&e["momentum_core"], 1)),
            (
                "vadr",
                number(&vadr["value"], 2)
                    .map(|v| format!("{v} over {} bars{frozen}", vadr["bars"])),
            ),
            ("tier", e["tier"].as_str().map(str::to_owned)),
            ("book", book),
            ("books", Some(checked.join(", ")).filter(|c| !c.is_empty())),
            ("sources", Some(list(&e["sources"]))),
            ("premove", premove(&e["premove"])),
        ],
    ));
    text.push('\n');
    let mut factors = Table::new(&["FACTOR", ">RAW", ">RESIDUAL", ">WEIGHT", ">POINTS"]);
    for name in ["momentum", "technical", "volume", "quality"] {
        let of = |part: &str, places| Cell::or_none(number(&e["factors"][part][name], places));
        factors.row(vec![
            name.into(),
            of("raw", 1),
            of("residual", 1),
            of("weights", 2),
            of("contribution", 1),
        ]);
    }
    text.push_str(&factors.print(style));
    text.push('\n');
    let mut gates = Table::new(&["GATE", "VERDICT", ">VALUE", "", ">THRESHOLD", "REASON"]);
    for gate in e["gates"].as_array().into_iter().flatten() {
        let (word, tone) = match (gate["passed"].as_bool(), gate["enforced"] == true) {
            (Some(true), _) => ("pass", Tone::Good),
            (Some(false), true) => ("fail", Tone::Bad),
            (Some(false), false) => ("fail (told only)", Tone::Warn),
            (None, _) => ("not evaluated", Tone::Faint),
        };
        gates.row(vec![
            words(&gate["name"]).into(),
            Cell::new(word, tone),
            shown(&gate["value"]),
            words(&gate["op"]).into(),
            shown(&gate["threshold"]),
            words(&gate["reason"]).into(),
        ]);
    }
    text.push_str(&gates.print(style));
    text
}

/// A value of a gate: a number shortly, anything else as it is.
fn shown(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::none(),
        Value::Number(n) => {
            let n = n.as_f64().unwrap_or(f64::NAN);
            let places = if n.abs() >= 1_000.0 { 0 } else { 2 };
            watchbell_scan::decimal::fixed(n, places).as_str().into()
        }
        Value::String(text) => text.as_str().into(),
        other => other.to_string().as_str().into(),
    }
}

fn premove(premove: &Value) -> Option<String> {
    let score = premove["score"].as_f64()?;
    let unavailable = list(&premove["unavailable"]);
    let without = if unavailable.is_empty() {
        String::new()
    } else {
        format!("; unavailable: {unavailable}")
    };
    let score = watchbell_scan::decimal::fixed(score, 1);
    Some(format!("{} with {score} points{without}", words(&premove["status"])))
}

/// The newest runs.
pub(super) fn runs(runs: &[Run], now: Time, style: Style) -> String {
    if runs.is_empty() {
        return "no job has run yet\n".to_owned();
    }
    let mut table =
        Table::new(&["JOB", "STARTED", "AGO", ">TOOK", ">PASSED", "REGIME", "ARTIFACT"]);
    for run in runs {
        table.row(vec![
            run.job.as_str().into(),
            short(run.started_at).as_str().into(),
            relative(run.started_at, now).as_str().into(),
            seconds(run.took).as_str().into(),
            format!("{}/{}", run.passed, run.scanned).as_str().into(),
            run.regime.as_str().into(),
            Cell::or_none(run.artifact.clone()),
        ]);
    }
    table.print(style)
}

/// The regime.
pub(super) fn regime(stored: &StoredRegime, now: Time, style: Style) -> String {
    let d = &stored.document;
    let in_use = watchbell_scan::run::in_use(Some(stored), now);
    let mut text = format!("{}\n", style.strong(&in_use.headline(now)));
    let indicator = |name: &str, vote: &str| {
        let value = d["indicators"][name].as_f64();
        let value = value.map_or_else(|| "unavailable".to_owned(), |v| format!("{v:.4}"));
        Some(format!("{value}, votes {}", words(&d["votes"][vote])))
    };
    let blend = &d["weight_blend"];
    let weights = ["momentum", "technical", "volume", "quality"]
        .map(|name| format!("{name} {}", blend[name]))
        .join(", ");
    text.push_str(&facts(
        style,
        &[
            ("realized_vol_7d", indicator("realized_vol_7d", "vol_vote")),
            ("pct_above_20ma", indicator("pct_above_20ma", "ma_vote")),
            ("breadth_thrust", indicator("breadth_thrust", "breadth_vote")),
            ("weights", Some(weights)),
            ("found", Some(relative(stored.computed_at, now))),
            ("valid until", Some(relative(stored.valid_until, now))),
            ("unavailable", Some(list(&d["unavailable"])).filter(|u| !u.is_empty())),
        ],
    ));
    text
}

/// Who is in the universe.
pub(super) fn universe(
    universe: &Universe,
    taken_at: Time,
    now: Time,
    excluded: bool,
    style: Style,
) -> String {
    let mut text = format!(
        "{} by value traded, taken {}; {} left out\n\n",
        count(universe.members.len() as i64, "symbol", "symbols"),
        relative(taken_at, now),
        universe.excluded.len()
    );
    let mut table = Table::new(&[">RANK", "SYMBOL", "MARKET", ">VALUE TRADED, USD"]);
    for member in &universe.members {
        table.row(vec![
            member.rank.to_string().as_str().into(),
            member.symbol.as_str().into(),
            member.venue_symbol.as_str().into(),
            thousands(i64::try_from(member.adv_usd).unwrap_or(i64::MAX)).as_str().into(),
        ]);
    }
    text.push_str(&table.print(style));
    if excluded && !universe.excluded.is_empty() {
        let mut table = Table::new(&["LEFT OUT", "WHY"]);
        for (name, why) in &universe.excluded {
            table.row(vec![name.as_str().into(), why.as_str().into()]);
        }
        text.push('\n');
        text.push_str(&table.print(style));
    }
    text
}

/// A text of a document.
fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A list of texts.
fn list(value: &Value) -> String {
    let all = value.as_array().into_iter().flatten();
    let all: Vec<&str> = all.filter_map(Value::as_str).collect();
    all.join(", ")
}
