//! What is done to the programs and the network between them.

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use super::cluster::{Cluster, PROXIES, name};
use crate::support::process;
use crate::support::relay::{Cut, Traffic, Way};
use crate::support::seed::Random;

/// How long a delayed burst of bytes takes.
const DELAY: Duration = Duration::from_millis(120);
/// Flushes, deletions and cuts of connections in one fault.
const TIMES: u32 = 8;

/// One of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Cache,
    Store,
}

/// What happens to the network between a proxy and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Bytes arrive when it is over, both ways.
    Held,
    /// Bytes are lost both ways.
    Lost,
    /// What the proxy sends is lost.
    LostThere,
    /// What the server answers is lost.
    LostBack,
    /// Bytes take their time.
    Slow,
    /// The server's side of each connection ends, the proxy's does not.
    HalfOpen,
    /// Connections end in the middle of a frame, again and again.
    MidFrame,
    /// Connections are refused.
    Refused,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The cache stands still.
    CacheStalled,
    /// The cache is killed, and is empty afterwards.
    CacheKilled,
    /// The cache is killed, and comes back as it was some time ago.
    CacheOlder,
    /// Somebody flushes the cache.
    CacheFlushed,
    /// Somebody deletes keys in the cache, the program's own too.
    CacheKeysDeleted,
    /// Somebody flushes the functions.
    FunctionsLost,
    /// The cache has no memory for anything.
    CacheFull,
    /// The cache's connections are ended.
    CacheClientsKilled,
    /// PostgreSQL is restarted in order.
    StoreRestarted,
    /// PostgreSQL is restarted as after a crash.
    StoreCrashed,
    /// PostgreSQL is killed by the kernel.
    StoreKilled,
    /// PostgreSQL stands still.
    StoreStalled,
    /// All its sessions are ended.
    BackendsTerminated,
    /// This proxy's connection is cut when COMMIT has gone, or is about to go.
    CommitCut(usize, bool),
    /// The same for writes that commit by themselves.
    BlindCut(usize, bool),
    /// The proxy is killed.
    ProxyKilled(usize),
    /// The proxy ends at a point of its program.
    ProxyAtPoint(usize, &'static str),
    /// The proxy stands still.
    ProxyStalled(usize),
    /// The proxy is stopped in order.
    ProxyRestarted(usize),
    /// The network between a proxy and a server.
    Net(usize, Server, Network),
}

/// Whether `TORTURE_FAULTS` leaves this sort of fault in: parts of names, separated by commas; those with a
/// `-` in front are left out, and if there are others, only they happen.
fn is_wanted(sort: &str) -> bool {
    let wanted = std::env::var("TORTURE_FAULTS").unwrap_or_default();
    let parts: Vec<&str> = wanted.split(',').filter(|part| !part.is_empty()).collect();
    let (without, only): (Vec<&str>, Vec<&str>) =
        parts.into_iter().partition(|part| part.starts_with('-'));
    !without.iter().any(|part| sort.contains(&part[1..]))
        && (only.is_empty() || only.iter().any(|part| sort.contains(part)))
}

/// What a fault is done to. Two at the same time have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    Cache,
    Store,
    Proxy(usize),
    Link(usize, Server),
}

impl Fault {
    /// One of each sort. Each concerns one of the proxies, if any, drawn at random.
    pub fn all(random: &mut Random) -> Vec<Self> {
        const POINTS: [&str; 5] = [
            "after-begin",
            "before-commit",
            "before-apply",
            "before-reply",
            "before-fill",
        ];
        let mut proxy = || random.below(PROXIES);
        let mut all = vec![
            Self::CacheStalled,
            Self::CacheKilled,
            Self::CacheOlder,
            Self::CacheFlushed,
            Self::CacheKeysDeleted,
            Self::FunctionsLost,
            Self::CacheFull,
            Self::CacheClientsKilled,
            Self::StoreRestarted,
            Self::StoreCrashed,
            Self::StoreKilled,
            Self::StoreStalled,
            Self::BackendsTerminated,
            Self::CommitCut(proxy(), true),
            Self::CommitCut(proxy(), false),
            Self::BlindCut(proxy(), true),
            Self::BlindCut(proxy(), false),
            Self::ProxyKilled(proxy()),
            Self::ProxyStalled(proxy()),
            Self::ProxyRestarted(proxy()),
        ];
        if cfg!(feature = "fault-points") {
            all.extend(POINTS.map(|point| Self::ProxyAtPoint(proxy(), point)));
        }
        for server in [Server::Cache, Server::Store] {
            for network in [
                Network::Held,
                Network::Lost,
                Network::LostThere,
                Network::LostBack,
                Network::Slow,
                Network::HalfOpen,
                Network::MidFrame,
                Network::Refused,
            ] {
                all.push(Self::Net(proxy(), server, network));
            }
        }
        all.retain(|fault| is_wanted(&fault.sort()));
        all
    }

    /// What it is done to.
    pub fn victim(self) -> Victim {
        match self {
            Self::CacheStalled
            | Self::CacheKilled
            | Self::CacheOlder
            | Self::CacheFlushed
            | Self::CacheKeysDeleted
            | Self::FunctionsLost
            | Self::CacheFull
            | Self::CacheClientsKilled => Victim::Cache,
            Self::StoreRestarted
            | Self::StoreCrashed
            | Self::StoreKilled
            | Self::StoreStalled
            | Self::BackendsTerminated => Victim::Store,
            Self::CommitCut(proxy, _) | Self::BlindCut(proxy, _) => {
                Victim::Link(proxy, Server::Store)
            }
            Self::ProxyKilled(proxy)
            | Self::ProxyAtPoint(proxy, _)
            | Self::ProxyStalled(proxy)
            | Self::ProxyRestarted(proxy) => Victim::Proxy(proxy),
            Self::Net(proxy, server, _) => Victim::Link(proxy, server),
        }
    }

    /// The only proxy that it concerns, if there is one.
    pub fn proxy(self) -> Option<usize> {
        match self.victim() {
            Victim::Proxy(proxy) | Victim::Link(proxy, _) => Some(proxy),
            Victim::Cache | Victim::Store => None,
        }
    }

    /// Its sort, whichever proxy it concerns.
    pub fn sort(self) -> String {
        match self {
            Self::CommitCut(_, true) => "cut behind COMMIT".into(),
            Self::CommitCut(_, false) => "cut before COMMIT".into(),
            Self::BlindCut(_, true) => "cut behind a write".into(),
            Self::BlindCut(_, false) => "cut before a write".into(),
            Self::ProxyKilled(_) => "proxy killed".into(),
            Self::ProxyAtPoint(_, point) => format!("proxy ends {point}"),
            Self::ProxyStalled(_) => "proxy stalled".into(),
            Self::ProxyRestarted(_) => "proxy restarted".into(),
            Self::Net(_, server, network) => {
                format!("net to {server:?}: {network:?}").to_lowercase()
            }
            Self::CacheStalled => "cache stalled".into(),
            Self::CacheKilled => "cache killed".into(),
            Self::CacheOlder => "cache back with old data".into(),
            Self::CacheFlushed => "cache flushed".into(),
            Self::CacheKeysDeleted => "keys of the cache deleted".into(),
            Self::FunctionsLost => "functions lost".into(),
            Self::CacheFull => "cache full".into(),
            Self::CacheClientsKilled => "cache's clients killed".into(),
            Self::StoreRestarted => "postgresql restarted".into(),
            Self::StoreCrashed => "postgresql crashed".into(),
            Self::StoreKilled => "postgresql killed".into(),
            Self::StoreStalled => "postgresql stalled".into(),
            Self::BackendsTerminated => "backends terminated".into(),
        }
    }

    /// Begins it.
    pub fn begin(self, cluster: &mut Cluster, keys: &[String], random: &mut Random) -> Result<()> {
        match self {
            Self::CacheStalled => cluster.cache.signal("STOP"),
            Self::CacheKilled => {
                cluster.cache.kill()?;
                cluster.cache.forget_snapshot()
            }
            Self::CacheOlder => {
                cluster.cache.save_snapshot()?;
                std::thread::sleep(random.millis(50, 800));
                cluster.cache.kill()
            }
            Self::CacheFlushed => again_and_again(random, || {
                cluster.cache_client()?.ok(&["FLUSHALL"]).map(drop)
            }),
            Self::CacheKeysDeleted => delete_keys(cluster, keys, random),
            Self::FunctionsLost => cluster.cache_client()?.ok(&["FUNCTION", "FLUSH"]).map(drop),
            Self::CacheFull => set_memory(cluster, "1000000"),
            Self::CacheClientsKilled => again_and_again(random, || {
                let mut client = cluster.cache_client()?;
                client.ok(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])?;
                client.ok(&["CLIENT", "KILL", "TYPE", "pubsub"]).map(drop)
            }),
            Self::StoreRestarted => cluster.postgres.stop(),
            Self::StoreCrashed => cluster.postgres.crash(),
            Self::StoreKilled => cluster.postgres.kill(),
            Self::StoreStalled => cluster.postgres.signal_all("STOP"),
            Self::BackendsTerminated => terminate_backends(cluster),
            Self::CommitCut(proxy, behind) => {
                cut_at(cluster, proxy, b"COMMIT\0", behind);
                Ok(())
            }
            // The state that the write expects is among its arguments.
            Self::BlindCut(proxy, behind) => {
                cut_at(cluster, proxy, b"\0\0\0\x06active", behind);
                Ok(())
            }
            Self::ProxyKilled(proxy) => cluster.proxies[proxy].program.kill(),
            Self::ProxyAtPoint(proxy, point) => {
                let program = &mut cluster.proxies[proxy].program;
                program.kill()?;
                program.arm(&format!("{point}=exit@{}", random.between(1, 40)));
                program.spawn()
            }
            Self::ProxyStalled(proxy) => cluster.proxies[proxy].program.signal("STOP"),
            Self::ProxyRestarted(proxy) => cluster.proxies[proxy].program.stop(),
            Self::Net(proxy, server, network) => {
                disturb(cluster, proxy, server, network, random);
                Ok(())
            }
        }
    }

    /// Ends it; when this returns, nothing is in the way any more.
    pub fn end(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::CacheStalled => cluster.cache.signal("CONT"),
            Self::CacheKilled | Self::CacheOlder => {
                cluster.cache.start_again()?;
                cluster.cache.forget_snapshot()
            }
            Self::CacheFull => set_memory(cluster, "0"),
            Self::CacheFlushed
            | Self::CacheKeysDeleted
            | Self::FunctionsLost
            | Self::CacheClientsKilled
            | Self::BackendsTerminated => Ok(()),
            Self::StoreRestarted | Self::StoreCrashed | Self::StoreKilled => {
                cluster.postgres.start_again()
            }
            Self::StoreStalled => cluster.postgres.signal_all("CONT"),
            Self::ProxyKilled(proxy) | Self::ProxyRestarted(proxy) => {
                cluster.proxies[proxy].program.spawn()
            }
            Self::ProxyAtPoint(proxy, _) => {
                let program = &mut cluster.proxies[proxy].program;
                // Under little load it may not have come to the point.
                if program.try_exit().is_none() {
                    program.kill()?;
                }
                program.disarm();
                program.spawn()
            }
            Self::ProxyStalled(proxy) => cluster.proxies[proxy].program.signal("CONT"),
            Self::CommitCut(proxy, _) | Self::BlindCut(proxy, _) => {
                cluster.proxies[proxy].to_store.heal()
            }
            Self::Net(proxy, server, _) => link(cluster, proxy, server).heal(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sort())?;
        match self.proxy() {
            Some(proxy) => write!(f, " ({})", name(proxy)),
            None => Ok(()),
        }
    }
}

fn link(cluster: &Cluster, proxy: usize, server: Server) -> &crate::support::Relay {
    match server {
        Server::Cache => &cluster.proxies[proxy].to_cache,
        Server::Store => &cluster.proxies[proxy].to_store,
    }
}

fn disturb(cluster: &Cluster, proxy: usize, server: Server, network: Network, random: &mut Random) {
    let relay = link(cluster, proxy, server);
    match network {
        Network::Held => relay.set(Traffic::Held, Traffic::Held),
        Network::Lost => relay.set(Traffic::Swallowed, Traffic::Swallowed),
        Network::LostThere => relay.set(Traffic::Swallowed, Traffic::Passes),
        Network::LostBack => relay.set(Traffic::Passes, Traffic::Swallowed),
        Network::Slow => relay.set(Traffic::Delayed(DELAY), Traffic::Delayed(DELAY)),
        Network::HalfOpen => relay.half_open(),
        Network::MidFrame => {
            for _ in 0..TIMES {
                let way = *random.pick(&[Way::There, Way::Back]);
                relay.cut_once(Cut::After(way, random.between(1, 5_000) as i64));
                // If too little is sent for the cut to come, the next one is as good.
                let _ = process::await_true("it is cut", Duration::from_millis(400), || {
                    !relay.is_cut_due()
                });
            }
        }
        Network::Refused => relay.refuse(),
    }
}

fn cut_at(cluster: &Cluster, proxy: usize, mark: &[u8], behind: bool) {
    let relay = &cluster.proxies[proxy].to_store;
    for _ in 0..TIMES {
        relay.cut_once(if behind {
            Cut::Behind(mark.to_vec())
        } else {
            Cut::Before(mark.to_vec())
        });
        // A proxy that another fault keeps from writing has nothing to cut.
        let _ = process::await_true("it is cut", Duration::from_millis(400), || {
            !relay.is_cut_due()
        });
    }
}

fn again_and_again(random: &mut Random, mut once: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..TIMES {
        once()?;
        std::thread::sleep(random.millis(5, 150));
    }
    Ok(())
}

/// Deletes what belongs to keys in use: content, companion, what is hidden; sometimes the mark.
fn delete_keys(cluster: &Cluster, keys: &[String], random: &mut Random) -> Result<()> {
    let mut client = cluster.cache_client()?;
    for _ in 0..TIMES * 20 {
        let key = random.pick(keys);
        let name = match random.below(40) {
            0 => b"\0f:gen".to_vec(),
            1..16 => key.clone().into_bytes(),
            16..30 => format!("\0fc{{{key}}}").into_bytes(),
            _ => format!("\0fh{{{key}}}").into_bytes(),
        };
        client.ok(&[b"DEL".to_vec(), name])?;
        std::thread::sleep(random.millis(0, 8));
    }
    Ok(())
}

fn set_memory(cluster: &Cluster, bytes: &str) -> Result<()> {
    let mut client = cluster.cache_client()?;
    client.ok(&["CONFIG", "SET", "maxmemory", bytes]).map(drop)
}

fn terminate_backends(cluster: &Cluster) -> Result<()> {
    let sql = cluster.sql()?;
    for _ in 0..TIMES / 2 {
        sql.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity
              where application_name = 'freshet' and pid <> pg_backend_pid()",
        )?;
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
