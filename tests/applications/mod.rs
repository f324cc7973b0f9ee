//! Applications that live on scripts, used for real. `docs/compatibility.md` tells of them.

mod jobs;
mod page;

use std::path::{Path, PathBuf};

use crate::support::{Stack, packages};

/// Libraries of npm. Redlock 5 has no release but betas; most who use Redlock use them.
const NODE: &[&str] = &[
    "bullmq@6.7.0",
    "connect-redis@9.0.0",
    "express-session@1.19.0",
    "ioredis@5.9.3",
    "rate-limiter-flexible@11.4.0",
    "redis@5.9.0",
    "redlock@5.0.0-beta.2",
];
/// Libraries of PyPI.
const PYTHON: &[&str] = &[
    "celery==5.7.0",
    "Django==5.2.19",
    "django-redis==7.0.0",
    "dramatiq==2.2.1",
    "huey==3.5.4",
    "kombu==5.7.0",
    "limits==5.8.0",
    "redis==8.1.0",
    "rq==3.0.0",
];

fn script(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/applications");
    folder.join(name)
}

fn node_modules() -> PathBuf {
    packages::node_modules("applications-node", NODE).unwrap()
}

/// Runs a script of Node: what it says that works.
fn node(name: &str, ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let mut arguments = vec![script(name), node_modules()];
    arguments.extend(ports.iter().map(PathBuf::from));
    let arguments: Vec<&str> = arguments.iter().filter_map(|it| it.to_str()).collect();
    said(packages::run(Path::new("node"), &arguments))
}

/// Runs a script of Python on a stack: what it says that works.
fn python(name: &str, stack: &Stack) -> String {
    let python = packages::python("applications-python", PYTHON).unwrap();
    let ports = ports(stack).map(|port| port.to_string());
    let script = script(name);
    // It must not write into the folder of the sources.
    let arguments = ["-B", script.to_str().unwrap(), &ports[0], &ports[1]];
    said(packages::run(&python, &arguments))
}

fn said(output: anyhow::Result<String>) -> String {
    let output = output.unwrap();
    assert!(output.ends_with("all well\n"), "{output}");
    output
}

/// The ports of Freshet and of its cache.
fn ports(stack: &Stack) -> [u16; 2] {
    [stack.program.address().port(), stack.cache.port()]
}

#[test]
fn bullmq_works() {
    let mut stack = Stack::start().unwrap();
    page::tell("BullMQ (npm)", page::BULLMQ, || {
        node("bullmq.js", &ports(&stack))
    });
    stack.program.stop_quietly().unwrap();
}

#[test]
fn redlock_works_over_one_and_over_three() {
    let mut stacks: Vec<Stack> = (0..3).map(|_| Stack::start().unwrap()).collect();
    let all: Vec<u16> = stacks.iter().map(|stack| ports(stack)[0]).collect();
    page::tell("Redlock (npm)", page::REDLOCK, || {
        node("redlock.js", &all[..1]) + &node("redlock.js", &all)
    });
    for stack in &mut stacks {
        stack.program.stop_quietly().unwrap();
    }
}

#[test]
fn rate_limiter_flexible_works() {
    let mut stack = Stack::start().unwrap();
    page::tell("rate-limiter-flexible (npm)", page::NOTHING, || {
        node("rate_limiter_flexible.js", &ports(&stack))
    });
    stack.program.stop_quietly().unwrap();
}

/// The cache is flushed in the middle of this one and of those below.
#[test]
fn connect_redis_works() {
    let stack = Stack::start().unwrap();
    page::tell("connect-redis (npm)", page::NOTHING, || {
        node("connect_redis.js", &ports(&stack))
    });
}

#[test]
fn limits_works() {
    let mut stack = Stack::start().unwrap();
    page::tell("limits (PyPI)", page::NOTHING, || {
        python("limits_rates.py", &stack)
    });
    stack.program.stop_quietly().unwrap();
}

#[test]
fn django_redis_works() {
    let stack = Stack::start().unwrap();
    page::tell("django-redis (PyPI)", page::NOTHING, || {
        python("django_cache.py", &stack)
    });
}

#[test]
fn dramatiq_works() {
    let stack = Stack::start().unwrap();
    page::tell("Dramatiq (PyPI)", page::NOTHING, || {
        python("dramatiq_jobs.py", &stack)
    });
}

#[test]
fn huey_works() {
    let stack = Stack::start().unwrap();
    page::tell("Huey (PyPI)", page::NOTHING, || {
        python("huey_jobs.py", &stack)
    });
}

#[test]
fn celery_works() {
    let stack = Stack::start().unwrap();
    page::tell("Celery (PyPI)", page::NOTHING, || {
        python("celery_jobs.py", &stack)
    });
}

/// Ruby and Sidekiq are those of Debian.
#[test]
fn sidekiq_works() {
    let stack = Stack::start().unwrap();
    page::tell("Sidekiq (Debian)", page::NOTHING, || {
        let ports = ports(&stack).map(|port| port.to_string());
        let script = script("sidekiq_jobs.rb");
        let arguments = [script.to_str().unwrap(), &ports[0], &ports[1]];
        said(packages::run(Path::new("ruby"), &arguments))
    });
}

#[test]
fn rq_works() {
    let stack = Stack::start().unwrap();
    page::tell("RQ (PyPI)", page::NOTHING, || python("rq_jobs.py", &stack));
}
