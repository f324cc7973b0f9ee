//! Who may do what: `AUTH`, `HELLO`, and what is refused before them.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::hub::Hub;
use super::state::{Client, Mode};
use super::subscribe;
use super::users::{Account, DEFAULT_USER};
use crate::acl::{Denied, User};
use crate::command::args::is_word;
use crate::command::{Call, flags, once};
use crate::model::{Protocol, Reply};
use crate::resp::parse_integer;

/// The version of Redis whose commands and answers Freshet has.
pub const REDIS_VERSION: &str = "7.0.15";

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";

/// The name of the user that a client is without saying.
pub fn default_user() -> Arc<str> {
    // Shared, because there is one in the profile of every connection.
    static NAME: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(DEFAULT_USER));
    Arc::clone(&NAME)
}

/// Who a new connection is: nobody, if the default user needs a password.
pub fn initial_user(hub: &Hub) -> Option<Arc<Account>> {
    hub.users.follow(&hub.config().auth);
    let user = hub.users.find(DEFAULT_USER.as_bytes())?;
    user.rules().is_open().then_some(user)
}

/// Refuses what somebody asks who has not authenticated or may not, and what may not
/// stand in a MULTI block.
pub fn admit(client: &Client, hub: &Hub, call: &Call) -> Result<(), Reply> {
    let flags = call.command.flags;
    if client.user.is_none() && !flags.has(flags::NO_AUTH) {
        return Err(Reply::error("NOAUTH Authentication required."));
    }
    let is_queueing = matches!(client.mode, Mode::Queueing(_));
    if is_queueing && flags.has(flags::NO_MULTI) {
        return Err(Reply::error("ERR Command not allowed inside a transaction"));
    }
    if is_queueing && call.token.is_some() && call.command.name != once::NAME {
        return Err(Reply::error(format!(
            "ERR {} is not allowed inside a transaction with a command behind it: without one, it \
             makes the block once",
            once::NAME
        )));
    }
    judge(client, hub, call)?;
    subscribe::admit(client, call)
}

/// Refuses what the client's user may not do.
fn judge(client: &Client, hub: &Hub, call: &Call) -> Result<(), Reply> {
    let Some(user) = &client.user else {
        return Ok(());
    };
    user.rules().judge(call).map_err(|denied| {
        hub.users
            .note_denied(&client.entry, context(client), user, (call, &denied));
        Reply::error(format!(
            "NOPERM this user has no permissions to {}",
            what(call, &denied)
        ))
    })
}

/// Refuses at EXEC what its user may no longer do.
pub fn admit_again(client: &Client, hub: &Hub, call: &Call) -> Option<Reply> {
    let user = client.user.as_ref()?;
    let denied = user.rules().judge(call).err()?;
    hub.users
        .note_denied(&client.entry, "multi", user, (call, &denied));
    let reason = match denied {
        Denied::Command => "no permission to execute the command or subcommand",
        Denied::Key(_) => "no permission to touch the specified keys",
        Denied::Channel(_) => {
            "no permission to access one of the channels used as arguments to the command"
        }
    };
    Some(Reply::error(format!(
        "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC \
         call. This command is no longer allowed for the following reason: {reason}"
    )))
}

fn context(client: &Client) -> &'static str {
    match client.mode {
        Mode::Normal => "toplevel",
        Mode::Queueing(_) => "multi",
    }
}

fn what(call: &Call, denied: &Denied) -> String {
    match denied {
        Denied::Command => format!(
            "run the '{}' command",
            call.command.name.to_ascii_lowercase()
        ),
        Denied::Key(_) => "access one of the keys used as arguments".to_owned(),
        Denied::Channel(_) => "access one of the channels used as arguments".to_owned(),
    }
}

/// `AUTH [user] password`.
pub fn auth(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    let request = &call.request;
    hub.users.follow(&hub.config().auth);
    let (user, password) = match request.len() {
        2 => {
            let default = hub.users.find(DEFAULT_USER.as_bytes());
            if default.is_some_and(|user| user.rules().needs_no_password()) {
                return Reply::error(
                    "ERR AUTH <password> called without any password configured for the default \
                     user. Are you sure your configuration is correct?",
                );
            }
            (DEFAULT_USER.as_bytes(), request.arg(1))
        }
        3 => (request.arg(1), request.arg(2)),
        _ => return Reply::error("ERR syntax error"),
    };
    match log_in(client, hub, call, user, password) {
        Ok(()) => Reply::OK,
        Err(reply) => reply,
    }
}

fn log_in(
    client: &mut Client,
    hub: &Hub,
    call: &Call,
    name: &[u8],
    password: &[u8],
) -> Result<(), Reply> {
    hub.users.follow(&hub.config().auth);
    // A password is compared also where there is no such user, so that the
    // time taken does not tell which names exist.
    static NOBODY: LazyLock<User> = LazyLock::new(|| {
        let mut nobody = User::default();
        nobody
            .apply(&[bytes::Bytes::from_static(b">")])
            .expect("the rule is known");
        nobody
    });
    let user = hub.users.find(name);
    let is_right = match &user {
        Some(user) => user.rules().admits(password),
        None => NOBODY.admits(password) && user.is_some(),
    };
    if let Some(user) = user.filter(|_| is_right) {
        client.user = Some(user);
        client.publish();
        return Ok(());
    }
    hub.stats.note_failed_login();
    let how = call.request.arg(0);
    hub.users
        .note_failed_login(&client.entry, context(client), name, how);
    tracing::warn!(
        user = %String::from_utf8_lossy(&name[..name.len().min(64)]),
        peer = %client.entry.peer,
        "a client gave a wrong user name or password"
    );
    Err(Reply::error(WRONG_PASSWORD))
}

/// `HELLO [version [AUTH user password] [SETNAME name]]`.
pub fn hello(client: &mut Client, hub: &Hub, call: &Call) -> Reply {
    match change_protocol(client, hub, call) {
        Ok(()) => greeting(client),
        Err(reply) => reply,
    }
}

/// What the options of `HELLO` ask for.
#[derive(Default)]
struct Wishes {
    login: Option<(Bytes, Bytes)>,
    name: Option<Bytes>,
}

fn change_protocol(client: &mut Client, hub: &Hub, call: &Call) -> Result<(), Reply> {
    let request = &call.request;
    let protocol = if request.len() < 2 {
        None
    } else {
        Some(match parse_integer(request.arg(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
            None => {
                return Err(Reply::error(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        })
    };
    let wishes = wishes(call)?;
    if let Some((user, password)) = &wishes.login {
        log_in(client, hub, call, user, password)?;
    }
    if client.user.is_none() {
        return Err(Reply::error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = wishes.name {
        set_name(client, name);
    }
    if let Some(protocol) = protocol {
        client.protocol = protocol;
    }
    client.publish();
    Ok(())
}

fn wishes(call: &Call) -> Result<Wishes, Reply> {
    let request = &call.request;
    let mut wishes = Wishes::default();
    let mut at = 2;
    while at < request.len() {
        let option = request.arg(at);
        let left = request.len() - 1 - at;
        if is_word(option, "AUTH") && left >= 2 {
            wishes.login = Some((request.arg_bytes(at + 1), request.arg_bytes(at + 2)));
            at += 3;
        } else if is_word(option, "SETNAME") && left >= 1 {
            let name = request.arg_bytes(at + 1);
            check_name(&name)?;
            wishes.name = Some(name);
            at += 2;
        } else {
            let mut text = b"ERR Syntax error in HELLO option '".to_vec();
            text.extend_from_slice(option);
            text.push(b'\'');
            return Err(Reply::Error(Bytes::from(text)));
        }
    }
    Ok(wishes)
}

fn greeting(client: &Client) -> Reply {
    let id = i64::try_from(client.entry.id).unwrap_or(i64::MAX);
    let protocol = match client.protocol {
        Protocol::Resp2 => 2,
        Protocol::Resp3 => 3,
    };
    let fields = [
        ("server", Reply::bulk("redis")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Integer(protocol)),
        ("id", Reply::Integer(id)),
        ("mode", Reply::bulk("standalone")),
        ("role", Reply::bulk("master")),
        ("modules", Reply::Array(Vec::new())),
    ];
    Reply::Map(
        fields
            .map(|(name, value)| (Reply::bulk(name), value))
            .into(),
    )
}

/// Refuses a client's name that would spoil a line of `CLIENT LIST`.
pub fn check_name(name: &[u8]) -> Result<(), Reply> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(Reply::error(
        "ERR Client names cannot contain spaces, newlines or special characters.",
    ))
}

/// Gives the client a name that was checked; an empty one takes it away.
pub fn set_name(client: &Client, name: Bytes) {
    // Its own copy: a name must not keep a whole read buffer alive.
    client.entry.profile().name = Bytes::copy_from_slice(&name);
}
