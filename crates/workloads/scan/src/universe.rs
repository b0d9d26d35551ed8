//! Which symbols are scanned: what the primary exchange lists in USD, ranked by the value traded.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};
use watchbell_venues::native::{Listing, Ticker};

use crate::decimal;
use crate::input::{Member, Universe};

/// The least value traded in 24 hours, in USD, of a symbol of the universe.
pub const ADV_MIN: u64 = 100_000;

/// Coins that stand for a currency, and currencies: there is no momentum in them to scan for.
const PEGGED: [&str; 30] = [
    "USDT", "USDC", "DAI", "BUSD", "TUSD", "USDP", "USDD", "USDE", "USDG", "USDQ", "USDR", "USDS",
    "USD1", "EURC", "EURQ", "EURR", "EURT", "EUROP", "TGBP", "UST", "USTC", "USD", "EUR", "GBP",
    "AUD", "CAD", "CHF", "JPY", "MXN", "AED",
];

/// Words in the name of a market that is no ordinary spot market.
const OUTSIDE: [&str; 5] = ["test", ".d", "dark", "perp", "fut"];

/// The usual name of an asset: `BTC` for `XXBT`, `DOGE` for `XXDG`.
#[must_use]
pub fn usual_name(asset: &str) -> &str {
    match asset {
        "XBT" | "XXBT" => "BTC",
        "XDG" | "XXDG" => "DOGE",
        "XETH" => "ETH",
        "XXRP" => "XRP",
        "XLTC" => "LTC",
        "XXLM" => "XLM",
        "ZUSD" => "USD",
        other => other,
    }
}

/// What the primary exchange lists in USD, ranked by the value traded in 24 hours, ties by symbol
/// (sections 1.1 and 1.2). `do_not_trade` holds symbols (`BTC/USD`), bases or names of markets.
#[must_use]
pub fn select(
    listings: &[Listing],
    tickers: &[Ticker],
    do_not_trade: &BTreeSet<String>,
) -> Universe {
    let tickers: BTreeMap<&str, &Ticker> = tickers.iter().map(|t| (t.symbol.as_str(), t)).collect();
    let mut listings: Vec<&Listing> =
        listings.iter().filter(|l| usual_name(&l.quote) == "USD").collect();
    listings.sort_by(|a, b| (&a.name, &a.symbol).cmp(&(&b.name, &b.symbol)));

    let mut universe = Universe::default();
    let mut seen = BTreeSet::new();
    for listing in listings {
        let base = usual_name(&listing.base);
        let symbol = format!("{base}/USD");
        let banned = [symbol.as_str(), base, &listing.name, &listing.symbol]
            .into_iter()
            .any(|name| do_not_trade.contains(name));
        let judged = ineligible(listing, base)
            .map_or(Ok(()), Err)
            .and_then(|()| if banned { Err("do_not_trade".into()) } else { Ok(()) })
            .and_then(|()| traded(tickers.get(listing.symbol.as_str()).copied()))
            .and_then(|adv| if seen.insert(base) { Ok(adv) } else { Err("duplicate".into()) });
        match judged {
            Ok(adv_usd) => universe.members.push(Member {
                symbol,
                base: base.to_owned(),
                venue_symbol: listing.symbol.clone(),
                adv_usd,
                rank: 0,
            }),
            Err(why) => universe.excluded.push((listing.name.clone(), why)),
        }
    }
    universe
        .members
        .sort_by(|a, b| b.adv_usd.cmp(&a.adv_usd).then_with(|| a.symbol.cmp(&b.symbol)));
    for (rank, member) in (1..).zip(&mut universe.members) {
        member.rank = rank;
    }
    universe
}

fn ineligible(listing: &Listing, base: &str) -> Option<String> {
    let name = listing.name.to_ascii_lowercase();
    if !listing.online || listing.status != "online" {
        return Some(format!("status: {}", listing.status));
    }
    if listing.class != "currency" {
        return Some(format!("class: {}", listing.class));
    }
    if let Some(word) = OUTSIDE.into_iter().find(|w| name.contains(w)) {
        return Some(format!("name_contains: {word}"));
    }
    if PEGGED.contains(&base) {
        return Some("pegged".into());
    }
    // The key is the base and one `USD`; a base that ends so itself would be taken for a pair.
    let plain = base.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if !plain || base.is_empty() || base.ends_with("USD") || !(3..=12).contains(&name.len()) {
        return Some("symbol_form".into());
    }
    None
}

/// Whole USD traded in 24 hours: base volume times the mean price or, where the exchange tells none,
/// the last.
fn traded(ticker: Option<&Ticker>) -> Result<u64, String> {
    let ticker = ticker.ok_or("no_ticker")?;
    let adv = ticker.volume_24h * ticker.vwap_24h.unwrap_or(ticker.last);
    if !(adv.is_finite() && ticker.volume_24h > 0.0 && adv > 0.0) {
        return Err("invalid_adv".into());
    }
    let adv = decimal::whole(adv);
    if adv < ADV_MIN {
        return Err(format!("adv_low: {adv} < {ADV_MIN} usd"));
    }
    Ok(adv)
}

/// Which part of the universe a job scans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Ranks 1 to this one.
    Top(u32),
    /// The ranks after this one, which is where the hot scan ends: no symbol is in both.
    Remaining(u32),
    /// Every rank.
    All,
}

/// The first `max_sample` symbols of the chosen part, by rank.
#[must_use]
pub fn choose(universe: &Universe, choice: Choice, max_sample: usize) -> Vec<Member> {
    let chosen = |m: &&Member| match choice {
        Choice::Top(n) => m.rank <= n,
        Choice::Remaining(after) => m.rank > after,
        Choice::All => true,
    };
    universe.members.iter().filter(chosen).take(max_sample).cloned().collect()
}

/// SHA-256 of the symbols, ascending, one a line, in hexadecimal (section 1.2).
#[must_use]
pub fn hash<'a>(members: impl IntoIterator<Item = &'a Member>) -> String {
    let mut symbols: Vec<&str> = members.into_iter().map(|m| m.symbol.as_str()).collect();
    symbols.sort_unstable();
    Sha256::digest(symbols.join("\n")).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listing(name: &str, base: &str) -> Listing {
        Listing {
            symbol: name.into(),
            name: name.into(),
            base: base.into(),
            quote: "USD".into(),
            online: true,
            status: "online".into(),
            class: "currency".into(),
        }
    }

    fn ticker(symbol: &str, adv: f64) -> Ticker {
        Ticker { symbol: symbol.into(), last: 1.0, vwap_24h: Some(2.0), volume_24h: adv / 2.0 }
    }

    /// Section 1.1.
    #[test]
    fn what_is_no_spot_market_of_a_coin_in_usd_is_left_out_and_says_why() {
        let mut listings = vec![
            listing("XBTUSD", "XXBT"),
            listing("XDGUSD", "XXDG"),
            listing("USDTUSD", "USDT"),
            listing("EURUSD", "EUR"),
            listing("ETHUSD.d", "ETH"),
            listing("TESTUSD", "TEST"),
            listing("DARKUSD", "DARK"),
            listing("ABPERPUSD", "AB"),
            listing("FUTUSD", "FUT"),
            listing("AVERYLONGNAME", "LONG"),
            listing("PYUSDUSD", "PYUSD"),
            listing("lowUSD", "low"),
            listing("OFFUSD", "OFF"),
            listing("SHAREUSD", "SHARE"),
            listing("NOTUSD", "NOT"),
            listing("BANUSD", "BAN"),
            listing("QUIETUSD", "QUIET"),
            listing("THINUSD", "THIN"),
            listing("NANUSD", "NAN"),
        ];
        listings[12].online = false;
        listings[12].status = "cancel_only".into();
        listings[13].class = "tokenized_asset".into();
        let mut eur = listing("XBTEUR", "XXBT");
        eur.quote = "ZEUR".into();
        listings.push(eur);
        let mut tickers: Vec<Ticker> = listings
            .iter()
            .map(|l| ticker(&l.symbol, 1e6))
            .filter(|t| t.symbol != "NOTUSD")
            .collect();
        for (symbol, volume) in [("QUIETUSD", 0.0), ("THINUSD", 49_999.7), ("NANUSD", f64::NAN)] {
            tickers.iter_mut().filter(|t| t.symbol == symbol).for_each(|t| t.volume_24h = volume);
        }
        let universe = select(&listings, &tickers, &BTreeSet::from(["BAN/USD".to_owned()]));
        let symbols: Vec<&str> = universe.members.iter().map(|m| m.symbol.as_str()).collect();
        assert_eq!(symbols, ["BTC/USD", "DOGE/USD"]);
        let why: BTreeMap<&str, &str> =
            universe.excluded.iter().map(|(n, w)| (n.as_str(), w.as_str())).collect();
        for (name, reason) in [
            ("USDTUSD", "pegged"),
            ("EURUSD", "pegged"),
            ("ETHUSD.d", "name_contains: .d"),
            ("TESTUSD", "name_contains: test"),
            ("DARKUSD", "name_contains: dark"),
            ("ABPERPUSD", "name_contains: perp"),
            ("FUTUSD", "name_contains: fut"),
            ("AVERYLONGNAME", "symbol_form"),
            ("PYUSDUSD", "symbol_form"),
            ("lowUSD", "symbol_form"),
            ("OFFUSD", "status: cancel_only"),
            ("SHAREUSD", "class: tokenized_asset"),
            ("NOTUSD", "no_ticker"),
            ("BANUSD", "do_not_trade"),
            ("QUIETUSD", "invalid_adv"),
            ("THINUSD", "adv_low: 99999 < 100000 usd"),
            ("NANUSD", "invalid_adv"),
        ] {
            assert_eq!(why.get(name), Some(&reason), "{name}");
        }
        assert_eq!(universe.excluded.len(), 17, "a market in another currency is none of ours");
    }

    /// Section 1.2: half a dollar rounds up; the mean price of the day counts before the last.
    #[test]
    fn value_traded_is_rounded_and_ranked() {
        let listings = ["AUSD", "BUSDX", "CUSD"].map(|n| listing(n, &n[..1]));
        let mut tickers = vec![ticker("AUSD", 99_999.5), ticker("BUSDX", 1e6), ticker("CUSD", 1e6)];
        tickers[2].vwap_24h = None;
        tickers[2].volume_24h = 1e6;
        let universe = select(&listings, &tickers, &BTreeSet::new());
        let ranked: Vec<(u32, &str, u64)> =
            universe.members.iter().map(|m| (m.rank, m.symbol.as_str(), m.adv_usd)).collect();
        assert_eq!(
            ranked,
            [(1, "B/USD", 1_000_000), (2, "C/USD", 1_000_000), (3, "A/USD", 100_000)]
        );
    }

    #[test]
    fn the_hash_is_that_of_the_sorted_symbols() {
        let member = |symbol: &str| Member {
            symbol: symbol.into(),
            base: String::new(),
            venue_symbol: String::new(),
            adv_usd: 0,
            rank: 0,
        };
        let expected: String =
            Sha256::digest(b"A/USD\nB/USD").iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash(&[member("B/USD"), member("A/USD")]), expected);
    }

    proptest! {
        /// Section 1.2: hot and warm share no symbol and leave none out; the order of the listing
        /// does not matter.
        #[test]
        fn hot_and_warm_are_disjoint_and_together_all(
            advs in prop::collection::vec(100_000_u32..3_000_000, 0..120),
            top in 0_u32..60,
        ) {
            let names: Vec<String> = (0..advs.len()).map(|i| format!("A{i}USD")).collect();
            let listings: Vec<Listing> =
                names.iter().map(|n| listing(n, n.trim_end_matches("USD"))).collect();
            let tickers: Vec<Ticker> =
                names.iter().zip(&advs).map(|(n, adv)| ticker(n, f64::from(*adv))).collect();
            let universe = select(&listings, &tickers, &BTreeSet::new());
            let mut reversed = (listings, tickers);
            reversed.0.reverse();
            reversed.1.reverse();
            prop_assert_eq!(&universe, &select(&reversed.0, &reversed.1, &BTreeSet::new()));

            let hot = choose(&universe, Choice::Top(top), usize::MAX);
            let warm = choose(&universe, Choice::Remaining(top), usize::MAX);
            let all = choose(&universe, Choice::All, usize::MAX);
            prop_assert_eq!(&[hot.clone(), warm.clone()].concat(), &all);
            let symbols: BTreeSet<&str> = hot.iter().map(|m| m.symbol.as_str()).collect();
            prop_assert!(warm.iter().all(|m| !symbols.contains(m.symbol.as_str())));
            prop_assert!(all.windows(2).all(|w| w[0].adv_usd >= w[1].adv_usd));
            prop_assert_eq!(choose(&universe, Choice::Top(top), 7).len(), hot.len().min(7));
        }
    }
}
