//! Keys of which more must not be loaded than `postgres.load_limit`: what counts, searches or takes
//! a part is answered as by Redis, and what needs the whole is refused and changes nothing.

use crate::support::{Client, Redis, Stack, Value};

/// Members of each large key; of [`item`]'s length they are more than the limit together.
const LARGE: usize = 9_000;
/// Long members with one score and one beginning, which PostgreSQL's index does not tell apart.
const LONG: usize = 30;

const SETTINGS: &[(&str, &str)] = &[
    ("postgres.load_limit", "1MB"),
    ("cache.fill_elements", "10"),
];

const REFUSAL: &str = "this needs more than 1 MB of data at once (postgres.load_limit)";

fn item(number: usize) -> String {
    format!("{number:06}{}", "x".repeat(150))
}

/// Not in the order of their numbers by what PostgreSQL knows of them.
fn long(number: usize) -> String {
    format!("{}{number:06}", "x".repeat(1_100))
}

/// Words, of which `N<number>` is an item and `L<number>` a long one.
fn words(line: &str) -> Vec<String> {
    let word = |word: &str| {
        let (mark, rest) = match word.strip_prefix(['[', '(']) {
            Some(rest) => (&word[..1], rest),
            None => ("", word),
        };
        let number = |text: &str| text.parse::<usize>().ok();
        if let Some(number) = rest.strip_prefix('N').and_then(number) {
            return format!("{mark}{}", item(number));
        }
        match rest.strip_prefix('L').and_then(number) {
            Some(number) => format!("{mark}{}", long(number)),
            None => word.to_owned(),
        }
    };
    line.split(' ').map(word).collect()
}

fn fill(client: &mut Client) {
    for start in (0..LARGE).step_by(1_000) {
        let numbers: Vec<usize> = (start..LARGE.min(start + 1_000)).collect();
        let command = |begin: &[&str], of: &dyn Fn(usize) -> Vec<String>| -> Vec<String> {
            let begin = begin.iter().map(|word| (*word).to_owned());
            begin.chain(numbers.iter().flat_map(|n| of(*n))).collect()
        };
        for words in [
            command(&["HSET", "h"], &|n| vec![item(n), n.to_string()]),
            command(&["RPUSH", "l"], &|n| vec![item(n % 4_000)]),
            command(&["SADD", "s"], &|n| vec![item(n)]),
            command(&["ZADD", "z"], &|n| vec![(n / 10).to_string(), item(n)]),
            command(&["ZADD", "lex"], &|n| vec!["1.5".to_owned(), item(n)]),
        ] {
            client.ok(&words).unwrap();
        }
    }
    for number in 0..LONG {
        client
            .ok(&words(&format!("ZADD long 7 L{number}")))
            .unwrap();
    }
    client
        .ok(&["ZADD", "long", "7", &"x".repeat(1_024)])
        .unwrap();
    client
        .ok(&["ZADD", "long", "7", "w", "6", "z", "8", "a"])
        .unwrap();
}

/// Answered by what is counted or found by an index.
const SERVED: &[&str] = &[
    "ZRANK z N0",
    "ZRANK z N4567",
    "ZREVRANK z N4567",
    "ZREVRANK z N8999",
    "ZRANK z none",
    "ZRANK lex N4444",
    "ZREVRANK lex N4444",
    "ZCOUNT z -inf +inf",
    "ZCOUNT z (100 +inf",
    "ZCOUNT z 100 (300",
    "ZCOUNT z 300 100",
    "ZLEXCOUNT lex - +",
    "ZLEXCOUNT lex [N100 (N8000",
    "ZLEXCOUNT lex (N100 [N8000",
    "ZLEXCOUNT lex + -",
    "ZRANGEBYLEX lex [N100 + LIMIT 0 2",
    "ZRANGEBYLEX lex (N100 [N103",
    "ZREVRANGEBYLEX lex (N100 - LIMIT 1 2",
    "ZRANGE lex (N100 - BYLEX REV LIMIT 0 3",
    "ZRANGESTORE to lex [N100 [N110 BYLEX",
    "ZRANGESTORE to z 100 (101 BYSCORE",
    "ZRANGESTORE to z -3 -1",
    "ZREMRANGEBYLEX lex [N10 (N13",
    "ZREMRANGEBYSCORE z 50 51",
    "ZREMRANGEBYRANK z 0 4",
    "ZRANK z N4567",
    "ZRANK lex N4444",
    "LPOS l N3999",
    "LPOS l N5 RANK 2",
    "LPOS l N5 RANK 3",
    "LPOS l N5 RANK 4",
    "LPOS l N5 RANK -1",
    "LPOS l N5 RANK -2 COUNT 2",
    "LPOS l N5 COUNT 0",
    "LPOS l N5 COUNT 0 MAXLEN 4006",
    "LPOS l N5 RANK -1 COUNT 0 MAXLEN 5000",
    "LPOS l none",
    "LPOS l none COUNT 1",
    "LREM l 1 N5",
    "LPOS l N5",
    "SISMEMBER s N7",
    "HGET h N7",
    "ZRANK long L0",
    "ZRANK long L17",
    "ZREVRANK long L17",
    "ZREVRANK long L29",
    "ZRANK long w",
    "ZREVRANK long w",
    "ZREVRANK long a",
    "ZCOUNT long 7 7",
    "ZLEXCOUNT long - +",
    "ZRANK long z",
];

/// Need all of a key.
const REFUSED: &[&str] = &[
    "SMEMBERS s",
    "HGETALL h",
    "LRANGE l 0 -1",
    "ZRANGE z 0 -1",
    "SORT l ALPHA",
    "SORT l ALPHA STORE to",
    "SORT_RO l ALPHA",
    "SINTERSTORE to s s",
    "SDIFF s to",
    "ZUNIONSTORE to 2 z lex",
    "ZREMRANGEBYSCORE z -inf +inf",
    "ZREMRANGEBYLEX lex - +",
    "SPOP s 8999",
    "LTRIM l 8000 -1",
];

fn run(client: &mut Client, line: &str) -> Value {
    client.call(&words(line)).unwrap()
}

#[test]
fn what_counts_searches_or_takes_a_part_needs_no_whole_key() {
    let stack = Stack::start_with(SETTINGS, &[]).unwrap();
    let judge = Redis::start().unwrap();
    let (mut ours, mut theirs) = (stack.client().unwrap(), judge.client().unwrap());
    fill(&mut ours);
    fill(&mut theirs);
    for line in SERVED {
        assert_eq!(run(&mut ours, line), run(&mut theirs, line), "{line}");
    }
    // Within one unit what was counted is corrected by what the unit changed.
    let block = [
        "MULTI",
        "ZADD z 0 new",
        "ZRANK z N4567",
        "ZADD z 900 N20",
        "ZREM z N30",
        "ZRANK z N4567",
        "ZREVRANK z N4567",
        "ZRANK z N20",
        "ZREVRANK z new",
        "ZCOUNT z 1 (200",
        "ZADD lex 1.5 a",
        "ZLEXCOUNT lex [N100 +",
        "ZRANGEBYLEX lex - + LIMIT 0 1",
        "EXEC",
    ];
    for line in block {
        assert_eq!(run(&mut ours, line), run(&mut theirs, line), "{line}");
    }
}

#[test]
fn what_needs_more_than_may_be_loaded_is_refused_and_changes_nothing() {
    let stack = Stack::start_with(SETTINGS, &[]).unwrap();
    let mut client = stack.client().unwrap();
    fill(&mut client);
    client.ok(&["SADD", "to", "old"]).unwrap();
    let sizes = ["LLEN l", "SCARD s", "ZCARD z", "ZCARD lex", "SCARD to"];
    let before: Vec<Value> = sizes.iter().map(|line| run(&mut client, line)).collect();
    for line in REFUSED {
        // Those who are served in the same batch do not notice.
        let batch = [words("INCR n"), words(line), words("INCR n")];
        let replies = client.pipeline(&batch).unwrap();
        let error = replies[1].error().unwrap_or_default();
        assert!(error.ends_with(REFUSAL), "{line}: {:?}", replies[1]);
        assert!(
            replies[0].error().is_none() && replies[2].error().is_none(),
            "{line}: {replies:?}"
        );
    }
    assert_eq!(
        client.text(&["GET", "n"]).unwrap(),
        (2 * REFUSED.len()).to_string()
    );
    let after: Vec<Value> = sizes.iter().map(|line| run(&mut client, line)).collect();
    assert_eq!(before, after);
}
