//! Values as PostgreSQL wants them: the server names the type of each parameter, and the value is
//! written in that type. What has no exact form in it travels as text, which the server reads.

use std::error::Error as StdError;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};
use watchbell_core::Value;

use crate::row::Cell;

type Failed = Box<dyn StdError + Sync + Send>;

/// Whether the value has an exact form in the type. Otherwise the statement is better prepared with
/// a type that fits the value.
pub(super) fn fits(value: &Value, ty: &Type) -> bool {
    match value {
        Value::Null => true,
        Value::Int(v) => match *ty {
            Type::INT8 | Type::FLOAT8 | Type::FLOAT4 | Type::NUMERIC => true,
            Type::INT4 => i32::try_from(*v).is_ok(),
            Type::INT2 => i16::try_from(*v).is_ok(),
            Type::OID => u32::try_from(*v).is_ok(),
            Type::BOOL => matches!(v, 0 | 1),
            _ => false,
        },
        Value::Float(_) => matches!(*ty, Type::FLOAT8 | Type::FLOAT4 | Type::NUMERIC),
        Value::Text(_) => {
            !matches!(*ty, Type::INT8 | Type::INT4 | Type::INT2 | Type::FLOAT8 | Type::BYTEA)
        }
        Value::Bytes(_) => *ty == Type::BYTEA,
    }
}

/// The type that a value has by itself.
pub(super) fn natural(value: &Value) -> Option<Type> {
    Some(match value {
        Value::Null => return None,
        Value::Int(_) => Type::INT8,
        Value::Float(_) => Type::FLOAT8,
        Value::Text(_) => Type::TEXT,
        Value::Bytes(_) => Type::BYTEA,
    })
}

/// Types whose values are written as text, byte by byte.
fn textual(ty: &Type) -> bool {
    matches!(
        *ty,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::UNKNOWN
    )
}

/// Types that have a binary form here.
fn binary(ty: &Type) -> bool {
    textual(ty)
        || matches!(
            *ty,
            Type::INT8
                | Type::INT4
                | Type::INT2
                | Type::OID
                | Type::BOOL
                | Type::FLOAT8
                | Type::FLOAT4
                | Type::BYTEA
                | Type::JSONB
        )
}

/// The array in which a column of this type is sent, its name without brackets, and the cast of its
/// elements where the column has a type without a binary form here.
pub(super) fn array_of(ty: &Type) -> (Type, &'static str, Option<String>) {
    let (array, name) = match *ty {
        Type::INT8 => (Type::INT8_ARRAY, "int8"),
        Type::INT4 => (Type::INT4_ARRAY, "int4"),
        Type::INT2 => (Type::INT2_ARRAY, "int2"),
        Type::BOOL => (Type::BOOL_ARRAY, "bool"),
        Type::FLOAT8 => (Type::FLOAT8_ARRAY, "float8"),
        Type::FLOAT4 => (Type::FLOAT4_ARRAY, "float4"),
        Type::TEXT => (Type::TEXT_ARRAY, "text"),
        Type::BYTEA => (Type::BYTEA_ARRAY, "bytea"),
        _ => {
            let cast = format!("{}.\"{}\"", ty.schema(), ty.name());
            return (Type::TEXT_ARRAY, "text", Some(cast));
        }
    };
    (array, name, None)
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Param<'a> {
    /// One value.
    One(&'a Value),
    /// The values of one column over many rows, as an array.
    Column {
        /// Row after row.
        values: &'a [Value],
        /// Values in a row.
        width: usize,
        /// Which of each row.
        place: usize,
    },
}

impl ToSql for Param<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
        match *self {
            Self::One(value) => write(value, ty, out),
            Self::Column { values, width, place } => array(values, width, place, ty, out),
        }
    }
    fn accepts(_: &Type) -> bool {
        true
    }
    fn encode_format(&self, ty: &Type) -> Format {
        let in_text = matches!(self, Self::One(_)) && (!binary(ty) || *ty == Type::UNKNOWN);
        if in_text { Format::Text } else { Format::Binary }
    }
    to_sql_checked!();
}

fn array(
    values: &[Value],
    width: usize,
    place: usize,
    ty: &Type,
    out: &mut BytesMut,
) -> Result<IsNull, Failed> {
    let Kind::Array(of) = ty.kind() else {
        return Err(format!("a list of rows cannot be given as {ty}").into());
    };
    let column = values.iter().skip(place).step_by(width);
    let rows = i32::try_from(values.len() / width)?;
    let nulls = column.clone().any(|v| matches!(v, Value::Null));
    // Dimensions, whether there are nulls, the type, and the one dimension's length and base.
    for word in [1, i32::from(nulls), i32::from_be_bytes(of.oid().to_be_bytes()), rows, 1] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for value in column {
        let at = out.len();
        // The length of a null; another takes its place.
        out.extend_from_slice(&[0xff; 4]);
        if matches!(write(value, of, out)?, IsNull::No) {
            let length = i32::try_from(out.len() - at - 4)?;
            out[at..at + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
    Ok(IsNull::No)
}

fn write(value: &Value, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Failed> {
    let refused = || Failed::from(format!("{} is no {ty}", brief(value)));
    match value {
        Value::Null => return Ok(IsNull::Yes),
        Value::Int(v) => match *ty {
            Type::INT8 => out.extend_from_slice(&v.to_be_bytes()),
            Type::INT4 => out.extend_from_slice(&i32::try_from(*v)?.to_be_bytes()),
            Type::INT2 => out.extend_from_slice(&i16::try_from(*v)?.to_be_bytes()),
            Type::OID => out.extend_from_slice(&u32::try_from(*v)?.to_be_bytes()),
            Type::BOOL => out.extend_from_slice(&[u8::from(*v != 0)]),
            Type::FLOAT8 => out.extend_from_slice(&(*v as f64).to_be_bytes()),
            Type::FLOAT4 => out.extend_from_slice(&(*v as f32).to_be_bytes()),
            Type::BYTEA | Type::JSONB => return Err(refused()),
            _ => out.extend_from_slice(v.to_string().as_bytes()),
        },
        Value::Float(v) => match *ty {
            Type::FLOAT8 => out.extend_from_slice(&v.to_be_bytes()),
            Type::FLOAT4 => out.extend_from_slice(&(*v as f32).to_be_bytes()),
            Type::INT8 if v.fract() == 0.0 && v.abs() < 9.0e15 => {
                out.extend_from_slice(&(*v as i64).to_be_bytes());
            }
            _ if binary(ty) && !textual(ty) => return Err(refused()),
            _ => out.extend_from_slice(v.to_string().as_bytes()),
        },
        Value::Text(v) => match *ty {
            Type::JSONB => {
                // The version of the format.
                out.extend_from_slice(&[1]);
                out.extend_from_slice(v.as_bytes());
            }
            _ if binary(ty) && !textual(ty) => return Err(refused()),
            _ => out.extend_from_slice(v.as_bytes()),
        },
        Value::Bytes(v) => match *ty {
            Type::BYTEA => out.extend_from_slice(v),
            _ => return Err(refused()),
        },
    }
    Ok(IsNull::No)
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// A cell as it came.
pub(crate) enum Read<'a> {
    /// In one of the types of a [`Cell`].
    Cell(Cell<'a>),
    /// A type that has no form here.
    Foreign,
}

impl<'a> FromSql<'a> for Read<'a> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Failed> {
        Ok(Self::Cell(match *ty {
            Type::INT8 => Cell::Int(i64::from_be_bytes(raw.try_into()?)),
            Type::INT4 => Cell::Int(i32::from_be_bytes(raw.try_into()?).into()),
            Type::INT2 => Cell::Int(i16::from_be_bytes(raw.try_into()?).into()),
            Type::OID => Cell::Int(u32::from_be_bytes(raw.try_into()?).into()),
            Type::BOOL => Cell::Int(i64::from(raw.first().is_some_and(|b| *b != 0))),
            Type::FLOAT8 => Cell::Float(f64::from_be_bytes(raw.try_into()?)),
            Type::FLOAT4 => Cell::Float(f32::from_be_bytes(raw.try_into()?).into()),
            Type::BYTEA => Cell::Bytes(raw),
            Type::NUMERIC => numeric(raw)?,
            Type::JSONB => Cell::Text(std::str::from_utf8(raw.get(1..).unwrap_or_default())?),
            Type::VOID => Cell::Null,
            Type::CHAR => Cell::Text(std::str::from_utf8(raw)?),
            _ if textual(ty) => Cell::Text(std::str::from_utf8(raw)?),
            _ => return Ok(Self::Foreign),
        }))
    }
    fn from_sql_null(_: &Type) -> Result<Self, Failed> {
        Ok(Self::Cell(Cell::Null))
    }
    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A numeric, such as the sum of big integers: an integer where it is whole and fits, else a
/// double. The format: digits of base 10,000, the first with the given weight.
fn numeric(raw: &[u8]) -> Result<Cell<'static>, Failed> {
    let words: Vec<i16> =
        raw.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [count, weight, sign, _scale, digits @ ..] = &words[..] else {
        return Err("a numeric without a head".into());
    };
    if digits.len() != usize::try_from(*count)? {
        return Err("a numeric that is cut short".into());
    }
    // 0x4000 is minus; 0xC000 and above are not a number and the infinities.
    let negative = match *sign as u16 {
        0 => false,
        0x4000 => true,
        0xd000 => return Ok(Cell::Float(f64::INFINITY)),
        0xf000 => return Ok(Cell::Float(f64::NEG_INFINITY)),
        _ => return Ok(Cell::Float(f64::NAN)),
    };
    let weight = i32::from(*weight);
    if digits.len() as i32 <= weight + 1 && weight < 5 {
        let whole = (0..=weight).fold(0_i128, |sum, at| {
            sum * 10_000 + i128::from(digits.get(at as usize).copied().unwrap_or(0))
        });
        if let Ok(whole) = i64::try_from(if negative { -whole } else { whole }) {
            return Ok(Cell::Int(whole));
        }
    }
    let mut text = String::from(if negative { "-0." } else { "0." });
    for digit in digits {
        text.push_str(&format!("{digit:04}"));
    }
    text.push_str(&format!("e{}", (weight + 1) * 4));
    Ok(Cell::Float(text.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_are_integers_where_they_are_whole() {
        let of = |words: &[i16]| {
            let raw: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            numeric(&raw).unwrap()
        };
        let minus = 0x4000;
        assert_eq!(of(&[0, 0, 0, 0]), Cell::Int(0));
        assert_eq!(of(&[1, 0, 0, 0, 42]), Cell::Int(42));
        assert_eq!(of(&[1, 1, 0, 0, 3]), Cell::Int(30_000));
        assert_eq!(of(&[2, 1, minus, 0, 1, 5]), Cell::Int(-10_005));
        assert_eq!(of(&[2, 0, 0, 1, 1, 5_000]), Cell::Float(1.5));
        assert_eq!(of(&[1, -1, minus, 2, 2_500]), Cell::Float(-0.25));
        assert_eq!(of(&[5, 4, 0, 0, 922, 3372, 368, 5477, 5807]), Cell::Int(i64::MAX));
        assert_eq!(
            of(&[5, 4, 0, 0, 922, 3372, 368, 5477, 5808]),
            Cell::Float(9_223_372_036_854_775_808.0)
        );
        assert!(numeric(&[0, 1]).is_err());
    }

    #[test]
    fn a_value_fits_where_nothing_is_lost() {
        for (value, ty, exact) in [
            (Value::Int(1), Type::INT4, true),
            (Value::Int(1 << 40), Type::INT4, false),
            (Value::Int(1), Type::TEXT, false),
            (Value::Int(2), Type::BOOL, false),
            (Value::Float(1.0), Type::INT8, false),
            (Value::from("x"), Type::JSON, true),
            (Value::from("x"), Type::INT8, false),
            (Value::Null, Type::INT8, true),
        ] {
            assert_eq!(fits(&value, &ty), exact, "{value} as {ty}");
        }
    }
}
