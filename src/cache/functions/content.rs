//! How content is told to the cache: as what, and until when it may stay there.

use bytes::Bytes;

use super::staging::length;
use super::{Cache, Call, Op, Told};
use crate::model::{CacheCommand, UnixMs};

/// The bytes of a collection that are kept in the cache at most.
const COLLECTION_BYTES_MAX: usize = 256 << 20;

impl Cache {
    /// How the content of a key is told: a string that ends needs its deadline. One
    /// that is too long for the cache, or dead for it already, is not told.
    pub fn string_op(&self, value: Bytes, expires_at: Option<UnixMs>, store_now: UnixMs) -> Op {
        match expires_at {
            _ if value.len() > self.lives.fill_limit => Op::Invalidate,
            None => Op::String(value),
            Some(at) => match self.deadline(at, store_now) {
                Some(deadline) => Op::Expiring {
                    value,
                    expires_at: at,
                    deadline,
                },
                None => Op::Invalidate,
            },
        }
    }

    /// How another type than a string, of `size` elements, is told by the
    /// commands that make it or repeat what was done to it. What is too long for
    /// the cache, or dead for it already, is not told.
    pub fn collection_op(
        &self,
        (told, size): (Told, u64),
        commands: Vec<CacheCommand>,
        expires_at: Option<UnixMs>,
        store_now: UnixMs,
    ) -> Op {
        let deadline = match expires_at {
            None => Some(self.native_deadline()),
            Some(at) => self.deadline(at, store_now),
        };
        let fits = commands.iter().map(length).sum::<usize>() <= COLLECTION_BYTES_MAX
            && size <= self.lives.fill_elements;
        match deadline {
            Some(deadline) if fits => Op::Collection {
                told,
                size,
                commands,
                expires_at,
                deadline,
            },
            _ => Op::Invalidate,
        }
    }

    /// How a new expiry is told.
    pub fn expiry_op(&self, expires_at: Option<UnixMs>, store_now: UnixMs) -> Op {
        match expires_at {
            None => Op::Expiry {
                expires_at,
                deadline: self.native_deadline(),
            },
            Some(at) => match self.deadline(at, store_now) {
                Some(deadline) => Op::Expiry {
                    expires_at,
                    deadline,
                },
                None => Op::Invalidate,
            },
        }
    }

    /// When the native of a key that ends at `expires_at` dies, by the cache's
    /// clock; an odd number. `None`: it would be dead at once.
    fn deadline(&self, expires_at: UnixMs, store_now: UnixMs) -> Option<UnixMs> {
        let left = expires_at.0.saturating_sub(store_now.0) - self.lives.skew.as_millis() as i64;
        let left = left.min(self.lives.native.as_millis() as i64);
        (left > 1).then(|| UnixMs((self.clock.now().0 + left - 1) | 1))
    }

    /// When a native without expiry that is set now dies; an even number.
    fn native_deadline(&self) -> UnixMs {
        UnixMs((self.clock.now().0 + self.lives.native.as_millis() as i64) & !1)
    }

    pub(super) fn put_lives(&self, call: &mut Call) {
        call.number(self.native_deadline().0);
        call.number(self.lives.absent.as_millis() as i64);
    }
}
