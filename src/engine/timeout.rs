//! How long a blocking command waits, in Redis's reading of the argument.

use std::time::Duration;

use super::{Refusal, float};

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
        let millis = crate::command::args::integer(arg).ok_or(Refusal::Other(
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
