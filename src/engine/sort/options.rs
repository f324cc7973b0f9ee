//! The options of `SORT`.

use bytes::Bytes;

use super::super::Refusal;
use super::pattern::{Pattern, has_place};
use crate::command::{Call, args};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// Numbers.
    Numbers,
    /// `ALPHA`: bytes.
    Texts,
}

/// By what the elements are sorted.
#[derive(Clone, Debug)]
pub(super) enum By {
    /// By themselves.
    Itself,
    /// By what a key says that the element names.
    Weight(Pattern),
    /// A `BY` without a place for the element: not at all.
    Nothing,
}

/// All options.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub direction: Direction,
    pub compared: Compared,
    pub by: By,
    /// What stands for each element in the reply; itself if empty.
    pub get: Vec<Pattern>,
    pub limit: Option<(i64, i64)>,
    /// The index of the key that takes the result.
    pub store: Option<usize>,
}

impl Options {
    pub fn of(call: &Call) -> Result<Self, Refusal> {
        let request = &call.request;
        let mut options = Self {
            direction: Direction::Ascending,
            compared: Compared::Numbers,
            by: By::Itself,
            get: Vec::new(),
            limit: None,
            store: None,
        };
        let may_store = call.command.name == "SORT";
        let mut index = 2;
        while index < request.len() {
            let is = |word| args::is_word(request.arg(index), word);
            let left = request.len() - index - 1;
            index += if is("ASC") {
                options.direction = Direction::Ascending;
                1
            } else if is("DESC") {
                options.direction = Direction::Descending;
                1
            } else if is("ALPHA") {
                options.compared = Compared::Texts;
                1
            } else if is("LIMIT") && left >= 2 {
                let number = |index| args::integer(request.arg(index)).ok_or(Refusal::NotInteger);
                options.limit = Some((number(index + 1)?, number(index + 2)?));
                3
            } else if is("STORE") && may_store && left >= 1 {
                options.store = Some(index + 1);
                2
            } else if is("BY") && left >= 1 {
                options.by = by(request.arg_bytes(index + 1));
                2
            } else if is("GET") && left >= 1 {
                options.get.push(Pattern::new(request.arg_bytes(index + 1)));
                2
            } else {
                return Err(Refusal::Syntax);
            };
        }
        Ok(options)
    }

    /// Whether a pattern names keys beside the one that is sorted.
    pub fn read_other_keys(&self) -> bool {
        matches!(self.by, By::Weight(_)) || self.get.iter().any(Pattern::names_keys)
    }

    /// The part of `count` sorted elements that is asked for.
    pub fn part(&self, count: usize) -> std::ops::Range<usize> {
        let Some((start, wanted)) = self.limit else {
            return 0..count;
        };
        let start = usize::try_from(start.max(0)).map_or(count, |start| start.min(count));
        // A negative number means all.
        let end = usize::try_from(wanted).map_or(count, |wanted| start.saturating_add(wanted));
        start..end.min(count)
    }
}

fn by(pattern: Bytes) -> By {
    if has_place(&pattern) {
        By::Weight(Pattern::new(pattern))
    } else {
        By::Nothing
    }
}
