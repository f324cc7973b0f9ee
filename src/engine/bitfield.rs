//! `BITFIELD` and `BITFIELD_RO`: a string as an array of integers of any width.

use super::Refusal;
use super::bits;
use super::dispatch::Run;
use super::string::grown;
use crate::command::args;
use crate::model::Reply;

/// A type such as `u8` or `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    signed: bool,
    /// 1 to 64; 63 for unsigned ones.
    bits: u32,
}

/// What happens to a result that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

/// One of the operations of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Operation {
    action: Action,
    field: Field,
    offset: u64,
    overflow: Overflow,
}

impl Field {
    fn of(arg: &[u8]) -> Result<Self, Refusal> {
        let bad = Refusal::Other(
            "ERR Invalid bitfield type. Use something like i16 u8. \
             Note that u64 is not supported but i64 is.",
        );
        let (signed, bits_max) = match args::c_text(arg).first() {
            Some(b'i') => (true, 64),
            Some(b'u') => (false, 63),
            _ => return Err(bad),
        };
        match args::integer(&args::c_text(arg)[1..]) {
            Some(bits) if (1..=bits_max).contains(&bits) => Ok(Self {
                signed,
                bits: bits as u32,
            }),
            _ => Err(bad),
        }
    }

    /// The offset that `arg` gives: in bits, or `#n` for the n-th field.
    fn offset(self, arg: &[u8]) -> Result<u64, Refusal> {
        let Some(count) = arg.strip_prefix(b"#") else {
            return bits::offset(arg);
        };
        let count = args::integer(count).ok_or(bits::BAD_OFFSET)?;
        let offset = count.checked_mul(i64::from(self.bits));
        bits::check_offset(offset.ok_or(bits::BAD_OFFSET)?)
    }

    fn range(self) -> (i128, i128) {
        if self.signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        }
    }

    /// The field at `offset`; bits behind the end of `value` are 0.
    fn read(self, value: &[u8], offset: u64) -> i128 {
        let mut raw: u128 = 0;
        let last = offset + u64::from(self.bits) - 1;
        for at in offset / 8..=last / 8 {
            raw = raw << 8 | u128::from(value.get(at as usize).copied().unwrap_or(0));
        }
        raw >>= 7 - last % 8;
        self.fitted(raw as i128)
    }

    /// The low bits of `number`, taken as this type.
    fn fitted(self, number: i128) -> i128 {
        let unused = 128 - self.bits;
        if self.signed {
            number << unused >> unused
        } else {
            ((number as u128) << unused >> unused) as i128
        }
    }

    /// Writes the low bits of `number` at `offset`, which is within `value`.
    fn write(self, value: &mut [u8], offset: u64, number: i128) {
        for index in 0..self.bits {
            let at = offset + u64::from(index);
            let mask = 0x80 >> (at % 8);
            let byte = &mut value[(at / 8) as usize];
            if number >> (self.bits - 1 - index) & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
    }

    /// The number that a `SET` of a signed field is taken for: Redis computes
    /// how far it is from the largest one in 64 bits, and so takes numbers near
    /// the smallest of all for too large instead of too small.
    fn as_redis_sets(self, number: i64) -> i128 {
        let (_, max) = self.range();
        let number = i128::from(number);
        let wraps = max - number > i128::from(i64::MAX);
        if wraps && self.bits < 64 {
            number + (1 << 64)
        } else {
            number
        }
    }

    /// What becomes of `number` under `overflow`; `None`: it is not written.
    fn settled(self, number: i128, overflow: Overflow) -> Option<i128> {
        let (min, max) = self.range();
        if (min..=max).contains(&number) {
            return Some(number);
        }
        match overflow {
            Overflow::Wrap => Some(self.fitted(number)),
            Overflow::Saturate => Some(number.clamp(min, max)),
            Overflow::Fail => None,
        }
    }
}

/// All operations of the call, checked.
fn operations(run: &Run<'_>) -> Result<Vec<Operation>, Refusal> {
    let mut operations = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut index = 2;
    while index < run.len() {
        let left = run.len() - index - 1;
        if run.is(index, "OVERFLOW") && left >= 1 {
            overflow = overflow_of(run.arg(index + 1))?;
            index += 2;
            continue;
        }
        let takes = if run.is(index, "GET") {
            2
        } else if run.is(index, "SET") || run.is(index, "INCRBY") {
            3
        } else {
            return Err(Refusal::Syntax);
        };
        if left < takes {
            return Err(Refusal::Syntax);
        }
        let field = Field::of(run.arg(index + 1))?;
        let offset = field.offset(run.arg(index + 2))?;
        let action = if run.is(index, "GET") {
            Action::Get
        } else if run.is(index, "SET") {
            Action::Set(run.integer(index + 3)?)
        } else {
            Action::Add(run.integer(index + 3)?)
        };
        operations.push(Operation {
            action,
            field,
            offset,
            overflow,
        });
        index += takes + 1;
    }
    Ok(operations)
}

fn overflow_of(arg: &[u8]) -> Result<Overflow, Refusal> {
    [
        ("WRAP", Overflow::Wrap),
        ("SAT", Overflow::Saturate),
        ("FAIL", Overflow::Fail),
    ]
    .into_iter()
    .find(|(word, _)| args::is_word(arg, word))
    .map(|(_, overflow)| overflow)
    .ok_or(Refusal::Other("ERR Invalid OVERFLOW type specified"))
}

impl Operation {
    /// The last bit that it writes.
    fn last_written(&self) -> Option<u64> {
        match self.action {
            Action::Get => None,
            Action::Set(_) | Action::Add(_) => Some(self.offset + u64::from(self.field.bits) - 1),
        }
    }

    fn run(&self, value: &mut [u8]) -> Reply {
        let old = self.field.read(value, self.offset);
        let (number, shows_new) = match self.action {
            Action::Get => return Reply::Integer(old as i64),
            // Redis takes the number as unsigned for an unsigned field.
            Action::Set(number) if !self.field.signed => (i128::from(number as u64), false),
            Action::Set(number) => (self.field.as_redis_sets(number), false),
            Action::Add(delta) => (old + i128::from(delta), true),
        };
        let Some(new) = self.field.settled(number, self.overflow) else {
            return Reply::Null;
        };
        self.field.write(value, self.offset, new);
        Reply::Integer(if shows_new { new as i64 } else { old as i64 })
    }
}

/// `BITFIELD` and `BITFIELD_RO`.
pub(super) fn bitfield(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let operations = operations(run)?;
    let last_written = operations.iter().filter_map(Operation::last_written).max();
    if last_written.is_some() && run.call.command.name == "BITFIELD_RO" {
        return Err(Refusal::Other(
            "ERR BITFIELD_RO only supports the GET subcommand",
        ));
    }
    let key = run.key(1);
    let (before, expires_at) = run.string_and_expiry(&key)?.unwrap_or_default();
    let Some(last_written) = last_written else {
        let replies = operations.iter().map(|operation| {
            let value = operation.field.read(&before, operation.offset);
            Reply::Integer(value as i64)
        });
        return Ok(Reply::Array(replies.collect()));
    };
    // Redis makes room for all operations first, also for those that then fail.
    let mut value = grown(&before, (last_written / 8) as usize + 1);
    let replies = operations.iter().map(|op| op.run(&mut value)).collect();
    if value != before {
        run.put(key, value, expires_at);
    }
    Ok(Reply::Array(replies))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn operations_and_overflow() {
        let mut s = Session::default();
        for (line, reply) in [
            ("BITFIELD k INCRBY i5 100 1 GET u4 0", "[:1 :0]"),
            ("BITFIELD k SET i8 #0 -1 GET u8 0", "[:0 :255]"),
            ("DEL k", ":1"),
            (
                "BITFIELD k INCRBY u2 100 1 OVERFLOW SAT INCRBY u2 102 1",
                "[:1 :1]",
            ),
            (
                "BITFIELD k INCRBY u2 100 1 OVERFLOW SAT INCRBY u2 102 1",
                "[:2 :2]",
            ),
            (
                "BITFIELD k INCRBY u2 100 1 OVERFLOW SAT INCRBY u2 102 1",
                "[:3 :3]",
            ),
            (
                "BITFIELD k INCRBY u2 100 1 OVERFLOW SAT INCRBY u2 102 1",
                "[:0 :3]",
            ),
            ("BITFIELD k OVERFLOW FAIL INCRBY u2 102 1", "[nil]"),
            (
                "BITFIELD k OVERFLOW SAT SET i8 0 -9223372036854775808 GET i8 0",
                "[:0 :127]",
            ),
            ("BITFIELD k SET u8 0 -1", "[:127]"),
            (
                "BITFIELD k INCRBY i64 0 9223372036854775807",
                "[:9151314442816847871]",
            ),
            ("BITFIELD_RO k GET i64 0", "[:9151314442816847871]"),
            (
                "BITFIELD_RO k SET u8 0 1",
                "-ERR BITFIELD_RO only supports the GET subcommand",
            ),
            (
                "BITFIELD k GET u64 0",
                "-ERR Invalid bitfield type. Use something like i16 u8. \
                 Note that u64 is not supported but i64 is.",
            ),
            (
                "BITFIELD k OVERFLOW x",
                "-ERR Invalid OVERFLOW type specified",
            ),
            ("BITFIELD k SET u8 0", "-ERR syntax error"),
            ("BITFIELD k", "[]"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }
}
