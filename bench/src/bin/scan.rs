//! The computation of scans: a warm one of 300 symbols and a hot one of 30, without a network; the
//! same factors in numpy out of the same data.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use watchbell_bench::{Table, machine, median, progress};
use watchbell_clock::Stopwatch;
use watchbell_core::{Millis, Time};
use watchbell_scan::csv;
use watchbell_scan::explain::Meta;
use watchbell_scan::input::{Bars, BookAnswer, Member, SymbolData};
use watchbell_scan::pipeline::{self, Outcome};
use watchbell_scan::premove::Evidence;
use watchbell_scan::regime::RegimeInUse;
use watchbell_scan::settings::Settings;
use watchbell_venues::native::{Bar, NativeBook, Venue, coinbase, kraken, okx};

/// Measures how fast scans are computed.
#[derive(Debug, Parser)]
struct Args {
    /// Symbols of the warm scan
    #[arg(long, default_value_t = 300)]
    warm: usize,
    /// Symbols of the hot scan
    #[arg(long, default_value_t = 30)]
    hot: usize,
    /// Hourly bars of a symbol
    #[arg(long, default_value_t = 720)]
    bars: usize,
    /// Levels on each side of a book
    #[arg(long, default_value_t = 200)]
    levels: usize,
    /// How often each is measured; the middle is shown
    #[arg(long, default_value_t = 15)]
    repeat: usize,
    /// The market's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A Python that has numpy
    #[arg(long, default_value = "python3")]
    python: String,
    /// Leave numpy out
    #[arg(long)]
    no_python: bool,
}

const HOUR: Millis = Millis::from_hours(1);

/// When the scans are: a quarter past an hour.
const NOW: Time = Time(1_795_317_300_000);

/// Uniform numbers from 0 to 1, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A random walk of a symbol with a drift of its own.
fn walk(dice: &mut Dice, count: usize) -> Vec<Bar> {
    let end = NOW.floor(HOUR);
    let drift = 0.004 * (dice.roll() - 0.5);
    let mut close = 1.0 + 999.0 * dice.roll();
    (0..count)
        .map(|i| {
            let open = close;
            close = open * (1.0 + drift + 0.012 * (dice.roll() - 0.5));
            let high = open.max(close) * (1.0 + 0.004 * dice.roll());
            let low = open.min(close) * (1.0 - 0.004 * dice.roll());
            let quote_volume = 1e5 * (0.2 + dice.roll()) / (1.0 - 0.98 * dice.roll());
            Bar {
                open_time: end - HOUR * (count - i) as i64,
                open,
                high,
                low,
                close,
                volume: quote_volume / close,
                quote_volume,
            }
        })
        .collect()
}

/// A book around a price, through the answer in which the exchange would send it.
fn book(
    venue: Venue,
    mid: f64,
    dice: &mut Dice,
    levels: usize,
    at: Time,
) -> anyhow::Result<BookAnswer> {
    let half = 0.0001 + 0.001 * dice.roll();
    let rest = match venue {
        Venue::Kraken => "1795317290",
        Venue::Okx => "\"0\",\"1\"",
        Venue::Coinbase | Venue::Binance => "1",
    };
    let mut side = |sign: f64| {
        let mut text = String::new();
        for i in 0..levels {
            let price = mid * (1.0 + sign * (half + 0.0002 * i as f64));
            let size = 2_000.0 * (0.1 + dice.roll()) / price;
            let comma = if i > 0 { "," } else { "" };
            write!(text, "{comma}[\"{price:.9}\",\"{size:.9}\",{rest}]")?;
        }
        anyhow::Ok(text)
    };
    let (bids, asks) = (side(-1.0)?, side(1.0)?);
    let book = match venue {
        Venue::Kraken => {
            let body = format!(
                r#"{{"error":[],"result":{{"AUSD":{{"asks":[{asks}],"bids":[{bids}]}}}}}}"#
            );
            NativeBook::Kraken(kraken::book(body.as_bytes(), "AUSD", at)?)
        }
        Venue::Okx => {
            let ts = at.0;
            let body = format!(
                r#"{{"code":"0","msg":"","data":[{{"asks":[{asks}],"bids":[{bids}],"ts":"{ts}"}}]}}"#
            );
            NativeBook::Okx(okx::book(body.as_bytes(), "A-USDT", at)?)
        }
        Venue::Coinbase | Venue::Binance => {
            let body = format!(r#"{{"bids":[{bids}],"asks":[{asks}],"sequence":1}}"#);
            NativeBook::Coinbase(coinbase::book(body.as_bytes(), "A-USD", at)?)
        }
    };
    Ok(BookAnswer { venue, book: Ok(book), latency: Some(Millis(120)), cached: false })
}

/// What a scan of so many symbols has read.
fn market(count: usize, venues: &[Venue], args: &Args) -> anyhow::Result<Vec<SymbolData>> {
    let mut dice = Dice(args.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let symbol = |i: usize| -> anyhow::Result<SymbolData> {
        let bars = walk(&mut dice, args.bars);
        let close = bars.last().map_or(1.0, |b| b.close);
        let adv_usd = 20_000_000 / (i as u64 / 10 + 1);
        let name = format!("S{i:03}");
        let books = venues.iter().map(|v| book(*v, close, &mut dice, args.levels, NOW));
        let books = books.collect::<anyhow::Result<Vec<BookAnswer>>>()?;
        let hours = venues.iter().map(|venue| Bars {
            venue: *venue,
            bars: bars.clone(),
            fetched_at: NOW,
            cached: false,
        });
        Ok(SymbolData {
            member: Member {
                symbol: format!("{name}/USD"),
                base: name.clone(),
                venue_symbol: format!("{name}USD"),
                adv_usd,
                rank: i as u32 + 1,
            },
            hours: hours.collect(),
            books,
            trouble: Vec::new(),
            evidence: Evidence::default(),
        })
    };
    (0..count).map(symbol).collect()
}

/// The whole computation, with the books read again in the hot scan.
fn compute(market: Vec<SymbolData>, settings: &Settings, regime: &RegimeInUse) -> Outcome {
    let books: BTreeMap<String, Vec<BookAnswer>> = if settings.late_fill_max.is_some() {
        market.iter().map(|d| (d.member.symbol.clone(), d.books.clone())).collect()
    } else {
        BTreeMap::new()
    };
    let scored = pipeline::score(market, settings, regime, NOW);
    let wanted: Vec<String> = scored.wants_final_book().into_iter().map(|m| m.symbol).collect();
    let finals = books.into_iter().filter(|(symbol, _)| wanted.contains(symbol)).collect();
    pipeline::judge(scored, finals, NOW + Millis::from_secs(2))
}

/// Everything that a run publishes.
fn publish(outcome: &Outcome) -> anyhow::Result<String> {
    let meta = Meta {
        config_hash: String::new(),
        universe_hash: String::new(),
        version: env!("CARGO_PKG_VERSION").into(),
        regime_source: outcome.regime.source,
        stale_universe: false,
    };
    let explain = serde_json::to_string_pretty(&outcome.explain(meta, ()))?;
    Ok([csv::signals(outcome), csv::premove(outcome, &BTreeMap::new()), explain].concat())
}

/// The middle of several measurements, each on data of its own, in the given way.
fn measure<T>(
    args: &Args,
    prepare: impl Fn() -> T,
    run: impl Fn(T) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let mut seconds = Vec::new();
    for _ in 0..=args.repeat {
        let input = prepare();
        let watch = Stopwatch::start();
        run(input)?;
        seconds.push(watch.elapsed().as_secs_f64());
    }
    // The first is cold.
    Ok(Duration::from_secs_f64(median(&seconds[1..])))
}

/// Bars and books of the first exchange as little-endian doubles behind a line of JSON.
fn export(path: &Path, market: &[SymbolData], args: &Args) -> anyhow::Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    let header = serde_json::json!({
        "symbols": market.len(), "bars": args.bars, "levels": args.levels,
        "first_hour": (NOW.floor(HOUR).0 / HOUR.0) - args.bars as i64,
        "adv": market.iter().map(|d| d.member.adv_usd).collect::<Vec<_>>(),
    });
    writeln!(out, "{header}")?;
    for data in market {
        let bars = data.hours.first().context("a symbol has no bars")?;
        for b in &bars.bars {
            for v in [b.open, b.high, b.low, b.close, b.quote_volume] {
                out.write_all(&v.to_le_bytes())?;
            }
        }
        let book = data.books.first().and_then(|a| a.book.as_ref().ok());
        let book = book.context("a symbol has no book")?;
        for level in book.bids().iter().chain(book.asks()) {
            out.write_all(&level.price.to_le_bytes())?;
            out.write_all(&level.size.to_le_bytes())?;
        }
    }
    Ok(out.flush()?)
}

/// What numpy reached, and whether its numbers are ours.
struct Numpy {
    version: String,
    took: Duration,
    compared: u64,
    differing: u64,
    worst: f64,
}

fn numpy(
    dir: &Path,
    market: &[SymbolData],
    outcome: &Outcome,
    args: &Args,
) -> anyhow::Result<Numpy> {
    let (data, ours) = (dir.join("market.bin"), dir.join("ours.json"));
    export(&data, market, args)?;
    fs::write(&ours, serde_json::to_string(&outcome.explanations)?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scan_factors.py");
    let output =
        Command::new(&args.python).arg(&script).arg(&data).arg("--compare").arg(&ours).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().take(5).for_each(progress);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value =
        text.lines().last().and_then(|line| serde_json::from_str(line).ok()).with_context(
            || format!("{} said nothing that can be read: {said}", script.display()),
        )?;
    Ok(Numpy {
        version: report["numpy"].as_str().unwrap_or("?").to_owned(),
        took: Duration::from_secs_f64(report["seconds"].as_f64().unwrap_or(f64::NAN)),
        compared: report["compared"].as_u64().unwrap_or(0),
        differing: report["differing"].as_u64().unwrap_or(0),
        worst: report["worst"].as_f64().unwrap_or(f64::NAN),
    })
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let regime = RegimeInUse::at(None, NOW);
    let (warm, hot) = (Settings::warm(), Settings::hot());
    progress("generating markets ...");
    let of_warm = market(args.warm, &warm.venues, &args)?;
    let of_hot = market(args.hot, &hot.venues, &args)?;

    let mut table = Table::new(
        format!("scan: {} hourly bars and books of {} levels a side", args.bars, args.levels),
        &["what", "symbols", "ms", "us/symbol", "of numpy"],
    );
    let numpy = if args.no_python {
        None
    } else {
        progress("numpy ...");
        let dir = tempfile::tempdir().context("cannot make a temporary directory")?;
        let outcome = compute(of_warm.clone(), &warm, &regime);
        Some(numpy(dir.path(), &of_warm, &outcome, &args)?)
    };
    let mut row = |what: &str, symbols: usize, took: Duration, factors: bool| {
        let each = took.as_secs_f64() / symbols as f64;
        let times = numpy.as_ref().filter(|_| factors).map_or_else(String::new, |n| {
            format!("{:.0} x", n.took.as_secs_f64() / args.warm as f64 / each)
        });
        table.row([
            &what,
            &symbols,
            &format!("{:.2}", took.as_secs_f64() * 1e3),
            &format!("{:.1}", each * 1e6),
            &times,
        ]);
    };
    for (name, market, settings) in [("warm", &of_warm, &warm), ("hot", &of_hot, &hot)] {
        progress(&format!("{name} ..."));
        let count = market.len();
        let scored = measure(
            &args,
            || market.clone(),
            |m| {
                std::hint::black_box(pipeline::score(m, settings, &regime, NOW));
                Ok(())
            },
        )?;
        row(&format!("{name}: score (factors, residuals, base score)"), count, scored, true);
        let judged = measure(
            &args,
            || market.clone(),
            |m| {
                std::hint::black_box(compute(m, settings, &regime));
                Ok(())
            },
        )?;
        row(&format!("{name}: score and judge (every gate of every symbol)"), count, judged, true);
        let outcome = compute(market.clone(), settings, &regime);
        let first = publish(&outcome)?;
        let written = measure(
            &args,
            || (),
            |()| {
                anyhow::ensure!(publish(&outcome)? == first, "the same scan gave other bytes");
                Ok(())
            },
        )?;
        row(
            &format!("{name}: tables and explain.json, {} KB", first.len() / 1_000),
            count,
            written,
            false,
        );
        let again = publish(&compute(market.clone(), settings, &regime))?;
        anyhow::ensure!(again == first, "the same data gave other bytes");
    }
    if let Some(n) = &numpy {
        let what = format!("numpy {}: factors, residuals, base score", n.version);
        row(&what, args.warm, n.took, true);
        table.note(format!(
            "numpy's numbers beside ours: {} compared, {} differ by more than 1e-9, the furthest by {:.1e}",
            n.compared, n.differing, n.worst
        ));
        anyhow::ensure!(n.compared > 0, "nothing was compared with numpy");
        anyhow::ensure!(n.differing == 0, "numpy has other numbers");
    }
    table.note(
        "one thread; the hot scan has books and bars of three exchanges, the warm one of one",
    );
    table.note(machine());
    Ok(table.print()?)
}
