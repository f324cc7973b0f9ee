//! Expiry: the `EXPIRE` family, the `TTL` family, `PERSIST`.

use super::Refusal;
use super::dispatch::Run;
use crate::model::{Reply, UnixMs};

/// The options of the `EXPIRE` family, any of which may come several times.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions(u8);

impl Conditions {
    const ABSENT: u8 = 1;
    const PRESENT: u8 = 2;
    const LATER: u8 = 4;
    const EARLIER: u8 = 8;

    /// Reads them from argument 3 on.
    fn of(run: &Run<'_>) -> Result<Self, Refusal> {
        let mut conditions = Self::default();
        for index in 3..run.len() {
            let words = [
                ("NX", Self::ABSENT),
                ("XX", Self::PRESENT),
                ("GT", Self::LATER),
                ("LT", Self::EARLIER),
            ];
            let found = words.into_iter().find(|(word, _)| run.is(index, word));
            let (_, bit) = found.ok_or_else(|| Refusal::unsupported_option(run.arg(index)))?;
            conditions.0 |= bit;
        }
        conditions.check()?;
        Ok(conditions)
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn check(self) -> Result<(), Refusal> {
        if self.has(Self::ABSENT) && self.0 != Self::ABSENT {
            return Err(Refusal::Other(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if self.has(Self::LATER) && self.has(Self::EARLIER) {
            return Err(Refusal::Other(
                "ERR GT and LT options at the same time are not compatible",
            ));
        }
        Ok(())
    }

    /// Whether a key that ends at `before` may now end at `after`; a key
    /// without an end counts as ending after all others.
    fn allow(self, before: Option<UnixMs>, after: UnixMs) -> bool {
        let absent = !self.has(Self::ABSENT) || before.is_none();
        let present = !self.has(Self::PRESENT) || before.is_some();
        let later = !self.has(Self::LATER) || before.is_some_and(|end| after > end);
        let earlier = !self.has(Self::EARLIER) || before.is_none_or(|end| after < end);
        absent && present && later && earlier
    }
}

/// `EXPIRE`, `PEXPIRE`, `EXPIREAT`, `PEXPIREAT`.
pub(super) fn expire(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let conditions = Conditions::of(run)?;
    let end = end_given(run)?;
    let key = run.key(1);
    let Some(live) = run.live(&key)? else {
        return Ok(Reply::Integer(0));
    };
    if !conditions.allow(live.expires_at, end) {
        return Ok(Reply::Integer(0));
    }
    run.workspace.set_expiry(key, Some(end), run.now)?;
    Ok(Reply::Integer(1))
}

/// The absolute end that argument 2 gives; it may lie in the past.
fn end_given(run: &Run<'_>) -> Result<UnixMs, Refusal> {
    let name = run.call.command.name;
    let number = run.integer(2)?;
    let scaled = if name.starts_with('P') {
        Some(number)
    } else {
        number.checked_mul(1000)
    };
    let base = if name.ends_with("AT") { 0 } else { run.now.0 };
    scaled
        .and_then(|ms| ms.checked_add(base))
        .map(UnixMs)
        .ok_or_else(|| Refusal::expire_time(run.call.command))
}

/// `TTL`, `PTTL`, `EXPIRETIME`, `PEXPIRETIME`.
pub(super) fn ttl(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let Some(live) = run.live(&run.key(1))? else {
        return Ok(Reply::Integer(-2));
    };
    let Some(UnixMs(end)) = live.expires_at else {
        return Ok(Reply::Integer(-1));
    };
    let left = end.saturating_sub(run.now.0);
    Ok(Reply::Integer(match run.call.command.name {
        "TTL" => seconds(left),
        "PTTL" => left,
        "EXPIRETIME" => seconds(end),
        _ => end,
    }))
}

/// Rounded to the nearest second, as Redis does.
fn seconds(ms: i64) -> i64 {
    ms / 1000 + i64::from(ms % 1000 >= 500)
}

pub(super) fn persist(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let key = run.key(1);
    let has_end = run
        .live(&key)?
        .is_some_and(|live| live.expires_at.is_some());
    if has_end {
        run.workspace.set_expiry(key, None, run.now)?;
    }
    Ok(Reply::Integer(i64::from(has_end)))
}

/// The proxy's own command for a key whose end has passed.
pub(super) fn expired(run: &mut Run<'_>) -> Reply {
    let key = run.key(1);
    let is_done = run.workspace.end_if_passed(&key);
    Reply::Integer(i64::from(is_done))
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;
    use super::*;
    use crate::model::Effect;

    #[test]
    fn conditions_compare_ends() {
        let mut s = Session {
            now: UnixMs(1_000_000),
            ..Session::default()
        };
        for (line, reply) in [
            ("EXPIRE none 10", ":0"),
            ("SET k v", "OK"),
            ("EXPIRE k 10 XX", ":0"),
            ("EXPIRE k 10 GT", ":0"),
            ("EXPIRE k 10 NX", ":1"),
            ("EXPIRE k 10 NX", ":0"),
            ("EXPIRE k 5 GT", ":0"),
            ("EXPIRE k 20 XX GT", ":1"),
            ("EXPIRE k 30 LT", ":0"),
            ("PEXPIRE k 1499 LT", ":1"),
            ("TTL k", ":1"),
            ("PTTL k", ":1499"),
            ("EXPIRETIME k", ":1001"),
            ("PEXPIRETIME k", ":1001499"),
            ("PERSIST k", ":1"),
            ("PERSIST k", ":0"),
            ("TTL k", ":-1"),
            ("EXPIRE k 1 FOO", "-ERR Unsupported option FOO"),
            (
                "EXPIRE k 1 NX XX",
                "-ERR NX and XX, GT or LT options at the same time are not compatible",
            ),
            (
                "EXPIRE k 1 GT LT",
                "-ERR GT and LT options at the same time are not compatible",
            ),
            (
                "EXPIRE k 9223372036854775807",
                "-ERR invalid expire time in 'expire' command",
            ),
            ("EXPIREAT k -1", ":1"),
            ("TTL k", ":-2"),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn a_header_is_enough() {
        let mut s = Session::default();
        s.text("SET k v");
        s.text("PEXPIRE k 5");
        let effects: Vec<&Effect> = s.effects.values().collect();
        assert_eq!(effects, [&Effect::Expiry(Some(UnixMs(5)))]);
        s.text("PEXPIRE k -5");
        let effects: Vec<&Effect> = s.effects.values().collect();
        assert_eq!(effects, [&Effect::Delete]);
    }
}
