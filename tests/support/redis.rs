//! A private Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::client::Client;
use super::port;
use super::process::{self, AtParentDeath, RunAs};

const START_LIMIT: Duration = Duration::from_secs(20);

/// One redis-server on a free port of 127.0.0.1. It keeps nothing over a restart,
/// unless told to.
pub struct Redis {
    folder: TempDir,
    port: u16,
    options: Vec<String>,
    server: Option<Child>,
}

impl Redis {
    /// A plain server without persistence.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more command line options.
    pub fn start_with(options: &[&str]) -> Result<Self> {
        let mut server = Self {
            folder: TempDir::with_prefix("freshet-redis-")?,
            port: port::free()?,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            server: None,
        };
        server.start_again()?;
        Ok(server)
    }

    /// Starts it on its port again, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "Redis is running");
        let mut server = process::command("redis-server", RunAs::Myself, AtParentDeath::Kill);
        server
            .args(["--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"])
            .args(["--enable-debug-command", "yes", "--maxclients", "20000"])
            .arg("--port")
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.folder.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.server = Some(process::spawn(server)?);
        process::await_true("Redis answers", START_LIMIT, || {
            self.client()
                .and_then(|mut client| client.text(&["PING"]))
                .is_ok_and(|pong| pong == "PONG")
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A new connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("Redis is not running")?.id())
    }

    /// A number from one of its `INFO` sections.
    pub fn info(&self, section: &str, field: &str) -> Result<i64> {
        let text = self.client()?.text(&["INFO", section])?;
        text.lines()
            .find_map(|line| {
                line.strip_prefix(field)?
                    .strip_prefix(':')?
                    .trim()
                    .parse()
                    .ok()
            })
            .with_context(|| format!("INFO {section} has no number {field}"))
    }

    /// Writes a snapshot, which it begins with when it is started again.
    pub fn save_snapshot(&self) -> Result<()> {
        self.client()?.ok(&["SAVE"]).map(drop)
    }

    /// From now on it begins empty.
    pub fn forget_snapshot(&self) -> Result<()> {
        match std::fs::remove_file(self.folder.path().join("dump.rdb")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Kills it with `SIGKILL`.
    pub fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("Redis is not running")?;
        server.kill()?;
        server.wait()?;
        Ok(())
    }

    /// Sends it a signal by name (`STOP`, `CONT`).
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.pid()?, name)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if self.server.is_some() {
            // An error here would hide the test's own.
            let _ = self.kill();
        }
    }
}
