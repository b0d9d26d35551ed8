//! Parameters of a request, checked as the venue checks them. Spec: venues, section 4.4.

use super::render;

/// An error answer of the venue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: i32,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn bad(code: i32, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    pub(super) fn body(&self) -> Vec<u8> {
        render::error(self.code, &self.message)
    }

    pub(super) fn invalid(name: &str) -> Self {
        Self::bad(-1130, format!("Data sent for parameter '{name}' is not valid."))
    }

    fn missing(name: &str) -> Self {
        let message =
            format!("Mandatory parameter '{name}' was not sent, was empty/null, or malformed.");
        Self::bad(-1102, message)
    }

    fn characters(name: &str, range: &str) -> Self {
        let message =
            format!("Illegal characters found in parameter '{name}'; legal range is '{range}'.");
        Self::bad(-1100, message)
    }
}

/// The query of a request, decoded, in the order sent.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn parse(query: &str) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        };
        Self(query.split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The value as sent, without any check.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// Refuses unknown and repeated parameters.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Refusal> {
        let sent = self.0.len();
        if known.is_empty() && sent > 0 {
            let message = format!("Too many parameters; expected '0' and received '{sent}'.");
            return Err(Refusal::bad(-1101, message));
        }
        for (i, (name, _)) in self.0.iter().enumerate() {
            if self.0[..i].iter().any(|(earlier, _)| earlier == name) {
                let message = format!("Duplicate values for parameter '{name}'.");
                return Err(Refusal::bad(-1101, message));
            }
        }
        let read = self.0.iter().filter(|(k, _)| known.contains(&k.as_str())).count();
        if read < sent {
            let message = format!(
                "Not all sent parameters were read; read '{read}' parameter(s) but was sent '{sent}'."
            );
            return Err(Refusal::bad(-1104, message));
        }
        Ok(())
    }

    fn optional(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.raw(name) {
            Some("") => Err(Refusal::bad(-1105, format!("Parameter '{name}' was empty."))),
            other => Ok(other),
        }
    }

    /// A symbol that must be there. Whether it exists is another question.
    pub(super) fn symbol(&self) -> Result<&str, Refusal> {
        match self.raw("symbol") {
            None | Some("") => Err(Refusal::missing("symbol")),
            Some(symbol) => checked_symbol(symbol),
        }
    }

    /// A symbol that may be there.
    pub(super) fn optional_symbol(&self) -> Result<Option<&str>, Refusal> {
        self.optional("symbol")?.map(checked_symbol).transpose()
    }

    /// The list `["A","B"]` of the `symbols` parameter.
    pub(super) fn symbols(&self) -> Result<Option<Vec<String>>, Refusal> {
        let Some(text) = self.optional("symbols")? else { return Ok(None) };
        let range = r#"^\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\]$"#;
        let list: Vec<String> =
            serde_json::from_str(text).map_err(|_| Refusal::characters("symbols", range))?;
        if list.is_empty() || !list.iter().all(|s| legal_symbol(s)) {
            return Err(Refusal::characters("symbols", range));
        }
        Ok(Some(list))
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refusal> {
        self.raw(name).filter(|v| !v.is_empty()).ok_or_else(|| Refusal::missing(name))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.optional(name)? else { return Ok(None) };
        let digits = text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse().ok() } else { None };
        value.map(Some).ok_or_else(|| Refusal::characters(name, "^[0-9]{1,20}$"))
    }

    /// An instant in milliseconds; microseconds are understood by their size.
    pub(super) fn instant(&self, name: &str) -> Result<Option<i64>, Refusal> {
        const FIRST_MICROS: i64 = 100_000_000_000_000;
        Ok(self.number(name)?.map(|t| if t >= FIRST_MICROS { t / 1_000 } else { t }))
    }

    /// A number that names a trade.
    pub(super) fn id(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.number(name)
    }

    /// The page size: the default where none is sent, the maximum where more is asked.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, Refusal> {
        match self.number("limit")? {
            None => Ok(default),
            Some(0) => Err(Refusal::invalid("limit")),
            Some(n) => Ok(usize::try_from(n).unwrap_or(most).min(most)),
        }
    }

    /// The `timeZone` parameter in milliseconds east of UTC: `0`, `8`, `-3:30`, from −12 to +14 h.
    pub(super) fn zone(&self) -> Result<i64, Refusal> {
        let Some(text) = self.optional("timeZone")? else { return Ok(0) };
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix(['+', ' ']).unwrap_or(text)),
        };
        let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
        let part = |s: &str| {
            let plain = (1..=2).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
            if plain { s.parse::<i64>().ok() } else { None }
        };
        let offset = part(hours)
            .zip(part(minutes).filter(|m| *m < 60))
            .map(|(h, m)| sign * (h * 60 + m))
            .filter(|m| (-720..=840).contains(m));
        offset.map(|m| m * 60_000).ok_or_else(|| Refusal::invalid("timeZone"))
    }
}

fn legal_symbol(s: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=20).contains(&s.len()) && s.bytes().all(legal)
}

fn checked_symbol(s: &str) -> Result<&str, Refusal> {
    if legal_symbol(s) { Ok(s) } else { Err(Refusal::characters("symbol", "^[A-Z0-9-_.]{1,20}$")) }
}

/// Percent-decoding; what is not a valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escape = text.get(i + 1..i + 3).filter(|_| bytes[i] == b'%');
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                i += 3;
            }
            None => {
                out.push(if bytes[i] == b'+' { b' ' } else { bytes[i] });
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
