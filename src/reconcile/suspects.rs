//! Keys that seemed to differ are looked at again, twice, under conditions that leave no other
//! explanation.

use std::time::Duration;

use super::compare::{Difference, Verdict};
use super::run::{Failure, Reconciler};
use crate::model::Key;
use crate::store::LoadRequest;

/// Between two looks at a key.
const PAUSE: Duration = Duration::from_millis(300);
/// Rounds in which a key may be in change before it counts as undecided.
const ROUNDS_MAX: u32 = 20;

/// A key, and in what the last good look found that it differs.
struct Suspect {
    key: Key,
    seen: Option<Difference>,
}

/// What became of suspects.
#[derive(Debug, Default)]
pub(super) struct Judged {
    /// They differ.
    pub differ: Vec<(Key, Difference)>,
    /// They were changed whenever they were looked at.
    pub undecided: u64,
}

impl Reconciler {
    /// Judges keys that a first look found to differ.
    pub(super) async fn judge(&mut self, keys: Vec<Key>) -> Result<Judged, Failure> {
        let mut judged = Judged::default();
        let mut open: Vec<Suspect> = keys
            .into_iter()
            .map(|key| Suspect { key, seen: None })
            .collect();
        for _ in 0..ROUNDS_MAX {
            if open.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            let mut left = Vec::new();
            for chunk in std::mem::take(&mut open).chunks_mut(Self::BATCH) {
                self.look_again(chunk, &mut left, &mut judged).await?;
            }
            open = left;
        }
        judged.undecided += open.len() as u64;
        Ok(judged)
    }

    /// One good look at each: the same version in the store before and after, no writers, and no
    /// change made by SQL of which the cache was not told.
    async fn look_again(
        &mut self,
        suspects: &mut [Suspect],
        left: &mut Vec<Suspect>,
        judged: &mut Judged,
    ) -> Result<(), Failure> {
        let keys: Vec<Key> = suspects.iter().map(|suspect| suspect.key.clone()).collect();
        let headers = keys.iter().cloned().map(LoadRequest::header).collect();
        let before = self.load(headers).await?;
        let looked = self.look(&keys).await?;
        // After the look: what was told by now is shown to the next.
        let untold = self.are_untold(&keys).await?;
        let seen = suspects.iter_mut().zip(before.keys).zip(looked).zip(untold);
        for (((suspect, before), (verdict, version)), is_untold) in seen {
            let suspect = Suspect {
                key: suspect.key.clone(),
                seen: suspect.seen.take(),
            };
            match verdict {
                Some(Verdict::Same | Verdict::Uncached) | None => {}
                Some(_) if is_untold => left.push(suspect),
                Some(Verdict::Differs(found)) if version == before.version => match suspect.seen {
                    Some(seen) if seen.version == found.version && seen.kind == found.kind => {
                        judged.differ.push((suspect.key, found));
                    }
                    _ => left.push(Suspect {
                        seen: Some(found),
                        ..suspect
                    }),
                },
                Some(Verdict::Differs(_) | Verdict::Written) => left.push(suspect),
            }
        }
        Ok(())
    }
}
