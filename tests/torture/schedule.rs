//! What happens when: decided by the seed alone.

use std::time::Duration;

use super::faults::{Fault, Network, Victim};
use crate::support::seed::Random;

/// How long the longest faults take.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Longer than the right of a proxy to use the cache without news from the store.
    pub beyond_leases: Duration,
    /// In so many of a hundred cases a fault that can take so long does.
    pub long_chance: usize,
}

/// A fault, and when it begins and ends in its round.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub fault: Fault,
    pub from: Duration,
    pub to: Duration,
}

/// The faults of a round.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// One after the other: each begins when all proxies have recovered from the one before.
    Single(Vec<(Fault, Duration)>),
    /// Several at the same time, by the clock.
    Storm(Vec<Planned>),
}

/// How long `fault` takes.
fn length(fault: Fault, scale: Scale, random: &mut Random) -> Duration {
    let can_be_long = match fault {
        Fault::ProxyStalled(_) => true,
        Fault::Net(_, _, network) => !matches!(
            network,
            Network::MidFrame | Network::HalfOpen | Network::Slow
        ),
        _ => false,
    };
    if can_be_long && random.percent(scale.long_chance) {
        return scale.beyond_leases;
    }
    match fault {
        Fault::CacheFlushed
        | Fault::CacheKeysDeleted
        | Fault::FunctionsLost
        | Fault::CacheClientsKilled
        | Fault::BackendsTerminated
        | Fault::CommitCut(..)
        | Fault::BlindCut(..)
        | Fault::Net(_, _, Network::MidFrame | Network::HalfOpen) => Duration::ZERO,
        Fault::CacheStalled | Fault::StoreStalled | Fault::ProxyStalled(_) | Fault::Net(..) => {
            random.millis(800, 3000)
        }
        _ => random.millis(100, 1200),
    }
}

impl Schedule {
    /// These faults, in an order that the seed decides.
    pub fn single(mut faults: Vec<Fault>, scale: Scale, random: &mut Random) -> Self {
        random.shuffle(&mut faults);
        let lengths = faults
            .into_iter()
            .map(|fault| (fault, length(fault, scale, random)));
        Self::Single(lengths.collect())
    }

    /// For `time`, faults that overlap.
    pub fn storm(time: Duration, scale: Scale, random: &mut Random) -> Self {
        let mut planned: Vec<Planned> = Vec::new();
        let mut now = random.millis(200, 800);
        while now < time {
            let all = Fault::all(random);
            let fault = *random.pick(&all);
            let length = length(fault, scale, random).max(Duration::from_millis(50));
            let is_free = planned
                .iter()
                .all(|other| other.to < now || !collide(other.fault.victim(), fault.victim()));
            if is_free {
                planned.push(Planned {
                    fault,
                    from: now,
                    to: now + length,
                });
            }
            now += random.millis(50, 1500);
        }
        Self::Storm(planned)
    }

    /// One line for each fault.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Single(faults) => faults
                .iter()
                .map(|(fault, length)| format!("{fault} for {length:?}"))
                .collect(),
            Self::Storm(planned) => planned
                .iter()
                .map(|one| format!("{:?} to {:?}: {}", one.from, one.to, one.fault))
                .collect(),
        }
    }
}

/// Whether two faults cannot be done at the same time.
fn collide(one: Victim, other: Victim) -> bool {
    one == other
}
