//! Whole scans: what passes, what does not, and what is told of each.

use std::collections::BTreeMap;

use proptest::prelude::*;
use watchbell_core::{Bps, Millis};
use watchbell_scan::csv;
use watchbell_scan::explain::{Decision, Explanation, Meta};
use watchbell_scan::input::{Bars, SymbolData};
use watchbell_scan::pipeline::{self, Outcome};
use watchbell_scan::premove::{Direction, Risk};
use watchbell_scan::settings::Settings;
use watchbell_venues::native::Venue;

use crate::market::{
    HOUR, answer, bars, book, books, decided, finals, last, market, no_answer, normal, now, parsed,
    scan,
};

const GATES: [&str; 9] = [
    "data",
    "score",
    "vadr",
    "spread",
    "depth",
    "freshness",
    "fatigue",
    "late_fill",
    "funding_divergence",
];

fn of<'a>(outcome: &'a Outcome, symbol: &str) -> &'a Explanation {
    outcome.explanations.iter().find(|e| e.symbol == symbol).unwrap()
}

fn meta(outcome: &Outcome) -> Meta {
    Meta {
        config_hash: "c".into(),
        universe_hash: "u".into(),
        version: "0".into(),
        regime_source: outcome.regime.source,
        stale_universe: false,
    }
}

/// Everything that a run publishes of an outcome.
fn published(outcome: &Outcome) -> String {
    let explain = outcome.explain(meta(outcome), serde_json::Value::Null);
    [
        csv::signals(outcome),
        csv::warm_signals(outcome),
        csv::premove(outcome, &BTreeMap::new()),
        serde_json::to_string_pretty(&explain).unwrap(),
    ]
    .join("\n")
}

/// Sections 6.2 and 9.5: every symbol is told, with every gate in its order, and passers have passed.
#[test]
fn a_scan_tells_of_every_symbol_and_lets_the_best_pass() {
    let market = market();
    let outcome = scan(&market, &Settings::hot());
    assert_eq!(outcome.explanations.len(), market.len());
    assert!(!outcome.passers.is_empty() && outcome.passers.len() < market.len());
    for (rank, e) in (1..).zip(&outcome.explanations) {
        assert_eq!(e.gates.iter().map(|g| g.name).collect::<Vec<_>>(), GATES, "{}", e.symbol);
        assert_eq!(e.rank, rank);
        assert_eq!(e.all_gates_pass, e.gates.iter().all(|g| !g.blocks()));
        assert_eq!(e.decision == Decision::Included, e.all_gates_pass);
        assert_eq!(e.gate("score").unwrap().passed, Some(e.base_score.unwrap() >= 75.0));
        assert!(e.factors.orthogonalised);
        assert_eq!(e.factors.residual.momentum, e.momentum_core);
        let parts = e.factors.contribution;
        let sum = [parts.momentum, parts.technical, parts.volume, parts.quality];
        let sum: f64 = sum.into_iter().flatten().sum();
        assert!((sum - e.base_score.unwrap()).abs() < 1e-9);
        assert!((0.0..=100.0).contains(&e.base_score.unwrap()));
        if e.all_gates_pass {
            assert_eq!(
                (e.primary_reason.as_str(), e.reason.as_str()),
                ("all_gates_passed", "all_gates_passed")
            );
            assert!(
                e.verdict().starts_with("✅ ENTRY CLEARED — ")
                    && e.verdict().contains("8/8 gates passed")
            );
            assert!(e.fresh && e.deep() && e.gate_passed);
        } else {
            assert_eq!(e.primary_reason, "score_below_threshold");
            assert!(e.verdict().starts_with("❌ ENTRY BLOCKED — "), "{}", e.verdict());
            assert_eq!(e.gate("late_fill").unwrap().reason, "not_evaluated");
        }
        assert_eq!(e.sources, ["coinbase-spot", "kraken-spot", "okx-spot"]);
        assert_eq!(e.microstructure.venue, Some(Venue::Kraken));
    }
    let scores = outcome.explanations.windows(2).all(|w| w[0].score >= w[1].score);
    assert!(scores);
    assert_eq!(outcome.summary.scanned, 12);
    assert_eq!(outcome.summary.passed, outcome.passers.len());
    assert_eq!(
        outcome.summary.rejections,
        BTreeMap::from([("score_below_threshold".into(), 12 - outcome.passers.len())])
    );
    for s in &outcome.passers {
        assert_eq!((s.venue, s.sources, s.cached, s.fresh), (Some(Venue::Kraken), 3, false, true));
        assert_eq!((s.premove_signal, s.execution_risk), (Direction::Long, Risk::Low));
        assert_eq!(s.latency, Some(Millis(120)));
        assert_eq!(s.ttl_remaining, Millis::from_secs(280), "bars of 20 seconds ago");
    }
    assert_eq!(csv::signals(&outcome).lines().count(), 1 + outcome.passers.len());
}

/// Section 9.5: the keys of `explain.json`, in order.
#[test]
fn explain_has_the_keys_in_order() {
    let outcome = scan(&market(), &Settings::hot());
    let file = serde_json::to_string(&outcome.explain(meta(&outcome), "up")).unwrap();
    let in_order = |text: &str, keys: &[&str]| {
        let mut at = 0;
        for key in keys {
            let quoted = format!("\"{key}\":");
            at += text[at..].find(&quoted).unwrap_or_else(|| panic!("{key} in {text}")) + 1;
        }
    };
    let first = serde_json::to_string(&outcome.explanations[0]).unwrap();
    in_order(
        &first,
        &[
            "symbol",
            "rank",
            "decision",
            "score",
            "base_score",
            "social",
            "momentum_core",
            "factors",
            "raw",
            "residual",
            "weights",
            "contribution",
            "vadr",
            "value",
            "p80",
            "tier_min",
            "required",
            "binding",
            "bars",
            "frozen",
            "tier",
            "microstructure",
            "venue",
            "quote",
            "spread_bps",
            "depth_usd",
            "bid_depth",
            "ask_depth",
            "truncated",
            "age_ms",
            "venues_checked",
            "gates",
            "name",
            "enforced",
            "passed",
            "value",
            "threshold",
            "op",
            "reason",
            "gate_passed",
            "all_gates_pass",
            "primary_reason",
            "reason",
            "fresh",
            "sources",
            "premove",
            "score",
            "status",
            "gates",
            "unavailable",
            "attribution",
            "top_inclusion",
            "top_exclusion",
        ],
    );
    in_order(&file, &["timestamp", "job_type", "regime", "candidates", "explanations"]);
    let tail = &file[file.rfind("\"gates\":{").unwrap()..];
    assert!(
        tail.starts_with(
            r#""gates":{"entry_threshold":75.0,"vadr_minimum":1.8,"spread_maximum":50.0,"depth_minimum":100000.0},"weights":{"momentum":0.35,"technical":0.25,"volume":0.25,"quality":0.15,"social_cap":10.0},"meta":{"config_hash":"c","universe_hash":"u","version":"0","regime_source":"default_stale","stale_universe":false},"health":"up","summary":{"scanned":12,"passed":"#
        ),
        "{tail}"
    );
    let json: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!(json["job_type"], "scan.hot");
    assert_eq!(json["timestamp"], "2025-09-07T11:15:13Z");
    assert_eq!(json["explanations"][0]["decision"], "included");
    assert_eq!(json["explanations"][0]["social"], "unavailable");
    assert_eq!(json["explanations"][0]["microstructure"]["quote"], "USD");
}

/// One symbol of the market spoilt in some way, and the first thing that is said of it.
#[test]
fn trouble_is_named_and_never_passes() {
    type Spoil = fn(&mut SymbolData);
    let cases: [(Spoil, &str); 18] = [
        (|d| d.hours.clear(), "data_missing:candles"),
        (|d| d.hours[0].bars.clear(), "data_missing:candles: none"),
        (
            |d| {
                d.hours.clear();
                d.trouble.push("candles: circuit_open".into());
            },
            "data_missing:candles: circuit_open",
        ),
        (
            |d| d.hours[0].bars[700].close = f64::NAN,
            "data_missing:candles: bar at 2025-09-06T15:00:00Z: not a price or volume",
        ),
        (
            |d| {
                let bar = d.hours[0].bars[700];
                d.hours[0].bars.insert(700, bar);
            },
            "data_missing:candles: bar at 2025-09-06T15:00:00Z: not after the one before",
        ),
        (|d| drop(d.hours[0].bars.drain(..700)), "data_missing:momentum_unavailable"),
        (|d| d.books.clear(), "data_missing:no_native_book"),
        (|d| d.books = vec![no_answer(Venue::Kraken, "timeout")], "data_missing:no_native_book"),
        (
            |d| d.books = vec![answer(parsed(Venue::Kraken, &[], &[], now()))],
            "data_missing:empty_book",
        ),
        (
            |d| d.books = vec![answer(parsed(Venue::Kraken, &[], &[(101.0, 1.0)], now()))],
            "data_missing:book: invalid_book",
        ),
        (
            |d| {
                let crossed = parsed(Venue::Kraken, &[(102.0, 1.0)], &[(101.0, 1.0)], now());
                d.books = vec![answer(crossed)];
            },
            "data_missing:book: invalid_book",
        ),
        (
            |d| d.books.iter_mut().for_each(|b| b.latency = Some(Millis(2_001))),
            "data_missing:book: slow_answer: 2001ms > 2000ms",
        ),
        (
            |d| {
                let p = last(d);
                let side = |sign: f64| -> Vec<(f64, f64)> {
                    (1..=4).map(|i| (p * (1.0 + sign * 0.0001 * f64::from(i)), 1e6)).collect()
                };
                d.books = vec![answer(parsed(Venue::Kraken, &side(-1.0), &side(1.0), now()))];
            },
            "data_missing:book: few_levels: 4 < 5",
        ),
        (
            |d| d.books = vec![answer(book(Venue::Kraken, last(d), 1_200.0, 2e4, now()))],
            "data_missing:book: suspicious_spread: 1200.0 > 1000.0 bps",
        ),
        (
            |d| {
                // The price stands still in all of it, and nothing is traded.
                d.hours[0].bars.iter_mut().for_each(|b| b.quote_volume = 0.0);
            },
            "vadr_frozen: 24/20 bars (nothing traded before)",
        ),
        (
            |d| {
                let n = d.hours[0].bars.len();
                drop(d.hours[0].bars.drain(n - 11..n - 9));
                drop(d.hours[0].bars.drain(n - 24..n - 19));
            },
            "vadr_frozen: 17/20 bars",
        ),
        (
            |d| d.books = vec![answer(book(Venue::Kraken, last(d), 61.0, 2e4, now()))],
            "spread_wide: 61.0 > 25.0 bps",
        ),
        (
            |d| d.books = vec![answer(book(Venue::Kraken, last(d), 4.0, 1_000.0, now()))],
            "depth_thin: ",
        ),
    ];
    for (spoil, reason) in cases {
        let mut market = market();
        spoil(&mut market[0]);
        // No score threshold: what is judged is the data.
        let settings = Settings { score_min: 0.0, late_fill_max: None, ..Settings::hot() };
        let outcome = scan(&market, &settings);
        let e = of(&outcome, "A/USD");
        assert!(!e.all_gates_pass && e.decision == Decision::Excluded, "{reason}");
        assert!(e.reason.starts_with(reason), "{reason}: {}", e.reason);
        assert_eq!(e.gates.len(), GATES.len());
        assert!(outcome.passers.iter().all(|s| s.symbol != "A/USD"));
        assert!(outcome.summary.rejections.contains_key(&e.primary_reason));
        assert!(serde_json::to_string(e).is_ok());
    }
}

/// Section 1.2: who has an empty book at Kraken has no part in the run, nor in the others' scores.
#[test]
fn an_empty_book_leaves_the_others_as_if_it_were_not_there() {
    let mut market = market();
    market[5].books[0] = answer(parsed(Venue::Kraken, &[], &[], now()));
    let with = scan(&market, &Settings::hot());
    assert_eq!(of(&with, "F/USD").primary_reason, "data_missing:empty_book");
    market.remove(5);
    let without = scan(&market, &Settings::hot());
    for e in &without.explanations {
        assert_eq!(e.base_score, of(&with, &e.symbol).base_score);
    }
}

/// Section 4.3: the books are read again for those that may enter, and these are judged.
#[test]
fn the_final_book_decides() {
    let market = market();
    let settings = Settings::hot();
    let scored = pipeline::score(market.clone(), &settings, &normal(), now());
    let wanted = scored.wants_final_book();
    assert!(!wanted.is_empty() && wanted.len() < market.len());
    assert!(wanted.windows(2).all(|w| w[0].rank < w[1].rank));
    let first = wanted[0].symbol.clone();
    let data = market.iter().find(|d| d.member.symbol == first).unwrap();
    let reason_of = |books, at| {
        let mut all = finals(&scored, &market);
        all.insert(first.clone(), books);
        let outcome = pipeline::judge(scored.clone(), all, at);
        of(&outcome, &first).reason.clone()
    };
    let at = |secs: i64| now() + Millis::from_secs(secs);
    assert_eq!(reason_of(books(data, at(18)), at(20)), "all_gates_passed");
    assert_eq!(reason_of(books(data, at(18)), at(48)), "all_gates_passed", "30 seconds");
    assert_eq!(
        reason_of(books(data, at(18)), at(59)),
        "data_missing:book: stale_book: 41s > 30s; late_fill: 41s > 30s"
    );
    assert_eq!(reason_of(books(data, at(22)), at(20)), "late_fill: -2s < 0s");
    let wide = |mid: f64| vec![answer(book(Venue::Kraken, mid, 61.0, 2e4, at(18)))];
    assert_eq!(reason_of(wide(last(data)), at(20)), "spread_wide: 61.0 > 25.0 bps");
    let moved =
        reason_of(vec![answer(book(Venue::Kraken, last(data) * 1.05, 4.0, 2e4, at(18)))], at(20));
    assert!(moved.starts_with("excessive_move: ") && moved.ends_with(" > 1.20 atr"), "{moved}");
    let down = vec![no_answer(Venue::Kraken, "circuit_open")];
    assert_eq!(
        reason_of(down, at(20)),
        "data_missing:no_native_book; vadr_frozen: 0/20 bars (no current bar); \
         spread_wide: - > 25.0 bps; depth_thin: - < 150000 usd; excessive_move: - > 1.20 atr; \
         late_fill: -s > 30s"
    );

    // Nothing was read again: the first book's age counts, and a minute is too old.
    let outcome = pipeline::judge(scored.clone(), BTreeMap::new(), at(60));
    assert_eq!(of(&outcome, &first).primary_reason, "data_missing:book");
    assert!(outcome.passers.is_empty());
    // Who is far from the threshold keeps the first book, whatever its age.
    let far = outcome.explanations.last().unwrap();
    assert_eq!(far.primary_reason, "score_below_threshold");
    assert_eq!((far.deep(), far.microstructure.age_ms), (true, Some(60_000)));
}

/// Sections 2.7 and 4.3: whole bars since the last close, at the decision.
#[test]
fn stale_bars_are_told() {
    for (hours, reason) in [(2, None), (3, Some("stale_bars: 3 > 2"))] {
        let mut market = market();
        for data in &mut market {
            data.hours[0].bars.iter_mut().for_each(|b| b.open_time = b.open_time - HOUR * hours);
        }
        let outcome = scan(&market, &Settings { score_min: 0.0, ..Settings::hot() });
        for e in &outcome.explanations {
            let gate = e.gate("freshness").unwrap();
            assert_eq!(gate.passed, Some(reason.is_none()), "{hours}");
            assert_eq!(e.fresh, reason.is_none());
            if let Some(reason) = reason {
                assert_eq!(gate.reason, reason);
                assert!(e.vadr.frozen, "a ratio of three hours ago is not of now");
            }
        }
    }
}

/// Section 4.3: the first exchange in order that passes; VADR is of that exchange's own bars.
#[test]
fn another_exchange_is_chosen_and_its_own_bars_are_wanted() {
    let mut market = market();
    // Without own bars there is less quality, so the threshold is low enough for all.
    let settings = Settings { score_min: 0.0, ..Settings::hot() };
    let mid = last(&market[0]);
    market[0].books[0] = answer(book(Venue::Kraken, mid, 40.0, 2e4, now()));
    let wanted = pipeline::wants_bars(&market, &settings, now());
    let wanted: Vec<(&str, Venue)> = wanted.iter().map(|(m, v)| (m.symbol.as_str(), *v)).collect();
    assert_eq!(wanted, [("A/USD", Venue::Okx)]);

    let run = |market: &[SymbolData], settings: &Settings| {
        let scored = pipeline::score(market.to_vec(), settings, &normal(), now());
        let mut finals = finals(&scored, market);
        let wide = book(Venue::Kraken, mid, 40.0, 2e4, decided());
        if let Some(books) = finals.get_mut("A/USD") {
            books[0] = answer(wide);
        }
        let late = scored.wants_bars(&finals, decided());
        (pipeline::judge(scored, finals, decided()), late)
    };
    let (without, late) = run(&market, &settings);
    assert_eq!(late.len(), 1, "asked for again by the final books");
    let e = of(&without, "A/USD");
    assert_eq!(e.microstructure.venue, Some(Venue::Okx));
    assert_eq!(e.microstructure.quote, Some("USDT"));
    assert_eq!(e.reason, "vadr_frozen: 0/20 bars (no current bar)");
    let checked: Vec<(Venue, bool, &str)> = e
        .microstructure
        .venues_checked
        .iter()
        .map(|v| (v.venue, v.ok, v.reason.as_str()))
        .collect();
    assert_eq!(
        checked,
        [
            (Venue::Kraken, false, "spread_wide: 40.0 > 25.0 bps"),
            (Venue::Okx, true, "ok"),
            (Venue::Coinbase, true, "ok")
        ]
    );

    let own =
        Bars { venue: Venue::Okx, bars: bars(30, 0.001, 7), fetched_at: now(), cached: false };
    market[0].hours.push(own);
    assert!(pipeline::wants_bars(&market, &settings, now()).is_empty());
    let (with, late) = run(&market, &settings);
    assert!(late.is_empty());
    assert_eq!(of(&with, "A/USD").reason, "all_gates_passed");
    let row = csv::signals(&with).lines().find(|l| l.contains("A/USD")).unwrap().to_owned();
    assert!(row.ends_with(",normal,●,okx,3"), "{row}");

    let (strict, _) = run(&market, &Settings { strict_usd: true, ..settings });
    let e = of(&strict, "A/USD");
    assert_eq!(e.microstructure.venue, Some(Venue::Coinbase));
    assert_eq!(e.microstructure.venues_checked[1].reason, "strict_usd");
}

/// Bars that were read after the first pass count for the verdict.
#[test]
fn bars_may_be_added_after_the_first_pass() {
    let mut market = market();
    let kraken_down = no_answer(Venue::Kraken, "circuit_open");
    market[0].books[0] = kraken_down.clone();
    let mut scored = pipeline::score(market.clone(), &Settings::hot(), &normal(), now());
    let mut finals = finals(&scored, &market);
    for books in finals.values_mut() {
        books[0] = kraken_down.clone();
    }
    for (member, venue) in scored.wants_bars(&finals, decided()) {
        assert_eq!(venue, Venue::Okx);
        let bars = Bars { venue, bars: bars(30, 0.001, 7), fetched_at: decided(), cached: false };
        scored.add_bars(&member.symbol, bars);
    }
    assert!(scored.wants_bars(&finals, decided()).is_empty());
    let outcome = pipeline::judge(scored, finals, decided());
    assert!(!outcome.passers.is_empty());
    assert!(outcome.passers.iter().all(|s| s.venue == Some(Venue::Okx)));
}

/// Sections 4.2 and 6.1: exactly the limit passes, and the warm scan asks the tier's only.
#[test]
fn the_warm_scan_takes_cached_books_and_the_tiers_limits() {
    let mut market = market();
    for data in &mut market {
        data.member.adv_usd = 400_000;
        data.hours[0].cached = true;
        data.hours[0].fetched_at = now() - Millis::from_secs(600);
        let taken = now() - Millis::from_secs(900);
        data.books = vec![answer(book(Venue::Kraken, last(data), 70.0, 2_000.0, taken))];
        data.books[0].cached = true;
    }
    let scored = pipeline::score(market.clone(), &Settings::warm(), &normal(), now());
    assert!(scored.wants_final_book().is_empty());
    let outcome = pipeline::judge(scored, BTreeMap::new(), now());
    assert!(!outcome.passers.is_empty());
    for e in &outcome.explanations {
        assert_eq!(e.gate("late_fill").unwrap().reason, "not_applicable");
        assert_eq!(e.gate("funding_divergence").unwrap().reason, "not_applicable");
        assert_eq!(e.gate("spread").unwrap().threshold, Some(80.0));
        assert_eq!(e.gate("depth").unwrap().threshold, Some(25_000.0));
        assert_eq!(e.vadr.required, Some(1.75));
        assert!(e.premove.is_none());
        assert!(e.all_gates_pass == (e.base_score.unwrap() >= 65.0), "{}", e.reason);
    }
    let s = &outcome.passers[0];
    assert!(s.cached);
    assert_eq!(s.ttl_remaining, Millis::from_secs(900), "the book is the oldest");
    assert_eq!(s.latency, None, "nothing was asked of an exchange in this run");
    let row = csv::warm_signals(&outcome).lines().nth(1).unwrap().to_owned();
    assert!(row.ends_with(",true,normal,kraken,900"), "{row}");
    let json = serde_json::to_value(outcome.explain(meta(&outcome), ())).unwrap();
    assert_eq!(json["gates"]["entry_threshold"], 65.0);
    assert_eq!(json["gates"]["spread_maximum"], 80.0);

    // A book older than the cache keeps it, and bars that another bar has followed since.
    let mut old = market.clone();
    for data in &mut old {
        let taken = now() - Millis::from_secs(1_801);
        data.books = vec![answer(book(Venue::Kraken, last(data), 70.0, 2_000.0, taken))];
    }
    let scored = pipeline::score(old, &Settings::warm(), &normal(), now());
    let outcome = pipeline::judge(scored, BTreeMap::new(), now());
    assert!(outcome.explanations.iter().all(|e| e.primary_reason == "data_missing:book"));
    for data in &mut market {
        data.hours[0].fetched_at = now() - Millis::from_mins(31);
        let fetched_at = data.hours[0].fetched_at;
        data.hours[0].bars.retain(|b| b.open_time + HOUR <= fetched_at);
    }
    let scored = pipeline::score(market, &Settings::warm(), &normal(), now());
    let outcome = pipeline::judge(scored, BTreeMap::new(), now());
    for e in &outcome.explanations {
        assert_eq!(e.gate("freshness").unwrap().reason, "stale_cache: 1860s > 1800s");
    }
}

/// Section 2.7: guards may be told without being enforced.
#[test]
fn guards_that_are_not_enforced_are_told() {
    let mut market = market();
    for data in &mut market {
        data.hours[0].bars.iter_mut().for_each(|b| b.open_time = b.open_time - HOUR * 2);
    }
    let moved = |settings: &Settings| {
        let scored = pipeline::score(market.clone(), settings, &normal(), now());
        let mut all = finals(&scored, &market);
        for (symbol, books) in &mut all {
            let data = market.iter().find(|d| d.member.symbol == *symbol).unwrap();
            *books = vec![answer(book(Venue::Kraken, last(data) * 1.05, 4.0, 2e4, decided()))];
        }
        pipeline::judge(scored, all, decided())
    };
    assert!(moved(&Settings::hot()).passers.is_empty());
    let told = moved(&Settings { guards_enforce: false, ..Settings::hot() });
    assert!(!told.passers.is_empty());
    assert!(csv::signals(&told).lines().skip(1).all(|l| l.contains(",○,")));
    assert!(of(&told, &told.passers[0].symbol).verdict().contains("5/5 gates passed"));
}

/// Section 6.2: a requirement of diverging funding rates blocks where there are none.
#[test]
fn funding_blocks_only_where_it_is_required() {
    let market = market();
    let free = scan(&market, &Settings::hot());
    let strict = scan(&market, &Settings { require_funding: true, ..Settings::hot() });
    assert!(!free.passers.is_empty() && strict.passers.is_empty());
    let e = of(&strict, &free.passers[0].symbol);
    assert_eq!(e.reason, "funding_absent");
    assert!(e.premove.as_ref().unwrap().unavailable.contains(&"funding"));
}

/// Sections 6.2 and 7.3: social points are added last, at most ten, and buy no entry.
#[test]
fn social_points_buy_no_entry() {
    let mut market = market();
    let plain = scan(&market, &Settings::hot());
    for data in &mut market {
        data.evidence.social = Some(500.0);
    }
    let social = scan(&market, &Settings::hot());
    assert_eq!(plain.passers.len(), social.passers.len());
    for e in &social.explanations {
        let before = of(&plain, &e.symbol);
        assert_eq!(e.base_score, before.base_score);
        assert_eq!(e.score, before.score.map(|s| s + 10.0));
        assert_eq!(e.all_gates_pass, before.all_gates_pass);
    }
}

/// Section 2.6: with fewer than eight symbols the raw values are weighed, and it says so.
#[test]
fn few_symbols_are_not_orthogonalised() {
    for (count, orthogonalised) in [(7, false), (8, true)] {
        let outcome = scan(&market()[..count], &Settings::hot());
        for e in &outcome.explanations {
            assert_eq!(e.factors.orthogonalised, orthogonalised);
            assert_eq!(e.factors.raw == e.factors.residual, !orthogonalised);
        }
    }
}

/// Section 9.5: at most as many rows as asked for.
#[test]
fn rows_beyond_the_table_are_told() {
    let market = market();
    let all = scan(&market, &Settings::hot());
    assert!(all.passers.len() > 2);
    let few = scan(&market, &Settings { top_n: 2, ..Settings::hot() });
    assert_eq!(few.passers[..], all.passers[..2]);
    let third = &few.explanations[2];
    assert_eq!((third.all_gates_pass, third.decision), (true, Decision::Excluded));
    assert_eq!(
        (third.primary_reason.as_str(), third.reason.as_str()),
        ("beyond_top_n", "beyond_top_n: 3 > 2")
    );
    assert_eq!(few.near_misses().next().unwrap().symbol, third.symbol);
    assert_eq!(few.summary.rejections["beyond_top_n"], all.passers.len() - 2);
}

/// Section 4.2: exactly 50 hundredths of a percent and exactly the least depth pass.
#[test]
fn limits_pass_at_the_edge() {
    let mut settings = Settings { score_min: 0.0, late_fill_max: None, ..Settings::hot() };
    settings.tiers[0].spread_max = Bps(80.0);
    settings.tiers[0].depth_min = 25_000.0;
    let mut market = market();
    let levels = |best: f64, sign: f64| -> Vec<(f64, f64)> {
        (0..5)
            .map(|i| (best + sign * f64::from(i) * 4.0, if i == 0 { 1.0 } else { 1e-9 }))
            .collect()
    };
    // Middle 100, half a dollar wide: 50 hundredths of a percent.
    let edge = parsed(Venue::Kraken, &levels(99.75, -1.0), &levels(100.25, 1.0), now());
    market[0].books = vec![answer(edge)];
    settings.depth_floor = Some(200.0);
    settings.tiers[0].depth_min = 100.0;
    let outcome = scan(&market, &settings);
    let e = of(&outcome, "A/USD");
    assert_eq!(e.gate("spread").unwrap().reason, "passed");
    assert_eq!(
        (e.microstructure.spread_bps, e.gate("spread").unwrap().threshold),
        (Some(50.0), Some(50.0))
    );
    assert_eq!(e.microstructure.depth_usd, Some(200.0));
    assert_eq!(e.gate("depth").unwrap().reason, "passed");
}

#[test]
fn an_empty_market_is_an_empty_outcome() {
    let outcome = scan(&[], &Settings::hot());
    assert_eq!((outcome.explanations.len(), outcome.passers.len()), (0, 0));
    assert!(published(&outcome).contains("\"candidates\": 0"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The order in which symbols were read does not matter, to the byte.
    #[test]
    fn any_order_of_symbols_gives_the_same_bytes(order in Just((0..12).collect::<Vec<usize>>()).prop_shuffle()) {
        let market = market();
        let shuffled: Vec<SymbolData> = order.into_iter().map(|i| market[i].clone()).collect();
        let (a, b) = (scan(&market, &Settings::hot()), scan(&shuffled, &Settings::hot()));
        prop_assert_eq!(published(&a), published(&b));
    }

    /// Whatever is wrong with bars, nothing passes on a number that is none, every gate is told, and the
    /// other symbols are judged all the same.
    #[test]
    fn nothing_passes_on_what_is_no_number(
        harmed in prop::collection::vec((0_usize..12, 0_usize..720, 0_usize..6, 0_usize..5), 1..8),
    ) {
        let mut market = market();
        let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::NAN];
        for (symbol, bar, field, value) in &harmed {
            let b = &mut market[*symbol].hours[0].bars[*bar];
            let fields = [&mut b.open, &mut b.high, &mut b.low, &mut b.close, &mut b.volume, &mut b.quote_volume];
            *fields.into_iter().nth(*field).unwrap() = bad[*value];
        }
        let outcome = scan(&market, &Settings { score_min: 0.0, ..Settings::hot() });
        for e in &outcome.explanations {
            prop_assert_eq!(e.gates.iter().map(|g| g.name).collect::<Vec<_>>(), GATES.to_vec());
            prop_assert!(e.gates.iter().all(|g| g.value.is_none_or(f64::is_finite)));
            let spoilt = harmed.iter().any(|(s, ..)| market[*s].member.symbol == e.symbol);
            prop_assert!(!spoilt || !e.all_gates_pass, "{} passed", e.symbol);
            if let Some(score) = e.score {
                prop_assert!((0.0..=110.0).contains(&score));
            }
            prop_assert_eq!(e.score.is_none(), spoilt);
        }
    }
}

/// What a symbol trades decides its tier, and the tier what is asked of it.
#[test]
fn the_tier_is_told() {
    let mut market = market();
    market[1].member.adv_usd = 999_999;
    market[2].member.adv_usd = 4_999_999;
    let outcome = scan(&market, &Settings::hot());
    for (symbol, tier) in [("A/USD", "tier1"), ("B/USD", "tier3"), ("C/USD", "tier2")] {
        assert_eq!(of(&outcome, symbol).tier, tier);
    }
}
