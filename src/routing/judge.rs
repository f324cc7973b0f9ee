//! What the routes of its keys mean for a command.

use smallvec::SmallVec;

use super::{Compiled, Routes};
use crate::command::{Access, Call, Class, accessed, args, flags};
use crate::config::Shape;
use crate::config::Strategy;
use crate::model::Reply;

/// How a command is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Through the store, acknowledged when the cache has confirmed.
    Atomic,
    /// Through the store, acknowledged when that has committed.
    Eventual,
    /// By the journal's server.
    WriteBehind,
    /// By the cache alone.
    CacheOnly,
    /// By changing a row of a table.
    Mapped,
    /// Not at all.
    Refused(Reply),
}

/// The keys of a command: where they stand among its arguments, and whether it may change them.
type Named = SmallVec<[(usize, bool); 4]>;

impl Routes {
    /// How `call` is to be done. Counts its keys.
    pub fn judge(&self, call: &Call) -> Verdict {
        match call.command.class {
            Class::Flush => return self.judge_flush(call),
            Class::Read | Class::Expiry | Class::Write => {}
            Class::Script => return self.judge_script(call),
            _ => return Verdict::Atomic,
        }
        let named = named(call);
        let found: SmallVec<[Option<&Compiled>; 4]> = named
            .iter()
            .map(|(index, _)| Some(&self.routes[self.place(call.request.arg(*index))?]))
            .collect();
        let verdict = decide(call, &named, &found);
        for ((_, is_written), compiled) in named.iter().zip(&found) {
            let Some(compiled) = compiled else { continue };
            let counter = match (&verdict, is_written) {
                (Verdict::Refused(_), _) => &compiled.refused,
                (_, true) => &compiled.writes,
                (_, false) => &compiled.reads,
            };
            counter.increment(1);
        }
        verdict
    }

    /// How the commands of a MULTI block are to be done together: as the strictest of them.
    pub fn judge_block<'a>(&self, calls: impl Iterator<Item = &'a Call>) -> Verdict {
        let mut together: Option<Verdict> = None;
        for verdict in calls.map(|call| self.judge(call)) {
            together = Some(match (together, verdict) {
                (_, refused @ Verdict::Refused(_)) => return refused,
                (_, Verdict::Mapped) => {
                    return Verdict::Refused(Reply::error(
                        "ERR keys of mapped tables are not written in a MULTI block; nothing was \
                         done",
                    ));
                }
                (None, verdict) => verdict,
                (Some(one), other) if one == other => other,
                (Some(one), other) => match one.apart().or(other.apart()) {
                    Some(apart) => {
                        return Verdict::Refused(Reply::error(format!(
                            "ERR {} keys and others cannot be in one MULTI block: they do not \
                             commit together; nothing was done",
                            apart.name()
                        )));
                    }
                    None => Verdict::Atomic,
                },
            });
        }
        together.unwrap_or(Verdict::Atomic)
    }

    /// The strategy of `key`, if it is one of those that work apart from the store: cache-only or
    /// write-behind.
    pub fn apart(&self, key: &[u8]) -> Option<Strategy> {
        let strategy = self.find(key)?.strategy;
        is_apart(strategy).then_some(strategy)
    }

    /// The commands of a script are judged as it calls them; what it declares only if that must
    /// be refused.
    fn judge_script(&self, call: &Call) -> Verdict {
        let keys = call.key_indices().map(|index| call.request.arg(index));
        let mut found = keys.filter_map(|key| Some(&self.routes[self.place(key)?]));
        match found.find(|compiled| is_apart(compiled.route.strategy)) {
            None => Verdict::Atomic,
            Some(compiled) => {
                compiled.refused.increment(1);
                let (name, route) = (call.command.name, &compiled.route);
                Verdict::Refused(Reply::error(format!(
                    "ERR {name} is not served for keys of the {} route `{}`",
                    route.strategy.name(),
                    route.pattern
                )))
            }
        }
    }

    /// `FLUSHALL` and its like change keys that must not be written, too, and do not reach those in
    /// the journal.
    fn judge_flush(&self, call: &Call) -> Verdict {
        if let Some(route) = self.first(Strategy::WriteBehind) {
            return Verdict::Refused(Reply::error(format!(
                "ERR {} is not served while there is a write-behind route (`{}`); nothing was done",
                call.command.name, route.pattern
            )));
        }
        let kept = [Strategy::ReadOnly, Strategy::Cdc, Strategy::Mapped];
        match kept.into_iter().find_map(|strategy| self.first(strategy)) {
            None => Verdict::Atomic,
            Some(route) => Verdict::Refused(Reply::error(format!(
                "READONLY {} would change keys of the {} route `{}`; nothing was done",
                call.command.name,
                route.strategy.name(),
                route.pattern
            ))),
        }
    }
}

fn decide(call: &Call, named: &Named, found: &[Option<&Compiled>]) -> Verdict {
    let strategy =
        |compiled: &Option<&Compiled>| compiled.map_or(Strategy::Atomic, |c| c.route.strategy);
    let apart = found.iter().flatten().find(|c| is_apart(c.route.strategy));
    if let Some(compiled) = apart {
        let (own, pattern) = (compiled.route.strategy, &compiled.route.pattern);
        if !found.iter().all(|f| strategy(f) == own) {
            return Verdict::Refused(Reply::error(format!(
                "ERR keys of the {} route `{pattern}` and others cannot be in one command; \
                 nothing was done",
                own.name()
            )));
        }
        let of_databases = || (own == Strategy::WriteBehind).then(|| between_databases(call));
        return match unfit(call).or_else(|| of_databases().flatten()) {
            None if own == Strategy::WriteBehind => Verdict::WriteBehind,
            None => Verdict::CacheOnly,
            Some(why) => Verdict::Refused(Reply::error(format!(
                "ERR {} {why} is not served for keys of the {} route `{pattern}`",
                call.command.name,
                own.name()
            ))),
        };
    }
    let is_guarded = |strategy| {
        use Strategy::{Cdc, Mapped, ReadOnly};
        matches!(strategy, ReadOnly | Cdc | Mapped)
    };
    if call.command.class == Class::Write
        && found.iter().any(|found| is_guarded(strategy(found)))
        && let Some(compiled) = written(call, named, found, is_guarded)
    {
        return guarded(call, named, compiled);
    }
    let is_eventual = !found.is_empty() && found.iter().all(|f| strategy(f) == Strategy::Eventual);
    if is_eventual {
        Verdict::Eventual
    } else {
        Verdict::Atomic
    }
}

/// How a write of a key is done whose route lets no client change it, or only as its table does.
fn guarded(call: &Call, named: &Named, compiled: &Compiled) -> Verdict {
    let pattern = &compiled.route.pattern;
    let name = call.command.name;
    Verdict::Refused(Reply::error(match &compiled.route.mapped {
        Some(mapped) if named.len() > 1 => format!(
            "ERR {name} with another key beside one of the mapped table {} is not served",
            mapped.table
        ),
        Some(_) if call.token.is_none() && is_of_rows(call, compiled) => return Verdict::Mapped,
        Some(mapped) => format!(
            "ERR {name} is not served for keys of the mapped table {}",
            mapped.table
        ),
        None if compiled.route.strategy == Strategy::Cdc => format!(
            "READONLY keys of the route `{pattern}` are written by SQL; nothing was written"
        ),
        None => format!("READONLY the route `{pattern}` is read-only; nothing was written"),
    }))
}

/// Whether `call` is one that can change a row.
fn is_of_rows(call: &Call, compiled: &Compiled) -> bool {
    let shape = compiled.route.mapped.as_ref().map(|mapped| mapped.shape);
    let name = call.command.name;
    let numbers = ["INCR", "DECR", "INCRBY", "DECRBY", "INCRBYFLOAT"];
    match (name, shape) {
        ("DEL" | "UNLINK", _) => true,
        // Without options.
        ("SET", Some(Shape::Json | Shape::Column)) => call.request.len() == 3,
        (_, Some(Shape::Column)) => numbers.contains(&name),
        (_, Some(Shape::Hash)) => {
            ["HSET", "HMSET", "HDEL", "HINCRBY", "HINCRBYFLOAT"].contains(&name)
        }
        _ => false,
    }
}

/// The route of a key that `call` may change, if it is one of those asked for.
fn written<'a>(
    call: &Call,
    named: &Named,
    found: &[Option<&'a Compiled>],
    is_guarded: impl Fn(Strategy) -> bool,
) -> Option<&'a Compiled> {
    let access = accessed(call);
    let is_written = |index: usize| {
        let told = access.iter().find(|(at, _)| *at == index);
        told.is_none_or(|(_, access)| access.includes(Access::WRITE))
    };
    let mut keys = named.iter().zip(found);
    keys.find_map(|((index, _), compiled)| {
        compiled.filter(|c| is_guarded(c.route.strategy) && is_written(*index))
    })
}

/// The keys of `call`, those behind keywords (`SORT`'s `STORE`) too.
pub fn named(call: &Call) -> Named {
    let may_write = call.command.class == Class::Write;
    if call.command.name == "SORT" {
        let all = accessed(call).into_iter();
        return all
            .map(|(index, access)| (index, access.includes(Access::WRITE)))
            .collect();
    }
    call.key_indices().map(|index| (index, may_write)).collect()
}

impl Verdict {
    /// The strategy, if it is one that works apart from the store.
    fn apart(&self) -> Option<Strategy> {
        match self {
            Self::WriteBehind => Some(Strategy::WriteBehind),
            Self::CacheOnly => Some(Strategy::CacheOnly),
            _ => None,
        }
    }
}

/// Whether keys of this strategy are not written by transactions of the store.
fn is_apart(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::WriteBehind | Strategy::CacheOnly)
}

/// What of `call` names another database, which the journal's server keeps under other names.
fn between_databases(call: &Call) -> Option<&'static str> {
    let mut options = call.request.args().skip(3);
    match call.command.name {
        "MOVE" => Some("to another database"),
        "COPY" => options
            .any(|arg| args::is_word(arg, "DB"))
            .then_some("with DB"),
        _ => None,
    }
}

/// What of `call` cannot be sent to the cache under another name of its keys.
fn unfit(call: &Call) -> Option<&'static str> {
    let name = call.command.name;
    let words = || call.request.args().skip(2);
    if call.token.is_some() {
        return Some("under a token");
    }
    match name {
        "SORT" | "SORT_RO" => {
            let is_pattern = |arg: &[u8]| arg.contains(&b'*');
            words().any(is_pattern).then_some("with BY or GET")
        }
        "XREAD" | "XREADGROUP" => {
            let options = call.request.args().take(call.streams_word()?);
            let mut options = options.skip(1);
            options
                .any(|arg| args::is_word(arg, "BLOCK"))
                .then_some("with BLOCK")
        }
        _ if call.command.flags.has(flags::BLOCKING) => Some("which may wait"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::resolve;
    use crate::config::{Config, Environment};
    use crate::model::Request;

    fn routes() -> Routes {
        let source = "[[route]]\nmatch = \"e:*\"\nstrategy = \"eventual\"\n\
                      [[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n\
                      [[route]]\nmatch = \"r:*\"\nstrategy = \"read-only\"\n";
        parsed(source)
    }

    fn parsed(source: &str) -> Routes {
        Routes::new(
            &Config::parse("", source, &Environment::new())
                .unwrap()
                .route,
        )
    }

    fn call(line: &str) -> Call {
        let words: Vec<&str> = line.split(' ').collect();
        resolve(Request::from_args(&words)).unwrap()
    }

    #[test]
    fn a_command_follows_the_strictest_of_its_keys() {
        let routes = routes();
        for (line, expected) in [
            ("SET e:1 v", Verdict::Eventual),
            ("MSET e:1 v e:2 v", Verdict::Eventual),
            ("MSET e:1 v a v", Verdict::Atomic),
            ("SET a v", Verdict::Atomic),
            ("GET r:1", Verdict::Atomic),
            ("COPY r:1 a", Verdict::Atomic),
            ("SORT r:1 STORE a", Verdict::Atomic),
            ("SET c:1 v", Verdict::CacheOnly),
            ("SORT c:1 STORE c:2", Verdict::CacheOnly),
            ("XREAD STREAMS c:1 0", Verdict::CacheOnly),
        ] {
            assert_eq!(routes.judge(&call(line)), expected, "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let routes = routes();
        for (line, start) in [
            ("SET r:1 v", "READONLY the route `r:*`"),
            ("COPY a r:1", "READONLY"),
            ("MSET a v r:1 v", "READONLY"),
            ("SORT a STORE r:1", "READONLY"),
            ("GEORADIUS a 1 1 1 m STORE r:1", "READONLY"),
            ("BLPOP r:1 0", "READONLY"),
            ("FLUSHDB", "READONLY FLUSHDB"),
            ("MSET a v c:1 v", "ERR keys of the cache-only route `c:*`"),
            ("SORT a STORE c:1", "ERR keys of the cache-only route"),
            ("BLPOP c:1 0", "ERR BLPOP which may wait"),
            ("XREAD BLOCK 5 STREAMS c:1 0", "ERR XREAD with BLOCK"),
            ("SORT c:1 BY w*", "ERR SORT with BY or GET"),
            (
                "EVAL x 2 a c:1",
                "ERR EVAL is not served for keys of the cache-only",
            ),
            ("FRESHET.ONCE t SET c:1 v", "ERR SET under a token"),
        ] {
            match routes.judge(&call(line)) {
                Verdict::Refused(Reply::Error(text)) => {
                    assert!(text.starts_with(start.as_bytes()), "{line}: {text:?}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn write_behind_keys_are_apart() {
        let routes = parsed(
            "[write_behind]\nurl = \"redis://127.0.0.1:6390\"\n\
             [[route]]\nmatch = \"w:*\"\nstrategy = \"write-behind\"\n\
             [[route]]\nmatch = \"c:*\"\nstrategy = \"cache-only\"\n",
        );
        for line in [
            "SET w:1 v",
            "COPY w:1 w:2 REPLACE",
            "SORT w:1 STORE w:2",
            "MSET w:1 a w:2 b",
        ] {
            assert_eq!(routes.judge(&call(line)), Verdict::WriteBehind, "{line}");
        }
        for (line, start) in [
            (
                "MSET w:1 a x b",
                "ERR keys of the write-behind route `w:*` and others",
            ),
            ("MSET c:1 a w:1 b", "ERR keys of the cache-only route `c:*`"),
            ("MOVE w:1 2", "ERR MOVE to another database is not served"),
            ("COPY w:1 w:2 DB 2", "ERR COPY with DB is not served"),
            ("BLPOP w:1 0", "ERR BLPOP which may wait is not served"),
            (
                "EVAL x 1 w:1",
                "ERR EVAL is not served for keys of the write-behind",
            ),
            (
                "FLUSHALL",
                "ERR FLUSHALL is not served while there is a write-behind",
            ),
        ] {
            match routes.judge(&call(line)) {
                Verdict::Refused(Reply::Error(text)) => {
                    assert!(text.starts_with(start.as_bytes()), "{line}: {text:?}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        let block = [call("SET w:1 v"), call("SET x v")];
        assert!(matches!(
            routes.judge_block(block.iter()),
            Verdict::Refused(_)
        ));
    }

    #[test]
    fn a_block_follows_the_strictest_of_its_commands() {
        let routes = routes();
        let block = |lines: &[&str]| {
            let calls: Vec<Call> = lines.iter().map(|line| call(line)).collect();
            routes.judge_block(calls.iter())
        };
        assert_eq!(block(&["SET e:1 v", "GET e:2"]), Verdict::Eventual);
        assert_eq!(block(&["SET e:1 v", "SET a v"]), Verdict::Atomic);
        assert_eq!(block(&["SET c:1 v", "GET c:2"]), Verdict::CacheOnly);
        assert!(matches!(
            block(&["SET c:1 v", "GET a"]),
            Verdict::Refused(_)
        ));
        assert!(matches!(block(&["GET a", "DEL r:1"]), Verdict::Refused(_)));
    }
}
