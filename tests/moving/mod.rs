//! Commands that compare, bring data in and take it out, on real servers.

mod export;
pub mod import;
mod reconcile;

use std::process::{Output, Stdio};

use anyhow::{Context, Result};
use freshet::engine;

use crate::support::process::{self, AtParentDeath, RunAs};
use crate::support::{Client, Stack, Value, stack::FRESHET};

/// What a command of the program came to.
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `freshet <arguments>` on the servers of `stack`.
pub fn run(stack: &Stack, arguments: &[&str]) -> Result<Ran> {
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

/// The command that does so.
pub fn command_on(postgres: &str, redis: &str, arguments: &[&str]) -> std::process::Command {
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
pub fn all_ok(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        client.ok(&words).unwrap();
    }
}

/// All keys of the selected database, but Freshet's own notes.
pub fn keys(client: &mut Client) -> Vec<String> {
    let keys = client.ok(&["KEYS", "*"]).unwrap();
    let keys = keys.items().iter().filter_map(Value::text);
    let mut keys: Vec<String> = keys.filter(|key| !key.starts_with("freshet:")).collect();
    keys.sort();
    keys
}

/// The keys of all databases that do not hold the same, or do not end at the same time.
pub fn differing(here: &mut Client, there: &mut Client) -> Vec<String> {
    let mut differing = Vec::new();
    for db in 0..16 {
        for client in [&mut *here, &mut *there] {
            client.ok(&["SELECT", &db.to_string()]).unwrap();
        }
        let mut names = [keys(here), keys(there)].concat();
        names.sort();
        names.dedup();
        for name in names {
            let [one, other] = [&mut *here, &mut *there].map(|client| {
                let Value::Bulk(payload) = client.call(&["DUMP", &name]).unwrap() else {
                    return None;
                };
                let value = engine::restored(&payload.into()).unwrap();
                let end = client.integer(&["PEXPIRETIME", &name]).unwrap();
                Some((engine::digest(&value).unwrap(), end))
            });
            if one != other {
                differing.push(format!("{db}:{name}"));
            }
        }
    }
    for client in [here, there] {
        client.ok(&["SELECT", "0"]).unwrap();
    }
    differing
}
