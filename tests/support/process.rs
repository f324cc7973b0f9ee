//! Child processes that cannot outlive the tests.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a child is told by the kernel when this process is gone.
#[derive(Clone, Copy, Debug)]
pub enum AtParentDeath {
    /// `SIGKILL`.
    Kill,
    /// `SIGINT`: PostgreSQL's fast shutdown, which also ends its own children.
    Interrupt,
}

/// The user that a child runs as.
#[derive(Clone, Copy, Debug)]
pub enum RunAs {
    /// The user of the tests.
    Myself,
    /// `postgres` if the tests run as root, since PostgreSQL refuses root.
    Postgres,
}

/// A command line that runs `program` under these two rules.
pub fn command(program: &str, user: RunAs, death: AtParentDeath) -> Command {
    let mut command = Command::new("setpriv");
    if matches!(user, RunAs::Postgres) && is_root() {
        command.args([
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--init-groups",
        ]);
    }
    command.arg("--pdeathsig").arg(match death {
        AtParentDeath::Kill => "KILL",
        AtParentDeath::Interrupt => "INT",
    });
    command.arg("--").arg(program).stdin(Stdio::null());
    command
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

type Order = (Command, std::sync::mpsc::SyncSender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as the process: the
/// parent-death signal is sent when the *thread* that forked ends, and test
/// threads end early.
pub fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox): (Sender<Order>, Receiver<Order>) = channel();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // A caller that is gone takes no answer; its child ends with us.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let name = format!("{command:?}");
    let (answer, result) = sync_channel(1);
    spawner
        .send((command, answer))
        .context("the spawning thread is gone")?;
    result
        .recv()
        .context("the spawning thread is gone")?
        .with_context(|| format!("cannot start {name}"))
}

/// Runs a short command to its end; an error with its output if it fails.
pub fn run(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends the named signal (`TERM`, `STOP`, `CONT` ...) to one process.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(pid.to_string());
    run(kill).map(drop)
}

/// Waits until `check` yields a value, looking every few milliseconds.
pub fn await_some<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `check` is true, looking every few milliseconds.
pub fn await_true(what: &str, limit: Duration, mut check: impl FnMut() -> bool) -> Result<()> {
    await_some(what, limit, || check().then_some(()))
}
