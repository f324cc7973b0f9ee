//! What a command costs before any I/O: finding it, and running it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use freshet::command::{lookup, resolve};
use freshet::engine::{Content, Loaded, Workspace, execute, needs};
use freshet::model::{Db, Request, UnixMs, Value, Version};

const NOW: UnixMs = UnixMs(1_800_000_000_000);

/// Requests whose cost matters, by the name of the measurement.
const CALLS: &[(&str, &[&str])] = &[
    (
        "SET",
        &[
            "SET",
            "key:000000000001",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ],
    ),
    (
        "SET EX NX",
        &["SET", "key:000000000001", "value", "EX", "60", "NX"],
    ),
    ("GET", &["GET", "key:000000000001"]),
    ("INCR", &["INCR", "key:000000000001"]),
    ("INCRBYFLOAT", &["INCRBYFLOAT", "key:000000000001", "0.1"]),
    ("EXPIRE", &["EXPIRE", "key:000000000001", "60"]),
];

fn finding(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    for name in ["GET", "set", "incrbyfloat", "nothing"] {
        group.bench_function(format!("lookup {name}"), |b| {
            b.iter(|| lookup(black_box(name.as_bytes())));
        });
    }
    let request = Request::from_args(&["SET", "key", "value"]);
    group.bench_function("resolve SET", |b| {
        b.iter(|| resolve(black_box(request.clone())));
    });
    group.finish();
}

fn running(c: &mut Criterion) {
    let mut group = c.benchmark_group("run");
    for (name, args) in CALLS {
        let call = resolve(Request::from_args(args)).expect("the requests are right");
        group.bench_function(*name, |b| {
            b.iter(|| {
                let mut workspace = Workspace::default();
                for (key, _) in needs(&call, Db::default()) {
                    let loaded = Loaded {
                        version: Version(7),
                        content: Content::Value(Value::String("41".into())),
                        expires_at: None,
                    };
                    workspace.load(key, loaded);
                }
                let reply = execute(&call, Db::default(), &mut workspace, NOW);
                black_box((reply, workspace.take_effects()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, finding, running);
criterion_main!(benches);
