//! One symbol's verdict: its gates in their order, and everything that explains them.

use std::collections::{BTreeMap, BTreeSet};

use watchbell_core::{Millis, Time};
use watchbell_venues::native::Venue;

use crate::bars;
use crate::explain::{
    Attribution, Decision, Explanation, FactorValues, Factors, Microstructure, Social, VadrShown,
};
use crate::gates::{self, Freshness, Gate};
use crate::input::{Bars, BookAnswer, SymbolData};
use crate::micro::{self, Books};
use crate::pipeline::{Candidate, Scored, Signal, at, hours, primary};
use crate::premove::{self, Seen};
use crate::regime::RegimeInUse;
use crate::settings::{Job, Settings, Tier};
use crate::vadr::{self, Vadr};

/// One symbol's verdict; a signal where every gate that is enforced passed.
pub(crate) fn verdict(
    c: &Candidate,
    finals: Option<&[BookAnswer]>,
    scored: &Scored,
    latencies: &BTreeMap<Venue, Millis>,
    now: Time,
) -> (Explanation, Option<Signal>) {
    let (data, settings) = (&c.data, &scored.settings);
    let tier = settings.tier(data.member.adv_usd);
    let wanted = scored.near(c);
    let timely = wanted || finals.is_some();
    let age_at = if timely { Some(now) } else { at(settings, now) };
    let books = micro::choose(finals.unwrap_or(&data.books), settings, tier, age_at);
    let venue = books.chosen.as_ref().map(|b| b.venue);
    let own = venue.and_then(|v| hours(data, v));
    let vadr = vadr::measure(own.map_or(&[], |b| &b.bars), now);

    let gates = gates(c, &books, &vadr, settings, tier, timely, now);
    let passed = |name| gates.iter().any(|g: &Gate| g.name == name && g.passed == Some(true));
    let all_gates_pass = !gates.iter().any(Gate::blocks);
    let (primary_reason, reason) = gates::line(&gates);
    let measures = books.chosen.as_ref().and_then(|b| b.measures.ok());
    let social = Social::of(data.evidence.social);
    let score = c.base.map(|base| (base + social.points()).clamp(0.0, 110.0));
    let fresh = passed("freshness");

    let sources = sources(data, &books, settings, venue);
    let oldest = oldest(data, &books, settings);
    let premove = settings.premove.then(|| {
        let blocked = |g: &&Gate| !["score", "vadr", "funding_divergence"].contains(&g.name);
        let seen = Seen {
            quality: c.raw[3],
            compression: c.measured.compression,
            volume_ratio: c.measured.volume.and_then(|v| v.ratio),
            close: c.measured.close,
            vwap_24h: c.measured.vwap_24h,
            oldest: c.measured.end.into_iter().chain(books.newest).min(),
            blocked: gates.iter().filter(blocked).any(Gate::blocks),
        };
        premove::judge(&data.evidence, &seen, scored.regime.name, now)
    });

    let shown = vadr_shown(&vadr, settings, tier);
    let signal = score.zip(c.raw[0]).filter(|_| all_gates_pass).map(|(score, momentum)| Signal {
        symbol: data.member.symbol.clone(),
        score,
        momentum_core: momentum,
        vadr: shown.value,
        spread_bps: measures.map(|m| m.spread.0),
        depth_usd: measures.map(|m| m.depth()),
        fresh,
        venue,
        sources: sources.len(),
        cached: primary(data, settings).is_some_and(|b| b.cached),
        ttl_remaining: oldest
            .map_or(Millis::ZERO, |t| settings.ttl - now.since(t))
            .max(Millis::ZERO),
        premove_signal: premove::direction(
            c.base.unwrap_or(score),
            c.measured.r4h,
            premove.as_ref().map(|p| p.status),
        ),
        execution_risk: premove::risk(
            measures.map(|m| m.spread.0),
            passed("spread") && passed("depth"),
        ),
        latency: venue.and_then(|v| latencies.get(&v).copied()),
    });
    let explanation = Explanation {
        symbol: data.member.symbol.clone(),
        rank: 0,
        decision: Decision::Excluded,
        score,
        base_score: c.base,
        social,
        momentum_core: c.raw[0],
        factors: factors_shown(c, &scored.regime),
        tier: tier.name,
        microstructure: Microstructure {
            venue,
            quote: venue.map(Venue::quote),
            spread_bps: measures.map(|m| m.spread.0),
            depth_usd: measures.map(|m| m.depth()),
            bid_depth: measures.map(|m| m.bid_depth),
            ask_depth: measures.map(|m| m.ask_depth),
            truncated: measures.is_some_and(|m| m.truncated),
            age_ms: books.chosen.as_ref().map(|b| now.since(b.taken_at).0),
            venues_checked: books.checked,
        },
        gate_passed: passed("score"),
        attribution: attribution(c, &vadr, measures.map(|m| m.spread.0), &gates, settings),
        vadr: shown,
        gates,
        all_gates_pass,
        primary_reason,
        reason,
        fresh,
        sources: sources.into_iter().collect(),
        premove,
    };
    (explanation, signal)
}

/// All gates, in their order (section 6.2).
fn gates(
    c: &Candidate,
    books: &Books,
    vadr: &Vadr,
    settings: &Settings,
    tier: &Tier,
    timely: bool,
    now: Time,
) -> Vec<Gate> {
    let chosen = books.chosen.as_ref();
    let measures = chosen.and_then(|b| b.measures.ok());
    let invalid = chosen.is_some_and(|b| b.measures.is_err()).then_some("invalid_book");
    let missing = c.missing.clone().or_else(|| match chosen {
        None => Some("no_native_book".into()),
        Some(b) => b.unfit.as_ref().map(|why| format!("book: {why}")),
    });
    let bars = primary(&c.data, settings);
    let m = &c.measured;
    let moved = measures.zip(m.close).zip(m.atr_1h);
    let fresh = Freshness {
        bars: bars.and_then(|b| bars::age(&b.bars, now)),
        moved: moved.map(|((book, close), atr)| gates::moved(book.mid, close, atr)),
        cache: bars.and_then(|b| cache_age(b, settings, now)),
    };
    let hot = settings.job == Job::Hot;
    let guard = |gate| gates::guard(gate, settings.guards_enforce);
    let late = match settings.late_fill_max {
        None => gates::no_late_fill("not_applicable"),
        Some(_) if !timely => gates::no_late_fill("not_evaluated"),
        Some(max) => guard(gates::late_fill(books.newest.map(|t| now.since(t)), max)),
    };
    vec![
        gates::data(missing.as_deref()),
        gates::score(c.base, settings.score_min),
        gates::vadr(vadr, settings, tier),
        gates::spread(measures.map(|m| m.spread.0), settings.spread_max(tier), invalid),
        gates::depth(measures.map(|m| m.depth()), settings.depth_min(tier), invalid),
        guard(gates::freshness(fresh)),
        guard(gates::fatigue(m.return_24h_pct, m.rsi_4h, m.acceleration)),
        late,
        if hot {
            gates::funding(c.data.evidence.funding.as_ref(), settings.require_funding)
        } else {
            gates::no_funding("not_applicable")
        },
    ]
}

/// Age of cached bars beside how old they may be, in the warm scan; none while no bar has closed since
/// they were fetched, for then they are still exact.
fn cache_age(bars: &Bars, settings: &Settings, now: Time) -> Option<(Millis, Millis)> {
    let hour = Millis::from_hours(1);
    let since = bars.fetched_at.floor(hour) != now.floor(hour);
    (settings.job == Job::Warm && bars.cached && since)
        .then(|| (now.since(bars.fetched_at), settings.ttl))
}

/// The distinct sources that gave data which could be used: exchange and product (section 4.3).
fn sources(
    data: &SymbolData,
    books: &Books,
    settings: &Settings,
    venue: Option<Venue>,
) -> BTreeSet<String> {
    let read = settings.venues.first().copied().into_iter().chain(venue);
    let bars = read.filter(|v| hours(data, *v).is_some());
    let spot = bars.chain(books.valid.iter().copied()).map(|v| format!("{v}-spot"));
    let funding = data.evidence.funding.iter().flat_map(|f| f.sources.iter().cloned());
    spot.chain(funding).collect()
}

/// When the oldest of what decided was fetched or taken.
fn oldest(data: &SymbolData, books: &Books, settings: &Settings) -> Option<Time> {
    let chosen = books.chosen.as_ref();
    let of = |venue: Option<Venue>| venue.and_then(|v| hours(data, v)).map(|b| b.fetched_at);
    [of(settings.venues.first().copied()), of(chosen.map(|b| b.venue)), chosen.map(|b| b.taken_at)]
        .into_iter()
        .flatten()
        .min()
}

fn vadr_shown(vadr: &Vadr, settings: &Settings, tier: &Tier) -> VadrShown {
    let tier_min = tier.vadr_min;
    match vadr {
        Vadr::Live(live) => {
            let required = gates::required(live, settings, tier);
            VadrShown {
                value: Some(live.value()),
                p80: Some(live.p80()),
                tier_min,
                required: Some(required.value),
                binding: Some(required.binding),
                bars: live.bars(),
                frozen: false,
            }
        }
        Vadr::Frozen(frozen) => VadrShown {
            value: frozen.last_good,
            p80: None,
            tier_min,
            required: None,
            binding: None,
            bars: frozen.bars,
            frozen: true,
        },
    }
}

fn factors_shown(c: &Candidate, regime: &RegimeInUse) -> Factors {
    let named = |[momentum, technical, volume, quality]: [Option<f64>; 4]| FactorValues {
        momentum,
        technical,
        volume,
        quality,
    };
    let weights = regime.blend.weights();
    let residual = c.residual.map_or([None; 4], |row| row.map(Some));
    let contribution =
        c.residual.map_or([None; 4], |row| std::array::from_fn(|k| Some(row[k] * weights[k])));
    let illiquid = c.measured.volume.is_some_and(|v| v.ratio.is_none());
    Factors {
        raw: named(c.raw),
        residual: named(residual),
        weights: regime.blend,
        contribution: named(contribution),
        orthogonalised: c.orthogonalised,
        flags: illiquid.then_some("illiquid").into_iter().collect(),
    }
}

/// For and against, the strongest first (section 9.5).
fn attribution(
    c: &Candidate,
    vadr: &Vadr,
    spread_bps: Option<f64>,
    gates: &[Gate],
    settings: &Settings,
) -> Attribution {
    let failed = |name| gates.iter().any(|g| g.name == name && g.passed == Some(false));
    let catalyst = c.data.evidence.catalyst.is_some_and(|x| 100.0 * x > 70.0);
    let inclusion = [
        ("strong_composite_score", c.base.is_some_and(|s| s >= 75.0)),
        ("strong_momentum", c.raw[0].is_some_and(|m| m - 50.0 > 20.0)),
        ("sufficient_liquidity", matches!(vadr, Vadr::Live(live) if live.value() >= 1.8)),
        ("quality_microstructure", spread_bps.is_some_and(|s| s < 30.0)),
        ("favorable_catalyst", catalyst),
    ];
    let exclusion = [
        ("weak_composite_score", c.base.is_none_or(|s| s < settings.score_min)),
        ("insufficient_liquidity", failed("vadr")),
        ("poor_microstructure", spread_bps.is_none_or(|s| s > 50.0) || failed("depth")),
        ("data_quality_issues", failed("data") || failed("freshness")),
    ];
    let top = |tags: &[(&'static str, bool)]| {
        tags.iter().filter(|(_, holds)| *holds).take(3).map(|(tag, _)| *tag).collect()
    };
    Attribution { top_inclusion: top(&inclusion), top_exclusion: top(&exclusion) }
}
