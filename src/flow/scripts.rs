//! Commands that run scripts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use super::{Flow, Origin, oversized};
use crate::acl::{Denied, User};
use crate::coherence::{Scripts, Step, Unit};
use crate::command::args::{integer, is_word};
use crate::command::{Call, Class};
use crate::model::{Db, Reply};
use crate::resp;
use crate::script::{Access, Invocation, Program};

impl Flow {
    /// Runs scripts of one connection in order.
    pub(super) async fn scripts(&self, origin: &Origin, calls: &[Call], out: &mut BytesMut) {
        for chunk in calls.chunks(self.parts.units_max) {
            let mut refusals: Vec<Option<Reply>> = Vec::with_capacity(chunk.len());
            let mut units = Vec::with_capacity(chunk.len());
            let mut invocations = Vec::with_capacity(chunk.len());
            for call in chunk {
                match self.prepare(origin.db, call, origin.user.as_ref()).await {
                    Ok(step) => {
                        invocations.extend(step.script.clone());
                        units.push(Unit::of_one(step).by(origin.client));
                        refusals.push(None);
                    }
                    Err(refusal) => refusals.push(Some(refusal)),
                }
            }
            let answers = self.parts.asides.submit(units).await;
            origin.note_refused(&invocations);
            let mut replies = answers.into_iter().map(|answer| match answer {
                Ok(answer) => answer.replies().into_iter().next(),
                Err(refusal) => Some(refusal.reply()),
            });
            for refusal in refusals {
                let reply = refusal.or_else(|| replies.next().flatten());
                resp::encode(&reply.unwrap_or(Reply::Null), origin.protocol, out);
            }
        }
    }

    /// The step that `call` is, with its script if it runs one; an error reply if it cannot run.
    pub(super) async fn prepare(
        &self,
        db: Db,
        call: &Call,
        user: Option<&Arc<User>>,
    ) -> Result<Step, Reply> {
        if let Some(refusal) = oversized(call) {
            return Err(refusal);
        }
        let mut step = Step::new(db, call.clone());
        if call.command.class != Class::Script {
            return Ok(step);
        }
        let is_function = call.command.family().starts_with("FCALL");
        if !is_function {
            check_keys(call)?;
        }
        let scripts = &self.parts.scripts;
        let is_read_only = call.command.name.ends_with("_RO");
        let name = call.request.arg(1);
        let program = match call.command.name {
            "FCALL" | "FCALL_RO" => scripts.function(name).await?,
            "EVAL" | "EVAL_RO" => Program::Script(scripts.evaluated(name).await?),
            _ => Program::Script(scripts.named(name).await?),
        };
        if is_function {
            check_keys(call)?;
        }
        let access = access(&program, is_read_only)?;
        step.script = Some(Arc::new(Invocation {
            program,
            access,
            user: user.cloned(),
            routes: self.parts.routing.get(),
            pool: Arc::clone(scripts.pool()),
            seed: rand::random(),
            refused: Default::default(),
        }));
        Ok(step)
    }

    /// `SCRIPT` and its subcommands.
    pub async fn script(&self, call: &Call) -> Reply {
        let scripts: &Scripts = &self.parts.scripts;
        let request = &call.request;
        let done = match call.command.name {
            "SCRIPT|LOAD" => {
                let loaded = scripts.load(request.arg(2)).await;
                loaded.map(|sha| Reply::bulk(sha.to_string()))
            }
            "SCRIPT|EXISTS" => {
                let shas: Vec<&[u8]> = request.args().skip(2).collect();
                let found = scripts.exist(&shas).await;
                let number = |is_there: bool| Reply::Integer(i64::from(is_there));
                found.map(|found| Reply::Array(found.into_iter().map(number).collect()))
            }
            "SCRIPT|FLUSH" => {
                let word = request.args().nth(2);
                let is_known = |word: &[u8]| is_word(word, "SYNC") || is_word(word, "ASYNC");
                match request.len() == 2 || request.len() == 3 && word.is_some_and(is_known) {
                    true => scripts.flush().await.map(|()| Reply::OK),
                    false => Err(Reply::error(
                        "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
                    )),
                }
            }
            "SCRIPT|KILL" => Ok(self.kill_scripts()),
            "SCRIPT|DEBUG" if is_word(request.arg(2), "NO") => Ok(Reply::OK),
            "SCRIPT|DEBUG" if ["YES", "SYNC"].iter().any(|w| is_word(request.arg(2), w)) => {
                Err(Reply::error("ERR Freshet has no debugger of scripts"))
            }
            _ => Err(Reply::error("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
        };
        done.unwrap_or_else(|refusal| refusal)
    }
}

impl Origin {
    /// Takes over what scripts were refused.
    pub(super) fn note_refused(&self, invocations: &[Arc<Invocation>]) {
        let Some(all) = &self.refused else {
            return;
        };
        for invocation in invocations {
            let refused = std::mem::take(&mut *unpoisoned(&invocation.refused));
            unpoisoned(all).extend(refused);
        }
    }

    /// What scripts were refused, since it was asked last.
    pub fn take_refused(&self) -> Vec<(Call, Denied)> {
        let all = self.refused.as_ref();
        all.map_or_else(Vec::new, |all| std::mem::take(&mut *unpoisoned(all)))
    }
}

fn unpoisoned<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses a number of keys that cannot be.
fn check_keys(call: &Call) -> Result<(), Reply> {
    let request = &call.request;
    let Some(keys) = integer(request.arg(2)) else {
        return Err(Reply::error(match call.command.name {
            "FCALL" | "FCALL_RO" => "ERR Bad number of keys provided",
            _ => "ERR value is not an integer or out of range",
        }));
    };
    if keys < 0 {
        return Err(Reply::error("ERR Number of keys can't be negative"));
    }
    if keys > request.len() as i64 - 3 {
        return Err(Reply::error(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    Ok(())
}

fn access(program: &Program, is_read_only: bool) -> Result<Access, Reply> {
    let flags = match program {
        Program::Script(script) => script.flags,
        Program::Function(library, index) => Some(library.functions[*index].flags),
    };
    match (flags, is_read_only) {
        (Some(flags), _) if flags.no_writes => Ok(Access::ReadOnly),
        (Some(_), true) => Err(Reply::error(
            "ERR Can not execute a script with write flag using *_ro command.",
        )),
        (None, true) => Ok(Access::ReadOnly),
        (_, false) => Ok(Access::ReadWrite),
    }
}
