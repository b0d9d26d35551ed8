//! Canonical text and SHA-256 hashes of a window's inputs and result (section 4.11, step 7).
//!
//! A complete window stores both, so that recomputing it can be compared with what was published.
//!
//! * **Inputs** are lines: `watchbell-inputs 1 LABEL START`, then for each symbol `symbol NAME`
//!   and for each of its points `TIME,PRICE,VOLUME,...`, with times in epoch milliseconds and each
//!   number in its shortest form that reads back to the same bits.
//! * **The result** is lines: `watchbell-result 1 LABEL START`, then for each part `KEY VALUE`, the
//!   value being JSON without spaces, keys in the order in which the types declare their fields.
//!   Numbers are rounded to twelve significant digits: a hash should not hang on the last bits of
//!   a sum. (The functions behind them give equal bits on all machines in the first place; see
//!   the `math` module. Rounding alone could not promise equal hashes, for a value next to a
//!   rounding border would still tip over.)
//!
//! A number is written as `D.DDDeX`: no trailing zeros, no plus sign, minus zero as `0`, and what
//! is no number as `null`.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};
use watchbell_core::Time;

/// Text gathers here before it is hashed.
const CHUNK: usize = 16 * 1024;
/// Significant digits of a number in a result.
const DIGITS: usize = 12;

/// Hashes what a window was computed from, in universe order and then time order.
#[derive(Debug, Clone)]
pub struct InputsHasher(Text);

/// Hashes what was computed, in universe order.
#[derive(Debug, Clone)]
pub struct ResultHasher(Text);

impl InputsHasher {
    /// For the window of `label` that starts at `start`.
    #[must_use]
    pub fn new(label: &str, start: Time) -> Self {
        Self(Text::new("watchbell-inputs 1", label, start))
    }
    /// The points that follow are of `symbol`.
    pub fn symbol(&mut self, symbol: &str) {
        self.0.push(b"symbol ");
        self.0.push(symbol.as_bytes());
        self.0.end_line();
    }
    /// One point: a mid price with bid and ask volume, or a candle's close with its volume.
    pub fn point(&mut self, at: Time, price: f64, volumes: &[f64]) {
        Number::integer(at.0).push_to(&mut self.0.pending);
        for &number in std::iter::once(&price).chain(volumes) {
            self.0.pending.push(b',');
            Number::exact(number).push_to(&mut self.0.pending);
        }
        self.0.end_line();
    }
    /// The hash as 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finish()
    }
}

impl ResultHasher {
    /// For the window of `label` that starts at `start`.
    #[must_use]
    pub fn new(label: &str, start: Time) -> Self {
        Self(Text::new("watchbell-result 1", label, start))
    }
    /// One part of the result, such as a symbol's [`WindowStats`](super::WindowStats).
    pub fn part<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.0.push(key.as_bytes());
        self.0.push(b" ");
        write_canonical(value, &mut self.0.pending);
        self.0.end_line();
    }
    /// The hash as 64 hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        self.0.finish()
    }
}

/// The canonical JSON of a value, as [`ResultHasher`] hashes it.
///
/// ```
/// # use watchbell_market::analytics::hash::canonical_json;
/// assert_eq!(canonical_json(&[1.0 / 3.0, -0.0, 250.0]), "[3.33333333333e-1,0,2.5e2]");
/// ```
#[must_use]
pub fn canonical_json<T: Serialize + ?Sized>(value: &T) -> String {
    let mut text = Vec::new();
    write_canonical(value, &mut text);
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[derive(Debug, Clone)]
struct Text {
    hasher: Sha256,
    pending: Vec<u8>,
}

impl Text {
    fn new(kind: &str, label: &str, start: Time) -> Self {
        let mut text = Self { hasher: Sha256::new(), pending: Vec::with_capacity(CHUNK + 4096) };
        for piece in [kind, " ", label, " "] {
            text.push(piece.as_bytes());
        }
        Number::integer(start.0).push_to(&mut text.pending);
        text.end_line();
        text
    }
    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }
    fn end_line(&mut self) {
        self.pending.push(b'\n');
        if self.pending.len() >= CHUNK {
            self.hasher.update(&self.pending);
            self.pending.clear();
        }
    }
    fn finish(mut self) -> String {
        self.hasher.update(&self.pending);
        let digest = self.hasher.finalize();
        let hex = |nibble: u8| char::from_digit(u32::from(nibble), 16).expect("below 16");
        digest.iter().flat_map(|b| [hex(b >> 4), hex(b & 15)]).collect()
    }
}

/// serde_json's compact layout with our own numbers.
struct Canonical;

impl serde_json::ser::Formatter for Canonical {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let number = Number::rounded(value);
        writer.write_all(&number.text[..number.len])
    }
}

fn write_canonical<T: Serialize + ?Sized>(value: &T, into: &mut Vec<u8>) {
    value
        .serialize(&mut serde_json::Serializer::with_formatter(into, Canonical))
        .expect("plain data serialises into memory");
}

/// The text of one number. A window has a hundred thousand of them, so none goes to the heap, and all
/// copies are of one size: a processor makes those without a call.
struct Number {
    text: [u8; ROOM],
    len: usize,
}

/// A sign, seventeen digits, a point, and an exponent fit; so does a whole integer.
const ROOM: usize = 32;
/// Significant digits with room for any double's.
type Digits = [u8; 24];

impl Number {
    fn of(text: &[u8]) -> Self {
        let mut number = Self { text: [0; ROOM], len: text.len() };
        number.text[..text.len()].copy_from_slice(text);
        number
    }

    #[cfg(test)]
    fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len]
    }

    fn push_to(&self, into: &mut Vec<u8>) {
        let end = into.len() + self.len;
        into.extend_from_slice(&self.text);
        into.truncate(end);
    }

    fn push(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }

    fn integer(n: i64) -> Self {
        let mut number = Self { text: [0; ROOM], len: 0 };
        number.push_integer(n);
        number
    }

    fn push_integer(&mut self, n: i64) {
        if n < 0 {
            self.push(b'-');
        }
        let mut rest = n.unsigned_abs();
        let digits = rest.checked_ilog10().unwrap_or(0) as usize + 1;
        for slot in self.text[self.len..self.len + digits].iter_mut().rev() {
            *slot = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        self.len += digits;
    }

    /// The shortest text that reads back to the same bits.
    fn exact(x: f64) -> Self {
        match decimal(x) {
            // Market data has few digits: most numbers are exactly their twelve leading ones.
            Some((digits, exponent, true)) => Self::from_digits(x < 0.0, digits, exponent),
            _ if x == 0.0 => Self::of(b"0"),
            _ if !x.is_finite() => Self::of(b"null"),
            _ => Self::shortest(x),
        }
    }

    /// The shortest digits as serde_json finds them, several times faster than the formatter of the
    /// standard library, and brought into our form. Any two ways to find them give the same.
    fn shortest(x: f64) -> Self {
        let mut text = [0_u8; 64];
        let mut rest = &mut text[..];
        serde_json::to_writer(&mut rest, &x.abs()).expect("a double has fewer than 32 characters");
        let used = 64 - rest.len();
        // It stands as `123.45`, `0.0123` or `1.23e-7`; the digits are those around the point. An
        // exponent has four characters at most.
        let tail = used.saturating_sub(5);
        let (end, mut exponent) = match text[tail..used].iter().position(|b| *b == b'e') {
            None => (used, 0),
            Some(at) => {
                let digits = std::str::from_utf8(&text[tail + at + 1..used]).unwrap_or_default();
                (tail + at, digits.parse().expect("a double's exponent is a small integer"))
            }
        };
        let count = match text[..end].iter().position(|b| *b == b'.') {
            None => {
                exponent += end as i64;
                end
            }
            Some(at) => {
                exponent += at as i64;
                text.copy_within(at + 1..end, at);
                end - 1
            }
        };
        let found = &text[..count];
        let first = found.iter().position(|d| *d != b'0').unwrap_or(0);
        let last = found.iter().rposition(|d| *d != b'0').unwrap_or(0);
        let digits = text[first..].first_chunk().expect("the text has twice the room it needs");
        Self::scientific(x < 0.0, digits, last - first + 1, exponent - first as i64 - 1)
    }

    /// Twelve significant digits, without trailing zeros.
    fn rounded(x: f64) -> Self {
        if let Some((digits, exponent, _)) = decimal(x) {
            Self::from_digits(x < 0.0, digits, exponent)
        } else if x == 0.0 {
            Self::of(b"0")
        } else if !x.is_finite() {
            Self::of(b"null")
        } else {
            let text = format!("{x:.0$e}", DIGITS - 1);
            let (mantissa, exponent) =
                text.split_once('e').expect("exponential form has an exponent");
            let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
            Self::of(format!("{mantissa}e{exponent}").as_bytes())
        }
    }

    /// Of twelve digits.
    fn from_digits(negative: bool, digits: u64, exponent: i32) -> Self {
        const PAIRS: [[u8; 2]; 100] = pairs();
        let mut text = Digits::default();
        let halves = [(digits / 1_000_000) as usize, (digits % 1_000_000) as usize];
        for (half, text) in halves.into_iter().zip(text.chunks_exact_mut(6)) {
            text[..2].copy_from_slice(&PAIRS[half / 10_000]);
            text[2..4].copy_from_slice(&PAIRS[half / 100 % 100]);
            text[4..].copy_from_slice(&PAIRS[half % 100]);
        }
        let last = text[..DIGITS].iter().rposition(|d| *d != b'0').unwrap_or(0);
        Self::scientific(negative, &text, last + 1, i64::from(exponent))
    }

    /// The first `count` digits as `D.DDDeX`.
    fn scientific(negative: bool, digits: &Digits, count: usize, exponent: i64) -> Self {
        let mut number = Self { text: [0; ROOM], len: 0 };
        if negative {
            number.push(b'-');
        }
        number.push(digits[0]);
        if count > 1 {
            number.push(b'.');
            number.text[number.len..][..digits.len() - 1].copy_from_slice(&digits[1..]);
            number.len += count - 1;
        }
        number.push(b'e');
        number.push_integer(exponent);
        number
    }
}

/// `00` to `99`.
const fn pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + (n / 10) as u8, b'0' + (n % 10) as u8];
        n += 1;
    }
    pairs
}

/// Twelve digits `d` and an exponent `e` with `|x|` rounding to `d * 10^(e - 11)`, and whether that
/// is `x` itself. None outside 1e-10..1e12, and where the product comes so near to a half that it
/// cannot tell which way the decimal rounds: the slow, exact formatting decides there.
fn decimal(x: f64) -> Option<(u64, i32, bool)> {
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
        1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
    ];
    const BORDERS: [f64; 23] = [
        1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4, 1e5,
        1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12,
    ];
    let magnitude = x.abs();
    if !(1e-10..1e12).contains(&magnitude) {
        return None;
    }
    // The binary exponent times log10(2), rounded down, is the decimal one or one below it.
    let guess = (((magnitude.to_bits() >> 52) as i32 - 1023) * 1233) >> 12;
    let exponent = guess + i32::from(magnitude >= BORDERS[(guess + 11) as usize]);
    let scale = POWERS[(11 - exponent) as usize];
    let scaled = magnitude * scale;
    // It is below 2^53, and a conversion is quicker than rounding by a call.
    let whole = scaled as i64;
    let fraction = scaled - whole as f64;
    if (fraction - 0.5).abs() < 1e-3 {
        return None;
    }
    let digits = whole + i64::from(fraction > 0.5);
    let exact = digits as f64 / scale == magnitude;
    Some(if digits >= 1_000_000_000_000 {
        (100_000_000_000, exponent + 1, exact)
    } else {
        (digits.unsigned_abs(), exponent, exact)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: &Number) -> &str {
        std::str::from_utf8(number.as_bytes()).unwrap()
    }

    fn exact(x: f64) -> String {
        text(&Number::exact(x)).to_owned()
    }

    fn rounded(x: f64) -> String {
        text(&Number::rounded(x)).to_owned()
    }

    #[test]
    fn numbers_have_one_form() {
        for (x, in_full, short) in [
            (0.0, "0", "0"),
            (-0.0, "0", "0"),
            (1.0, "1e0", "1e0"),
            (-1500.25, "-1.50025e3", "-1.50025e3"),
            (0.1 + 0.2, "3.0000000000000004e-1", "3e-1"),
            (999_999_999_999.9, "9.999999999999e11", "1e12"),
            (1e-300, "1e-300", "1e-300"),
            (f64::NAN, "null", "null"),
            (f64::NEG_INFINITY, "null", "null"),
        ] {
            assert_eq!((&*exact(x), &*rounded(x)), (in_full, short));
        }
        // Both sides of each power of ten.
        for n in -330..=308 {
            let power: f64 = format!("1e{n}").parse().unwrap();
            for x in [power.next_down(), power, power.next_up()] {
                let shortest = if x == 0.0 { "0".into() } else { format!("{x:e}") };
                assert_eq!(exact(x), shortest);
                let formatted: f64 = format!("{x:.11e}").parse().unwrap();
                assert_eq!(rounded(x).parse::<f64>().unwrap(), formatted);
            }
        }
        for n in [i64::MIN, -1, 0, 9, 10, i64::MAX] {
            assert_eq!(text(&Number::integer(n)), n.to_string());
        }
    }

    #[test]
    fn hashes_are_of_the_documented_text() {
        let sha = |text: &str| -> String {
            Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect()
        };
        let mut inputs = InputsHasher::new("30m", Time(1_800_000));
        inputs.symbol("BTCUSDT");
        inputs.point(Time(1_805_000), 50_000.5, &[2.0, 0.1]);
        assert_eq!(
            inputs.finish(),
            sha("watchbell-inputs 1 30m 1800000\nsymbol BTCUSDT\n1805000,5.00005e4,2e0,1e-1\n")
        );
        let mut result = ResultHasher::new("30m", Time(1_800_000));
        result.part("BTCUSDT", &serde_json::json!({"x": 2.0 / 3.0, "n": 3, "none": null}));
        let body = r#"BTCUSDT {"n":3,"none":null,"x":6.66666666667e-1}"#;
        assert_eq!(result.finish(), sha(&format!("watchbell-result 1 30m 1800000\n{body}\n")));
    }

    proptest! {
        #[test]
        fn exact_text_reads_back_and_rounded_text_is_the_formatted_one(
            x in prop_oneof![any::<f64>(), -1e6..1e6_f64, (-100_000_i64..100_000).prop_map(|n| n as f64 / 1e4)]
        ) {
            prop_assume!(x.is_finite());
            prop_assert_eq!(exact(x).parse::<f64>().unwrap(), x);
            let formatted: f64 = format!("{x:.11e}").parse().unwrap();
            let ours = rounded(x);
            prop_assert_eq!(ours.parse::<f64>().unwrap(), formatted, "{}", ours);
            prop_assert_eq!(exact(x), if x == 0.0 { "0".into() } else { format!("{x:e}") });
        }
    }
}
