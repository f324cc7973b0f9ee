//! A collection as commands: those that make it in an empty cache, and those
//! that repeat on the key in the cache what was done to it.

use std::cmp::Reverse;

use bytes::Bytes;

use super::NotLoaded;
use crate::model::{CacheCommand, Collection, Element, Kind};

/// Arguments in one command at most: Redis's Lua can pass some thousands.
const ARGUMENTS_MAX: usize = 1000;

/// The commands that make `collection` where nothing is.
///
/// # Errors
/// Unless everything is known; and for a stream that no commands make.
pub fn rebuild(collection: &Collection) -> Result<Vec<CacheCommand>, NotLoaded> {
    let mut all: Vec<(&Bytes, &Element)> = collection.iter()?.collect();
    Ok(match collection.kind() {
        Kind::Hash => {
            // A small hash tells its fields in the order of insertion.
            all.sort_by(|one, other| one.1.rank.total_cmp(&other.1.rank));
            commands("HSET", all.into_iter().map(field_and_value))
        }
        Kind::List => commands(
            "RPUSH",
            all.into_iter().map(|(_, item)| [item.value.clone()]),
        ),
        Kind::Set => commands("SADD", all.into_iter().map(|(member, _)| [member.clone()])),
        Kind::SortedSet => {
            put_scores(&mut all);
            commands("ZADD", all.into_iter().map(score_and_member))
        }
        Kind::Stream => return super::stream::rebuild(collection),
        Kind::String => Vec::new(),
    })
}

/// The commands that do to the key in the cache what was done to `collection`.
pub fn repeat(collection: &Collection) -> Vec<CacheCommand> {
    let put = collection
        .changes()
        .filter_map(|(field, now)| Some((field, now?)));
    let gone = collection
        .changes()
        .filter(|(_, now)| now.is_none())
        .map(|(field, _)| [field.clone()]);
    let (mut removals, additions) = match collection.kind() {
        Kind::Hash => {
            let mut put: Vec<(&Bytes, &Element)> = put.collect();
            put.sort_by(|one, other| one.1.rank.total_cmp(&other.1.rank));
            (
                commands("HDEL", gone),
                commands("HSET", put.into_iter().map(field_and_value)),
            )
        }
        Kind::Set => (
            commands("SREM", gone),
            commands("SADD", put.map(|(member, _)| [member.clone()])),
        ),
        Kind::SortedSet => {
            let mut put: Vec<(&Bytes, &Element)> = put.collect();
            put_scores(&mut put);
            (
                commands("ZREM", gone),
                commands("ZADD", put.into_iter().map(score_and_member)),
            )
        }
        Kind::List | Kind::Stream => return collection.logged().to_vec(),
        Kind::String => return Vec::new(),
    };
    // Additions first: a key that is empty for a moment would be gone, and its expiry with it.
    let mut all = additions;
    all.append(&mut removals);
    all
}

/// Brings members into an order in which Redis keeps the score -0, where there is one: in a small
/// sorted set it becomes 0, so what makes the set a large one comes first, long members or many.
fn put_scores(members: &mut [(&Bytes, &Element)]) {
    let is_minus_zero = |element: &Element| element.rank == 0.0 && element.rank.is_sign_negative();
    if members.iter().any(|(_, element)| is_minus_zero(element)) {
        members.sort_by_key(|(member, element)| (is_minus_zero(element), Reverse(member.len())));
    }
}

fn field_and_value((field, element): (&Bytes, &Element)) -> [Bytes; 2] {
    [field.clone(), element.value.clone()]
}

fn score_and_member((member, element): (&Bytes, &Element)) -> [Bytes; 2] {
    // The shortest text that reads back as the same number.
    [Bytes::from(element.rank.to_string()), member.clone()]
}

/// `name` with the arguments of many, in as many commands as are needed.
fn commands<const WIDTH: usize>(
    name: &'static str,
    arguments: impl Iterator<Item = [Bytes; WIDTH]>,
) -> Vec<CacheCommand> {
    let mut all: Vec<CacheCommand> = Vec::new();
    for group in arguments {
        match all.last_mut() {
            Some(command) if command.len() + WIDTH <= ARGUMENTS_MAX => command.extend(group),
            _ => {
                let mut command = vec![Bytes::from_static(name.as_bytes())];
                command.extend(group);
                all.push(command);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &CacheCommand) -> String {
        let words: Vec<_> = command
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        words.join(" ")
    }

    #[test]
    fn changes_are_repeated_and_wholes_rebuilt() {
        let mut zset = Collection::new(Kind::SortedSet);
        for (member, rank) in [("a", 1.5), ("b", f64::NEG_INFINITY)] {
            let element = Element {
                rank,
                ..Element::default()
            };
            zset.set(member.into(), element).unwrap();
        }
        let made: Vec<String> = rebuild(&zset).unwrap().iter().map(words).collect();
        assert_eq!(made, ["ZADD 1.5 a -inf b"]);
        zset.settle();
        zset.remove(b"b").unwrap();
        let one = Element {
            rank: 1e300,
            ..Element::default()
        };
        zset.set("c".into(), one).unwrap();
        let told: Vec<String> = repeat(&zset).iter().map(words).collect();
        assert_eq!(told[1], "ZREM b");
        assert!(told[0].starts_with("ZADD 1"), "{told:?}");
    }

    #[test]
    fn what_makes_a_sorted_set_large_comes_before_minus_zero() {
        let long = "m".repeat(65);
        let mut zset = Collection::new(Kind::SortedSet);
        for (member, rank) in [("", -0.0), ("a", 1.0), (&*long, 2.0)] {
            let element = Element {
                rank,
                ..Element::default()
            };
            zset.set(Bytes::from(member.to_owned()), element).unwrap();
        }
        let expected = format!("ZADD 2 {long} 1 a -0 ");
        let told: Vec<String> = repeat(&zset).iter().map(words).collect();
        assert_eq!(told, [&*expected]);
        zset.settle();
        let made: Vec<String> = rebuild(&zset).unwrap().iter().map(words).collect();
        assert_eq!(made, [expected]);
    }

    #[test]
    fn a_command_has_a_bounded_number_of_arguments() {
        let mut set = Collection::new(Kind::Set);
        for member in 0..2500 {
            set.set(member.to_string().into(), Element::default())
                .unwrap();
        }
        let made = rebuild(&set).unwrap();
        assert_eq!(
            made.iter().map(|command| command.len() - 1).sum::<usize>(),
            2500
        );
        assert!(made.iter().all(|command| command.len() <= ARGUMENTS_MAX));
    }
}
