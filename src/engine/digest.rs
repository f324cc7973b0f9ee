//! What a value is, whatever form it is kept in: equal for equal content, so that the cache,
//! the store and other servers can be compared key by key.
//!
//! Order counts in lists and streams, not in hashes and sets; scores count by their
//! bits, except that -0 is 0: the small form of a sorted set in Redis knows no -0. Of a stream count the
//! entries, its counters, and its groups with what is pending; not the times at which consumers were seen
//! and entries delivered, nor how many entries a group has read, which Redis itself only estimates.

use sha2::{Digest as _, Sha256};

use super::stream;
use crate::model::{Collection, Kind, NotLoaded, Value};

/// 128 bits of SHA-256.
pub type Digest = [u8; 16];

/// The digest of `value`.
///
/// # Errors
/// Unless everything is known.
pub fn digest(value: &Value) -> Result<Digest, NotLoaded> {
    let mut hash = Parts::default();
    hash.add(value.kind().name().as_bytes());
    match value {
        Value::String(text) => hash.add(text),
        Value::Collection(collection) => add(&mut hash, collection)?,
    }
    Ok(hash.finish())
}

fn add(hash: &mut Parts, collection: &Collection) -> Result<(), NotLoaded> {
    let elements = collection.iter()?;
    match collection.kind() {
        Kind::Stream => return stream::add_to_digest(collection, &mut |part| hash.add(part)),
        Kind::List => elements.for_each(|(_, item)| hash.add(&item.value)),
        Kind::Set => elements.for_each(|(member, _)| hash.add(member)),
        Kind::Hash => elements.for_each(|(field, element)| {
            hash.add(field);
            hash.add(&element.value);
        }),
        Kind::SortedSet => elements.for_each(|(member, element)| {
            hash.add(member);
            hash.add(&(element.rank + 0.0).to_bits().to_le_bytes());
        }),
        Kind::String => {}
    }
    Ok(())
}

/// Parts, each with its length before it, so that no two lists of parts are the same bytes.
#[derive(Default)]
struct Parts(Sha256);

impl Parts {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn finish(self) -> Digest {
        let mut digest = Digest::default();
        let length = digest.len();
        digest.copy_from_slice(&self.0.finalize()[..length]);
        digest
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;
    use super::super::{rdb, restored};
    use super::*;
    use crate::model::Reply;

    /// The digest of what these commands make, from its payload.
    fn made(lines: &[&str]) -> Digest {
        let mut session = Session::default();
        for line in lines {
            session.text(line);
        }
        let Reply::Bulk(payload) = session.run(&["DUMP", "k"]) else {
            panic!("{lines:?} made no key");
        };
        let value = restored(&payload).unwrap();
        let again = restored(&rdb::payload_of(&value).unwrap().into()).unwrap();
        assert_eq!(digest(&value), digest(&again), "{lines:?}");
        digest(&value).unwrap()
    }

    #[test]
    fn order_counts_where_the_type_has_one() {
        assert_eq!(
            made(&["HSET k a 1 b 2"]),
            made(&["HSET k b 2", "HSET k a 1"])
        );
        assert_eq!(made(&["SADD k x y"]), made(&["SADD k y x"]));
        assert_ne!(made(&["RPUSH k x y"]), made(&["RPUSH k y x"]));
        assert_ne!(
            made(&["XADD k 1-1 a b", "XADD k 1-2 c d"]),
            made(&["XADD k 1-1 c d", "XADD k 1-2 a b"])
        );
    }

    #[test]
    fn everything_that_can_be_read_counts() {
        let all = [
            made(&["SET k ab"]),
            made(&["SET k abc"]),
            made(&["RPUSH k ab"]),
            made(&["RPUSH k a b"]),
            made(&["SADD k ab"]),
            made(&["HSET k ab c"]),
            made(&["HSET k a bc"]),
            made(&["ZADD k 1 ab"]),
            made(&["ZADD k 1.0000000000000002 ab"]),
            made(&["XADD k 1-1 a b"]),
            made(&["XADD k 1-1 a b", "XGROUP CREATE k g 0"]),
            made(&[
                "XADD k 1-1 a b",
                "XGROUP CREATE k g 0",
                "XREADGROUP GROUP g c STREAMS k >",
            ]),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
