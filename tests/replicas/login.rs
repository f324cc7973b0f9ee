//! The replication connection logs in as all others do: by TLS, a password, and the second host of the URL.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{LIMIT, await_equal};
use crate::moving::all_ok;
use crate::support::{Fsync, Postgres, Program, Redis, Sql, port, process, stack::FRESHET};

fn run(folder: &Path, line: &str) {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.current_dir(folder).args(words);
    process::run(command).unwrap();
}

/// A certificate that is its own authority, and rules that let the role `freshet` in by TLS and password alone.
fn prepare(folder: &Path) {
    std::fs::write(
        folder.join("hba"),
        "host all postgres 127.0.0.1/32 trust\nhostssl all freshet 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    run(
        folder,
        "openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -x509 -days 2 -subj /CN=server \
         -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out server.pem",
    );
    run(folder, "chmod 600 key.pem");
    if process::is_root() {
        run(folder, "chown -R postgres: .");
    }
}

#[test]
fn a_replica_is_fed_by_tls_a_password_and_another_host() {
    let folder = TempDir::new().unwrap();
    prepare(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", path("server.pem")),
        format!("ssl_key_file={}", path("key.pem")),
        format!("hba_file={}", path("hba")),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let postgres = Postgres::start_with(Fsync::Off, &settings).unwrap();
    let database = postgres.create_database().unwrap();
    let sql = Sql::connect(&database).unwrap();
    let name = database.rsplit('/').next().unwrap();
    sql.execute(&format!(
        "CREATE ROLE freshet LOGIN REPLICATION PASSWORD 'se''cret'; ALTER DATABASE {name} OWNER TO freshet"
    ))
    .unwrap();
    // Nobody is at the first one.
    let (nobody, somebody) = (port::free().unwrap(), postgres.port());
    let url = format!(
        "postgresql://freshet:se%27cret@127.0.0.1:{nobody},127.0.0.1:{somebody}/{name}?sslmode=require"
    );
    let (cache, replica) = (Redis::start().unwrap(), Redis::start().unwrap());
    let authority = [("postgres.tls_ca", &*path("server.pem"))];
    let mut program = Program::stopped(FRESHET, &url, &cache.url(), &authority).unwrap();
    program.configure(&format!(
        "[[replica]]\nname = \"one\"\nurl = \"{}\"\n",
        replica.url()
    ));
    program.start_again().unwrap();
    let mut here = program.client().unwrap();
    program
        .await_log("the replica follows the changes", LIMIT)
        .unwrap();
    all_ok(&mut here, &["SET a 1", "HSET h f v"]);
    await_equal(&mut here, &replica);
    let query = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)";
    assert!(sql.query(query, &[]).unwrap()[0].get::<_, bool>(0));
}
