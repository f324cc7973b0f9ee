//! Whether two replies to the same command are the same.

use crate::support::Value;

/// How far two clocks' readings of one moment may lie apart.
const TOLERANCE_MS: i64 = 5_000;

/// How the replies to a command are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Byte for byte.
    Exact,
    /// As arrays whose order means nothing.
    AnyOrder,
    /// As numbers of this many milliseconds each, with a tolerance; small ones exactly.
    Time(i64),
    /// Both of the same form: the content depends on history or on chance.
    Form,
}

/// The rule for a command.
pub fn rule(arguments: &[Vec<u8>]) -> Comparison {
    let upper = |index: usize| arguments.get(index).map(|word| word.to_ascii_uppercase());
    match upper(0).as_deref() {
        Some(b"KEYS") => Comparison::AnyOrder,
        Some(b"TTL" | b"EXPIRETIME") => Comparison::Time(1000),
        Some(b"PTTL" | b"PEXPIRETIME") => Comparison::Time(1),
        Some(b"RANDOMKEY" | b"MEMORY") => Comparison::Form,
        Some(b"OBJECT") => match upper(1).as_deref() {
            Some(b"ENCODING" | b"REFCOUNT" | b"IDLETIME") => Comparison::Form,
            _ => Comparison::Exact,
        },
        _ => Comparison::Exact,
    }
}

impl Comparison {
    /// Whether the replies agree, as values and bytes.
    pub fn agrees(self, ours: (&Value, &[u8]), theirs: (&Value, &[u8])) -> bool {
        if ours.1 == theirs.1 {
            return true;
        }
        match self {
            Self::Exact => false,
            Self::AnyOrder => {
                ours.1.first() == theirs.1.first() && sorted(ours.0) == sorted(theirs.0)
            }
            Self::Time(unit) => match (ours.0, theirs.0) {
                (Value::Integer(a), Value::Integer(b)) if *a > 0 && *b > 0 => {
                    (a - b).abs().saturating_mul(unit) <= TOLERANCE_MS
                }
                _ => false,
            },
            Self::Form => same_form(ours, theirs),
        }
    }
}

fn sorted(value: &Value) -> Option<Vec<Option<String>>> {
    if !matches!(value, Value::Array(_)) {
        return None;
    }
    let mut items: Vec<Option<String>> = value.items().iter().map(Value::text).collect();
    items.sort();
    Some(items)
}

fn same_form(ours: (&Value, &[u8]), theirs: (&Value, &[u8])) -> bool {
    ours.1.first() == theirs.1.first()
        && (ours.0 == &Value::Null) == (theirs.0 == &Value::Null)
        && ours.0.error().is_none()
}
