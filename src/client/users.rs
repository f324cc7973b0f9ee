//! The users of this proxy, and what was refused to them.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::registry::{Entry, lock};
use crate::acl::{Denied, Mistake, User, join_selectors, parse_file, write_file};
use crate::command::Call;
use crate::config::{Auth, Credential, NamedUser};
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
    /// They are those of an ACL file; the configuration names none then.
    is_of_file: AtomicBool,
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

/// A user that may do everything; without a password, whoever it is.
fn almighty(password: Option<&Credential>) -> User {
    let mut rules: Vec<Bytes> = ["on", "~*", "&*", "+@all"].map(Bytes::from).into();
    rules.push(match password {
        Some(credential) => Bytes::from(format!("#{}", credential.digits())),
        None => Bytes::from("nopass"),
    });
    let mut user = User::default();
    user.apply(&rules).expect("these rules are all known");
    user
}

/// The user that the configuration describes; what is wrong with its rules.
fn configured(name: &str, named: &NamedUser) -> Result<User, String> {
    let Some(text) = &named.rules else {
        return Ok(almighty(named.password.as_ref()));
    };
    let words = text.split_whitespace();
    let words: Vec<Bytes> = words.map(|word| Bytes::from(word.to_owned())).collect();
    let rules = join_selectors(&words).map_err(|start| {
        let start = String::from_utf8_lossy(&start);
        format!("auth.users: user `{name}` opens a selector at `{start}` that does not end")
    })?;
    let digest = named.password.iter();
    let digest = digest.map(|credential| Bytes::from(format!("#{}", credential.digits())));
    let all = [Bytes::from("on")].into_iter().chain(rules).chain(digest);
    let mut user = User::default();
    match user.apply(&all.collect::<Vec<_>>()) {
        Ok(()) => Ok(user),
        Err((rule, mistake)) => {
            let rule = String::from_utf8_lossy(&rule);
            Err(format!(
                "auth.users: user `{name}` has the rule `{rule}`: {mistake}"
            ))
        }
    }
}

/// Digests of passwords are for nobody else to read.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

impl Users {
    /// Whether the rules that the configuration has are rules; it is read without knowing that.
    ///
    /// # Errors
    /// What is wrong with them, a line for each user.
    pub fn check(auth: &Auth) -> Result<(), String> {
        let mistakes = auth.users.iter();
        let mistakes = mistakes.filter_map(|(name, named)| configured(name, named).err());
        let mistakes: Vec<String> = mistakes.collect();
        match mistakes.is_empty() {
            true => Ok(()),
            false => Err(mistakes.join("\n")),
        }
    }

    /// Brings the users that the configuration names in line with it, if it changed
    /// since the last time. Users that `ACL SETUSER` made stay.
    pub fn follow(&self, auth: &Auth) {
        if self.is_of_file.load(Ordering::Acquire) {
            return;
        }
        let mut known = lock(&self.configured);
        if known.as_ref() == Some(auth) {
            return;
        }
        let mut wanted: BTreeMap<&str, User> = BTreeMap::new();
        for (name, named) in &auth.users {
            // Mistakes were told when it was read; who has one may do nothing.
            wanted.insert(name, configured(name, named).unwrap_or_default());
        }
        if auth.password.is_some() || auth.users.is_empty() {
            wanted.insert(DEFAULT_USER, almighty(auth.password.as_ref()));
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

    /// Replaces all users by those of an ACL file; of one with mistakes nothing is taken.
    ///
    /// # Errors
    /// Why not, in Redis's words.
    pub fn load(&self, file: &Path) -> Result<(), String> {
        let path = file.display().to_string();
        let text = std::fs::read(file).map_err(|error| {
            // As C names it, without the number.
            let error = error.to_string();
            let error = error.split(" (os error").next().unwrap_or_default();
            format!("Error loading ACLs, opening file '{path}': {error}")
        })?;
        let mut users = parse_file(&path, &text)?;
        let default = Bytes::from_static(DEFAULT_USER.as_bytes());
        users.entry(default).or_insert_with(|| almighty(None));
        let mut accounts = write(&self.accounts);
        let mut before = std::mem::take(&mut *accounts);
        for (name, user) in users {
            // Whoever is logged in as one that stays has its new rules.
            let account = match before.remove(&name) {
                Some(account) => {
                    *write(&account.rules) = Arc::new(user);
                    account
                }
                None => Account::new(&String::from_utf8_lossy(&name), user),
            };
            accounts.insert(name, account);
        }
        self.is_of_file.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes all users to an ACL file, which has either the old content or the new at
    /// any moment.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        let users = self.all();
        let users: Vec<_> = users.iter().map(|it| (&*it.name, it.rules())).collect();
        let text = write_file(users.iter().map(|(name, user)| (*name, &**user)));
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let new = Path::new(&name);
        let written = write_new(new, text.as_bytes());
        let done = written.and_then(|()| std::fs::rename(new, file));
        if done.is_err() {
            // Of two errors the first says more.
            let _ = std::fs::remove_file(new);
        }
        done
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
