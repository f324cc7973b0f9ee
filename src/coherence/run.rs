//! The units of a batch, run in order on one workspace.

use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::lane::Job;
use super::once::Tokens;
use super::plan::Known;
use super::unit::Done;
use super::{Answer, Seen, Step, Unit};
use crate::engine::{self, Workspace};
use crate::model::{Event, Key, Reply, UnixMs};
use crate::script::{Deed, Ended, Invocation, Room};

/// How long a script may take while its batch waits for it, and all of a batch. What takes
/// longer runs beside the lane.
const SCRIPT_MAX: Duration = Duration::from_millis(8);
const SCRIPTS_MAX: Duration = Duration::from_millis(25);

/// After so many rounds a script that needs still more is put off: it disturbs its batch.
pub(super) const SCRIPT_ROUNDS: u32 = 16;

/// Runs units, and keeps what comes of them.
pub(super) struct Runner<'a> {
    pub(super) workspace: Workspace,
    pub(super) tokens: Tokens,
    known: &'a Known<'a>,
    now: UnixMs,
    rounds: u32,
    /// What scripts have taken of the batch's time.
    spent: Duration,
    pub(super) events: Option<Vec<Event>>,
    pub(super) deeds: Vec<Deed>,
    /// For each unit, the keys that its scripts named; nothing if it did not run.
    pub(super) touched: Vec<Option<Vec<Key>>>,
    /// A unit was put off in the middle of it: all must run again without it.
    pub(super) is_disturbed: bool,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        (workspace, tokens): (Workspace, Tokens),
        known: &'a Known<'a>,
        now: UnixMs,
        tells: bool,
        rounds: u32,
    ) -> Self {
        Self {
            workspace,
            tokens,
            known,
            now,
            rounds,
            spent: Duration::ZERO,
            events: tells.then(Vec::new),
            deeds: Vec::new(),
            touched: Vec::new(),
            is_disturbed: false,
        }
    }

    /// Runs the units of a job up to one that is put off.
    pub(super) fn job(&mut self, job: &Job) -> Vec<Answer> {
        let mut is_over = false;
        let units = job.units.iter();
        units
            .map(|unit| {
                is_over |= unit.is_deferred();
                if is_over {
                    self.touched.push(None);
                    return Answer::Deferred;
                }
                let answer = self.unit(unit);
                is_over |= unit.is_deferred();
                answer
            })
            .collect()
    }

    /// What a unit comes to, or came to before if it is made once.
    fn unit(&mut self, unit: &Unit) -> Answer {
        let repeated = unit.once.as_ref().and_then(|once| self.tokens.answer(once));
        if let Some(answer) = repeated {
            self.touched.push(None);
            return answer;
        }
        self.touched.push(Some(Vec::new()));
        let before = self.workspace.changes();
        let answer = self.first(unit);
        if let Some(once) = &unit.once {
            let is_changed = self.workspace.changes() != before;
            self.tokens.keep(once, &answer, is_changed);
        }
        answer
    }

    fn first(&mut self, unit: &Unit) -> Answer {
        let holds = |(key, seen): &(Key, Seen)| {
            let known = self.known.get(key);
            seen.allows(self.workspace.effect(key)) && known.is_some_and(|l| seen.holds(l))
        };
        if !unit.watched.iter().all(holds) {
            return Answer::Unwatched;
        }
        if let Some(done) = unit.done() {
            return Answer::Done(self.adopt(done));
        }
        let mut replies: SmallVec<[Reply; 1]> = SmallVec::new();
        for step in &unit.steps {
            let reply = match &step.script {
                None => Some(self.step(step)),
                Some(script) => self.script(unit, step, script),
            };
            let Some(reply) = reply else {
                return Answer::Deferred;
            };
            replies.push(reply);
        }
        Answer::Done(replies)
    }

    fn step(&mut self, step: &Step) -> Reply {
        let (call, db) = (&step.call, step.db);
        match &mut self.events {
            Some(events) => {
                engine::execute_telling(call, db, &mut self.workspace, self.now, events)
            }
            None => engine::execute(call, db, &mut self.workspace, self.now),
        }
    }

    /// The script's reply; none if the unit is put off, or must run again.
    fn script(&mut self, unit: &Unit, step: &Step, script: &Invocation) -> Option<Reply> {
        let left = SCRIPTS_MAX.saturating_sub(self.spent);
        // What this one needs is found out in the same round as what others do. One that fell short
        // has left things in between, so that nothing else can be said of those that follow it.
        let is_short = self.workspace.take_short();
        if left.is_zero() {
            return match is_short {
                true => self.stay_short(),
                false => self.put_off(unit),
            };
        }
        let started = Instant::now();
        let room = Room {
            limit: SCRIPT_MAX.min(left),
            source: None,
        };
        let call = (&step.call, step.db);
        let events = self.events.as_mut();
        let ran = script.run(call, &mut self.workspace, self.now, events, room);
        self.spent += started.elapsed();
        if is_short {
            self.workspace.note_short();
        }
        let is_deep = self.rounds >= SCRIPT_ROUNDS;
        match ran.reply {
            Ok(reply) => {
                self.deeds.extend(ran.deeds);
                if let Some(Some(touched)) = self.touched.last_mut() {
                    touched.extend(ran.touched);
                }
                Some(reply)
            }
            Err(Ended::Short) if !is_deep => None,
            Err(Ended::TooLong | Ended::Elsewhere) if is_short => None,
            Err(_) => {
                script.program.prefer_aside(true);
                self.put_off(unit)
            }
        }
    }

    fn stay_short(&mut self) -> Option<Reply> {
        self.workspace.note_short();
        None
    }

    fn put_off(&mut self, unit: &Unit) -> Option<Reply> {
        unit.defer();
        self.is_disturbed = true;
        None
    }

    /// Takes over what a unit came to beside the lane.
    fn adopt(&mut self, done: &Done) -> SmallVec<[Reply; 1]> {
        for (key, effect) in &done.effects {
            self.workspace.adopt(key.clone(), effect.clone());
        }
        if let Some(events) = &mut self.events {
            events.extend_from_slice(&done.events);
        }
        self.deeds.extend_from_slice(&done.deeds);
        done.replies.clone()
    }
}

/// Whether keys that a unit found to be absent must not come to be before it commits: of one
/// that is about several keys.
pub(super) fn is_held(unit: &Unit, touched: &[Key]) -> bool {
    let several = || {
        let steps = &mut unit.steps.iter();
        steps.any(|s| s.call.key_indices().nth(1).is_some())
    };
    unit.is_block() || touched.len() > 1 || several()
}
