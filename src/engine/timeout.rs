//! How long a blocking command waits, in Redis's reading of the argument.

use std::time::Duration;

use super::{Refusal, float};
use crate::command::{Call, args, flags};
use crate::model::{Db, Key};

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Until there is something.
    Never,
    /// So long at most.
    After(Duration),
}

impl Timeout {
    /// Seconds, with a fraction perhaps; what is below a millisecond is rounded up.
    pub fn parse(arg: &[u8]) -> Result<Self, Refusal> {
        let seconds = float::parse(arg)
            .ok_or(Refusal::Other("ERR timeout is not a float or out of range"))?;
        let millis = seconds.ceil_of_thousandfold();
        Self::of_millis(millis)
    }

    /// Milliseconds, as `XREAD BLOCK` takes them.
    pub fn parse_millis(arg: &[u8]) -> Result<Self, Refusal> {
        let millis = args::integer(arg).ok_or(Refusal::Other(
            "ERR timeout is not an integer or out of range",
        ))?;
        Self::of_millis(millis)
    }

    fn of_millis(millis: i64) -> Result<Self, Refusal> {
        match u64::try_from(millis) {
            Ok(0) => Ok(Self::Never),
            Ok(millis) => Ok(Self::After(Duration::from_millis(millis))),
            Err(_) => Err(Refusal::Other("ERR timeout is negative")),
        }
    }
}

/// How long `call` waits if there is nothing for it: what its arguments say, or why
/// they are refused. `None` if it does not wait at all.
pub fn waits(call: &Call) -> Option<Result<Timeout, Refusal>> {
    if !call.command.flags.has(flags::BLOCKING) {
        return None;
    }
    let request = &call.request;
    match call.command.name {
        "BLMPOP" | "BZMPOP" => Some(Timeout::parse(request.arg(1))),
        "XREAD" | "XREADGROUP" => {
            let block = (1..request.len())
                .take_while(|index| !args::is_word(request.arg(*index), "STREAMS"))
                .find(|index| args::is_word(request.arg(*index), "BLOCK"))?;
            (block + 1 < request.len()).then(|| Timeout::parse_millis(request.arg(block + 1)))
        }
        _ => Some(Timeout::parse(request.arg(request.len() - 1))),
    }
}

/// The keys in `db` that `call`, which waits, waits for.
pub fn waited_keys(call: &Call, db: Db) -> Vec<Key> {
    let request = &call.request;
    match call.command.name {
        // The destination is only written to.
        "BLMOVE" | "BRPOPLPUSH" => vec![Key::new(db, request.arg_bytes(1))],
        "XREAD" | "XREADGROUP" => {
            let streams =
                (1..request.len()).find(|index| args::is_word(request.arg(*index), "STREAMS"));
            let first = streams.map_or(request.len(), |index| index + 1);
            let count = (request.len() - first) / 2;
            (first..first + count)
                .map(|index| Key::new(db, request.arg_bytes(index)))
                .collect()
        }
        _ => call.keys(db).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;
    use crate::model::Request;

    fn call(line: &str) -> Call {
        let words: Vec<&str> = line.split(' ').collect();
        resolve(Request::from_args(&words)).unwrap()
    }

    #[test]
    fn calls_tell_how_long_they_wait_and_for_what() {
        let after = |millis| Some(Ok(Timeout::After(Duration::from_millis(millis))));
        let negative = Some(Err(Refusal::Other("ERR timeout is negative")));
        for (line, expected, keys) in [
            ("BLPOP a b 0", Some(Ok(Timeout::Never)), "a b"),
            ("BRPOP a 0.0015", after(2), "a"),
            ("BLMOVE a b LEFT RIGHT 1", after(1000), "a"),
            ("BRPOPLPUSH a b -1", negative, "a"),
            ("BLMPOP 2 2 a b LEFT", after(2000), "a b"),
            ("LPOP a", None, "a"),
        ] {
            let call = call(line);
            assert_eq!(waits(&call), expected, "{line}");
            let names: Vec<Key> = keys
                .split(' ')
                .map(|name| Key::new(Db::default(), name.to_owned()))
                .collect();
            assert_eq!(waited_keys(&call, Db::default()), names, "{line}");
        }
    }
}
