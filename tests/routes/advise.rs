//! `freshet advise`: a sample of what clients do, and the routes that fit.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::call;
use crate::support::Redis;
use crate::support::stack::FRESHET;

#[test]
fn what_a_redis_runs_is_sampled_and_routes_are_told_for_it() {
    let redis = Redis::start().unwrap();
    let url = redis.url();
    let sampling = Command::new(FRESHET)
        .args(["advise", "--seconds", "3", "--from", &url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut client = redis.client().unwrap();
    // As long as the sample may last, whenever it begins.
    let started = Instant::now();
    let mut n = 0;
    while started.elapsed() < Duration::from_secs(6) {
        for round in n..n + 20 {
            call(&mut client, &format!("INCR views:{}", round % 50));
        }
        n += 20;
        call(&mut client, &format!("SET page:{n} html EX 60"));
        call(&mut client, &format!("GET page:{n}"));
        call(&mut client, &format!("INCR limit:{n}"));
        call(&mut client, &format!("EXPIRE limit:{n} 10"));
        call(&mut client, &format!("SET session:u{n} state EX 86400"));
        call(&mut client, "LPUSH queue job");
        call(&mut client, "RPOP queue");
        call(&mut client, &format!("HSET user:{n} name x"));
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = sampling.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for part in [
        "match = \"views:*\"\nstrategy = \"write-behind\"",
        "match = \"page:*\"\nstrategy = \"cache-only\"",
        "match = \"limit:*\"\nstrategy = \"cache-only\"",
        "match = \"session:*\"\nstrategy = \"eventual\"",
        "#   atomic: queues, locks and scripts rest on it",
        "# user:*: ",
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(!told.contains("match = \"queue\"") && !told.contains("match = \"user:*\""));
    // They can be put into a configuration as they are.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, &told).unwrap();
    let checked = Command::new(FRESHET)
        .args(["check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn a_log_of_monitor_is_read_and_one_without_commands_refused() {
    let advise = |log: &str| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        std::fs::write(&file, log).unwrap();
        Command::new(FRESHET)
            .args(["advise", "--json"])
            .arg(&file)
            .output()
            .unwrap()
    };
    let told = advise(
        "OK\n1.0 [0 127.0.0.1:1] \"get\" \"user:1\"\n3.0 [0 lua] \"set\" \"user:2\" \"abc\"\n",
    );
    let advice: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(advice[0]["match"], "user:*");
    assert_eq!(advice[0]["keys"], 2);
    assert_eq!(advice[0]["reads_per_second"], 0.5);
    let told = advise("nothing of the kind\n");
    assert_eq!(told.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&told.stderr).contains("no command in the sample"));
}
