//! `docs/strategies.md`, run as it stands there: each section on servers of its own.

use std::process::Command;

use super::LIMIT;
use crate::support::stack::FRESHET;
use crate::support::{Client, Program, Redis, Sql, Stack, Value, process};

/// A block of a section: what language, and its text.
type Block = (String, String);

/// The sections with their blocks.
fn sections() -> Vec<(String, Vec<Block>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/strategies.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = |section: &str| {
        let (title, body) = section.split_once('\n').unwrap();
        let blocks = body.split("```").skip(1).step_by(2).map(|block| {
            let (language, text) = block.split_once('\n').unwrap();
            (language.to_owned(), text.to_owned())
        });
        (title.to_owned(), blocks.collect())
    };
    text.split("\n## ").skip(1).map(section).collect()
}

/// As `redis-cli` shows it.
fn shown(reply: &Value) -> String {
    match reply {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => format!("(error) {text}"),
        Value::Integer(number) => format!("(integer) {number}"),
        Value::Bulk(bytes) => format!("\"{}\"", String::from_utf8_lossy(bytes)),
        Value::Null => "(nil)".to_owned(),
        Value::Array(items) if items.is_empty() => "(empty array)".to_owned(),
        Value::Array(items) => {
            let lines = items.iter().zip(1..);
            let lines = lines.map(|(item, number)| format!("{number}) {}", shown(item)));
            lines.collect::<Vec<_>>().join("\n")
        }
        other => format!("{other:?}"),
    }
}

fn run_redis(title: &str, client: &mut Client, block: &str) {
    for exchange in block.split("> ").skip(1) {
        let (line, expected) = exchange.split_once('\n').unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let expected = expected.trim_end();
        assert_eq!(
            shown(&client.call(&words).unwrap()),
            expected,
            "{title}: {line}"
        );
    }
}

/// A query shows the rows that follow it as comments, soon; other statements are done.
fn run_sql(title: &str, sql: &Sql, block: &str) {
    if !block.starts_with("SELECT") {
        return sql.execute(block).unwrap();
    }
    let (query, rows) = block.split_once(";\n").unwrap();
    let expected: Vec<&str> = rows
        .lines()
        .filter_map(|row| row.strip_prefix("-- "))
        .collect();
    assert!(!expected.is_empty(), "{title}: a query without rows");
    let query = format!(
        "SELECT (SELECT string_agg(value, ' | ') FROM json_each_text(row_to_json(q))) FROM ({query}) q"
    );
    process::await_true("the rows are there", LIMIT, || {
        let found = sql.query(&query, &[]).unwrap();
        let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
        found == expected
    })
    .unwrap_or_else(|error| panic!("{title}: {query}: {error}"));
}

fn run(title: &str, blocks: &[Block]) -> usize {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let journal = Redis::start_with(&["--appendonly", "yes"]).unwrap();
    let mut program = Program::stopped(FRESHET, &stack.database, &stack.cache.url(), &[]).unwrap();
    let mut client = None;
    for (language, text) in blocks {
        match language.as_str() {
            "toml" => {
                let text = text.replace("redis://JOURNAL", &journal.url());
                let text = text.replace("redis://REPLICA", "redis://127.0.0.1:1");
                check(title, &text);
                program.configure(&text);
            }
            "redis" => {
                let client = client.get_or_insert_with(|| {
                    program.start_again().unwrap();
                    program.client().unwrap()
                });
                run_redis(title, client, text);
            }
            "sql" => run_sql(title, &sql, text),
            other => panic!("{title}: a block of {other}"),
        }
    }
    blocks.len()
}

/// The configuration has no mistakes.
fn check(title: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("proxy.toml");
    std::fs::write(&file, text).unwrap();
    let checked = Command::new(FRESHET)
        .args(["check-config", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{title}: {said}");
}

#[test]
fn what_the_guide_shows_is_so() {
    let ran: usize = sections()
        .iter()
        .map(|(title, blocks)| run(title, blocks))
        .sum();
    assert!(ran >= 18, "{ran} blocks were run");
}
