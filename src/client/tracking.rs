//! `CLIENT TRACKING` and its like: caches in clients.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::hub::Hub;
use super::local::{error_with, not_an_integer, syntax_error};
use super::registry::Tracks;
use super::state::Client;
use crate::command::Call;
use crate::command::args::is_word;
use crate::model::Reply;
use crate::pubsub::{Broker, Mode, Options, OwnChanges};
use crate::resp::parse_integer;

/// How long the first moments of a connection to Redis are waited for.
const CONNECTION_MAX: Duration = Duration::from_secs(2);

/// What a client asked to be told; it is told no more when this is dropped.
pub struct Tracked {
    broker: Arc<Broker>,
    id: u64,
    mode: Mode,
    own_changes: OwnChanges,
    redirect: u64,
    /// `CLIENT CACHING` was said for the next command.
    is_exception: bool,
}

impl std::fmt::Debug for Tracked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracked")
            .field("mode", &self.mode)
            .field("redirect", &self.redirect)
            .finish_non_exhaustive()
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.broker.tracking().end(self.id);
        self.broker.end_tracking();
    }
}

impl Tracked {
    /// Whether keys that the next command reads are remembered.
    pub fn remembers(&self) -> bool {
        match self.mode {
            Mode::Default => true,
            Mode::OptIn => self.is_exception,
            Mode::OptOut => !self.is_exception,
            Mode::Broadcast => false,
        }
    }

    /// A command other than `CLIENT` was there: an exception is over.
    pub fn after_command(&mut self) {
        self.is_exception = false;
    }

    /// What `CLIENT LIST` shows.
    pub fn shown(&self) -> Tracks {
        match self.mode {
            Mode::Broadcast => Tracks::Prefixes(self.redirect),
            Mode::Default | Mode::OptIn | Mode::OptOut => Tracks::Reads(self.redirect),
        }
    }

    /// The words of `CLIENT TRACKINGINFO`.
    fn words(&self) -> Vec<&'static str> {
        let mut words = vec!["on"];
        match self.mode {
            Mode::Default => {}
            Mode::Broadcast => words.push("bcast"),
            Mode::OptIn => {
                words.push("optin");
                words.extend(self.is_exception.then_some("caching-yes"));
            }
            Mode::OptOut => {
                words.push("optout");
                words.extend(self.is_exception.then_some("caching-no"));
            }
        }
        if self.own_changes == OwnChanges::Untold {
            words.push("noloop");
        }
        if self.broker.tracking().is_broken(self.id) {
            words.push("broken_redirect");
        }
        words
    }
}

/// `CLIENT TRACKINGINFO`.
pub fn info(client: &Client, hub: &Hub) -> Reply {
    let (words, prefixes) = match &client.tracked {
        Some(tracked) => {
            let prefixes = hub.flow.broker().tracking().prefixes(client.entry.id);
            (tracked.words(), prefixes)
        }
        None => (vec!["off"], Vec::new()),
    };
    let words = words.into_iter().map(Reply::bulk).collect();
    let prefixes = prefixes.into_iter().map(Reply::Bulk).collect();
    Reply::Map(vec![
        (Reply::bulk("flags"), Reply::Set(words)),
        (Reply::bulk("redirect"), redirect(client)),
        (Reply::bulk("prefixes"), Reply::Array(prefixes)),
    ])
}

/// `CLIENT GETREDIR`.
pub fn redirect(client: &Client) -> Reply {
    Reply::Integer(match &client.tracked {
        Some(tracked) => i64::try_from(tracked.redirect).unwrap_or(i64::MAX),
        None => -1,
    })
}

/// `CLIENT CACHING YES|NO`.
pub fn caching(client: &mut Client, call: &Call) -> Reply {
    let Some(tracked) = &mut client.tracked else {
        return Reply::error(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with \
             OPTIN or OPTOUT mode enabled",
        );
    };
    let wish = call.request.arg(2);
    let (mode, error) = if is_word(wish, "YES") {
        (
            Mode::OptIn,
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        )
    } else if is_word(wish, "NO") {
        (
            Mode::OptOut,
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        )
    } else {
        return syntax_error();
    };
    if tracked.mode != mode {
        return Reply::error(error);
    }
    tracked.is_exception = true;
    Reply::OK
}

/// The options of `CLIENT TRACKING` as they were written.
#[derive(Default)]
struct Wishes {
    redirect: Option<u64>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    own_changes: OwnChanges,
    prefixes: Vec<Bytes>,
}

impl Wishes {
    fn read(hub: &Hub, call: &Call) -> Result<Self, Reply> {
        let request = &call.request;
        let mut wishes = Self::default();
        let mut at = 3;
        while at < request.len() {
            let option = request.arg(at);
            let has_value = at + 1 < request.len();
            if is_word(option, "REDIRECT") && has_value {
                at += 1;
                wishes.read_redirect(hub, request.arg(at))?;
            } else if is_word(option, "BCAST") {
                wishes.broadcast = true;
            } else if is_word(option, "OPTIN") {
                wishes.opt_in = true;
            } else if is_word(option, "OPTOUT") {
                wishes.opt_out = true;
            } else if is_word(option, "NOLOOP") {
                wishes.own_changes = OwnChanges::Untold;
            } else if is_word(option, "PREFIX") && has_value {
                at += 1;
                wishes
                    .prefixes
                    .push(Bytes::copy_from_slice(request.arg(at)));
            } else {
                return Err(syntax_error());
            }
            at += 1;
        }
        Ok(wishes)
    }

    fn read_redirect(&mut self, hub: &Hub, text: &[u8]) -> Result<(), Reply> {
        if self.redirect.is_some_and(|id| id != 0) {
            return Err(Reply::error(
                "ERR A client can only redirect to a single other client",
            ));
        }
        let id = parse_integer(text).ok_or_else(not_an_integer)?;
        let known = u64::try_from(id).ok().and_then(|id| hub.registry.find(id));
        let known = known
            .ok_or_else(|| Reply::error("ERR The client ID you want redirect to does not exist"))?;
        self.redirect = Some(known.id);
        Ok(())
    }

    /// What they mean for a client that tracks by `before` now.
    fn mode(&self, before: Option<&Tracked>) -> Result<Mode, Reply> {
        let refuse = |text: &str| Err(Reply::error(text));
        if !self.broadcast && !self.prefixes.is_empty() {
            return refuse("ERR PREFIX option requires BCAST mode to be enabled");
        }
        let mode_before = before.map(|tracked| tracked.mode);
        if mode_before.is_some_and(|mode| (mode == Mode::Broadcast) != self.broadcast) {
            return refuse(
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            );
        }
        if self.broadcast && (self.opt_in || self.opt_out) {
            return refuse("ERR OPTIN and OPTOUT are not compatible with BCAST");
        }
        if self.opt_in && self.opt_out {
            return refuse("ERR You can't specify both OPTIN mode and OPTOUT mode");
        }
        if (self.opt_in && mode_before == Some(Mode::OptOut))
            || (self.opt_out && mode_before == Some(Mode::OptIn))
        {
            return refuse(
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, \
                 and then re-enabling it with a different mode.",
            );
        }
        Ok(match (self.broadcast, self.opt_in, self.opt_out) {
            (true, ..) => Mode::Broadcast,
            (_, true, _) => Mode::OptIn,
            (_, _, true) => Mode::OptOut,
            _ => Mode::Default,
        })
    }

    /// Prefixes of one client must not overlap, nor one of them stand twice.
    fn check_prefixes(&self, existing: &[Bytes]) -> Result<(), Reply> {
        let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
        for (index, prefix) in self.prefixes.iter().enumerate() {
            if let Some(other) = existing.iter().find(|other| overlap(other, prefix)) {
                return Err(overlapping(prefix, "an existing", other));
            }
            let others = &self.prefixes[index + 1..];
            if let Some(other) = others.iter().find(|other| overlap(other, prefix)) {
                return Err(overlapping(prefix, "another provided", other));
            }
        }
        Ok(())
    }
}

fn overlapping(prefix: &[u8], which: &str, other: &[u8]) -> Reply {
    let between = format!("' overlaps with {which} prefix '");
    let Reply::Error(start) = error_with("ERR Prefix '", prefix, &between) else {
        return syntax_error();
    };
    let start = String::from_utf8_lossy(&start).into_owned();
    let end = "'. Prefixes for a single client must not overlap.";
    error_with(&start, other, end)
}

/// `CLIENT TRACKING ON|OFF ...`.
pub async fn tracking(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    let reply = switch(client, hub, call).await;
    client.publish();
    reply.err().unwrap_or(Reply::OK)
}

async fn switch(client: &mut Client, hub: &Hub, call: &Call) -> Result<(), Reply> {
    let wishes = Wishes::read(hub, call)?;
    let wish = call.request.arg(2);
    if is_word(wish, "OFF") {
        client.tracked = None;
        return Ok(());
    }
    if !is_word(wish, "ON") {
        return Err(syntax_error());
    }
    let mode = wishes.mode(client.tracked.as_deref())?;
    let id = client.entry.id;
    let broker = hub.flow.broker();
    if mode == Mode::Broadcast {
        wishes.check_prefixes(&broker.tracking().prefixes(id))?;
    }
    let mut prefixes = wishes.prefixes;
    if mode == Mode::Broadcast && prefixes.is_empty() {
        prefixes.push(Bytes::new());
    }
    let bytes_max = hub.config().limits.output_buffer.as_usize();
    let target = wishes.redirect.and_then(|id| hub.registry.find(id));
    let redirect = target.map(|entry| (entry.id, Arc::clone(entry.mailbox(bytes_max))));
    let options = Options {
        mode,
        own_changes: wishes.own_changes,
        prefixes,
        redirect,
    };
    broker.await_open(CONNECTION_MAX).await;
    broker
        .tracking()
        .begin(id, client.mailbox(hub), client.protocol, options);
    match &mut client.tracked {
        Some(tracked) => {
            tracked.mode = mode;
            tracked.own_changes = wishes.own_changes;
            tracked.redirect = wishes.redirect.unwrap_or(0);
        }
        None => {
            client.tracked = Some(Box::new(Tracked {
                broker: Arc::clone(broker),
                id,
                mode,
                own_changes: wishes.own_changes,
                redirect: wishes.redirect.unwrap_or(0),
                is_exception: false,
            }));
        }
    }
    broker.begin_tracking().await;
    Ok(())
}
