//! `freshet dev`: Freshet with a PostgreSQL and a Redis of its own, kept in a
//! folder between runs.
//!
//! The two servers listen on 127.0.0.1 only, ask for a password that is made
//! at the first run, and are stopped at the end, also of a start that failed.
//! Those that a killed run left behind are stopped by the next run.

mod account;
mod child;
mod folder;
mod postgres;
mod programs;
mod redis;

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::{Config, RedisUrl, Secret};
use crate::server::{self, Addresses, Settings, StopSignal};
use crate::telemetry::LogControl;
use account::Account;
use child::Server;
use folder::Folder;

/// What `freshet dev` can be told.
#[derive(Args)]
pub struct DevOptions {
    /// Folder for the data of both servers; made if it is missing
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".freshet",
        env = "FRESHET_DATA_DIR"
    )]
    data_dir: PathBuf,
    /// Address for clients [default: 127.0.0.1:6380]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

/// Starts both servers, serves until `stop`, and stops both.
pub async fn run(
    options: &DevOptions,
    mut config: Config,
    log: LogControl,
    stop: &mut StopSignal,
) -> anyhow::Result<()> {
    if let Some(address) = options.listen {
        config.listen.address = address;
    }
    let programs = programs::find()?;
    let folder = Folder::open(&options.data_dir)?;
    let _lock = lock(&folder)?;
    let account = Account::for_servers()?;
    let mut servers = Servers::default();
    let outcome = tokio::select! {
        started = servers.start(&folder, &programs, &account) => started,
        () = stop.wait() => Ok(None),
    };
    let outcome = match outcome {
        Ok(Some(places)) => servers.serve(places, config, log, stop).await,
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    servers.stop().await;
    outcome
}

/// Two runs in one folder would stop each other's servers.
fn lock(folder: &Folder) -> anyhow::Result<File> {
    let path = folder.path().join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!(
            "another `freshet dev` runs in {}: choose another --data-dir, or stop it",
            folder.path().display()
        );
    }
    Ok(file)
}

/// Where the two servers are, and what they ask for.
struct Places {
    postgres_url: String,
    redis_port: u16,
    password: Secret,
}

/// The servers that run.
#[derive(Default)]
struct Servers {
    postgres: Option<Server>,
    redis: Option<Server>,
}

impl Servers {
    /// Starts both. Those that started before one failed stay in `self`, to be stopped.
    async fn start(
        &mut self,
        folder: &Folder,
        programs: &programs::Programs,
        account: &Account,
    ) -> anyhow::Result<Option<Places>> {
        let notes = folder.notes()?;
        redis::stop_leftover(folder, notes.redis_port).await?;
        let cluster = postgres::prepare(folder, &programs.postgres, account, &notes).await?;
        cluster.stop_leftover().await?;
        // Only now are the remembered ports free, if they were ours.
        let notes = folder.settle_ports(notes)?;
        let redis = redis::server(folder, &programs.redis_server, account, &notes);
        let redis = self.redis.insert(redis);
        redis.start().await?;
        redis::wait_until_ready(redis, &notes).await?;
        let postgres = self.postgres.insert(cluster.server(notes.postgres_port));
        postgres.start().await?;
        cluster.wait_until_ready(postgres, &notes).await?;
        Ok(Some(Places {
            postgres_url: postgres::url(&notes),
            redis_port: notes.redis_port,
            password: Secret::new(notes.password),
        }))
    }

    /// Serves; a private server that ends meanwhile is started again.
    async fn serve(
        &mut self,
        places: Places,
        mut config: Config,
        log: LogControl,
        stop: &mut StopSignal,
    ) -> anyhow::Result<()> {
        config.postgres.url = places.postgres_url.parse().map_err(anyhow::Error::msg)?;
        config.redis.url = RedisUrl::tcp("127.0.0.1", places.redis_port);
        config.redis.password = Some(places.password.clone());
        let settings = Settings {
            config,
            source: None,
            log,
        };
        let (Some(postgres), Some(redis)) = (&mut self.postgres, &mut self.redis) else {
            bail!("the servers have not been started");
        };
        let serving = server::run(settings, stop, |addresses| print_help(addresses, &places));
        tokio::select! {
            outcome = serving => outcome,
            error = postgres.keep_running() => Err(error),
            error = redis.keep_running() => Err(error),
        }
    }

    /// Stops what runs. Redis first: it has nothing to keep.
    async fn stop(&mut self) {
        for server in [&mut self.redis, &mut self.postgres] {
            if let Some(mut server) = server.take() {
                server.stop().await;
            }
        }
    }
}

fn print_help(addresses: &Addresses, places: &Places) {
    let clients = addresses.clients;
    println!("listening on {clients}");
    println!("admin on {}", addresses.admin);
    println!();
    println!("Freshet is ready. Try:");
    println!("  redis-cli -h {} -p {}", clients.ip(), clients.port());
    println!("  psql '{}'", places.postgres_url);
    println!("  curl http://{}/metrics", addresses.admin);
    println!("Its cache (for looking, not for writing):");
    println!(
        "  redis-cli -p {} -a {} --no-auth-warning",
        places.redis_port,
        places.password.reveal()
    );
    println!("Ctrl-C stops all of it; the data stay.");
}
