//! Client libraries as people use them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Stack, process};

const REDIS_PY: &str = "redis==5.2.1";
const IOREDIS: &str = "ioredis@5.4.2";

/// Where the libraries are installed; kept between runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients")
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(name)
}

fn run(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("180").arg(program).args(arguments);
    process::run(command).unwrap()
}

fn python() -> PathBuf {
    let home = folder().join("python");
    let python = home.join("bin/python");
    if !home.join("installed").exists() {
        run(
            Path::new("python3"),
            &["-m", "venv", home.to_str().unwrap()],
        );
        run(&python, &["-m", "pip", "install", "--quiet", REDIS_PY]);
        std::fs::write(home.join("installed"), REDIS_PY).unwrap();
    }
    python
}

fn node_modules() -> PathBuf {
    let home = folder().join("node");
    if !home.join("installed").exists() {
        std::fs::create_dir_all(&home).unwrap();
        let prefix = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        let arguments = [prefix.as_slice(), &[home.to_str().unwrap(), IOREDIS]].concat();
        run(Path::new("npm"), &arguments);
        std::fs::write(home.join("installed"), IOREDIS).unwrap();
    }
    home.join("node_modules")
}

fn port(stack: &Stack) -> String {
    stack.program.address().port().to_string()
}

#[test]
fn redis_py_works_with_both_protocols() {
    let mut stack = Stack::start().unwrap();
    for protocol in ["2", "3"] {
        let script = script("redis_py.py");
        let output = run(
            &python(),
            &[script.to_str().unwrap(), &port(&stack), protocol],
        );
        assert!(output.ends_with("all well\n"), "{output}");
    }
    stack.program.stop_quietly().unwrap();
}

#[test]
fn ioredis_works() {
    let mut stack = Stack::start().unwrap();
    let modules = node_modules();
    let script = script("ioredis.js");
    let arguments = [
        script.to_str().unwrap(),
        &port(&stack),
        modules.to_str().unwrap(),
    ];
    let output = run(Path::new("node"), &arguments);
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
