//! Other proxies in front of a plain Redis.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::support::process::{self, AtParentDeath, RunAs};
use super::support::{Client, port};

const START_LIMIT: Duration = Duration::from_secs(10);

/// A running proxy.
pub struct Peer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Peer {
    /// twemproxy before `redis`; `None`, said aloud, if it is not installed.
    pub fn twemproxy(redis: SocketAddr) -> Result<Option<Self>> {
        if !is_installed("nutcracker", "--version") {
            println!(
                "twemproxy is left out: `nutcracker` is not installed (Debian package nutcracker)"
            );
            return Ok(None);
        }
        let port = port::free()?;
        let stats = port::free()?;
        let config = format!(
            "bench:\n  listen: 127.0.0.1:{port}\n  redis: true\n  servers:\n   - {redis}:1\n"
        );
        Self::start(port, &config, |file| {
            let mut command = process::command("nutcracker", RunAs::Myself, AtParentDeath::Kill);
            command.arg("-c").arg(file).args(["-s", &stats.to_string()]);
            command
        })
        .map(Some)
    }

    /// HAProxy in TCP mode before `redis`; `None`, said aloud, if it is not installed.
    pub fn haproxy(redis: SocketAddr) -> Result<Option<Self>> {
        if !is_installed("haproxy", "-v") {
            println!("HAProxy is left out: `haproxy` is not installed (Debian package haproxy)");
            return Ok(None);
        }
        let port = port::free()?;
        let config = format!(
            "global\n  maxconn 4096\n\
             defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             listen bench\n  bind 127.0.0.1:{port}\n  server redis {redis}\n"
        );
        Self::start(port, &config, |file| {
            let mut command = process::command("haproxy", RunAs::Myself, AtParentDeath::Kill);
            command.arg("-db").arg("-f").arg(file);
            command
        })
        .map(Some)
    }

    fn start(
        port: u16,
        config: &str,
        command: impl FnOnce(&std::path::Path) -> Command,
    ) -> Result<Self> {
        let folder = TempDir::with_prefix("freshet-peer-")?;
        let file = folder.path().join("config");
        std::fs::write(&file, config)?;
        let mut command = command(&file);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let peer = Self {
            child: process::spawn(command)?,
            port,
            _folder: folder,
        };
        process::await_true("the proxy answers", START_LIMIT, || {
            Client::connect(peer.address())
                .and_then(|mut client| client.call(&["GET", "key:000000000000"]))
                .is_ok()
        })?;
        Ok(peer)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It holds nothing; an error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed(program: &str, version_flag: &str) -> bool {
    Command::new(program)
        .arg(version_flag)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}
