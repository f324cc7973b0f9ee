//! Commands that compare, bring data in and take it out, on real servers.

mod export;
mod import;
mod reconcile;

use std::process::{Output, Stdio};

use anyhow::{Context, Result};

use crate::support::process::{self, AtParentDeath, RunAs};
use crate::support::{Client, Stack, stack::FRESHET};

/// What a command of the program came to.
struct Ran {
    /// Its exit code.
    code: i32,
    /// Its standard output.
    out: String,
    /// Its standard error.
    err: String,
}

/// Runs `freshet <arguments>` on the servers of `stack`.
fn run(stack: &Stack, arguments: &[&str]) -> Result<Ran> {
    run_on(&stack.database, &stack.cache.url(), arguments)
}

/// The same on any servers.
fn run_on(postgres: &str, redis: &str, arguments: &[&str]) -> Result<Ran> {
    let mut command = command_on(postgres, redis, arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output()?;
    Ok(Ran {
        code: status.code().context("it was killed")?,
        out: String::from_utf8(stdout)?,
        err: String::from_utf8(stderr)?,
    })
}

fn command_on(postgres: &str, redis: &str, arguments: &[&str]) -> std::process::Command {
    let mut command = process::command(FRESHET, RunAs::Myself, AtParentDeath::Kill);
    command
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env("FRESHET_POSTGRES_URL", postgres)
        .env("FRESHET_REDIS_URL", redis)
        .env("FRESHET_LOG_LEVEL", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs commands, whose words are separated by blanks, each of which must go well.
fn all_ok(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        client.ok(&words).unwrap();
    }
}
