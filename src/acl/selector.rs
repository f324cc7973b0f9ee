//! One set of permissions: commands, keys and channels.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::catalogue::{self, CATEGORIES, items};
use crate::command::args::c_text;
use crate::command::glob::{Case, matches};
use crate::command::{Access, Call, ONCE, accessed, flags};

/// What is wrong with a rule; the text follows `Error in ACL SETUSER modifier '...': `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// No such rule.
    #[error("Syntax error")]
    Syntax,
    /// No such command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// A pattern of keys beside `~*`.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not \
         have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    KeysAreFree,
    /// A pattern of channels beside `&*`.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
         not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    ChannelsAreFree,
    /// `+config|get|x`.
    #[error("Allowing first-arg of a subcommand is not supported")]
    ArgumentOfSubcommand,
    /// `<password` that the user does not have.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// `#` without a digest.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    Digest,
}

/// Why a call is refused. Ordered by what Redis tells where selectors disagree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// The argument at this index, a key.
    Key(usize),
    /// The argument at this index, a channel.
    Channel(usize),
}

/// Patterns, or everything.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Names<P> {
    All,
    Only(Vec<P>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Bytes,
    access: Access,
}

/// One set of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    /// By number: the commands that may be run.
    allowed: Vec<bool>,
    /// Whether commands that are yet to come are allowed: `+@all` was the start.
    allows_future: bool,
    /// First arguments with which a command may be run that may not otherwise.
    first_args: BTreeMap<usize, Vec<Bytes>>,
    keys: Names<KeyPattern>,
    channels: Names<Bytes>,
}

impl Selector {
    /// Nothing.
    pub(super) fn nothing() -> Self {
        Self {
            allowed: vec![false; items().len()],
            allows_future: false,
            first_args: BTreeMap::new(),
            keys: Names::Only(Vec::new()),
            channels: Names::Only(Vec::new()),
        }
    }

    /// Whether nothing is refused.
    pub(super) fn is_everything(&self) -> bool {
        self.keys == Names::All
            && self.channels == Names::All
            && self.allows_future
            && self.allowed.iter().all(|allowed| *allowed)
    }

    /// Applies one rule.
    pub(super) fn apply(&mut self, rule: &[u8]) -> Result<(), Mistake> {
        let word = rule.to_ascii_lowercase();
        match &word[..] {
            b"" => {}
            b"allkeys" | b"~*" => self.keys = Names::All,
            b"resetkeys" => self.keys = Names::Only(Vec::new()),
            b"allchannels" | b"&*" => self.channels = Names::All,
            b"resetchannels" => self.channels = Names::Only(Vec::new()),
            b"allcommands" | b"+@all" => self.set_all(Grant::Allow),
            b"nocommands" | b"-@all" => self.set_all(Grant::Refuse),
            _ => match rule {
                [b'~' | b'%', ..] => self.add_keys(rule)?,
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [b'+', b'@', category @ ..] => self.set_category(category, Grant::Allow)?,
                [b'-', b'@', category @ ..] => self.set_category(category, Grant::Refuse)?,
                [b'+', name @ ..] => self.allow(name)?,
                [b'-', name @ ..] => {
                    let number = catalogue::find(name).ok_or(Mistake::Unknown)?;
                    self.set(number, Grant::Refuse);
                }
                _ => return Err(Mistake::Syntax),
            },
        }
        Ok(())
    }

    fn set_all(&mut self, grant: Grant) {
        self.allowed.fill(grant == Grant::Allow);
        self.allows_future = grant == Grant::Allow;
        self.first_args.clear();
    }

    /// The command and its subcommands.
    fn set(&mut self, number: usize, grant: Grant) {
        for number in [number]
            .into_iter()
            .chain(items()[number].subcommands.clone())
        {
            self.allowed[number] = grant == Grant::Allow;
            self.first_args.remove(&number);
        }
    }

    fn set_category(&mut self, category: &[u8], grant: Grant) -> Result<(), Mistake> {
        for number in catalogue::in_category(category).ok_or(Mistake::Unknown)? {
            self.set(number, grant);
        }
        Ok(())
    }

    fn allow(&mut self, name: &[u8]) -> Result<(), Mistake> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let number = catalogue::find(name).ok_or(Mistake::Unknown)?;
            self.set(number, Grant::Allow);
            return Ok(());
        };
        let (command, argument) = (&name[..bar], &name[bar + 1..]);
        let number = catalogue::find(command).ok_or(Mistake::Unknown)?;
        let item = &items()[number];
        if item.command.subcommand().is_some() {
            return Err(Mistake::ArgumentOfSubcommand);
        }
        if argument.is_empty() {
            return Err(Mistake::Syntax);
        }
        if !item.subcommands.is_empty() {
            let number = catalogue::find(name).ok_or(Mistake::Unknown)?;
            self.set(number, Grant::Allow);
            return Ok(());
        }
        let known = self.first_args.entry(number).or_default();
        if !known.iter().any(|it| it.eq_ignore_ascii_case(argument)) {
            known.push(Bytes::copy_from_slice(argument));
        }
        Ok(())
    }

    fn add_keys(&mut self, rule: &[u8]) -> Result<(), Mistake> {
        let Names::Only(patterns) = &mut self.keys else {
            return Err(Mistake::KeysAreFree);
        };
        let (access, pattern) = key_rule(rule).ok_or(Mistake::Syntax)?;
        if has_spaces(pattern) {
            return Err(Mistake::Syntax);
        }
        match patterns.iter_mut().find(|known| known.pattern == pattern) {
            Some(known) => known.access = known.access.with(access),
            None => patterns.push(KeyPattern {
                pattern: Bytes::copy_from_slice(pattern),
                access,
            }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), Mistake> {
        let Names::Only(patterns) = &mut self.channels else {
            return Err(Mistake::ChannelsAreFree);
        };
        if has_spaces(pattern) {
            return Err(Mistake::Syntax);
        }
        if !patterns.iter().any(|known| known == pattern) {
            patterns.push(Bytes::copy_from_slice(pattern));
        }
        Ok(())
    }

    /// Whether this set permits `call`.
    pub(super) fn judge(&self, call: &Call) -> Result<(), Denied> {
        if !self.may_run(call) {
            return Err(Denied::Command);
        }
        if let Names::Only(patterns) = &self.keys {
            for (index, wanted) in accessed(call) {
                let key = call.request.arg(index);
                let fits = |it: &KeyPattern| {
                    it.access.includes(wanted) && matches(&it.pattern, key, Case::Sensitive)
                };
                if !patterns.iter().any(fits) {
                    return Err(Denied::Key(index));
                }
            }
        }
        if let Names::Only(patterns) = &self.channels {
            for (index, kind) in channels(call) {
                let channel = call.request.arg(index);
                let fits = |it: &Bytes| match kind {
                    Channel::Name => matches(it, channel, Case::Sensitive),
                    Channel::Pattern => it == channel,
                };
                if !patterns.iter().any(fits) {
                    return Err(Denied::Channel(index));
                }
            }
        }
        Ok(())
    }

    fn may_run(&self, call: &Call) -> bool {
        // What it makes once is judged by itself.
        if std::ptr::eq(call.command, &ONCE) {
            return true;
        }
        let number = catalogue::number(call.command);
        if self.allowed[number] || call.command.flags.has(flags::NO_AUTH) {
            return true;
        }
        let Some(first) = self.first_args.get(&number) else {
            return false;
        };
        call.request.len() > 1 && {
            let given = c_text(call.request.arg(1));
            first.iter().any(|it| it.eq_ignore_ascii_case(given))
        }
    }

    /// Its rules for commands, found as Redis 7.0 finds them: the categories that
    /// fit best, then single commands.
    pub(super) fn command_rules(&self) -> String {
        let (start, sign, inverse) = match self.allows_future {
            true => (Grant::Allow, '-', Grant::Allow),
            false => (Grant::Refuse, '+', Grant::Refuse),
        };
        let mut text = String::from(if self.allows_future { "+@all" } else { "-@all" });
        let mut told = Self::nothing();
        told.set_all(start);
        let mut left = self.clone();
        let mut applied = [false; CATEGORIES.len()];
        while let Some(best) = left.best_category(&applied) {
            let name = CATEGORIES[best];
            text.push_str(&format!(" {sign}@{name}"));
            let done = if sign == '+' {
                Grant::Allow
            } else {
                Grant::Refuse
            };
            for (selector, grant) in [(&mut told, done), (&mut left, inverse)] {
                for number in catalogue::in_category(name.as_bytes())
                    .into_iter()
                    .flatten()
                {
                    selector.set(number, grant);
                }
            }
            applied[best] = true;
        }
        for (number, item) in items().iter().enumerate() {
            let name = item.command.name.to_ascii_lowercase();
            let is_allowed = self.allowed[number];
            if is_allowed != told.allowed[number] {
                text.push_str(&format!(" {}{name}", if is_allowed { '+' } else { '-' }));
                told.set(
                    number,
                    if is_allowed {
                        Grant::Allow
                    } else {
                        Grant::Refuse
                    },
                );
            }
            let first = self.first_args.get(&number).filter(|_| !is_allowed);
            for argument in first.into_iter().flatten() {
                text.push_str(&format!(" +{name}|{}", String::from_utf8_lossy(argument)));
            }
        }
        text
    }

    /// The category with the fewest commands that differ, among those with more
    /// that are the same.
    fn best_category(&self, applied: &[bool]) -> Option<usize> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, name) in CATEGORIES.iter().enumerate().filter(|(n, _)| !applied[*n]) {
            let (mut on, mut off) = (0, 0);
            for number in catalogue::in_category(name.as_bytes())
                .into_iter()
                .flatten()
            {
                *(if self.allowed[number] {
                    &mut on
                } else {
                    &mut off
                }) += 1;
            }
            let (diff, same) = if self.allows_future {
                (on, off)
            } else {
                (off, on)
            };
            let is_better =
                best.is_none_or(|(_, least, most)| diff < least || (diff == least && same > most));
            if same > diff && is_better {
                best = Some((index, diff, same));
            }
        }
        best.map(|(index, ..)| index)
    }

    /// Its rules for keys.
    pub(super) fn key_rules(&self) -> String {
        match &self.keys {
            Names::All => "~*".to_owned(),
            Names::Only(patterns) => {
                let rules = patterns.iter().map(|it| {
                    let pattern = String::from_utf8_lossy(&it.pattern);
                    format!("{}{pattern}", it.access.prefix())
                });
                rules.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Its rules for channels.
    pub(super) fn channel_rules(&self) -> String {
        match &self.channels {
            Names::All => "&*".to_owned(),
            Names::Only(patterns) => {
                let rules = patterns.iter();
                let rules = rules.map(|it| format!("&{}", String::from_utf8_lossy(it)));
                rules.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// All of them, as a line of `ACL LIST` has them.
    pub(super) fn line(&self) -> String {
        let keys = self.key_rules();
        let channels = match &self.channels {
            Names::All => "&*".to_owned(),
            Names::Only(_) => format!("resetchannels {}", self.channel_rules()),
        };
        let parts = [keys.as_str(), channels.trim_end(), &self.command_rules()].map(str::to_owned);
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(" ")
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    Allow,
    Refuse,
}

/// How the argument of a command names channels.
#[derive(Clone, Copy)]
enum Channel {
    Name,
    Pattern,
}

fn channels(call: &Call) -> Vec<(usize, Channel)> {
    let count = call.request.len();
    match call.command.name {
        "PUBLISH" | "SPUBLISH" => vec![(1, Channel::Name)],
        "SUBSCRIBE" | "SSUBSCRIBE" => (1..count).map(|n| (n, Channel::Name)).collect(),
        "PSUBSCRIBE" => (1..count).map(|n| (n, Channel::Pattern)).collect(),
        _ => Vec::new(),
    }
}

/// `~pattern`, `%R~pattern`, `%W~pattern`, `%RW~pattern`.
fn key_rule(rule: &[u8]) -> Option<(Access, &[u8])> {
    if let [b'~', pattern @ ..] = rule {
        return Some((Access::BOTH, pattern));
    }
    let mut access = Access::NONE;
    for (at, byte) in rule.iter().enumerate().skip(1) {
        match byte.to_ascii_uppercase() {
            b'R' if !access.includes(Access::READ) => access = access.with(Access::READ),
            b'W' if !access.includes(Access::WRITE) => access = access.with(Access::WRITE),
            b'~' if access != Access::NONE => return Some((access, &rule[at + 1..])),
            _ => return None,
        }
    }
    None
}

fn has_spaces(pattern: &[u8]) -> bool {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b);
    pattern.iter().any(is_space)
}
