//! PostgreSQL fails over to another host, stalls, or refuses for each of the reasons that pass.

use std::thread;
use std::time::{Duration, Instant};

use super::{LIMIT, await_state, await_write};
use crate::faults::load::under_load;
use crate::support::stack::FRESHET;
use crate::support::{
    Client, Detour, Fsync, Postgres, Program, Redis, Relay, Sql, Stack, Value, process,
};

/// A primary, its standby, and a database on both.
pub(super) struct Pair {
    pub primary: Postgres,
    pub standby: Postgres,
    /// The database by its URL on either host.
    pub url: String,
    /// The same on the standby alone.
    pub standby_url: String,
    pub cache: Redis,
}

impl Pair {
    pub fn start() -> Self {
        let primary = Postgres::start(Fsync::On).unwrap();
        let database = primary.create_database().unwrap();
        let standby = primary.standby().unwrap();
        let name = database.rsplit('/').next().unwrap().to_owned();
        let (first, second) = (primary.port(), standby.port());
        let url = format!(
            "postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/{name}?target_session_attrs=read-write"
        );
        Self {
            standby_url: standby.url(&name),
            primary,
            standby,
            url,
            cache: Redis::start().unwrap(),
        }
    }

    pub fn program(&self) -> Program {
        let settings = [("postgres.connect_timeout", "500ms")];
        let program = Program::start(FRESHET, &self.url, &self.cache.url(), &settings).unwrap();
        await_state(&program, "active");
        program
    }

    /// The standby confirms each commit before it is acknowledged.
    fn synchronous(&self) {
        let sql = Sql::connect(&self.primary.url("postgres")).unwrap();
        sql.execute("alter system set synchronous_standby_names = 'standby'")
            .unwrap();
        sql.execute("select pg_reload_conf()").unwrap();
        process::await_true("the standby is synchronous", LIMIT, || {
            let query = "select count(*) from pg_stat_replication where sync_state = 'sync'";
            sql.query(query, &[]).unwrap()[0].get::<_, i64>(0) == 1
        })
        .unwrap();
    }

    /// The standby hears of nothing any more.
    pub fn cut_off(&self) {
        let sql = Sql::connect(&self.standby.url("postgres")).unwrap();
        sql.execute("alter system set primary_conninfo = ''")
            .unwrap();
        sql.execute("select pg_reload_conf()").unwrap();
        process::await_true("nothing is received", LIMIT, || {
            let query = "select count(*) from pg_stat_wal_receiver";
            sql.query(query, &[]).unwrap()[0].get::<_, i64>(0) == 0
        })
        .unwrap();
    }
}

#[test]
fn acknowledged_writes_survive_a_fail_over_to_a_synchronous_standby() {
    let mut pair = Pair::start();
    pair.synchronous();
    let program = pair.program();
    let tally = under_load(program.address(), || {
        pair.primary.kill().unwrap();
        pair.standby.promote().unwrap();
    });
    tally.check_on(&program, &pair.standby_url);
    program.await_log("another history", LIMIT).unwrap();
}

/// A host that accepts connections and says nothing must not keep the proxy from the other.
#[test]
fn a_stalled_primary_is_left_for_the_promoted_standby() {
    let pair = Pair::start();
    pair.synchronous();
    let settings = [
        ("postgres.connect_timeout", "500ms"),
        ("postgres.statement_timeout", "1s"),
        ("commit.unknown_timeout", "20s"),
    ];
    let program = Program::start(FRESHET, &pair.url, &pair.cache.url(), &settings).unwrap();
    await_state(&program, "active");
    let tally = under_load(program.address(), || {
        pair.primary.signal_all("STOP").unwrap();
        pair.standby.promote().unwrap();
    });
    tally.check_on(&program, &pair.standby_url);
    // The old primary lives on: nobody uses it.
    pair.primary.signal_all("CONT").unwrap();
    let mut client = program.client().unwrap();
    client.ok(&["SET", "after", "1"]).unwrap();
    let query = "select count(*) from freshet.keys where key = 'after'";
    let sql = Sql::connect(&pair.standby_url).unwrap();
    assert_eq!(sql.query(query, &[]).unwrap()[0].get::<_, i64>(0), 1);
}

/// Nothing answers: what was sent is unknown after a bounded time, what comes after is refused.
#[test]
fn a_stalled_postgresql_keeps_no_client_waiting_for_ever() {
    let settings = [
        ("postgres.connect_timeout", "500ms"),
        ("postgres.statement_timeout", "1s"),
        ("commit.unknown_timeout", "1s"),
    ];
    let mut stack = Stack::start_with_own_postgres(&settings).unwrap();
    let mut client = stack.client().unwrap();
    assert_eq!(client.integer(&["INCR", "counter"]).unwrap(), 1);
    stack.postgres().unwrap().signal_all("STOP").unwrap();
    let start = Instant::now();
    let reply = client.call(&["INCR", "counter"]).unwrap();
    let text = reply.error().expect("nothing answers").to_owned();
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
    stack.postgres().unwrap().signal_all("CONT").unwrap();
    let mut counted = None;
    process::await_true("writes are taken again", LIMIT, || {
        let reply = client.call(&["INCR", "counter"]).unwrap();
        counted = match reply {
            Value::Integer(count) => Some(count),
            _ => None,
        };
        counted.is_some()
    })
    .unwrap();
    // One that was refused never happened; an unknown one is either.
    let expected: &[i64] = if text.starts_with("UNKNOWN") {
        &[2, 3]
    } else {
        &[2]
    };
    assert!(expected.contains(&counted.unwrap()), "{text}: {counted:?}");
}

/// Whether PostgreSQL answers a question that only it can answer.
fn is_answered(client: &mut Client) -> bool {
    client.call(&["DBSIZE"]).unwrap().error().is_none()
}

/// What lies between drops connections without a word, as firewalls do. The first that is used is found
/// dead by its silence; the others must not be tried one after the other.
#[test]
fn connections_that_fell_silent_are_given_up_together() {
    const CLIENTS: usize = 6;
    let postgres = Postgres::start(Fsync::Off).unwrap();
    let (database, cache) = (postgres.create_database().unwrap(), Redis::start().unwrap());
    let relay = Relay::start(([127, 0, 0, 1], postgres.port()).into()).unwrap();
    let url = database.replace(
        &format!(":{}/", postgres.port()),
        &format!(":{}/", relay.address().port()),
    );
    assert_ne!(url, database);
    let settings = [
        ("postgres.connect_timeout", "500ms"),
        ("postgres.statement_timeout", "1s"),
        ("postgres.pool_size", "12"),
    ];
    let program = Program::start(FRESHET, &url, &cache.url(), &settings).unwrap();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| program.client().unwrap()).collect();
    // Each holds a connection for a while, so that there are several.
    let held = Sql::connect(&database).unwrap();
    held.execute("BEGIN; LOCK TABLE freshet.keys").unwrap();
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(move || is_answered(client));
        }
        thread::sleep(Duration::from_millis(300));
        held.execute("ROLLBACK").unwrap();
    });
    relay.half_open();
    let failures = (0..2 * CLIENTS)
        .filter(|_| !is_answered(&mut clients[0]))
        .count();
    assert!((1..=2).contains(&failures), "{failures} failed");
}

#[test]
fn cut_connections_to_postgresql_lose_and_repeat_nothing() {
    let stack = Stack::start().unwrap();
    let own: tokio_postgres::Config = stack.database.parse().unwrap();
    let port = own.get_ports()[0];
    let detour = Detour::to(([127, 0, 0, 1], port).into()).unwrap();
    let place = format!("127.0.0.1:{}", detour.address().port());
    let url = stack.database.replace(&format!("127.0.0.1:{port}"), &place);
    let program = Program::start(FRESHET, &url, &stack.cache.url(), &[]).unwrap();
    await_state(&program, "active");
    let tally = under_load(program.address(), || {
        for _ in 0..20 {
            detour.cut();
            thread::sleep(Duration::from_millis(30));
            detour.mend();
            thread::sleep(Duration::from_millis(120));
        }
    });
    tally.check_on(&program, &stack.database);
}

/// Makes the next `times` changes of keys fail with this code.
fn make_trouble(sql: &Sql, code: &str, times: u32) {
    sql.execute(&format!(
        "create sequence public.trouble;
         create function public.trouble() returns trigger language plpgsql as $$
         begin
             if nextval('public.trouble') <= {times} then
                 raise exception 'made by the test' using errcode = '{code}';
             end if;
             return new;
         end $$;
         create trigger trouble before insert or update on freshet.keys
            for each row execute function public.trouble()"
    ))
    .unwrap();
}

fn end_trouble(sql: &Sql) {
    sql.execute(
        "drop trigger trouble on freshet.keys; drop function public.trouble; drop sequence public.trouble",
    )
    .unwrap();
}

/// Runs a blind and a reading write over two keys; both change all or nothing.
fn write_pairs(client: &mut Client) -> [Value; 2] {
    [
        client.call(&["MSET", "a", "new", "b", "new"]).unwrap(),
        client.call(&["MSETNX", "c", "new", "d", "new"]).unwrap(),
    ]
}

#[test]
fn conflicts_are_tried_again_and_then_told_of() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let mut client = stack.client().unwrap();
    // Serialization failure, deadlock.
    for code in ["40001", "40P01"] {
        client.ok(&["DEL", "a", "b", "c", "d"]).unwrap();
        make_trouble(&sql, code, 2);
        let replies = write_pairs(&mut client);
        assert_eq!(replies[0], Value::Simple("OK".into()), "{code}");
        assert_eq!(replies[1], Value::Integer(1), "{code}");
        end_trouble(&sql);
        client.ok(&["DEL", "a", "b", "c", "d"]).unwrap();
        make_trouble(&sql, code, 1_000_000);
        for reply in write_pairs(&mut client) {
            let text = reply.error().expect("it conflicts for ever");
            assert!(text.starts_with("TRYAGAIN too many conflicts"), "{text}");
        }
        end_trouble(&sql);
        assert_eq!(client.integer(&["EXISTS", "a", "b", "c", "d"]).unwrap(), 0);
    }
}

/// Disk full, out of memory, read-only: nothing is written, and the next write may work.
#[test]
fn a_store_that_cannot_write_now_refuses_for_a_while() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let mut client = stack.client().unwrap();
    for code in ["53100", "53200", "25006"] {
        client.ok(&["MSET", "a", "old", "b", "old"]).unwrap();
        client.ok(&["DEL", "c", "d"]).unwrap();
        make_trouble(&sql, code, 1_000_000);
        for reply in write_pairs(&mut client) {
            let text = reply.error().expect("it cannot be written");
            assert!(text.starts_with("TRYAGAIN"), "{code}: {text}");
            assert!(text.contains("made by the test"), "{code}: {text}");
        }
        assert_eq!(client.text(&["GET", "a"]).unwrap(), "old", "{code}");
        end_trouble(&sql);
        for reply in write_pairs(&mut client) {
            assert_eq!(reply.error(), None, "{code}");
        }
        assert_eq!(client.text(&["GET", "b"]).unwrap(), "new", "{code}");
    }
}

/// A server that was made read-only: its sessions stay open, and must not be kept.
#[test]
fn a_read_only_server_is_left_and_used_again() {
    let mut stack = Stack::start_with_own_postgres(&[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    let url = stack.postgres().unwrap().url("postgres");
    let sql = Sql::connect(&url).unwrap();
    sql.execute("alter system set default_transaction_read_only = on")
        .unwrap();
    sql.execute("select pg_reload_conf()").unwrap();
    process::await_true("it takes no writes", LIMIT, || {
        let reply = client.call(&["SET", "key", "new"]).unwrap();
        reply.error().is_some_and(|text| {
            assert!(text.starts_with("TRYAGAIN"), "{text}");
            true
        })
    })
    .unwrap();
    assert!(
        client
            .call(&["SET", "key", "newer"])
            .unwrap()
            .error()
            .is_some()
    );
    let sql = Sql::connect(&url).unwrap();
    sql.execute("set default_transaction_read_only = off; set transaction_read_only = off")
        .unwrap();
    sql.execute("alter system reset default_transaction_read_only")
        .unwrap();
    sql.execute("select pg_reload_conf()").unwrap();
    await_write(&mut client, "key", "newest");
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "newest");
}

#[test]
fn a_statement_that_takes_too_long_is_refused_alone_and_may_be_tried_again() {
    let stack = Stack::start_with(&[("postgres.statement_timeout", "1s")], &[]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["MSET", "held", "old", "free", "old"]).unwrap();
    let sql = stack.sql().unwrap();
    sql.execute("begin; select from freshet.keys where key = 'held' for update")
        .unwrap();
    let commands: Vec<Vec<&str>> = vec![
        vec!["SET", "free", "new"],
        vec!["SET", "held", "never"],
        vec!["APPEND", "held", "never"],
        vec!["APPEND", "free", "!"],
    ];
    let replies = client.pipeline(&commands).unwrap();
    assert_eq!(replies[0], Value::Simple("OK".into()));
    for reply in &replies[1..3] {
        let text = reply.error().expect("the row is locked");
        assert!(text.starts_with("TRYAGAIN nothing was written"), "{text}");
    }
    assert_eq!(replies[3], Value::Integer(4));
    sql.execute("rollback").unwrap();
    assert_eq!(client.text(&["GET", "held"]).unwrap(), "old");
    client.ok(&["SET", "held", "new"]).unwrap();
    assert_eq!(client.text(&["GET", "free"]).unwrap(), "new!");
}

/// SQLSTATE 53300. (Superusers are spared from every limit but the server's.)
#[test]
fn a_store_without_free_connections_refuses_for_a_while() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let role = format!("app_{}", std::process::id());
    sql.execute(&format!(
        "drop role if exists {role}; create role {role} login"
    ))
    .unwrap();
    let database: tokio_postgres::Config = stack.database.parse().unwrap();
    let name = database.get_dbname().unwrap();
    sql.execute(&format!(
        "grant create on database {name} to {role}; grant usage on schema freshet to {role};
         grant all on all tables in schema freshet to {role};
         grant all on all sequences in schema freshet to {role}"
    ))
    .unwrap();
    let url = stack.database.replace("//postgres@", &format!("//{role}@"));
    let program = Program::start(FRESHET, &url, &stack.cache.url(), &[]).unwrap();
    await_state(&program, "active");
    let mut client = program.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    let cut = format!(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = '{role}'"
    );
    sql.execute(&format!("alter role {role} connection limit 0; {cut}"))
        .unwrap();
    let reply = client.call(&["SET", "key", "refused"]).unwrap();
    let text = reply.error().expect("there is no connection").to_owned();
    assert!(text.starts_with("TRYAGAIN"), "{text}");
    sql.execute(&format!("alter role {role} connection limit -1"))
        .unwrap();
    await_write(&mut client, "key", "new");
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
    drop(program);
    sql.execute(&format!("drop owned by {role}; drop role {role}"))
        .unwrap();
}
