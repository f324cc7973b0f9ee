//! Client libraries as people use them.

mod redis_rs;

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Stack, packages, process};

const PYTHON: &[&str] = &["redis==5.2.1"];
const NODE: &[&str] = &["ioredis@5.4.2", "redis@4.7.0"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

fn run(program: &Path, arguments: &[&str]) -> String {
    packages::run(program, arguments).unwrap()
}

/// An interpreter with the client.
pub fn python() -> PathBuf {
    packages::python("python", PYTHON).unwrap()
}

fn port(stack: &Stack) -> String {
    stack.program.address().port().to_string()
}

/// Runs a script that says at its end that all is well.
pub fn is_well(program: &Path, name: &str, arguments: &[&str]) {
    let script = script(name);
    let output = run(program, &[&[script.to_str().unwrap()], arguments].concat());
    assert!(output.ends_with("all well\n"), "{output}");
}

#[test]
fn redis_py_works_with_both_protocols() {
    let mut stack = Stack::start().unwrap();
    for protocol in ["2", "3"] {
        is_well(&python(), "redis_py.py", &[&port(&stack), protocol]);
        is_well(&python(), "data_types.py", &[&port(&stack), protocol]);
    }
    stack.program.stop_quietly().unwrap();
}

#[test]
fn node_clients_work() {
    let mut stack = Stack::start().unwrap();
    let modules = packages::node_modules("node", NODE).unwrap();
    for script in ["ioredis.js", "node_redis.js"] {
        let arguments = [&*port(&stack), modules.to_str().unwrap()];
        is_well(Path::new("node"), script, &arguments);
    }
    stack.program.stop_quietly().unwrap();
}

/// Redigo, by Debian's packages of Go.
#[test]
fn redigo_works() {
    let mut stack = Stack::start().unwrap();
    let mut go = Command::new("timeout");
    go.args(["180", "go", "run"]).arg(script("redigo.go"));
    go.arg(port(&stack))
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", packages::folder().join("go"));
    let output = process::run(go).unwrap();
    assert!(output.ends_with("all well\n"), "{output}");
    stack.program.stop_quietly().unwrap();
}

/// Its default list, as far as strings go.
#[test]
fn redis_benchmark_runs_without_an_error() {
    let mut stack = Stack::start().unwrap();
    let arguments = [
        "-p",
        &port(&stack),
        "-t",
        "ping,set,get,incr,mset",
        "-n",
        "2000",
        "-r",
        "1000",
        "-c",
        "20",
        "-P",
        "4",
        "--csv",
    ];
    let output = run(Path::new("redis-benchmark"), &arguments);
    for test in [
        "PING_INLINE",
        "PING_MBULK",
        "SET",
        "GET",
        "INCR",
        "MSET (10 keys)",
    ] {
        assert!(output.contains(&format!("\"{test}\"")), "{output}");
    }
    assert!(!output.contains("Error"), "{output}");
    stack.program.stop_quietly().unwrap();
}

#[test]
fn redis_cli_works() {
    let stack = Stack::start().unwrap();
    let cli = |arguments: &[&str]| {
        run(
            Path::new("redis-cli"),
            &[&["-p", &port(&stack)], arguments].concat(),
        )
    };
    assert_eq!(cli(&["SET", "key", "value"]), "OK\n");
    assert_eq!(cli(&["-3", "GET", "key"]), "value\n");
    assert_eq!(cli(&["-n", "2", "INCR", "count"]), "1\n");
    assert_eq!(cli(&["--scan"]), "key\n");
    assert!(cli(&["INFO", "server"]).contains("redis_version"));
}
