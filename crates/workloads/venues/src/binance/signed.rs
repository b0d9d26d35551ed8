//! Requests in the name of an account: credentials, signature, and the three endpoints that the
//! ledger reads. Spec: venues, section 4.6.
//!
//! A signed query is sorted by key, carries `recvWindow` and the venue's time, and ends in its own
//! HMAC-SHA256. It is made anew for each try, is never logged and never part of an error. Amounts are
//! decimals, read from their text.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::HeaderValue;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use watchbell_core::{Millis, Time};

use super::client::{BinanceClient, Request};
use super::endpoints::{check_page, check_symbol, json};
use super::error::VenueError;

/// What the venue counts by account at most, in a minute.
pub(super) const ACCOUNT_WEIGHT_LIMIT: i64 = 180_000;
/// The header that names the key.
pub(super) const KEY_HEADER: &str = "x-mbx-apikey";
/// How old a signed request may be when the venue judges it.
pub(crate) const RECV_WINDOW: Millis = Millis::from_secs(5);
/// The longest stretch of conversions that may be asked at once.
pub const LONGEST_CONVERT_SPAN: Millis = Millis::from_days(30);
/// The clock was outside the window.
const CLOCK: i64 = -1021;
/// Longest file of credentials that is read, in bytes.
const LONGEST_FILE: u64 = 4_096;

/// The name and secret of an account's API key. Neither is ever printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    key: String,
    secret: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// Why credentials cannot be used. No message quotes a key or a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read.
    #[error("cannot read the credentials file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is open to others.
    #[error(
        "the credentials file {} has mode {mode:04o}, so others may read it: run `chmod 600 {}`",
        path.display(), path.display()
    )]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to someone else.
    #[error(
        "the credentials file {} belongs to user {owner}, and we run as user {us}: make it ours, or \
         start Watchbell as its owner",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        us: u32,
    },
    /// A line of the file is not understood.
    #[error(
        "line {line} of the credentials file {}: {problem}; write `api_key = ...` and \
         `api_secret = ...`, each on its line",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1; 0 where something is missing.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A variable is not set, or holds nothing usable.
    #[error("the environment variable {name} {problem}")]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A key or secret that cannot be one.
    #[error("the API {what} {problem}")]
    Malformed {
        /// `key` or `secret`.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Credentials {
    /// Credentials from their two texts.
    ///
    /// # Errors
    /// When one is empty, or holds anything but printable ASCII without blanks.
    pub fn new(
        key: impl Into<String>,
        secret: impl Into<String>,
    ) -> Result<Self, CredentialsError> {
        let (key, secret) = (key.into(), secret.into());
        for (what, text) in [("key", &key), ("secret", &secret)] {
            if let Err(problem) = usable(text) {
                return Err(CredentialsError::Malformed { what, problem });
            }
        }
        Ok(Self { key, secret })
    }

    /// Credentials from a file of two lines, `api_key = ...` and `api_secret = ...`; empty lines and
    /// those that begin with `#` are passed over. The file must be ours and nobody else's to read:
    /// mode 0600 or 0400.
    ///
    /// # Errors
    /// When the file cannot be read, may be read by others, belongs to someone else, or does not
    /// hold both.
    pub fn from_file(path: &Path) -> Result<Self, CredentialsError> {
        let unreadable = |source| CredentialsError::Unreadable { path: path.into(), source };
        // Judged by the open file, not by its name: what is checked is what is read.
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let meta = file.metadata().map_err(unreadable)?;
        if !meta.is_file() {
            return Err(unreadable(std::io::Error::other("it is not a plain file")));
        }
        let (mode, us) = (meta.mode() & 0o7777, rustix::process::getuid().as_raw());
        if !matches!(mode, 0o600 | 0o400) {
            return Err(CredentialsError::Mode { path: path.into(), mode });
        }
        if meta.uid() != us {
            return Err(CredentialsError::Owner { path: path.into(), owner: meta.uid(), us });
        }
        let mut text = String::new();
        file.take(LONGEST_FILE).read_to_string(&mut text).map_err(unreadable)?;
        let (mut key, mut secret) = (None, None);
        for (i, line) in text.lines().map(str::trim).enumerate() {
            let fail = |problem| CredentialsError::Line { path: path.into(), line: i + 1, problem };
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line.split_once('=').ok_or_else(|| fail("there is no `=`"))?;
            let slot = match name.trim() {
                "api_key" => &mut key,
                "api_secret" => &mut secret,
                _ => return Err(fail("it names neither `api_key` nor `api_secret`")),
            };
            if slot.is_some() {
                return Err(fail("that name was given before"));
            }
            usable(value.trim()).map_err(fail)?;
            *slot = Some(value.trim().to_owned());
        }
        let fail = |problem| CredentialsError::Line { path: path.into(), line: 0, problem };
        let key = key.ok_or_else(|| fail("`api_key` is missing"))?;
        let secret = secret.ok_or_else(|| fail("`api_secret` is missing"))?;
        Ok(Self { key, secret })
    }

    /// Credentials from two variables of an environment; none where neither is set.
    ///
    /// # Errors
    /// When only one is set, or one holds nothing usable.
    pub fn from_variables<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
        key_name: &str,
        secret_name: &str,
    ) -> Result<Option<Self>, CredentialsError> {
        let read = |name: &str| {
            let Some(text) = get(name) else { return Ok(None) };
            match usable(text.trim()) {
                Ok(()) => Ok(Some(text.trim().to_owned())),
                Err(problem) => Err(CredentialsError::Variable { name: name.to_owned(), problem }),
            }
        };
        let missing = |name: &str| CredentialsError::Variable {
            name: name.to_owned(),
            problem: "is not set, while its companion is: set both or none",
        };
        match (read(key_name)?, read(secret_name)?) {
            (Some(key), Some(secret)) => Ok(Some(Self { key, secret })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing(key_name)),
            (Some(_), None) => Err(missing(secret_name)),
        }
    }

    /// The HMAC-SHA256 of a query, in hex.
    pub(crate) fn signature(&self, query: &str) -> String {
        use fmt::Write as _;
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())
            .expect("HMAC takes a secret of any length");
        mac.update(query.as_bytes());
        let digest = mac.finalize().into_bytes();
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all text");
            hex
        })
    }

    /// Whether this is the key's name: for the simulator.
    pub(crate) fn is_key(&self, key: &str) -> bool {
        self.key == key
    }

    /// Gives `url` the sorted query with window, time and signature.
    pub(super) fn sign(
        &self,
        url: &mut reqwest::Url,
        query: &[(&'static str, String)],
        venue_now: Time,
    ) {
        let mut all = query.to_vec();
        all.push(("recvWindow", RECV_WINDOW.0.to_string()));
        all.push(("timestamp", venue_now.0.to_string()));
        all.sort_unstable();
        url.query_pairs_mut().clear().extend_pairs(&all);
        let signature = self.signature(url.query().unwrap_or_default());
        url.query_pairs_mut().append_pair("signature", &signature);
    }

    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let mut value = HeaderValue::from_str(&self.key)
            .map_err(|_| "the API key cannot be sent: it is not printable ASCII".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn usable(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("holds a character that no key or secret has");
    }
    Ok(())
}

/// What an operator does about a code that speaks of who asks; nothing for all other codes.
pub(super) const fn remedy(code: i64) -> Option<&'static str> {
    Some(match code {
        CLOCK => {
            "our clock and the venue's differ even after measuring anew: check this machine's clock \
             and the delay to the venue"
        }
        -1022 => "the API secret does not belong to the API key: check both",
        -2008 | -2014 => "this is no API key of the venue: check the credentials",
        -2015 => {
            "the key is unknown, may not read, or may not be used from this address: check its \
             rights and its list of addresses at the venue"
        }
        _ => return None,
    })
}

/// What the account holds of one asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountBalance {
    /// The asset.
    pub asset: String,
    /// What may be used.
    pub free: Decimal,
    /// What orders hold.
    pub locked: Decimal,
}

/// One trade of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountTrade {
    /// The market.
    pub symbol: String,
    /// Number of the trade, rising by market.
    pub id: i64,
    /// Number of the order.
    pub order_id: i64,
    /// Price.
    pub price: Decimal,
    /// Amount in the base asset.
    pub qty: Decimal,
    /// Amount in the quote asset.
    pub quote_qty: Decimal,
    /// The venue's fee.
    pub commission: Decimal,
    /// The asset it was paid in.
    pub commission_asset: String,
    /// When it was traded.
    pub time: Time,
    /// Whether the account bought.
    pub is_buyer: bool,
    /// Whether its order was resting.
    pub is_maker: bool,
    /// As the venue says.
    pub is_best_match: bool,
}

/// One conversion of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvertTrade {
    /// Number of the order.
    pub order_id: i64,
    /// `SUCCESS` once it is done.
    pub order_status: String,
    /// What was given.
    pub from_asset: String,
    /// How much of it.
    pub from_amount: Decimal,
    /// What was received.
    pub to_asset: String,
    /// How much of it.
    pub to_amount: Decimal,
    /// When.
    pub create_time: Time,
}

/// Where trades of the account are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TradesSince {
    /// That number and later.
    Id(i64),
    /// That instant and later.
    Time(Time),
}

#[derive(Deserialize)]
struct Account {
    balances: Vec<AccountBalance>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flow {
    #[serde(default)]
    list: Vec<ConvertTrade>,
    #[serde(default)]
    more_data: bool,
}

impl BinanceClient {
    /// The same client in the name of an account.
    #[must_use]
    pub fn with_credentials(&self, credentials: Credentials) -> Self {
        Self { credentials: Some(Arc::new(credentials)), ..self.clone() }
    }

    /// Whether it may send signed requests.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        self.credentials.is_some()
    }

    /// What the account holds, without what it has nothing of (weight 20).
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn account_balances(&self) -> Result<Vec<AccountBalance>, VenueError> {
        let request =
            Request::new("/api/v3/account", None, 20).with("omitZeroBalances", "true").signed(0);
        self.get_signed(&request, |body| {
            let account: Account = json(body)?;
            let negative = account.balances.iter().find(|b| {
                b.free.is_sign_negative() && !b.free.is_zero()
                    || b.locked.is_sign_negative() && !b.locked.is_zero()
            });
            match negative {
                Some(b) => Err(format!("{}: a negative balance", b.asset)),
                None => Ok((account.balances.len(), account.balances)),
            }
        })
        .await
    }

    /// Trades of the account in `symbol` (weight 20), oldest first, at most `limit` (1 to 1000).
    ///
    /// # Errors
    /// See [`VenueError`]; a page with anything wrong in it is refused whole.
    pub async fn account_trades(
        &self,
        symbol: &str,
        since: TradesSince,
        limit: usize,
    ) -> Result<Vec<AccountTrade>, VenueError> {
        let mut request = Request::new("/api/v3/myTrades", Some(symbol), 20)
            .with("symbol", symbol)
            .with("limit", &limit)
            .signed(0);
        request = match since {
            TradesSince::Id(id) => request.with("fromId", &id),
            TradesSince::Time(at) => request.with("startTime", &at.0),
        };
        check_symbol(&request, symbol)?;
        check_page(&request, limit)?;
        self.get_signed(&request, |body| {
            let rows: Vec<AccountTrade> = json(body)?;
            check(&rows, symbol, since, limit)?;
            Ok((rows.len(), rows))
        })
        .await
    }

    /// Conversions of the account that were made in `[start, end)` and are done, oldest first. The
    /// stretch is at most 30 days. 3000 by account for each request; a stretch with more rows than
    /// an answer holds is asked in halves.
    ///
    /// # Errors
    /// See [`VenueError`].
    pub async fn convert_trades(
        &self,
        start: Time,
        end: Time,
    ) -> Result<Vec<ConvertTrade>, VenueError> {
        let mut done: Vec<ConvertTrade> = Vec::new();
        let mut spans = vec![(start, end)];
        while let Some((from, to)) = spans.pop() {
            let last = Time(to.0 - 1);
            let request = Request::new("/sapi/v1/convert/tradeFlow", None, 1)
                .with("startTime", &from.0)
                .with("endTime", &last.0)
                .with("limit", &1_000)
                .signed(3_000);
            if from >= to || to - from > LONGEST_CONVERT_SPAN {
                let asked = format!("{from} to {to} is not a stretch of at most 30 days");
                return Err(request.invalid(asked));
            }
            let flow = self
                .get_signed(&request, |body| {
                    let flow: Flow = json(body)?;
                    let outside =
                        flow.list.iter().find(|c| c.create_time < from || c.create_time > last);
                    match outside {
                        Some(c) => Err(format!(
                            "order {} of {} is outside the asked range",
                            c.order_id, c.create_time
                        )),
                        None => Ok((flow.list.len(), flow)),
                    }
                })
                .await?;
            if !flow.more_data {
                done.extend(flow.list);
            } else if to - from == Millis(1) {
                return Err(
                    request.invalid(format!("more conversions at {from} than one answer holds"))
                );
            } else {
                let middle = from + Millis((to - from).0 / 2);
                spans.extend([(middle, to), (from, middle)]);
            }
        }
        done.retain(|c| c.order_status == "SUCCESS");
        done.sort_unstable_by_key(|c| (c.create_time, c.order_id));
        Ok(done)
    }

    /// Sends a signed request; where the venue finds our clock wrong, measures it and asks once
    /// more.
    async fn get_signed<T>(
        &self,
        request: &Request,
        read: impl Fn(&[u8]) -> Result<(usize, T), String>,
    ) -> Result<T, VenueError> {
        if self.credentials.is_none() {
            return Err(request.invalid("it needs the credentials of an account"));
        }
        self.fresh_skew().await?;
        match self.get(request, |body, _| read(body)).await {
            Err(VenueError::Unauthorized { code: CLOCK, .. }) => {
                tracing::debug!(call = %request.call(), "the venue finds our clock wrong, measuring");
                self.server_time().await?;
                self.get(request, |body, _| read(body)).await
            }
            other => other,
        }
    }
}

fn check(
    rows: &[AccountTrade],
    symbol: &str,
    since: TradesSince,
    limit: usize,
) -> Result<(), String> {
    if rows.len() > limit {
        return Err(format!("{} rows where at most {limit} were asked", rows.len()));
    }
    for (i, row) in rows.iter().enumerate() {
        let positive = |d: Decimal| d > Decimal::ZERO;
        if row.symbol != symbol {
            return Err(format!("row {i}: a trade of {}", row.symbol));
        }
        if !(positive(row.price) && positive(row.qty) && positive(row.quote_qty)) {
            return Err(format!("row {i}: {} at {} is not a trade", row.qty, row.price));
        }
        if row.commission < Decimal::ZERO {
            return Err(format!("row {i}: commission {}", row.commission));
        }
        if i > 0 && row.id <= rows[i - 1].id {
            return Err(format!("row {i}: id {} comes after {}", row.id, rows[i - 1].id));
        }
        let inside = match since {
            TradesSince::Id(id) => row.id >= id,
            TradesSince::Time(at) => row.time >= at,
        };
        if !inside {
            return Err(format!(
                "row {i}: trade {} of {} is outside the asked range",
                row.id, row.time
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The example of the venue's documentation.
    fn documented() -> Credentials {
        Credentials::new(
            "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
            "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j",
        )
        .unwrap()
    }

    #[test]
    fn the_documented_example_gets_the_documented_signature() {
        let query = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1\
                     &recvWindow=5000&timestamp=1499827319559";
        assert_eq!(
            documented().signature(query),
            "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71"
        );
    }

    #[test]
    fn a_query_is_sorted_encoded_and_signed_as_it_is_sent() {
        let mut url = reqwest::Url::parse("http://x/api/v3/myTrades?limit=1").unwrap();
        let query = [("symbol", "币BTC".to_owned()), ("fromId", "7".to_owned())];
        documented().sign(&mut url, &query, Time(1_499_827_319_559));
        let text = url.query().unwrap();
        let (signed, signature) = text.split_once("&signature=").unwrap();
        assert_eq!(signed, "fromId=7&recvWindow=5000&symbol=%E5%B8%81BTC&timestamp=1499827319559");
        assert_eq!(signature, documented().signature(signed));
    }

    #[test]
    fn nothing_prints_a_secret() {
        assert_eq!(format!("{:?}", documented()), "Credentials(..)");
        let e = Credentials::new("abc", "top secret").unwrap_err();
        assert_eq!(e.to_string(), "the API secret holds a character that no key or secret has");
        assert!(!format!("{e:?}").contains("top"));
    }

    #[test]
    fn a_file_of_credentials_is_ours_alone_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let read = |text: &str, mode: u32| {
            drop(std::fs::remove_file(&path));
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            Credentials::from_file(&path).map_err(|e| e.to_string())
        };
        let good = "# of the ledger\n\napi_key = abc\napi_secret=def\n";
        for mode in [0o600, 0o400] {
            assert_eq!(read(good, mode).unwrap(), Credentials::new("abc", "def").unwrap());
        }
        for mode in [0o644, 0o640, 0o660, 0o700, 0o4600] {
            let refused = read(good, mode).unwrap_err();
            assert!(refused.contains(&format!("mode {mode:04o}, so others")), "{refused}");
        }
        for (text, says) in [
            ("api_key = abc\n", "line 0 of the credentials file"),
            ("api_key = abc\n", "`api_secret` is missing"),
            ("api_key abc\n", "line 1"),
            ("api_key = abc\nsecret = def\n", "line 2"),
            ("api_key = abc\napi_key = abc\n", "given before"),
            ("api_key = abc\napi_secret = d e\n", "holds a character"),
            ("api_key =\n", "is empty"),
        ] {
            let refused = read(text, 0o600).unwrap_err();
            assert!(refused.contains(says), "{text:?}: {refused}");
            assert!(!refused.contains("abc") && !refused.contains("d e;"), "{refused}");
        }
        let gone = Credentials::from_file(&dir.path().join("none")).unwrap_err();
        assert!(gone.to_string().starts_with("cannot read the credentials file"));
        assert!(Credentials::from_file(dir.path()).is_err(), "a directory");
    }

    #[test]
    fn neither_variable_is_no_credentials() {
        let given = |vars: &'static [(&str, &str)]| {
            let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
            Credentials::from_variables(get, "KEY", "SECRET")
        };
        assert_eq!(given(&[]).unwrap(), None);
        assert!(given(&[("KEY", "abc"), ("SECRET", " def ")]).unwrap().is_some());
        let half = given(&[("KEY", "abc")]).unwrap_err();
        assert!(half.to_string().starts_with("the environment variable SECRET"), "{half}");
    }
}
