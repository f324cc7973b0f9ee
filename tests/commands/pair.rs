//! One connection to each of the two, and the comparison of what they answer.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};

use super::comparison::rule;
use super::generator::{self, Argument, Command};
use crate::patterns::{hyperloglog, open, rdb, stream};
use crate::support::client::{Client, Value, decode, elements, show};

/// A scan of so few elements ends within so many calls.
const SCAN_CALLS: usize = 1000;

/// A command as it is sent.
type Arguments = Vec<Vec<u8>>;

/// What is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// Freshet.
    Freshet,
    /// Another Redis, to see that the comparison finds no difference where there is none.
    Redis,
}

/// Commands before which the judge is helped, so that two Redis would differ.
const HELPED: &[&str] = &["PF", "DBSIZE", "MEMORY", "SORT"];

/// A connection to the server that is tested, and one to the Redis that knows the answers.
pub struct Pair {
    /// What is tested.
    pub tested: Tested,
    /// The server that is tested.
    pub ours: Client,
    /// The judge.
    pub theirs: Client,
}

/// The bytes of commands; a payload is what `DUMP` of the judge last said.
pub fn resolve(commands: &[Command], payload: Option<&[u8]>) -> Vec<Arguments> {
    let bytes = |argument: &Argument| match argument {
        Argument::Bytes(bytes) => bytes.clone(),
        Argument::Payload => payload.unwrap_or(b"nonsense").to_vec(),
    };
    let arguments = |command: &Command| command.iter().map(bytes).collect();
    commands.iter().map(arguments).collect()
}

/// The name of a command, with that of its subcommand.
fn name(command: &[Vec<u8>]) -> String {
    let upper = |word: &[u8]| String::from_utf8_lossy(word).to_ascii_uppercase();
    let name = upper(&command[0]);
    match (name.as_str(), command.get(1)) {
        ("OBJECT" | "XINFO" | "XGROUP" | "MEMORY", Some(word)) => format!("{name}|{}", upper(word)),
        _ => name,
    }
}

impl Pair {
    /// Sends the commands to both and compares all replies; keeps what `DUMP` says.
    pub fn compare(&mut self, commands: &[Arguments], payload: &mut Option<Vec<u8>>) -> Result<()> {
        let decided = self.decided(commands)?;
        self.ours.send_all(&decided)?;
        let mut replies = Vec::new();
        for command in &decided {
            let reply = self.ours.read_with_bytes();
            replies.push(
                reply
                    .with_context(|| format!("no reply to {}", show(command)))?
                    .1,
            );
        }
        for (command, reply) in decided.iter().zip(&replies) {
            self.judge(command, reply, payload)?;
        }
        Ok(())
    }

    /// The same in a `MULTI` block. The judge runs the commands one by one (nobody else
    /// has a turn meanwhile), so that each reply can be compared as outside a block.
    pub fn compare_blocks(
        &mut self,
        commands: &[Arguments],
        payload: &mut Option<Vec<u8>>,
    ) -> Result<()> {
        let decided = self.decided(commands)?;
        let mut block = vec![vec![b"MULTI".to_vec()]];
        block.extend(decided.iter().cloned());
        self.theirs.send_all(&block)?;
        block.push(vec![b"EXEC".to_vec()]);
        self.ours.send_all(&block)?;
        let mut is_refused = false;
        for command in &block[..=decided.len()] {
            let ours = self.ours.read_with_bytes();
            let ours = ours.with_context(|| format!("no reply to {}", show(command)))?;
            let theirs = self.theirs.read_with_bytes()?;
            is_refused |= ours.0.error().is_some();
            if !is_own_limit(&ours.0) {
                ensure_equal(command, "queued", &ours.1, &theirs.1)?;
            }
        }
        self.theirs.ok(&["DISCARD"])?;
        let replies = self.ours.read_with_bytes().context("no reply to EXEC")?.1;
        if is_refused {
            let abort = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
            return ensure_equal(&["EXEC"], "refused", &replies, abort);
        }
        let all = elements(&replies).with_context(|| show(&[&replies]))?;
        let is_each = all.len() == decided.len();
        ensure!(is_each, "EXEC replied {}", show(&[&replies]));
        for (command, reply) in decided.iter().zip(all) {
            self.judge(command, reply, payload).context("in a block")?;
        }
        Ok(())
    }

    /// The commands whose answer Redis does not leave open, as far as can be told before.
    fn decided(&mut self, commands: &[Arguments]) -> Result<Vec<Arguments>> {
        let is_alone = commands.len() == 1;
        let mut decided = Vec::new();
        for command in commands {
            let name = name(command);
            let is_open = match is_alone {
                true => open::is_open(&name, command, &mut self.theirs)?,
                false => open::may_be_open(&name, command),
            };
            let is_helped = HELPED.iter().any(|helped| name.starts_with(helped));
            if !is_open && (self.tested == Tested::Freshet || !is_helped) {
                decided.push(command.clone());
            }
        }
        Ok(decided)
    }

    /// Asks the judge the same, and compares.
    fn judge(
        &mut self,
        command: &Arguments,
        ours: &[u8],
        payload: &mut Option<Vec<u8>>,
    ) -> Result<()> {
        let name = name(command);
        let reply = decode(ours)?;
        if is_own_limit(&reply) {
            return Ok(());
        }
        if let Some(choice) = open::same_choice(&name, command, &reply) {
            let taken = self.theirs.integer(&choice)?;
            ensure!(
                taken as usize == choice.len() - 2,
                "{}\n chose what is not there: {reply:?}",
                show(command)
            );
            return Ok(());
        }
        if name.starts_with("SORT") {
            open::reset_errno(&mut self.theirs)?;
        }
        let theirs = self.their_reply(&name, command, &reply)?;
        let value = decode(&theirs)?;
        if let ("DUMP", Value::Bulk(dumped), Value::Bulk(ours)) = (&*name, &value, &reply) {
            *payload = Some(dumped.clone());
            if !rdb::is_of_string(ours) && !rdb::is_of_string(dumped) {
                return Ok(());
            }
        }
        let agree = rule(command).agrees((&reply, ours), (&value, &theirs))
            || open::equal_but_for_choice(&name, ours, &theirs)
            || open::is_a_page(&name, ours, &theirs)
            || open::equal_but_for_order(&name, command, ours, &theirs)
            || stream::equal_but_for_times(&name, ours, &theirs);
        if agree {
            return Ok(());
        }
        ensure_equal(command, "", ours, &theirs)
    }

    fn their_reply(&mut self, name: &str, command: &Arguments, ours: &Value) -> Result<Vec<u8>> {
        if open::BLOCKING.contains(&name) {
            return open::without_waiting(&mut self.theirs, command);
        }
        if hyperloglog::is_damaged(ours) {
            return hyperloglog::sent_without_effect(name, command, &mut self.theirs);
        }
        if name == "DBSIZE" {
            // Redis counts keys whose end has come until somebody looks at them.
            let keys = generator::keys();
            let exists = [b"EXISTS".to_vec()].into_iter().chain(keys);
            self.theirs.integer(&exists.collect::<Vec<_>>())?;
        }
        if let ("MEMORY|USAGE", Some(key)) = (name, command.get(2)) {
            // Redis counts a key whose end has come until somebody looks at it.
            self.theirs.ok(&[&b"EXISTS"[..], key])?;
        }
        let sent = stream::as_repeated(name, command, ours);
        self.theirs.call_with_bytes(&open::as_sent(name, &sent))
    }

    /// Compares all that a scan finds; `head` stands before the cursor, `words` behind it.
    pub fn compare_scans(&mut self, head: &[Vec<u8>], words: &[String]) -> Result<()> {
        let theirs = scan(&mut self.theirs, head, words)?;
        let ours = scan(&mut self.ours, head, words)?;
        if ours != theirs {
            bail!(
                "{} {words:?}\n  Freshet: {ours:?}\n  Redis:   {theirs:?}",
                show(head)
            );
        }
        Ok(())
    }

    /// Compares what these keys of the database hold, and when they end.
    pub fn compare_contents(&mut self, keys: &[Vec<u8>]) -> Result<()> {
        for key in keys {
            let kind = self.theirs.text(&[&b"TYPE"[..], key])?;
            let words: &[&str] = match kind.as_str() {
                "hash" => &["HGETALL", "k"],
                "list" => &["LRANGE", "k", "0", "-1"],
                "set" => &["SMEMBERS", "k"],
                "zset" => &["ZRANGE", "k", "0", "-1", "WITHSCORES"],
                "stream" => &["XINFO", "STREAM", "k", "FULL", "COUNT", "0"],
                _ => &["GET", "k"],
            };
            let named = |word: &&str| match *word {
                "k" => key.clone(),
                word => word.as_bytes().to_vec(),
            };
            let shown = words.iter().map(named).collect();
            let ends = vec![b"PEXPIRETIME".to_vec(), key.clone()];
            self.compare(&[shown, ends], &mut None)?;
        }
        Ok(())
    }
}

/// Whether this refuses what Redis would do, and so nothing was changed.
fn is_own_limit(reply: &Value) -> bool {
    let limits = ["ERR the key is longer than", "ERR Freshet does not serve"];
    let error = reply.error().unwrap_or_default();
    limits.iter().any(|limit| error.starts_with(limit))
}

fn ensure_equal<A: AsRef<[u8]>>(
    command: &[A],
    what: &str,
    ours: &[u8],
    theirs: &[u8],
) -> Result<()> {
    let shown = |bytes: &[u8]| bytes[..bytes.len().min(2000)].escape_ascii().to_string();
    ensure!(
        ours == theirs,
        "{} {what}\n  Freshet: {}\n  Redis:   {}",
        show(command),
        shown(ours),
        shown(theirs)
    );
    Ok(())
}

/// What a scan finds, or the error that it is answered with.
fn scan(
    client: &mut Client,
    head: &[Vec<u8>],
    words: &[String],
) -> Result<Result<BTreeSet<Vec<Vec<u8>>>, String>> {
    let size = if head[0].ends_with(b"HSCAN") || head[0].ends_with(b"ZSCAN") {
        2
    } else {
        1
    };
    let mut found = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    for _ in 0..SCAN_CALLS {
        let mut command = head.to_vec();
        command.push(cursor);
        command.extend(words.iter().map(|word| word.clone().into_bytes()));
        let reply = client.call(&command)?;
        if let Value::Error(text) = reply {
            return Ok(Err(text));
        }
        let [Value::Bulk(next), elements] = reply.items() else {
            bail!("{} replied {reply:?}", show(head));
        };
        found.extend(open::flat(elements).chunks(size).map(<[_]>::to_vec));
        cursor = next.clone();
        if cursor == b"0" {
            return Ok(Ok(found));
        }
    }
    bail!("{} {words:?} does not end", show(head))
}
