//! A cache that comes back empty does not send its readers to PostgreSQL all at once.

use std::thread;
use std::time::Duration;

use super::{LIMIT, await_state};
use crate::support::{Client, Stack, process};

const READERS: usize = 40;

#[test]
fn misses_after_a_return_wait_for_few_statements_at_once() {
    let mut stack = Stack::start_with(&[("cache.loads_at_once", "3")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    for key in 0..READERS {
        client.ok(&["SET", &format!("key:{key}"), "value"]).unwrap();
    }
    stack.cache.kill().unwrap();
    stack.cache.start_again().unwrap();
    // It may be noticed by the first read only.
    client.ok(&["SET", "noticed", "1"]).unwrap();
    await_state(&stack.program, "active");
    let sql = stack.sql().unwrap();
    // Nobody can read the table: whoever is let at it stays there.
    sql.execute("begin; lock table freshet.keys in access exclusive mode")
        .unwrap();
    let watch = stack.sql().unwrap();
    let at_once = || {
        let query = "select count(*) from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock' and query like '%freshet.keys%'";
        watch.query(query, &[]).unwrap()[0].get::<_, i64>(0)
    };
    let address = stack.program.address();
    thread::scope(|scope| {
        for reader in 0..READERS {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                client.set_reply_limit(Duration::from_secs(60)).unwrap();
                let key = format!("key:{reader}");
                assert_eq!(client.text(&["GET", &key]).unwrap(), "value");
            });
        }
        let waiting = || stack.program.metric("freshet_loads_waiting").unwrap();
        process::await_true("all readers wait", LIMIT, || waiting() >= READERS as f64).unwrap();
        // Three loads, and perhaps the sweep of old rows.
        process::await_true("the loads are at PostgreSQL", LIMIT, || at_once() >= 3).unwrap();
        assert!(at_once() <= 4, "{} at once", at_once());
        sql.execute("rollback").unwrap();
    });
    assert_eq!(stack.program.metric("freshet_loads_waiting").unwrap(), 0.0);
}
