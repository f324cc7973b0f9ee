//! `COMMAND GETKEYS` and `COMMAND GETKEYSANDFLAGS`: the keys of any Redis
//! command, from the key specifications that Redis publishes
//! (<https://redis.io/docs/latest/develop/reference/key-specs/>), and for the
//! few commands that these cannot describe, from rules of their own.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::docs::{Description, describe, field, items, place};
use super::{Call, ONCE, args, lookup, once};
use crate::model::{Reply, Request};

/// A key: its index among the arguments, and what the command does to it.
struct Found {
    index: usize,
    flags: Reply,
}

/// The reply to `COMMAND GETKEYS`.
pub(super) fn keys(request: &Request) -> Reply {
    let named = Named::asked(request);
    named.found().map_or_else(Reply::error, |found| {
        let keys = found.iter().map(|key| Reply::Bulk(named.bytes(key.index)));
        Reply::Array(keys.collect())
    })
}

/// The reply to `COMMAND GETKEYSANDFLAGS`.
pub(super) fn keys_and_flags(request: &Request) -> Reply {
    let named = Named::asked(request);
    named.found().map_or_else(Reply::error, |found| {
        let keys = found.into_iter().map(|key| {
            let name = Reply::Bulk(named.bytes(key.index));
            Reply::Array(vec![name, key.flags])
        });
        Reply::Array(keys.collect())
    })
}

/// What is done to a key, as access rules tell it apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u8);

impl Access {
    /// Neither.
    pub const NONE: Self = Self(0);
    /// Its content is read, and told or copied.
    pub const READ: Self = Self(1);
    /// Its content is changed.
    pub const WRITE: Self = Self(2);
    /// Both.
    pub const BOTH: Self = Self(3);

    /// Both of them together.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in it.
    pub fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What stands before a pattern in a rule.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::READ => "%R~",
            Self::WRITE => "%W~",
            _ => "~",
        }
    }
}

/// The keys of any call by their argument's index, and what is done to each. None where
/// the arguments are such that the call will be refused.
pub fn accessed(call: &Call) -> Vec<(usize, Access)> {
    let named = Named {
        request: &call.request,
        skipped: 0,
    };
    let access = |found: Found| {
        let does = |flag: &str| has_flag(&found.flags, flag);
        let mut access = Access::NONE;
        if does("access") {
            access = access.with(Access::READ);
        }
        if does("insert") || does("update") || does("delete") {
            access = access.with(Access::WRITE);
        }
        (found.index, access)
    };
    let found = named.found().unwrap_or_default();
    found.into_iter().map(access).collect()
}

/// The full command behind `COMMAND GETKEYS`; its own name has index 0.
struct Named<'a> {
    request: &'a Request,
    /// Where the full command begins in the request.
    skipped: usize,
}

/// The words `COMMAND GETKEYS`.
const SKIPPED: usize = 2;

impl<'a> Named<'a> {
    /// The command that `COMMAND GETKEYS` is asked of; of one made once, that behind the token.
    fn asked(request: &'a Request) -> Self {
        let is_once = request.len() > SKIPPED + 2 && once::is_it(request.arg(SKIPPED));
        Self {
            request,
            skipped: if is_once { SKIPPED + 2 } else { SKIPPED },
        }
    }
}

impl Named<'_> {
    fn len(&self) -> usize {
        self.request.len() - self.skipped
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.request.arg(self.skipped + index)
    }

    fn bytes(&self, index: usize) -> Bytes {
        self.request.arg_bytes(self.skipped + index)
    }

    fn is(&self, index: usize, word: &str) -> bool {
        args::is_word(self.arg(index), word)
    }

    /// The description of the command or subcommand that is named.
    fn description(&self) -> Option<&'static Description> {
        let family = lookup(self.arg(0)).or_else(|| once::is_it(self.arg(0)).then_some(&ONCE))?;
        if family.subcommands.is_empty() || self.len() == 1 {
            return describe(self.arg(0)).map(|(_, it)| it);
        }
        let full_name = [self.arg(0), b"|", self.arg(1)].concat();
        describe(&full_name).map(|(_, it)| it)
    }

    fn found(&self) -> Result<Vec<Found>, &'static str> {
        let description = self.description().ok_or("ERR Invalid command specified")?;
        let specifications = items(description.part(place::KEY_SPECIFICATIONS));
        let real = |specification: &&Reply| !has_flag(field(specification, "flags"), "not_key");
        if !specifications.iter().any(|it| real(&it)) {
            return Err("ERR The command has no key arguments");
        }
        if !accepts(description, self.len()) {
            return Err("ERR Invalid number of arguments specified for command");
        }
        let is_reliable = |it: &Reply| {
            let flags = field(it, "flags");
            !has_flag(flags, "variable_flags") && !has_flag(flags, "incomplete")
        };
        let by_specification = if specifications.iter().all(is_reliable) {
            specifications
                .iter()
                .filter(real)
                .map(|it| self.specified(it))
                .collect::<Option<Vec<Vec<Found>>>>()
                .map(|found| found.into_iter().flatten().collect())
        } else {
            None
        };
        let found = by_specification.or_else(|| self.by_own_rule());
        match found {
            Some(found) => Ok(found),
            None if has_flag(description.part(place::FLAGS), "no_mandatory_keys") => Ok(Vec::new()),
            None => Err("ERR Invalid arguments specified for command"),
        }
    }

    /// The keys that one specification finds; `None` where it does not apply.
    fn specified(&self, specification: &Reply) -> Option<Vec<Found>> {
        let begin = field(specification, "begin_search");
        let spec = field(begin, "spec");
        let first = match text(field(begin, "type")) {
            b"index" => number(field(spec, "index"))?,
            b"keyword" => {
                let from = number(field(spec, "startfrom"))?;
                self.behind_keyword(text(field(spec, "keyword")), from)?
            }
            _ => return None,
        };
        let find = field(specification, "find_keys");
        let spec = field(find, "spec");
        let step = number(field(spec, "keystep"))?;
        let (first, last) = match text(field(find, "type")) {
            b"range" => {
                let last = number(field(spec, "lastkey"))?;
                let limit = number(field(spec, "limit"))?;
                (first, self.last_of_range(first, last, limit))
            }
            b"keynum" => {
                let at = usize::try_from(first + number(field(spec, "keynumidx"))?).ok()?;
                let count = args::integer((at < self.len()).then(|| self.arg(at))?)?;
                let first = first + number(field(spec, "firstkey"))?;
                (first, first.saturating_add(count).saturating_sub(1))
            }
            _ => return None,
        };
        let range = usize::try_from(first).ok()?..=usize::try_from(last).ok()?;
        self.range(
            range,
            usize::try_from(step).ok()?,
            field(specification, "flags"),
        )
    }

    /// The index behind the keyword, which is looked for from index `from` on,
    /// or backwards if that is negative.
    fn behind_keyword(&self, keyword: &[u8], from: i64) -> Option<i64> {
        let is_it = |index: &usize| args::c_text(self.arg(*index)).eq_ignore_ascii_case(keyword);
        let found = if from > 0 {
            (from as usize..self.len()).find(is_it)
        } else {
            let start = self.len().checked_sub(from.unsigned_abs() as usize)?;
            (2..=start.min(self.len() - 1)).rev().find(is_it)
        };
        found.map(|index| index as i64 + 1)
    }

    fn last_of_range(&self, first: i64, last: i64, limit: i64) -> i64 {
        let len = self.len() as i64;
        if last >= 0 {
            first + last
        } else if limit == 0 {
            len + last
        } else {
            first + ((len - first) / limit + last)
        }
    }

    fn range(
        &self,
        range: RangeInclusive<usize>,
        step: usize,
        flags: &Reply,
    ) -> Option<Vec<Found>> {
        if range.is_empty() || *range.end() >= self.len() {
            return None;
        }
        let found = range.step_by(step.max(1)).map(|index| Found {
            index,
            flags: flags.clone(),
        });
        Some(found.collect())
    }

    /// For the commands whose keys or flags no specification can tell.
    fn by_own_rule(&self) -> Option<Vec<Found>> {
        let name = self.arg(0).to_ascii_uppercase();
        match &name[..] {
            b"SET" => {
                let returns_old = (3..self.len()).any(|index| self.is(index, "GET"));
                let flags = if returns_old { READ_WRITE } else { OVERWRITE };
                Some(vec![key(1, flags)])
            }
            b"BITFIELD" => {
                let flags = if self.bitfield_only_reads() {
                    READ
                } else {
                    READ_WRITE
                };
                Some(vec![key(1, flags)])
            }
            b"SORT" => Some(self.sort()),
            b"SORT_RO" => Some(vec![key(1, READ)]),
            b"MIGRATE" => self.migrate(),
            b"GEORADIUS" | b"GEORADIUSBYMEMBER" => Some(self.georadius()),
            _ => None,
        }
    }

    fn bitfield_only_reads(&self) -> bool {
        let mut index = 2;
        while index < self.len() {
            let left = self.len() - index - 1;
            if self.is(index, "GET") && left >= 2 {
                index += 3;
            } else if self.is(index, "OVERFLOW") && left >= 1 {
                index += 2;
            } else {
                return false;
            }
        }
        true
    }

    /// Of several `STORE` the last counts.
    fn sort(&self) -> Vec<Found> {
        let mut target = None;
        let mut index = 2;
        while index < self.len() {
            if self.is(index, "LIMIT") {
                index += 2;
            } else if self.is(index, "GET") || self.is(index, "BY") {
                index += 1;
            } else if self.is(index, "STORE") && index + 1 < self.len() {
                target = Some(key(index + 1, OVERWRITE));
            }
            index += 1;
        }
        [key(1, READ)].into_iter().chain(target).collect()
    }

    /// One key at index 3, or none there and all behind `KEYS`.
    fn migrate(&self) -> Option<Vec<Found>> {
        let mut index = 6;
        while index < self.len() {
            if self.is(index, "KEYS") {
                let is_single = !self.arg(3).is_empty();
                let all = (index + 1..self.len()).map(|index| key(index, MOVED));
                return (!is_single && index + 1 < self.len()).then(|| all.collect());
            }
            index += if self.is(index, "AUTH") {
                2
            } else if self.is(index, "AUTH2") {
                3
            } else {
                1
            };
        }
        Some(vec![key(3, MOVED)])
    }

    /// Of several `STORE` and `STOREDIST` the last counts.
    fn georadius(&self) -> Vec<Found> {
        let mut target = None;
        let mut index = 5;
        while index + 1 < self.len() {
            if self.is(index, "STORE") || self.is(index, "STOREDIST") {
                index += 1;
                target = Some(key(index, OVERWRITE));
            }
            index += 1;
        }
        [key(1, READ)].into_iter().chain(target).collect()
    }
}

const READ: &[&str] = &["RO", "access"];
const OVERWRITE: &[&str] = &["OW", "update"];
const READ_WRITE: &[&str] = &["RW", "access", "update"];
const MOVED: &[&str] = &["RW", "access", "delete"];

fn key(index: usize, flags: &[&'static str]) -> Found {
    Found {
        index,
        flags: Reply::Set(flags.iter().map(|flag| Reply::Simple(flag)).collect()),
    }
}

fn accepts(description: &Description, count: usize) -> bool {
    let count = count as i64;
    match description.part(place::ARITY) {
        Reply::Integer(arity) if *arity < 0 => count >= -arity,
        Reply::Integer(arity) => count == *arity,
        _ => false,
    }
}

fn has_flag(flags: &Reply, flag: &str) -> bool {
    items(flags)
        .iter()
        .any(|it| matches!(it, Reply::Simple(text) if *text == flag))
}

fn text(reply: &Reply) -> &[u8] {
    match reply {
        Reply::Bulk(text) => text,
        _ => &[],
    }
}

fn number(reply: &Reply) -> Option<i64> {
    match reply {
        Reply::Integer(number) => Some(*number),
        _ => None,
    }
}
