//! A script as it was sent: its name, and what its first line says of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::model::Reply;

/// What a script says of itself in its first line (`#!lua flags=no-writes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// It writes nothing, and a write of it is refused.
    pub no_writes: bool,
}

/// The flags of Redis 7.0. Of the others Freshet needs no word: memory is never full, no
/// state is stale, and there are no slots.
const FLAGS: [&[u8]; 5] = [
    b"no-writes",
    b"allow-oom",
    b"allow-stale",
    b"no-cluster",
    b"allow-cross-slot-keys",
];

/// The flags in a list of words.
pub fn parse_flags<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Flags, &'a [u8]> {
    let mut flags = Flags::default();
    for word in words {
        if !FLAGS.contains(&word) {
            return Err(word);
        }
        flags.no_writes |= word == b"no-writes";
    }
    Ok(flags)
}

/// A script: what was sent, under the SHA-1 of it.
#[derive(Debug)]
pub struct Script {
    /// 40 lower-case hexadecimal digits.
    pub sha: Arc<str>,
    /// All that was sent.
    pub body: Bytes,
    /// Where Lua begins: behind a first line that is not Lua.
    start: usize,
    /// What it says of itself; `None` without such a line.
    pub flags: Option<Flags>,
    /// Runs of it took long, or wanted what the commit lane does not have.
    prefers_aside: AtomicBool,
}

/// The SHA-1 of `bytes` in lower-case hexadecimal digits.
pub fn sha1_hex(bytes: &[u8]) -> String {
    let digest = Sha1::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Script {
    /// The script that `body` is; it is not compiled here.
    ///
    /// # Errors
    /// What Redis says of a first line that it does not understand.
    pub fn new(body: &[u8]) -> Result<Self, Reply> {
        let (start, flags) = match body.starts_with(b"#!") {
            true => {
                let (start, flags) = first_line(body)?;
                (start, Some(flags))
            }
            false => (0, None),
        };
        Ok(Self {
            sha: Arc::from(sha1_hex(body)),
            body: Bytes::copy_from_slice(body),
            start,
            flags,
            prefers_aside: AtomicBool::new(false),
        })
    }

    /// Whether it is better run beside the commit lane, going by earlier runs.
    pub fn prefers_aside(&self) -> bool {
        self.prefers_aside.load(Ordering::Relaxed)
    }

    /// Notes what a run showed of that.
    pub fn prefer_aside(&self, prefers: bool) {
        self.prefers_aside.store(prefers, Ordering::Relaxed);
    }

    /// What Lua compiles; the line that is not Lua is left empty, so that lines are counted from it.
    pub fn lua(&self) -> &[u8] {
        &self.body[self.start..]
    }
}

/// Where the line ends, and what it says: `#!lua flags=a,b`.
fn first_line(body: &[u8]) -> Result<(usize, Flags), Reply> {
    let Some(end) = body.iter().position(|byte| *byte == b'\n') else {
        return Err(Reply::error("ERR Invalid script shebang"));
    };
    let mut words = body[..end]
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty());
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(with("ERR Unexpected engine in script shebang: ", engine));
    }
    let mut flags = Flags::default();
    for word in words {
        let Some(list) = word.strip_prefix(b"flags=") else {
            return Err(with("ERR Unknown lua shebang option: ", word));
        };
        let listed = list
            .split(|byte| *byte == b',')
            .filter(|word| !word.is_empty());
        flags = parse_flags(listed)
            .map_err(|word| with("ERR Unexpected flag in script shebang: ", word))?;
    }
    Ok((end, flags))
}

fn with(text: &str, word: &[u8]) -> Reply {
    let mut text = text.as_bytes().to_vec();
    text.extend_from_slice(word);
    Reply::Error(Bytes::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_understood_as_by_redis() {
        let flags = |body: &str| Script::new(body.as_bytes()).map(|script| script.flags);
        assert_eq!(flags("return 1"), Ok(None));
        assert_eq!(flags("#!lua\nreturn 1"), Ok(Some(Flags::default())));
        let reads = Flags { no_writes: true };
        assert_eq!(
            flags("#!lua flags=no-writes,allow-stale\n"),
            Ok(Some(reads))
        );
        for (body, text) in [
            ("#!lua", "ERR Invalid script shebang"),
            (
                "#!python\n",
                "ERR Unexpected engine in script shebang: #!python",
            ),
            ("#!lua a=b\n", "ERR Unknown lua shebang option: a=b"),
            (
                "#!lua flags=x\n",
                "ERR Unexpected flag in script shebang: x",
            ),
        ] {
            assert_eq!(flags(body), Err(Reply::error(text)), "{body}");
        }
    }

    #[test]
    fn a_script_is_known_by_its_sha1() {
        let script = Script::new(b"return 1").unwrap();
        assert_eq!(&*script.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let named = Script::new(b"#!lua\nreturn 1").unwrap();
        assert_eq!(named.lua(), b"\nreturn 1");
    }
}
