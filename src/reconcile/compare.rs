//! Whether what the cache shows of a key is what the store says of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::cache::{Found, Held, Inspected};
use crate::engine::{self, Content, Loaded};
use crate::model::{Collection, Element, Kind as Type, STREAM_ENTRY, UnixMs, Value, Version};

/// By how much a native may outlive its key: clocks are read some time apart.
const TTL_SLACK_MS: i64 = 1000;
/// Bytes of a field or member that a text shows.
const SHOWN_BYTES: usize = 64;

/// In which way a key differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Another value, of the same type.
    Value,
    /// The cache lacks fields, members or items.
    Missing,
    /// The cache has some that the store has not.
    Extra,
    /// The same items in another order.
    Order,
    /// A value of another type.
    Type,
    /// Another end, or none.
    Ttl,
    /// The store does not have the key (any more).
    Unknown,
    /// The cache says that the key does not exist.
    Absent,
    /// The content is as in the store, but said to be of another version.
    Version,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Value,
        Self::Missing,
        Self::Extra,
        Self::Order,
        Self::Type,
        Self::Ttl,
        Self::Unknown,
        Self::Absent,
        Self::Version,
    ];

    /// Its name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Order => "order",
            Self::Type => "type",
            Self::Ttl => "ttl",
            Self::Unknown => "unknown",
            Self::Absent => "absent",
            Self::Version => "version",
        }
    }
}

/// In what a key differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// In which way.
    pub kind: Kind,
    /// In what, for people.
    pub detail: String,
    /// The key's version in the store.
    pub version: Version,
}

/// What a look at a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The cache shows what the store says.
    Same,
    /// The cache shows nothing of it.
    Uncached,
    /// Writers are in flight.
    Written,
    /// It differs, or was changed between the two looks.
    Differs(Difference),
}

/// Compares what the cache showed with what the store said, at `now` by its clock, about
/// `apart_ms` later.
pub fn compare(shown: &Inspected, stored: &Loaded, now: UnixMs, apart_ms: i64) -> Verdict {
    if shown.companion.is_written {
        return Verdict::Written;
    }
    let differs = |kind, detail: String| {
        Verdict::Differs(Difference {
            kind,
            detail,
            version: stored.version,
        })
    };
    let native = match native(&shown.native) {
        Ok(Some(native)) => native,
        Ok(None) => return without_native(shown, stored),
        Err(detail) => return differs(Kind::Type, detail),
    };
    let Content::Value(value) = &stored.content else {
        if outlives(shown, stored, now, apart_ms) || stored.expires_at.is_none() {
            return differs(
                Kind::Unknown,
                format!("a {} that the store does not have", native.kind().name()),
            );
        }
        // Its end has just passed; the native dies too.
        return Verdict::Uncached;
    };
    if let Some((kind, detail)) = contrast(&native, value) {
        return differs(kind, detail);
    }
    if let Some(detail) = wrong_end(shown, stored, now, apart_ms) {
        return differs(Kind::Ttl, detail);
    }
    match shown.companion.held {
        Held::Content(version) if version != stored.version => differs(
            Kind::Version,
            format!(
                "the cache says version {}, the store {}",
                version.0, stored.version.0
            ),
        ),
        Held::Absent(version) => differs(
            Kind::Absent,
            format!(
                "beside it the cache says that it was absent at version {}",
                version.0
            ),
        ),
        _ => Verdict::Same,
    }
}

/// The native as a value; an error if it is none that Freshet could have made.
fn native(found: &Found) -> Result<Option<Value>, String> {
    match found {
        Found::Nothing => Ok(None),
        Found::String(text) => Ok(Some(Value::String(text.clone()))),
        Found::Dump(payload) => engine::restored(payload)
            .map(Some)
            .map_err(|_| "the cache holds it in a form that cannot be read".to_owned()),
        Found::Foreign(kind) => Err(format!("the cache holds a {kind}")),
    }
}

fn without_native(shown: &Inspected, stored: &Loaded) -> Verdict {
    match (shown.companion.held, &stored.content) {
        (Held::Absent(_), Content::Absent) => Verdict::Same,
        (Held::Absent(version), _) => Verdict::Differs(Difference {
            kind: Kind::Absent,
            detail: format!("the cache says that it was absent at version {}", version.0),
            version: stored.version,
        }),
        _ => Verdict::Uncached,
    }
}

/// How long the native still lives when the store is asked, in ms; `None`: for ever.
fn native_left(shown: &Inspected, apart_ms: i64) -> Option<i64> {
    Some(shown.dies_at?.0 - shown.now.0 - apart_ms)
}

/// Whether the native lives on for some time behind the end of its key.
fn outlives(shown: &Inspected, stored: &Loaded, now: UnixMs, apart_ms: i64) -> bool {
    let Some(end) = stored.expires_at else {
        return false;
    };
    let left = end.0.saturating_sub(now.0).max(0);
    native_left(shown, apart_ms).is_none_or(|native| native > left.saturating_add(TTL_SLACK_MS))
}

fn wrong_end(shown: &Inspected, stored: &Loaded, now: UnixMs, apart_ms: i64) -> Option<String> {
    let text = |end: Option<UnixMs>| end.map_or("never".to_owned(), |at| at.0.to_string());
    let Some(_) = shown.dies_at else {
        return Some("it never leaves the cache by itself".to_owned());
    };
    if outlives(shown, stored, now, apart_ms) {
        return Some(format!(
            "the cache shows it until {}, it ends at {}",
            text(shown.dies_at),
            text(stored.expires_at)
        ));
    }
    let told = shown.told_expiry()?;
    (told != stored.expires_at).then(|| {
        format!(
            "the cache says that it ends at {}, the store {}",
            text(told),
            text(stored.expires_at)
        )
    })
}

/// In what `cached` is not `stored`, if anything.
fn contrast(cached: &Value, stored: &Value) -> Option<(Kind, String)> {
    if cached.kind() != stored.kind() {
        let (one, other) = (cached.kind().name(), stored.kind().name());
        return Some((
            Kind::Type,
            format!("a {one} in the cache, a {other} in the store"),
        ));
    }
    // What is loaded in part counts as other: it does not come here.
    if engine::digest(cached).ok() == engine::digest(stored).ok() {
        return None;
    }
    Some(match (cached, stored) {
        (Value::Collection(cached), Value::Collection(stored)) if stored.kind() == Type::List => {
            contrast_lists(cached, stored)
        }
        (Value::Collection(cached), Value::Collection(stored)) => contrast_fields(cached, stored),
        (Value::String(cached), Value::String(stored)) => (
            Kind::Value,
            format!(
                "{} bytes in the cache, {} in the store",
                cached.len(),
                stored.len()
            ),
        ),
        _ => (Kind::Type, String::new()),
    })
}

fn contrast_lists(cached: &Collection, stored: &Collection) -> (Kind, String) {
    let items = |list: &Collection| -> Vec<Bytes> {
        list.present().map(|(_, item)| item.value.clone()).collect()
    };
    let (cached, stored) = (items(cached), items(stored));
    let first = cached
        .iter()
        .zip(&stored)
        .take_while(|(one, other)| one == other)
        .count();
    let sorted = |list: &[Bytes]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let kind = match cached.len().cmp(&stored.len()) {
        std::cmp::Ordering::Less => Kind::Missing,
        std::cmp::Ordering::Greater => Kind::Extra,
        std::cmp::Ordering::Equal if sorted(&cached) == sorted(&stored) => Kind::Order,
        std::cmp::Ordering::Equal => Kind::Value,
    };
    let (one, other) = (cached.len(), stored.len());
    (
        kind,
        format!("{one} items in the cache, {other} in the store; from item {first} on"),
    )
}

/// Of streams only the entries' ids are told apart.
fn contrast_fields(cached: &Collection, stored: &Collection) -> (Kind, String) {
    let is_stream = stored.kind() == Type::Stream;
    let counts = |field: &Bytes| !is_stream || field.first() == Some(&STREAM_ENTRY);
    let fields = |all: &Collection| -> BTreeMap<Bytes, Element> {
        let present = all.present().filter(|(field, _)| counts(field));
        present
            .map(|(field, element)| (field.clone(), element.clone()))
            .collect()
    };
    let (cached, stored) = (fields(cached), fields(stored));
    let missing: Vec<&Bytes> = stored
        .keys()
        .filter(|field| !cached.contains_key(*field))
        .collect();
    let extra: Vec<&Bytes> = cached
        .keys()
        .filter(|field| !stored.contains_key(*field))
        .collect();
    if let Some(first) = missing.first() {
        let text = format!(
            "{} missing, {} extra; missing is {}",
            missing.len(),
            extra.len(),
            shown(first)
        );
        return (Kind::Missing, text);
    }
    if let Some(first) = extra.first() {
        return (
            Kind::Extra,
            format!("{} extra; one is {}", extra.len(), shown(first)),
        );
    }
    let other = stored.iter().find(|(field, element)| {
        !is_stream && cached.get(*field).is_some_and(|one| !is_same(one, element))
    });
    let text = other.map_or("entries, counters or groups".to_owned(), |(field, _)| {
        format!("another value or score of {}", shown(field))
    });
    (Kind::Value, text)
}

/// The place of a hash's field in the order of insertion is no content; scores differ by their bits.
fn is_same(one: &Element, other: &Element) -> bool {
    one.value == other.value && (!one.value.is_empty() || one.rank == other.rank)
}

/// Bytes as people read them, shortened.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if cut.len() < bytes.len() { "..." } else { "" };
    format!("\"{}\"{more}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Companion;

    const NOW: UnixMs = UnixMs(1_000_000);

    fn inspected(native: Found, dies_at: Option<i64>, held: Held) -> Inspected {
        Inspected {
            companion: Companion {
                floor: Version(0),
                held,
                expires_at: None,
                is_written: false,
            },
            native,
            dies_at: dies_at.map(UnixMs),
            now: NOW,
        }
    }

    fn stored(value: Option<&str>, version: i64, expires_at: Option<i64>) -> Loaded {
        Loaded {
            version: Version(version),
            content: value.map_or(Content::Absent, |text| {
                Content::Value(Value::String(Bytes::copy_from_slice(text.as_bytes())))
            }),
            expires_at: expires_at.map(UnixMs),
        }
    }

    fn kind(shown: &Inspected, stored: &Loaded) -> Option<Kind> {
        match compare(shown, stored, NOW, 0) {
            Verdict::Differs(difference) => Some(difference.kind),
            _ => None,
        }
    }

    #[test]
    fn what_is_shown_must_be_what_is_stored() {
        let string = |text: &'static str| Found::String(text.into());
        let even = Some(1_000_000_000);
        let plain = |native| inspected(native, even, Held::Unknown);
        assert_eq!(kind(&plain(string("v")), &stored(Some("v"), 3, None)), None);
        assert_eq!(
            kind(&plain(string("w")), &stored(Some("v"), 3, None)),
            Some(Kind::Value)
        );
        assert_eq!(
            kind(&plain(string("w")), &stored(None, 3, None)),
            Some(Kind::Unknown)
        );
        assert_eq!(
            kind(&plain(Found::Nothing), &stored(Some("v"), 3, None)),
            None
        );
        let absent = inspected(Found::Nothing, None, Held::Absent(Version(2)));
        assert_eq!(
            kind(&absent, &stored(Some("v"), 3, None)),
            Some(Kind::Absent)
        );
        assert_eq!(kind(&absent, &stored(None, 3, None)), None);
        let versioned = |version| inspected(string("v"), even, Held::Content(Version(version)));
        assert_eq!(kind(&versioned(3), &stored(Some("v"), 3, None)), None);
        assert_eq!(
            kind(&versioned(2), &stored(Some("v"), 3, None)),
            Some(Kind::Version)
        );
        assert_eq!(
            kind(
                &plain(Found::Foreign("json".into())),
                &stored(Some("v"), 3, None)
            ),
            Some(Kind::Type)
        );
        let mut written = plain(string("w"));
        written.companion.is_written = true;
        assert_eq!(
            compare(&written, &stored(Some("v"), 3, None), NOW, 0),
            Verdict::Written
        );
    }

    #[test]
    fn ends_are_compared_as_far_as_the_cache_tells_of_them() {
        let native = |dies_at| inspected(Found::String("v".into()), dies_at, Held::Unknown);
        let end = NOW.0 + 10_001;
        let ends = stored(Some("v"), 1, Some(end));
        // It dies a little earlier, at an odd millisecond, and tells nothing.
        assert_eq!(kind(&native(Some(end - 20)), &ends), None);
        assert_eq!(kind(&native(Some(end + 60_000)), &ends), Some(Kind::Ttl));
        assert_eq!(kind(&native(None), &ends), Some(Kind::Ttl));
        assert_eq!(
            kind(&native(None), &stored(Some("v"), 1, None)),
            Some(Kind::Ttl)
        );
        // An even one says that the key never ends.
        assert_eq!(kind(&native(Some(end - 21)), &ends), Some(Kind::Ttl));
        let mut told = native(Some(end - 20));
        told.companion.held = Held::Content(Version(1));
        told.companion.expires_at = Some(UnixMs(end));
        assert_eq!(kind(&told, &ends), None);
        told.companion.expires_at = Some(UnixMs(end + 5));
        assert_eq!(kind(&told, &ends), Some(Kind::Ttl));
        // Its end has passed a moment ago.
        let ended = stored(None, 1, Some(NOW.0 - 1));
        assert_eq!(kind(&native(Some(NOW.0 + 10)), &ended), None);
        assert_eq!(
            kind(&native(Some(NOW.0 + 5000)), &ended),
            Some(Kind::Unknown)
        );
    }
}
