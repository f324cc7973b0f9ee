//! How Redis 7.0 with its default settings would keep a value.

use super::{Refusal, sets, zset};
use crate::command::args;
use crate::model::{Collection, Kind, Value};

/// The longest string that Redis keeps in one piece with its header.
pub(super) const EMBEDDED_MAX: usize = 44;
/// The longest text of a 64-bit integer.
const INTEGER_TEXT_MAX: usize = 20;
/// `hash-max-listpack-entries`.
const PACKED_ELEMENTS_MAX: u64 = 512;
/// `hash-max-listpack-value`.
const PACKED_LEN_MAX: usize = 64;

/// The forms of values, as `OBJECT ENCODING` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Integer,
    Embedded,
    Raw,
    Listpack,
    Quicklist,
    Hashtable,
    Intset,
    Skiplist,
    Stream,
}

impl Encoding {
    /// That of `value`.
    pub fn of(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::String(text) => Ok(Self::of_string(text)),
            Value::Collection(collection) => Self::of_collection(collection),
        }
    }

    fn of_string(text: &[u8]) -> Self {
        if text.len() <= INTEGER_TEXT_MAX && args::integer(text).is_some() {
            Self::Integer
        } else if text.len() <= EMBEDDED_MAX {
            Self::Embedded
        } else {
            Self::Raw
        }
    }

    fn of_collection(collection: &Collection) -> Result<Self, Refusal> {
        let is_short = |len: usize| len <= PACKED_LEN_MAX;
        let is_packed = collection.len() <= PACKED_ELEMENTS_MAX
            && collection
                .iter()?
                .all(|(field, element)| is_short(field.len()) && is_short(element.value.len()));
        let members = collection.iter()?.map(|(member, _)| member);
        let is_of_integers = sets::is_of_integers(collection.len() as usize, members);
        Ok(match collection.kind() {
            Kind::Hash if is_packed => Self::Listpack,
            Kind::Hash => Self::Hashtable,
            Kind::SortedSet if zset::is_skip_list(collection) => Self::Skiplist,
            Kind::SortedSet => Self::Listpack,
            Kind::Set if is_of_integers => Self::Intset,
            Kind::Set => Self::Hashtable,
            Kind::List => Self::Quicklist,
            Kind::Stream => Self::Stream,
            Kind::String => Self::Raw,
        })
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "int",
            Self::Embedded => "embstr",
            Self::Raw => "raw",
            Self::Listpack => "listpack",
            Self::Quicklist => "quicklist",
            Self::Hashtable => "hashtable",
            Self::Intset => "intset",
            Self::Skiplist => "skiplist",
            Self::Stream => "stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn small_collections_are_packed() {
        let mut s = Session::default();
        let (short, long) = ("x".repeat(64), "x".repeat(65));
        for (field, encoding) in [(&short, "\"listpack\""), (&long, "\"hashtable\"")] {
            s.run(&["HSET", "h", field, "v"]);
            assert_eq!(s.text("OBJECT ENCODING h"), encoding);
        }
        for number in 0..512 {
            s.run(&["HSET", "many", &number.to_string(), ""]);
        }
        assert_eq!(s.text("OBJECT ENCODING many"), "\"listpack\"");
        s.run(&["HSET", "many", "512", ""]);
        assert_eq!(s.text("OBJECT ENCODING many"), "\"hashtable\"");
        for number in 0..512 {
            s.run(&["SADD", "s", &number.to_string()]);
        }
        assert_eq!(s.text("OBJECT ENCODING s"), "\"intset\"");
        s.run(&["SADD", "s", "512"]);
        assert_eq!(s.text("OBJECT ENCODING s"), "\"hashtable\"");
        s.run(&["SADD", "words", "a"]);
        assert_eq!(s.text("OBJECT ENCODING words"), "\"hashtable\"");
        s.run(&["ZADD", "z", "1", &long, "2", "a"]);
        assert_eq!(s.text("OBJECT ENCODING z"), "\"skiplist\"");
        s.run(&["ZREM", "z", &long]);
        assert_eq!(s.text("OBJECT ENCODING z"), "\"skiplist\"");
        s.run(&["ZRANGESTORE", "z", "z", "0", "-1"]);
        assert_eq!(s.text("OBJECT ENCODING z"), "\"listpack\"");
        s.run(&["RPUSH", "l", "a"]);
        assert_eq!(s.text("OBJECT ENCODING l"), "\"quicklist\"");
    }
}
