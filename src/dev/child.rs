//! A private server as a child process: start, restart, stop.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// How to start a private server, and its process while it runs.
pub(super) struct Server {
    /// Its name, for messages.
    pub(super) name: &'static str,
    /// Makes the command, without input and output.
    pub(super) command: Box<dyn Fn() -> Command + Send>,
    /// What it reads on standard input.
    pub(super) input: String,
    /// Where its output goes.
    pub(super) log: PathBuf,
    /// Where its process id is written, if it does not write one itself.
    pub(super) pid_file: Option<PathBuf>,
    /// The signal that makes it stop as it should.
    pub(super) stop_signal: Signal,
    /// Its process.
    pub(super) child: Option<Child>,
}

/// A server that ends this often within [`RESTARTS_WINDOW`] is not started again.
const RESTARTS_MAX: usize = 5;
const RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// Long enough that somebody who kills the cache sees what that does.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// Fast shutdown writes a checkpoint, which takes its time on a slow disk.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

impl Server {
    /// Starts its process; a new run begins a new log.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = File::create(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        self.spawn(log).await
    }

    async fn spawn(&mut self, log: File) -> anyhow::Result<()> {
        let mut command = (self.command)();
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A Ctrl-C in the terminal goes to the group of the foreground:
            // without an own group the servers would end before the proxy has
            // finished what it accepted.
            .process_group(0);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        let stdin = child.stdin.take();
        let pid = child.id();
        self.child = Some(child);
        if let (Some(path), Some(pid)) = (&self.pid_file, pid) {
            std::fs::write(path, format!("{pid}\n"))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(mut stdin) = stdin {
            // A server that ended already says why in its log.
            let _ = stdin.write_all(self.input.as_bytes()).await;
        }
        Ok(())
    }

    /// Waits until `ready` says yes. An error if that takes longer than
    /// `patience`, or if the process ends.
    pub(super) async fn wait_until<F: Future<Output = bool>>(
        &mut self,
        patience: Duration,
        ready: impl Fn() -> F,
    ) -> anyhow::Result<()> {
        const POLL_INTERVAL: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if ready().await {
                return Ok(());
            }
            let ended = self
                .child
                .as_mut()
                .and_then(|c| c.try_wait().ok().flatten());
            if let Some(status) = ended {
                self.child = None;
                return Err(self.ended_too_early(status));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(anyhow!(
            "{} was not ready after {patience:?}; see {}",
            self.name,
            self.log.display()
        ))
    }

    fn ended_too_early(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!(
            "{} ended at its start ({status}); the end of {}:\n{}",
            self.name,
            self.log.display(),
            last_lines(&self.log)
        )
    }

    /// Starts it again whenever it ends; returns when that happens too often.
    pub(super) async fn keep_running(&mut self) -> anyhow::Error {
        let mut restarts: Vec<Instant> = Vec::new();
        loop {
            let status = match &mut self.child {
                Some(child) => match child.wait().await {
                    Ok(status) => status,
                    Err(error) => return error.into(),
                },
                None => return anyhow!("{} does not run", self.name),
            };
            restarts.retain(|at| at.elapsed() < RESTARTS_WINDOW);
            if restarts.len() >= RESTARTS_MAX {
                self.child = None;
                return self.ended_too_early(status);
            }
            restarts.push(Instant::now());
            tracing::warn!(server = self.name, %status, "a private server ended: starting it again");
            tokio::time::sleep(RESTART_PAUSE).await;
            let log = File::options().append(true).create(true).open(&self.log);
            let started = match log {
                Ok(log) => self.spawn(log).await,
                Err(error) => Err(error.into()),
            };
            if let Err(error) = started {
                return error;
            }
        }
    }

    /// Asks it to stop and waits; kills it if it does not.
    pub(super) async fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, self.stop_signal)
        {
            tracing::warn!(server = self.name, %error, "the stop signal could not be sent");
        }
        match tokio::time::timeout(STOP_PATIENCE, child.wait()).await {
            Ok(_) => tracing::info!(server = self.name, "stopped"),
            Err(_) => {
                tracing::warn!(server = self.name, "does not stop: killing it");
                if let Err(error) = child.kill().await {
                    tracing::warn!(server = self.name, %error, "could not be killed");
                }
            }
        }
    }
}

/// The last lines of a log, for an error message.
fn last_lines(log: &Path) -> String {
    const LINES: usize = 10;
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Stops a process of an earlier run and waits for its end.
///
/// Not our child, so its end is seen by its leaving `/proc`.
pub(super) async fn stop_stranger(pid: u32, signal: Signal) -> anyhow::Result<()> {
    const POLL_INTERVAL: Duration = Duration::from_millis(20);
    let process = Pid::from_raw(pid.cast_signed()).context("a process id is above 0")?;
    kill_process(process, signal).with_context(|| format!("cannot stop process {pid}"))?;
    let deadline = Instant::now() + STOP_PATIENCE;
    while runs(pid) {
        if Instant::now() > deadline {
            return Err(anyhow!(
                "process {pid} of an earlier run does not stop: end it first"
            ));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Whether a process runs: there, and more than an unburied child of somebody.
fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| Some(!stat.rsplit_once(") ")?.1.starts_with('Z')))
        .unwrap_or(false)
}
