//! The program under test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::client::Client;
use super::port;
use super::process::{self, AtParentDeath, RunAs};

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// The lines that the program printed so far.
#[derive(Clone, Default)]
struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_from(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                log.lines().push(line);
                log.0.1.notify_all();
            }
        })
    }

    /// The first line, from number `from` on, for which `matches` yields something.
    fn await_line<T>(
        &self,
        from: usize,
        limit: Duration,
        mut matches: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut lines = self.lines();
        let mut seen = from;
        loop {
            while let Some(line) = lines.get(seen) {
                if let Some(found) = matches(line) {
                    return Some(found);
                }
                seen += 1;
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self
                .0
                .1
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

struct Running {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    first_line: usize,
}

/// One `freshet serve` on a free port of 127.0.0.1.
pub struct Program {
    path: String,
    folder: TempDir,
    port: u16,
    admin_port: u16,
    settings: Vec<(String, String)>,
    text: String,
    faults: Option<String>,
    log: Log,
    running: Option<Running>,
}

impl Program {
    /// Starts the program at `path` on these two servers and waits until it is ready.
    /// `settings` are pairs of `section.name` and value.
    pub fn start(
        path: &str,
        postgres_url: &str,
        redis_url: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut program = Self::stopped(path, postgres_url, redis_url, settings)?;
        program.start_again()?;
        Ok(program)
    }

    /// The same, not started yet.
    pub fn stopped(
        path: &str,
        postgres_url: &str,
        redis_url: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let own = [("postgres.url", postgres_url), ("redis.url", redis_url)];
        let pairs = own.iter().chain(settings);
        Ok(Self {
            path: path.to_owned(),
            folder: TempDir::with_prefix("freshet-program-")?,
            port: port::free()?,
            admin_port: port::free()?,
            settings: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            text: String::new(),
            faults: None,
            log: Log::default(),
            running: None,
        })
    }

    /// From its next start on, its configuration file ends with this.
    pub fn set_text(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    /// From its next start on, these faults happen (`src/fault.rs`).
    pub fn arm(&mut self, faults: &str) {
        self.faults = Some(faults.to_owned());
    }

    /// From its next start on, no faults happen.
    pub fn disarm(&mut self) {
        self.faults = None;
    }

    /// Starts it again on its old address, and waits until it is ready.
    pub fn start_again(&mut self) -> Result<()> {
        self.spawn()?;
        let ready = process::await_true("Freshet is ready", START_LIMIT, || {
            self.http("/readyz").is_ok_and(|(status, _)| status == 200) || !self.is_running()
        });
        if ready.is_err() || !self.is_running() {
            bail!("Freshet did not get ready; it said:\n{}", self.log_text());
        }
        Ok(())
    }

    /// Starts the process, and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "Freshet is running");
        let file = self.configuration();
        std::fs::write(
            &file,
            format!(
                "[listen]\naddress = \"127.0.0.1:{}\"\n\n[admin]\naddress = \"127.0.0.1:{}\"\n{}",
                self.port, self.admin_port, self.text
            ),
        )?;
        let mut command = process::command(&self.path, RunAs::Myself, AtParentDeath::Kill);
        command.arg("serve").arg("--config").arg(&file);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FRESHET_") {
                command.env_remove(name);
            }
        }
        for (name, value) in &self.settings {
            command.env(environment_name(name), value);
        }
        if let Some(faults) = &self.faults {
            command.env("FRESHET_FAULT_POINTS", faults);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let first_line = self.log.lines().len();
        let mut child = process::spawn(command)?;
        let out = child.stdout.take().context("no standard output")?;
        let err = child.stderr.take().context("no standard error")?;
        self.running = Some(Running {
            child,
            readers: vec![self.log.read_from(out), self.log.read_from(err)],
            first_line,
        });
        Ok(())
    }

    fn configuration(&self) -> PathBuf {
        self.folder.path().join("proxy.toml")
    }

    /// Adds text to its configuration file, until it is started again.
    pub fn append_to_configuration(&self, text: &str) -> Result<()> {
        let mut file = std::fs::File::options()
            .append(true)
            .open(self.configuration())?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Writes `to` in place of `from` in its configuration file, until it is started again.
    pub fn replace_in_configuration(&self, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.configuration())?;
        ensure!(text.contains(from), "{from:?} is not in the configuration");
        Ok(std::fs::write(
            self.configuration(),
            text.replace(from, to),
        )?)
    }

    fn is_running(&mut self) -> bool {
        self.running
            .as_mut()
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(None)))
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A new client connection.
    pub fn client(&self) -> Result<Client> {
        Client::connect(self.address())
    }

    /// Its process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.child.id())
    }

    fn running(&self) -> Result<&Running> {
        self.running.as_ref().context("Freshet is not running")
    }

    /// Status and body of one of its admin pages.
    pub fn http(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.admin_port))?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .context("no HTTP status")?;
        Ok((status, body.to_owned()))
    }

    /// The sum of a metric over all its labels; 0 if it is not there.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let (_, body) = self.http("/metrics")?;
        Ok(body
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum())
    }

    /// All that it printed so far.
    pub fn log_text(&self) -> String {
        self.log.lines().join("\n")
    }

    /// Waits for a line that contains `text`, since its last start.
    pub fn await_log(&self, text: &str, limit: Duration) -> Result<()> {
        let from = self.running()?.first_line;
        self.log
            .await_line(from, limit, |line| line.contains(text).then_some(()))
            .with_context(|| format!("no line with {text:?} in:\n{}", self.log_text()))
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.pid()?, name)
    }

    /// Kills it with `SIGKILL`.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("Freshet is not running")?;
        running.child.kill()?;
        running.child.wait()?;
        for reader in running.readers {
            // A reader that panicked has nothing more to say.
            let _ = reader.join();
        }
        Ok(())
    }

    /// How it ended, if it did.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        let running = self.running.as_mut()?;
        let status = running.child.try_wait().ok().flatten()?;
        self.running = None;
        Some(status)
    }

    /// Waits until it ended by itself.
    pub fn await_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut running = self.running.take().context("Freshet is not running")?;
        let status = process::await_some("Freshet ends", limit, || {
            running.child.try_wait().ok().flatten()
        });
        if status.is_err() {
            running.child.kill()?;
            running.child.wait()?;
        }
        for reader in running.readers {
            let _ = reader.join();
        }
        status.with_context(|| self.log_text())
    }

    /// Stops it with `SIGTERM`; it must exit with 0.
    pub fn stop(&mut self) -> Result<()> {
        self.signal("TERM")?;
        let status = self.await_exit(STOP_LIMIT)?;
        ensure!(status.success(), "{status}; it said:\n{}", self.log_text());
        Ok(())
    }

    /// Stops it; besides, it must have had nothing to complain about.
    pub fn stop_quietly(&mut self) -> Result<()> {
        self.stop()?;
        let complaints: Vec<String> = self
            .log
            .lines()
            .iter()
            .filter(|line| {
                line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked")
            })
            .cloned()
            .collect();
        ensure!(complaints.is_empty(), "it complained: {complaints:#?}");
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.running.is_some() {
            // An error here would hide the test's own.
            let _ = self.kill();
        }
        if thread::panicking() {
            eprintln!("--- Freshet said:\n{}", self.log_text());
        }
    }
}

/// The variable that overrides a setting: `cache.ttl` is `FRESHET_CACHE_TTL`.
fn environment_name(setting: &str) -> String {
    format!("FRESHET_{}", setting.replace('.', "_").to_uppercase())
}
