//! Subscriptions of a client, messages that it publishes, and `PUBSUB`.

use bytes::{Bytes, BytesMut};

use super::hub::Hub;
use super::local::subcommand_error;
use super::state::{Client, Replies};
use crate::command::{Call, wrong_arity};
use crate::model::{Protocol, Reply};
use crate::pubsub::{Listens, Space, Subscriptions, Unreached};
use crate::resp;

/// Refuses what a client that is subscribed may not ask for in RESP2, in which
/// replies and messages could not be told apart.
pub fn admit(client: &Client, call: &Call) -> Result<(), Reply> {
    if client.protocol == Protocol::Resp3 || client.listens() == Listens::No {
        return Ok(());
    }
    match call.command.name {
        "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" | "UNSUBSCRIBE" | "PUNSUBSCRIBE"
        | "SUNSUBSCRIBE" | "PING" | "QUIT" | "RESET" => Ok(()),
        name => Err(Reply::error(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET \
             are allowed in this context",
            name.to_ascii_lowercase()
        ))),
    }
}

/// Answers the commands of this module; `None` if `call` is none of them.
pub async fn answer(client: &mut Client, hub: &Hub, call: &Call) -> Option<Reply> {
    Some(match call.command.name {
        "SUBSCRIBE" => subscribe(client, hub, call, Space::Channel).await,
        "PSUBSCRIBE" => subscribe(client, hub, call, Space::Pattern).await,
        "SSUBSCRIBE" => subscribe(client, hub, call, Space::Shard).await,
        "UNSUBSCRIBE" => unsubscribe(client, call, Space::Channel),
        "PUNSUBSCRIBE" => unsubscribe(client, call, Space::Pattern),
        "SUNSUBSCRIBE" => unsubscribe(client, call, Space::Shard),
        "PUBLISH" => publish(client, hub, call, Space::Channel).await,
        "SPUBLISH" => publish(client, hub, call, Space::Shard).await,
        "PUBSUB|CHANNELS" => channels(hub, call, Space::Channel).await,
        "PUBSUB|SHARDCHANNELS" => channels(hub, call, Space::Shard).await,
        "PUBSUB|NUMSUB" => subscribers(hub, call, Space::Channel).await,
        "PUBSUB|SHARDNUMSUB" => subscribers(hub, call, Space::Shard).await,
        "PUBSUB|NUMPAT" => told(hub.flow.broker().patterns().await),
        "PUBSUB" => wrong_arity(call.command),
        _ => return None,
    })
}

/// `PING` of a client that is subscribed in RESP2: the reply has the form of a message.
pub fn ping(client: &Client, call: &Call) -> Option<Reply> {
    if client.protocol == Protocol::Resp3 || client.listens() == Listens::No {
        return None;
    }
    let text = match call.request.len() {
        1 => Bytes::new(),
        _ => call.request.arg_bytes(1),
    };
    Some(Reply::Array(vec![Reply::bulk("pong"), Reply::Bulk(text)]))
}

fn told(answer: Result<Reply, Unreached>) -> Reply {
    answer.unwrap_or_else(|error| error.reply())
}

fn names(call: &Call) -> Vec<Bytes> {
    (1..call.request.len())
        .map(|index| call.request.arg_bytes(index))
        .collect()
}

async fn subscribe(client: &mut Client, hub: &Hub, call: &Call, space: Space) -> Reply {
    let mailbox = client.mailbox(hub);
    let id = client.entry.id;
    let subscriptions = client.subscriptions.get_or_insert_with(|| {
        let broker = hub.flow.broker().clone();
        Box::new(Subscriptions::new(broker, id, mailbox))
    });
    // Messages that came before this command are older than its confirmations.
    let mut out = BytesMut::new();
    if let Some(mailbox) = client.entry.mail() {
        mailbox.take(client.protocol, subscriptions.listens(), &mut out);
    }
    let confirmed = subscriptions.subscribe(space, names(call)).await;
    match confirmed {
        Ok(confirmed) => {
            for (name, count) in confirmed {
                confirm(
                    client,
                    space.subscribe(),
                    Reply::Bulk(name),
                    count,
                    &mut out,
                );
            }
        }
        Err(error) => resp::encode(&error.reply(), client.protocol, &mut out),
    }
    client.publish();
    Reply::Raw(out.freeze())
}

fn unsubscribe(client: &mut Client, call: &Call, space: Space) -> Reply {
    let listened = client.listens();
    let wanted = (call.request.len() > 1).then(|| names(call));
    let (ended, left) = match &mut client.subscriptions {
        Some(subscriptions) => {
            let ended = subscriptions.unsubscribe(space, wanted);
            (ended, subscriptions.told_count(space))
        }
        None => (
            wanted.into_iter().flatten().map(|name| (name, 0)).collect(),
            0,
        ),
    };
    // Nothing more comes for them; what came is older than the confirmations.
    let mut out = BytesMut::new();
    if let Some(mailbox) = client.entry.mail() {
        mailbox.take(client.protocol, listened, &mut out);
    }
    if ended.is_empty() {
        confirm(client, space.unsubscribe(), Reply::Null, left, &mut out);
    }
    for (name, count) in ended {
        confirm(
            client,
            space.unsubscribe(),
            Reply::Bulk(name),
            count,
            &mut out,
        );
    }
    client.publish();
    Reply::Raw(out.freeze())
}

fn confirm(client: &Client, kind: &str, name: Reply, count: usize, out: &mut BytesMut) {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let kind = Reply::bulk(kind.to_ascii_lowercase());
    let push = Reply::Push(vec![kind, name, Reply::Integer(count)]);
    resp::encode(&push, client.protocol, out);
}

/// A client that listens to what it publishes gets the message before the reply, as in Redis.
async fn publish(client: &Client, hub: &Hub, call: &Call, space: Space) -> Reply {
    let published = hub.flow.broker().publish(space, &call.request).await;
    let reply = match published {
        Ok(receivers) => Reply::Integer(receivers),
        Err(error) => error.reply(),
    };
    // A client that wants no replies still gets its mail, by the usual way.
    if client.listens() == Listens::No || client.replies != Replies::On {
        return reply;
    }
    let mut out = BytesMut::new();
    client.take_mail(&mut out);
    resp::encode(&reply, client.protocol, &mut out);
    Reply::Raw(out.freeze())
}

async fn channels(hub: &Hub, call: &Call, space: Space) -> Reply {
    let request = &call.request;
    let pattern = match request.len() {
        2 => None,
        3 => Some(request.arg(2)),
        _ => return subcommand_error(call),
    };
    let names = hub.flow.broker().channels(space, pattern).await;
    told(names.map(Reply::Array))
}

async fn subscribers(hub: &Hub, call: &Call, space: Space) -> Reply {
    let names: Vec<Bytes> = names(call).split_off(1);
    let counts = hub.flow.broker().subscribers(space, &names).await;
    told(counts.map(Reply::Array))
}
