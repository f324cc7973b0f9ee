//! Routes: which rule of `[[route]]` a key is under, and what that means for a command.

mod explain;
mod judge;
mod trie;

pub use judge::{Verdict, named};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, counter};

use self::trie::Trie;
use crate::config::{Route, RouteList, Strategy};
use crate::model::glob::{self, Case};
use crate::telemetry;

/// The routes in force, shared by all who ask; replaced as a whole.
#[derive(Debug, Default)]
pub struct Routing {
    current: RwLock<Arc<Routes>>,
    is_any: AtomicBool,
}

impl Routing {
    /// With these routes.
    pub fn new(list: &RouteList) -> Self {
        let routing = Self::default();
        routing.set(list);
        routing
    }

    /// Puts these into force.
    pub fn set(&self, list: &RouteList) {
        let routes = Arc::new(Routes::new(list));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = routes;
        self.is_any.store(!list.is_empty(), Ordering::Release);
    }

    /// The routes; `None` if there are none.
    pub fn get(&self) -> Option<Arc<Routes>> {
        let current = || self.current.read().unwrap_or_else(PoisonError::into_inner);
        self.is_any
            .load(Ordering::Acquire)
            .then(|| Arc::clone(&current()))
    }
}

/// A list of routes, made ready for finding the first that matches a key.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<Compiled>,
    /// The literal beginnings of patterns.
    prefixes: Trie,
    /// The literal ends, backwards, of patterns that are a star and such an end.
    suffixes: Trie,
}

/// A route, and what counts its keys.
#[derive(Debug)]
struct Compiled {
    route: Route,
    /// The length of its pattern's literal beginning.
    literal: usize,
    tail: Tail,
    reads: Counter,
    writes: Counter,
    refused: Counter,
}

/// What must follow a pattern's literal part.
#[derive(Debug)]
enum Tail {
    Anything,
    Nothing,
    /// What the glob pattern matches.
    Glob(Vec<u8>),
}

impl Routes {
    /// Makes `list` ready.
    pub fn new(list: &RouteList) -> Self {
        let (mut prefixes, mut suffixes) = (Vec::new(), Vec::new());
        let mut routes = Vec::with_capacity(list.len());
        for (route, number) in list.iter().zip(0u16..) {
            let pattern = route.pattern.as_str().as_bytes();
            let head = glob::literal_prefix(pattern);
            let end = head.rest.strip_prefix(b"*").map(glob::literal_prefix);
            let tail = match (head.rest, end) {
                (b"", _) => Tail::Nothing,
                (b"*", _) => Tail::Anything,
                (_, Some(end)) if head.text.is_empty() && end.rest.is_empty() => {
                    suffixes.push((end.text.into_iter().rev().collect(), number));
                    routes.push(Compiled::new(route, Tail::Anything));
                    continue;
                }
                (rest, _) => Tail::Glob(rest.to_vec()),
            };
            prefixes.push((head.text, number));
            routes.push(Compiled::new(route, tail));
        }
        Self {
            routes,
            prefixes: Trie::new(prefixes),
            suffixes: Trie::new(suffixes),
        }
    }

    /// The first route that matches `key`.
    pub fn find(&self, key: &[u8]) -> Option<&Route> {
        self.place(key).map(|place| &self.routes[place].route)
    }

    /// Its place in the list.
    fn place(&self, key: &[u8]) -> Option<usize> {
        let mut best = usize::MAX;
        self.prefixes.walk(key.iter().copied(), |numbers| {
            for number in numbers.iter().map(|number| usize::from(*number)) {
                if number >= best {
                    return;
                }
                let is_match = match &self.routes[number].tail {
                    Tail::Anything => true,
                    tail => tail.matches(&key[self.routes[number].literal..]),
                };
                if is_match {
                    best = number;
                }
            }
        });
        self.suffixes.walk(key.iter().rev().copied(), |numbers| {
            // The lowest comes first.
            best = best.min(usize::from(numbers[0]));
        });
        (best != usize::MAX).then_some(best)
    }

    /// The first with this strategy.
    pub fn first(&self, strategy: Strategy) -> Option<&Route> {
        let mut routes = self.routes.iter().map(|compiled| &compiled.route);
        routes.find(|route| route.strategy == strategy)
    }

    /// All that match `key`, by their number from 0.
    pub fn matching(&self, key: &[u8]) -> Vec<usize> {
        let is_match = |route: &Route| {
            let pattern = route.pattern.as_str().as_bytes();
            glob::matches(pattern, key, Case::Sensitive)
        };
        let all = self.routes.iter().enumerate();
        all.filter(|(_, compiled)| is_match(&compiled.route))
            .map(|(number, _)| number)
            .collect()
    }
}

impl Compiled {
    fn new(route: &Route, tail: Tail) -> Self {
        let keys = |access| {
            counter!(telemetry::ROUTE_KEYS,
                "route" => route.pattern.to_string(),
                "strategy" => route.strategy.name(),
                "access" => access)
        };
        Self {
            route: route.clone(),
            literal: glob::literal_prefix(route.pattern.as_str().as_bytes())
                .text
                .len(),
            tail,
            reads: keys("read"),
            writes: keys("write"),
            refused: keys("refused"),
        }
    }
}

impl Tail {
    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Anything => true,
            Self::Nothing => text.is_empty(),
            Self::Glob(pattern) => glob::matches(pattern, text, Case::Sensitive),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Pattern;

    fn list(patterns: &[String]) -> RouteList {
        let route = |pattern: &String| Route {
            pattern: Pattern::new(pattern).unwrap(),
            ..Route::default()
        };
        patterns.iter().map(route).collect()
    }

    proptest! {
        #[test]
        fn the_first_route_that_matches_is_found(
            patterns in prop::collection::vec("[ab:*?]{1,5}|[ab]\\[a-b\\][ab*]{0,2}|\\*[ab]{1,3}", 1..8),
            key in "[ab:]{0,6}",
        ) {
            let list = list(&patterns);
            let routes = Routes::new(&list);
            let matching = list.iter().position(|route| {
                glob::matches(route.pattern.as_str().as_bytes(), key.as_bytes(), Case::Sensitive)
            });
            prop_assert_eq!(routes.place(key.as_bytes()), matching);
        }
    }
}
