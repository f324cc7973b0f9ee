//! Which journal is in use, and whether it may be.
//!
//! The journal's server holds a mark: a random number, and which keys are write-behind. The store's row names the
//! same one, and how far that journal is written. Whatever runs there is refused under another mark.

use std::sync::Arc;
use std::time::Duration;

use super::drain::Drainer;
use super::{Shared, Stand};
use crate::cache::{JournalFound, Resting};
use crate::config::UnsafeJournal;
use crate::engine;
use crate::store::{JournalRow, JournalTurn};

/// Between two tries to bring the journal into use: at first, and later.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(1);

/// Behind the mark of a journal that takes nothing more, because it is about to be replaced.
const CLOSED: char = '!';

/// Brings the journal into use, again and again.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    drainer: Drainer,
    /// What was last said of it.
    told: String,
    has_warned: bool,
    /// Whether it was in use since this proxy started.
    was_ready: bool,
}

/// The number of a mark, and which keys are write-behind under it.
pub(super) fn digest(mark: &str) -> &str {
    let open = mark.trim_end_matches(CLOSED);
    open.split_once(':').map_or("", |(_, digest)| digest)
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, drainer: Drainer) -> Self {
        Self {
            shared,
            drainer,
            told: String::new(),
            has_warned: false,
            was_ready: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut stand = self.shared.stand.subscribe();
        loop {
            let mut pause = RETRY_FIRST;
            loop {
                match self.adopt().await {
                    Ok(mark) => {
                        self.told.clear();
                        self.was_ready = true;
                        self.shared.meters.is_up.set(1.0);
                        tracing::info!(mark, "the journal of write-behind keys is in use");
                        self.shared.stand.send_replace(Stand::Ready(mark.into()));
                        break;
                    }
                    Err(why) => self.tell(why),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
            let is_out = |stand: &Stand| matches!(stand, Stand::Out(_));
            let why = match stand.wait_for(is_out).await.as_deref() {
                Ok(Stand::Out(why)) => why.to_string(),
                Ok(Stand::Ready(_)) => continue,
                Err(_) => return,
            };
            self.tell(why);
        }
    }

    /// Says why it is out of use, once.
    fn tell(&mut self, why: String) {
        self.shared.meters.is_up.set(0.0);
        self.shared
            .stand
            .send_replace(Stand::Out(why.as_str().into()));
        if self.told != why {
            tracing::warn!(why, "the journal of write-behind keys is out of use");
            self.told = why;
        }
    }

    /// The mark of the journal that may be used now; or why none may.
    async fn adopt(&mut self) -> Result<String, String> {
        // In this order: what the store says is written was there before.
        let row = self.row().await?;
        let found = self.found().await?;
        let mark = match row.as_ref().and_then(|row| self.usable(&found, row)) {
            Some(mark) => mark,
            None => {
                let turn = self.shared.store.journal_turn(JournalTurn::SetUp).await;
                let turn = turn.map_err(|error| error.to_string())?;
                let _turn = turn.ok_or("another proxy is about to set it up")?;
                let row = self.row().await?;
                let found = self.found().await?;
                self.set_up(found, row).await?
            }
        };
        self.check_format(&mark).await?;
        Ok(mark)
    }

    async fn row(&self) -> Result<Option<JournalRow>, String> {
        let row = self.shared.store.journal().await;
        row.map_err(|error| error.to_string())
    }

    /// What is there, if it is fit to be used at all.
    async fn found(&mut self) -> Result<JournalFound, String> {
        let found = self.shared.journal.probe().await;
        let found = found.map_err(|error| error.to_string())?;
        if !found.identity.is_primary {
            return Err("its server is a replica".to_owned());
        }
        let fence = self.shared.store.fence().await;
        let cache = fence.map_err(|error| error.to_string())?.run_id;
        if cache.is_some_and(|run_id| run_id == found.identity.run_id) {
            return Err("its server is the cache: it needs one of its own".to_owned());
        }
        if !found.dangers.is_empty() {
            let dangers = found.dangers.join("; ");
            if self.shared.on_unsafe == UnsafeJournal::Refuse {
                return Err(format!(
                    "its server may lose what it acknowledges: {dangers} (or set [write_behind] \
                     on_unsafe_journal)"
                ));
            }
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(
                    dangers,
                    "acknowledged writes of write-behind keys may be lost"
                );
            }
        }
        Ok(found)
    }

    /// The mark that was found, if it may be used as it is.
    fn usable(&self, found: &JournalFound, row: &JournalRow) -> Option<String> {
        let mark = found.mark.as_ref()?;
        let is_it = *mark == row.incarnation && digest(mark) == self.shared.digest;
        (is_it && !mark.ends_with(CLOSED) && row.position <= found.last).then(|| mark.clone())
    }

    /// Makes it usable.
    async fn set_up(
        &mut self,
        found: JournalFound,
        row: Option<JournalRow>,
    ) -> Result<String, String> {
        let Some(mark) = found.mark.clone() else {
            if !found.is_empty {
                return Err(
                    "database 0 of its server holds what is not Freshet's: it must be empty at first"
                        .to_owned(),
                );
            }
            if let Some(row) = row {
                tracing::error!(
                    lost = row.incarnation,
                    written_to = %row.position,
                    "the journal of write-behind keys is gone: its server is empty. What was not \
                     written to PostgreSQL is lost"
                );
            }
            return self.renew("").await;
        };
        let Some(row) = row else {
            return Err(format!(
                "its server holds the journal {mark} of another database than this one"
            ));
        };
        if mark == row.replaced && mark != row.incarnation {
            // Somebody stopped just there.
            self.begin(&mark, &row.incarnation).await?;
            return Err("it was set up to the end; once more".to_owned());
        }
        let open = mark.trim_end_matches(CLOSED);
        if open != row.incarnation {
            return Err(format!(
                "its server holds the journal {open}, and PostgreSQL knows {}: one of them is of \
                 another time or place. To begin anew, and lose what only the journal has, empty that \
                 server's database 0",
                row.incarnation
            ));
        }
        if row.position > found.last {
            tracing::error!(
                mark,
                written_to = %row.position,
                ends_at = %found.last,
                "the journal of write-behind keys has lost its latest past; PostgreSQL has all that \
                 is left in it, and more"
            );
            return self.renew(&mark).await;
        }
        if digest(open) != self.shared.digest {
            return self.take_over(&mark, open).await;
        }
        if open != mark {
            self.set_mark(&mark, open).await?;
        }
        Ok(open.to_owned())
    }

    /// The journal is of other keys. Only who has just been started knows better which these are.
    async fn take_over(&mut self, mark: &str, open: &str) -> Result<String, String> {
        if self.was_ready {
            return Err(
                "another proxy was started with other write-behind routes: give all the same, and \
                 restart this one"
                    .to_owned(),
            );
        }
        let closed = format!("{open}{CLOSED}");
        if mark != closed {
            self.set_mark(mark, &closed).await?;
        }
        tracing::info!(
            "the write-behind routes are new: what was changed under the old ones is written first"
        );
        self.drainer.empty(&closed, open).await?;
        self.renew(&closed).await
    }

    /// Begins an empty journal in place of `old`.
    async fn renew(&self, old: &str) -> Result<String, String> {
        let number: u64 = rand::random();
        let new = format!("{number:016x}:{}", self.shared.digest);
        let begun = self.shared.store.begin_journal(&new, old).await;
        begun.map_err(|error| error.to_string())?;
        self.begin(old, &new).await?;
        Ok(new)
    }

    async fn begin(&self, old: &str, new: &str) -> Result<(), String> {
        let begun = self.shared.journal.begin(old, new).await;
        begun.map_err(|error| error.to_string())
    }

    async fn set_mark(&self, old: &str, new: &str) -> Result<(), String> {
        let set = self.shared.journal.set_mark(old, new).await;
        set.map_err(|error| error.to_string())
    }

    /// Values come from there as `DUMP` gives them: in a format that must be known here.
    async fn check_format(&self, mark: &str) -> Result<(), String> {
        let dump = self.shared.journal.dump_of_mark().await;
        let dump = dump.map_err(|error| error.to_string())?;
        match dump {
            Resting::Dump(payload) => engine::restored(&payload).map(drop).map_err(|_| {
                "its server dumps values in a newer format than Redis 7.0's, which cannot be read"
                    .to_owned()
            }),
            _ => Err(format!("the mark {mark} went away")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn a_mark_tells_which_keys_are_write_behind() {
        assert_eq!(digest("00ff:abcd"), "abcd");
        assert_eq!(digest("00ff:abcd!"), "abcd");
        assert_eq!(digest("00ff:"), "");
    }
}
