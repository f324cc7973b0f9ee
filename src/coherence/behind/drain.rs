//! Writes the journal to the store: one proxy at a time.
//!
//! What is written is the state that a changed key has now, not each change. With it, in the same transaction,
//! the position in the journal moves on, if it stands where this began: so nobody writes an older state over a
//! newer one, however long it stood still.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Shared, Stand};
use crate::cache::{CacheError, JournalPage, Resting, RestingKey};
use crate::coherence::{Answer, Lane, Refusal, Unit};
use crate::engine;
use crate::fault::{self, Point};
use crate::model::{Effect, Entry, JournalId, Key, UnixMs, Value};
use crate::store::{Advance, JournalTurn, TakenTurn};

/// Keys, and bytes of values, after which a transaction has enough.
const KEYS_MAX: usize = 1000;
const BYTES_MAX: usize = 8 << 20;

/// Between two looks at a journal with little in it: a few large transactions take less work than many small ones.
const IDLE: Duration = Duration::from_millis(50);
/// Between two tries to become the one, or behind an error.
const PAUSE: Duration = Duration::from_millis(500);
/// If the position has not moved for so long though there is more, whoever has the turn stands still.
const STALLED: Duration = Duration::from_secs(3);
/// After so long it looks up from the journal, however much is left.
const ROUND: Duration = Duration::from_secs(1);
/// How often keys are looked for that were not changed for long, and how many parts of them then.
const DROP_EVERY: Duration = Duration::from_secs(1);
const DROP_PARTS: usize = 10;
/// Errors at the end after which the journal is left as it is.
const LAST_ERRORS_MAX: u32 = 6;

/// Why it did not go on.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Journal(#[from] CacheError),
    #[error("{0}")]
    Lane(#[from] Refusal),
    #[error("the value of {0:?} cannot be read")]
    Unreadable(Key),
    #[error("{0}")]
    Store(String),
}

/// What there is to do behind a step.
enum Next {
    /// More may come at any time.
    Soon,
    /// Nothing for now: it is another's turn, or all is done at the end.
    Nothing,
}

/// The task, and what it works with.
#[derive(Clone)]
pub(super) struct Drainer {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    /// Keys of one transaction: few after one that was refused, to harm no others.
    keys: usize,
    /// At the end: what is noted after this time (of the journal's server) is for others.
    until_ms: Option<i64>,
}

/// What a round came to.
struct Round {
    /// Up to where the journal is written.
    position: JournalId,
    /// Whether there was nothing more.
    is_done: bool,
}

/// What it remembers from step to step.
struct Course {
    turn: Option<TakenTurn>,
    /// Up to where which journal is written, unless another may have written since.
    known: Option<(Arc<str>, JournalId)>,
    /// Where another proxy's work stood, and since when.
    others: (JournalId, Instant),
    /// Where the drops of idle keys stand.
    cursor: String,
    dropped: Instant,
    /// What was last said of errors.
    told: String,
}

impl Drainer {
    pub(super) fn new(shared: Arc<Shared>, lane: Arc<Lane>) -> Self {
        Self {
            shared,
            lane,
            keys: KEYS_MAX,
            until_ms: None,
        }
    }

    /// Drains whenever it is this proxy's turn; at the end until the journal is empty.
    pub(super) async fn run(mut self) {
        let mut errors_at_the_end = 0;
        let mut course = Course {
            turn: None,
            known: None,
            others: (JournalId::default(), Instant::now()),
            cursor: "0".to_owned(),
            dropped: Instant::now(),
            told: String::new(),
        };
        loop {
            let is_stopping = *self.shared.stopping.borrow();
            match self.step(&mut course).await {
                Ok(Next::Nothing) if is_stopping => return,
                Ok(Next::Soon) if is_stopping => {}
                Ok(Next::Soon) => self.pause(IDLE).await,
                Ok(Next::Nothing) => self.pause(PAUSE).await,
                Err(error) => {
                    self.shared.meters.errors.increment(1);
                    let error = error.to_string();
                    if course.told != error {
                        tracing::warn!(
                            error,
                            "the journal of write-behind keys is written to PostgreSQL later"
                        );
                        course.told = error;
                    }
                    errors_at_the_end += u32::from(is_stopping);
                    if errors_at_the_end >= LAST_ERRORS_MAX {
                        return tracing::warn!(
                            "changes of write-behind keys are left in the journal"
                        );
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Waits so long, or until the end begins.
    async fn pause(&self, time: Duration) {
        let mut stopping = self.shared.stopping.subscribe();
        // Whichever comes first.
        let _ = tokio::time::timeout(time, stopping.wait_for(|stops| *stops)).await;
    }

    /// Drains until the journal is empty, if it is this proxy's turn.
    async fn step(&mut self, course: &mut Course) -> Result<Next, Trouble> {
        let is_stopping = *self.shared.stopping.borrow();
        let Stand::Ready(mark) = self.shared.stand.borrow().clone() else {
            return match is_stopping {
                true => Err(Trouble::Store("the journal is out of use".to_owned())),
                false => Ok(Next::Nothing),
            };
        };
        if course.turn.as_ref().is_none_or(TakenTurn::is_lost) && !self.take_turn(course).await? {
            self.relieve(course, &mark).await?;
            return Ok(Next::Nothing);
        }
        let known = course.known.take().filter(|(of, _)| *of == mark);
        let round = self.drain_or_lose(&mark, known.map(|(_, position)| position));
        let round = round.await?;
        course.known = Some((Arc::clone(&mark), round.position));
        course.told.clear();
        if is_stopping {
            return Ok(if round.is_done {
                Next::Nothing
            } else {
                Next::Soon
            });
        }
        if course.dropped.elapsed() >= DROP_EVERY {
            course.dropped = Instant::now();
            self.drop_idle(course, &mark).await?;
        }
        Ok(Next::Soon)
    }

    async fn take_turn(&self, course: &mut Course) -> Result<bool, Trouble> {
        course.turn = None;
        self.shared.meters.lag.set(0.0);
        let taken = self.shared.store.journal_turn(JournalTurn::Drain).await;
        course.turn = taken.map_err(|error| Trouble::Store(error.to_string()))?;
        if course.turn.is_some() {
            tracing::info!("this proxy writes the journal of write-behind keys to PostgreSQL");
        }
        Ok(course.turn.is_some())
    }

    /// Drains once in place of a proxy that has the turn and stands still. If it goes on in the middle, its
    /// transaction finds another position.
    async fn relieve(&mut self, course: &mut Course, mark: &str) -> Result<(), Trouble> {
        let row = self.shared.store.journal().await;
        let row = row.map_err(|error| Trouble::Store(error.to_string()))?;
        let position = row.map(|row| row.position).unwrap_or_default();
        let next = self.shared.journal.read(mark, position, (1, 1)).await?;
        self.shared.meters.entries.set(next.length as f64);
        if next.to == position || course.others.0 != position {
            course.others = (position, Instant::now());
        } else if course.others.1.elapsed() >= STALLED {
            tracing::warn!(
                "the proxy that writes the journal to PostgreSQL stands still: this one does"
            );
            self.drain_or_lose(mark, None).await?;
        }
        Ok(())
    }

    async fn drain_or_lose(
        &mut self,
        mark: &str,
        known: Option<JournalId>,
    ) -> Result<Round, Trouble> {
        let drained = self.drain(mark, mark, known).await;
        if let Err(Trouble::Journal(error)) = &drained {
            self.shared.lost(mark, &error.to_string());
        }
        drained
    }

    async fn drop_idle(&self, course: &mut Course, mark: &str) -> Result<(), Trouble> {
        for _ in 0..DROP_PARTS {
            let keep = self.shared.keep.as_millis();
            let cursor = std::mem::replace(&mut course.cursor, "0".to_owned());
            let next = self.shared.journal.drop_idle(mark, &cursor, keep).await?;
            if next == "0" {
                break;
            }
            course.cursor = next;
        }
        Ok(())
    }

    /// Writes all of a journal that takes nothing more.
    pub(super) async fn empty(&self, mark: &str, incarnation: &str) -> Result<(), String> {
        let mut drainer = self.clone();
        let mut errors = 0;
        loop {
            match drainer.drain(mark, incarnation, None).await {
                Ok(Round { is_done: true, .. }) => return Ok(()),
                Ok(_) => {}
                // Who had the turn before may be about to end.
                Err(_) if errors < LAST_ERRORS_MAX => {
                    errors += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Up to where the store has the journal; what another has written of it, and had no time to take out,
    /// is taken out.
    async fn position(&self, mark: &str, incarnation: &str) -> Result<JournalId, Trouble> {
        let row = self.shared.store.journal().await;
        let row = row.map_err(|error| Trouble::Store(error.to_string()))?;
        let row = row.filter(|row| row.incarnation == incarnation);
        let row = row.ok_or_else(|| Trouble::Store("PostgreSQL has another journal".to_owned()))?;
        self.shared.journal.trim(mark, row.position).await?;
        Ok(row.position)
    }

    /// Writes what the journal with this mark has, for a while.
    async fn drain(
        &mut self,
        mark: &str,
        incarnation: &str,
        known: Option<JournalId>,
    ) -> Result<Round, Trouble> {
        let started = Instant::now();
        let mut from = match known {
            Some(position) => position,
            None => self.position(mark, incarnation).await?,
        };
        let mut page = self.read(mark, from).await?;
        while page.to != from {
            if *self.shared.stopping.borrow() {
                let until = *self.until_ms.get_or_insert(page.now_ms);
                if from.ms > until {
                    break;
                }
            }
            if started.elapsed() >= ROUND {
                return Ok(Round {
                    position: from,
                    is_done: false,
                });
            }
            let age_ms = (page.now_ms - page.to.ms).max(0);
            self.shared.meters.lag.set(age_ms as f64 / 1000.0);
            self.shared.meters.entries.set(page.length as f64);
            let to = page.to;
            let committing = self.commit(page, incarnation, from);
            // The next are read meanwhile; what they are then is only written if this is.
            let (committed, next) = tokio::join!(committing, self.read(mark, to));
            if let Err(error) = committed {
                let is_own = !matches!(&error, Trouble::Lane(Refusal::StoreAway(_)));
                self.keys = if is_own { 1 } else { self.keys };
                return Err(error);
            }
            self.keys = (self.keys * 2).min(KEYS_MAX);
            self.shared.journal.trim(mark, to).await?;
            (from, page) = (to, next?);
            let is_little = page.keys.len() < KEYS_MAX / 2;
            if is_little && page.to != from && !*self.shared.stopping.borrow() {
                return Ok(Round {
                    position: from,
                    is_done: false,
                });
            }
        }
        self.shared.meters.lag.set(0.0);
        self.shared.meters.entries.set(page.length as f64);
        Ok(Round {
            position: from,
            is_done: true,
        })
    }

    async fn read(&self, mark: &str, from: JournalId) -> Result<JournalPage, CacheError> {
        let limits = (self.keys, BYTES_MAX);
        self.shared.journal.read(mark, from, limits).await
    }

    /// Writes the keys of a page, and that the journal is written so far.
    async fn commit(
        &self,
        page: JournalPage,
        incarnation: &str,
        from: JournalId,
    ) -> Result<(), Trouble> {
        let advance = Advance {
            incarnation: incarnation.to_owned(),
            from,
            to: page.to,
        };
        let effects = page.keys.into_iter().map(effect);
        let effects = effects.collect::<Result<Vec<_>, _>>()?;
        let count = effects.len() as u64;
        fault::reached(Point::BeforeDrain).await;
        let unit = Unit::drained(effects, advance);
        match self.lane.submit(vec![unit]).await?.pop() {
            Some(Answer::Done(_)) => {}
            _ => return Err(Trouble::Lane(Refusal::Stopping)),
        }
        fault::reached(Point::AfterDrain).await;
        self.shared.meters.drained.increment(count);
        Ok(())
    }
}

/// What the store is told of a key.
fn effect(one: RestingKey) -> Result<(Key, Effect), Trouble> {
    let value = match one.held {
        Resting::Nothing => return Ok((one.key, Effect::Delete)),
        Resting::String(value) => Value::String(value),
        Resting::Dump(payload) => match engine::restored(&payload) {
            Ok(value) => value,
            Err(_) => return Err(Trouble::Unreadable(one.key)),
        },
    };
    let entry = Entry {
        value,
        expires_at: one.ends.map(UnixMs),
    };
    Ok((one.key, Effect::Whole(entry)))
}
