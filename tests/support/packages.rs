//! Packages of other languages, with pinned versions, installed once and kept between runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::process;

/// No install and no script runs longer than this many seconds.
const LIMIT: &str = "600";

/// Where packages are installed.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients")
}

/// Runs a program to its end; what it wrote to standard output.
pub fn run(program: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT).arg(program).args(arguments);
    process::run(command)
}

/// Has `install` run once for these versions in a folder of their own.
fn installed(
    name: &str,
    wanted: &[&str],
    install: impl FnOnce(&str) -> Result<()>,
) -> Result<PathBuf> {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let home = folder().join(name);
    let note = home.join("installed");
    let wanted = wanted.join(" ");
    if std::fs::read_to_string(&note).ok().as_ref() != Some(&wanted) {
        if home.exists() {
            // Of other versions, or broken off.
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(&home)?;
        install(home.to_str().context("a folder without a name")?)?;
        std::fs::write(note, wanted)?;
    }
    Ok(home)
}

/// The interpreter of an environment that has these packages of PyPI.
pub fn python(name: &str, wanted: &[&str]) -> Result<PathBuf> {
    let home = installed(name, wanted, |home| {
        run(Path::new("python3"), &["-m", "venv", home])?;
        let install = ["-m", "pip", "install", "--quiet"];
        let python = Path::new(home).join("bin/python");
        run(&python, &[&install, wanted].concat()).map(drop)
    })?;
    Ok(home.join("bin/python"))
}

/// The folder of modules that has these packages of npm.
pub fn node_modules(name: &str, wanted: &[&str]) -> Result<PathBuf> {
    let home = installed(name, wanted, |home| {
        let prefix = [
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--prefix",
            home,
        ];
        run(Path::new("npm"), &[&prefix, wanted].concat()).map(drop)
    })?;
    Ok(home.join("node_modules"))
}
