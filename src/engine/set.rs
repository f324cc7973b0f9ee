//! `SET` and its relatives that take an expiry: `SETNX`, `SETEX`, `PSETEX`, `GETEX`.

use super::Refusal;
use super::dispatch::Run;
use super::need::Need;
use super::string;
use crate::command::{Command, args};
use crate::model::{Reply, Request, UnixMs};

/// When a `SET` takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// `NX`.
    Absent,
    /// `XX`.
    Present,
}

/// What becomes of the expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// None given: `SET` drops it, `GETEX` leaves it.
    Unsaid,
    /// `KEEPTTL`.
    Keep,
    /// `PERSIST`.
    Persist,
    /// `EX`, `PX`, `EXAT`, `PXAT`; `at` is the index of the number.
    Given { unit: Unit, from: From, at: usize },
}

/// The unit of a time argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Milliseconds,
}

/// What a time argument counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Now,
    Epoch,
}

/// The options of one `SET` or `GETEX`.
#[derive(Clone, Copy, Debug)]
struct Options {
    condition: Condition,
    expiry: Expiry,
    /// Whether `GET` asks for the value before.
    returns_old: bool,
}

/// The words for an expiry, and what they mean.
const EXPIRY_WORDS: [(&str, Unit, From); 4] = [
    ("EX", Unit::Seconds, From::Now),
    ("PX", Unit::Milliseconds, From::Now),
    ("EXAT", Unit::Seconds, From::Epoch),
    ("PXAT", Unit::Milliseconds, From::Epoch),
];

impl Options {
    const PLAIN: Self = Self {
        condition: Condition::Always,
        expiry: Expiry::Unsaid,
        returns_old: false,
    };

    /// The options of `SET`, from its argument 3 on.
    fn of_set(request: &Request) -> Result<Self, Refusal> {
        let mut options = Self::PLAIN;
        let mut index = 3;
        while index < request.len() {
            let arg = request.arg(index);
            if args::is_word(arg, "NX") && options.condition != Condition::Present {
                options.condition = Condition::Absent;
            } else if args::is_word(arg, "XX") && options.condition != Condition::Absent {
                options.condition = Condition::Present;
            } else if args::is_word(arg, "GET") {
                options.returns_old = true;
            } else if args::is_word(arg, "KEEPTTL")
                && matches!(options.expiry, Expiry::Unsaid | Expiry::Keep)
            {
                options.expiry = Expiry::Keep;
            } else {
                index = options.take_expiry(request, index)?;
            }
            index += 1;
        }
        Ok(options)
    }

    /// The options of `GETEX`, from its argument 2 on.
    fn of_getex(request: &Request) -> Result<Self, Refusal> {
        let mut options = Self::PLAIN;
        let mut index = 2;
        while index < request.len() {
            if args::is_word(request.arg(index), "PERSIST")
                && matches!(options.expiry, Expiry::Unsaid | Expiry::Persist)
            {
                options.expiry = Expiry::Persist;
            } else {
                index = options.take_expiry(request, index)?;
            }
            index += 1;
        }
        Ok(options)
    }

    /// Takes an expiry word at `index` and its number; the number's index. The
    /// same word may come again, as in Redis: the last number counts.
    fn take_expiry(&mut self, request: &Request, index: usize) -> Result<usize, Refusal> {
        let arg = request.arg(index);
        let (_, unit, from) = EXPIRY_WORDS
            .into_iter()
            .find(|(word, ..)| args::is_word(arg, word))
            .ok_or(Refusal::Syntax)?;
        let agrees = match self.expiry {
            Expiry::Unsaid => true,
            Expiry::Keep | Expiry::Persist => false,
            Expiry::Given {
                unit: unit_before,
                from: from_before,
                ..
            } => (unit, from) == (unit_before, from_before),
        };
        let at = index + 1;
        if !agrees || at == request.len() {
            return Err(Refusal::Syntax);
        }
        self.expiry = Expiry::Given { unit, from, at };
        Ok(at)
    }
}

/// The absolute expiry that argument `at` gives.
fn expiry_of(run: &Run<'_>, unit: Unit, from: From, at: usize) -> Result<UnixMs, Refusal> {
    let invalid = |command: &Command| Refusal::expire_time(command);
    let number = run.integer(at)?;
    if number <= 0 {
        return Err(invalid(run.call.command));
    }
    let scaled = match unit {
        Unit::Seconds => number.checked_mul(1000),
        Unit::Milliseconds => Some(number),
    };
    let absolute = match from {
        From::Now => scaled.and_then(|ms| ms.checked_add(run.now.0)),
        From::Epoch => scaled,
    };
    absolute
        .filter(|ms| *ms > 0)
        .map(UnixMs)
        .ok_or_else(|| invalid(run.call.command))
}

/// What a `SET` must know of its key; `None` if it is blind or malformed.
pub(super) fn need(request: &Request) -> Option<Need> {
    if request.len() == 3 {
        return None;
    }
    let options = Options::of_set(request).ok()?;
    if options.returns_old {
        Some(Need::value())
    } else if options.condition != Condition::Always || options.expiry == Expiry::Keep {
        Some(Need::header())
    } else {
        None
    }
}

pub(super) fn set(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    if run.len() == 3 {
        run.put(key, run.arg_bytes(2), None);
        return Ok(Reply::OK);
    }
    let options = Options::of_set(&run.call.request)?;
    let mut expires_at = match options.expiry {
        Expiry::Given { unit, from, at } => Some(expiry_of(run, unit, from, at)?),
        Expiry::Unsaid | Expiry::Keep | Expiry::Persist => None,
    };
    let old = match options.returns_old {
        true => Some(run.string(&key)?.map_or(Reply::Null, Reply::Bulk)),
        false => None,
    };
    if options.condition != Condition::Always || options.expiry == Expiry::Keep {
        let live = run.live(&key)?;
        let refused = match options.condition {
            Condition::Always => false,
            Condition::Absent => live.is_some(),
            Condition::Present => live.is_none(),
        };
        if refused {
            return Ok(old.unwrap_or(Reply::Null));
        }
        if options.expiry == Expiry::Keep {
            expires_at = live.and_then(|live| live.expires_at);
        }
    }
    run.put(key, run.arg_bytes(2), expires_at);
    Ok(old.unwrap_or(Reply::OK))
}

pub(super) fn setnx(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    if run.live(&key)?.is_some() {
        return Ok(Reply::Integer(0));
    }
    run.put(key, run.arg_bytes(2), None);
    Ok(Reply::Integer(1))
}

/// `SETEX` and `PSETEX`.
pub(super) fn setex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let unit = match run.call.command.name {
        "SETEX" => Unit::Seconds,
        _ => Unit::Milliseconds,
    };
    let expires_at = expiry_of(run, unit, From::Now, 2)?;
    run.put(run.key(1), run.arg_bytes(3), Some(expires_at));
    Ok(Reply::OK)
}

pub(super) fn getex(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let options = Options::of_getex(&run.call.request)?;
    let key = run.key(1);
    let Some((value, before)) = run.string_and_expiry(&key)? else {
        return Ok(Reply::Null);
    };
    // Redis checks the number only when the key is there.
    match options.expiry {
        Expiry::Given { unit, from, at } => {
            let expires_at = expiry_of(run, unit, from, at)?;
            run.workspace.set_expiry(key, Some(expires_at), run.now)?;
        }
        Expiry::Persist if before.is_some() => run.workspace.set_expiry(key, None, run.now)?,
        Expiry::Unsaid | Expiry::Keep | Expiry::Persist => {}
    }
    Ok(string::bulk(value))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;
    use super::*;

    #[test]
    fn conditions_and_old_values() {
        let mut s = Session::default();
        for (line, reply) in [
            ("SET k 1 XX", "nil"),
            ("SET k 1 NX", "OK"),
            ("SET k 2 NX", "nil"),
            ("SET k 2 NX GET", "\"1\""),
            ("SET k 3 XX GET", "\"1\""),
            ("GET k", "\"3\""),
            ("SET new 1 GET", "nil"),
            ("SET other 1 XX GET", "nil"),
            ("EXISTS other", ":0"),
            ("SET k 1 NX XX", "-ERR syntax error"),
            ("SET k 1 EX", "-ERR syntax error"),
            ("SET k 1 EX 1 PX 1", "-ERR syntax error"),
            ("SET k 1 KEEPTTL EX 1", "-ERR syntax error"),
            ("SET k 1 EX 0", "-ERR invalid expire time in 'set' command"),
            (
                "SET k 1 EX x",
                "-ERR value is not an integer or out of range",
            ),
            ("SETNX k 1", ":0"),
            ("SETNX fresh 1", ":1"),
            (
                "SETEX k -1 v",
                "-ERR invalid expire time in 'setex' command",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn expiry_is_absolute() {
        let mut s = Session {
            now: UnixMs(1_000_000),
            ..Session::default()
        };
        for (line, reply) in [
            ("SET k v EX 10", "OK"),
            ("PEXPIRETIME k", ":1010000"),
            ("SET k w KEEPTTL", "OK"),
            ("PTTL k", ":10000"),
            ("SET k v EX 1 EX 2", "OK"),
            ("PTTL k", ":2000"),
            ("GETEX k PERSIST", "\"v\""),
            ("PTTL k", ":-1"),
            ("GETEX k PXAT 1000500", "\"v\""),
            ("PTTL k", ":500"),
            ("GETEX k", "\"v\""),
            ("PTTL k", ":500"),
            ("GETEX k EXAT 1", "\"v\""),
            ("EXISTS k", ":0"),
            ("GETEX k EX x", "nil"),
            ("SET k v PXAT 999", "OK"),
            ("GET k", "nil"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn a_plain_set_is_blind() {
        for (args, expected) in [
            (&["SET", "k", "v"][..], None),
            (&["SET", "k", "v", "EX", "1"], None),
            (&["SET", "k", "v", "NX"], Some(Need::header())),
            (&["SET", "k", "v", "KEEPTTL"], Some(Need::header())),
            (&["SET", "k", "v", "GET"], Some(Need::value())),
            (&["SET", "k", "v", "FOO"], None),
        ] {
            assert_eq!(need(&Request::from_args(args)), expected, "{args:?}");
        }
    }

    #[test]
    fn what_changes_nothing_leaves_no_effect() {
        let mut s = Session::default();
        s.text("SET k v");
        for line in ["SET k w NX", "GETEX k", "GETEX k PERSIST", "SETNX k w"] {
            s.text(line);
            assert!(s.effects.is_empty(), "{line}");
        }
    }
}
