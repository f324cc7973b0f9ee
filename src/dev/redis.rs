//! The private Redis: the cache, with nothing on disk.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::account::Account;
use super::child::{Server, stop_stranger};
use super::folder::{Folder, Notes};

const READY_PATIENCE: Duration = Duration::from_secs(10);

/// How to start it. The configuration goes through standard input: no file to
/// own, and the password in no list of processes.
pub(super) fn server(folder: &Folder, program: &Path, account: &Account, notes: &Notes) -> Server {
    let input = format!(
        "bind 127.0.0.1\nport {}\nrequirepass {}\nmaxmemory 256mb\n\
         maxmemory-policy volatile-lru\nsave \"\"\nappendonly no\ndaemonize no\n",
        notes.redis_port, notes.password
    );
    let program = program.to_owned();
    let account = account.clone();
    Server {
        name: "Redis",
        command: Box::new(move || {
            let mut command = Command::new(&program);
            command.arg("-").current_dir("/");
            account.apply(&mut command);
            command
        }),
        input,
        log: folder.path().join("redis.log"),
        // For a later run that finds it still there.
        pid_file: Some(pid_file(folder)),
        stop_signal: Signal::TERM,
        child: None,
    }
}

fn pid_file(folder: &Folder) -> PathBuf {
    folder.path().join("redis.pid")
}

/// Stops the Redis that a killed run left behind on `port`.
pub(super) async fn stop_leftover(folder: &Folder, port: u16) -> anyhow::Result<()> {
    let path = pid_file(folder);
    let Ok(text) = std::fs::read_to_string(&path) else {
        return Ok(());
    };
    if let Ok(pid) = text.trim().parse()
        && is_redis_on(pid, port)
    {
        tracing::info!(pid, "stopping the Redis of an earlier run");
        stop_stranger(pid, Signal::TERM).await?;
    }
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Whether `pid` is a Redis on `port`, and not a stranger that got the number
/// since. Redis titles its process `redis-server 127.0.0.1:port`.
fn is_redis_on(pid: u32, port: u16) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|title| {
        let title = String::from_utf8_lossy(&title);
        let mut words = title.split(['\0', ' ']);
        words.next().is_some_and(|w| w.ends_with("-server"))
            && words.any(|w| w == format!("127.0.0.1:{port}"))
    })
}

/// Waits until it answers.
pub(super) async fn wait_until_ready(server: &mut Server, notes: &Notes) -> anyhow::Result<()> {
    server
        .wait_until(READY_PATIENCE, || async {
            tokio::time::timeout(Duration::from_secs(1), answers(notes))
                .await
                .is_ok_and(|answer| answer.unwrap_or(false))
        })
        .await
}

/// Logs in: a yes also tells that it is ours.
async fn answers(notes: &Notes) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, notes.redis_port)).await?;
    let login = format!("AUTH {}\r\n", notes.password);
    stream.write_all(login.as_bytes()).await?;
    let mut reply = [0; 5];
    stream.read_exact(&mut reply).await?;
    Ok(&reply == b"+OK\r\n")
}
