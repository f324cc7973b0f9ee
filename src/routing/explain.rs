//! What the routes mean for a key, for people: `freshet routes explain`.

use std::fmt::Write;

use super::Routes;
use crate::config::{Config, Ranged, Route, Strategy};

impl Routes {
    /// Which route of `config` the key is under, why, and what that means, in lines.
    pub fn explain(config: &Config, key: &str) -> String {
        let list = &config.route;
        let matching = Self::new(list).matching(key.as_bytes());
        let usual = Route::default();
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = writeln!(text, "key:       {key}");
        let route = match matching.first() {
            Some(&first) => {
                let route = &list[first];
                let (number, count) = (first + 1, list.len());
                let _ = writeln!(
                    text,
                    "route:     {number} of {count}, line {}: match = \"{}\"",
                    route.line, route.pattern
                );
                route
            }
            None => {
                let _ = writeln!(text, "route:     none of {} matches", list.len());
                &usual
            }
        };
        for later in matching.iter().skip(1) {
            let pattern = &list[*later].pattern;
            let _ = writeln!(
                text,
                "           (route {} \"{pattern}\" matches too, but comes later)",
                later + 1
            );
        }
        let (name, meaning) = (route.strategy.name(), meaning(route.strategy));
        let _ = writeln!(text, "strategy:  {name}: {meaning}");
        if let Some(mapped) = &route.mapped {
            let (table, template) = (&mapped.table, &mapped.template);
            let _ = writeln!(text, "table:     {table}, the row of {template}");
        }
        let _ = writeln!(text, "in cache:  {}", lives(config, route));
        text
    }
}

fn meaning(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Atomic => {
            "a write is acknowledged when PostgreSQL has committed it and the cache has confirmed; \
             no later read is older"
        }
        Strategy::Eventual => {
            "a write is acknowledged when PostgreSQL has committed it; the cache is told in the \
             background"
        }
        Strategy::WriteBehind => {
            "a write is acknowledged by the journal's server, which also answers reads; PostgreSQL \
             is written in the background"
        }
        Strategy::CacheOnly => {
            "it is kept by the cache alone, never in PostgreSQL; whatever empties the cache loses it"
        }
        Strategy::ReadOnly => "clients read it; each write is refused",
        Strategy::Cdc => {
            "it is written by SQL (freshet.set and its like), and the cache follows; clients read \
             it, each write of theirs is refused"
        }
        Strategy::Mapped => {
            "it is a row of a table: a write changes the row, with its types, constraints and \
             triggers; rows that SQL changes follow in the cache"
        }
    }
}

fn lives(config: &Config, route: &Route) -> String {
    let shorter = match route.ttl_jitter {
        0 => String::new(),
        jitter => format!(", by up to {jitter} % shorter at random"),
    };
    if route.strategy == Strategy::WriteBehind {
        let keep = config.write_behind.keep.show();
        return format!("never; in the journal's server for {keep} after its last change");
    }
    if route.strategy == Strategy::CacheOnly {
        return match route.ttl {
            Some(ttl) => format!("until its expiry; without one for {}{shorter}", ttl.show()),
            None => "until its expiry; without one until the cache is emptied".to_owned(),
        };
    }
    let cache = &config.cache;
    format!(
        "at most {}{shorter}; its absence for {}; values up to {}",
        route.ttl.unwrap_or(cache.ttl).show(),
        route.absent_ttl.unwrap_or(cache.absent_ttl).show(),
        route.fill_limit.unwrap_or(cache.fill_limit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    #[test]
    fn a_key_is_told_its_route_and_why() {
        let source = "[[route]]\nmatch = \"s:*\"\nstrategy = \"eventual\"\nttl = \"1h\"\n\
                      ttl_jitter = 10\n[[route]]\nmatch = \"*\"\nstrategy = \"read-only\"\n";
        let config = Config::parse("proxy.toml", source, &Environment::new()).unwrap();
        let told = Routes::explain(&config, "s:1");
        for part in [
            "route:     1 of 2, line 1: match = \"s:*\"",
            "(route 2 \"*\" matches too, but comes later)",
            "strategy:  eventual: ",
            "at most 1h, by up to 10 % shorter at random; its absence for 1m; values up to 16MB",
        ] {
            assert!(told.contains(part), "{part} is not in\n{told}");
        }
        assert!(Routes::explain(&config, "x").contains("route:     2 of 2"));
        let none = Routes::explain(&Config::default(), "x");
        assert!(none.contains("none of 0 matches") && none.contains("strategy:  atomic: "));
    }
}
