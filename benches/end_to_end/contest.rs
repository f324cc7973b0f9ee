//! All servers of the comparison, and one round of it.

use anyhow::{Context, Result};

use super::data_types;
use super::dual_write;
use super::footprint::{self, Footprint};
use super::load::{self, CLIENTS, Load};
use super::peers::Peer;
use super::report::{Results, Sample, Who, Work};
use super::support::{Fsync, Postgres, Program, Redis};

/// Everything that takes part. The peers have a PostgreSQL of their own with
/// the same settings, so that neither pays for the other's checkpoints.
pub struct Contest {
    twemproxy: Option<Peer>,
    haproxy: Option<Peer>,
    freshet: Option<Program>,
    plain: Redis,
    synced: Redis,
    cache: Redis,
    // For the dual write: what it sets does not change the plain Redis.
    beside: Redis,
    peer_postgres: Postgres,
    peer_url: String,
    _postgres: Postgres,
}

impl Contest {
    /// Starts all servers and loads the keys.
    pub fn start() -> Result<Self> {
        let plain = Redis::start()?;
        let synced = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"])?;
        let cache = Redis::start()?;
        let beside = Redis::start()?;
        let postgres = Postgres::start(Fsync::On)?;
        let peer_postgres = Postgres::start(Fsync::On)?;
        let peer_url = peer_postgres.create_database()?;
        load::fill_table(&peer_url)?;
        footprint::preload(&mut plain.client()?)?;
        let freshet = start_freshet(&postgres, &cache)?;
        if let Some(program) = &freshet {
            let mut client = program.client()?;
            footprint::preload(&mut client)?;
            footprint::read_all(&mut client)?;
        }
        Ok(Self {
            twemproxy: Peer::twemproxy(plain.address())?,
            haproxy: Peer::haproxy(plain.address())?,
            freshet,
            plain,
            synced,
            cache,
            beside,
            peer_postgres,
            peer_url,
            _postgres: postgres,
        })
    }

    /// Writes for a while without measuring: the first change of each page after
    /// a checkpoint logs the whole page, on both sides.
    pub fn warm_up(&self) -> Result<()> {
        for who in [Who::Pgbench, Who::Freshet, Who::RedisSynced] {
            self.measure(Work::Set, who, 100_000.0, 3.0)?;
        }
        Ok(())
    }

    /// Everybody does everything once. Who begins changes from round to round.
    pub fn round(&mut self, round: usize, scale: f64, results: &mut Results) -> Result<()> {
        let works = [
            (Work::Get, 200_000.0),
            (Work::GetPipelined, 2_000_000.0),
            (Work::Set, 100_000.0),
            (Work::SetPipelined, 300_000.0),
            (Work::SetAlone, 8_000.0),
        ];
        for (work, requests) in works {
            let mut contestants = contestants(work).to_vec();
            let count = contestants.len();
            contestants.rotate_left(round % count);
            for who in contestants {
                let sample = self
                    .measure(work, who, scale * requests, 2.0 * scale)
                    .with_context(|| format!("{work}: {who}"))?;
                if let Some(sample) = sample {
                    results.add(round, work, who, sample);
                }
            }
        }
        Ok(())
    }

    fn measure(&self, work: Work, who: Who, requests: f64, seconds: f64) -> Result<Option<Sample>> {
        let (command, clients, pipeline) = match work {
            Work::Get => ("get", CLIENTS, 1),
            Work::GetPipelined => ("get", CLIENTS, 16),
            Work::Set => ("set", CLIENTS, 1),
            Work::SetPipelined => ("set", CLIENTS, 16),
            Work::SetAlone => ("set", 1, 1),
        };
        let address = match who {
            Who::Redis => Some(self.plain.address()),
            Who::RedisSynced => Some(self.synced.address()),
            Who::Freshet => self.freshet.as_ref().map(Program::address),
            Who::Twemproxy => self.twemproxy.as_ref().map(Peer::address),
            Who::Haproxy => self.haproxy.as_ref().map(Peer::address),
            Who::Pgbench => {
                let database = self.peer_url.rsplit('/').next().context("no database")?;
                return load::pgbench(&self.peer_postgres, database, clients, seconds).map(Some);
            }
            Who::DualWrite => {
                let redis = self.beside.address();
                return dual_write::run(&self.peer_url, redis, seconds).map(Some);
            }
        };
        let load = Load {
            command,
            clients,
            pipeline,
            requests: requests.max(1.0) as u64,
        };
        address
            .map(|address| load::redis_benchmark(address, load))
            .transpose()
    }

    /// Freshet, Redis that syncs at every write, and Redis, for the data types;
    /// `None` without Freshet.
    pub fn for_data_types(&self) -> Option<data_types::Servers> {
        Some(data_types::Servers {
            freshet: self.freshet.as_ref()?.address(),
            synced: self.synced.address(),
            plain: self.plain.address(),
        })
    }

    /// Memory and start-up time, after the rounds.
    pub fn footprint(&mut self, rounds: usize) -> Result<Footprint> {
        let mut footprint = Footprint::default();
        let Some(program) = &mut self.freshet else {
            return Ok(footprint);
        };
        footprint::preload(&mut program.client()?)?;
        footprint::preload(&mut self.plain.client()?)?;
        footprint::read_all(&mut program.client()?)?;
        footprint.cache_bytes_per_key =
            vec![footprint::cache_bytes_per_key(&self.cache, &self.plain)?];
        footprint.kilobytes_per_connection = vec![footprint::kilobytes_per_connection(program)?];
        for _ in 0..rounds {
            footprint
                .seconds_to_ready
                .push(footprint::seconds_to_ready(program)?);
        }
        Ok(footprint)
    }
}

/// Who takes part in what. pgbench and the dual write have no pipelines: they
/// are measured again beside `-P 16`, so that the ratio is within the round.
fn contestants(work: Work) -> &'static [Who] {
    match work {
        Work::Get | Work::GetPipelined => &[Who::Redis, Who::Freshet, Who::Twemproxy, Who::Haproxy],
        Work::Set | Work::SetPipelined => {
            &[Who::Pgbench, Who::Freshet, Who::RedisSynced, Who::DualWrite]
        }
        Work::SetAlone => &[Who::Pgbench, Who::Freshet, Who::RedisSynced],
    }
}

/// `None`, said aloud, if it does not start: the peers can be measured alone.
fn start_freshet(postgres: &Postgres, cache: &Redis) -> Result<Option<Program>> {
    let url = postgres.create_database()?;
    let program = env!("CARGO_BIN_EXE_freshet");
    let settings = [("listen.max_clients", "12000")];
    match Program::start(program, &url, &cache.url(), &settings) {
        Ok(program) => Ok(Some(program)),
        Err(error) if std::env::var_os("FRESHET_BENCH_PEERS_ONLY").is_some() => {
            println!("Freshet is left out: {error:#}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
