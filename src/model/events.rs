//! Notifications of keys: their classes, as `notify-keyspace-events` names them.

use std::fmt;

use super::Key;

/// Classes of events, and the two ways to tell of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventClasses(u32);

/// Each letter and its bit, in the order in which Redis writes them.
const LETTERS: &[(char, EventClasses)] = &[
    ('g', EventClasses::GENERIC),
    ('$', EventClasses::STRING),
    ('l', EventClasses::LIST),
    ('s', EventClasses::SET),
    ('h', EventClasses::HASH),
    ('z', EventClasses::SORTED_SET),
    ('x', EventClasses::EXPIRED),
    ('e', EventClasses::EVICTED),
    ('t', EventClasses::STREAM),
    ('d', EventClasses::MODULE),
    ('n', EventClasses::NEW),
    ('K', EventClasses::KEYSPACE),
    ('E', EventClasses::KEYEVENT),
    ('m', EventClasses::MISS),
];

impl EventClasses {
    /// `K`: told on the channel of the key.
    pub const KEYSPACE: Self = Self(1);
    /// `E`: told on the channel of the event.
    pub const KEYEVENT: Self = Self(1 << 1);
    /// `g`: of keys of any type.
    pub const GENERIC: Self = Self(1 << 2);
    /// `$`: of strings.
    pub const STRING: Self = Self(1 << 3);
    /// `l`: of lists.
    pub const LIST: Self = Self(1 << 4);
    /// `s`: of sets.
    pub const SET: Self = Self(1 << 5);
    /// `h`: of hashes.
    pub const HASH: Self = Self(1 << 6);
    /// `z`: of sorted sets.
    pub const SORTED_SET: Self = Self(1 << 7);
    /// `x`: a key has reached its end.
    pub const EXPIRED: Self = Self(1 << 8);
    /// `e`: a key was evicted, which Freshet never does.
    pub const EVICTED: Self = Self(1 << 9);
    /// `t`: of streams.
    pub const STREAM: Self = Self(1 << 10);
    /// `m`: a key was looked for and not there.
    pub const MISS: Self = Self(1 << 11);
    /// `d`: of types of modules, which Freshet has not.
    pub const MODULE: Self = Self(1 << 13);
    /// `n`: a key was created.
    pub const NEW: Self = Self(1 << 14);
    /// `A`: all but `m` and `n`.
    pub const ALL: Self = Self(0x27fc);

    /// These bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// As bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `other` is among them.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any event would be told.
    pub const fn is_active(self) -> bool {
        let ways = Self::KEYSPACE.0 | Self::KEYEVENT.0;
        self.0 & ways != 0 && self.0 & !ways != 0
    }

    /// Reads letters; `None` if one of them is no class.
    pub fn parse(letters: &[u8]) -> Option<Self> {
        letters.iter().try_fold(Self(0), |classes, &letter| {
            let found = match letter {
                b'A' => Self::ALL,
                letter => {
                    LETTERS
                        .iter()
                        .find(|(l, _)| *l as u32 == u32::from(letter))?
                        .1
                }
            };
            Some(Self(classes.0 | found.0))
        })
    }
}

/// As `CONFIG GET notify-keyspace-events` writes them.
impl fmt::Display for EventClasses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.contains(Self::ALL);
        if all {
            f.write_str("A")?;
        }
        // Redis leaves `n` out behind an `A`, though it is not part of it.
        let within_all = Self(Self::ALL.0 | Self::NEW.0);
        for (letter, class) in LETTERS {
            if self.contains(*class) && !(all && within_all.contains(*class)) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its class.
    pub class: EventClasses,
    /// What happened, in Redis's words.
    pub name: &'static str,
    /// To which key.
    pub key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_written_as_redis_writes_them() {
        for (letters, written) in [
            ("", ""),
            ("KEA", "AKE"),
            ("AnKE", "AKE"),
            ("Elg", "glE"),
            ("g$lshzxetd", "A"),
            ("mKn", "nKm"),
        ] {
            let classes = EventClasses::parse(letters.as_bytes()).unwrap();
            assert_eq!(classes.to_string(), written, "{letters}");
        }
        assert_eq!(EventClasses::parse(b"KEy"), None);
        assert!(!EventClasses::parse(b"KE").unwrap().is_active());
        assert!(EventClasses::parse(b"Kx").unwrap().is_active());
    }
}
