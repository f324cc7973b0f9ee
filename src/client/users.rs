//! The users of this proxy, and what was refused to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::registry::{Entry, lock};
use crate::acl::{Denied, Mistake, User};
use crate::command::Call;
use crate::config::Auth;
use crate::model::Reply;

/// The user that a client is without saying.
pub const DEFAULT_USER: &str = "default";

/// As in Redis: entries of `ACL LOG`, and for how long equal ones are counted together.
const LOG_MAX: usize = 128;
const LOG_GROUPING_SECONDS: u64 = 60;

/// A user's name, and its rules of the moment.
#[derive(Debug)]
pub struct Account {
    /// Its name.
    pub name: Arc<str>,
    rules: RwLock<Arc<User>>,
}

impl Account {
    fn new(name: &str, user: User) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(name),
            rules: RwLock::new(Arc::new(user)),
        })
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<User> {
        Arc::clone(&read(&self.rules))
    }
}

/// All users; those of the configuration follow it when it changes.
#[derive(Debug, Default)]
pub struct Users {
    accounts: RwLock<BTreeMap<Bytes, Arc<Account>>>,
    configured: Mutex<Option<Auth>>,
    log: Mutex<VecDeque<Refused>>,
}

/// One line of `ACL LOG`.
#[derive(Debug)]
struct Refused {
    count: i64,
    reason: &'static str,
    context: &'static str,
    object: Bytes,
    user: Bytes,
    last: Instant,
    created: Instant,
    client: Bytes,
}

/// Nothing that runs under these locks can leave what they guard half-done.
fn read<T>(guarded: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    guarded
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(guarded: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    guarded
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn key(name: &[u8]) -> Bytes {
    Bytes::copy_from_slice(name)
}

/// A user of the configuration: it may do everything.
fn configured(passwords: &[String]) -> User {
    let mut rules: Vec<Bytes> = ["on", "~*", "&*", "+@all"].map(Bytes::from).into();
    if passwords.is_empty() {
        rules.push(Bytes::from("nopass"));
    }
    let digests = passwords
        .iter()
        .map(|digits| Bytes::from(format!("#{digits}")));
    rules.extend(digests);
    let mut user = User::default();
    user.apply(&rules).expect("these rules are all known");
    user
}

impl Users {
    /// Brings the users that the configuration names in line with it, if it changed
    /// since the last time. Users that `ACL SETUSER` made stay.
    pub fn follow(&self, auth: &Auth) {
        let mut known = lock(&self.configured);
        if known.as_ref() == Some(auth) {
            return;
        }
        let mut wanted: BTreeMap<&str, User> = BTreeMap::new();
        for (name, credential) in &auth.users {
            wanted.insert(name, configured(&[credential.digits()]));
        }
        if let Some(credential) = &auth.password {
            wanted.insert(DEFAULT_USER, configured(&[credential.digits()]));
        } else if auth.users.is_empty() {
            wanted.insert(DEFAULT_USER, configured(&[]));
        } else {
            wanted.entry(DEFAULT_USER).or_default();
        }
        let before = known.iter().flat_map(|auth| auth.users.keys());
        for name in before.filter(|name| !wanted.contains_key(name.as_str())) {
            write(&self.accounts).remove(name.as_bytes());
        }
        for (name, user) in wanted {
            self.put(name.as_bytes(), user);
        }
        *known = Some(auth.clone());
    }

    fn put(&self, name: &[u8], user: User) {
        let mut accounts = write(&self.accounts);
        match accounts.get(name) {
            Some(account) => *write(&account.rules) = Arc::new(user),
            None => {
                let account = Account::new(&String::from_utf8_lossy(name), user);
                accounts.insert(key(name), account);
            }
        }
    }

    /// The user called `name`.
    pub fn find(&self, name: &[u8]) -> Option<Arc<Account>> {
        read(&self.accounts).get(name).cloned()
    }

    /// All users by name.
    pub fn all(&self) -> Vec<Arc<Account>> {
        read(&self.accounts).values().cloned().collect()
    }

    /// Applies rules to a user, who is created if need be: all of them, or none.
    pub fn change(&self, name: &[u8], rules: &[Bytes]) -> Result<(), (Bytes, Mistake)> {
        let mut user = match self.find(name) {
            Some(account) => User::clone(&account.rules()),
            None => User::default(),
        };
        user.apply(rules)?;
        self.put(name, user);
        Ok(())
    }

    /// Takes a user out.
    pub fn remove(&self, name: &[u8]) -> Option<Arc<Account>> {
        write(&self.accounts).remove(name)
    }

    /// Notes a wrong name or password.
    pub fn note_failed_login(&self, entry: &Entry, context: &'static str, user: &[u8], how: &[u8]) {
        self.note(entry, ("auth", context), key(how), key(user));
    }

    /// Notes a call that was refused.
    pub fn note_denied(
        &self,
        entry: &Entry,
        context: &'static str,
        user: &Account,
        (call, denied): (&Call, &Denied),
    ) {
        let (reason, object) = match denied {
            Denied::Command => ("command", call.command.name.to_ascii_lowercase().into()),
            Denied::Key(index) => ("key", key(call.request.arg(*index))),
            Denied::Channel(index) => ("channel", key(call.request.arg(*index))),
        };
        self.note(entry, (reason, context), object, key(user.name.as_bytes()));
    }

    fn note(
        &self,
        entry: &Entry,
        (reason, context): (&'static str, &'static str),
        object: Bytes,
        user: Bytes,
    ) {
        let now = Instant::now();
        let client = Bytes::from(entry.line(now));
        let mut log = lock(&self.log);
        let is_same = |it: &Refused| {
            (it.reason, it.context, &it.object, &it.user) == (reason, context, &object, &user)
                && (now - it.last).as_secs() < LOG_GROUPING_SECONDS
        };
        let same = log.iter().position(is_same).and_then(|at| log.remove(at));
        let refused = match same {
            Some(it) => Refused {
                count: it.count + 1,
                last: now,
                client,
                ..it
            },
            None => Refused {
                count: 1,
                reason,
                context,
                object,
                user,
                last: now,
                created: now,
                client,
            },
        };
        log.push_front(refused);
        log.truncate(LOG_MAX);
    }

    /// The latest `count` lines of `ACL LOG`.
    pub fn log(&self, count: usize) -> Reply {
        let line = |it: &Refused| {
            let fields = [
                ("count", Reply::Integer(it.count)),
                ("reason", Reply::bulk(it.reason)),
                ("context", Reply::bulk(it.context)),
                ("object", Reply::Bulk(it.object.clone())),
                ("username", Reply::Bulk(it.user.clone())),
                (
                    "age-seconds",
                    Reply::Double(it.created.elapsed().as_millis() as f64 / 1000.0),
                ),
                ("client-info", Reply::Bulk(it.client.clone())),
            ];
            Reply::Map(
                fields
                    .map(|(name, value)| (Reply::bulk(name), value))
                    .into(),
            )
        };
        Reply::Array(lock(&self.log).iter().take(count).map(line).collect())
    }

    /// Empties `ACL LOG`.
    pub fn clear_log(&self) {
        lock(&self.log).clear();
    }
}
