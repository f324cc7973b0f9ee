//! What finding the route of a key costs: `cargo bench --bench routing`.
#![allow(
    missing_docs,
    reason = "criterion's macros write functions without docs"
)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use freshet::config::{Pattern, Route, RouteList};
use freshet::routing::Routes;

const ROUTES: usize = 100;

fn routes(pattern: impl Fn(usize) -> String) -> Routes {
    let route = |number| Route {
        pattern: Pattern::new(&pattern(number)).expect("a pattern of this bench is complete"),
        ..Route::default()
    };
    Routes::new(&(0..ROUTES).map(route).collect::<RouteList>())
}

fn finding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_of_100");
    let prefixes = routes(|n| format!("service{n}:session:*"));
    let suffixes = routes(|n| format!("*:kind{n}"));
    let globs = routes(|n| format!("service{n}:*:cart?"));
    for (name, routes, key) in [
        ("prefix_first", &prefixes, "service0:session:1234567"),
        ("prefix_last", &prefixes, "service99:session:1234567"),
        ("prefix_none", &prefixes, "other:session:1234567"),
        ("suffix_last", &suffixes, "user:1234567:kind99"),
        ("glob_last", &globs, "service99:1234567:cart7"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| routes.find(black_box(key.as_bytes())).is_some());
        });
    }
    group.finish();
}

criterion_group!(benches, finding);
criterion_main!(benches);
