//! What calls do when no more is loaded than they ask for: asking for more
//! would be an error here.

use bytes::Bytes;

use super::super::dispatch::testing::Session;
use super::rebuild;
use crate::model::{Collection, Db, Effect, Key, UnixMs, Value};

fn session(lines: &[(&str, &str)]) -> Session {
    let mut session = Session {
        now: UnixMs(5_000),
        ..Session::default()
    };
    run(&mut session, lines);
    session
}

fn run(session: &mut Session, lines: &[(&str, &str)]) {
    for (line, reply) in lines {
        assert_eq!(session.text(line), *reply, "{line}");
    }
}

/// The collection that the last call changed.
fn changed(session: &Session) -> &Collection {
    let key = Key::new(Db::default(), "s");
    match session.effects.get(&key) {
        Some(Effect::Whole(entry) | Effect::Delta(entry)) => match &entry.value {
            Value::Collection(collection) => collection,
            Value::String(_) => panic!("a string"),
        },
        other => panic!("{other:?}"),
    }
}

fn logged(session: &Session) -> Vec<String> {
    let words = |command: &Vec<Bytes>| {
        let words: Vec<_> = command.iter().map(|w| String::from_utf8_lossy(w)).collect();
        words.join(" ")
    };
    changed(session).logged().iter().map(words).collect()
}

#[test]
fn adding_loads_nothing_and_is_repeated_with_its_id() {
    let mut s = session(&[
        ("XADD s * a 1", "\"5000-0\""),
        ("XADD s * a 2", "\"5000-1\""),
        ("XADD s 5000-* a 3", "\"5000-2\""),
        (
            "XADD s 4999 a 4",
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ),
        ("XADD none NOMKSTREAM * a 1", "nil"),
        (
            "XADD s * a",
            "-ERR wrong number of arguments for 'xadd' command",
        ),
        ("XLEN s", ":3"),
        ("XADD s 6000-1 a 1 b 2", "\"6000-1\""),
    ]);
    assert_eq!(logged(&s), ["XADD 6000-1 a 1 b 2"]);
    assert_eq!(changed(&s).changes().count(), 1);
    run(
        &mut s,
        &[
            ("XRANGE s 5000-1 + COUNT 1", "[[\"5000-1\" [\"a\" \"2\"]]]"),
            (
                "XREAD COUNT 1 STREAMS s 5000-2",
                "{\"s\"=[[\"6000-1\" [\"a\" \"1\" \"b\" \"2\"]]]}",
            ),
            ("XREAD BLOCK 0 STREAMS s $", "NullArray"),
            ("XDEL s 5000-1 9-9", ":1"),
        ],
    );
    assert_eq!(logged(&s), ["XDEL 5000-1"]);
}

#[test]
fn trimming_as_one_adds_takes_the_first() {
    let mut s = session(&[
        ("XADD s 1-1 a 1", "\"1-1\""),
        ("XADD s 1-2 a 1", "\"1-2\""),
        ("XADD s MAXLEN 2 1-3 a 1", "\"1-3\""),
    ]);
    assert_eq!(logged(&s), ["XADD 1-3 a 1", "XTRIM MINID = 1-2"]);
    run(&mut s, &[("XADD s MINID 1-3 1-4 a 1", "\"1-4\"")]);
    assert_eq!(logged(&s), ["XADD 1-4 a 1", "XTRIM MINID = 1-3"]);
    run(&mut s, &[("XADD s MAXLEN ~ 1 1-5 a 1", "\"1-5\"")]);
    assert_eq!(logged(&s), ["XADD 1-5 a 1"], "a block stays whole");
    run(&mut s, &[("XTRIM s MAXLEN 0", ":3")]);
    assert_eq!(logged(&s), ["XTRIM MAXLEN = 0"]);
    run(
        &mut s,
        &[
            ("XLEN s", ":0"),
            ("EXISTS s", ":1"),
            (
                "XADD s 1-5 a 1",
                "-ERR The ID specified in XADD is equal or smaller than the target stream top item",
            ),
        ],
    );
}

#[test]
fn a_long_stream_is_trimmed_in_steps() {
    let mut s = session(&[]);
    let mut longest = 0;
    for seq in 1..=900 {
        s.text(&format!("XADD s MAXLEN ~ 200 1-{seq} a 1"));
        let length: u64 = s.text("XLEN s")[1..].parse().unwrap();
        longest = longest.max(length);
        assert!(length >= seq.min(200), "{length} after {seq}");
    }
    assert!(longest <= 300, "{longest}");
}

#[test]
fn a_group_reads_and_acknowledges_with_little_loaded() {
    let mut s = session(&[
        ("XADD s 1-1 a 1", "\"1-1\""),
        ("XADD s 1-2 a 2", "\"1-2\""),
        ("XADD s 1-3 a 3", "\"1-3\""),
        ("XGROUP CREATE s g 0", "OK"),
        (
            "XREADGROUP GROUP g c COUNT 2 STREAMS s >",
            "{\"s\"=[[\"1-1\" [\"a\" \"1\"]] [\"1-2\" [\"a\" \"2\"]]]}",
        ),
    ]);
    assert_eq!(
        logged(&s),
        [
            "XGROUP CREATECONSUMER g c",
            "XCLAIM g c 0 1-1 1-2 TIME 5000 RETRYCOUNT 1 FORCE JUSTID",
            "XGROUP SETID g 1-2 ENTRIESREAD 2",
        ]
    );
    run(
        &mut s,
        &[
            ("XACK s g 1-1 1-3", ":1"),
            ("XACK s none x", ":0"),
            ("XPENDING s g", "[:1 \"1-2\" \"1-2\" [[\"c\" \"1\"]]]"),
            ("XCLAIM s g d 0 1-2 JUSTID", "[\"1-2\"]"),
            (
                "XREADGROUP GROUP g d STREAMS s 0",
                "{\"s\"=[[\"1-2\" [\"a\" \"2\"]]]}",
            ),
            ("XDEL s 1-2", ":1"),
            (
                "XREADGROUP GROUP g d STREAMS s 0",
                "{\"s\"=[[\"1-2\" NullArray]]}",
            ),
            ("XAUTOCLAIM s g c 0 0", "[\"0-0\" [] [\"1-2\"]]"),
            (
                "XREADGROUP GROUP g c NOACK STREAMS s >",
                "{\"s\"=[[\"1-3\" [\"a\" \"3\"]]]}",
            ),
            ("XREADGROUP GROUP g c STREAMS s >", "NullArray"),
        ],
    );
    assert!(s.effects.is_empty(), "reading in vain writes nothing");
    run(&mut s, &[("XPENDING s g", "[:0 nil nil NullArray]")]);
}

#[test]
fn no_commands_make_a_stream_whose_group_has_read_more_than_they_can_say() {
    let mut s = session(&[
        ("XADD s 1-1 a 1", "\"1-1\""),
        ("XGROUP CREATE s g 0 ENTRIESREAD 9223372036854775807", "OK"),
    ]);
    let rebuilt = |s: &Session| {
        let Value::Collection(stream) = &s.entries.values().next().unwrap().value else {
            panic!("it is a stream");
        };
        rebuild(stream).is_ok()
    };
    assert!(rebuilt(&s));
    s.text("XREADGROUP GROUP g c STREAMS s >");
    assert!(!rebuilt(&s));
}
