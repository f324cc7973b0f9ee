//! The data folder: what is remembered between runs.
//!
//! ```text
//! .freshet/
//!   lock            held while `freshet dev` runs
//!   dev.toml        ports and password
//!   postgres/       the cluster (a symbolic link, if it had to be elsewhere)
//!   postgres.log    what PostgreSQL said in the last run
//!   redis.log       what Redis said
//!   redis.pid       the process of the private Redis
//! ```

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The data folder, with its absolute path.
pub(super) struct Folder(PathBuf);

/// What `dev.toml` remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Notes {
    /// Port of the private PostgreSQL on 127.0.0.1; 0 is: none yet.
    pub(super) postgres_port: u16,
    /// Port of the private Redis on 127.0.0.1; 0 is: none yet.
    pub(super) redis_port: u16,
    /// Password of both.
    pub(super) password: String,
}

impl Folder {
    /// Opens the folder at `path`, and makes it if it is missing.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {name}"))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("cannot find the folder {name}"))?;
        Ok(Self(path))
    }

    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What was remembered, or a new password and no ports yet.
    pub(super) fn notes(&self) -> anyhow::Result<Notes> {
        let path = self.notes_path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let notes = Notes {
                    password: new_password(),
                    ..Notes::default()
                };
                self.remember(&notes)?;
                return Ok(notes);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        toml::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Keeps the remembered ports if they are free, takes others if not, and remembers them.
    pub(super) fn settle_ports(&self, mut notes: Notes) -> anyhow::Result<Notes> {
        // Both are held until both are known, so that they differ.
        let postgres = free_port(notes.postgres_port)?;
        let redis = free_port(notes.redis_port)?;
        notes.postgres_port = postgres.local_addr()?.port();
        notes.redis_port = redis.local_addr()?.port();
        self.remember(&notes)?;
        Ok(notes)
    }

    fn notes_path(&self) -> PathBuf {
        self.0.join("dev.toml")
    }

    /// Replaces the file in one step: a run that is killed leaves the old or the new one.
    fn remember(&self, notes: &Notes) -> anyhow::Result<()> {
        let path = self.notes_path();
        let new = path.with_extension("toml.new");
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .with_context(|| format!("cannot write {}", new.display()))?;
        file.write_all(toml::to_string(notes)?.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        Ok(())
    }
}

/// Holds `wanted` on 127.0.0.1, or any port that is free.
fn free_port(wanted: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
}

/// 128 random bits in hexadecimal: fit for a URL and for a configuration file.
fn new_password() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_password_are_kept_between_runs() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(&place.path().join("new")).unwrap();
        let first = folder.settle_ports(folder.notes().unwrap()).unwrap();
        assert_ne!(first.postgres_port, first.redis_port);
        assert_eq!(first.password.len(), 32);
        assert_eq!(folder.notes().unwrap(), first);
        assert_eq!(folder.settle_ports(first.clone()).unwrap(), first);
    }

    #[test]
    fn an_occupied_port_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let first = folder.settle_ports(folder.notes().unwrap()).unwrap();
        let _occupied = TcpListener::bind((Ipv4Addr::LOCALHOST, first.redis_port)).unwrap();
        let second = folder.settle_ports(first.clone()).unwrap();
        assert_ne!(second.redis_port, first.redis_port);
        assert_eq!(second.postgres_port, first.postgres_port);
    }
}
