//! Units that are made once: the store keeps the reply of each with its client's token, in the
//! transaction of the unit.

use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Answer, Refusal, Step};
use crate::command::Token;
use crate::config;
use crate::model::{Reply, UnixMs};
use crate::resp;
use crate::store::Kept;

/// Who made which unit once.
#[derive(Clone, Debug)]
pub struct Once {
    /// What the client calls the unit by.
    pub token: Token,
    /// The SHA-256 of databases, commands and arguments.
    fingerprint: [u8; 32],
}

impl Once {
    /// The unit of `steps`, called `token`.
    pub fn new(token: Token, steps: &[Step]) -> Self {
        let mut digest = Sha256::new();
        for Step { db, call, .. } in steps {
            digest.update([db.index()]);
            digest.update(call.command.name);
            // Lengths, so that no argument can be taken for two.
            digest.update((call.request.len() as u64).to_be_bytes());
            let family = call.command.name.contains('|');
            for arg in call.request.args().skip(if family { 2 } else { 1 }) {
                digest.update((arg.len() as u64).to_be_bytes());
                digest.update(arg);
            }
        }
        Self {
            token,
            fingerprint: digest.finalize().into(),
        }
    }
}

/// What `[commit]` says of replies that are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeping {
    /// For how long, at least.
    retention: Duration,
    /// Bytes of one at most.
    reply_max: usize,
}

impl Keeping {
    pub(super) fn new(settings: &config::Commit) -> Self {
        Self {
            retention: settings.once_retention,
            reply_max: settings.once_reply.as_usize(),
        }
    }

    /// When what is kept at `now` may be forgotten.
    pub(super) fn ends(self, now: UnixMs) -> UnixMs {
        let retention = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        UnixMs(now.0.saturating_add(retention))
    }
}

/// The tokens of a batch that are used: before it, or by a unit of it.
#[derive(Default)]
pub(super) struct Tokens {
    known: AHashMap<Bytes, Kept>,
    reply_max: usize,
    /// What this batch is the first to use.
    new: Vec<Kept>,
    /// Why a unit of the batch must not commit.
    refusal: Option<Refusal>,
}

impl Tokens {
    /// Those of a batch of which the store has these.
    pub(super) fn new(kept: Vec<Kept>, keeping: Keeping) -> Self {
        Self {
            known: kept.into_iter().map(|it| (it.token.clone(), it)).collect(),
            reply_max: keeping.reply_max,
            new: Vec::new(),
            refusal: None,
        }
    }

    /// What a unit is answered whose token is used; `None` if it is not.
    pub(super) fn answer(&self, once: &Once) -> Option<Answer> {
        let kept = self.known.get(once.token.bytes())?;
        if kept.fingerprint[..] != once.fingerprint {
            return Some(Answer::Refused(Reply::error(
                "ERR the token was used with another command, other arguments or in another \
                 database; nothing was changed",
            )));
        }
        Some(match resp::unpack(&kept.reply) {
            Ok(replies) => Answer::Done(replies.into()),
            Err(error) => Answer::Refused(Reply::error(format!(
                "ERR the reply kept under the token cannot be read; nothing was changed ({error})"
            ))),
        })
    }

    /// Keeps what a unit was answered. One that `changed` nothing and was answered by errors
    /// alone leaves its token free, and so does one of which a watched key had changed.
    pub(super) fn keep(&mut self, once: &Once, answer: &Answer, changed: bool) {
        let Answer::Done(replies) = answer else {
            return;
        };
        let is_error = |reply: &Reply| matches!(reply, Reply::Error(_));
        if !changed && replies.iter().all(is_error) {
            return;
        }
        let packed = resp::pack(replies).filter(|packed| packed.len() <= self.reply_max);
        let Some(packed) = packed else {
            let kilobytes = self.reply_max >> 10;
            let text =
                format!("its reply has more than {kilobytes} kB to keep (commit.once_reply)");
            self.refusal = Some(Refusal::Refused(text));
            return;
        };
        let kept = Kept {
            token: Bytes::copy_from_slice(once.token.bytes()),
            fingerprint: Bytes::copy_from_slice(&once.fingerprint),
            reply: packed.into(),
        };
        self.known.insert(kept.token.clone(), kept.clone());
        self.new.push(kept);
    }

    /// What is to be kept, sorted by token; or why the batch must not commit.
    pub(super) fn into_new(self) -> Result<Vec<Kept>, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let mut new = self.new;
        new.sort_unstable_by(|one, other| one.token.cmp(&other.token));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;
    use crate::model::{Db, Request};

    const KEEPING: Keeping = Keeping {
        retention: Duration::from_secs(1),
        reply_max: 100,
    };

    fn once(db: u8, words: &[&str]) -> Once {
        let once = [&["FRESHET.ONCE", "t"], words].concat();
        let mut call = resolve(Request::from_args(&once)).unwrap();
        let token = call.token.take().unwrap();
        let db = Db::new(db).unwrap();
        Once::new(token, &[Step::new(db, call)])
    }

    fn done(reply: Reply) -> Answer {
        Answer::Done([reply].into_iter().collect())
    }

    #[test]
    fn a_repeat_is_answered_and_anything_else_refused() {
        let mut tokens = Tokens::new(Vec::new(), KEEPING);
        let first = once(0, &["SET", "k", "v"]);
        assert!(tokens.answer(&first).is_none());
        tokens.keep(&first, &done(Reply::OK), true);
        let again = once(0, &["set", "k", "v"]);
        assert_eq!(tokens.answer(&again), Some(done(Reply::OK)));
        for other in [
            once(1, &["SET", "k", "v"]),
            once(0, &["SET", "kv", ""]),
            once(0, &["SET", "k", "v", "NX"]),
            once(0, &["APPEND", "k", "v"]),
        ] {
            let answer = tokens.answer(&other);
            assert!(matches!(answer, Some(Answer::Refused(_))), "{answer:?}");
        }
        let new = tokens.into_new().unwrap();
        assert_eq!(new.len(), 1);
        let later = Tokens::new(new, KEEPING);
        assert_eq!(later.answer(&again), Some(done(Reply::OK)));
        assert!(later.into_new().unwrap().is_empty());
    }

    #[test]
    fn errors_that_changed_nothing_leave_the_token_free() {
        let mut tokens = Tokens::new(Vec::new(), KEEPING);
        let unit = once(0, &["INCR", "k"]);
        tokens.keep(&unit, &done(Reply::error("WRONGTYPE")), false);
        tokens.keep(&unit, &Answer::Unwatched, false);
        assert!(tokens.answer(&unit).is_none());
        // A script may write and then fail.
        tokens.keep(&unit, &done(Reply::error("ERR")), true);
        assert_eq!(tokens.answer(&unit), Some(done(Reply::error("ERR"))));
    }

    #[test]
    fn a_reply_that_is_too_long_refuses_the_batch() {
        let mut tokens = Tokens::new(Vec::new(), KEEPING);
        let unit = once(0, &["GETSET", "k", "v"]);
        tokens.keep(&unit, &done(Reply::bulk("x".repeat(101))), true);
        assert!(matches!(tokens.into_new(), Err(Refusal::Refused(_))));
    }
}
