//! What the README says of writing by SQL, run as it stands there.

use super::{LIMIT, await_value};
use crate::support::{Client, Sql, Stack, process};

/// The blocks of SQL in a section of the README.
fn blocks(section: &str) -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let parts = section.split("```sql\n").skip(1);
    parts
        .map(|part| part.split("```").next().unwrap().to_owned())
        .collect()
}

fn await_reply(client: &mut Client, command: &[&str], expected: &str) {
    process::await_true("it is shown", LIMIT, || {
        client.ok(command).unwrap().text().as_deref() == Some(expected)
    })
    .unwrap_or_else(|error| panic!("{command:?}: {error}"));
}

#[test]
fn examples_of_the_readme_work() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let sql = stack.sql().unwrap();
    let [example, grants] = blocks("Writing from SQL").try_into().unwrap();
    client.ok(&["SET", "stock:cup", "10"]).unwrap();
    client.ok(&["GET", "motd"]).unwrap();
    sql.execute(&example).unwrap();
    await_value(&mut client, "stock:cup", Some("9"));
    await_value(&mut client, "last-order", Some("4711"));
    await_value(&mut client, "motd", Some("hello again"));
    assert!(client.integer(&["TTL", "last-order"]).unwrap() > 3000);
    await_reply(&mut client, &["HGET", "order:4711", "state"], "packed");
    await_reply(&mut client, &["TYPE", "to-pack"], "none");
    sql.execute("DELETE FROM orders").unwrap();
    await_reply(&mut client, &["TYPE", "order:4711"], "none");
    grants_suffice(&stack, &sql, &grants);
}

/// Roles are those of the whole cluster, which other tests share.
fn grants_suffice(stack: &Stack, sql: &Sql, grants: &str) {
    let role = format!("shop_{}", stack.program.address().port());
    sql.execute(&grants.replace("shop", &role)).unwrap();
    sql.execute(&format!("SET ROLE {role}")).unwrap();
    sql.execute(
        "SELECT freshet.set('a', '1'), freshet.get('a'), freshet.incrby('a'), freshet.expire('a', '1 s'),
                freshet.persist('a'), freshet.del('a');
         SELECT freshet.hset('a', 'f', 'v'), freshet.hget('a', 'f'), freshet.hdel('a', 'f');
         SELECT freshet.rpush('a', 'x'), freshet.lpush('a', 'y'), freshet.del('a');
         SELECT freshet.sadd('a', 'x'), freshet.srem('a', 'x');
         SELECT freshet.zadd('a', 1, 'x'), freshet.zrem('a', 'x');
         INSERT INTO freshet.keys (db, key, kind, value) VALUES (0, 'hand', 0, 'v');
         UPDATE freshet.keys SET value = 'w' WHERE key = 'hand';
         DELETE FROM freshet.keys WHERE key = 'hand'",
    )
    .unwrap();
    sql.execute("SELECT freshet.set('n' || n, 'v') FROM generate_series(1, 2001) n")
        .unwrap();
    sql.execute(&format!(
        "RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}"
    ))
    .unwrap();
}
