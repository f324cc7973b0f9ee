//! `CLIENT PAUSE` and `UNPAUSE`: commands of all clients of this proxy wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::hub::Hub;
use super::local::subcommand_error;
use super::state::Client;
use crate::command::args::is_word;
use crate::command::{Call, flags};
use crate::model::Reply;
use crate::resp::parse_integer;

/// The longest pause; Redis has none, but its end must be a moment in time.
const PAUSE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Which commands wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Those that may write, or publish.
    Writes,
    /// All.
    All,
}

/// A pause, until it ends or is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Running {
    kind: Kind,
    end: Instant,
}

/// Whether a pause of writes is for this call: also for those that replicas
/// would hear of, though they change no key.
fn may_write(call: &Call) -> bool {
    let is_told = matches!(
        call.command.name,
        "PUBLISH" | "SPUBLISH" | "PFCOUNT" | "EVAL" | "EVALSHA" | "FCALL"
    );
    is_told || call.command.flags.has(flags::WRITE)
}

/// The pause of a server, if there is one.
#[derive(Debug)]
pub struct Pause {
    /// Whether there may be one; to look without a lock.
    is_on: AtomicBool,
    running: watch::Sender<Option<Running>>,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            running: watch::Sender::new(None),
        }
    }
}

impl Pause {
    /// Whether `call` has to wait now.
    pub fn holds(&self, client: &Client, call: &Call) -> bool {
        if !self.is_on.load(Ordering::Acquire) {
            return false;
        }
        let running = *self.running.borrow();
        let Some(running) = running else {
            return false;
        };
        if running.end <= Instant::now() {
            self.end_if_over();
            return false;
        }
        running.kind == Kind::All
            || may_write(call)
            || (call.command.name == "EXEC" && client.mode.queued().iter().any(may_write))
    }

    /// Waits until the pause is over, or has changed.
    pub async fn over(&self) {
        let mut running = self.running.subscribe();
        let Some(now) = *running.borrow_and_update() else {
            return;
        };
        // Both outcomes mean: look again.
        let _ = timeout_at(now.end, running.changed()).await;
    }

    /// Begins a pause, or makes one stricter and longer.
    fn begin(&self, kind: Kind, end: Instant) {
        self.running.send_modify(|running| {
            self.is_on.store(true, Ordering::Release);
            let known = running.filter(|running| running.end > Instant::now());
            *running = Some(match known {
                Some(known) => Running {
                    kind: known.kind.max(kind),
                    end: known.end.max(end),
                },
                None => Running { kind, end },
            });
        });
    }

    /// Ends the pause.
    pub fn end(&self) {
        self.running.send_modify(|running| {
            self.is_on.store(false, Ordering::Release);
            *running = None;
        });
    }

    fn end_if_over(&self) {
        self.running.send_if_modified(|running| {
            let is_over = running.is_some_and(|running| running.end <= Instant::now());
            if is_over {
                self.is_on.store(false, Ordering::Release);
                *running = None;
            }
            is_over
        });
    }
}

/// `CLIENT PAUSE milliseconds [WRITE|ALL]`.
pub fn pause(hub: &Hub, call: &Call) -> Reply {
    let request = &call.request;
    let kind = match request.len() {
        3 => Kind::All,
        4 if is_word(request.arg(3), "WRITE") => Kind::Writes,
        4 if is_word(request.arg(3), "ALL") => Kind::All,
        4 => return Reply::error("ERR CLIENT PAUSE mode must be WRITE or ALL"),
        _ => return subcommand_error(call),
    };
    match parse_integer(request.arg(2)).map(u64::try_from) {
        None => Reply::error("ERR timeout is not an integer or out of range"),
        Some(Err(_)) => Reply::error("ERR timeout is negative"),
        Some(Ok(ms)) => {
            let time = Duration::from_millis(ms).min(PAUSE_MAX);
            hub.pause.begin(kind, Instant::now() + time);
            Reply::OK
        }
    }
}

/// `CLIENT UNPAUSE`.
pub fn unpause(hub: &Hub) -> Reply {
    hub.pause.end();
    Reply::OK
}
