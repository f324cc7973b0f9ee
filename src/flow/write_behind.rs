//! Keys of write-behind routes: the client's own commands, run in the journal's server under other names.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::renamed::Renamed;
use super::{Flow, Origin, oversized};
use crate::cache::{RESTING_PREFIX, WORKING_PREFIX, tail};
use crate::coherence::{Asked, AskedKey, Behind, NotAsked, Step};
use crate::command::{Call, Class};
use crate::model::{Db, Key, Reply, Request};
use crate::resp;
use crate::routing::named;

/// The digit of the database stands behind the prefix.
const DIGIT: usize = 1;

/// How keys are called while `is_write`, or not.
fn names(is_write: bool) -> Renamed {
    Renamed {
        prefix: if is_write {
            WORKING_PREFIX
        } else {
            RESTING_PREFIX
        },
        more: DIGIT,
    }
}

fn writes(call: &Call) -> bool {
    call.command.class == Class::Write
}

/// Whether `call` replaces all its keys, whatever they were, and cannot fail.
fn replaces(call: &Call) -> bool {
    match call.command.name {
        "SET" => call.request.len() == 3,
        "MSET" => call.request.len() % 2 == 1,
        _ => false,
    }
}

/// Adds `call` to what is asked.
fn add(asked: &mut Asked, call: &Call, db: Db) {
    let keys = named(call);
    let prefix = names(asked.is_write).prefix;
    let renamed = |(index, arg): (usize, &[u8])| {
        if keys.iter().any(|(at, _)| *at == index) {
            [prefix, &tail(&Key::new(db, Bytes::copy_from_slice(arg)))].concat()
        } else {
            arg.to_vec()
        }
    };
    let words: Vec<Vec<u8>> = call.request.args().enumerate().map(renamed).collect();
    asked
        .requests
        .push(Request::from_args(&words).raw().clone());
    let is_replaced = replaces(call);
    let key = |(index, is_written): &(usize, bool)| AskedKey {
        key: Key::new(db, call.request.arg_bytes(*index)),
        is_written: *is_written,
        is_replaced,
    };
    asked.keys.extend(keys.iter().map(key));
}

impl Flow {
    /// Runs calls over write-behind keys, in order, and appends their replies.
    pub(super) async fn write_behind(&self, origin: &Origin, calls: &[Call], out: &mut BytesMut) {
        let refusals: Vec<Option<Reply>> = calls.iter().map(oversized).collect();
        let mut asked = Asked {
            is_write: calls.iter().any(writes),
            ..Asked::default()
        };
        let is_write = asked.is_write;
        for (call, _) in calls.iter().zip(&refusals).filter(|(_, r)| r.is_none()) {
            add(&mut asked, call, origin.db);
        }
        let answered = match self.behind() {
            Ok(behind) => behind.ask(asked, origin.protocol).await,
            Err(why) => Err(why),
        };
        let failure = answered.as_ref().err().cloned();
        let mut replies = answered.into_iter().flatten();
        for (call, refusal) in calls.iter().zip(refusals) {
            match (refusal, &failure) {
                (Some(refusal), _) => resp::encode(&refusal, origin.protocol, out),
                (None, Some(why)) => {
                    resp::encode(&why.reply(call.command.class), origin.protocol, out);
                }
                (None, None) => {
                    let reply = replies.next().unwrap_or_default();
                    names(is_write).append(call, &reply, origin.protocol, out);
                }
            }
        }
        if failure.is_none() {
            self.tell_of(calls.iter().map(|call| (call, origin.db)), origin.client);
        }
    }

    /// Runs a MULTI block over write-behind keys: as one in the journal's server.
    pub(super) async fn write_behind_block(
        &self,
        steps: &[Step],
        origin: &Origin,
    ) -> Result<Vec<Reply>, Reply> {
        if let Some(refusal) = steps.iter().find_map(|step| oversized(&step.call)) {
            return Err(refusal);
        }
        let mut asked = Asked {
            is_write: steps.iter().any(|step| writes(&step.call)),
            ..Asked::default()
        };
        let is_write = asked.is_write;
        for step in steps {
            add(&mut asked, &step.call, step.db);
        }
        let class = if is_write { Class::Write } else { Class::Read };
        let answered = match self.behind() {
            Ok(behind) => behind.ask(asked, origin.protocol).await,
            Err(why) => Err(why),
        };
        let replies = answered.map_err(|why| why.reply(class))?;
        self.tell_of(
            steps.iter().map(|step| (&step.call, step.db)),
            origin.client,
        );
        let own = |(step, reply): (&Step, Bytes)| {
            if !Renamed::concerns(&step.call, &reply) {
                return Reply::Raw(reply);
            }
            match resp::decode_reply(&reply) {
                Ok(decoded) => names(is_write).unnamed(&step.call, decoded),
                Err(_) => Reply::Raw(reply),
            }
        };
        Ok(steps.iter().zip(replies).map(own).collect())
    }

    fn behind(&self) -> Result<&Arc<Behind>, NotAsked> {
        let behind = self.parts.behind.as_ref();
        behind.ok_or_else(|| NotAsked::Away("[write_behind] url was not set at the start".into()))
    }
}
