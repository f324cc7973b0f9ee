//! Commands that do a long piece of work on the servers and end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;

use super::ConfigOption;
use crate::cache::Cache;
use crate::config::Config;
use crate::progress::Progress;
use crate::reconcile::{Options, Reconciler, Repair};
use crate::server;
use crate::store::{self, Store};
use crate::telemetry;

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
    let cache = Arc::new(Cache::new(&config.redis, &config.cache)?);
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
