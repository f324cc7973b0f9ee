//! Operations for histories that are written by hand.

use crate::torture::history::{Ask, NEVER, Operation, Time, Token, Told};

/// An operation between two times.
pub fn operation(sent: Time, over: Time, ask: Ask, told: Told) -> Operation {
    Operation {
        client: 0,
        proxy: 0,
        object: 0,
        ask,
        sent,
        over,
        answered: over,
        told,
    }
}

/// The same, with an outcome that nobody knows.
pub fn unknown(mut operation: Operation) -> Operation {
    operation.over = NEVER;
    operation.told = Told::Unknown("lost".into());
    operation
}

/// The same, refused.
pub fn refused(mut operation: Operation) -> Operation {
    operation.told = Told::Refused("no".into());
    operation
}

pub fn write(sent: Time, over: Time, token: Token) -> Operation {
    operation(sent, over, Ask::Write(token), Told::Done)
}

pub fn read(sent: Time, over: Time, token: Option<Token>) -> Operation {
    operation(sent, over, Ask::Read, Told::Value(token))
}

pub fn increment(sent: Time, over: Time, count: u64) -> Operation {
    operation(sent, over, Ask::Increment, Told::Count(count))
}

pub fn read_count(sent: Time, over: Time, count: u64) -> Operation {
    operation(sent, over, Ask::Read, Told::Count(count))
}

pub fn push(sent: Time, over: Time, item: Token, length: u64) -> Operation {
    operation(sent, over, Ask::Push(item), Told::Count(length))
}

pub fn length(sent: Time, over: Time, length: u64) -> Operation {
    operation(sent, over, Ask::Length, Told::Count(length))
}

pub fn items(sent: Time, over: Time, items: &[Token]) -> Operation {
    operation(sent, over, Ask::Read, Told::Items(items.to_vec()))
}
