//! Exactly once: what becomes of an attempt whose COMMIT got no answer.
//!
//! One unit, tried a few times; each attempt's transaction inserts the attempt's own row. A
//! statement may be long under way and run when its connection is given up. Who wants to
//! know the outcome inserts the same row.

use stateright::{Model, Property};

use crate::rules::{Rule, Rules};
use crate::{Bounded, breaks, holds};

/// How often the unit is tried at most.
const ATTEMPTS: usize = 3;

/// What is known in the store of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Trace {
    /// Nothing.
    #[default]
    None,
    /// Its transaction is open; the row is in it.
    Open,
    /// The row is committed, with what the unit did.
    Committed,
    /// The row is committed, by who asked.
    Forbidden,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct Attempt {
    /// Whether its statements are under way and have not run.
    sent: bool,
    /// What the store has of it.
    trace: Trace,
    /// Whether its proxy counts it as lost, and asks.
    lost: bool,
}

/// What the client heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Answer {
    #[default]
    None,
    Done,
    NotWritten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct State {
    attempts: [Attempt; ATTEMPTS],
    /// The attempt that the proxy is at.
    at: u8,
    answer: Answer,
    crashes: u8,
}

impl State {
    fn now(&self) -> &Attempt {
        &self.attempts[self.at as usize]
    }

    fn now_mut(&mut self) -> &mut Attempt {
        &mut self.attempts[self.at as usize]
    }

    fn commits(&self) -> usize {
        let committed = |attempt: &&Attempt| attempt.trace == Trace::Committed;
        self.attempts.iter().filter(committed).count()
    }
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The proxy sends the attempt.
    Send,
    /// The attempt's transaction begins; it fails if the row is there.
    Run(usize),
    /// It commits.
    Commit(usize),
    /// It rolls back.
    Rollback(usize),
    /// The answer to COMMIT arrives.
    Answer,
    /// The connection is lost; what was sent may still run.
    Lose,
    /// The proxy asks what became of it; if it never will, the unit is tried again.
    Ask,
    /// The same, and the client hears that nothing was written.
    GiveUp,
    /// The store crashes and comes back.
    Crash,
}

#[derive(Clone, Debug)]
struct Outcome {
    rules: Rules,
}

impl Outcome {
    fn without(rule: Rule) -> Self {
        Self {
            rules: Rules::default().without(rule),
        }
    }

    /// What the proxy learns; and whether it may try again.
    fn ask(&self, state: &mut State) -> bool {
        if !self.rules.keep(Rule::LostAnswerIsAskedFor) {
            return true;
        }
        let leaves = self.rules.keep(Rule::OutcomeLeavesRow);
        let attempt = state.now_mut();
        match attempt.trace {
            Trace::Committed => {
                state.answer = Answer::Done;
                false
            }
            // Only where nobody waits for it: its row is not seen before it commits.
            Trace::Open => true,
            Trace::None | Trace::Forbidden => {
                if leaves {
                    attempt.trace = Trace::Forbidden;
                }
                true
            }
        }
    }
}

impl Bounded for Outcome {
    fn name(&self) -> &'static str {
        "outcome of a lost COMMIT"
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}

impl Model for Outcome {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::default()]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        for (number, attempt) in state.attempts.iter().enumerate() {
            if attempt.sent {
                steps.push(Step::Run(number));
            }
            if attempt.trace == Trace::Open {
                steps.extend([Step::Commit(number), Step::Rollback(number)]);
            }
        }
        if state.crashes == 0 {
            steps.push(Step::Crash);
        }
        if state.answer != Answer::None {
            return;
        }
        let now = state.now();
        if *now == Attempt::default() {
            steps.push(Step::Send);
        } else if now.lost {
            let waits = now.trace == Trace::Open && self.rules.keep(Rule::OutcomeWaitsForOpen);
            if !waits {
                steps.push(Step::GiveUp);
            }
            if !waits && (state.at as usize) + 1 < ATTEMPTS {
                steps.push(Step::Ask);
            }
        } else {
            steps.push(Step::Lose);
            if now.trace == Trace::Committed {
                steps.push(Step::Answer);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = *last;
        match step {
            Step::Send => state.now_mut().sent = true,
            Step::Run(number) => {
                let attempt = &mut state.attempts[number];
                attempt.sent = false;
                if attempt.trace == Trace::None {
                    attempt.trace = Trace::Open;
                }
            }
            Step::Commit(number) => state.attempts[number].trace = Trace::Committed,
            Step::Rollback(number) => state.attempts[number].trace = Trace::None,
            Step::Answer => state.answer = Answer::Done,
            Step::Lose => state.now_mut().lost = true,
            Step::Ask => {
                if self.ask(&mut state) {
                    state.at += 1;
                }
            }
            Step::GiveUp => {
                if self.ask(&mut state) {
                    state.answer = Answer::NotWritten;
                }
            }
            Step::Crash => {
                state.crashes += 1;
                for attempt in &mut state.attempts {
                    if attempt.trace == Trace::Open {
                        attempt.trace = Trace::None;
                    }
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I5: no unit is committed twice", |_, state: &State| {
                state.commits() <= 1
            }),
            Property::always(
                "I1: what is acknowledged is committed",
                |_, state: &State| state.answer != Answer::Done || state.commits() == 1,
            ),
            Property::always(
                "I5: what is refused is not committed",
                |_, state: &State| state.answer != Answer::NotWritten || state.commits() == 0,
            ),
            Property::sometimes("a later attempt commits", |_, state: &State| {
                state.answer == Answer::Done && state.at > 0
            }),
        ]
    }
}

#[test]
fn unit_commits_once_or_is_refused() {
    let model = Outcome {
        rules: Rules::default(),
    };
    holds(model, &["a later attempt commits"]);
}

#[test]
fn lost_answer_is_asked_for() {
    breaks(Outcome::without(Rule::LostAnswerIsAskedFor));
}

#[test]
fn outcome_waits_for_open_transactions() {
    breaks(Outcome::without(Rule::OutcomeWaitsForOpen));
}

#[test]
fn outcome_leaves_its_row() {
    breaks(Outcome::without(Rule::OutcomeLeavesRow));
}
