//! The values of constants, read from the source: numbers, ranges and durations.
//!
//! Computes only what stands in one expression. The invariant: what it cannot compute it leaves out, it never guesses.

use std::ops::RangeInclusive;

use syn::{BinOp, Expr, Item, Lit, RangeLimits};

/// A constant's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number without a unit, or with the unit in its name.
    Number(u64),
    /// From, to and including.
    Range(RangeInclusive<u64>),
    /// A duration, milliseconds.
    Millis(u64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Range(range) => write!(f, "{} to {}", range.start(), range.end()),
            Self::Millis(ms) => f.write_str(&in_words(*ms)),
        }
    }
}

/// A duration as documents write it: `250 ms`, `5 s`, `24 h`.
fn in_words(ms: u64) -> String {
    match ms {
        ms if ms > 0 && ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        ms if ms > 0 && ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// The constants of a Rust file that can be computed, by name. Numbers named `…_MS` and `…_US` are
/// durations.
pub fn constants(text: &str) -> Vec<(String, Value)> {
    let Ok(file) = syn::parse_file(text) else { return Vec::new() };
    let each = file.items.iter().filter_map(|item| match item {
        Item::Const(item) => Some((item.ident.to_string(), evaluate(&item.expr)?)),
        _ => None,
    });
    each.map(|(name, value)| match value {
        Value::Number(ms) if name.ends_with("_MS") => (name, Value::Millis(ms)),
        Value::Number(us) if name.ends_with("_US") => (name, Value::Millis(us / 1000)),
        value => (name, value),
    })
    .collect()
}

fn evaluate(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::Range(range) if matches!(range.limits, RangeLimits::Closed(_)) => {
            Some(Value::Range(number(range.start.as_deref()?)?..=number(range.end.as_deref()?)?))
        }
        Expr::Call(call) => {
            let Expr::Path(function) = call.func.as_ref() else { return None };
            let unit_ms = match function.path.segments.last()?.ident.to_string().as_str() {
                "from_millis" => 1,
                "from_secs" => 1000,
                "from_mins" => 60_000,
                "from_hours" => 3_600_000,
                _ => return None,
            };
            Some(Value::Millis(number(call.args.first()?)?.checked_mul(unit_ms)?))
        }
        other => number(other).map(Value::Number),
    }
}

fn number(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(int) => int.base10_parse().ok(),
            _ => None,
        },
        Expr::Paren(inner) => number(&inner.expr),
        Expr::Binary(binary) => {
            let (left, right) = (number(&binary.left)?, number(&binary.right)?);
            match binary.op {
                BinOp::Mul(_) => left.checked_mul(right),
                BinOp::Add(_) => left.checked_add(right),
                BinOp::Shl(_) => left.checked_shl(u32::try_from(right).ok()?),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(expr: &str) -> Option<String> {
        let found = constants(&format!("pub const IT: X = {expr};"));
        found.first().map(|(_, value)| value.to_string())
    }

    #[test]
    fn numbers_ranges_and_durations_are_computed() {
        assert_eq!(value("16 * 1024").as_deref(), Some("16384"));
        assert_eq!(value("1 << (2 + 1)").as_deref(), Some("8"));
        assert_eq!(value("8..=256").as_deref(), Some("8 to 256"));
        assert_eq!(value("Duration::from_secs(5)").as_deref(), Some("5 s"));
        assert_eq!(value("Duration::from_hours(24)").as_deref(), Some("24 h"));
        assert_eq!(constants("const A_MS: u64 = 250;"), [("A_MS".to_owned(), Value::Millis(250))]);
        assert_eq!(constants("const A_US: u64 = 250_000;"), [("A_US".to_owned(), Value::Millis(250))]);
    }

    #[test]
    fn what_cannot_be_computed_is_left_out() {
        for expr in ["OTHER / 2", "f(3)", "\"text\"", "1.5", "1 / 0", "0..3"] {
            assert_eq!(value(expr), None, "{expr}");
        }
    }
}
