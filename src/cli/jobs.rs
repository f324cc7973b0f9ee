//! Commands that do a long piece of work on the servers and end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use tokio::sync::watch;

use super::ConfigOption;
use crate::advise::{self, Sample};
use crate::cache::{Cache, LinkOptions};
use crate::config::{Config, RedisUrl, Setting};
use crate::moving::{
    self, Conflict, Differences, Export, ExportOptions, Import, Peer, Start, Target,
};
use crate::progress::Progress;
use crate::reconcile::{Options, Reconciler, Repair};
use crate::replica::Status;
use crate::server::{self, StopSignal};
use crate::store::{self, Store};
use crate::telemetry;

/// Until the Redis that is sampled has answered first.
const ADVISE_CONNECT: Duration = Duration::from_secs(5);

/// What a job came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is as it should be.
    Same,
    /// Something differs.
    Differs,
}

/// 0: nothing differs, 1: something does, 2: it could not be done.
pub(super) fn exit(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(Outcome::Same) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(1),
        Err(error) => {
            eprintln!("freshet: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// What all jobs need.
struct Job {
    config: Config,
    runtime: tokio::runtime::Runtime,
}

impl Job {
    /// Reads the configuration, and brings the schema up to date.
    fn start(option: &ConfigOption) -> anyhow::Result<Self> {
        let config = option.load(&Config::process_environment())?;
        telemetry::start_log(&config.log);
        let runtime = server::runtime(&config.runtime)?;
        let store = Store::new(&config.postgres)?;
        runtime
            .block_on(store::migrate(&store))
            .with_context(|| format!("cannot use {}", config.postgres.url))?;
        Ok(Self { config, runtime })
    }
}

#[derive(Args)]
pub(super) struct ReconcileOptions {
    #[command(flatten)]
    config: ConfigOption,
    /// Take keys that differ out of the cache: the next read fetches them from PostgreSQL
    #[arg(long)]
    repair: bool,
    /// Only keys that match this pattern, as KEYS does
    #[arg(long = "match", value_name = "PATTERN", default_value = "*")]
    pattern: String,
    /// Keys a second at most; 0 is without bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn reconcile(options: &ReconcileOptions) -> anyhow::Result<Outcome> {
    let Job { config, runtime } = Job::start(&options.config)?;
    // The cache's pool starts a task.
    let _within = runtime.enter();
    let store = Arc::new(Store::new(&config.postgres)?);
    let cache = Arc::new(Cache::new(&config.redis, &config.cache, Arc::default())?);
    let run = Options {
        pattern: options.pattern.clone(),
        rate: options.rate,
        repair: match options.repair {
            true => Repair::Invalidate,
            false => Repair::Nothing,
        },
    };
    let report = {
        let progress = Progress::on_terminal();
        let mut reconciler = Reconciler::new(store, cache);
        runtime.block_on(reconciler.run(&run, &progress))?
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(match report.differences {
        0 => Outcome::Same,
        _ => Outcome::Differs,
    })
}

#[derive(Args)]
pub(super) struct AdviseOptions {
    /// redis://[user:password@]host[:port], rediss://..., unix:///path: a Redis that runs MONITOR for
    /// the sample, which costs it up to half of its speed; else the log of a MONITOR is read
    #[arg(long, value_name = "SOURCE", conflicts_with = "log")]
    from: Option<String>,
    /// How long the sample is
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// A file with what MONITOR said, as of `redis-cli monitor`; "-" is standard input
    #[arg(value_name = "LOG", default_value = "-")]
    log: String,
    /// Report as a JSON array
    #[arg(long)]
    json: bool,
}

/// Works without configuration, since it is for those who have none yet.
pub(super) fn advise(options: &AdviseOptions) -> anyhow::Result<Outcome> {
    let mut sample = Sample::default();
    match &options.from {
        Some(from) => {
            let url = RedisUrl::from_text(from).map_err(anyhow::Error::msg)?;
            let time = Duration::from_secs(options.seconds.into());
            let link = LinkOptions::of_another(&url, ADVISE_CONNECT, time)?;
            let runtime = server::runtime(&Config::default().runtime)?;
            let noting = sample.note_live(&link, time);
            runtime
                .block_on(noting)
                .with_context(|| format!("cannot sample {url}"))?;
        }
        None if options.log == "-" => sample.note_log(std::io::stdin().lock())?,
        None => {
            let file = std::fs::File::open(&options.log).with_context(|| options.log.clone())?;
            sample.note_log(std::io::BufReader::new(file))?;
        }
    }
    anyhow::ensure!(sample.commands > 0, "there was no command in the sample");
    let (commands, seconds) = (sample.commands, sample.seconds());
    let advice = sample.advise();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&advice)?);
    } else {
        println!("# {commands} commands in {seconds:.0} s; latency is not in such a sample");
        print!("{}", advise::report(&advice));
    }
    Ok(Outcome::Same)
}

#[derive(Args)]
pub(super) struct ImportOptions {
    #[command(flatten)]
    config: ConfigOption,
    /// redis://[user:password@]host[:port], rediss://..., unix:///path, or the path of an RDB file
    #[arg(long, value_name = "SOURCE")]
    from: String,
    /// Go over the source again and again, and bring in what has changed, until Ctrl-C or SIGTERM:
    /// then once more, and end
    #[arg(long)]
    follow: bool,
    /// Only keys that match this pattern, as KEYS does
    #[arg(long = "match", value_name = "PATTERN", default_value = "*")]
    pattern: String,
    /// Keys a second at most; 0 is without bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// Let the source win where a client has written a key here; otherwise that is kept
    #[arg(long)]
    replace: bool,
    /// Compare every key at the end
    #[arg(long)]
    verify: bool,
    /// Go on where an import of the same file stopped that was not over
    #[arg(long)]
    resume: bool,
}

pub(super) fn import(options: &ImportOptions) -> anyhow::Result<Outcome> {
    let Job { config, runtime } = Job::start(&options.config)?;
    let run = moving::Options {
        pattern: options.pattern.clone(),
        rate: options.rate,
        conflict: match options.replace {
            true => Conflict::Replace,
            false => Conflict::Keep,
        },
        follow: options.follow,
        verify: options.verify,
        start: start(options.resume),
    };
    let imported = runtime.block_on(Box::pin(import_from(&options.from, run, &config)))?;
    println!("{}", imported.counts);
    if imported.resumed {
        println!("went on where an import that was not over had stopped");
    }
    if imported.rounds > 1 {
        println!("{} rounds over the source", imported.rounds);
    }
    let mut outcome = match imported.counts.is_complete() {
        true => Outcome::Same,
        false => Outcome::Differs,
    };
    if let Some(differences) = &imported.differences {
        outcome = told(differences, outcome);
    }
    Ok(outcome)
}

fn start(is_resumed: bool) -> Start {
    match is_resumed {
        true => Start::Resume,
        false => Start::Anew,
    }
}

/// Prints what differs; what the job came to, if it came to `outcome` without that.
fn told(differences: &Differences, outcome: Outcome) -> Outcome {
    for key in &differences.first {
        println!("differs: {key}");
    }
    println!("compared key by key: {} differ", differences.count);
    match differences.count {
        0 => outcome,
        _ => Outcome::Differs,
    }
}

async fn import_from(from: &str, run: moving::Options, config: &Config) -> anyhow::Result<Import> {
    let progress = Progress::on_terminal();
    if !from.contains("://") {
        anyhow::ensure!(!run.follow, "--follow needs a server, not a file");
        let target = Target::start(config).await?;
        return Ok(moving::import_file(target, Path::new(from), run, &progress).await?);
    }
    let url = RedisUrl::from_text(from).map_err(|error| anyhow::anyhow!("--from {error}"))?;
    anyhow::ensure!(url != config.redis.url, "the source is Freshet's own cache");
    let source = Peer::connect(&url).await?;
    let target = Target::start(config).await?;
    let mut stop = StopSignal::install()?;
    let (finish, finishing) = watch::channel(false);
    let follows = run.follow;
    let mut import = Box::pin(moving::import_live(
        target,
        source,
        run,
        (&progress, finishing),
    ));
    tokio::select! {
        imported = &mut import => return Ok(imported?),
        () = stop.wait() => anyhow::ensure!(follows, "stopped; started again, it goes on"),
    }
    eprintln!("the last round begins; once more to stop at once");
    finish.send_replace(true);
    tokio::select! {
        imported = &mut import => Ok(imported?),
        () = stop.wait() => anyhow::bail!("stopped before the last round was over"),
    }
}

#[derive(Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    config: ConfigOption,
    /// redis://[user:password@]host[:port], rediss://..., unix:///path, or the path of the RDB file to be made
    #[arg(long, value_name = "TARGET")]
    to: String,
    /// Go on where an export to the same target stopped that was not over
    #[arg(long)]
    resume: bool,
    /// Only keys that match this pattern, as KEYS does
    #[arg(long = "match", value_name = "PATTERN", default_value = "*")]
    pattern: String,
    /// Keys a second at most; 0 is without bound
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate: u32,
    /// Compare every key at the end
    #[arg(long)]
    verify: bool,
}

pub(super) fn export(arguments: &ExportArguments) -> anyhow::Result<Outcome> {
    let Job { config, runtime } = Job::start(&arguments.config)?;
    let exported = runtime.block_on(async {
        let mut stop = StopSignal::install()?;
        tokio::select! {
            exported = Box::pin(export_to(arguments, &config)) => exported,
            () = stop.wait() => anyhow::bail!("stopped; with --resume it goes on"),
        }
    })?;
    let (refused, first) = exported.counts.not_moved();
    for key in first {
        println!("not moved: {key}");
    }
    if exported.resumed {
        println!("went on where an export that was not over had stopped");
    }
    if exported.moments > 1 {
        println!("the file tells of {} moments", exported.moments);
    }
    println!(
        "{} keys written, {refused} not moved",
        exported.counts.all_written()
    );
    let outcome = match refused {
        0 => Outcome::Same,
        _ => Outcome::Differs,
    };
    Ok(match &exported.differences {
        Some(differences) => told(differences, outcome),
        None => outcome,
    })
}

async fn export_to(arguments: &ExportArguments, config: &Config) -> anyhow::Result<Export> {
    let options = ExportOptions {
        pattern: arguments.pattern.clone(),
        rate: arguments.rate,
        start: start(arguments.resume),
        verify: arguments.verify,
    };
    let progress = Progress::on_terminal();
    let store = Store::new(&config.postgres)?;
    let to = &arguments.to;
    if !to.contains("://") {
        return Ok(moving::export_to_file(&store, Path::new(to), &options, &progress).await?);
    }
    let url = RedisUrl::from_text(to).map_err(|error| anyhow::anyhow!("--to {error}"))?;
    let peer = Peer::connect(&url).await?;
    // Whatever name it goes by: its keys would be gone for its readers.
    let cache = store.fence().await?.run_id;
    let is_cache = cache.is_some() && cache == Some(peer.run_id().await?);
    anyhow::ensure!(!is_cache, "the target is Freshet's own cache");
    Ok(moving::export_to_redis(&store, &peer, &options, &progress).await?)
}

#[derive(Args)]
pub(super) struct ReplicaOptions {
    #[command(subcommand)]
    what: ReplicaCommand,
}

#[derive(Subcommand)]
enum ReplicaCommand {
    /// Say how each replica is; exit code 0: all that are configured follow, 1: one does not
    Status(StatusOptions),
}

#[derive(Args)]
struct StatusOptions {
    #[command(flatten)]
    config: ConfigOption,
    /// Report as one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn replica(options: &ReplicaOptions) -> anyhow::Result<Outcome> {
    let ReplicaCommand::Status(options) = &options.what;
    let Job { config, runtime } = Job::start(&options.config)?;
    let store = Store::new(&config.postgres)?;
    let status = runtime.block_on(Status::of(&store, &config.replica))?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        println!("{status}");
    }
    Ok(match status.is_well() {
        true => Outcome::Same,
        false => Outcome::Differs,
    })
}
