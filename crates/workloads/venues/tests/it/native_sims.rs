//! The native clients against the simulators of their exchanges: one market, four protocols, and
//! everything that can go wrong on the way.

use std::net::SocketAddr;
use std::sync::Arc;

use watchbell_clock::Clock;
use watchbell_core::{Millis, Time};
use watchbell_venues::native::{
    Bar, Interval, NativeBook, NativeClient, NativeConfig, NativeError, Venue,
};
use watchbell_venues::sim::{Market, VenueLimits, VenueSim, VenueSimConfig};

use crate::native_client::{at_once, drive};

/// 2026-11-20 12:00:30.
const NOW: Time = Time(1_795_176_030_000);
const HOUR: Millis = Millis::from_hours(1);
const DAY: Millis = Millis::from_days(1);

struct Site {
    sim: VenueSim,
    clock: Clock,
    client: NativeClient,
    /// What the exchange calls the market of Bitcoin.
    symbol: &'static str,
}

impl Site {
    async fn start(venue: Venue, market: &Arc<Market>, limits: VenueLimits) -> Self {
        let clock = Clock::manual(NOW);
        let sim = VenueSim::start(VenueSimConfig {
            venue,
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            market: Arc::clone(market),
            clock: clock.clone(),
            faults: String::new().parse().unwrap(),
            limits,
        })
        .await
        .unwrap();
        let symbol = match venue {
            Venue::Kraken => "XBTUSD",
            Venue::Okx => "BTC-USDT",
            Venue::Coinbase => "BTC-USD",
            Venue::Binance => "BTCUSDT",
        };
        let client = fresh(venue, &sim, &clock);
        Self { sim, clock, client, symbol }
    }

    /// The closed hours and the book, with all tries.
    async fn read(&self, client: &NativeClient) -> [Result<Seen, NativeError>; 2] {
        let bars = drive(&self.clock, client.bars(self.symbol, Interval::Hour, 100)).await;
        let book = drive(&self.clock, client.book(self.symbol)).await;
        [bars.map(|a| Seen::Bars(a.value)), book.map(|a| Seen::Book(a.value))]
    }
}

#[derive(Debug, PartialEq)]
enum Seen {
    Bars(Vec<Bar>),
    Book(NativeBook),
}

/// A client without a past. Its time limit is beyond every timer that a test lets pass.
fn fresh(venue: Venue, sim: &VenueSim, clock: &Clock) -> NativeClient {
    let config = NativeConfig {
        base_url: sim.base_url(),
        timeout: Millis::from_days(900),
        consecutive: 100,
        failure_ratio: 1.0,
        window: 100,
        ..NativeConfig::of(venue)
    };
    NativeClient::new(venue, config, clock.clone()).unwrap()
}

#[tokio::test]
async fn four_protocols_tell_of_one_market() {
    let market = Arc::new(Market::synthetic_universe(7, 12));
    let mut mids = Vec::new();
    for venue in Venue::ALL {
        let Site { clock, client, symbol, sim: _sim } =
            &Site::start(venue, &market, VenueLimits::none()).await;
        let listings = at_once(clock, client.listings()).await.unwrap().value;
        let bitcoin =
            listings.iter().find(|l| l.base == "BTC" && l.quote == venue.quote()).unwrap();
        assert_eq!((bitcoin.symbol.as_str(), bitcoin.online), (*symbol, true));
        let book = at_once(clock, client.book(symbol)).await.unwrap().value;
        let mid = f64::midpoint(book.bids()[0].price, book.asks()[0].price);
        assert!(book.bids().len() >= 5 && book.bids()[0].price < book.asks()[0].price);
        mids.push(mid);
        match at_once(clock, client.tickers()).await {
            Ok(tickers) => {
                let of = |t: &&watchbell_venues::native::Ticker| t.symbol == *symbol;
                let ticker = tickers.value.iter().find(of).unwrap();
                assert!((ticker.last / mid - 1.0).abs() < 0.02, "{venue}: {ticker:?} {mid}");
            }
            Err(e) => assert_eq!((venue, e.kind()), (Venue::Coinbase, "unsupported")),
        }

        let bars = drive(clock, client.bars(symbol, Interval::Hour, 720)).await.unwrap().value;
        let newest = NOW.floor(HOUR) - HOUR;
        assert_eq!((bars.len(), bars[719].open_time), (720, newest), "{venue}");
        assert!(bars.windows(2).all(|w| w[1].open_time - w[0].open_time == HOUR));
        assert!((bars[719].close / mid - 1.0).abs() < 0.02, "{venue}");
        let days = at_once(clock, client.bars(symbol, Interval::Day, 30)).await.unwrap().value;
        assert_eq!((days.len(), days[29].open_time), (30, NOW.floor(DAY) - DAY), "{venue}");
        // A day is its 24 hours.
        let hours: Vec<&Bar> =
            bars.iter().filter(|b| b.open_time.floor(DAY) == days[28].open_time).collect();
        assert_eq!(
            (hours.len(), hours[0].open, hours[23].close),
            (24, days[28].open, days[28].close)
        );
        let unknown = client.book("NOSUCHUSD").await.unwrap_err();
        assert_eq!(unknown.kind(), "not_listed", "{unknown}");
        assert_eq!(client.health().error_ratio, Some(0.0));
    }
    let (low, high) = mids.iter().fold((f64::MAX, 0.0_f64), |(l, h), m| (l.min(*m), h.max(*m)));
    assert!(high / low < 1.005, "{mids:?}");
}

#[tokio::test]
async fn whatever_goes_wrong_nothing_wrong_is_believed() {
    let market = Arc::new(Market::synthetic_universe(7, 3));
    for venue in [Venue::Kraken, Venue::Okx, Venue::Coinbase] {
        let site = Site::start(venue, &market, VenueLimits::none()).await;
        let faults = |script: &str| site.sim.set_faults(script.parse().unwrap());
        // Kraken says until when, and the firewalls of the others say nothing.
        let ban = if venue == Venue::Kraken { "rate_limited" } else { "refused" };
        // What is said to be wrong with bars and with the book, while it lasts; nothing where an answer
        // with that fault is still a good one.
        for (fault, bars, book) in [
            ("*:502", "refused", "refused"),
            ("*:403", "refused", "refused"),
            ("*:html", "refused", "refused"),
            ("*:html:status=200", "payload", "payload"),
            ("*:empty", "payload", "payload"),
            ("*:null", "payload", "payload"),
            ("*:malformed", "payload", "payload"),
            ("*:error-object", "refused", "refused"),
            ("*:truncated", "transport", "transport"),
            ("*:reset", "transport", "transport"),
            ("*:reset-body", "transport", "transport"),
            ("*:down", "transport", "transport"),
            ("*:429:retry=31", "rate_limited", "rate_limited"),
            ("*:ban:secs=300", ban, ban),
            ("*:duplicate", "payload", "payload"),
            ("*:unordered", "payload", "payload"),
            ("*:wrong-width", "payload", "payload"),
            ("*:crossed", "", ""),
        ] {
            // The waits of the fault before are over.
            let later = Millis::from_mins(20);
            site.clock.advance(site.clock.now() + later);
            let client = fresh(venue, &site.sim, &site.clock);
            faults(fault);
            for (seen, want) in site.read(&client).await.into_iter().zip([bars, book]) {
                match seen {
                    Ok(Seen::Book(book)) if fault == "*:crossed" => {
                        assert!(book.bids()[0].price > book.asks()[0].price, "{venue}");
                    }
                    Ok(_) => assert_eq!(want, "", "{venue} {fault}"),
                    Err(e) => assert_eq!(e.kind(), want, "{venue} {fault}: {e}"),
                }
            }
            // Once it is over, the truth.
            site.clock.advance(site.clock.now() + later);
            faults("");
            let healed =
                site.read(&client).await.map(|r| r.unwrap_or_else(|e| panic!("{fault}: {e}")));
            let other = fresh(venue, &site.sim, &site.clock);
            // A book changes with time, and a try takes none here.
            assert_eq!(healed, site.read(&other).await.map(Result::unwrap), "{venue} {fault}");
        }
    }
}

#[tokio::test]
async fn a_moment_of_trouble_is_not_noticed() {
    let market = Arc::new(Market::synthetic_universe(7, 3));
    for venue in Venue::ALL {
        let site = Site::start(venue, &market, VenueLimits::none()).await;
        let truth = site.read(&site.client).await.map(Result::unwrap);
        for fault in
            ["*:503:n=2", "*:html:n=2", "*:reset:n=2", "*:malformed:n=2", "*:429:n=2,retry=1"]
        {
            let client = fresh(venue, &site.sim, &site.clock);
            site.sim.set_faults(fault.parse().unwrap());
            let Seen::Bars(bars) =
                site.read(&client).await.map(Result::unwrap).into_iter().next().unwrap()
            else {
                panic!("bars come first")
            };
            assert_eq!(Seen::Bars(bars), truth[0], "{venue} {fault}");
            assert_eq!(client.health().requests, 4, "{venue} {fault}: two of them in vain");
        }
    }
}

#[tokio::test]
async fn the_limits_of_the_exchanges_are_kept() {
    let market = Arc::new(Market::synthetic_universe(7, 3));
    for (venue, requests, at_most) in
        [(Venue::Kraken, 60, 46_000), (Venue::Okx, 60, 7_000), (Venue::Coinbase, 60, 16_000)]
    {
        let site = Site::start(venue, &market, VenueLimits::OfVenue).await;
        for _ in 0..requests {
            drive(&site.clock, site.client.book(site.symbol)).await.unwrap();
        }
        let waited = site.clock.now() - NOW;
        assert!(waited <= Millis(at_most), "{venue}: {waited}");
        let health = site.client.health();
        assert_eq!((health.requests, health.error_ratio), (requests, Some(0.0)), "{venue}");
        let refused = site.sim.journal().after(0).iter().filter(|e| e.status != 200).count();
        assert_eq!(refused, 0, "{venue}");
    }
}
