//! `MAXLEN` and `MINID`: which entries go.
//!
//! A trim always takes the first entries. With `~` it takes whole blocks, as
//! Redis does. Where a stream is long and only its first entries are loaded,
//! a block that has to go goes in steps, a few entries with each `XADD`: that
//! keeps what `~` promises (never fewer entries than asked for, some tens more
//! at most once the stream is short), and each `XADD` costs little.
//!
//! Of a stream out of which `XDEL` took entries, Redis's blocks may be others: it fills up
//! the block before one whose entries are all deleted, and a block reaches as far as its
//! last entry, deleted or not. `~` promises nothing of that, and it is not followed.

use bytes::Bytes;

use super::entry::{self, BLOCK_ENTRIES_MAX};
use super::id::Id;
use super::state::{Header, next_entry};
use crate::model::{Collection, Element, NotLoaded, STREAM_ENTRY};

/// A stream with at most so many entries is loaded whole for an exact answer to `~`.
const SHORT: u64 = 128;

/// What a trim leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// At most so many entries.
    Newest(u64),
    /// Those from this id on.
    From(Id),
}

/// How closely a trim has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exactness {
    /// `=`.
    Exact,
    /// `~`: whole blocks, and at most so many entries (0: no limit).
    Blocks { limit: u64 },
}

/// A trim that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trim {
    pub keep: Keep,
    pub exactness: Exactness,
}

/// How many of the first entries an `XADD` with `trim` loads: those that go
/// when the stream was trimmed before, and one to see where to stop.
pub(super) fn entries_to_load(trim: &Trim) -> u64 {
    match (trim.keep, trim.exactness) {
        (Keep::Newest(_), Exactness::Exact) => 1,
        _ => 2,
    }
}

/// How many of the first entries of a stream of `length` decide what goes: those that may go, as
/// far as their number tells, and one to see where a block ends.
pub(super) fn entries_that_may_go(trim: &Trim, length: u64) -> u64 {
    let may_go = match trim.keep {
        Keep::Newest(count) => length.saturating_sub(count),
        // Their ids tell.
        Keep::From(_) => return 0,
    };
    match trim.exactness {
        _ if may_go == 0 => 0,
        Exactness::Exact => may_go,
        Exactness::Blocks { limit: 0 } => may_go.saturating_add(1).min(length),
        Exactness::Blocks { limit } => may_go.min(limit).saturating_add(1).min(length),
    }
}

/// The entries that go, in order.
///
/// `stream` has the header `header`, in which the entry `new` is already
/// counted, if there is one: it is the last, and may go too.
pub(super) fn plan(
    trim: &Trim,
    stream: &Collection,
    header: &Header,
    new: Option<(Id, &Element)>,
) -> Result<Vec<Id>, NotLoaded> {
    let length = stream.len() + u64::from(new.is_some());
    if matches!(trim.keep, Keep::Newest(count) if length <= count) {
        return Ok(Vec::new());
    }
    let walk = Walk {
        stream,
        at: Bytes::from_static(&[STREAM_ENTRY]),
        left: stream.len(),
        new,
    };
    match trim.exactness {
        Exactness::Exact => exact(trim.keep, length, walk),
        Exactness::Blocks { limit } => Blocks {
            keep: trim.keep,
            limit: if limit == 0 { u64::MAX } else { limit },
            length,
            gone: Vec::new(),
        }
        .plan(walk, header),
    }
}

fn exact(keep: Keep, length: u64, mut walk: Walk<'_>) -> Result<Vec<Id>, NotLoaded> {
    let mut gone = Vec::new();
    loop {
        if matches!(keep, Keep::Newest(count) if length - gone.len() as u64 <= count) {
            return Ok(gone);
        }
        match walk.next()? {
            Some((id, _)) if matches!(keep, Keep::From(first) if id >= first) => return Ok(gone),
            Some((id, _)) => gone.push(id),
            None => return Ok(gone),
        }
    }
}

/// A trim by blocks in the course of being planned.
struct Blocks {
    keep: Keep,
    limit: u64,
    length: u64,
    gone: Vec<Id>,
}

impl Blocks {
    fn plan(mut self, mut walk: Walk<'_>, header: &Header) -> Result<Vec<Id>, NotLoaded> {
        // The usual case is told by the header alone: there is only one block,
        // and not all of it is to go.
        let is_one_block = u64::from(header.block.live) == self.length;
        if is_one_block && matches!(self.keep, Keep::Newest(count) if count > 0) {
            return Ok(self.gone);
        }
        let mut block: Vec<Id> = Vec::new();
        let mut first_of_block = None;
        loop {
            let next = match walk.next() {
                Ok(next) => next,
                Err(NotLoaded) if self.length > SHORT => return Ok(self.in_steps(block)),
                Err(NotLoaded) => return Err(NotLoaded),
            };
            let began = next.map(|(id, element)| entry::block_of(id, element));
            if began != first_of_block {
                self.gone.append(&mut block);
                first_of_block = began;
            }
            match next {
                Some((id, _)) => block.push(id),
                None => return Ok(self.gone),
            }
            if !self.may_go(&block) {
                return Ok(self.gone);
            }
        }
    }

    /// Whether a block that has these entries, and perhaps more, may go.
    fn may_go(&self, block: &[Id]) -> bool {
        let taken = (self.gone.len() + block.len()) as u64;
        taken <= self.limit
            && match self.keep {
                Keep::Newest(keep) => self.length - taken >= keep,
                Keep::From(first) => block.last().is_none_or(|last| *last < first),
            }
    }

    /// What is known of a block whose end is not: of that, what has to go in any case.
    fn in_steps(mut self, block: Vec<Id>) -> Vec<Id> {
        for id in block {
            let taken = self.gone.len() as u64;
            let has_to_go = match self.keep {
                Keep::Newest(keep) => self.length - taken >= keep.saturating_add(BLOCK_ENTRIES_MAX),
                Keep::From(first) => id < first,
            };
            if !has_to_go || taken >= self.limit {
                break;
            }
            self.gone.push(id);
        }
        self.gone
    }
}

/// The entries one by one, as far as they are known; `new` is behind the last.
struct Walk<'a> {
    stream: &'a Collection,
    at: Bytes,
    left: u64,
    new: Option<(Id, &'a Element)>,
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Result<Option<(Id, &'a Element)>, NotLoaded> {
        if self.left == 0 {
            return Ok(self.new.take());
        }
        let next = next_entry(self.stream, &self.at)?;
        if let Some((id, _)) = next {
            self.at = id.field();
            self.left -= 1;
        }
        Ok(next)
    }
}
