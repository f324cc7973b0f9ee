//! Rows of tables of others, as keys.

use std::thread;

use super::{LIMIT, call, error, text};
use crate::support::stack::FRESHET;
use crate::support::{Client, Program, Sql, Stack, Value, process};

const TABLES: &str = "
    CREATE TABLE team (name text PRIMARY KEY);
    INSERT INTO team VALUES ('red'), ('blue');
    CREATE TABLE users (
        id     integer PRIMARY KEY,
        email  varchar(20) UNIQUE,
        age    integer CHECK (age >= 0),
        team   text REFERENCES team,
        photo  bytea,
        seen   timestamptz,
        prefs  jsonb,
        active boolean,
        tags   text[],
        upper  text GENERATED ALWAYS AS (upper(email)) STORED,
        edited bigint NOT NULL DEFAULT 0,
        level  integer NOT NULL DEFAULT 1
    );
    CREATE FUNCTION count_edits() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.age = 13 THEN
            RAISE EXCEPTION 'thirteen is not allowed';
        END IF;
        NEW.edited := OLD.edited + 1;
        RETURN NEW;
    END $$;
    CREATE TRIGGER count_edits BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION count_edits();
    INSERT INTO users (id, email, age) VALUES (1, 'a@x', 30), (2, 'b@x', NULL);
    CREATE TABLE items (
        shop text, number integer, price numeric(8, 2) NOT NULL DEFAULT 1, body jsonb, key uuid, sizes integer[],
        PRIMARY KEY (shop, number)
    );
    INSERT INTO items (shop, number, body) VALUES ('s', 1, '{\"k\": [1, 2]}'), ('s:x', 1, NULL);
";

const ROUTES: &str = "
    [[route]]
    match = \"user:{id}\"
    table = \"public.users\"
    delete = \"row\"

    [[route]]
    match = \"item:{shop}:{number}\"
    table = \"public.items\"
    as = \"json\"

    [[route]]
    match = \"mail:{id}\"
    table = \"public.users\"
    as = \"string\"
    column = \"email\"

    [[route]]
    match = \"age:{id}\"
    table = \"public.users\"
    as = \"string\"
    column = \"age\"
";

struct Mapped {
    stack: Stack,
    program: Program,
    sql: Sql,
}

fn start() -> Mapped {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute(TABLES).unwrap();
    let mut program = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
    program.configure(ROUTES);
    program.start_again().unwrap();
    Mapped {
        stack,
        program,
        sql,
    }
}

/// A hash as pairs in the order of their fields.
fn hash(client: &mut Client, key: &str) -> Vec<(String, String)> {
    let reply = client.call(&["HGETALL", key]).unwrap();
    let texts: Vec<String> = reply
        .items()
        .iter()
        .map(|item| item.text().unwrap())
        .collect();
    let pairs = texts
        .chunks(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()));
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort();
    pairs
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    expected.iter().map(own).collect()
}

#[test]
fn rows_are_read_as_keys_and_writes_change_rows() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    // What was there before the mapping.
    let first = [
        ("age", "30"),
        ("edited", "0"),
        ("email", "a@x"),
        ("id", "1"),
        ("level", "1"),
        ("upper", "A@X"),
    ];
    assert_eq!(hash(&mut client, "user:1"), pairs(&first));
    assert_eq!(text(&mut client, "GET mail:2"), "b@x");
    assert_eq!(call(&mut client, "GET age:2"), Value::Null);
    assert_eq!(call(&mut client, "EXISTS user:3"), Value::Integer(0));

    // A write goes through the table's types, triggers and defaults.
    assert_eq!(
        call(&mut client, "HSET user:1 age 31 team red"),
        Value::Integer(1)
    );
    let next = [
        ("age", "31"),
        ("edited", "1"),
        ("email", "a@x"),
        ("id", "1"),
        ("level", "1"),
        ("team", "red"),
        ("upper", "A@X"),
    ];
    assert_eq!(hash(&mut client, "user:1"), pairs(&next));
    assert_eq!(text(&mut client, "GET age:1"), "31");
    let row = mapped
        .sql
        .query("SELECT age, team FROM users WHERE id = 1", &[])
        .unwrap();
    assert_eq!(
        (row[0].get::<_, i32>(0), row[0].get::<_, String>(1)),
        (31, "red".to_owned())
    );
}

#[test]
fn a_row_that_is_not_there_is_inserted_by_any_of_its_keys() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    // (The cache remembers that it is not there.)
    assert_eq!(call(&mut client, "EXISTS user:3"), Value::Integer(0));
    assert_eq!(text(&mut client, "SET mail:3 c@x"), "OK");
    assert_eq!(text(&mut client, "HGET user:3 upper"), "C@X");
    assert_eq!(call(&mut client, "INCRBY age:3 5"), Value::Integer(5));
    assert_eq!(call(&mut client, "HINCRBY user:3 age 2"), Value::Integer(7));
    assert_eq!(call(&mut client, "DECR age:3"), Value::Integer(6));
    assert_eq!(call(&mut client, "HDEL user:3 age team"), Value::Integer(1));
    assert_eq!(call(&mut client, "HGET user:3 age"), Value::Null);
    assert_eq!(call(&mut client, "HDEL user:9 age"), Value::Integer(0));
    assert_eq!(call(&mut client, "DEL user:3"), Value::Integer(1));
    assert_eq!(call(&mut client, "DEL user:3"), Value::Integer(0));
    assert_eq!(call(&mut client, "GET mail:3"), Value::Null);
    assert!(
        mapped
            .sql
            .query("SELECT FROM users WHERE id = 3", &[])
            .unwrap()
            .is_empty()
    );
}

#[test]
fn values_as_postgresql_writes_them_come_back_as_they_were_read() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    let bytes = [0u8, 255, 13, 10];
    let words: [&[u8]; 12] = [
        b"HSET",
        b"user:2",
        b"photo",
        &bytes,
        b"seen",
        b"2024-01-02 03:04:05+02",
        b"prefs",
        b"{\"a\":1}",
        b"active",
        b"yes",
        b"tags",
        b"{x,\"y z\"}",
    ];
    assert_eq!(client.call(&words).unwrap(), Value::Integer(5));
    assert_eq!(
        client.call(&["HGET", "user:2", "photo"]).unwrap(),
        Value::Bulk(bytes.to_vec())
    );
    for (field, value) in [
        ("seen", "2024-01-02 01:04:05+00"),
        ("prefs", "{\"a\": 1}"),
        ("active", "true"),
        ("tags", "{x,\"y z\"}"),
    ] {
        let shown = client.text(&["HGET", "user:2", field]).unwrap();
        assert_eq!(shown, value);
        client.integer(&["HSET", "user:2", field, &shown]).unwrap();
        assert_eq!(client.text(&["HGET", "user:2", field]).unwrap(), value);
    }
}

/// What is said of each.
const REFUSED: &[(&str, &str)] = &[
    (
        "HSET user:2 email a@x",
        "CONSTRAINT duplicate key value violates unique constraint",
    ),
    (
        "HSET user:1 age -1",
        "CONSTRAINT new row for relation \"users\" violates check",
    ),
    (
        "HSET user:1 team green",
        "CONSTRAINT insert or update on table \"users\" violates foreign key",
    ),
    (
        "HDEL user:1 level",
        "CONSTRAINT null value in column \"level\"",
    ),
    (
        "HSET user:1 age x",
        "ERR invalid input syntax for type integer",
    ),
    (
        "HSET user:1 age 99999999999",
        "ERR value \"99999999999\" is out of range",
    ),
    (
        "HSET user:1 email aaaaaaaaaaaaaaaaaaaaaaaaa",
        "ERR value too long for type",
    ),
    ("HSET user:1 age 13", "ERR thirteen is not allowed"),
    (
        "HSET user:1 upper x",
        "ERR the column upper of users is computed",
    ),
    ("HSET user:1 id 7", "ERR the column id is part of the key"),
    ("HSET user:1 nothing 7", "ERR users has no column nothing"),
    (
        "HSET user:01 age 7",
        "ERR the key of this row is written user:1",
    ),
    (
        "HSET user:x age 7",
        "ERR invalid input syntax for type integer",
    ),
    (
        "HSET user:1 age",
        "ERR wrong number of arguments for 'hset' command",
    ),
    (
        "HINCRBY user:1 age x",
        "ERR value is not an integer or out of range",
    ),
    (
        "HINCRBY user:1 age 3000000000",
        "ERR value \"3000000000\" is out of range",
    ),
    ("DEL item:s:1", "READONLY rows of items are not deleted"),
    ("SET item:s:1 []", "ERR the value is no JSON object"),
    ("SET item:s:1 {", "ERR invalid input syntax for type json"),
    (
        "SET item:s:1 {\"number\":2}",
        "ERR the column number is part of the key",
    ),
    (
        "EXPIRE user:1 10",
        "ERR EXPIRE is not served for keys of the mapped table public.users",
    ),
    ("RENAME user:1 other", "ERR RENAME with another key"),
    ("DEL user:1 user:2", "ERR DEL with another key"),
    (
        "SET mail:1 x EX 10",
        "ERR SET is not served for keys of the mapped table",
    ),
    ("LPUSH user:1 x", "ERR LPUSH is not served"),
    ("FRESHET.ONCE t HSET user:1 age 5", "ERR HSET is not served"),
    (
        "FLUSHALL",
        "READONLY FLUSHALL would change keys of the mapped route",
    ),
];

#[test]
fn what_the_table_does_not_allow_is_a_clear_error_and_changes_nothing() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    let before = mapped
        .sql
        .query("SELECT u::text FROM users u ORDER BY id", &[])
        .unwrap();
    for (line, start) in REFUSED {
        let found = error(&mut client, line);
        assert!(found.starts_with(start), "{line}: {found}");
    }
    assert_eq!(text(&mut client, "MULTI"), "OK");
    assert_eq!(text(&mut client, "SET free x"), "QUEUED");
    assert_eq!(text(&mut client, "HSET user:1 age 5"), "QUEUED");
    assert!(error(&mut client, "EXEC").starts_with("ERR keys of mapped tables are not written"));
    let script = [
        "EVAL",
        "return redis.call('HSET', KEYS[1], 'age', '5')",
        "1",
        "user:1",
    ];
    let found = client.call(&script).unwrap();
    assert!(
        found
            .error()
            .unwrap()
            .contains("keys of mapped tables are not written by scripts")
    );
    let after = mapped
        .sql
        .query("SELECT u::text FROM users u ORDER BY id", &[])
        .unwrap();
    let rows = |rows: &[tokio_postgres::Row]| -> Vec<String> {
        rows.iter().map(|row| row.get(0)).collect()
    };
    assert_eq!(rows(&after), rows(&before));
    assert_eq!(call(&mut client, "EXISTS free"), Value::Integer(0));
}

#[test]
fn json_replaces_the_row_and_composite_keys_find_it() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    let json = |client: &mut Client, key: &str| -> String {
        let text = client.text(&["GET", key]).unwrap();
        let rows = mapped
            .sql
            .query("SELECT ($1::text)::jsonb::text", &[&text])
            .unwrap();
        rows[0].get(0)
    };
    let first = "{\"key\": null, \"body\": {\"k\": [1, 2]}, \"shop\": \"s\", \"price\": 1.00, \"sizes\": null, \"number\": 1}";
    assert_eq!(json(&mut client, "item:s:1"), first);
    let uuid = "6ecd8c99-4036-403d-bf84-cf8400f67836";
    let object = format!("{{\"price\": 2.5, \"sizes\": [1, 2], \"key\": \"{uuid}\"}}");
    assert_eq!(client.text(&["SET", "item:s:1", &object]).unwrap(), "OK");
    let next = format!(
        "{{\"key\": \"{uuid}\", \"body\": null, \"shop\": \"s\", \"price\": 2.50, \"sizes\": [1, 2], \"number\": 1}}"
    );
    assert_eq!(json(&mut client, "item:s:1"), next);
    // What a new row does not name gets its default; what is read can be written again.
    assert_eq!(
        client.text(&["SET", "item:t:5", "{\"body\": 3}"]).unwrap(),
        "OK"
    );
    let shown = json(&mut client, "item:t:5");
    assert!(shown.contains("\"price\": 1.00"), "{shown}");
    assert_eq!(client.text(&["SET", "item:t:5", &shown]).unwrap(), "OK");
    assert_eq!(json(&mut client, "item:t:5"), shown);
    // A shop whose name has the sign between columns would be two keys in one: it is not shown.
    assert_eq!(call(&mut client, "GET item:s:x:1"), Value::Null);
}

#[test]
fn rows_that_sql_changes_reach_the_cache() {
    let mapped = start();
    let mut client = mapped.program.client().unwrap();
    let mut other = mapped.stack.client().unwrap();
    let mut shows = |key: &str, field: &str, expected: Option<&str>| {
        let expected = expected.map_or(Value::Null, |text| Value::Bulk(text.into()));
        for client in [&mut client, &mut other] {
            process::await_true("the cache follows", LIMIT, || {
                client.call(&["HGET", key, field]).unwrap() == expected
            })
            .unwrap();
        }
    };
    shows("user:1", "age", Some("30"));
    mapped
        .sql
        .execute("UPDATE users SET age = 40 WHERE id = 1")
        .unwrap();
    shows("user:1", "age", Some("40"));
    // The key of a row changes with it.
    mapped
        .sql
        .execute("UPDATE users SET id = 10 WHERE id = 1")
        .unwrap();
    shows("user:1", "age", None);
    shows("user:10", "age", Some("40"));
    // A rolled back change is none.
    mapped
        .sql
        .execute("BEGIN; UPDATE users SET age = 1 WHERE id = 10; ROLLBACK")
        .unwrap();
    shows("user:10", "age", Some("40"));
    // The table changes its form under the mapping.
    mapped
        .sql
        .execute("ALTER TABLE users DROP COLUMN tags, ADD COLUMN extra text DEFAULT 'e'")
        .unwrap();
    mapped.sql.execute("UPDATE users SET age = 41").unwrap();
    shows("user:10", "extra", Some("e"));
    shows("user:2", "extra", Some("e"));
    mapped
        .sql
        .execute("DELETE FROM users WHERE id = 10")
        .unwrap();
    shows("user:10", "age", None);
    mapped.sql.execute("TRUNCATE users").unwrap();
    shows("user:2", "age", None);
    let left = "SELECT key::text FROM freshet.live_keys WHERE key ~ '^(user|mail|age):'";
    assert!(mapped.sql.query(left, &[]).unwrap().is_empty());
}

/// Clients and SQL add to one row through two proxies and a session; nobody sees less than before.
#[test]
fn nothing_is_lost_between_clients_and_sql() {
    const ROUNDS: i64 = 60;
    let mapped = start();
    let mut second = Program::stopped(
        FRESHET,
        &mapped.stack.database,
        &mapped.stack.cache.url(),
        &[],
    )
    .unwrap();
    second.configure(ROUTES);
    second.start_again().unwrap();
    mapped
        .sql
        .execute("UPDATE users SET age = 100 WHERE id = 1")
        .unwrap();
    thread::scope(|scope| {
        for program in [&mapped.program, &second] {
            scope.spawn(move || {
                let mut client = program.client().unwrap();
                let mut last = -1;
                for _ in 0..ROUNDS {
                    let sum = client.integer(&["HINCRBY", "user:1", "age", "1"]).unwrap();
                    assert!(sum > last, "{sum} after {last}");
                    let seen: i64 = client
                        .text(&["HGET", "user:1", "age"])
                        .unwrap()
                        .parse()
                        .unwrap();
                    assert!(seen >= sum, "{seen} was read after {sum} was answered");
                    last = seen;
                }
            });
        }
        let sql = mapped.stack.sql().unwrap();
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                sql.execute("UPDATE users SET age = age + 1 WHERE id = 1")
                    .unwrap();
            }
        });
        let mut reader = mapped.stack.client().unwrap();
        scope.spawn(move || {
            let mut last = 0;
            for _ in 0..4 * ROUNDS {
                let seen = reader
                    .text(&["HGET", "user:1", "age"])
                    .unwrap()
                    .parse()
                    .unwrap();
                assert!(seen >= last, "{seen} after {last}");
                last = seen;
            }
        });
    });
    let mut client = mapped.program.client().unwrap();
    process::await_true("all are there", LIMIT, || {
        text(&mut client, "HGET user:1 age") == (100 + 3 * ROUNDS).to_string()
    })
    .unwrap();
}

#[test]
fn a_table_that_cannot_be_mapped_is_told_of_at_the_start() {
    let stack = Stack::start().unwrap();
    stack.sql().unwrap().execute(TABLES).unwrap();
    let said = |text: &str| {
        let mut program =
            Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
        program.configure(text);
        program
            .start_again()
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    for (route, part) in [
        (
            "match = \"u:{id}\"\ntable = \"nowhere\"",
            "relation \"nowhere\" does not exist",
        ),
        (
            "match = \"u:{nr}\"\ntable = \"users\"",
            "users has no column nr",
        ),
        (
            "match = \"u:{age}\"\ntable = \"users\"",
            "do not name one row of users",
        ),
        (
            "match = \"u:*\"\ntable = \"users\"",
            "must have columns in braces",
        ),
        (
            "match = \"u:{id}{age}\"\ntable = \"users\"",
            "must have text before each column",
        ),
        (
            "match = \"u:{id}\"\ntable = \"users\"\nas = \"string\"",
            "must be there with as = \"string\"",
        ),
        (
            "match = \"u:{id}\"\ntable = \"users\"\nstrategy = \"eventual\"",
            "means nothing beside table",
        ),
        (
            "match = \"u:{id}\"\ndelete = \"row\"",
            "needs table beside it",
        ),
    ] {
        let found = said(&format!("[[route]]\n{route}\n"));
        assert!(found.contains(part), "{route}: {found}");
    }
    // Keys that are there already would be hidden, and a mapping is not changed by another.
    stack.client().unwrap().ok(&["SET", "user:5", "x"]).unwrap();
    let found = said(ROUTES);
    assert!(
        found.contains("there are keys of the form user:{id} already"),
        "{found}"
    );
    stack.client().unwrap().integer(&["DEL", "user:5"]).unwrap();
    assert_eq!(said(ROUTES), "");
    let found = said("[[route]]\nmatch = \"user:{id}\"\ntable = \"users\"\nas = \"json\"\n");
    assert!(found.contains("user:{id} is mapped otherwise"), "{found}");
    // Its end takes the keys with it, and the table's triggers.
    let sql = stack.sql().unwrap();
    sql.query("SELECT freshet.unmap('user:{id}')", &[]).unwrap();
    let left = "SELECT key::text FROM freshet.live_keys WHERE key LIKE 'user:%'";
    assert!(sql.query(left, &[]).unwrap().is_empty());
}
