//! Large collections come into the cache in steps: under a temporary name, which
//! the fill has only to rename. No call keeps the cache busy for long.

use bytes::Bytes;

use super::{Applied, Cache, CacheError, Call, Function, Op, Repeat, call};
use crate::model::{CacheCommand, Generation};

/// Bytes of commands that one call runs at most (or one command).
const STEP_BYTES: usize = 256 << 10;

/// Bytes of one collection's commands in an apply at most.
const APPLY_BYTES_MAX: usize = 4 << 20;

impl Cache {
    /// Puts the large collections among `content` under temporary names, so that
    /// the fill itself has only to rename them: no call keeps the cache busy for long.
    pub(super) async fn stage<'a>(
        &self,
        generation: Generation,
        token: &str,
        content: &[Applied<'a>],
    ) -> Result<Vec<Applied<'a>>, CacheError> {
        let mut staged = Vec::with_capacity(content.len());
        for one in content {
            let mut one = one.clone();
            if let Op::Collection {
                size,
                commands,
                expires_at,
                deadline,
                ..
            } = &one.op
                && commands.iter().map(length).sum::<usize>() > STEP_BYTES
            {
                for (number, step) in steps(commands).enumerate() {
                    let mut call = Call::new(Function::Stage, [one.key].into_iter(), generation, 4);
                    call.bytes(token.as_bytes());
                    call.number(self.lives.lease.as_millis() as i64);
                    call.number(number as i64);
                    call.bytes(&call::pack(step));
                    // Not twice: a list would have items twice.
                    self.call(call, Repeat::Never).await?;
                }
                one.op = Op::Staged {
                    size: *size,
                    expires_at: *expires_at,
                    deadline: *deadline,
                };
            }
            staged.push(one);
        }
        Ok(staged)
    }
}

pub(super) fn length(command: &CacheCommand) -> usize {
    command.iter().map(Bytes::len).sum()
}

pub(super) fn is_large(applied: &Applied<'_>) -> bool {
    match &applied.op {
        Op::Collection { commands, .. } => {
            commands.iter().map(length).sum::<usize>() > APPLY_BYTES_MAX
        }
        _ => false,
    }
}

/// The same, but a large collection is left to the next reader, who fills the
/// cache in steps.
pub(super) fn without_large<'a>(applied: &Applied<'a>) -> Applied<'a> {
    let mut applied = applied.clone();
    if is_large(&applied) {
        applied.op = Op::Invalidate;
    }
    applied
}

/// Commands in runs of about [`STEP_BYTES`].
fn steps(commands: &[CacheCommand]) -> impl Iterator<Item = &[CacheCommand]> {
    let mut rest = commands;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let within = |command: &&CacheCommand| {
            bytes += length(command);
            bytes <= STEP_BYTES
        };
        let count = rest.iter().take_while(within).count().max(1);
        let (step, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(step)
    })
}
