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
