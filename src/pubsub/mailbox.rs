//! Mail that waits for a client until its connection writes it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::{BufMut, Bytes, BytesMut};

use super::frames;
use crate::model::Protocol;

/// What a piece of mail takes beside its bytes.
const MAIL_BYTES: usize = 64;

/// Wakes a connection that waits for its client.
#[derive(Debug, Default)]
pub struct Bell {
    waker: Mutex<Option<Waker>>,
}

impl Bell {
    /// Called by the connection's task whenever it begins to wait.
    pub fn will_wait(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        match &mut *slot {
            Some(known) => known.clone_from(waker),
            None => *slot = Some(waker.clone()),
        }
    }

    /// Makes the connection look around, if it waits.
    pub fn ring(&self) {
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One piece of mail.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    /// A message as RESP3 pushes it; in RESP2 it is an array.
    Message(Bytes),
    /// A push that RESP2 has no form for.
    Push(Bytes),
    /// Encoded keys that the client should forget, for itself.
    Invalid(Bytes),
    /// The same, for a client that redirects its invalidations to this one.
    InvalidOfOther(Bytes),
}

impl Mail {
    fn len(&self) -> usize {
        let (Self::Message(bytes)
        | Self::Push(bytes)
        | Self::Invalid(bytes)
        | Self::InvalidOfOther(bytes)) = self;
        bytes.len()
    }
}

#[derive(Debug, Default)]
struct Queue {
    mail: VecDeque<Mail>,
    bytes: usize,
}

/// The mail of one client, bounded in bytes.
#[derive(Debug)]
pub struct Mailbox {
    bell: Arc<Bell>,
    bytes_max: usize,
    queue: Mutex<Queue>,
    /// Something is in the queue; to look without the lock.
    has_mail: AtomicBool,
    /// More came than is kept: the client reads too slowly, and is to be cut off.
    is_overfull: AtomicBool,
    /// The client is gone.
    is_closed: AtomicBool,
}

impl Mailbox {
    /// An empty one that holds up to `bytes_max` bytes; `bell` wakes its client's connection.
    pub fn new(bell: Arc<Bell>, bytes_max: usize) -> Self {
        Self {
            bell,
            bytes_max,
            queue: Mutex::default(),
            has_mail: AtomicBool::new(false),
            is_overfull: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        }
    }

    /// Puts mail in, unless the client is gone or lost.
    pub(super) fn put(&self, mail: Mail) {
        if self.is_closed() || self.is_overfull() {
            return;
        }
        {
            let mut queue = lock(&self.queue);
            queue.bytes += mail.len() + MAIL_BYTES;
            if queue.bytes > self.bytes_max {
                *queue = Queue::default();
                self.is_overfull.store(true, Ordering::Release);
            } else {
                queue.mail.push_back(mail);
            }
            self.has_mail.store(true, Ordering::Release);
        }
        self.bell.ring();
    }

    /// Whether there is something to do for the connection.
    pub fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// Whether more came than is kept, which is lost by now.
    pub fn is_overfull(&self) -> bool {
        self.is_overfull.load(Ordering::Acquire)
    }

    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The client is gone: nothing is kept any more.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        *lock(&self.queue) = Queue::default();
    }

    /// Appends all mail to `out` as `protocol` writes it, in the order in
    /// which it came. Invalidations in RESP2 are messages of a channel: they
    /// are for a client that `listens` to some channel.
    pub fn take(&self, protocol: Protocol, listens: Listens, out: &mut BytesMut) {
        if !self.has_mail() {
            return;
        }
        let queue = {
            let mut queue = lock(&self.queue);
            self.has_mail.store(false, Ordering::Release);
            std::mem::take(&mut *queue)
        };
        for mail in queue.mail {
            write(&mail, protocol, listens, out);
        }
    }
}

/// Whether a client is subscribed to anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    /// It is.
    Yes,
    /// It is not.
    No,
}

fn write(mail: &Mail, protocol: Protocol, listens: Listens, out: &mut BytesMut) {
    match (mail, protocol) {
        (Mail::Message(bytes) | Mail::Push(bytes), Protocol::Resp3) => out.put_slice(bytes),
        (Mail::Message(bytes), Protocol::Resp2) => {
            // The two forms differ in their first byte.
            out.put_u8(b'*');
            out.put_slice(bytes.get(1..).unwrap_or_default());
        }
        (Mail::Invalid(keys) | Mail::InvalidOfOther(keys), Protocol::Resp3) => {
            out.put_slice(frames::INVALIDATE);
            out.put_slice(keys);
        }
        (Mail::InvalidOfOther(keys), Protocol::Resp2) if listens == Listens::Yes => {
            out.put_slice(frames::INVALIDATE_MESSAGE);
            out.put_slice(keys);
        }
        (Mail::Push(_) | Mail::Invalid(_) | Mail::InvalidOfOther(_), Protocol::Resp2) => {}
    }
}

/// Nothing that runs under these locks can leave what they guard half-done.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(mailbox: &Mailbox, protocol: Protocol, listens: Listens) -> String {
        let mut out = BytesMut::new();
        mailbox.take(protocol, listens, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn each_protocol_has_its_form() {
        let mailbox = Mailbox::new(Arc::default(), 10_000);
        let fill = || {
            mailbox.put(Mail::Message(Bytes::from_static(b">1\r\n:1\r\n")));
            mailbox.put(Mail::Push(Bytes::from_static(b">1\r\n:2\r\n")));
            mailbox.put(Mail::Invalid(Bytes::from_static(b"*0\r\n")));
            mailbox.put(Mail::InvalidOfOther(Bytes::from_static(b"_\r\n")));
        };
        fill();
        let invalidate = ">2\r\n$10\r\ninvalidate\r\n";
        assert_eq!(
            taken(&mailbox, Protocol::Resp3, Listens::No),
            format!(">1\r\n:1\r\n>1\r\n:2\r\n{invalidate}*0\r\n{invalidate}_\r\n")
        );
        fill();
        assert_eq!(
            taken(&mailbox, Protocol::Resp2, Listens::Yes),
            "*1\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n_\r\n"
        );
        fill();
        assert_eq!(
            taken(&mailbox, Protocol::Resp2, Listens::No),
            "*1\r\n:1\r\n"
        );
        assert!(!mailbox.has_mail());
    }

    #[test]
    fn more_than_the_bound_is_not_kept() {
        let mailbox = Mailbox::new(Arc::default(), 1000);
        for _ in 0..100 {
            mailbox.put(Mail::Message(Bytes::from_static(b">1\r\n:1\r\n")));
        }
        assert!(mailbox.is_overfull());
        assert_eq!(taken(&mailbox, Protocol::Resp3, Listens::Yes), "");
        mailbox.put(Mail::Message(Bytes::from_static(b">1\r\n:1\r\n")));
        assert!(!mailbox.has_mail());
    }
}
