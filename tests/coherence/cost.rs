//! What a command costs in the store: by PostgreSQL's own count of the rows that
//! it touched, not by time.

use std::time::Duration;

use crate::support::{Client, Sql, Stack, Value, process};

/// Elements of the large keys; of the small ones there are [`SMALL`].
const LARGE: usize = 20_000;
const SMALL: usize = 20;

/// So many rows more may all writes together touch where keys are large: of a
/// small one there is sometimes less to look at than is looked for.
const MORE_MAX: i64 = 200;

const LIMIT: Duration = Duration::from_secs(60);

/// Writes on hashes, lists, sets, sorted sets and streams of any size. `{last}` is the last
/// element's number.
const WRITES: &[&str] = &[
    "HSET h f1 new",
    "HSET h more 1",
    "HINCRBY h f2 5",
    "HDEL h f3",
    "LPUSH l new",
    "RPUSH l new",
    "LPOP l",
    "RPOP l",
    "LSET l 0 first",
    "LSET l -1 last",
    "LMOVE l other RIGHT LEFT",
    "LREM l -1 v{last}",
    "LREM l 1 v3",
    "LINSERT l BEFORE v5 new",
    "LTRIM l 2 -1",
    "LTRIM l 0 -3",
    "SADD s new",
    "SREM s m1",
    "SPOP s",
    "SPOP s 3",
    "ZADD z 5 new",
    "ZINCRBY z 2 m4",
    "ZREM z m5",
    "ZPOPMIN z",
    "ZPOPMAX z",
    "ZREMRANGEBYSCORE z -inf -1",
    "ZREMRANGEBYSCORE z -inf 4",
    "ZREMRANGEBYLEX lex - (m10",
    "ZREMRANGEBYLEX lex [x +",
    "ZREMRANGEBYRANK z 0 1",
    "ZREMRANGEBYRANK z -2 -1",
    "XADD x * f v",
    "XADD x MAXLEN ~ 1000000 * f v",
    "XREADGROUP GROUP g c COUNT 2 STREAMS x >",
    "XREADGROUP GROUP g c COUNT 2 STREAMS x 0",
    "XAUTOCLAIM x g d 0 0 COUNT 2",
    "XACK x g 1-1",
    "XDEL x 4-1",
    "XTRIM x MINID 3-1",
];

/// Reads that the store answers, and so many rows more that all together may touch of large keys: three
/// of them tell a page of a hundred elements, of which a small key has fewer.
const READS_OF_PARTS: &[&str] = &[
    "ZRANK z m3",
    "ZREVRANK z m{last}",
    "ZCOUNT z -inf 4",
    "ZCOUNT z ({last} +inf",
    "ZLEXCOUNT lex - (m10",
    "ZRANGEBYLEX lex - + LIMIT 0 2",
    "ZREVRANGEBYLEX lex + - LIMIT 1 2",
    "LPOS l v3",
    "LPOS l v{last} RANK -1",
    "LPOS l none MAXLEN 5",
    "HSCAN h 0",
    "SSCAN s 0",
    "ZSCAN z 0",
];
const PAGES: i64 = 3 * 100;

/// Reads of all kinds that the cache answers.
const READS: &[&str] = &[
    "HGETALL h",
    "HSCAN h 0",
    "LRANGE l 0 -1",
    "LPOS l v3",
    "SMEMBERS s",
    "SSCAN s 0",
    "SINTER s other",
    "SUNION s other",
    "SINTERCARD 2 s other",
    "ZRANK z m3",
    "ZREVRANK z m3",
    "ZCOUNT z -inf +inf",
    "ZRANGE z 0 -1",
    "ZLEXCOUNT lex - +",
    "ZRANGEBYLEX lex - + LIMIT 0 1",
    "ZUNION 2 z lex",
    "ZSCAN z 0",
    "SORT_RO l ALPHA LIMIT 0 1",
    "XRANGE x - + COUNT 1",
];

fn call(client: &mut Client, line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    client.ok(&words).unwrap()
}

/// Fills one key of each type with `size` elements.
fn fill(client: &mut Client, size: usize) {
    for start in (1..=size).step_by(1_000) {
        let numbers: Vec<usize> = (start..=size.min(start + 999)).collect();
        let command = |begin: &[&str], item: &dyn Fn(usize) -> Vec<String>| -> Vec<String> {
            let begin = begin.iter().map(|word| (*word).to_owned());
            begin.chain(numbers.iter().flat_map(|n| item(*n))).collect()
        };
        for words in [
            command(&["HSET", "h"], &|n| vec![format!("f{n}"), n.to_string()]),
            command(&["RPUSH", "l"], &|n| vec![format!("v{n}")]),
            command(&["SADD", "s"], &|n| vec![format!("m{n}")]),
            command(&["ZADD", "z"], &|n| vec![n.to_string(), format!("m{n}")]),
            command(&["ZADD", "lex"], &|n| vec!["0".to_owned(), format!("m{n}")]),
        ] {
            client.ok(&words).unwrap();
        }
        let entries: Vec<Vec<String>> = numbers
            .iter()
            .map(|n| {
                ["XADD", "x", &format!("{n}-1"), "f", "v"]
                    .map(str::to_owned)
                    .to_vec()
            })
            .collect();
        client.pipeline(&entries).unwrap();
    }
    call(client, "XGROUP CREATE x g 0");
}

/// Rows of elements that sessions which have ended read and wrote.
fn touched(sql: &Sql) -> i64 {
    // A session adds to the counters at its end at the latest.
    const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND backend_type = 'client backend'";
    process::await_true("all sessions have ended", LIMIT, || {
        sql.query(OTHERS, &[]).unwrap()[0].get::<_, i64>(0) == 0
    })
    .unwrap();
    let rows = sql
        .query(
            "SELECT (coalesce(idx_tup_fetch, 0) + seq_tup_read + n_tup_ins + n_tup_upd
                     + n_tup_del)::bigint
               FROM pg_stat_user_tables WHERE schemaname = 'freshet' AND relname = 'element'",
            &[],
        )
        .unwrap();
    rows[0].get(0)
}

/// How many rows all of `lines` touch together on keys of `size` elements; `prepare` has been run before.
fn cost(size: usize, settings: &[(&str, &str)], prepare: &[&str], lines: &[&str]) -> i64 {
    let mut stack = Stack::start_with(settings, &[]).unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("ALTER TABLE freshet.element SET (autovacuum_enabled = false)")
        .unwrap();
    let mut client = stack.client().unwrap();
    fill(&mut client, size);
    for line in prepare {
        call(&mut client, line);
    }
    drop(client);
    stack.program.stop().unwrap();
    let before = touched(&sql);
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    for line in lines {
        call(
            &mut client,
            &line.replace("{last}", &(size - 2).to_string()),
        );
    }
    drop(client);
    stack.program.stop().unwrap();
    touched(&sql) - before
}

#[test]
fn what_a_write_touches_does_not_depend_on_the_size_of_its_key() {
    let (small, large) = (cost(SMALL, &[], &[], WRITES), cost(LARGE, &[], &[], WRITES));
    println!("{small} rows for keys of {SMALL} elements, {large} for keys of {LARGE}");
    assert!(
        large < small + MORE_MAX,
        "{small} rows for keys of {SMALL} elements, {large} for keys of {LARGE}"
    );
}

#[test]
fn what_a_read_of_a_part_touches_does_not_depend_on_the_size_of_its_key() {
    let settings = [("cache.fill_elements", "10")];
    let cost = |size| cost(size, &settings, &[], READS_OF_PARTS);
    let (small, large) = (cost(SMALL), cost(LARGE));
    println!("{small} rows for keys of {SMALL} elements, {large} for keys of {LARGE}");
    assert!(
        large < small + PAGES + MORE_MAX,
        "{small} rows for keys of {SMALL} elements, {large} for keys of {LARGE}"
    );
}

#[test]
fn reads_that_the_cache_answers_touch_nothing_in_the_store() {
    let mut prepare = vec!["SADD other m1 x"];
    prepare.extend(READS);
    assert_eq!(cost(SMALL, &[], &prepare, READS), 0);
}
