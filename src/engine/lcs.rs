//! `LCS`: the longest common subsequence of two strings.

use bytes::Bytes;

use super::dispatch::Run;
use super::{Refusal, STRING_MAX};
use crate::command::args;
use crate::model::{Reply, Request};

/// What is asked of the subsequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    Text,
    Length,
    Ranges {
        /// Shorter matches are left out.
        match_len_min: i64,
        with_len: bool,
    },
}

pub(super) fn lcs(run: &mut Run<'_>) -> Result<Reply, Refusal> {
    let not_strings = |refusal| match refusal {
        Refusal::WrongType => Refusal::Other("ERR The specified keys must contain string values"),
        other => other,
    };
    let a = run.string(&run.key(1)).map_err(not_strings)?;
    let b = run.string(&run.key(2)).map_err(not_strings)?;
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let ask = ask_of(&run.call.request)?;
    let table = Table::build(&a, &b)?;
    Ok(match ask {
        Ask::Length => Reply::Integer(i64::from(table.at(a.len(), b.len()))),
        Ask::Text => Reply::Bulk(table.text(&a, &b)),
        Ask::Ranges {
            match_len_min,
            with_len,
        } => {
            let mut ranges = table.ranges(&a, &b);
            ranges.retain(|range| match_len_min <= i64::from(range.len()));
            let shown = ranges.iter().map(|range| range.reply(with_len)).collect();
            Reply::Map(vec![
                (Reply::bulk("matches"), Reply::Array(shown)),
                (
                    Reply::bulk("len"),
                    Reply::Integer(i64::from(table.at(a.len(), b.len()))),
                ),
            ])
        }
    })
}

fn ask_of(request: &Request) -> Result<Ask, Refusal> {
    let (mut ranges, mut length, mut with_len, mut match_len_min) = (false, false, false, 0);
    let mut index = 3;
    while index < request.len() {
        let arg = request.arg(index);
        if args::is_word(arg, "IDX") {
            ranges = true;
        } else if args::is_word(arg, "LEN") {
            length = true;
        } else if args::is_word(arg, "WITHMATCHLEN") {
            with_len = true;
        } else if args::is_word(arg, "MINMATCHLEN") && index + 1 < request.len() {
            index += 1;
            match_len_min = args::integer(request.arg(index)).ok_or(Refusal::NotInteger)?;
        } else {
            return Err(Refusal::Syntax);
        }
        index += 1;
    }
    match (ranges, length) {
        (true, true) => Err(Refusal::Other(
            "ERR If you want both the length and indexes, please just use IDX.",
        )),
        (true, false) => Ok(Ask::Ranges {
            match_len_min,
            with_len,
        }),
        (false, true) => Ok(Ask::Length),
        (false, false) => Ok(Ask::Text),
    }
}

/// The length of the longest common subsequence of every pair of prefixes.
struct Table {
    lengths: Vec<u32>,
    width: usize,
}

/// A stretch that both strings share, by inclusive positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Match {
    a: (u32, u32),
    b: (u32, u32),
}

impl Match {
    fn len(self) -> u32 {
        self.a.1 - self.a.0 + 1
    }

    fn reply(self, with_len: bool) -> Reply {
        let pair = |(first, last): (u32, u32)| {
            Reply::Array(vec![
                Reply::Integer(i64::from(first)),
                Reply::Integer(i64::from(last)),
            ])
        };
        let mut parts = vec![pair(self.a), pair(self.b)];
        if with_len {
            parts.push(Reply::Integer(i64::from(self.len())));
        }
        Reply::Array(parts)
    }
}

impl Table {
    /// Fills the table; refused, as Redis does, where it would take more than
    /// the longest string.
    fn build(a: &[u8], b: &[u8]) -> Result<Self, Refusal> {
        let width = b.len() + 1;
        let cells = (a.len() as u64 + 1) * (width as u64);
        if cells * size_of::<u32>() as u64 > STRING_MAX as u64 {
            return Err(Refusal::Other(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut lengths = vec![0u32; cells as usize];
        for i in 1..=a.len() {
            let (above, row) = lengths.split_at_mut(i * width);
            let above = &above[(i - 1) * width..];
            for j in 1..width {
                row[j] = if a[i - 1] == b[j - 1] {
                    above[j - 1] + 1
                } else {
                    above[j].max(row[j - 1])
                };
            }
        }
        Ok(Self { lengths, width })
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.lengths[i * self.width + j]
    }

    /// Walks back from the ends; `visit` gets the positions behind each equal
    /// pair, and `None` where the strings differ.
    fn walk(&self, a: &[u8], b: &[u8], mut visit: impl FnMut(Option<(usize, usize)>)) {
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                i -= 1;
                j -= 1;
                visit(Some((i, j)));
            } else {
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1;
                } else {
                    j -= 1;
                }
                visit(None);
            }
        }
    }

    fn text(&self, a: &[u8], b: &[u8]) -> Bytes {
        let mut text = Vec::with_capacity(self.at(a.len(), b.len()) as usize);
        self.walk(a, b, |pair| text.extend(pair.map(|(i, _)| a[i])));
        text.reverse();
        Bytes::from(text)
    }

    /// The matches from the last to the first, exactly as Redis finds them.
    fn ranges(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut found = Vec::new();
        let mut open: Option<Match> = None;
        self.walk(a, b, |pair| {
            let Some((i, j)) = pair else {
                found.extend(open.take());
                return;
            };
            // A table of at most 512 MB keeps both positions below 2^32.
            let (i, j) = (i as u32, j as u32);
            match &mut open {
                None => {
                    open = Some(Match {
                        a: (i, i),
                        b: (j, j),
                    });
                }
                Some(range) => {
                    range.a.0 = i;
                    range.b.0 = j;
                }
            }
            if i == 0 || j == 0 {
                found.extend(open.take());
            }
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatch::testing::Session;

    #[test]
    fn as_documented_by_redis() {
        let mut s = Session::default();
        for (line, reply) in [
            ("MSET key1 ohmytext key2 mynewtext", "OK"),
            ("LCS key1 key2", "\"mytext\""),
            ("LCS key1 key2 LEN", ":6"),
            (
                "LCS key1 key2 IDX",
                "{\"matches\"=[[[:4 :7] [:5 :8]] [[:2 :3] [:0 :1]]] \"len\"=:6}",
            ),
            (
                "LCS key1 key2 IDX MINMATCHLEN 4 WITHMATCHLEN",
                "{\"matches\"=[[[:4 :7] [:5 :8] :4]] \"len\"=:6}",
            ),
            ("LCS key1 none", "\"\""),
            ("LCS key1 none IDX", "{\"matches\"=[] \"len\"=:0}"),
            ("LCS key1 key2 MINMATCHLEN", "-ERR syntax error"),
            (
                "LCS key1 key2 LEN IDX",
                "-ERR If you want both the length and indexes, please just use IDX.",
            ),
        ] {
            assert_eq!(s.text(line), reply, "{line}");
        }
    }

    #[test]
    fn too_big_a_table_is_refused() {
        let mut s = Session::default();
        let long = "x".repeat(12_000);
        s.run(&["MSET", "a", &long, "b", &long]);
        assert_eq!(
            s.text("LCS a b"),
            "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
        );
    }
}
