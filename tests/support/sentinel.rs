//! A private Redis Sentinel.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;

use super::client::Client;
use super::port;
use super::process::{self, AtParentDeath, RunAs};
use super::redis::Redis;

const START_LIMIT: Duration = Duration::from_secs(20);

/// The name under which it knows the primary.
pub const MASTER: &str = "main";

/// One `redis-server --sentinel` on a free port of 127.0.0.1, which decides alone.
pub struct Sentinel {
    _folder: TempDir,
    port: u16,
    server: Child,
}

impl Sentinel {
    /// Watches `primary`; one that is silent for a second is replaced.
    pub fn start(primary: &Redis) -> Result<Self> {
        let folder = TempDir::with_prefix("freshet-sentinel-")?;
        let port = port::free()?;
        let file = folder.path().join("sentinel.conf");
        std::fs::write(
            &file,
            format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor {MASTER} 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds {MASTER} 1000\n\
                 sentinel failover-timeout {MASTER} 10000\n",
                folder.path().display(),
                primary.port()
            ),
        )?;
        let mut server = process::command("redis-server", RunAs::Myself, AtParentDeath::Kill);
        server
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let server = process::spawn(server)?;
        let sentinel = Self {
            _folder: folder,
            port,
            server,
        };
        process::await_true("Sentinel answers", START_LIMIT, || {
            sentinel
                .client()
                .and_then(|mut client| client.text(&["PING"]))
                .is_ok_and(|pong| pong == "PONG")
        })?;
        Ok(sentinel)
    }

    /// A new connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }

    /// The URL by which Freshet finds the primary.
    pub fn url(&self) -> String {
        // The first sentinel of the list is not there: another is asked.
        format!(
            "redis+sentinel://127.0.0.1:1,127.0.0.1:{}/{MASTER}",
            self.port
        )
    }

    /// The port of the primary, as it says.
    pub fn primary(&self) -> Result<u16> {
        let address = self
            .client()?
            .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER])?;
        let port = address.items()[1].text().unwrap_or_default();
        Ok(port.parse()?)
    }

    /// Waits until it knows a replica that it can promote.
    pub fn await_replica(&self) -> Result<()> {
        process::await_true("Sentinel knows the replica", START_LIMIT, || {
            let Ok(replicas) = self
                .client()
                .and_then(|mut client| client.call(&["SENTINEL", "REPLICAS", MASTER]))
            else {
                return false;
            };
            let usable = |details: &super::Value| {
                let texts: Vec<_> = details.items().iter().map(|item| item.text()).collect();
                let value = |name: &str| {
                    let at = texts.iter().position(|t| t.as_deref() == Some(name));
                    at.and_then(|at| texts.get(at + 1).cloned().flatten())
                };
                value("flags").as_deref() == Some("slave")
                    && value("master-link-status").as_deref() == Some("ok")
            };
            replicas.items().iter().any(usable)
        })
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Nothing of it is needed any more; an error here would hide the test's own.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
