//! One line that says where the numbers come from.

use std::process::Command;

/// CPU, cores, and the versions of all programs that take part.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let versions = [
        first_line("redis-server", &["--version"]).map(|line| word(&line, 2, "Redis ")),
        first_line(
            &crate::support::postgres::program("postgres"),
            &["--version"],
        )
        .map(|line| word(&line, 2, "PostgreSQL ")),
        first_line("nutcracker", &["--version"]).map(|line| word(&line, 2, "twemproxy ")),
        first_line("haproxy", &["-v"]).map(|line| word(&line, 2, "HAProxy ")),
        first_line("uname", &["-sr"]),
    ];
    let versions: Vec<String> = versions.into_iter().flatten().collect();
    format!("{}, {cores} cores; {}", cpu(), versions.join(", "))
}

fn cpu() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown CPU".into())
}

fn word(line: &str, index: usize, label: &str) -> String {
    let word = line.split_whitespace().nth(index).unwrap_or("?");
    format!(
        "{label}{}",
        word.trim_start_matches("v=")
            .trim_start_matches("nutcracker-")
    )
}

/// The first line that a program prints, wherever it prints it.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.to_owned())
}
