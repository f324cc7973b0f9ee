//! Finds the installed server programs.

use std::path::{Path, PathBuf};

use anyhow::bail;

/// The server programs that were found.
pub(super) struct Programs {
    /// Every PostgreSQL, newest first; never empty.
    pub(super) postgres: Vec<PostgresPrograms>,
    /// `redis-server` (or Valkey's).
    pub(super) redis_server: PathBuf,
}

/// One version of PostgreSQL.
#[derive(Clone, Debug)]
pub(super) struct PostgresPrograms {
    /// Its major version.
    pub(super) major: u32,
    /// The folder of `initdb`, `postgres` and the like.
    pub(super) folder: PathBuf,
}

/// Looks in `PATH` and where Debian keeps PostgreSQL's server programs.
///
/// The error names every package that is missing.
pub(super) fn find() -> anyhow::Result<Programs> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let redis_server = ["redis-server", "valkey-server"]
        .iter()
        .find_map(|name| in_folders(&path, name));
    let postgres = postgres_versions(&path);
    let mut missing = Vec::new();
    if postgres.is_empty() {
        missing.push("initdb and postgres (Debian package: postgresql)");
    }
    match redis_server {
        Some(redis_server) if missing.is_empty() => Ok(Programs {
            postgres,
            redis_server,
        }),
        found => {
            if found.is_none() {
                missing.push("redis-server (Debian package: redis-server)");
            }
            bail!(
                "a server program is missing: {}; `make setup` installs what is missing",
                missing.join("; ")
            )
        }
    }
}

fn in_folders(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders
        .iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Every PostgreSQL with both programs, newest first.
fn postgres_versions(path: &[PathBuf]) -> Vec<PostgresPrograms> {
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let mut versions: Vec<_> = debian
        .chain(path.iter().cloned())
        .filter(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
        .filter_map(|folder| {
            let major = major_version(&folder)?;
            Some(PostgresPrograms { major, folder })
        })
        .collect();
    versions.sort_by_key(|version| std::cmp::Reverse(version.major));
    versions
}

/// Asks `postgres --version`, which says `postgres (PostgreSQL) 15.18 (...)`.
fn major_version(folder: &Path) -> Option<u32> {
    let output = std::process::Command::new(folder.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    parse_major(&String::from_utf8_lossy(&output.stdout))
}

fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_whitespace().nth(2)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn versions_of_releases_and_betas() {
        assert_eq!(
            parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major(""), None);
    }
}
