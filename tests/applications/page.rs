//! `docs/compatibility.md`: a table that the tests of applications write.
//!
//! Each test has its row. With `FRESHET_WRITE_DOCS=1` it writes what came of it; else it checks
//! that the page says just that.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What is to be known of applications that need no setting.
pub const NOTHING: &str = "";

const HEAD: &str = "\
# Applications

Each of these was run against Freshet by a test of its own (`tests/applications`), which wrote its row here. What
stands in the third column was done and checked; a test that fails says so in the last.

| application | version | what was done | to be known | result |
|---|---|---|---|---|
";

const TAIL: &str = "
No application needs a setting of Freshet's. Clients should try again, as with any server: an error that begins with
`TRYAGAIN` means that nothing was done, one with `UNKNOWN` that PostgreSQL was away too long to tell. What must not be
done twice when a client sends it again goes through `FRESHET.ONCE` (see the README).
";

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/compatibility.md")
}

fn is_writing() -> bool {
    std::env::var_os("FRESHET_WRITE_DOCS").is_some()
}

/// Runs an application's test, and compares what came of it with its row, or writes that.
pub fn tell(application: &str, to_be_known: &str, run: impl FnOnce() -> String) {
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let output = outcome.as_deref().unwrap_or_default();
    let lines = |head: &str| -> Vec<String> {
        let lines = output.lines().filter_map(|line| line.strip_prefix(head));
        lines.map(str::to_owned).collect()
    };
    let version = lines("version: ").first().cloned().unwrap_or_default();
    let works = lines("works: ").join("; ");
    let result = if outcome.is_ok() {
        "works"
    } else {
        "**fails**"
    };
    let row = format!("| {application} | {version} | {works} | {to_be_known} | {result} |");
    if is_writing() {
        write(application, &row);
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
    assert!(!works.is_empty(), "{application} did nothing");
    let page = std::fs::read_to_string(file()).unwrap();
    assert!(
        page.lines().any(|line| line == row),
        "{} does not say:\n{row}\n(FRESHET_WRITE_DOCS=1 writes it)",
        file().display()
    );
}

fn rows() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(file()).unwrap_or_default();
    let rows = page
        .lines()
        .skip_while(|line| *line != "|---|---|---|---|---|");
    let rows = rows.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| (name_of(row).to_lowercase(), row.to_owned()))
        .collect()
}

fn name_of(row: &str) -> &str {
    row.split('|').nth(1).unwrap_or_default().trim()
}

/// Puts one row into the page. Other tests do the same at the same time.
fn write(application: &str, row: &str) {
    static ONE_BY_ONE: Mutex<()> = Mutex::new(());
    let _turn = ONE_BY_ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut rows = rows();
    rows.insert(application.to_lowercase(), row.to_owned());
    let rows: Vec<String> = rows.into_values().collect();
    std::fs::write(file(), format!("{HEAD}{}\n{TAIL}", rows.join("\n"))).unwrap();
}

/// No row is left of an application that is tested no more.
#[test]
fn page_has_the_rows_of_the_tests_and_no_others() {
    if is_writing() {
        return;
    }
    let page = std::fs::read_to_string(file()).unwrap();
    assert!(page.starts_with(HEAD) && page.ends_with(TAIL));
    let tests = [include_str!("mod.rs"), include_str!("jobs.rs")].concat();
    let rows = rows();
    assert_eq!(rows.len(), tests.matches("page::tell(").count());
    for row in rows.values() {
        assert!(tests.contains(&format!("\"{}\"", name_of(row))), "{row}");
    }
}

/// What is to be known of BullMQ.
pub const BULLMQ: &str = "`maxRetriesPerRequest: null` for workers, as BullMQ asks anyway";
/// What is to be known of Redlock.
pub const REDLOCK: &str = "several servers are several stores: proxies of one store count as one";
/// What is to be known of BullMQ when proxies die.
pub const JOBS: &str = "jobs under ids of their own, so that one that is added again is not added twice; what a job \
     does in `FRESHET.ONCE`, since BullMQ runs a job again whose worker was cut off; `maxStalledCount` above the 1 \
     that is its default";
