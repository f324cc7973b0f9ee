//! One round: clients work, faults happen, and in the end everything is compared.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::clients::{self, SHARING};
use super::cluster::{Cluster, PROXIES, name};
use super::faults::{Fault, Victim};
use super::history::{Operation, Recorder, Time, since};
use super::objects::Objects;
use super::schedule::{Planned, Schedule};
use super::verify;
use crate::support::process;
use crate::support::seed::Random;

/// How long all proxies may take to acknowledge writes again after a fault.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);
/// Writes of each proxy after which it counts as recovered.
const RECOVERED: u64 = 20;
/// Quiet time between two faults.
const REST: Duration = Duration::from_millis(600);

/// A fault that has happened.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub fault: Fault,
    /// When it began, and when its end was done.
    pub from: Time,
    pub to: Time,
    /// When all proxies had recovered; what clients saw until then, they saw because of it.
    pub recovered: Time,
    /// Whether no other fault was near.
    pub is_single: bool,
}

/// What came of a round.
pub struct Outcome {
    pub operations: Vec<Operation>,
    pub objects: Objects,
    pub spans: Vec<Span>,
    /// What is wrong.
    pub violations: Vec<String>,
}

struct Stage<'a> {
    cluster: &'a mut Cluster,
    objects: &'a Objects,
    progress: &'a [AtomicU64],
    random: Random,
    start: Instant,
    spans: Vec<Span>,
    /// Which proxies a fault keeps down, or may end at any moment.
    down: [bool; PROXIES],
}

/// Runs round `number` of the run that began at `start`.
pub fn run(
    cluster: &mut Cluster,
    (seed, number): (u64, u32),
    schedule: &Schedule,
    start: Instant,
) -> Outcome {
    let objects = Objects::new(number);
    let recorder = Recorder::new(start);
    let over = AtomicBool::new(false);
    let progress: Vec<AtomicU64> = (0..PROXIES).map(|_| AtomicU64::new(0)).collect();
    let proxies = cluster.addresses();
    let round = clients::Round {
        proxies: &proxies,
        objects: &objects,
        recorder: &recorder,
        over: &over,
        progress: &progress,
        seed: seed ^ u64::from(number) << 32,
    };
    let mut stage = Stage {
        cluster,
        objects: &objects,
        progress: &progress,
        random: Random::new(round.seed, 0),
        start,
        spans: Vec::new(),
        down: [false; PROXIES],
    };
    let happened = thread::scope(|scope| {
        for client in 0..PROXIES * (SHARING + 1) {
            let round = &round;
            let (proxy, alone) = (client / (SHARING + 1), client % (SHARING + 1) == 0);
            scope.spawn(move || clients::work(round, client as u32, proxy, alone));
        }
        let happened = stage.run(schedule);
        over.store(true, Ordering::Relaxed);
        happened
    });
    let spans = std::mem::take(&mut stage.spans);
    // Even if a fault could not be ended: what clients saw by then is worth looking at.
    let mut violations: Vec<String> = happened
        .and_then(|()| cluster.await_health())
        .err()
        .map(|error| format!("{error:#}"))
        .into_iter()
        .collect();
    let lists = match verify::last_look(cluster, &objects, &recorder) {
        Ok(last) => {
            violations.extend(last.disagreements);
            Some(last.lists)
        }
        Err(error) => {
            violations.push(format!("the last look: {error:#}"));
            None
        }
    };
    let operations = recorder.finish();
    violations.extend(verify::check(&objects, &operations, lists.as_ref()));
    Outcome {
        operations,
        objects,
        spans,
        violations,
    }
}

impl Stage<'_> {
    fn run(&mut self, schedule: &Schedule) -> Result<()> {
        self.await_progress()?;
        match schedule {
            Schedule::Single(faults) => self.run_singly(faults),
            Schedule::Storm(planned) => self.run_storm(planned),
        }
    }

    fn now(&self) -> Time {
        since(self.start)
    }

    fn begin(&mut self, fault: Fault) -> Result<()> {
        let keys = self.objects.keys_in_use();
        if let Victim::Proxy(proxy) = fault.victim() {
            self.down[proxy] = true;
        }
        fault
            .begin(self.cluster, &keys, &mut self.random)
            .with_context(|| format!("{fault} begins"))
    }

    fn end(&mut self, fault: Fault) -> Result<()> {
        fault
            .end(self.cluster)
            .with_context(|| format!("{fault} ends"))?;
        if let Victim::Proxy(proxy) = fault.victim() {
            self.down[proxy] = false;
        }
        Ok(())
    }

    /// Starts those again that ended since they found no store when they started, as whoever watches over
    /// programs would.
    fn revive(&mut self) -> Result<()> {
        for (number, proxy) in self.cluster.proxies.iter_mut().enumerate() {
            if self.down[number] {
                continue;
            }
            if let Some(status) = proxy.program.try_exit() {
                let code = status.code();
                ensure!(code == Some(1), "proxy {} ended: {status}", name(number));
                proxy.program.spawn()?;
            }
        }
        Ok(())
    }

    fn run_singly(&mut self, faults: &[(Fault, Duration)]) -> Result<()> {
        for (fault, length) in faults {
            let from = self.now();
            self.begin(*fault)?;
            thread::sleep(*length);
            self.end(*fault)?;
            let to = self.now();
            let recovered = self.await_progress();
            self.spans.push(Span {
                fault: *fault,
                from,
                to,
                recovered: self.now(),
                is_single: true,
            });
            recovered.with_context(|| format!("after {fault}"))?;
            thread::sleep(REST);
        }
        Ok(())
    }

    fn run_storm(&mut self, planned: &[Planned]) -> Result<()> {
        let mut events: Vec<(Duration, bool, usize)> = Vec::new();
        for (index, one) in planned.iter().enumerate() {
            events.push((one.from, true, index));
            events.push((one.to, false, index));
        }
        events.sort();
        let began = Instant::now();
        let mut from = vec![0; planned.len()];
        for (due, is_begin, index) in events {
            while due > began.elapsed() {
                self.revive()?;
                let left = due.saturating_sub(began.elapsed());
                thread::sleep(left.min(Duration::from_millis(50)));
            }
            let fault = planned[index].fault;
            if is_begin {
                from[index] = self.now();
                self.begin(fault)?;
            } else {
                self.end(fault)?;
                self.spans.push(Span {
                    fault,
                    from: from[index],
                    to: self.now(),
                    recovered: self.now(),
                    is_single: false,
                });
            }
        }
        self.await_progress().context("after the storm")
    }

    /// Waits until every proxy has acknowledged some more writes.
    fn await_progress(&mut self) -> Result<()> {
        let count = |stage: &Self, proxy: usize| stage.progress[proxy].load(Ordering::Relaxed);
        let goals: Vec<u64> = (0..PROXIES)
            .map(|proxy| count(self, proxy) + RECOVERED)
            .collect();
        let mut trouble = Ok(());
        process::await_true("every proxy takes writes", RECOVERY_LIMIT, || {
            trouble = self.revive();
            trouble.is_err() || (0..PROXIES).all(|proxy| count(self, proxy) >= goals[proxy])
        })?;
        trouble
    }
}
