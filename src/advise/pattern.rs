//! Which keys belong together: those that differ only in what looks like a number or a name.

use std::collections::BTreeMap;

/// What parts of keys end with.
const ENDS: &[char] = &[':', '/', '.', '|'];
/// A longer part is no word that a program was written with.
const WORD_MAX: usize = 24;
/// Different words in one place from which on they are names.
const WORDS_MAX: usize = 12;

/// The pattern of a key: `user:42:cart` is one of `user:*:cart`.
pub fn of(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let parts = text.split_inclusive(ENDS).map(|part| {
        let word = part.trim_end_matches(ENDS);
        let end = &part[word.len()..];
        let is_word = word.len() <= WORD_MAX
            && !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_alphabetic() || "-_{}".contains(c));
        match is_word || word.is_empty() {
            true => part.to_owned(),
            false => format!("*{end}"),
        }
    });
    let pattern: String = parts.collect();
    match pattern.is_empty() {
        true => "*".to_owned(),
        false => pattern,
    }
}

/// Puts together patterns that differ in one part only, if they are many: `session:ann` and all
/// others are `session:*`. The first part is never a name, but in keys that have only one.
pub fn join<T>(mut all: BTreeMap<String, T>, add: impl Fn(&mut T, T)) -> BTreeMap<String, T> {
    let longest = all.keys().map(|key| parts(key).len()).max().unwrap_or(0);
    for place in (0..longest).rev() {
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for key in all.keys() {
            if let Some(wider) = wider(key, place) {
                *groups.entry(wider).or_default() += 1;
            }
        }
        let mut joined: BTreeMap<String, T> = BTreeMap::new();
        for (key, value) in all {
            let wider = wider(&key, place);
            let wider = wider.filter(|wider| groups[wider] > WORDS_MAX);
            match joined.entry(wider.unwrap_or(key)) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(value);
                }
                std::collections::btree_map::Entry::Occupied(mut there) => {
                    add(there.get_mut(), value);
                }
            }
        }
        all = joined;
    }
    all
}

fn parts(pattern: &str) -> Vec<&str> {
    pattern.split_inclusive(ENDS).collect()
}

/// The pattern with anything in that place; none if that must not be.
fn wider(pattern: &str, place: usize) -> Option<String> {
    let mut parts: Vec<String> = parts(pattern).into_iter().map(str::to_owned).collect();
    if place == 0 && parts.len() > 1 {
        return None;
    }
    let part = parts.get_mut(place)?;
    let end = part.len() - part.trim_end_matches(ENDS).len();
    *part = format!("*{}", &part[part.len() - end..]);
    Some(parts.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_number_is_any() {
        for (key, expected) in [
            ("user:42:cart", "user:*:cart"),
            ("session:9f1c", "session:*"),
            ("bull:mail:wait", "bull:mail:wait"),
            ("limit:203.0.113.7", "limit:*.*.*.*"),
            ("plain", "plain"),
            ("a@b.example", "*.example"),
            ("", "*"),
        ] {
            assert_eq!(of(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn many_words_in_one_place_are_names() {
        let names = ('a'..='z').map(|c| (format!("session:{c}{c}"), 1));
        let fixed = [
            ("config:theme".to_owned(), 1),
            ("config:limits".to_owned(), 1),
        ];
        let joined = join(names.chain(fixed).collect(), |one, other| *one += other);
        let expected = [("config:limits", 1), ("config:theme", 1), ("session:*", 26)];
        let expected: BTreeMap<String, i32> =
            expected.map(|(key, count)| (key.to_owned(), count)).into();
        assert_eq!(joined, expected);
    }
}
