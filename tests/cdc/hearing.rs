//! Who hears of what SQL changes: those who wait, those who keep copies, those who subscribe; and
//! what is not told of.

use super::{LIMIT, await_value};
use crate::moving;
use crate::support::{Client, Redis, Stack, Value, process};

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().filter_map(Value::text).collect()
}

#[test]
fn clients_that_wait_at_any_proxy_are_served() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let sql = stack.sql().unwrap();
    for program in [&stack.program, &second] {
        let mut waiting = program.client().unwrap();
        waiting.send(&["BLPOP", "queue", "0"]).unwrap();
        let mut observer = program.client().unwrap();
        process::await_true("it waits", LIMIT, || {
            let info = observer.text(&["INFO", "clients"]).unwrap();
            info.contains("blocked_clients:1\r\n")
        })
        .unwrap();
        sql.execute("SELECT freshet.rpush('queue', 'job')").unwrap();
        assert_eq!(texts(&waiting.read().unwrap()), ["queue", "job"]);
    }
    let mut client = stack.client().unwrap();
    assert_eq!(client.integer(&["EXISTS", "queue"]).unwrap(), 0);
}

#[test]
fn copies_at_any_proxy_are_invalidated_behind_the_cache() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("SELECT freshet.set('a', '0')").unwrap();
    for program in [&stack.program, &second] {
        let mut reader = program.client().unwrap();
        await_value(&mut reader, "a", Some("0"));
        reader.ok(&["HELLO", "3"]).unwrap();
        reader.ok(&["CLIENT", "TRACKING", "ON"]).unwrap();
        for value in 1..30 {
            reader.ok(&["GET", "a"]).unwrap();
            sql.execute(&format!("SELECT freshet.set('a', '{value}')"))
                .unwrap();
            let push = reader.read().unwrap();
            assert_eq!(texts(&push.items()[1]), ["a"]);
            // Who reads because of it reads the new value.
            assert_eq!(reader.text(&["GET", "a"]).unwrap(), value.to_string());
        }
        sql.execute("SELECT freshet.set('a', '0')").unwrap();
        reader.read().unwrap();
    }
}

/// Runs on Freshet's SQL and on a plain Redis, and compares the events that both tell of.
#[test]
fn events_are_those_of_the_commands() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let sql = stack.sql().unwrap();
    let mut theirs = judge.client().unwrap();
    let mut listeners: Vec<Client> = vec![stack.client().unwrap(), judge.client().unwrap()];
    for (mut client, listener) in [stack.client().unwrap(), judge.client().unwrap()]
        .into_iter()
        .zip(&mut listeners)
    {
        client
            .ok(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
            .unwrap();
        listener.ok(&["PSUBSCRIBE", "__key*__:*"]).unwrap();
    }
    for (call, command) in [
        ("set('s', '1')", "SET s 1"),
        ("set('s', '1', '100 s')", "SET s 1 EX 100"),
        ("incrby('s', 2)", "INCRBY s 2"),
        ("expire('s', '100 s')", "EXPIRE s 100"),
        ("persist('s')", "PERSIST s"),
        ("hset('h', 'f', 'v')", "HSET h f v"),
        ("hdel('h', 'f')", "HDEL h f"),
        ("rpush('l', 'x')", "RPUSH l x"),
        ("lpush('l', 'x')", "LPUSH l x"),
        ("sadd('t', 'x')", "SADD t x"),
        ("sadd('t', 'x')", "SADD t x"),
        ("srem('t', 'x')", "SREM t x"),
        ("zadd('z', 1, 'x')", "ZADD z 1 x"),
        ("zrem('z', 'x')", "ZREM z x"),
        ("expire('l', '-1 s')", "EXPIRE l -1"),
        ("del('s')", "DEL s"),
        ("set('end', '')", "SET end x"),
    ] {
        sql.execute(&format!("SELECT freshet.{call}")).unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        theirs.ok(&words).unwrap();
    }
    let told: Vec<Vec<Vec<String>>> = listeners.iter_mut().map(until_end).collect();
    assert_eq!(told[0], told[1]);
}

fn until_end(listener: &mut Client) -> Vec<Vec<String>> {
    let mut told = Vec::new();
    loop {
        let message = texts(&listener.read().unwrap());
        let is_last = message[2] == "__keyevent@0__:set" && message[3] == "end";
        told.push(message);
        if is_last {
            return told;
        }
    }
}

#[test]
fn what_is_rolled_back_leaves_nothing() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    client.ok(&["SET", "a", "1"]).unwrap();
    let before = sql.query("SELECT version FROM freshet.keys", &[]).unwrap();
    sql.execute(
        "BEGIN; SELECT freshet.set('a', '2'), freshet.hset('h', 'f', 'v'), freshet.rpush('l', 'x');
         UPDATE freshet.keys SET value = '3' WHERE key = 'a'; ROLLBACK",
    )
    .unwrap();
    // Told in this order: when the last is shown, the first would have been.
    sql.execute("SELECT freshet.set('b', '1')").unwrap();
    await_value(&mut client, "b", Some("1"));
    assert_eq!(client.text(&["GET", "a"]).unwrap(), "1");
    assert_eq!(client.integer(&["EXISTS", "h", "l"]).unwrap(), 0);
    let rows = sql
        .query("SELECT version FROM freshet.keys WHERE key <> 'b'", &[])
        .unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, i64>(0), before[0].get::<_, i64>(0));
    let left = sql.query("SELECT FROM freshet.element", &[]).unwrap();
    assert!(left.is_empty());
}

/// Transactions do not commit in the order in which they began.
#[test]
fn an_open_transaction_holds_up_nobody_and_is_not_missed() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    let late: Vec<_> = (0..3).map(|_| stack.sql().unwrap()).collect();
    for (number, late) in late.iter().enumerate() {
        client.ok(&["GET", &format!("late:{number}")]).unwrap();
        let call = format!("BEGIN; SELECT freshet.set('late:{number}', 'v')");
        late.execute(&call).unwrap();
    }
    for round in 0..1500 {
        let value = round.to_string();
        let key = format!("key:{}", round % 10);
        sql.execute(&format!("SELECT freshet.set('{key}', '{value}')"))
            .unwrap();
        if round % 100 == 0 {
            await_value(&mut client, &key, Some(&value));
        }
        if round % 500 == 250 {
            let number = round / 500;
            let key = format!("late:{number}");
            assert_eq!(client.ok(&["GET", &key]).unwrap().text(), None);
            late[number].execute("COMMIT").unwrap();
            await_value(&mut client, &key, Some("v"));
        }
    }
    // More than are read at once, of one transaction.
    let all = "SELECT freshet.set('many:' || n, 'v') FROM generate_series(1, 1700) n";
    client.ok(&["GET", "many:1"]).unwrap();
    client.ok(&["GET", "many:1700"]).unwrap();
    sql.execute(all).unwrap();
    await_value(&mut client, "many:1", Some("v"));
    await_value(&mut client, "many:1700", Some("v"));
    process::await_true("all are told of", LIMIT, || {
        let left = sql.query("SELECT FROM freshet.change", &[]).unwrap();
        left.is_empty()
    })
    .unwrap();
}

#[test]
fn one_transaction_with_tables_of_ones_own() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("CREATE TABLE stock (item text PRIMARY KEY, n int NOT NULL CHECK (n >= 0))")
        .unwrap();
    sql.execute("INSERT INTO stock VALUES ('cup', 1); SELECT freshet.set('stock:cup', '1')")
        .unwrap();
    await_value(&mut client, "stock:cup", Some("1"));
    let take = "UPDATE stock SET n = n - 1 WHERE item = 'cup';
                SELECT freshet.incrby('stock:cup', -1)";
    sql.execute(&format!("BEGIN; {take}; COMMIT")).unwrap();
    await_value(&mut client, "stock:cup", Some("0"));
    sql.execute(&format!("BEGIN; {take}; COMMIT")).unwrap_err();
    sql.execute("ROLLBACK").unwrap();
    sql.execute("SELECT freshet.set('later', 'x')").unwrap();
    await_value(&mut client, "later", Some("x"));
    assert_eq!(client.text(&["GET", "stock:cup"]).unwrap(), "0");
}

/// Nobody tells the cache here: only what must not wait for that is read.
#[test]
fn who_must_not_read_late_reads_in_a_block() {
    let stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    for round in 0..20 {
        let value = round.to_string();
        client.ok(&["GET", "k"]).unwrap();
        sql.execute(&format!("SELECT freshet.set('k', '{value}')"))
            .unwrap();
        client.ok(&["MULTI"]).unwrap();
        client.ok(&["GET", "k"]).unwrap();
        assert_eq!(texts(&client.ok(&["EXEC"]).unwrap()), [value.as_str()]);
        // And nobody reads what was before that any more.
        let mut other = stack.client().unwrap();
        assert_eq!(other.text(&["GET", "k"]).unwrap(), value);
    }
    // What is guarded is guarded against SQL too.
    client.ok(&["WATCH", "k"]).unwrap();
    sql.execute("SELECT freshet.set('k', 'sql')").unwrap();
    client.ok(&["MULTI"]).unwrap();
    client.ok(&["SET", "k", "mine"]).unwrap();
    assert_eq!(client.ok(&["EXEC"]).unwrap(), Value::Null);
    assert_eq!(client.text(&["GET", "k"]).unwrap(), "sql");
}

/// Such a key must not be taken for the name of something in the cache.
#[test]
fn keys_that_look_like_the_caches_own_names_do_no_harm() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    client.ok(&["SET", "k", "v"]).unwrap();
    client.ok(&["GET", "k"]).unwrap();
    let before = stack.program.metric("freshet_generation").unwrap();
    for name in ["\0f:gen", "\0fc{k}", "\0f"] {
        let call = "SELECT freshet.set($1::bytea, 'v'::bytea)";
        sql.query(call, &[&name.as_bytes()]).unwrap();
        assert_eq!(client.text(&["GET", name]).unwrap(), "v");
    }
    sql.execute("SELECT freshet.set('k', 'w')").unwrap();
    await_value(&mut client, "k", Some("w"));
    client.ok(&["SET", "k", "x"]).unwrap();
    assert_eq!(stack.program.metric("freshet_generation").unwrap(), before);
}

/// What the cache was not told of yet is no damage; what it shows besides is.
#[test]
fn comparing_waits_for_what_is_not_told_yet() {
    let stack = Stack::start_with(&[("cdc.capture", "off")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    client.ok(&["MSET", "untold", "1", "damaged", "1"]).unwrap();
    sql.execute("SELECT freshet.set('untold', '2')").unwrap();
    assert_eq!(client.text(&["GET", "untold"]).unwrap(), "1");
    let compared = moving::run(&stack, &["reconcile"]).unwrap();
    assert_eq!(compared.code, 0, "{}{}", compared.out, compared.err);
    assert!(
        compared.out.contains("0 differ, 0 repaired, 1 undecided"),
        "{}",
        compared.out
    );
    sql.execute(
        "SET freshet.writer = 'nobody'; UPDATE freshet.keys SET value = '2' WHERE key = 'damaged'",
    )
    .unwrap();
    let compared = moving::run(&stack, &["reconcile"]).unwrap();
    assert_eq!(compared.code, 1);
    assert!(
        compared.out.contains("1 differ, 0 repaired, 1 undecided"),
        "{}",
        compared.out
    );
    let _second = stack.second_program().unwrap();
    await_value(&mut client, "untold", Some("2"));
    let compared = moving::run(&stack, &["reconcile", "--repair"]).unwrap();
    assert!(
        compared.out.contains("1 differ, 1 repaired, 0 undecided"),
        "{}",
        compared.out
    );
}

#[test]
fn a_flush_takes_what_sql_wrote_and_sql_writes_on() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    for round in 0..3 {
        sql.execute("SELECT freshet.set('k' || n, 'v') FROM generate_series(1, 100) n")
            .unwrap();
        let flush = if round == 0 { "FLUSHDB" } else { "FLUSHALL" };
        client.ok(&[flush]).unwrap();
        assert_eq!(client.integer(&["DBSIZE"]).unwrap(), 0);
        sql.execute(&format!("SELECT freshet.set('k1', '{round}')"))
            .unwrap();
        await_value(&mut client, "k1", Some(&round.to_string()));
        assert_eq!(client.integer(&["EXISTS", "k2"]).unwrap(), 0);
    }
}
