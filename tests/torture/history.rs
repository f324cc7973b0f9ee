//! What clients asked, when, and what they were told.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::objects::ObjectId;

/// Nanoseconds since the run began, by the machine's monotonic clock.
pub type Time = u64;

/// When an operation that nobody heard of again is over.
pub const NEVER: Time = Time::MAX;

/// A value that is written once in a run.
pub type Token = u64;

/// What was asked of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Set it, whatever was there.
    Write(Token),
    /// The same, for so many milliseconds.
    WriteFor(Token, u64),
    /// Set it if it is absent.
    WriteNew(Token),
    /// Set it and tell what was there.
    Swap(Token),
    /// What is there?
    Read,
    /// Delete it.
    Delete,
    /// Delete it and tell what was there.
    Take,
    /// Add one to a counter.
    Increment,
    /// Append an item to a list.
    Push(Token),
    /// How many items are in the list?
    Length,
    /// Move so much from one account to another.
    Transfer(usize, usize, i64),
}

/// What the client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Done,
    /// This value is, or was, there.
    Value(Option<Token>),
    /// A counter's value, a list's length, a number of keys.
    Count(u64),
    /// All items of a list.
    Items(Vec<Token>),
    /// The number of transfers so far, and the balances that were told: all of them to a
    /// reader, those of both accounts to who transferred.
    Balances(u64, Vec<i64>),
    /// What can never be an answer.
    Nonsense(String),
    /// It has not happened and never will.
    Refused(String),
    /// Anything may have become of it.
    Unknown(String),
}

/// One operation of one client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client's number.
    pub client: u32,
    /// The proxy's number, from 0.
    pub proxy: usize,
    /// On what.
    pub object: ObjectId,
    /// What was asked.
    pub ask: Ask,
    /// Just before it was sent.
    pub sent: Time,
    /// Just after the answer had come; [`NEVER`] if the outcome is unknown.
    pub over: Time,
    /// When the client gave up or was answered.
    pub answered: Time,
    /// The answer.
    pub told: Told,
}

impl Operation {
    /// Whether it may or may not have happened.
    pub fn is_unknown(&self) -> bool {
        matches!(self.told, Told::Unknown(_))
    }

    /// Whether it was refused.
    pub fn is_refused(&self) -> bool {
        matches!(self.told, Told::Refused(_))
    }

    /// Whether it was to change something.
    pub fn is_write(&self) -> bool {
        !matches!(self.ask, Ask::Read | Ask::Length)
    }

    /// As one line of JSON; times in microseconds.
    pub fn json(&self, object: &str) -> String {
        let mut line = String::new();
        // Writing to a string does not fail.
        let _ = write!(
            line,
            "{{\"client\":{},\"proxy\":{},\"object\":{},\"ask\":{},\"sent_us\":{},\"answered_us\":{},\"told\":{}}}",
            self.client,
            self.proxy,
            quoted(object),
            quoted(&format!("{:?}", self.ask)),
            self.sent / 1000,
            self.answered / 1000,
            quoted(&format!("{:?}", self.told)),
        );
        line
    }
}

/// A text as JSON writes it.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The clock of a run, and all that was recorded.
pub struct Recorder {
    start: Instant,
    operations: Mutex<Vec<Operation>>,
}

impl Recorder {
    /// With the clock that began at `start`.
    pub fn new(start: Instant) -> Self {
        Self {
            start,
            operations: Mutex::new(Vec::new()),
        }
    }

    /// The time.
    pub fn now(&self) -> Time {
        since(self.start)
    }

    /// Adds what one client did.
    pub fn add(&self, operations: Vec<Operation>) {
        let mut all = self
            .operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.extend(operations);
    }

    /// Everything, in the order in which it was sent.
    pub fn finish(self) -> Vec<Operation> {
        let mut all = self
            .operations
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        all.sort_by_key(|operation| operation.sent);
        all
    }
}

/// Nanoseconds since `start`.
pub fn since(start: Instant) -> Time {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(NEVER - 1)
}
