//! Smokes about tables as a whole: schema, universe, matrices, moods, the heartbeat.

use serde_json::{Value, json};
use watchbell_core::{Statement, values};
use watchbell_db::DbError;

use super::super::{Item, Level, vitals};
use super::Ground;
use crate::mood::{Mood, MoodId, Params, Signals};
use crate::view;

/// What must be there, by the names of the founding documents.
const OBJECTS: [&str; 51] = [
    "settings.coin_universe",
    "settings.windows",
    "ingest.kline_raw",
    "ingest.klines_cursor",
    "ingest.kline_gaps",
    "ingest.jobs",
    "market.symbols",
    "market.klines",
    "market.ticker_latest",
    "market.wallet_balances_latest",
    "str_aux.samples_5s",
    "str_aux.sampling",
    "str_aux.cycles_40s",
    "str_aux.windows",
    "str_aux.window_stats",
    "str_aux.window_vectors",
    "str_aux.v_windows",
    "str_aux.v_latest_windows",
    "str_aux.v_latest_vectors",
    "matrices.slices",
    "matrices.rows",
    "matrices.tiers",
    "matrices.v_latest",
    "matrices.dyn_values",
    "mea_dynamics.moods",
    "mea_dynamics.v_latest_moods",
    "mea_dynamics.mood_registry",
    "mea_dynamics.mea_mood_observations",
    "mea_dynamics.cycles",
    "mea_dynamics.mea_symbol",
    "mea_dynamics.dynamics_snapshot",
    "settings.universe_validation",
    "ops.universe_drift",
    "ext.binance_symbols_preview",
    "cin_aux.rt_session",
    "cin_aux.rt_balance",
    "cin_aux.rt_move",
    "cin_aux.rt_lot",
    "cin_aux.rt_imprint_luggage",
    "cin_aux.v_session_open",
    "market.account_trades",
    "audit.user_cycle_log",
    "ops.session_log",
    "ops.session_flags",
    "ops.job_run",
    "ops.market_sync_log",
    "ops.smoke_pack",
    "ops.risk_flags",
    "ops.app_ledger",
    "audit.vitals_log",
    "vitals.status_snapshot",
];
/// The seven matrices (section 5.1).
const TYPES: [&str; 7] = ["benchmark", "pct24h", "id_pct", "pct_drv", "pct_ref", "ref", "delta"];
/// How far a rate times its inverse may be from 1.
const CLOSE: f64 = 1e-6;

/// The store answers, and every object is there.
pub(super) async fn generic(g: &Ground<'_>) -> Vec<Item> {
    let answer = g.db.describe().await;
    let about = match answer {
        Ok(about) => about,
        Err(e) => {
            let said = watchbell_core::chain(&e);
            return vec![g.item("db:connection", "connection", Level::Err, Value::Null, said)];
        }
    };
    let mut missing = Vec::new();
    for object in OBJECTS {
        let looked = g.db.query(format!("select 1 from {object} where 1 = 0"), Vec::new()).await;
        if looked.is_err() {
            missing.push(object);
        }
    }
    let said = if missing.is_empty() {
        format!("all {} tables and views are there", OBJECTS.len())
    } else {
        format!("missing: {}; `watchbell db migrate` makes them", missing.join(", "))
    };
    let there = OBJECTS.len() - missing.len();
    vec![
        g.item(
            "db:connection",
            "connection",
            Level::Ok,
            about.engine,
            format!("{} {} at {}", about.engine, about.version, about.location),
        ),
        g.item(
            "db:objects",
            "tables and views",
            Level::Err.unless(missing.is_empty()),
            there,
            said,
        )
        .meta(json!({ "missing": missing })),
    ]
}

/// Symbols are enabled, whole, and mirrored.
pub(super) async fn universe(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let all = view::universe(g.db).await?;
    let enabled: Vec<_> = all.iter().filter(|u| u.enabled).collect();
    let said = match enabled.len() {
        0 => "no symbol is enabled: `watchbell market universe enable SYMBOL`".to_owned(),
        n => format!("{n} of {} symbols are enabled", all.len()),
    };
    let level = Level::Err.unless(!enabled.is_empty());
    let mut items = vec![g.item("universe:enabled", "enabled symbols", level, enabled.len(), said)];
    let names = |of: &dyn Fn(&view::UniverseLine) -> bool| -> Vec<&str> {
        all.iter().filter(|u| of(u)).map(|u| u.symbol.as_str()).collect()
    };
    let halves = names(&|u| u.enabled && (u.base.is_empty() || u.quote.is_empty()));
    let said = if halves.is_empty() {
        "every enabled symbol has a base and a quote asset".to_owned()
    } else {
        format!("without base or quote asset: {}", halves.join(", "))
    };
    let level = Level::Err.unless(halves.is_empty());
    items.push(g.item("universe:assets", "assets", level, halves.len(), said));
    if all.iter().all(|u| u.venue_status.is_none()) {
        let said = "no rows yet: the venue was not asked what it lists";
        items.push(g.item("universe:mirror", "mirror", Level::Warn, Value::Null, said));
        return Ok(items);
    }
    let apart = names(&|u| u.enabled && u.venue_status.as_deref() != Some("TRADING"));
    let said = if apart.is_empty() {
        "every enabled symbol trades in the mirror".to_owned()
    } else {
        format!("enabled and not trading in the mirror: {}", apart.join(", "))
    };
    let level = Level::Err.unless(apart.is_empty());
    items.push(
        g.item("universe:mirror", "mirror", level, apart.len(), said)
            .meta(json!({ "mismatch": apart })),
    );
    Ok(items)
}

/// Each type of the newest slice of each series has every cell; a rate and its inverse agree.
pub(super) async fn matrices(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let labels = vitals::labels(g.db).await?;
    let mut items = Vec::new();
    for slice in view::slices(g.db, &labels).await? {
        let n = slice.coins.len();
        let key = |what: &str| format!("matrices:{}:{what}", slice.series);
        let rows =
            g.db.query(
                "select matrix_type, base, cells, reasons from matrices.rows
                 where series = $1 and ts_ms = $2 and version = $3",
                values![slice.series.as_str(), slice.ts, slice.version],
            )
            .await?;
        let (mut wrong, mut cells) = (Vec::new(), 0);
        let mut rates = vec![vec![None; n]; n];
        for matrix_type in TYPES {
            let mut bases = 0;
            for row in &rows {
                if row.text(0)? != matrix_type {
                    continue;
                }
                let base = row.text(1)?;
                let Some(at) = slice.coins.iter().position(|c| c == base) else {
                    wrong.push(format!("{matrix_type}: a row of an unknown coin"));
                    continue;
                };
                bases += 1;
                let listed = row.json(2)?;
                let listed: Vec<Option<f64>> =
                    listed.as_array().into_iter().flatten().map(Value::as_f64).collect();
                let reasons = row.opt_json(3)?.unwrap_or_default();
                if listed.len() != n || listed.get(at).is_some_and(Option::is_some) {
                    wrong.push(format!(
                        "{matrix_type}: the row of {} is not whole",
                        slice.coins[at]
                    ));
                    continue;
                }
                let unexplained = (0..n)
                    .filter(|i| *i != at && listed[*i].is_none())
                    .any(|i| reasons.get(i).is_none_or(Value::is_null));
                if unexplained {
                    let coin = &slice.coins[at];
                    wrong.push(format!("{matrix_type}: {coin} has a null cell without a reason"));
                }
                cells += n - 1;
                if matrix_type == "benchmark" {
                    rates[at] = listed;
                }
            }
            if bases != n {
                wrong.push(format!("{matrix_type}: {bases} of {n} rows"));
            }
        }
        let want = TYPES.len() * n * n.saturating_sub(1);
        let said = match wrong.first() {
            None => format!("{cells} cells of {} coins at {}", n, slice.ts),
            Some(first) => format!("{cells} of {want} cells at {}; {first}", slice.ts),
        };
        let name = format!("{} slice", slice.series);
        items.push(
            g.item(key("cells"), name.as_str(), Level::Err.unless(wrong.is_empty()), cells, said)
                .meta(json!({ "wrong": wrong, "expected": want, "ts": slice.ts })),
        );
        let worst = inverse_error(&rates);
        let level = Level::Err.unless(worst <= CLOSE);
        let said = format!("a rate times its inverse is 1, within {worst:.1e}");
        items.push(g.item(key("inverse"), format!("{name}, inverse"), level, worst, said));
    }
    if items.is_empty() {
        items.push(g.none("matrices:slices", "slices"));
    }
    Ok(items)
}

/// How far a rate times its inverse is from 1 at most.
fn inverse_error(rates: &[Vec<Option<f64>>]) -> f64 {
    let mut worst = 0.0_f64;
    for (b, row) in rates.iter().enumerate() {
        for (q, cell) in row.iter().enumerate().skip(b + 1) {
            let back = rates.get(q).and_then(|r| r.get(b)).copied().flatten();
            if let (Some(there), Some(back)) = (cell, back) {
                worst = worst.max((there * back - 1.0).abs());
            }
        }
    }
    worst
}

/// The newest mood of each label is in range, and says what it is made of.
pub(super) async fn mood(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let labels = vitals::labels(g.db).await?;
    let mut items = Vec::new();
    for mood in view::moods(g.db, &labels, 1).await? {
        let key = |what: &str| format!("mood:{}:{what}", mood.label);
        let inside = (0.2..=2.0).contains(&mood.coeff);
        let said = format!("{} at {} is {}", mood.mood, mood.start, mood.coeff);
        let level = Level::Err.unless(inside);
        items.push(g.item(
            key("coeff"),
            format!("{} coefficient", mood.label),
            level,
            mood.coeff,
            said,
        ));
        let again = recomputed(&mood.payload, &g.config.mood.params);
        let (level, said) = match (MoodId::parse(&mood.mood), again) {
            (None, _) => (
                Level::Err,
                format!("`{}` is no mood: a capital A to L, a letter a to l, 0 to 7", mood.mood),
            ),
            // What is published again was made of another window's signals.
            (Some(_), _) if mood.is_fallback => {
                (Level::Ok, "it is the last stable one, published again".to_owned())
            }
            (Some(_), None) => (Level::Warn, "the payload says nothing of its signals".to_owned()),
            (Some(id), Some(again)) if id == again.id && again.coeff == mood.coeff => {
                (Level::Ok, "its signals give the same letters and coefficient again".to_owned())
            }
            (Some(_), Some(again)) => {
                (Level::Err, format!("its signals give {} and {} now", again.id, again.coeff))
            }
        };
        let name = format!("{} letters", mood.label);
        items.push(g.item(key("id"), name, level, mood.mood.as_str(), said));
    }
    if items.is_empty() {
        items.push(g.none("mood:rows", "moods"));
    }
    Ok(items)
}

/// The mood that the stored signals make.
fn recomputed(payload: &Value, params: &Params) -> Option<Mood> {
    let signal = |name: &str| payload.get("signals")?.get(name)?.as_f64();
    let signals = Signals { g: signal("g")?, t: signal("t")?, v: signal("v")? };
    Some(Mood::of(&signals, params))
}

/// A note is written, and read back as the newest of its topic.
pub(super) async fn heartbeat(g: &Ground<'_>) -> Result<Vec<Item>, DbError> {
    let newest = "select idempotency_key, ts_epoch_ms from ops.app_ledger where topic = 'heartbeat'
                  order by ts_epoch_ms desc, id desc limit 1";
    if g.dry {
        let row = g.db.query_opt(newest, Vec::new()).await?;
        let said = match row {
            None => "no rows yet; nothing was written".to_owned(),
            Some(row) => format!("the newest is of {}; nothing was written", row.time(1)?),
        };
        return Ok(vec![g.item("heartbeat:ledger", "heartbeat", Level::Ok, Value::Null, said)]);
    }
    let key = format!("heartbeat:smoke:{}", g.now.0);
    g.db.apply(vec![Statement::new(
        "insert into ops.app_ledger
           (topic, event, payload, session_id, idempotency_key, ts_epoch_ms)
         values ('heartbeat', 'smoke', '{}', null, $1, $2) on conflict (idempotency_key) do nothing",
        values![key.as_str(), g.now],
    )])
    .await?;
    let row = g.db.query_one(newest, Vec::new()).await?;
    let same = row.text(0)? == key;
    // The worker's own beat may have come in between.
    let ordered = row.time(1)? >= g.now;
    let said = match (same, ordered) {
        (true, _) => "a note was written and read back as the newest".to_owned(),
        (false, true) => format!("a note was written; a newer one is there: {}", row.text(0)?),
        (false, false) => {
            format!("the newest note is {}, and not the one just written", row.text(0)?)
        }
    };
    Ok(vec![g.item("heartbeat:ledger", "heartbeat", Level::Err.unless(ordered), key, said)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_and_its_inverse_are_compared_where_both_are_known() {
        let rates = vec![
            vec![None, Some(20.0), Some(50_000.0)],
            vec![Some(0.05), None, None],
            vec![Some(0.000_020_1), None, None],
        ];
        assert!((inverse_error(&rates) - 0.005).abs() < 1e-12);
        assert_eq!(inverse_error(&[vec![None]]), 0.0);
    }

    #[test]
    fn a_mood_is_made_again_of_its_stored_signals() {
        let payload = json!({ "signals": { "g": 0.0025, "t": 0.02, "v": 0.05 } });
        let mood = recomputed(&payload, &Params::default());
        assert_eq!(mood.map(|m| m.id.to_string()).as_deref(), Some("Fd1"));
        assert_eq!(recomputed(&json!({ "signals": null }), &Params::default()), None);
    }
}
