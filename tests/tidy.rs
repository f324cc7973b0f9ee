//! Rules that the compiler does not know: which way the layers' imports point,
//! no file that is compiled into nothing, and nothing left undone.

#![cfg(test)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each layer may name. Dependencies point down: a socket knows
/// clients, a client the data path, and only `coherence` both servers.
#[rustfmt::skip]
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("net",       &["client", "flow", "pubsub", "command", "resp", "model"]),
    ("client",    &["flow", "pubsub", "acl", "command", "resp", "model"]),
    ("acl",       &["command", "model"]),
    ("flow",      &["routing", "pubsub", "coherence", "cache", "store", "script", "acl", "engine", "command", "resp", "model"]), // and see below
    ("pubsub",    &["coherence", "cache", "command", "resp", "model"]),
    ("moving",    &["routing", "pubsub", "coherence", "cache", "store", "engine", "command", "resp", "model"]),
    ("advise",    &["cache", "command", "model"]),
    ("replica",   &["moving", "store", "stream", "model"]),
    ("reconcile", &["store", "cache", "engine", "command", "model"]),
    ("coherence", &["store", "cache", "script", "engine", "command", "resp", "model"]),
    ("store",     &["engine", "model"]), // only the words for what a call needs loaded
    ("stream",    &["model"]),
    ("cache",     &["routing", "resp", "model"]),
    ("routing",   &["command", "model"]),
    ("script",    &["routing", "engine", "acl", "command", "model"]),
    ("engine",    &["command", "model"]),
    ("command",   &["model"]),
    ("resp",      &["model"]),
    ("model",     &[]),
];

/// Used by every layer; themselves they know only `model` and each other.
const FOR_ALL: &[&str] = &[
    "config",
    "error",
    "telemetry",
    "fault",
    "clock",
    "tls",
    "progress",
];

/// Wires everything, so it may name everything.
const WIRING: &[&str] = &["main", "lib", "cli", "server", "admin", "dev"];

/// Words that mark work as unfinished, or a test as not run. In two parts each,
/// so that this list is not found by itself.
const UNFINISHED: &[(&str, &str)] = &[
    ("TO", "DO"),
    ("FIX", "ME"),
    ("to", "do!("),
    ("unimpl", "emented!("),
    ("db", "g!("),
    ("#[ig", "nore"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`, with their paths relative to it.
fn rust_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(place) = waiting.pop() {
        for entry in fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(folder).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    found
}

/// The name of the top-level module that a file of `src` belongs to.
fn layer(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str();
    first.to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// A file's code without comments and without what is below `#[cfg(test)]` at
/// its margin: tests may use what they need.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| *line != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// The top-level modules that a line names by `crate::`.
fn named_modules(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .filter(|(at, _)| !line[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        .map(|(at, word)| {
            let rest = &line[at + word.len()..];
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            &rest[..end]
        })
        .collect()
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files(&root().join("src")) {
        let layer = layer(&path);
        if WIRING.contains(&layer.as_str()) {
            continue;
        }
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == layer);
        let allowed: &[&str] = match row {
            Some((_, allowed)) => allowed,
            None if FOR_ALL.contains(&layer.as_str()) => &["model"],
            None => panic!("{}: which layer is this? Add it here", path.display()),
        };
        for (number, line) in code(&text) {
            for module in named_modules(line) {
                if module != layer && !allowed.contains(&module) && !FOR_ALL.contains(&module) {
                    wrong.push(format!(
                        "src/{}:{number}: {layer} must not know `{module}`",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The data path builds the store, and asks for its clock and its pool's use. Reading and
/// writing are for `coherence`: nothing can publish what was not committed.
#[test]
fn flow_neither_reads_nor_writes_the_store() {
    const ALLOWED: &[&str] = &["store.pool_status()", "store.clock()"];
    let text = fs::read_to_string(root().join("src/flow.rs")).unwrap();
    let wrong: Vec<_> = code(&text)
        .filter(|(_, line)| line.contains(".store."))
        .filter(|(_, line)| !ALLOWED.iter().any(|allowed| line.contains(allowed)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn every_source_file_is_compiled() {
    let files = rust_files(&root().join("src"));
    let declared: BTreeSet<String> = files
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = line.strip_prefix("pub(crate) ").unwrap_or(line);
            let line = line.strip_prefix("pub(super) ").unwrap_or(line);
            Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
        })
        .collect();
    let dead: Vec<_> = files
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !matches!(path.to_str(), Some("lib.rs" | "main.rs")))
        .filter(|path| {
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let name = match stem {
                "mod" => path
                    .parent()
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap(),
                stem => stem,
            };
            !declared.contains(name)
        })
        .collect();
    assert!(dead.is_empty(), "no `mod` names these: {dead:?}");
}

#[test]
fn nothing_is_left_undone() {
    let mut found = Vec::new();
    for folder in ["src", "tests", "benches"] {
        for (path, text) in rust_files(&root().join(folder)) {
            for (index, line) in text.lines().enumerate() {
                for (first, second) in UNFINISHED {
                    if line.contains(&format!("{first}{second}")) {
                        found.push(format!("{folder}/{}:{}: {line}", path.display(), index + 1));
                    }
                }
            }
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_readme_lists_every_metric() {
    let names = fs::read_to_string(root().join("src/telemetry.rs")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let missing: Vec<_> = names
        .lines()
        .filter(|line| !line.starts_with(' ') && line.contains(": &str = \""))
        .filter_map(|line| line.split('"').nth(1))
        .filter(|name| !readme.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// The strings in the list that follows `head` in `.cargo/deny.toml`.
fn listed_in_deny(head: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(".cargo/deny.toml")).unwrap();
    let (_, list) = text.split_once(head).unwrap();
    let lines = list.lines().take_while(|line| *line != "]");
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let strings = lines.filter_map(|line| line.split('"').nth(1));
    strings.map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met by the `allowed` licences alone.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    // Old manifests write "/" for OR, which binds less than AND.
    let expression = expression.replace('/', " OR ");
    for (at, letter) in expression.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(" OR ") => {
                parts.push(&expression[start..at]);
                start = at + " OR ".len();
            }
            _ => {}
        }
    }
    if !parts.is_empty() {
        parts.push(&expression[start..]);
        return parts.iter().any(|part| is_allowed(part, allowed));
    }
    let expression = expression.trim();
    if !expression.contains('(') {
        let mut all = expression.split(" AND ");
        return all.all(|one| allowed.iter().any(|it| it == one.trim()));
    }
    // Parentheses beside AND, as in "(A OR B) AND C".
    let Some((inner, rest)) = expression.strip_prefix('(').and_then(|e| e.split_once(')')) else {
        return false;
    };
    let rest = rest.trim_start().trim_start_matches("AND ");
    is_allowed(inner, allowed) && (rest.is_empty() || is_allowed(rest, allowed))
}

#[test]
fn licences_are_read_as_written() {
    let allowed = ["MIT".to_owned(), "ISC".to_owned()];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL/MIT",
        "MIT AND ISC",
        "(GPL OR MIT) AND ISC",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in [
        "GPL",
        "MIT AND GPL",
        "(GPL OR MIT) AND GPL",
        "",
        "MIT WITH x",
    ] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// What `cargo deny check licenses` says too, where that is not installed.
#[test]
fn dependencies_have_allowed_licences() {
    let allowed = listed_in_deny("allow = [");
    assert!(
        allowed.iter().any(|licence| licence == "MIT"),
        "{allowed:?}"
    );
    let output = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none"])
        .args([
            "--edges",
            "normal,build",
            "--no-dedupe",
            "--format",
            "{p}|{l}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let crates: BTreeSet<(&str, &str)> = text.lines().filter_map(|l| l.split_once('|')).collect();
    assert!(
        crates.len() > 100,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let wrong: Vec<_> = crates
        .iter()
        .filter(|(_, licence)| !is_allowed(licence, &allowed))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// What `cargo deny check bans sources` says too: all from crates.io, none that is banned.
#[test]
fn dependencies_come_from_where_they_may() {
    let banned = listed_in_deny("deny = [");
    assert!(!banned.is_empty());
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let of = |key: &str| -> Vec<String> {
        let values = lock.lines().filter_map(|line| line.strip_prefix(key));
        values
            .map(|value| value.trim_matches('"').to_owned())
            .collect()
    };
    let (names, sources) = (of("name = "), of("source = "));
    assert!(
        sources.len() + 1 == names.len(),
        "a dependency without a source"
    );
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    assert!(sources.iter().all(|source| source == crates_io));
    let found: Vec<_> = names.iter().filter(|name| banned.contains(name)).collect();
    assert!(found.is_empty(), "{found:?}");
}
