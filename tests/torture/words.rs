//! How things are asked for in commands, and what their replies mean.

use super::history::{Ask, Token, Told};
use super::objects::{ACCOUNTS, FIELDS, Thing};
use crate::support::Value;

/// Commands to send together, and how their replies are understood: one thing told for each asked.
pub type Question<'q> = (Vec<Vec<String>>, Box<dyn Fn(&[Value]) -> Vec<Told> + 'q>);

/// A value's text: some are long, and each byte of it is decided by its token.
pub fn text(token: Token) -> String {
    let length = match token % 7 {
        0 => 3_000 + token as usize % 1_000,
        1 => 200,
        _ => 0,
    };
    let fill = char::from(b'a' + (token % 26) as u8);
    let mut text = format!("{token}:");
    text.extend(std::iter::repeat_n(fill, length));
    text
}

/// The token of a value that is there, if it is the whole value of one.
pub fn token(value: &Value) -> Result<Option<Token>, String> {
    if *value == Value::Null {
        return Ok(None);
    }
    let found = value.text().unwrap_or_default();
    let token = found.split(':').next().and_then(|first| first.parse().ok());
    token
        .filter(|token| text(*token) == found)
        .map(Some)
        .ok_or_else(|| format!("no value of ours: {:.100}", format!("{value:?}")))
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn one<'q>(words: &[&str], understand: impl Fn(&Value) -> Told + 'q) -> Question<'q> {
    (
        vec![command(words)],
        Box::new(move |replies| vec![understand(&replies[0])]),
    )
}

fn nonsense(value: &Value) -> Told {
    Told::Nonsense(format!("{:.200}", format!("{value:?}")))
}

fn done(value: &Value) -> Told {
    match value {
        Value::Simple(text) if text == "OK" => Told::Done,
        other => nonsense(other),
    }
}

fn seen(value: &Value) -> Told {
    token(value).map_or_else(Told::Nonsense, Told::Value)
}

fn count(value: &Value) -> Told {
    match value {
        Value::Integer(count @ 0..) => Told::Count(*count as u64),
        other => nonsense(other),
    }
}

/// A value that two places must agree on.
fn both(values: &[Value]) -> Told {
    match values {
        [one, other] if one == other => seen(one),
        _ => Told::Nonsense(format!("torn: {:.300}", format!("{values:?}"))),
    }
}

/// A string that is set and read.
pub fn register<'q>(key: &str, ask: &Ask, choice: usize) -> Question<'q> {
    match ask {
        Ask::Write(token) => one(&["SET", key, &text(*token)], done),
        _ if choice < 90 => one(&["GET", key], seen),
        _ => one(&["MGET", key], |reply| {
            reply.items().first().map_or_else(|| nonsense(reply), seen)
        }),
    }
}

/// A string on which everything is done.
pub fn cell<'q>(key: &str, ask: &Ask) -> Question<'q> {
    match ask {
        Ask::Write(token) => one(&["SET", key, &text(*token)], done),
        Ask::WriteFor(token, ms) => {
            let words = ["SET", key, &text(*token), "PX", &ms.to_string()];
            one(&words, done)
        }
        Ask::WriteNew(token) => one(&["SET", key, &text(*token), "NX"], |reply| match reply {
            Value::Null => Told::Value(None),
            other => done(other),
        }),
        Ask::Swap(token) => one(&["GETSET", key, &text(*token)], seen),
        Ask::Delete => one(&["DEL", key], count),
        Ask::Take => one(&["GETDEL", key], seen),
        _ => one(&["GET", key], seen),
    }
}

/// Two strings that are set together.
pub fn pair<'q>(thing: &Thing, ask: &Ask, choice: usize) -> Question<'q> {
    let (a, b) = (thing.part("a"), thing.part("b"));
    match ask {
        Ask::Write(token) if choice.is_multiple_of(2) => {
            let value = text(*token);
            let commands = vec![
                command(&["MULTI"]),
                command(&["SET", &a, &value]),
                command(&["SET", &b, &value]),
                command(&["EXEC"]),
            ];
            let understand = |replies: &[Value]| match replies.last().map(Value::items) {
                Some([one, other]) if done(one) == Told::Done => vec![done(other)],
                _ => vec![nonsense(&replies[3])],
            };
            (commands, Box::new(understand))
        }
        Ask::Write(token) => {
            let value = text(*token);
            one(&["MSET", &b, &value, &a, &value], done)
        }
        _ if choice < 65 => one(&["MGET", &a, &b], |reply| both(reply.items())),
        _ if choice < 75 => {
            let commands = vec![
                command(&["MULTI"]),
                command(&["GET", &a]),
                command(&["GET", &b]),
                command(&["EXEC"]),
            ];
            (commands, Box::new(|replies| vec![both(replies[3].items())]))
        }
        _ if choice < 88 => one(&["GET", &a], seen),
        _ => one(&["GET", &b], seen),
    }
}

/// A number.
pub fn counter<'q>(key: &str, ask: &Ask) -> Question<'q> {
    match ask {
        Ask::Increment => one(&["INCR", key], count),
        _ => one(&["GET", key], |reply| match reply {
            Value::Null => Told::Value(None),
            other => match other.text().and_then(|text| text.parse().ok()) {
                Some(count) => Told::Count(count),
                None => nonsense(other),
            },
        }),
    }
}

/// A list.
pub fn list<'q>(key: &str, ask: &Ask) -> Question<'q> {
    match ask {
        Ask::Push(token) => one(&["RPUSH", key, &token.to_string()], count),
        Ask::Length => one(&["LLEN", key], count),
        _ => one(&["LRANGE", key, "0", "-1"], items),
    }
}

fn items(reply: &Value) -> Told {
    let items = reply.items().iter();
    let items: Option<Vec<Token>> = items.map(|item| item.text()?.parse().ok()).collect();
    match (reply, items) {
        (Value::Array(_), Some(items)) => Told::Items(items),
        _ => nonsense(reply),
    }
}

/// One field of a hash.
pub fn field<'q>(key: &str, index: usize, ask: &Ask) -> Question<'q> {
    let field = format!("f{index}");
    match ask {
        Ask::Write(token) => one(&["HSET", key, &field, &text(*token)], set_fields),
        _ => one(&["HGET", key, &field], seen),
    }
}

/// The two fields of a hash that are set together.
pub fn field_pair<'q>(key: &str, ask: &Ask) -> Question<'q> {
    match ask {
        Ask::Write(token) => {
            let value = text(*token);
            one(&["HSET", key, "x", &value, "y", &value], set_fields)
        }
        _ => one(&["HMGET", key, "x", "y"], |reply| both(reply.items())),
    }
}

fn set_fields(reply: &Value) -> Told {
    match count(reply) {
        Told::Count(0..=2) => Told::Done,
        _ => nonsense(reply),
    }
}

/// All of a hash: each field, then the pair.
pub fn whole_hash<'q>(key: &str) -> Question<'q> {
    let understand = |replies: &[Value]| {
        let reply = &replies[0];
        let value = |name: &str| -> Value {
            reply
                .items()
                .chunks_exact(2)
                .find(|pair| pair[0].text().as_deref() == Some(name))
                .map_or(Value::Null, |pair| pair[1].clone())
        };
        (0..FIELDS)
            .map(|index| seen(&value(&format!("f{index}"))))
            .chain([both(&[value("x"), value("y")])])
            .collect()
    };
    (vec![command(&["HGETALL", key])], Box::new(understand))
}

/// Accounts.
pub fn bank<'q>(thing: &Thing, ask: &Ask, choice: usize) -> Question<'q> {
    if let Ask::Transfer(from, to, amount) = ask {
        let amount = amount.to_string();
        let commands = vec![
            command(&["MULTI"]),
            command(&["DECRBY", &thing.part(&from.to_string()), &amount]),
            command(&["INCRBY", &thing.part(&to.to_string()), &amount]),
            command(&["INCR", &thing.part("number")]),
            command(&["EXEC"]),
        ];
        let understand = |replies: &[Value]| match replies[4].items() {
            [
                Value::Integer(from),
                Value::Integer(to),
                Value::Integer(number @ 1..),
            ] => vec![Told::Balances(*number as u64, vec![*from, *to])],
            _ => vec![nonsense(&replies[4])],
        };
        return (commands, Box::new(understand));
    }
    let keys = thing.keys();
    if choice < 75 {
        let mut words = vec!["MGET"];
        words.extend(keys.iter().map(String::as_str));
        return one(&words, balances);
    }
    let mut commands = vec![command(&["MULTI"])];
    commands.extend(keys.iter().map(|key| command(&["GET", key])));
    commands.push(command(&["EXEC"]));
    let understand = |replies: &[Value]| {
        vec![
            replies
                .last()
                .map_or(Told::Nonsense("nothing".into()), balances),
        ]
    };
    (commands, Box::new(understand))
}

fn balances(reply: &Value) -> Told {
    let number = |value: &Value| -> Option<i64> {
        match value {
            Value::Null => Some(0),
            other => other.text()?.parse().ok(),
        }
    };
    let all: Option<Vec<i64>> = reply.items().iter().map(number).collect();
    match all {
        Some(mut all) if all.len() == ACCOUNTS + 1 => match all.pop() {
            Some(number @ 0..) => Told::Balances(number as u64, all),
            _ => nonsense(reply),
        },
        _ => nonsense(reply),
    }
}
