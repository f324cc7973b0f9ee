//! The command line.

mod jobs;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};

use crate::client::Users;
use crate::config::{Config, ConfigError, Environment};
use crate::dev::{self, DevOptions};
use crate::routing::Routes;
use crate::server::{self, Addresses, ConfigSource, Settings, StopSignal};
use crate::store::{self, Store};
use crate::telemetry;

/// A proxy that speaks the Redis protocol and commits every write to
/// PostgreSQL before the cache shows it.
#[derive(Parser)]
#[command(name = "freshet", version = telemetry::VERSION, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve clients in front of the PostgreSQL and Redis of the configuration
    Serve(ConfigOption),
    /// Read the configuration, and print every mistake in it
    CheckConfig(ConfigOption),
    /// Create or update the tables in PostgreSQL, and end
    Migrate(ConfigOption),
    /// Serve with a private PostgreSQL and Redis, started from the installed programs
    Dev(DevOptions),
    /// Compare the cache with PostgreSQL while both are in use; exit code 0: nothing differs,
    /// 1: something does, 2: it could not be done
    Reconcile(jobs::ReconcileOptions),
    /// Bring in the keys of another Redis, or of an RDB file; exit code 0: all are here, 1: some
    /// are not, 2: it could not be done
    Import(jobs::ImportOptions),
    /// Tell what the routes of the configuration mean for a key
    #[command(subcommand)]
    Routes(RoutesCommand),
    /// Bring all keys to another Redis, or into an RDB file; exit code 0: all are there, 1: some
    /// are not, 2: it could not be done
    Export(jobs::ExportArguments),
    /// Tell which strategy fits which keys, by what clients do with them
    Advise(jobs::AdviseOptions),
    /// Further Redis servers that are kept as the store is
    Replica(jobs::ReplicaOptions),
    /// Ask a server on this machine whether it is alive; exit code 0 means yes
    Healthcheck(HealthOptions),
}

#[derive(Subcommand)]
enum RoutesCommand {
    /// Say which route a key is under, why, and what happens to it
    Explain {
        /// The key
        key: String,
        #[command(flatten)]
        config: ConfigOption,
    },
}

#[derive(Args)]
struct ConfigOption {
    /// The configuration file; without it ./proxy.toml if there is one
    #[arg(short, long, value_name = "FILE", env = "FRESHET_CONFIG")]
    config: Option<PathBuf>,
}

#[derive(Args)]
struct HealthOptions {
    #[command(flatten)]
    config: ConfigOption,
    /// Ask whether it can serve clients now, not only whether it is alive
    #[arg(long)]
    ready: bool,
}

impl ConfigOption {
    /// The file that was named, or else `proxy.toml` if it is there.
    fn path(&self) -> Option<PathBuf> {
        let usual = Path::new("proxy.toml");
        self.config
            .clone()
            .or_else(|| usual.exists().then(|| usual.to_owned()))
    }

    fn load(&self, environment: &Environment) -> Result<Config, ConfigError> {
        match self.path() {
            Some(path) => Config::load(&path, environment),
            None => Config::parse("(no configuration file)", "", environment),
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(option) => serve(&option),
        Command::CheckConfig(option) => check_config(&option),
        Command::Migrate(option) => migrate(&option),
        Command::Dev(options) => run_dev(&options),
        Command::Import(options) => return jobs::exit(jobs::import(&options)),
        Command::Replica(options) => return jobs::exit(jobs::replica(&options)),
        Command::Export(arguments) => return jobs::exit(jobs::export(&arguments)),
        Command::Advise(options) => return jobs::exit(jobs::advise(&options)),
        Command::Reconcile(options) => return jobs::exit(jobs::reconcile(&options)),
        Command::Routes(RoutesCommand::Explain { key, config }) => explain(&key, &config),
        Command::Healthcheck(options) => check_health(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("freshet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(option: &ConfigOption) -> anyhow::Result<()> {
    let environment = Config::process_environment();
    let config = option.load(&environment)?;
    let log = telemetry::start_log(&config.log);
    let source = option.path().map(|path| ConfigSource { path, environment });
    let runtime = server::runtime(&config.runtime)?;
    let settings = Settings {
        config,
        source,
        log,
    };
    runtime.block_on(async {
        let mut stop = StopSignal::install()?;
        server::run(settings, &mut stop, print_addresses).await
    })
}

/// One line each on standard output, for people and for scripts that chose port 0.
fn print_addresses(addresses: &Addresses) {
    // Whoever started us may have closed the pipe: not a reason to end.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "listening on {}", addresses.clients);
    if let Some(path) = &addresses.unix_socket {
        let _ = writeln!(out, "listening on {}", path.display());
    }
    let _ = writeln!(out, "admin on {}", addresses.admin);
    let _ = out.flush();
}

fn check_config(option: &ConfigOption) -> anyhow::Result<()> {
    let config = option.load(&Config::process_environment())?;
    Users::check(&config.auth).map_err(anyhow::Error::msg)?;
    if let Some(file) = &config.acl.file {
        let users = Users::default().load(file);
        users.map_err(anyhow::Error::msg)?;
    }
    let file = option.path();
    let file = file
        .as_deref()
        .map_or("defaults".into(), Path::to_string_lossy);
    println!("{file}: no mistakes");
    println!("clients:    {}", config.listen.address);
    println!("PostgreSQL: {}", config.postgres.url);
    println!("Redis:      {}", config.redis.url);
    println!("admin:      http://{}", config.admin.address);
    Ok(())
}

fn migrate(option: &ConfigOption) -> anyhow::Result<()> {
    let config = option.load(&Config::process_environment())?;
    telemetry::start_log(&config.log);
    let runtime = server::runtime(&config.runtime)?;
    let store = Store::new(&config.postgres)?;
    let before = runtime
        .block_on(store::migrate(&store))
        .with_context(|| format!("cannot migrate {}", config.postgres.url))?;
    let now = store::SCHEMA_VERSION;
    if before == now {
        println!("the schema has version {now} already");
    } else {
        println!("migrated the schema from version {before} to {now}");
    }
    Ok(())
}

fn run_dev(options: &DevOptions) -> anyhow::Result<()> {
    let environment = Config::process_environment();
    let config = Config::parse("(environment)", "", &environment)?;
    let log = telemetry::start_log(&config.log);
    let runtime = server::runtime(&config.runtime)?;
    runtime.block_on(async {
        let mut stop = StopSignal::install()?;
        Box::pin(dev::run(options, config, log, &mut stop)).await
    })
}

fn explain(key: &str, option: &ConfigOption) -> anyhow::Result<()> {
    let config = option.load(&Config::process_environment())?;
    print!("{}", Routes::explain(&config, key));
    Ok(())
}

/// Asks by plain HTTP/1.0, so that the container needs no other program.
fn check_health(options: &HealthOptions) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(3);
    const REPLY_BYTES_MAX: u64 = 64 * 1024;
    let config = options.config.load(&Config::process_environment())?;
    let address = reachable(config.admin.address);
    let page = if options.ready { "/readyz" } else { "/healthz" };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)
        .with_context(|| format!("nothing answers on {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {page} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.take(REPLY_BYTES_MAX).read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply);
    let status = reply.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let body = reply.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        bail!("{page} says {status}\n{body}");
    }
    Ok(())
}

/// The address at which this machine reaches a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
