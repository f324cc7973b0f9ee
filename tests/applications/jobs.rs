//! Many jobs of BullMQ, and what they stand on is killed.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use super::{node_modules, page, said, script};
use crate::support::process::{self, AtParentDeath, RunAs};
use crate::support::{Client, Stack};

/// About a minute where nothing else runs; `FRESHET_JOBS=2000` is enough for each step to fall into the middle.
const JOBS: &str = "10000";
const LIMIT: Duration = Duration::from_secs(900);

/// How many jobs are completed, as a proxy that lives says.
fn completed(client: &mut Client) -> i64 {
    client.integer(&["ZCARD", "bull:jobs:completed"]).unwrap()
}

#[test]
fn no_job_of_bullmq_is_lost_when_cache_and_proxy_are_killed() {
    page::tell("BullMQ (npm), servers killed", page::JOBS, || {
        let count = std::env::var("FRESHET_JOBS").unwrap_or_else(|_| JOBS.to_owned());
        let mut stack = Stack::start().unwrap();
        let other = stack.second_program().unwrap();
        let mut node = process::command("node", RunAs::Myself, AtParentDeath::Kill);
        let ports = [&stack.program, &other].map(|program| program.address().port().to_string());
        node.arg(script("bullmq_jobs.js")).arg(node_modules());
        node.args(ports).arg(&count).stdout(Stdio::piped());
        let mut node = process::spawn(node).unwrap();
        let mut client = other.client().unwrap();
        let mut reach = |share: i64| {
            let wanted = count.parse::<i64>().unwrap() * share / 100;
            let what = format!("{wanted} jobs are completed");
            process::await_true(&what, LIMIT, || completed(&mut client) >= wanted).unwrap();
        };
        reach(20);
        stack.cache.kill().unwrap();
        reach(30);
        stack.cache.start_again().unwrap();
        reach(50);
        stack.program.kill().unwrap();
        reach(70);
        stack.program.start_again().unwrap();
        let mut output = String::new();
        node.stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        assert!(node.wait().unwrap().success(), "{output}");
        println!("{output}");
        said(Ok(output))
    });
}
