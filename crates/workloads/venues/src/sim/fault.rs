//! A script of what goes wrong, and when.
//!
//! One rule is `TARGET:KIND` or `TARGET:KIND:OPTION,OPTION,...`; rules are joined by `;`. The
//! target is an endpoint (`klines`, `depth`, `ticker/24hr`, ...), `stream`, or `*`. The kind is a
//! status (`429`, `503`) or a name of [`KINDS`]. Examples:
//!
//! ```text
//! klines:429:p=0.1
//! klines:missing:from=2026-11-01T00:00:00Z,to=2026-11-01T03:00:00Z,symbol=BTCUSDT
//! *:down:from=2026-11-02T00:00:00Z,to=2026-11-02T00:10:00Z
//! klines:latency:ms=500,p=0.2 ; stream:boundary:n=3
//! ```
//!
//! A rule fires by its own counter and seed, so the same requests in the same order meet the same
//! faults.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use watchbell_core::{Millis, Time};

use super::dice::{hash_text, mix, unit};

/// All kinds with what each does and the options it takes beside `p`, `n`, `seed`, `from`, `to` and
/// `symbol`.
pub const KINDS: [(&str, &str); 30] = [
    ("400 .. 599", "answers with that status; `retry=SECONDS` adds Retry-After (429, 418)"),
    ("ban", "bans the address: 418 until `secs=` have passed (120)"),
    ("latency", "answers after `ms=` (1000) of simulated time"),
    ("timeout", "accepts the request and never answers"),
    ("reset", "drops the connection before the answer"),
    ("reset-body", "drops the connection in the middle of the body"),
    ("truncated", "ends the connection in order, but before the end of the body"),
    ("down", "closes every connection without an answer"),
    ("html", "answers a proxy's HTML page with `status=` (502; 200 is possible)"),
    ("empty", "answers 200 with an empty body"),
    ("null", "answers 200 with `null`"),
    ("error-object", "answers 200 with an error object"),
    ("malformed", "answers 200 with JSON that breaks off"),
    (
        "missing",
        "leaves candles out that opened in from..to, or symbols out of a list of tickers (p: each); \
         `heal=N` answers later they are there",
    ),
    ("duplicate", "repeats a row"),
    ("unordered", "swaps two rows"),
    ("crossed", "answers a book whose best bid is above its best ask"),
    ("wrong-width", "leaves the last field of a row out"),
    ("number", "sends a price as a number instead of text"),
    ("outside", "adds a row from before the range"),
    ("revised", "serves candles with another close until `ms=` (120000) after their end (p: each)"),
    ("stale", "answers as of `ms=` (5000) ago"),
    ("skew", "shows a server time that is `ms=` (5000, may be negative) ahead"),
    ("halt", "gives the symbol the status HALT in exchangeInfo"),
    ("drop", "stream: drops the connection"),
    ("silence", "stream: sends nothing more, but keeps the connection"),
    ("skip-frame", "stream: loses a frame"),
    ("duplicate-frame", "stream: sends a frame twice"),
    ("broken-frame", "stream: cuts a frame's JSON short"),
    ("boundary", "stream: drops the connection instead of sending a closed candle"),
];

/// The endpoints that a rule may name.
pub const TARGETS: [&str; 19] = [
    "*",
    "ping",
    "time",
    "exchangeInfo",
    "klines",
    "uiKlines",
    "depth",
    "trades",
    "historicalTrades",
    "aggTrades",
    "ticker",
    "avgPrice",
    "account",
    "myTrades",
    "convert",
    "funding",
    "openInterest",
    "stream",
    "rest",
];

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An error status, with Retry-After in seconds where given.
    Status {
        /// 400 to 599.
        status: u16,
        /// Seconds.
        retry_after: Option<i64>,
    },
    /// A ban of the address.
    Ban(Millis),
    /// A slow answer.
    Latency(Millis),
    /// No answer at all.
    Timeout,
    /// A connection lost before the answer.
    Reset,
    /// A connection lost within the body.
    ResetBody,
    /// A body that ends early.
    Truncated,
    /// Nobody answers, and new connections are closed.
    Down,
    /// A proxy's page with this status.
    Html(u16),
    /// No body.
    Empty,
    /// The body `null`.
    Null,
    /// An error object with status 200.
    ErrorObject,
    /// Broken JSON.
    Malformed,
    /// Candles left out, or symbols of a list of tickers; for good, or until that many answers were
    /// short of them.
    Missing(Option<u32>),
    /// A row twice.
    Duplicate,
    /// Two rows swapped.
    Unordered,
    /// A best bid above the best ask.
    Crossed,
    /// A row with a field too few.
    WrongWidth,
    /// A number where text belongs.
    Number,
    /// A row that was not asked for.
    Outside,
    /// Another close until that long after the candle's end.
    Revised(Millis),
    /// The answer of that long ago.
    Stale(Millis),
    /// A server clock that is wrong by that much.
    Skew(Millis),
    /// A symbol that does not trade.
    Halt,
    /// A stream connection lost.
    Drop,
    /// A stream that falls silent.
    Silence,
    /// A frame lost.
    SkipFrame,
    /// A frame twice.
    DuplicateFrame,
    /// A frame cut short.
    BrokenFrame,
    /// A stream connection lost as a candle closes.
    Boundary,
}

/// One rule of a script.
#[derive(Debug, Clone, PartialEq)]
pub struct FaultRule {
    /// One of [`TARGETS`], or a ticker path such as `ticker/24hr`.
    pub target: String,
    /// What goes wrong.
    pub kind: FaultKind,
    /// Only this symbol.
    pub symbol: Option<String>,
    /// Only from this simulated time on.
    pub from: Option<Time>,
    /// Only before this simulated time.
    pub to: Option<Time>,
    /// Chance of each request, frame or (for `missing` and `revised`) candle.
    pub probability: f64,
    /// At most this many times.
    pub count: Option<u64>,
    /// Chooses which requests are hit.
    pub seed: u64,
}

/// All rules, in order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct FaultScript {
    /// The rules; each is judged for itself.
    pub rules: Vec<FaultRule>,
}

/// A rule that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault rule `{rule}`: {problem}")]
pub struct FaultParseError {
    /// The rule as written.
    pub rule: String,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
}

impl FaultRule {
    /// The kind in the script's words.
    #[must_use]
    pub fn name(&self) -> String {
        match self.kind {
            FaultKind::Status { status, .. } => status.to_string(),
            FaultKind::Ban(_) => "ban".into(),
            FaultKind::Latency(_) => "latency".into(),
            FaultKind::Timeout => "timeout".into(),
            FaultKind::Reset => "reset".into(),
            FaultKind::ResetBody => "reset-body".into(),
            FaultKind::Truncated => "truncated".into(),
            FaultKind::Down => "down".into(),
            FaultKind::Html(_) => "html".into(),
            FaultKind::Empty => "empty".into(),
            FaultKind::Null => "null".into(),
            FaultKind::ErrorObject => "error-object".into(),
            FaultKind::Malformed => "malformed".into(),
            FaultKind::Missing(_) => "missing".into(),
            FaultKind::Duplicate => "duplicate".into(),
            FaultKind::Unordered => "unordered".into(),
            FaultKind::Crossed => "crossed".into(),
            FaultKind::WrongWidth => "wrong-width".into(),
            FaultKind::Number => "number".into(),
            FaultKind::Outside => "outside".into(),
            FaultKind::Revised(_) => "revised".into(),
            FaultKind::Stale(_) => "stale".into(),
            FaultKind::Skew(_) => "skew".into(),
            FaultKind::Halt => "halt".into(),
            FaultKind::Drop => "drop".into(),
            FaultKind::Silence => "silence".into(),
            FaultKind::SkipFrame => "skip-frame".into(),
            FaultKind::DuplicateFrame => "duplicate-frame".into(),
            FaultKind::BrokenFrame => "broken-frame".into(),
            FaultKind::Boundary => "boundary".into(),
        }
    }

    fn covers(&self, target: &str, symbol: Option<&str>, at: Time) -> bool {
        let wanted = self.target.as_str();
        let aimed = match wanted {
            "*" => true,
            "rest" => target != "stream",
            _ => {
                wanted == target
                    || target.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'))
            }
        };
        aimed
            && self.symbol.as_deref().is_none_or(|s| symbol.is_none_or(|asked| asked == s))
            && self.from.is_none_or(|from| from <= at)
            && self.to.is_none_or(|to| at < to)
    }
}

impl fmt::Display for FaultRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.name())?;
        let mut options = Vec::new();
        match self.kind {
            FaultKind::Status { retry_after: Some(s), .. } => options.push(format!("retry={s}")),
            FaultKind::Ban(d) => options.push(format!("secs={}", d.0 / 1_000)),
            FaultKind::Latency(d)
            | FaultKind::Revised(d)
            | FaultKind::Stale(d)
            | FaultKind::Skew(d) => options.push(format!("ms={}", d.0)),
            FaultKind::Html(status) => options.push(format!("status={status}")),
            FaultKind::Missing(Some(n)) => options.push(format!("heal={n}")),
            _ => {}
        }
        if let Some(symbol) = &self.symbol {
            options.push(format!("symbol={symbol}"));
        }
        if let Some(from) = self.from {
            options.push(format!("from={from}"));
        }
        if let Some(to) = self.to {
            options.push(format!("to={to}"));
        }
        if self.probability < 1.0 {
            options.push(format!("p={}", self.probability));
        }
        if let Some(n) = self.count {
            options.push(format!("n={n}"));
        }
        if self.seed != 0 {
            options.push(format!("seed={}", self.seed));
        }
        if options.is_empty() { Ok(()) } else { write!(f, ":{}", options.join(",")) }
    }
}

impl FromStr for FaultRule {
    type Err = FaultParseError;

    fn from_str(text: &str) -> Result<Self, FaultParseError> {
        let text = text.trim();
        let fail = |problem: String| FaultParseError { rule: text.to_owned(), problem };
        let mut parts = text.splitn(3, ':').map(str::trim);
        let target = parts.next().unwrap_or_default();
        if !TARGETS.contains(&target) && !target.starts_with("ticker/") {
            let known = TARGETS.join(", ");
            return Err(fail(format!("`{target}` is not an endpoint; one of {known}")));
        }
        let Some(kind) = parts.next() else {
            return Err(fail("no kind; write TARGET:KIND, such as klines:429:p=0.1".to_owned()));
        };
        let mut options = Options::parse(parts.next().unwrap_or_default()).map_err(fail)?;
        let rule = options.rule(target, kind).map_err(fail)?;
        match options.0.keys().min() {
            None => Ok(rule),
            Some(left) => Err(fail(format!(
                "`{kind}` takes no option `{left}`; every kind takes p, n, seed, from, to, symbol"
            ))),
        }
    }
}

/// The `key=value` list of a rule; what is used is taken out.
struct Options<'a>(HashMap<&'a str, &'a str>);

impl<'a> Options<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let mut map = HashMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is not an option; write key=value"))?;
            map.insert(key.trim(), value.trim());
        }
        Ok(Self(map))
    }

    fn number<T: FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        self.0
            .remove(key)
            .map(|v| v.parse().map_err(|_| format!("{key}={v} is not a number that fits")))
            .transpose()
    }

    fn time(&mut self, key: &str) -> Result<Option<Time>, String> {
        self.0.remove(key).map(Time::parse).transpose()
    }

    fn span(&mut self, key: &str, unit: i64, default: i64) -> Result<Millis, String> {
        Ok(Millis(self.number::<i64>(key)?.unwrap_or(default).saturating_mul(unit)))
    }

    fn rule(&mut self, target: &str, kind: &str) -> Result<FaultRule, String> {
        let kind = self.kind(kind)?;
        let probability = self.number("p")?.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&probability) {
            return Err(format!("p={probability} is not a probability from 0 to 1"));
        }
        Ok(FaultRule {
            target: target.to_owned(),
            kind,
            symbol: self.0.remove("symbol").map(str::to_owned),
            from: self.time("from")?,
            to: self.time("to")?,
            probability,
            count: self.number("n")?,
            seed: self.number("seed")?.unwrap_or(0),
        })
    }

    fn kind(&mut self, name: &str) -> Result<FaultKind, String> {
        if let Ok(status) = name.parse::<u16>()
            && (400..600).contains(&status)
        {
            return Ok(FaultKind::Status { status, retry_after: self.number("retry")? });
        }
        Ok(match name {
            "ban" => FaultKind::Ban(self.span("secs", 1_000, 120)?),
            "latency" => FaultKind::Latency(self.span("ms", 1, 1_000)?),
            "timeout" => FaultKind::Timeout,
            "reset" => FaultKind::Reset,
            "reset-body" => FaultKind::ResetBody,
            "truncated" => FaultKind::Truncated,
            "down" => FaultKind::Down,
            "html" => {
                let status = self.number("status")?.unwrap_or(502);
                if !(200..600).contains(&status) {
                    return Err(format!("status={status} is not a status from 200 to 599"));
                }
                FaultKind::Html(status)
            }
            "empty" => FaultKind::Empty,
            "null" => FaultKind::Null,
            "error-object" => FaultKind::ErrorObject,
            "malformed" => FaultKind::Malformed,
            "missing" => FaultKind::Missing(self.number("heal")?),
            "duplicate" => FaultKind::Duplicate,
            "unordered" => FaultKind::Unordered,
            "crossed" => FaultKind::Crossed,
            "wrong-width" => FaultKind::WrongWidth,
            "number" => FaultKind::Number,
            "outside" => FaultKind::Outside,
            "revised" => FaultKind::Revised(self.span("ms", 1, 120_000)?),
            "stale" => FaultKind::Stale(self.span("ms", 1, 5_000)?),
            "skew" => FaultKind::Skew(self.span("ms", 1, 5_000)?),
            "halt" => FaultKind::Halt,
            "drop" => FaultKind::Drop,
            "silence" => FaultKind::Silence,
            "skip-frame" => FaultKind::SkipFrame,
            "duplicate-frame" => FaultKind::DuplicateFrame,
            "broken-frame" => FaultKind::BrokenFrame,
            "boundary" => FaultKind::Boundary,
            _ => {
                let known: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
                return Err(format!("`{name}` is not a kind; one of {}", known.join(", ")));
            }
        })
    }
}

impl FromStr for FaultScript {
    type Err = FaultParseError;

    fn from_str(text: &str) -> Result<Self, FaultParseError> {
        let parts = text.split([';', '\n']).map(str::trim);
        let rules = parts.filter(|p| !p.is_empty() && !p.starts_with('#')).map(str::parse);
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }
}

impl TryFrom<Vec<String>> for FaultScript {
    type Error = FaultParseError;

    fn try_from(rules: Vec<String>) -> Result<Self, FaultParseError> {
        rules.join("\n").parse()
    }
}

impl From<FaultScript> for Vec<String> {
    fn from(script: FaultScript) -> Self {
        script.rules.iter().map(ToString::to_string).collect()
    }
}

impl fmt::Display for FaultScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Vec::<String>::from(self.clone()).join(" ; "))
    }
}

/// A script at work: the rules with their counters.
#[derive(Debug, Default)]
pub(super) struct Faults {
    rules: Vec<Armed>,
}

#[derive(Debug)]
struct Armed {
    rule: FaultRule,
    seed: u64,
    asked: u64,
    fired: u64,
    /// For what heals: answers that were short of it.
    hidden: HashMap<u64, u32>,
}

impl Faults {
    pub(super) fn new(script: FaultScript) -> Self {
        let arm = |(i, rule): (usize, FaultRule)| Armed {
            seed: mix(mix(rule.seed, 0xFA17), i as u64),
            rule,
            asked: 0,
            fired: 0,
            hidden: HashMap::new(),
        };
        Self { rules: script.rules.into_iter().enumerate().map(arm).collect() }
    }

    pub(super) fn script(&self) -> FaultScript {
        FaultScript { rules: self.rules.iter().map(|a| a.rule.clone()).collect() }
    }

    /// The request faults that hit now, in the order of the script. Those of single candles and symbols
    /// are not among them: see [`hides`](Self::hides), [`omits`](Self::omits) and
    /// [`revises`](Self::revises).
    pub(super) fn strike(
        &mut self,
        target: &str,
        symbol: Option<&str>,
        now: Time,
        concerns: impl Fn(FaultKind) -> bool,
    ) -> Vec<FaultRule> {
        let mut hit = Vec::new();
        for armed in &mut self.rules {
            let per_candle =
                matches!(armed.rule.kind, FaultKind::Missing(_) | FaultKind::Revised(_));
            if per_candle || !concerns(armed.rule.kind) || !armed.rule.covers(target, symbol, now) {
                continue;
            }
            armed.asked += 1;
            if armed.rule.count.is_none_or(|n| armed.fired < n)
                && unit(mix(armed.seed, armed.asked)) < armed.rule.probability
            {
                armed.fired += 1;
                hit.push(armed.rule.clone());
            }
        }
        hit
    }

    /// Whether the venue is unreachable now.
    pub(super) fn is_down(&self, now: Time) -> bool {
        self.rules.iter().any(|a| {
            a.rule.kind == FaultKind::Down
                && a.rule.target == "*"
                && a.rule.probability >= 1.0
                && a.rule.count.is_none()
                && a.rule.covers("*", None, now)
        })
    }

    /// Whether a symbol is halted now.
    pub(super) fn is_halted(&self, symbol: &str, now: Time) -> bool {
        self.rules.iter().any(|a| {
            a.rule.kind == FaultKind::Halt && a.rule.covers("exchangeInfo", Some(symbol), now)
        })
    }

    /// Whether any rule concerns single candles, so that `hides` and `revises` need be asked.
    pub(super) fn touches_candles(&self) -> bool {
        self.rules
            .iter()
            .any(|a| matches!(a.rule.kind, FaultKind::Missing(_) | FaultKind::Revised(_)))
    }

    /// Whether a candle is left out of this answer.
    pub(super) fn hides(&mut self, target: &str, symbol: &str, interval: &str, open: i64) -> bool {
        self.left_out(target, symbol, Time(open), candle_id(symbol, interval, open))
    }

    /// Whether a symbol is left out of this list of tickers.
    pub(super) fn omits(&mut self, target: &str, symbol: &str, now: Time) -> bool {
        self.left_out(target, symbol, now, hash_text(symbol))
    }

    /// Whether what is numbered `id`, of that symbol and instant, is left out of this answer.
    fn left_out(&mut self, target: &str, symbol: &str, at: Time, id: u64) -> bool {
        let mut hidden = false;
        for armed in &mut self.rules {
            let FaultKind::Missing(heal) = armed.rule.kind else { continue };
            if !armed.rule.covers(target, Some(symbol), at)
                || unit(mix(armed.seed, id)) >= armed.rule.probability
            {
                continue;
            }
            hidden |= match heal {
                None => true,
                Some(answers) => {
                    let seen = armed.hidden.entry(id).or_insert(0);
                    *seen = seen.saturating_add(1);
                    *seen <= answers
                }
            };
        }
        hidden
    }

    /// Whether a closed candle is still to be revised at `now`.
    pub(super) fn revises(
        &self,
        target: &str,
        symbol: &str,
        interval: &str,
        (open, close_time): (i64, i64),
        now: i64,
    ) -> bool {
        let id = candle_id(symbol, interval, open);
        self.rules.iter().any(|a| {
            matches!(a.rule.kind, FaultKind::Revised(until) if now <= close_time + until.0)
                && now > close_time
                && a.rule.covers(target, Some(symbol), Time(open))
                && unit(mix(a.seed, id)) < a.rule.probability
        })
    }
}

fn candle_id(symbol: &str, interval: &str, open: i64) -> u64 {
    mix(mix(hash_text(symbol), hash_text(interval)), open as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_printed() {
        for text in [
            "klines:429:p=0.1",
            "klines:429:retry=7,n=2",
            "*:down:from=2026-11-02T00:00:00Z,to=2026-11-02T00:10:00Z",
            "klines:missing:heal=2,symbol=BTCUSDT,from=2026-11-01T00:00:00Z,p=0.5,seed=9",
            "klines:latency:ms=500",
            "time:skew:ms=-7000",
            "stream:boundary:n=3",
            "ticker/24hr:html:status=200",
        ] {
            let rule: FaultRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
        }
        let script: FaultScript =
            "klines:503 ; depth:empty\n# a comment\nstream:drop".parse().unwrap();
        assert_eq!(script.rules.len(), 3);
        let json = serde_json::to_string(&script).unwrap();
        assert_eq!(json, r#"["klines:503","depth:empty","stream:drop"]"#);
        assert_eq!(serde_json::from_str::<FaultScript>(&json).unwrap(), script);
    }

    #[test]
    fn every_named_kind_is_read() {
        for (name, _) in &KINDS[1..] {
            let rule: FaultRule = format!("*:{name}").parse().unwrap();
            assert_eq!(&rule.name(), name);
        }
    }

    #[test]
    fn errors_name_what_is_allowed() {
        for (text, part) in [
            ("candles:429", "`candles` is not an endpoint; one of *, ping"),
            ("klines", "no kind"),
            ("klines:explode", "`explode` is not a kind; one of 400 .. 599, ban"),
            ("klines:429:p=2", "p=2 is not a probability"),
            ("klines:429:q=2", "takes no option `q`"),
            ("klines:429:p", "`p` is not an option"),
            ("klines:latency:ms=fast", "ms=fast is not a number"),
            ("klines:empty:from=noon", "`noon` is not an instant"),
        ] {
            let error = text.parse::<FaultScript>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_same_requests_meet_the_same_faults() {
        let script: FaultScript = "klines:500:p=0.3,seed=4".parse().unwrap();
        let run = || {
            let mut faults = Faults::new(script.clone());
            (0..200)
                .map(|_| faults.strike("klines", None, Time(0), |_| true).len())
                .collect::<Vec<_>>()
        };
        let hits: usize = run().iter().sum();
        assert_eq!(run(), run());
        assert!((40..80).contains(&hits), "{hits}");
    }

    #[test]
    fn a_hidden_candle_may_heal() {
        let mut faults = Faults::new("klines:missing:heal=2,from=60000,to=120000".parse().unwrap());
        let mut ask = |open| faults.hides("klines", "BTCUSDT", "1m", open);
        assert!(!ask(0) && !ask(120_000));
        assert_eq!([ask(60_000), ask(60_000), ask(60_000)], [true, true, false]);
    }
}
