//! The private PostgreSQL: a cluster in the data folder, tuned for a
//! developer's machine and with fsync on.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::process::Command;
use tokio_postgres::NoTls;

use super::account::Account;
use super::child::{Server, stop_stranger};
use super::folder::{Folder, Notes};
use super::programs::PostgresPrograms;

/// The name of the role and of the database.
const NAME: &str = "freshet";

/// After a crash it replays at most `max_wal_size` of log.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Where the cluster goes if its account cannot reach the data folder.
const ELSEWHERE: &str = "/var/lib/freshet-dev";

/// What differs from PostgreSQL's own defaults, which are for the smallest machines.
#[rustfmt::skip] // One line each reads as a table.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_directories", ""),  // its folder may be too deep for a socket's name
    ("max_connections", "100"),
    ("shared_buffers", "256MB"),
    ("wal_level", "logical"),         // for change data capture
    ("max_slot_wal_keep_size", "2GB"),// a forgotten reader of changes must not fill the disk
    ("fsync", "on"),
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("wal_buffers", "16MB"),
    ("wal_compression", "on"),
    ("min_wal_size", "256MB"),
    ("max_wal_size", "2GB"),          // checkpoints by time, not in the middle of a load
    ("checkpoint_timeout", "15min"),
    ("checkpoint_completion_target", "0.9"),
    ("random_page_cost", "1.1"),      // solid-state disks
    ("jit", "off"),                   // no statement here is long enough to be worth compiling
    ("autovacuum_naptime", "15s"),
    ("autovacuum_vacuum_cost_delay", "1ms"),
];

/// A cluster on disk.
pub(super) struct Cluster {
    programs: PostgresPrograms,
    account: Account,
    /// Its data, without symbolic links.
    data: PathBuf,
    log: PathBuf,
}

/// Finds the cluster of `folder`, or makes one with the newest of `versions`.
pub(super) async fn prepare(
    folder: &Folder,
    versions: &[PostgresPrograms],
    account: &Account,
    notes: &Notes,
) -> anyhow::Result<Cluster> {
    let place = place(folder, account).await?;
    let data = place.join("postgres");
    let programs = match std::fs::read_to_string(data.join("PG_VERSION")) {
        Ok(version) => of_version(versions, version.trim(), &data)?,
        Err(_) => versions.first().context("no PostgreSQL was found")?.clone(),
    };
    let cluster = Cluster {
        programs,
        account: account.clone(),
        data,
        log: folder.path().join("postgres.log"),
    };
    if !cluster.data.join("PG_VERSION").exists() {
        cluster.create(&place, notes).await?;
    }
    let link = folder.path().join("postgres");
    if place != folder.path() && link.symlink_metadata().is_err() {
        symlink(&cluster.data, &link)
            .with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    Ok(cluster)
}

/// The programs that made the cluster: another major version cannot read it.
fn of_version(
    versions: &[PostgresPrograms],
    version: &str,
    data: &Path,
) -> anyhow::Result<PostgresPrograms> {
    let major = version.parse::<u32>().ok();
    versions
        .iter()
        .find(|v| Some(v.major) == major)
        .cloned()
        .with_context(|| {
            format!(
                "{} was made by PostgreSQL {version}: install the Debian package postgresql-{version}, or choose another --data-dir",
                data.display()
            )
        })
}

/// The folder in which the cluster's own one stands: the data folder, or one
/// that the servers' account can reach.
async fn place(folder: &Folder, account: &Account) -> anyhow::Result<PathBuf> {
    let own = folder.path();
    let Account::Other { name, .. } = account else {
        return Ok(own.to_owned());
    };
    if account.can_enter(own).await {
        return Ok(own.to_owned());
    }
    let mut hasher = DefaultHasher::new();
    own.hash(&mut hasher);
    let place = Path::new(ELSEWHERE).join(format!("{:016x}", hasher.finish()));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&place)
        .with_context(|| {
            format!(
                "PostgreSQL runs as {name}, who cannot reach {}, and {} cannot be made",
                own.display(),
                place.display()
            )
        })?;
    tracing::info!(
        folder = %place.display(),
        account = name,
        "PostgreSQL's files are elsewhere: its account cannot reach the data folder"
    );
    Ok(place)
}

impl Cluster {
    /// Makes it under another name first: one that is there is complete.
    async fn create(&self, place: &Path, notes: &Notes) -> anyhow::Result<()> {
        tracing::info!(version = self.programs.major, folder = %self.data.display(), "making a PostgreSQL cluster");
        let new = place.join("postgres.new");
        if new.exists() {
            std::fs::remove_dir_all(&new)
                .with_context(|| format!("cannot remove {}", new.display()))?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(&new)?;
        self.account.give(&new)?;
        let password_file = place.join("password.new");
        self.write_password(&password_file, notes)?;
        let mut command = Command::new(self.programs.folder.join("initdb"));
        command
            .arg("--pgdata")
            .arg(&new)
            .arg("--pwfile")
            .arg(&password_file)
            .args(["--username", NAME, "--auth", "scram-sha-256"])
            .args(["--encoding", "UTF8", "--locale", "C", "--data-checksums"])
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        self.account.apply(&mut command);
        let output = command.output().await;
        std::fs::remove_file(&password_file)?;
        let output = output.context("cannot start initdb")?;
        if !output.status.success() {
            bail!(
                "initdb failed ({}):\n{}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim_end()
            );
        }
        std::fs::rename(&new, &self.data)?;
        Ok(())
    }

    fn write_password(&self, path: &Path, notes: &Notes) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(path);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.write_all(notes.password.as_bytes())?;
        self.account.give(path)
    }

    /// Stops the server that a killed run left behind, and removes the file
    /// that says so if the process is no server of this cluster.
    pub(super) async fn stop_leftover(&self) -> anyhow::Result<()> {
        let file = self.data.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(());
        };
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        match pid {
            Some(pid) if self.is_served_by(pid) => {
                tracing::info!(pid, "stopping the PostgreSQL of an earlier run");
                stop_stranger(pid, Signal::INT).await
            }
            _ => {
                // The number may have gone to another process since, for
                // which PostgreSQL would refuse to start.
                std::fs::remove_file(&file)
                    .with_context(|| format!("cannot remove {}", file.display()))
            }
        }
    }

    /// A server of PostgreSQL works in its data folder.
    fn is_served_by(&self, pid: u32) -> bool {
        let data = self.data.canonicalize().ok();
        data.is_some() && std::fs::read_link(format!("/proc/{pid}/cwd")).ok() == data
    }

    /// How to start it on `port`.
    pub(super) fn server(&self, port: u16) -> Server {
        let program = self.programs.folder.join("postgres");
        let data = self.data.clone();
        let account = self.account.clone();
        Server {
            name: "PostgreSQL",
            command: Box::new(move || {
                let mut command = Command::new(&program);
                command.arg("-D").arg(&data).current_dir("/");
                command.arg("-c").arg(format!("port={port}"));
                for (name, value) in SETTINGS {
                    command.arg("-c").arg(format!("{name}={value}"));
                }
                account.apply(&mut command);
                command
            }),
            input: String::new(),
            log: self.log.clone(),
            pid_file: None,
            // Fast shutdown: ends connections, then a checkpoint.
            stop_signal: Signal::INT,
            child: None,
        }
    }

    /// Waits until it takes connections, and sees to its database.
    pub(super) async fn wait_until_ready(
        &self,
        server: &mut Server,
        notes: &Notes,
    ) -> anyhow::Result<()> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(notes.postgres_port)
            .user(NAME)
            .password(&notes.password)
            .dbname("postgres")
            .connect_timeout(Duration::from_secs(2));
        server
            .wait_until(READY_PATIENCE, || async {
                config.connect(NoTls).await.is_ok()
            })
            .await?;
        let (client, connection) = config
            .connect(NoTls)
            .await
            .context("the private PostgreSQL refuses our connection")?;
        let connection = tokio::spawn(connection);
        let created = async {
            let sql = "select from pg_database where datname = $1";
            if client.query_opt(sql, &[&NAME]).await?.is_none() {
                client
                    .batch_execute(&format!("create database {NAME}"))
                    .await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        };
        let created = created.await.context("cannot create the database");
        drop(client);
        connection.abort();
        created
    }
}

/// The address, with the password, for psql and for Freshet.
pub(super) fn url(notes: &Notes) -> String {
    format!(
        "postgresql://{NAME}:{}@127.0.0.1:{}/{NAME}",
        notes.password, notes.postgres_port
    )
}
