//! Where a request goes.

use super::{Next, Refusal};
use crate::client::{Client, Hub, Mode, admit, refused, waits};
use crate::command::{Call, Class, resolve};
use crate::flow::may_wait;
use crate::model::Request;

/// Where a request goes.
pub(super) enum Verdict {
    /// To the data path.
    Run(Call),
    /// Elsewhere, and the calls before it run first.
    Stop(Next),
}

pub(super) fn judge(request: Request, client: &mut Client, hub: &Hub) -> Verdict {
    let name = request.arg(0);
    if name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:") {
        return Verdict::Stop(Next::CrossProtocol);
    }
    let is_exec = name.eq_ignore_ascii_case(b"EXEC");
    let call = match resolve(request) {
        Ok(call) => call,
        Err(reply) => {
            let reply = refused(client, is_exec, reply);
            return Verdict::Stop(Next::Refuse(Refusal { call: None, reply }));
        }
    };
    if let Err(reply) = admit(client, hub, &call) {
        let reply = refused(client, is_exec, reply);
        let call = Some(call);
        return Verdict::Stop(Next::Refuse(Refusal { call, reply }));
    }
    place(call, client, hub)
}

/// Where a call goes that is admitted.
pub(super) fn place(call: Call, client: &Client, hub: &Hub) -> Verdict {
    if hub.pause.holds(client, &call) {
        return Verdict::Stop(Next::Hold(call));
    }
    if matches!(client.mode, Mode::Queueing(_)) && waits(&call) {
        return Verdict::Stop(Next::Queue(call));
    }
    match call.command.class {
        Class::Local | Class::Transaction => Verdict::Stop(Next::Local(call)),
        _ if may_wait(&call) => Verdict::Stop(Next::Block(call)),
        _ => Verdict::Run(call),
    }
}
