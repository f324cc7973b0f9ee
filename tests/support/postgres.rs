//! A private PostgreSQL.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::port;
use super::process::{self, AtParentDeath, RunAs};
use super::sql::Sql;

// Recovery syncs each file of the cluster; on a busy disk that takes its time.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Whether PostgreSQL waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// As in production; for tests that kill PostgreSQL, and for benchmarks.
    On,
    /// Faster; only where PostgreSQL is never killed.
    Off,
}

/// One PostgreSQL cluster in a temporary folder, on a free port of 127.0.0.1.
pub struct Postgres {
    folder: PathBuf,
    port: u16,
    fsync: Fsync,
    more: Vec<String>,
    server: Option<Child>,
    databases: AtomicU32,
}

impl Postgres {
    /// Creates and starts a cluster.
    pub fn start(fsync: Fsync) -> Result<Self> {
        Self::start_with(fsync, &[])
    }

    /// The same with more settings.
    pub fn start_with(fsync: Fsync, settings: &[&str]) -> Result<Self> {
        let mut cluster = Self::unmade(fsync)?;
        cluster.more = settings.iter().map(|s| (*s).to_owned()).collect();
        let mut initdb = process::command(
            &program("initdb"),
            RunAs::Postgres,
            AtParentDeath::Interrupt,
        );
        initdb
            .args([
                "--username=postgres",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
            ])
            .args(["--no-sync", "--pgdata"])
            .arg(cluster.data());
        process::run(initdb)?;
        cluster.start_again()?;
        Ok(cluster)
    }

    /// A folder and a port for a cluster.
    fn unmade(fsync: Fsync) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("freshet-pg-{}-", std::process::id()))
            .tempdir()
            .context("no temporary folder")?
            .keep();
        if process::is_root() {
            let mut chown = std::process::Command::new("chown");
            chown.arg("postgres:").arg(&folder);
            process::run(chown)?;
        }
        Ok(Self {
            folder,
            port: port::free()?,
            fsync,
            more: Vec::new(),
            server: None,
            databases: AtomicU32::new(0),
        })
    }

    /// A hot standby of this cluster, which streams from it under the name `standby`.
    pub fn standby(&self) -> Result<Self> {
        let mut standby = Self::unmade(self.fsync)?;
        let source = format!(
            "host=127.0.0.1 port={} user=postgres application_name=standby",
            self.port
        );
        let mut backup = process::command(
            &program("pg_basebackup"),
            RunAs::Postgres,
            AtParentDeath::Interrupt,
        );
        backup
            .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
            .args(["--wal-method=stream", "--pgdata"])
            .arg(standby.data())
            .arg("--dbname")
            .arg(source);
        process::run(backup)?;
        standby.start_again()?;
        Ok(standby)
    }

    /// Ends the recovery of a standby, and waits until it takes writes.
    pub fn promote(&self) -> Result<()> {
        let sql = Sql::connect(&self.url("postgres"))?;
        let promoted = sql.query("select pg_promote(true, 60)", &[])?;
        ensure!(promoted[0].get::<_, bool>(0), "not promoted");
        Ok(())
    }

    /// Copies the files of the stopped cluster; [`Self::restore`] brings them back.
    pub fn save(&self) -> Result<()> {
        ensure!(self.server.is_none(), "PostgreSQL is running");
        copy(&self.data(), &self.folder.join("saved"))
    }

    /// Takes the stopped cluster back to where it was when it was saved.
    pub fn restore(&self) -> Result<()> {
        ensure!(self.server.is_none(), "PostgreSQL is running");
        std::fs::remove_dir_all(self.data())?;
        copy(&self.folder.join("saved"), &self.data())
    }

    /// The cluster that tests share which never stop it: initdb costs a second.
    /// Each takes a database of its own. It ends with the process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| {
            remove_leftovers();
            Self::start(Fsync::Off).expect("a private PostgreSQL starts")
        })
    }

    /// Starts the server on the cluster's folder and port, and waits until it answers.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "PostgreSQL is running");
        let mut server = process::command(
            &program("postgres"),
            RunAs::Postgres,
            AtParentDeath::Interrupt,
        );
        server.arg("-D").arg(self.data());
        for setting in self.settings() {
            server.arg("-c").arg(setting);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())?;
        server.stdout(Stdio::null()).stderr(log);
        self.server = Some(process::spawn(server)?);
        let url = self.url("postgres");
        process::await_true("PostgreSQL answers", START_LIMIT, || {
            Sql::connect(&url).is_ok()
        })
        .with_context(|| std::fs::read_to_string(self.log_file()).unwrap_or_default())
    }

    fn settings(&self) -> Vec<String> {
        let fsync = match self.fsync {
            Fsync::On => "on",
            Fsync::Off => "off",
        };
        let usual = [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", self.folder.display()),
            format!("fsync={fsync}"),
            "listen_addresses=127.0.0.1".into(),
            "max_connections=400".into(),
            "wal_level=logical".into(),
            "max_replication_slots=50".into(),
            "max_wal_senders=50".into(),
            "shared_buffers=512MB".into(),
            "max_wal_size=4GB".into(),
            "checkpoint_timeout=30min".into(),
        ];
        usual.into_iter().chain(self.more.iter().cloned()).collect()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// What the server has said.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates an empty database and returns its URL.
    pub fn create_database(&self) -> Result<String> {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("freshet_{number}");
        Sql::connect(&self.url("postgres"))?.execute(&format!("create database {name}"))?;
        Ok(self.url(&name))
    }

    /// Stops it in order, with a checkpoint; open connections are cut.
    pub fn stop(&mut self) -> Result<()> {
        self.end("INT")
    }

    /// Crashes it: no checkpoint, no farewell; recovery at the next start.
    pub fn crash(&mut self) -> Result<()> {
        self.end("QUIT")
    }

    /// Kills the postmaster with `SIGKILL` and waits until the last backend is
    /// gone too, which notice by themselves.
    pub fn kill(&mut self) -> Result<()> {
        self.end("KILL")?;
        // The lock file of a killed postmaster stays; a new one starts only
        // when no old backend holds the shared memory any more.
        let mark = self.data();
        let mark = mark.as_os_str().as_encoded_bytes().to_vec();
        process::await_true("old backends end", START_LIMIT, || !any_process_in(&mark))
    }

    /// Stops all its processes where they are, or lets them go on (`STOP`, `CONT`).
    pub fn signal_all(&self, name: &str) -> Result<()> {
        for pid in processes_in(self.data().as_os_str().as_encoded_bytes()) {
            // A backend may end between the listing and the signal.
            let _ = process::signal(pid, name);
        }
        Ok(())
    }

    fn end(&mut self, signal: &str) -> Result<()> {
        let mut server = self.server.take().context("PostgreSQL is not running")?;
        process::signal(server.id(), signal)?;
        server.wait()?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.server.is_some() {
            // Nothing of it is needed any more; an error here would hide the test's own.
            let _ = self.end("QUIT");
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Copies a folder with owners and modes.
fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let mut copy = std::process::Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    process::run(copy).map(drop)
}

/// The path of one of PostgreSQL's programs: of the newest Debian package, else from PATH.
pub fn program(name: &str) -> String {
    let newest = std::fs::read_dir("/usr/lib/postgresql")
        .ok()
        .and_then(|versions| {
            versions
                .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
                .filter(|path| path.exists())
                .max()
        });
    newest.map_or_else(|| name.to_owned(), |path| path.display().to_string())
}

/// The processes whose working folder is `folder`: PostgreSQL works in its data folder.
fn processes_in(folder: &[u8]) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let cwd = std::fs::read_link(entry.path().join("cwd")).ok()?;
            (cwd.as_os_str().as_encoded_bytes() == folder).then_some(pid)
        })
        .collect()
}

fn any_process_in(folder: &[u8]) -> bool {
    !processes_in(folder).is_empty()
}

/// Removes the folders of shared clusters whose test process is gone.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix("freshet-pg-"))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
