//! All commands and subcommands with a number each, and the categories they are in.

use std::sync::LazyLock;

use ahash::AHashMap;

use crate::command::{Command, TABLE, docs};

/// The categories in Redis's order.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// A command as rules see it.
pub(super) struct Item {
    pub(super) command: &'static Command,
    /// Bit n: it is in `CATEGORIES[n]`.
    categories: u32,
    /// The numbers of its subcommands.
    pub(super) subcommands: std::ops::Range<usize>,
}

struct Catalogue {
    items: Vec<Item>,
    numbers: AHashMap<&'static str, usize>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let mut items = Vec::new();
    for command in TABLE {
        let first = items.len() + 1;
        items.push(item(command, first..first + command.subcommands.len()));
        items.extend(command.subcommands.iter().map(|sub| item(sub, 0..0)));
    }
    let numbers = items.iter().enumerate();
    let numbers = numbers.map(|(n, item)| (item.command.name, n)).collect();
    Catalogue { items, numbers }
});

fn item(command: &'static Command, subcommands: std::ops::Range<usize>) -> Item {
    // The one command that is not of Redis 7.0 is treated as its neighbour.
    let name = match command.name {
        "CLIENT|SETINFO" => "CLIENT|SETNAME",
        name => name,
    };
    let bits = CATEGORIES.iter().enumerate();
    let categories = bits
        .filter(|(_, category)| docs::is_in_category(name, category))
        .fold(0, |all, (bit, _)| all | (1 << bit));
    Item {
        command,
        categories,
        subcommands,
    }
}

/// All commands; the index is the command's number.
pub(super) fn items() -> &'static [Item] {
    &CATALOGUE.items
}

/// The number of a command of the table.
pub(super) fn number(command: &Command) -> usize {
    CATALOGUE.numbers.get(command.name).copied().unwrap_or(0)
}

/// The number of `name`, in any case of letters; subcommands as `family|sub`.
pub(super) fn find(name: &[u8]) -> Option<usize> {
    let name = std::str::from_utf8(name).ok()?.to_ascii_uppercase();
    CATALOGUE.numbers.get(name.as_str()).copied()
}

/// The numbers of the commands in a category, which `all` is not.
pub(super) fn in_category(category: &[u8]) -> Option<impl Iterator<Item = usize>> {
    let is_it = |name: &str| name.as_bytes().eq_ignore_ascii_case(category);
    let bit = CATEGORIES.iter().position(|name| is_it(name))?;
    let numbered = items().iter().enumerate();
    Some(numbered.filter_map(move |(n, item)| (item.categories & (1 << bit) != 0).then_some(n)))
}

/// The commands in a category, as `ACL CAT` names them; `None`: no such one.
pub fn category_commands(category: &[u8]) -> Option<Vec<String>> {
    let numbers = in_category(category)?;
    let commands = numbers.map(|n| items()[n].command);
    Some(commands.map(|it| it.name.to_ascii_lowercase()).collect())
}
