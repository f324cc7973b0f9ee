//! A model of the coherence protocol of `src/ARCHITECTURE.md`, explored exhaustively.
//!
//! One or two keys (a string; a collection, which takes deltas) in
//! a store and a cache; batches and readers of different proxies, whose steps
//! interleave in every order. Faults may come between any two steps, each as often
//! as the scenario says: eviction, flush, loss of single keys, death of a proxy,
//! calls that run twice or late, needless fences.
//!
//! What is one step here is atomic in reality: a function in the cache, a hit, a
//! statement or COMMIT in the store. A stall is a batch or reader that takes no
//! further step; a COMMIT or apply that arrives after its proxy's death is a batch
//! that goes on although its registration is marked dead. A call and the answer to
//! the client that follows it are one step, which is the strictest order for the
//! checks: what clients were told is told at the earliest moment.
//!
//! There are three models. The *key protocol* has batches and readers of any number of proxies,
//! and the fence as one step. The *fence* has its steps, two proxies that know them sooner
//! or later, and the keys' functions. The *outcome* is of one unit whose COMMIT gets no answer.
//!
//! Not modelled: clocks (a lease runs out at any moment) and expiry, missing rows (every row can be
//! locked), a proxy that alone cannot reach the cache, two servers that answer for it at once, replies.
//!
//! - `rules.rs`: the rules, each of which can be taken away; `history.rs`: what the store
//!   committed; `cache.rs`: one key in the cache and its functions;
//! - `state.rs`, `steps.rs`: the key protocol; `symmetry.rs`: fewer states;
//!   `properties.rs`: the invariants, compared with what clients were told;
//!   `protocol.rs`: it holds, up to the bounds given there; `mutations.rs`: without any
//!   one of its rules it does not;
//! - `fence.rs`: the fence, in the same parts; `outcome.rs`: exactly once.
//!
//! `FRESHET_MODEL=large` explores larger bounds (minutes). `--nocapture` shows counts and traces.

mod cache;
mod fence;
mod history;
mod mutations;
mod outcome;
mod properties;
mod protocol;
mod rules;
mod scenario;
mod state;
mod steps;
mod symmetry;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use rules::Rules;
use scenario::{Faults, Op, Scenario, Shape, Work};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// Writes a string without expiry.
const PLAIN: Op = Op::Put(Shape::Plain);
/// Writes a string with an expiry, or a whole collection.
const RICH: Op = Op::Put(Shape::Rich);
/// Deletes the key.
const DELETE: Op = Op::Put(Shape::Absent);
/// Changes an expiry, a field, a member.
const DELTA: Op = Op::Delta(Shape::Rich);
/// Removes the last member.
const DELTA_TO_ABSENT: Op = Op::Delta(Shape::Absent);

/// One unit over both keys.
const UNIT: Work = Work::unit(PLAIN, DELTA);

/// A string without expiry, and a collection.
const PRESENT: [Shape; 2] = [Shape::Plain, Shape::Rich];
/// Neither key exists.
const MISSING: [Shape; 2] = [Shape::Absent, Shape::Absent];

/// Content and a companion may be evicted once each.
const EVICTIONS: Faults = Faults {
    content: 1,
    companion: 1,
    flush: 0,
    drop_key: 0,
    repeat: 0,
    late_begin: 0,
    late_look: 0,
    death: 0,
    fence: 0,
    invalidate: 0,
    rollback: 0,
    staged: 0,
    join: 0,
};

/// A batch that does `op` to the string.
const fn string(op: Op) -> Work {
    Work::batch(Some(op), None)
}

/// A batch that does `op` to the collection.
const fn collection(op: Op) -> Work {
    Work::batch(None, Some(op))
}

/// Whether the larger bounds were asked for.
fn large() -> bool {
    std::env::var("FRESHET_MODEL").is_ok_and(|bounds| bounds == "large")
}

/// A model with bounds of its own.
trait Bounded:
    Model<
        State: Clone + Debug + Hash + PartialEq + Send + Sync,
        Action: Clone + Debug + PartialEq + Send + Sync,
    > + Send
    + Sync
    + Sized
    + 'static
{
    /// Its name, for the report.
    fn name(&self) -> &'static str;
    /// The rules that it keeps.
    fn rules(&self) -> Rules;
}

impl Bounded for Scenario {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}

/// Explores `model`: to the end, or to the first violation. Returns a trace for
/// each property that failed, and the names of the examples found.
fn explore(model: impl Bounded) -> (Vec<String>, Vec<&'static str>) {
    let (name, start) = (model.name(), Instant::now());
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut violations = Vec::new();
    let mut examples = Vec::new();
    for (property, path) in checker.discoveries() {
        match checker.model().property(property).expectation {
            Expectation::Sometimes => examples.push(property),
            _ => violations.push(format!("{property}: {:?}", path.into_actions())),
        }
    }
    println!(
        "{name}: {} states, {} steps, depth {}, {:.1?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        start.elapsed(),
    );
    (violations, examples)
}

/// Asserts that `model` has no violation within its bounds, and shows `wanted`.
fn holds(model: impl Bounded, wanted: &[&str]) {
    let name = model.name();
    let (violations, examples) = explore(model);
    assert!(violations.is_empty(), "{name}: {violations:#?}");
    for want in wanted {
        assert!(examples.contains(want), "{name} never shows: {want}");
    }
}

/// Asserts that the checker finds a violation in `model`, and prints its trace.
fn breaks(model: impl Bounded) {
    let (name, rules) = (model.name(), model.rules());
    let (violations, _) = explore(model);
    assert!(!violations.is_empty(), "{name} holds without {rules:?}");
    for violation in violations {
        println!("  {violation}");
    }
}
