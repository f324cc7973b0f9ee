//! One of the two servers is away.

use std::time::{Duration, Instant};

use crate::support::stack::FRESHET;
use crate::support::{Client, Program, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);
/// What "quickly" means to a client that gets an error.
const QUICKLY: Duration = Duration::from_secs(4);

fn use_all_kinds(client: &mut Client, round: usize) {
    let value = format!("value {round}");
    client.ok(&["SET", "key", &value]).unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), value);
    client.ok(&["MSET", "a", &value, "b", &value]).unwrap();
    let both = client.call(&["MGET", "a", "b", "none"]).unwrap();
    assert_eq!(both.items()[1].text(), Some(value.clone()));
    assert_eq!(both.items()[2], Value::Null);
    client.ok(&["INCR", "count"]).unwrap();
    client.ok(&["EXPIRE", "key", "1000"]).unwrap();
    assert!(client.integer(&["TTL", "key"]).unwrap() > 900);
    assert_eq!(client.integer(&["DEL", "a"]).unwrap(), 1);
    assert_eq!(client.call(&["GET", "a"]).unwrap(), Value::Null);
    // It names no key.
    let error = client.call(&["SINTERCARD", "0", "a"]).unwrap();
    assert_eq!(error.error(), Some("ERR numkeys should be greater than 0"));
}

#[test]
fn reads_and_writes_go_on_while_the_cache_is_dead_and_the_cache_is_used_after() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "before", "kept"]).unwrap();
    client.ok(&["SET", "changed", "old"]).unwrap();
    stack.cache.kill().unwrap();
    for round in 0..20 {
        use_all_kinds(&mut client, round);
    }
    client.ok(&["SET", "changed", "new"]).unwrap();
    assert_eq!(client.text(&["GET", "before"]).unwrap(), "kept");
    stack.cache.start_again().unwrap();
    assert_eq!(client.text(&["GET", "changed"]).unwrap(), "new");
    let mut cache = stack.cache.client().unwrap();
    process::await_true("the cache is used again", LIMIT, || {
        client.text(&["GET", "before"]).unwrap() == "kept"
            && cache.call(&["GET", "before"]).unwrap().text().as_deref() == Some("kept")
    })
    .unwrap();
    assert_eq!(client.integer(&["INCR", "count"]).unwrap(), 21);
    assert_eq!(client.text(&["GET", "changed"]).unwrap(), "new");
}

/// A cache that does not answer is worse than one that is gone.
#[test]
fn reads_and_writes_go_on_while_the_cache_is_stalled() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "old");
    stack.cache.signal("STOP").unwrap();
    for round in 0..10 {
        use_all_kinds(&mut client, round);
    }
    client.ok(&["SET", "key", "new"]).unwrap();
    stack.cache.signal("CONT").unwrap();
    // What the stalled cache still holds is older.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
    }
    let mut cache = stack.cache.client().unwrap();
    process::await_true("the cache is used again", LIMIT, || {
        client.text(&["GET", "key"]).unwrap() == "new"
            && cache.call(&["GET", "key"]).unwrap().text().as_deref() == Some("new")
    })
    .unwrap();
}

/// The proxy learns of the new cache before anybody uses its connections to
/// the old one, since nothing can be asked of PostgreSQL meanwhile.
#[test]
fn idle_connections_to_a_dead_cache_do_not_keep_the_next_one_out_of_use() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let mut client = stack.client().unwrap();
            scope.spawn(move || {
                for round in 0..40 {
                    let key = format!("none:{number}:{round}");
                    assert_eq!(client.ok(&["GET", &key]).unwrap(), Value::Null);
                    client.ok(&["INCR", "load"]).unwrap();
                }
            });
        }
    });
    stack.postgres().unwrap().crash().unwrap();
    stack.cache.kill().unwrap();
    stack.cache.start_again().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    process::await_true("ready", LIMIT, || {
        stack.program.http("/readyz").unwrap().0 == 200
    })
    .unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    process::await_true("the new cache is stamped", LIMIT, || {
        cache.integer(&["EXISTS", "\0f:gen"]).unwrap() == 1
    })
    .unwrap();
    for round in 0..50 {
        use_all_kinds(&mut client, round);
    }
    let generation = cache.text(&["GET", "\0f:gen"]).unwrap();
    assert!(generation.parse::<usize>().unwrap() < 10, "{generation}");
}

/// A flush between any two commands of a client goes unnoticed.
#[test]
fn flushed_cache_changes_no_answer() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut cache = stack.cache.client().unwrap();
    for round in 0..50 {
        use_all_kinds(&mut client, round);
        cache.ok(&["FLUSHALL"]).unwrap();
        assert_eq!(
            client.text(&["GET", "key"]).unwrap(),
            format!("value {round}")
        );
    }
    assert_eq!(client.integer(&["INCR", "count"]).unwrap(), 51);
}

/// As after a restore of PostgreSQL from a backup: the cache was stamped in a
/// future that the store has never seen.
#[test]
fn cache_ahead_of_the_store_is_emptied_and_used_again() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    let mut cache = stack.cache.client().unwrap();
    cache.ok(&["SET", "\0f:gen", "1000"]).unwrap();
    assert_eq!(client.call(&["GET", "none"]).unwrap(), Value::Null);
    process::await_true("the cache is emptied and used again", LIMIT, || {
        let mark = cache.call(&["GET", "\0f:gen"]).unwrap().text();
        mark.is_some_and(|mark| mark.parse::<u64>().unwrap() > 1000)
            && client.text(&["GET", "key"]).unwrap() == "value"
            && cache.call(&["GET", "key"]).unwrap().text().as_deref() == Some("value")
    })
    .unwrap();
}

/// Else it would bring a generation back to life that somebody may still be using who was not waited for.
#[test]
fn emptied_cache_refuses_stamps_that_come_late() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    let mut cache = stack.cache.client().unwrap();
    let libraries = cache.call(&["FUNCTION", "LIST"]).unwrap();
    let library = libraries.items()[0].items()[1].text().unwrap();
    let [close, open] = ["close", "open"].map(|name| format!("{library}_{name}"));
    let generation = cache.text(&["GET", "\0f:gen"]).unwrap();
    let next = (generation.parse::<u64>().unwrap() + 1).to_string();
    // In one block, since the proxy brings the cache back by itself.
    cache.ok(&["MULTI"]).unwrap();
    cache.ok(&["FCALL", &close, "0", &next, ""]).unwrap();
    cache
        .ok(&["FCALL", &open, "0", &generation, "", ""])
        .unwrap();
    cache.ok(&["GET", "\0f:gen"]).unwrap();
    let replies = cache.call(&["EXEC"]).unwrap();
    let [closed, opened, mark] = replies.items() else {
        panic!("{replies:?}");
    };
    assert_eq!(closed.text().as_deref(), Some("OK"));
    assert!(
        opened
            .error()
            .is_some_and(|error| error.starts_with("FENCED")),
        "{opened:?}"
    );
    assert_eq!(*mark, Value::Null);
    process::await_true("the cache is used again", LIMIT, || {
        client.text(&["GET", "key"]).unwrap() == "value"
            && cache.call(&["GET", "key"]).unwrap().text().as_deref() == Some("value")
    })
    .unwrap();
}

#[test]
fn start_with_a_cache_full_of_old_data_shows_none_of_it() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "right"]).unwrap();
    client.ok(&["DEL", "gone"]).unwrap();
    stack.program.stop().unwrap();
    // Another cache takes its place, with a past of its own.
    let mut cache = stack.cache.client().unwrap();
    cache.ok(&["FLUSHALL"]).unwrap();
    cache.ok(&["SET", "key", "wrong"]).unwrap();
    cache.ok(&["SET", "gone", "wrong"]).unwrap();
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "right");
    assert_eq!(client.call(&["GET", "gone"]).unwrap(), Value::Null);
}

#[test]
fn hits_are_served_and_writes_refused_quickly_while_postgresql_is_down() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "a", "1", "b", "2"]).unwrap();
    assert_eq!(client.text(&["GET", "a"]).unwrap(), "1");
    assert_eq!(client.call(&["MGET", "a", "b"]).unwrap().items().len(), 2);
    stack.postgres().unwrap().stop().unwrap();
    for _ in 0..5 {
        let start = Instant::now();
        assert_eq!(client.text(&["GET", "a"]).unwrap(), "1");
        // A write that had begun when PostgreSQL went hides its own key until
        // PostgreSQL can say what became of it; other keys stay readable.
        let reply = client.call(&["SET", "written", "refused"]).unwrap();
        let text = reply.error().expect("PostgreSQL is down").to_owned();
        assert!(!text.starts_with("UNKNOWN"), "{text}");
        assert!(start.elapsed() < QUICKLY, "{:?}: {text}", start.elapsed());
    }
    assert_eq!(stack.program.http("/healthz").unwrap().0, 200);
    process::await_true("not ready", LIMIT, || {
        stack.program.http("/readyz").unwrap().0 == 503
    })
    .unwrap();
    assert_eq!(client.text(&["GET", "a"]).unwrap(), "1");
    stack.postgres().unwrap().start_again().unwrap();
    process::await_true("writes work again", LIMIT, || {
        client.call(&["SET", "a", "3"]).unwrap().error().is_none()
    })
    .unwrap();
    assert_eq!(client.text(&["GET", "a"]).unwrap(), "3");
    assert_eq!(client.call(&["GET", "written"]).unwrap(), Value::Null);
    assert_eq!(client.text(&["GET", "b"]).unwrap(), "2");
    stack.program.stop().unwrap();
}

/// After its right to use the cache has run out, a proxy says that it knows nothing. One whose right
/// lasts longer than this test goes on answering meanwhile, so it is nothing else that ends the hits.
#[test]
fn hits_end_with_the_lease_while_postgresql_is_down() {
    let long = [("fence.reads_without_database", "5m")];
    let short = [
        ("fence.reads_without_database", "1s"),
        ("fence.renewal", "100ms"),
    ];
    let mut stack = Stack::start_with_own_postgres(&long).unwrap();
    let (database, cache) = (stack.database.clone(), stack.cache.url());
    let mut brief = Program::start(FRESHET, &database, &cache, &short).unwrap();
    let mut clients = [stack.client().unwrap(), brief.client().unwrap()];
    let is_read = |client: &mut Client| {
        let reply = client.call(&["GET", "key"]).unwrap();
        reply.text().as_deref() == Some("value")
    };
    clients[0].ok(&["SET", "key", "value"]).unwrap();
    // What the cache knows not to be there is a hit like any other.
    clients[0].ok(&["SET", "gone", "soon"]).unwrap();
    clients[0].integer(&["DEL", "gone"]).unwrap();
    assert_eq!(clients[1].call(&["GET", "gone"]).unwrap(), Value::Null);
    let mut inside = stack.cache.client().unwrap();
    process::await_true("the key is in the cache", LIMIT, || {
        clients.iter_mut().all(is_read) && inside.integer(&["EXISTS", "key"]).unwrap() == 1
    })
    .unwrap();
    stack.postgres().unwrap().crash().unwrap();
    process::await_true("hits end", LIMIT, || {
        clients[1].call(&["GET", "key"]).unwrap().error().is_some()
    })
    .unwrap();
    assert!(is_read(&mut clients[0]), "no hit without PostgreSQL");
    let gone = clients[1].call(&["GET", "gone"]).unwrap();
    assert!(gone.error().is_some(), "{gone:?}");
    stack.postgres().unwrap().start_again().unwrap();
    process::await_true("reads work again", LIMIT, || {
        clients.iter_mut().all(is_read)
    })
    .unwrap();
    brief.stop().unwrap();
}

#[test]
fn nothing_works_and_all_recovers_when_both_are_down() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "value"]).unwrap();
    stack.postgres().unwrap().stop().unwrap();
    stack.cache.kill().unwrap();
    for command in [vec!["GET", "key"], vec!["SET", "key", "refused"]] {
        let reply = client.call(&command).unwrap();
        assert!(reply.error().is_some(), "{command:?}: {reply:?}");
    }
    stack.cache.start_again().unwrap();
    stack.postgres().unwrap().start_again().unwrap();
    process::await_true("reads work again", LIMIT, || {
        client.call(&["GET", "key"]).unwrap().text().as_deref() == Some("value")
    })
    .unwrap();
    process::await_true("writes work again", LIMIT, || {
        client
            .call(&["SET", "key", "new"])
            .unwrap()
            .error()
            .is_none()
    })
    .unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
}
