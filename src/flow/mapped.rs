//! Writes of keys that are rows of a table: the row is changed, and the key follows in the same
//! transaction. Before the client is answered, the cache is told, as by whoever reads a
//! version in the store.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{Flow, Origin};
use crate::coherence::Step;
use crate::command::args::integer;
use crate::command::{Call, resolve, wrong_arity};
use crate::config::{Mapped, Shape};
use crate::model::{Key, Reply, Request};
use crate::resp;
use crate::routing::Routes;
use crate::store::{RowWrite, RowWritten, StoreError};

/// How often a write is tried that was in the way of others.
const TRIES: u32 = 6;
const RETRY_PAUSE: Duration = Duration::from_millis(5);

impl Flow {
    /// Runs writes of one connection in order.
    pub(super) async fn mapped(
        &self,
        routes: &Routes,
        origin: &Origin,
        calls: &[Call],
        out: &mut BytesMut,
    ) {
        for call in calls {
            let reply = self.mapped_one(routes, origin, call).await;
            let reply = reply.unwrap_or_else(|refusal| refusal);
            resp::encode(&reply, origin.protocol, out);
        }
    }

    async fn mapped_one(
        &self,
        routes: &Routes,
        origin: &Origin,
        call: &Call,
    ) -> Result<Reply, Reply> {
        let key = call.request.arg(1);
        let mapped = routes.find(key).and_then(|route| route.mapped.as_ref());
        let mapped = mapped.ok_or_else(|| Reply::error("ERR the key has no mapped table"))?;
        if origin.db.index() != 0 {
            return Err(Reply::error(
                "ERR keys of mapped tables are in database 0 only",
            ));
        }
        let write = write_of(call, mapped)?;
        let (written, changed) = self.write_row(&mapped.template, key, &write).await?;
        // Whoever reads from now on is shown no less: of this key, and of all that show the same row.
        let looks = changed.iter().map(look).collect::<Result<Vec<_>, _>>()?;
        let told = self.parts.reads.block(&looks).await;
        told.map_err(|refusal| {
            let why = refusal.to_string().replace(['\r', '\n'], " ");
            Reply::error(format!(
                "UNKNOWN the row is written, but the cache could not be told yet ({why})"
            ))
        })?;
        Ok(reply_to(call, written))
    }

    async fn write_row(
        &self,
        template: &str,
        key: &[u8],
        write: &RowWrite,
    ) -> Result<(RowWritten, Vec<Key>), Reply> {
        let mut tries = 1;
        loop {
            match self.parts.store.write_row(template, key, write).await {
                Ok(written) => return Ok(written),
                Err(StoreError::Conflict(_)) if tries < TRIES => {
                    tokio::time::sleep(RETRY_PAUSE * tries).await;
                    tries += 1;
                }
                Err(error) => return Err(refused(&error)),
            }
        }
    }
}

fn look(key: &Key) -> Result<Step, Reply> {
    let request = Request::from_args(&[&b"EXISTS"[..], &key.name]);
    Ok(Step::new(key.db, resolve(request)?))
}

/// What PostgreSQL says of the data is told as it says it.
fn refused(error: &StoreError) -> Reply {
    let text = match error {
        StoreError::Refused(refusal) => match refusal.as_db_error() {
            Some(said) => match said.code().code() {
                "FR003" | "FR004" => said.message().to_owned(),
                // Class 23: a constraint.
                code if code.starts_with("23") => format!("CONSTRAINT {}", said.message()),
                _ => format!("ERR {}", said.message()),
            },
            None => format!("ERR nothing was written: {error}"),
        },
        error if error.is_unanswered() => {
            format!("UNKNOWN the row may or may not have been written ({error})")
        }
        error => format!("TRYAGAIN nothing was written: {error}"),
    };
    Reply::error(text.replace(['\r', '\n'], " "))
}

/// What the command does to the row; an error reply if its arguments are wrong.
fn write_of(call: &Call, mapped: &Mapped) -> Result<RowWrite, Reply> {
    let request = &call.request;
    let shown = || mapped.column.clone().unwrap_or_default();
    Ok(match call.command.name {
        "DEL" | "UNLINK" => RowWrite::Delete,
        "HSET" | "HMSET" => {
            if !request.len().is_multiple_of(2) {
                return Err(wrong_arity(call.command));
            }
            let places = || (2..request.len()).step_by(2);
            RowWrite::Set {
                columns: places()
                    .map(|at| column(request.arg(at)))
                    .collect::<Result<_, _>>()?,
                values: places()
                    .map(|at| Some(request.arg(at + 1).to_vec()))
                    .collect(),
                must_exist: false,
            }
        }
        "HDEL" => RowWrite::Set {
            columns: (2..request.len())
                .map(|at| column(request.arg(at)))
                .collect::<Result<_, _>>()?,
            values: vec![None; request.len() - 2],
            must_exist: true,
        },
        "HINCRBY" => add(column(request.arg(2))?, whole(request.arg(3))?),
        "HINCRBYFLOAT" => add(column(request.arg(2))?, float(request.arg(3))?),
        "INCR" => add(shown(), "1".to_owned()),
        "DECR" => add(shown(), "-1".to_owned()),
        "INCRBY" => add(shown(), whole(request.arg(2))?),
        "DECRBY" => {
            let less = whole(request.arg(2))?;
            let more = match less.strip_prefix('-') {
                Some(more) => more.to_owned(),
                None => format!("-{less}"),
            };
            add(shown(), more)
        }
        "INCRBYFLOAT" => add(shown(), float(request.arg(2))?),
        "SET" if mapped.shape == Shape::Json => {
            let text = std::str::from_utf8(request.arg(2));
            let text = text.map_err(|_| Reply::error("ERR the value is no JSON object"))?;
            RowWrite::Replace(text.to_owned())
        }
        "SET" => RowWrite::Set {
            columns: vec![shown()],
            values: vec![Some(request.arg(2).to_vec())],
            must_exist: false,
        },
        name => {
            return Err(Reply::error(format!(
                "ERR {name} is not served for keys of mapped tables"
            )));
        }
    })
}

fn add(column: String, increment: String) -> RowWrite {
    RowWrite::Add { column, increment }
}

fn column(name: &[u8]) -> Result<String, Reply> {
    let name = std::str::from_utf8(name);
    let name = name.map_err(|_| Reply::error("ERR the field is not the name of a column"))?;
    Ok(name.to_owned())
}

fn whole(argument: &[u8]) -> Result<String, Reply> {
    match integer(argument) {
        Some(number) => Ok(number.to_string()),
        None => Err(Reply::error("ERR value is not an integer or out of range")),
    }
}

fn float(argument: &[u8]) -> Result<String, Reply> {
    let text = std::str::from_utf8(argument).ok();
    let number = text.filter(|text| text.parse::<f64>().is_ok_and(f64::is_finite));
    match number {
        Some(number) => Ok(number.to_owned()),
        None => Err(Reply::error("ERR value is not a valid float")),
    }
}

fn reply_to(call: &Call, written: RowWritten) -> Reply {
    match written {
        _ if call.command.name == "HMSET" || call.command.name == "SET" => Reply::OK,
        RowWritten::Count(count) => Reply::Integer(count),
        RowWritten::Sum(sum) if call.command.name.ends_with("FLOAT") => {
            Reply::Bulk(Bytes::from(sum))
        }
        // A column of another type than a whole number has a sum of its own form.
        RowWritten::Sum(sum) => match sum.parse() {
            Ok(number) => Reply::Integer(number),
            Err(_) => Reply::Bulk(Bytes::from(sum)),
        },
        RowWritten::Done => Reply::OK,
    }
}
