//! Which strategy fits which keys, by what clients do with them: `freshet advise`.

mod monitor;
mod pattern;
mod tally;
mod verdict;

pub use tally::Sample;
pub use verdict::Advice;

use std::fmt::Write;
use std::io::BufRead;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cache::{CacheError, Link, LinkOptions};
use crate::model::{Db, Protocol, Request};

/// A longer line is not looked at.
const LINE_MAX: usize = 1 << 20;

impl Sample {
    /// Counts the command of a line of `MONITOR`; whether there was one.
    pub fn note_line(&mut self, line: &[u8]) -> bool {
        let ran = monitor::parse(line.trim_ascii_end());
        ran.inspect(|ran| self.note(ran)).is_some()
    }

    /// Counts the lines of a log of `MONITOR`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn note_log(&mut self, log: impl BufRead) -> std::io::Result<()> {
        for line in log.split(b'\n') {
            self.note_line(&line?);
        }
        Ok(())
    }

    /// Counts what a Redis runs for so long.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn note_live(
        &mut self,
        options: &LinkOptions,
        time: Duration,
    ) -> Result<(), CacheError> {
        let mut link = Link::connect(options, Db::default(), Protocol::Resp2).await?;
        let lost = |error: std::io::Error| CacheError::Lost(error.to_string());
        let request = Request::from_args(&["MONITOR"]);
        link.writer.write_all(request.raw()).await.map_err(lost)?;
        link.writer.flush().await.map_err(lost)?;
        let end = tokio::time::Instant::now() + time;
        let mut received = Vec::new();
        while let Ok(read) = tokio::time::timeout_at(end, link.reader.read_buf(&mut received)).await
        {
            if read.map_err(lost)? == 0 {
                return Err(CacheError::Lost("it ended the connection".to_owned()));
            }
            let mut from = 0;
            while let Some(length) = received[from..].iter().position(|&byte| byte == b'\n') {
                let line = &received[from..from + length];
                if line.starts_with(b"-") {
                    let text = String::from_utf8_lossy(&line[1..]).trim_end().to_owned();
                    return Err(CacheError::Lost(text));
                }
                self.note_line(line);
                from += length + 1;
            }
            received.drain(..from);
            if received.len() > LINE_MAX {
                received.clear();
            }
        }
        Ok(())
    }

    /// What fits each pattern, those used most first.
    pub fn advise(self) -> Vec<Advice> {
        let seconds = self.seconds();
        let tallies = self.tallies().into_iter();
        let advice = tallies.map(|(pattern, tally)| Advice::on(pattern, &tally, seconds));
        let mut all: Vec<Advice> = advice.collect();
        let use_of = |one: &Advice| one.reads_per_second + one.writes_per_second;
        all.sort_by(|one, other| use_of(other).total_cmp(&use_of(one)));
        all
    }
}

/// The advice for people: what was seen of each pattern, and routes for `proxy.toml`.
pub fn report(all: &[Advice]) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    for one in all {
        let _ = writeln!(
            text,
            "# {}: {} keys, {:.1} reads/s, {:.1} writes/s of {} bytes{}",
            one.pattern,
            one.keys,
            one.reads_per_second,
            one.writes_per_second,
            one.bytes_per_write,
            match one.life_seconds {
                0 => String::new(),
                life => format!(", a life of up to {life} s"),
            }
        );
        let _ = writeln!(text, "#   {}: {}", one.strategy, one.reason);
    }
    let mut routes: Vec<&Advice> = all.iter().filter(|one| one.strategy != "atomic").collect();
    // The first that matches counts: what is more exact stands before what is less.
    routes.sort_by_key(|one| {
        let literal = one.pattern.find('*').unwrap_or(one.pattern.len());
        (usize::MAX - literal, usize::MAX - one.pattern.len())
    });
    if routes.iter().any(|one| one.strategy == "write-behind") {
        let _ = writeln!(
            text,
            "\n[write_behind]\nurl = \"redis://127.0.0.1:6390\"   # a Redis of its own that persists"
        );
    }
    for one in routes {
        let (pattern, strategy) = (&one.pattern, one.strategy);
        let pattern = toml::Value::from(pattern.as_str());
        let _ = write!(
            text,
            "\n[[route]]\nmatch = {pattern}\nstrategy = \"{strategy}\"\n"
        );
    }
    text
}
