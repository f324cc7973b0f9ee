//! What `XREADGROUP` gives to a consumer.

use bytes::Bytes;

use super::entry;
use super::id::Id;
use super::rebuild::{claim_begin, claim_end, set_group_id};
use super::state::{self, Group, Header, Pending, entries_from};
use super::{log_ids, words};
use crate::model::{Collection, NotLoaded, Reply};

/// Whether what is delivered stays pending until it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    Expected,
    /// `NOACK`.
    None,
}

/// A consumer that reads.
pub(super) struct Reader {
    pub group: Bytes,
    pub consumer: Bytes,
    /// So many entries of each stream.
    pub limit: usize,
    pub acknowledgement: Acknowledgement,
    pub now_ms: i64,
}

/// What a reader is given of one stream.
pub(super) struct Delivery {
    pub reply: Vec<Reply>,
    is_new_consumer: bool,
    /// What the group has read now, if more than before.
    progress: Option<Group>,
    /// Entries now pending, and how often they were delivered.
    pending: Vec<(Id, u64)>,
}

impl Reader {
    /// What the group was not given yet; `None` if there is nothing.
    pub fn undelivered(&self, stream: &Collection) -> Result<Option<Delivery>, NotLoaded> {
        let Some(mut group) = Group::load(stream, &self.group)? else {
            return Ok(None);
        };
        let Some(start) = group.last.next().filter(|_| !stream.is_empty()) else {
            return Ok(None);
        };
        let found = entries_from(stream, start, self.limit)?;
        if found.is_empty() {
            return Ok(None);
        }
        let counter = Counter::of(stream);
        let mut pending = Vec::new();
        for (id, _) in &found {
            group.read = counter.after_reading(group.read, *id)?;
            group.last = *id;
            if self.acknowledgement == Acknowledgement::Expected {
                if *id <= group.highest_pending {
                    // Seen to be loaded; whose it was does not matter.
                    Pending::load(stream, &self.group, *id)?;
                }
                pending.push((*id, 1));
            }
        }
        let reply = found.into_iter();
        Ok(Some(Delivery {
            reply: reply
                .map(|(id, element)| entry::reply(id, element))
                .collect(),
            is_new_consumer: self.is_new(stream)?,
            progress: Some(group),
            pending,
        }))
    }

    /// What is pending with the consumer, behind `id`. Entries that are gone from
    /// the stream are told without content.
    pub fn history(&self, stream: &Collection, id: Id) -> Result<Delivery, NotLoaded> {
        let mut delivery = Delivery {
            reply: Vec::new(),
            is_new_consumer: self.is_new(stream)?,
            progress: None,
            pending: Vec::new(),
        };
        for (id, held) in self.own_pending(stream, id)? {
            match stream.get(&id.field())? {
                Some(element) => {
                    delivery.reply.push(entry::reply(id, element));
                    delivery.pending.push((id, held.count.wrapping_add(1)));
                }
                None => {
                    let gone = Reply::Array(vec![id.reply(), Reply::NullArray]);
                    delivery.reply.push(gone);
                }
            }
        }
        Ok(delivery)
    }

    /// The entries that [`Reader::history`] tells of and that are not known.
    pub fn unknown_history(&self, stream: &Collection, id: Id) -> Result<Vec<Bytes>, NotLoaded> {
        let own = self.own_pending(stream, id)?.into_iter();
        let fields = own.map(|(id, _)| id.field());
        Ok(fields.filter(|field| stream.get(field).is_err()).collect())
    }

    fn own_pending(&self, stream: &Collection, id: Id) -> Result<Vec<(Id, Pending)>, NotLoaded> {
        let all = state::pending(stream, &self.group)?.into_iter();
        let own = all.filter(|(other, held)| *other > id && held.consumer == self.consumer);
        Ok(own.take(self.limit).collect())
    }

    fn is_new(&self, stream: &Collection) -> Result<bool, NotLoaded> {
        Ok(state::seen(stream, &self.group, &self.consumer)?.is_none())
    }
}

impl Delivery {
    /// Whether anything is to be noted.
    pub fn changes_anything(&self) -> bool {
        self.is_new_consumer || self.progress.is_some() || !self.pending.is_empty()
    }

    /// Notes what was delivered.
    pub fn apply(&self, reader: &Reader, stream: &mut Collection) -> Result<(), NotLoaded> {
        let (group, consumer) = (&reader.group, &reader.consumer);
        state::see(stream, group, consumer, reader.now_ms)?;
        if self.is_new_consumer {
            let mut command = words(&["XGROUP", "CREATECONSUMER"]);
            command.extend([group.clone(), consumer.clone()]);
            stream.log(command);
        }
        let deliveries: Vec<(Id, Pending)> = self
            .pending
            .iter()
            .map(|(id, count)| {
                let held = Pending {
                    delivered: reader.now_ms,
                    count: *count,
                    consumer: consumer.clone(),
                };
                (*id, held)
            })
            .collect();
        hold(stream, group, self.progress, &deliveries)?;
        if let Some(progress) = self.progress {
            stream.log(set_group_id(group, &progress));
        }
        Ok(())
    }
}

/// Puts entries among those pending, each as it says. `group` is the group as
/// it shall be from now on, if that changes too.
pub(super) fn hold(
    stream: &mut Collection,
    name: &Bytes,
    group: Option<Group>,
    deliveries: &[(Id, Pending)],
) -> Result<(), NotLoaded> {
    let before = Group::load(stream, name)?;
    let mut group = group.or(before).unwrap_or(Group::new(Id::MIN, None));
    let highest = before.map_or(Id::MAX, |group| group.highest_pending);
    for (id, held) in deliveries {
        if *id > highest {
            stream.set_absent(state::pending_field(name, *id));
        }
        held.store(stream, name, *id)?;
        group.highest_pending = group.highest_pending.max(*id);
    }
    if Some(group) != before {
        group.store(stream, name)?;
    }
    let alike = |one: &(Id, Pending), other: &(Id, Pending)| one.1 == other.1;
    for run in deliveries.chunk_by(alike) {
        let (_, held) = &run[0];
        let ids: Vec<Id> = run.iter().map(|(id, _)| *id).collect();
        let before = claim_begin(name, &held.consumer);
        log_ids(
            stream,
            &before,
            &ids,
            &claim_end(held.delivered, held.count),
        );
    }
    Ok(())
}

/// Tells how many of the entries that were ever added come up to an id, as far
/// as that can be told: `XINFO` calls it `entries-read`, and the rest `lag`.
pub(super) struct Counter<'a> {
    stream: &'a Collection,
    header: Header,
}

impl<'a> Counter<'a> {
    pub fn of(stream: &'a Collection) -> Self {
        Self {
            stream,
            header: Header::of(stream),
        }
    }

    /// What a group that had read so many has read once it gets the entry `id`.
    fn after_reading(&self, read: Option<u64>, id: Id) -> Result<Option<u64>, NotLoaded> {
        match read {
            Some(read) if !self.has_gap_from(id)? => Ok(Some(read.wrapping_add(1))),
            read if self.header.added == 0 => Ok(read),
            _ => self.up_to(id),
        }
    }

    /// How many entries a group has still to read, if that can be told.
    pub fn lag(&self, group: &Group) -> Result<Option<u64>, NotLoaded> {
        let added = self.header.added;
        if added == 0 {
            return Ok(Some(0));
        }
        let read = match group.read {
            Some(read) if !self.has_gap_from(group.last)? => Some(read),
            _ => self.up_to(group.last)?,
        };
        Ok(read.map(|read| added.wrapping_sub(read)))
    }

    /// Whether an entry at or above `id` was deleted that had others before it.
    fn has_gap_from(&self, id: Id) -> Result<bool, NotLoaded> {
        let highest = self.header.max_deleted;
        if highest.is_zero() || id > highest {
            return Ok(false);
        }
        let first = state::first_entry(self.stream)?;
        Ok(first.is_some_and(|(first, _)| first <= highest))
    }

    /// How many come up to `id`; `None` where deletions leave that open.
    pub fn up_to(&self, id: Id) -> Result<Option<u64>, NotLoaded> {
        let Header {
            last,
            max_deleted,
            added,
            ..
        } = self.header;
        let length = self.stream.len();
        if added == 0 || length == 0 && id <= last || id == last {
            return Ok(Some(added));
        }
        if id > last {
            return Ok(None);
        }
        let first = state::first_entry(self.stream)?.map_or(Id::MIN, |(first, _)| first);
        if !max_deleted.is_zero() && max_deleted >= first || id > first {
            return Ok(None);
        }
        let before = added.wrapping_sub(length);
        Ok(Some(before.wrapping_add(u64::from(id == first))))
    }
}
