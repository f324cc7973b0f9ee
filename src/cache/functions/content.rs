//! How content is told to the cache: as what, and until when it may stay there.

use std::time::Duration;

use bytes::Bytes;

use super::staging::length;
use super::{Cache, Call, Op, Told};
use crate::config::ByteSize;
use crate::model::{CacheCommand, Key, UnixMs};

/// The bytes of a collection that are kept in the cache at most.
const COLLECTION_BYTES_MAX: usize = 256 << 20;

/// What applies to one key.
struct Keep {
    native: Duration,
    fill_limit: usize,
    /// Whether the life of its native is that of all others.
    is_usual: bool,
}

impl Cache {
    fn keep(&self, key: &Key) -> Keep {
        let usual = Keep {
            native: self.lives.native,
            fill_limit: self.lives.fill_limit,
            is_usual: true,
        };
        let Some(routes) = self.routing.get() else {
            return usual;
        };
        let Some(route) = routes.find(&key.name) else {
            return usual;
        };
        let kept = 100 - rand::random_range(0..=route.ttl_jitter.min(99));
        Keep {
            native: route.ttl.unwrap_or(usual.native) * u32::from(kept) / 100,
            fill_limit: route
                .fill_limit
                .map_or(usual.fill_limit, ByteSize::as_usize),
            is_usual: route.ttl.is_none() && route.ttl_jitter == 0,
        }
    }

    /// How is told that `key` does not exist.
    pub fn absent_op(&self, key: &Key) -> Op {
        let routes = self.routing.get();
        let route = routes.as_deref().and_then(|routes| routes.find(&key.name));
        match route.and_then(|route| route.absent_ttl) {
            None => Op::Absent,
            Some(life) => Op::AbsentFor {
                life_ms: life.as_millis() as u64,
            },
        }
    }

    /// How the content of a key is told: a string that ends needs its deadline. One
    /// that is too long for the cache, or dead for it already, is not told.
    pub fn string_op(
        &self,
        key: &Key,
        value: Bytes,
        expires_at: Option<UnixMs>,
        store_now: UnixMs,
    ) -> Op {
        let keep = self.keep(key);
        match expires_at {
            _ if value.len() > keep.fill_limit => Op::Invalidate,
            None if keep.is_usual => Op::String(value),
            None => Op::Lasting {
                value,
                deadline: self.native_deadline(keep.native),
            },
            Some(at) => match self.deadline(at, store_now, keep.native) {
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
        key: &Key,
        (told, size): (Told, u64),
        commands: Vec<CacheCommand>,
        expires_at: Option<UnixMs>,
        store_now: UnixMs,
    ) -> Op {
        let keep = self.keep(key);
        let deadline = match expires_at {
            None => Some(self.native_deadline(keep.native)),
            Some(at) => self.deadline(at, store_now, keep.native),
        };
        // A limit of a route's own is meant for its large values, of any type.
        let bytes_max = if keep.fill_limit == self.lives.fill_limit {
            COLLECTION_BYTES_MAX
        } else {
            keep.fill_limit
        };
        let fits = commands.iter().map(length).sum::<usize>() <= bytes_max
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
    pub fn expiry_op(&self, key: &Key, expires_at: Option<UnixMs>, store_now: UnixMs) -> Op {
        let native = self.keep(key).native;
        match expires_at {
            None => Op::Expiry {
                expires_at,
                deadline: self.native_deadline(native),
            },
            Some(at) => match self.deadline(at, store_now, native) {
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
    fn deadline(&self, expires_at: UnixMs, store_now: UnixMs, native: Duration) -> Option<UnixMs> {
        let left = expires_at.0.saturating_sub(store_now.0) - self.lives.skew.as_millis() as i64;
        let left = left.min(native.as_millis() as i64);
        (left > 1).then(|| UnixMs((self.clock.now().0 + left - 1) | 1))
    }

    /// When a native without expiry that is set now dies; an even number.
    fn native_deadline(&self, life: Duration) -> UnixMs {
        UnixMs((self.clock.now().0 + life.as_millis() as i64) & !1)
    }

    pub(super) fn put_lives(&self, call: &mut Call) {
        call.number(self.native_deadline(self.lives.native).0);
        call.number(self.lives.absent.as_millis() as i64);
    }
}
