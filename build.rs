//! Tells the program which commit it is built from (`freshet --version`).

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=FRESHET_COMMIT");
    // This log grows with every commit and checkout.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    // A container build has no repository and passes the commit instead.
    let commit = std::env::var("FRESHET_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--short=10", "HEAD"]));
    println!(
        "cargo:rustc-env=FRESHET_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
