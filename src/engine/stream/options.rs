//! The options that `XADD` and `XTRIM` share.

use super::super::Refusal;
use super::super::dispatch::Run;
use super::id::{Id, NewId};
use super::trim::{Exactness, Keep, Trim};
use crate::command::{Call, args};

/// How many entries `~` trims at most unless `LIMIT` says otherwise.
const LIMIT_DEFAULT: u64 = 10_000;

/// Which of the two commands it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Add,
    Trim,
}

/// What `XADD` does if the stream is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfAbsent {
    Create,
    Nothing,
}

/// The options of `XADD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddOptions {
    pub if_absent: IfAbsent,
    pub trim: Option<Trim>,
    /// `None` where the arguments ended before an id.
    pub id: Option<NewId>,
    /// Where the fields and values begin.
    pub pairs_at: usize,
}

impl AddOptions {
    pub fn parse(run: &Run<'_>) -> Result<Self, Refusal> {
        let parsed = Parsed::parse(run.call, Of::Add)?;
        Ok(Self {
            if_absent: parsed.if_absent,
            trim: parsed.trim()?,
            id: parsed.id,
            pairs_at: parsed.at + 1,
        })
    }
}

/// The trim that a call of `XADD` asks for, if its options can be read.
pub(super) fn trim_of_add(call: &Call) -> Option<Trim> {
    Parsed::parse(call, Of::Add).ok()?.trim().ok()?
}

/// The trim that a call of `XTRIM` asks for.
pub(super) fn trim_of_trim(call: &Call) -> Result<Trim, Refusal> {
    let trim = Parsed::parse(call, Of::Trim)?.trim()?;
    trim.ok_or(Refusal::Syntax)
}

struct Parsed {
    of: Of,
    if_absent: IfAbsent,
    keep: Option<Keep>,
    is_by_blocks: bool,
    limit: Option<u64>,
    id: Option<NewId>,
    /// Where the id stands.
    at: usize,
}

impl Parsed {
    fn parse(call: &Call, of: Of) -> Result<Self, Refusal> {
        let mut parsed = Self {
            of,
            if_absent: IfAbsent::Create,
            keep: None,
            is_by_blocks: false,
            limit: None,
            id: None,
            at: 2,
        };
        let count = call.request.len();
        while parsed.at < count {
            let word = call.request.arg(parsed.at);
            let has_more = parsed.at + 1 < count;
            if of == Of::Add && args::c_text(word) == b"*" {
                parsed.id = Some(NewId::Auto);
                break;
            } else if args::is_word(word, "MAXLEN") && has_more {
                let keep = Keep::Newest(parsed.value(call, of_length)?);
                parsed.keep = Some(keep);
            } else if args::is_word(word, "MINID") && has_more {
                let keep = Keep::From(parsed.value(call, |text| Id::parse_strict(text, 0))?);
                parsed.keep = Some(keep);
            } else if args::is_word(word, "LIMIT") && has_more {
                parsed.at += 1;
                parsed.limit = Some(of_limit(call.request.arg(parsed.at))?);
            } else if of == Of::Add && args::is_word(word, "NOMKSTREAM") {
                parsed.if_absent = IfAbsent::Nothing;
            } else if of == Of::Add {
                parsed.id = Some(NewId::parse(word)?);
                break;
            } else {
                return Err(Refusal::Syntax);
            }
            parsed.at += 1;
        }
        Ok(parsed)
    }

    /// What stands behind `MAXLEN` or `MINID`, perhaps behind `~` or `=`.
    fn value<T>(
        &mut self,
        call: &Call,
        read: impl Fn(&[u8]) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if self.keep.is_some() {
            return Err(Refusal::Other(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        self.at += 1;
        let has_more = self.at + 1 < call.request.len();
        let sign = args::c_text(call.request.arg(self.at));
        self.is_by_blocks = has_more && sign == b"~";
        if has_more && matches!(sign, b"~" | b"=") {
            self.at += 1;
        }
        read(call.request.arg(self.at))
    }

    fn trim(&self) -> Result<Option<Trim>, Refusal> {
        if self.limit.is_some_and(|limit| limit > 0) && self.keep.is_none() {
            return Err(Refusal::Other(
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ));
        }
        if self.of == Of::Trim && self.keep.is_none() {
            return Err(Refusal::Other(
                "ERR syntax error, XTRIM must be called with a trimming strategy",
            ));
        }
        let exactness = match (self.is_by_blocks, self.limit) {
            (true, limit) => Exactness::Blocks {
                limit: limit.unwrap_or(LIMIT_DEFAULT),
            },
            (false, None) => Exactness::Exact,
            (false, Some(_)) => {
                return Err(Refusal::Other(
                    "ERR syntax error, LIMIT cannot be used without the special ~ option",
                ));
            }
        };
        Ok(self.keep.map(|keep| Trim { keep, exactness }))
    }
}

fn of_length(text: &[u8]) -> Result<u64, Refusal> {
    let length = args::integer(text).ok_or(Refusal::NotInteger)?;
    u64::try_from(length).map_err(|_| Refusal::Other("ERR The MAXLEN argument must be >= 0."))
}

fn of_limit(text: &[u8]) -> Result<u64, Refusal> {
    let limit = args::integer(text).ok_or(Refusal::NotInteger)?;
    u64::try_from(limit).map_err(|_| Refusal::Other("ERR The LIMIT argument must be >= 0."))
}
