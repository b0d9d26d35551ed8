//! Names of symbols and coins: one table of quote assets, and no guessing (section 1.1).

/// Quote assets by which a symbol is split, longest first, so that `BTCFDUSD` is not cut at `USD`.
const QUOTES: [&str; 12] =
    ["FDUSD", "USDT", "USDC", "BUSD", "TUSD", "DAI", "USD", "EUR", "BRL", "BTC", "ETH", "BNB"];
/// Endings of leveraged tokens, after the coin that they follow.
const LEVERAGED: [&str; 4] = ["UP", "DOWN", "BULL", "BEAR"];

/// A symbol of which neither half is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot split the symbol `{0}` into base and quote asset: it must be upper case and end in one \
     of USDT, USDC, FDUSD, BUSD, TUSD, DAI, USD, EUR, BRL, BTC, ETH, BNB"
)]
pub struct UnknownSymbol(pub String);

/// Splits `SOLUSDT` into `SOL` and `USDT`.
///
/// # Errors
/// When the symbol does not end in a known quote asset.
pub fn split(symbol: &str) -> Result<(&str, &str), UnknownSymbol> {
    let unknown = || UnknownSymbol(symbol.to_owned());
    if !is_upper(symbol) {
        return Err(unknown());
    }
    let quote = QUOTES.iter().find(|q| symbol.len() > q.len() && symbol.ends_with(**q));
    let quote = quote.ok_or_else(unknown)?;
    Ok(symbol.split_at(symbol.len() - quote.len()))
}

/// A coin's code: 2 to 10 upper-case letters and digits.
pub(super) fn is_coin(code: &str) -> bool {
    (2..=10).contains(&code.len()) && is_upper(code)
}

/// Whether a coin is a leveraged token: an asset that `is_asset` knows, with an ending such as `UP`
/// or `3L`. Without that condition `JUP` and `SYRUP`, which are coins of their own, would be taken
/// for one.
pub(super) fn is_leveraged(coin: &str, is_asset: impl Fn(&str) -> bool) -> bool {
    let word = LEVERAGED.iter().find_map(|end| coin.strip_suffix(end));
    let factor = coin.strip_suffix(['L', 'S']).and_then(|rest| {
        let base = rest.trim_end_matches(|c: char| c.is_ascii_digit());
        (base.len() < rest.len()).then_some(base)
    });
    word.into_iter().chain(factor).any(|base| !base.is_empty() && is_asset(base))
}

fn is_upper(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_split_at_the_longest_quote() {
        assert!(QUOTES.is_sorted_by_key(|q| std::cmp::Reverse(q.len())));
        for (symbol, base, quote) in [
            ("SOLUSDT", "SOL", "USDT"),
            ("BTCFDUSD", "BTC", "FDUSD"),
            ("ETHBTC", "ETH", "BTC"),
            ("1000PEPEUSDT", "1000PEPE", "USDT"),
        ] {
            assert_eq!(split(symbol), Ok((base, quote)));
        }
        for bad in ["USDT", "btcusdt", "BTC-USD", "ABCXYZ", ""] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_leveraged_token_follows_a_coin() {
        let is_asset = |coin: &str| ["BTC", "ETH", "1INCH"].contains(&coin);
        for token in ["BTCUP", "ETHDOWN", "BTCBULL", "BTCBEAR", "BTC3L", "ETH10S", "1INCHUP"] {
            assert!(is_leveraged(token, is_asset), "{token}");
        }
        for coin in ["BTC", "JUP", "SYRUP", "UP", "3L", "SOL", "XLS", "BULL"] {
            assert!(!is_leveraged(coin, is_asset), "{coin}");
        }
        assert!(is_coin("1000PEPE") && !is_coin("B") && !is_coin("btc") && !is_coin("ABCDEFGHIJK"));
    }
}
