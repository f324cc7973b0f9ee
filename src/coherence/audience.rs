//! Who is told of commits.

use std::sync::Arc;

use crate::model::{Event, EventClasses, Key, Request};

/// A key that a commit changed.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Which.
    pub key: &'a Key,
    /// The client that changed it, if it was one and is known.
    pub author: Option<u64>,
}

/// Hears of each batch once it is committed, in the order of commits.
///
/// The cache may not have been told yet; but its old content is hidden by then,
/// so whoever reads because of what is heard reads the new.
///
/// The methods are called by the commit lane: they must not wait.
pub trait Audience: Send + Sync {
    /// The classes of events that anybody may want to hear of.
    fn event_classes(&self) -> EventClasses;

    /// Whether [`Self::hear_changes`] is to be called.
    fn wants_changes(&self) -> bool;

    /// Whether anybody is to be told of keys whose end has passed.
    fn wants_ends(&self) -> bool;

    /// These events happened, in this order.
    fn hear_events(&self, events: &[Event]);

    /// A script asked for this `PUBLISH` or `SPUBLISH`.
    fn publish(&self, request: &Request);

    /// These keys changed.
    fn hear_changes(&self, changes: &[Change<'_>]);

    /// Any key may have changed.
    fn hear_flush(&self);

    /// Lets `ear` hear of what other proxies commit from now on.
    fn begin_hearing(&self, ear: Arc<dyn Ear>);

    /// Ends that.
    fn end_hearing(&self);
}

/// Hears of what other proxies committed. A message may be lost.
pub trait Ear: Send + Sync {
    /// These keys changed.
    fn hear(&self, keys: &[Key]);

    /// Any key may have changed unheard.
    fn doubt(&self);
}
