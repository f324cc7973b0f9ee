//! The command table: data, readable without knowing Rust.
//!
//! A row is: name, arity, flags, keys, class, and what of it is not served. The arity counts the name;
//! negative means at least that many. Names, arities, flags and keys are those
//! of Redis 7.0 (`tests/command_reference.rs` compares them with a real
//! server); the class is Freshet's. `CLIENT|SETINFO` and `CLIENT|NO-TOUCH` are
//! from Redis 7.2; client libraries send the former on every connect.
//!
//! Commands with subcommands are a `family`: the row of the family itself, then
//! one row for each subcommand, named `FAMILY|SUBCOMMAND`.

use super::flags::*;
use super::{Class, Command, Flags, Keys, Served};
use Class::{Expiry, Flush, Keyspace, Local, Read, Script, Transaction, Unserved, Write};

const NONE: Keys = Keys::None;
const FIRST: Keys = range(1, 1, 1);
const ALL: Keys = range(1, -1, 1);

const fn range(first: u8, last: i8, step: u8) -> Keys {
    Keys::Range { first, last, step }
}

const fn counted(fixed: u8, count: u8) -> Keys {
    Keys::Counted { fixed, count }
}

const fn row(name: &'static str, arity: i8, flags: u32, keys: Keys, class: Class) -> Command {
    Command {
        name,
        arity,
        flags: Flags::new(flags),
        keys,
        class,
        served: Served::Fully,
        subcommands: &[],
    }
}

/// One that is refused, always, and why: the clause follows "Freshet does not serve '...': ".
const fn refused(
    name: &'static str,
    arity: i8,
    flags: u32,
    keys: Keys,
    why: &'static str,
) -> Command {
    Command {
        served: Served::Not(why),
        ..row(name, arity, flags, keys, Unserved)
    }
}

const fn family(
    name: &'static str,
    arity: i8,
    flags: u32,
    class: Class,
    subcommands: &'static [Command],
) -> Command {
    Command {
        name,
        arity,
        flags: Flags::new(flags),
        keys: Keys::None,
        class,
        served: Served::Fully,
        subcommands,
    }
}

impl Command {
    /// The same, with this limit or difference.
    const fn but(self, what: &'static str) -> Self {
        Self {
            served: Served::But(what),
            ..self
        }
    }

    /// The same, which says why it does nothing.
    const fn not(self, why: &'static str) -> Self {
        Self {
            served: Served::Not(why),
            ..self
        }
    }
}

const NO_DUMP: &str = "it writes no dump file, each acknowledged write is in PostgreSQL already";
const NO_MODULES: &str = "what a module writes inside Redis would not be in PostgreSQL";
const NO_REPLICATION: &str = "PostgreSQL replicates the data, and further proxies serve the same";
const NO_SELF_TEST: &str = "it tests the source of Redis";
const AS_ALONE: &str = "as a Redis without replicas";
const AS_WITHOUT_CLUSTER: &str = "as a Redis outside cluster mode";
const OWN_MEMORY: &str = "of the proxy's own memory";

/// The flags that all commands running scripts share.
const SCRIPT: u32 = NOSCRIPT | STALE | SKIP_MONITOR | NO_MANDATORY_KEYS | MOVABLEKEYS;

/// What a proxy asks of itself, and no client can name: the key is deleted if its
/// end has passed.
pub static EXPIRED: Command = row("FRESHET|EXPIRED", 2, WRITE, FIRST, Write);

/// Freshet's own: makes what stands behind it once. Its keys are those of the command in it.
pub static ONCE: Command = row(
    super::once::NAME,
    -2,
    WRITE | MOVABLEKEYS | NO_MANDATORY_KEYS,
    NONE,
    Transaction,
);

/// Every command that Freshet knows, served or not.
#[rustfmt::skip]
pub static TABLE: &[Command] = &[
    // String.
    row("APPEND", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("DECR", 2, WRITE | DENYOOM | FAST, FIRST, Write),
    row("DECRBY", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("GET", 2, READONLY | FAST, FIRST, Read),
    row("GETDEL", 2, WRITE | FAST, FIRST, Write),
    row("GETEX", -2, WRITE | FAST, FIRST, Write),
    row("GETRANGE", 4, READONLY, FIRST, Read),
    row("GETSET", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("INCR", 2, WRITE | DENYOOM | FAST, FIRST, Write),
    row("INCRBY", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("INCRBYFLOAT", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("LCS", -3, READONLY, range(1, 2, 1), Read),
    row("MGET", -2, READONLY | FAST, ALL, Read),
    row("MSET", -3, WRITE | DENYOOM, range(1, -1, 2), Write),
    row("MSETNX", -3, WRITE | DENYOOM, range(1, -1, 2), Write),
    row("PSETEX", 4, WRITE | DENYOOM, FIRST, Write),
    row("SET", -3, WRITE | DENYOOM, FIRST, Write),
    row("SETEX", 4, WRITE | DENYOOM, FIRST, Write),
    row("SETNX", 3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("SETRANGE", 4, WRITE | DENYOOM, FIRST, Write),
    row("STRLEN", 2, READONLY | FAST, FIRST, Read),
    row("SUBSTR", 4, READONLY, FIRST, Read),
    // Bitmap.
    row("BITCOUNT", -2, READONLY, FIRST, Read),
    row("BITFIELD", -2, WRITE | DENYOOM, FIRST, Write),
    row("BITFIELD_RO", -2, READONLY | FAST, FIRST, Read),
    row("BITOP", -4, WRITE | DENYOOM, range(2, -1, 1), Write),
    row("BITPOS", -3, READONLY, FIRST, Read),
    row("GETBIT", 3, READONLY | FAST, FIRST, Read),
    row("SETBIT", 4, WRITE | DENYOOM, FIRST, Write),
    // Generic.
    row("COPY", -3, WRITE | DENYOOM, range(1, 2, 1), Write),
    row("DEL", -2, WRITE, ALL, Write),
    row("DUMP", 2, READONLY, FIRST, Read),
    row("EXISTS", -2, READONLY | FAST, ALL, Read),
    row("EXPIRE", -3, WRITE | FAST, FIRST, Write),
    row("EXPIREAT", -3, WRITE | FAST, FIRST, Write),
    row("EXPIRETIME", 2, READONLY | FAST, FIRST, Expiry),
    row("KEYS", 2, READONLY, NONE, Keyspace),
    refused("MIGRATE", -6, WRITE | MOVABLEKEYS, range(3, 3, 1), "its data stay in PostgreSQL, DUMP and RESTORE move single keys"),
    row("MOVE", 3, WRITE | FAST, FIRST, Write),
    family("OBJECT", -2, PLAIN, Local, &[
        row("OBJECT|ENCODING", 3, READONLY, range(2, 2, 1), Read),
        row("OBJECT|FREQ", 3, READONLY, range(2, 2, 1), Read),
        row("OBJECT|HELP", 2, LOADING | STALE, NONE, Local),
        row("OBJECT|IDLETIME", 3, READONLY, range(2, 2, 1), Read),
        row("OBJECT|REFCOUNT", 3, READONLY, range(2, 2, 1), Read),
    ]),
    row("PERSIST", 2, WRITE | FAST, FIRST, Write),
    row("PEXPIRE", -3, WRITE | FAST, FIRST, Write),
    row("PEXPIREAT", -3, WRITE | FAST, FIRST, Write),
    row("PEXPIRETIME", 2, READONLY | FAST, FIRST, Expiry),
    row("PTTL", 2, READONLY | FAST, FIRST, Expiry),
    row("RANDOMKEY", 1, READONLY, NONE, Keyspace),
    row("RENAME", 3, WRITE, range(1, 2, 1), Write),
    row("RENAMENX", 3, WRITE | FAST, range(1, 2, 1), Write),
    row("RESTORE", -4, WRITE | DENYOOM, FIRST, Write),
    row("SCAN", -2, READONLY, NONE, Keyspace),
    row("SORT", -2, WRITE | DENYOOM | MOVABLEKEYS, FIRST, Write),
    row("SORT_RO", -2, READONLY | MOVABLEKEYS, FIRST, Read),
    row("TOUCH", -2, READONLY | FAST, ALL, Read),
    row("TTL", 2, READONLY | FAST, FIRST, Expiry),
    row("TYPE", 2, READONLY | FAST, FIRST, Read),
    row("UNLINK", -2, WRITE | FAST, ALL, Write),
    row("WAIT", 3, NOSCRIPT, NONE, Local).but("answers 0 at once, as a Redis without replicas"),
    // Connection.
    row("AUTH", -2, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, NONE, Local),
    family("CLIENT", -2, PLAIN, Local, &[
        row("CLIENT|CACHING", 3, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|GETNAME", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|GETREDIR", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|HELP", 2, LOADING | STALE, NONE, Local),
        row("CLIENT|ID", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|INFO", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|KILL", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|LIST", -2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|NO-EVICT", 3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|NO-TOUCH", 3, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|PAUSE", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|REPLY", 3, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|SETINFO", 4, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|SETNAME", 3, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|TRACKING", -3, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|TRACKINGINFO", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|UNBLOCK", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CLIENT|UNPAUSE", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
    ]),
    row("ECHO", 2, LOADING | STALE | FAST, NONE, Local),
    row("HELLO", -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, NONE, Local),
    row("PING", -1, FAST, NONE, Local),
    row("QUIT", -1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, NONE, Local),
    row("RESET", 1, NOSCRIPT | LOADING | STALE | FAST | NO_AUTH | ALLOW_BUSY, NONE, Local),
    row("SELECT", 2, LOADING | STALE | FAST, NONE, Local),
    // Server.
    family("ACL", -2, PLAIN, Local, &[
        row("ACL|CAT", -2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|DELUSER", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|DRYRUN", -4, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|GENPASS", -2, NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|GETUSER", 3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|HELP", 2, LOADING | STALE, NONE, Local),
        row("ACL|LIST", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|LOAD", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|LOG", -2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|SAVE", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|SETUSER", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|USERS", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("ACL|WHOAMI", 2, NOSCRIPT | LOADING | STALE, NONE, Local),
    ]),
    row("BGREWRITEAOF", 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, NONE, Local).not(NO_DUMP),
    row("BGSAVE", -1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, NONE, Local).not(NO_DUMP),
    family("COMMAND", -1, LOADING | STALE, Local, &[
        row("COMMAND|COUNT", 2, LOADING | STALE, NONE, Local),
        row("COMMAND|DOCS", -2, LOADING | STALE, NONE, Local),
        row("COMMAND|GETKEYS", -4, LOADING | STALE, NONE, Local),
        row("COMMAND|GETKEYSANDFLAGS", -4, LOADING | STALE, NONE, Local),
        row("COMMAND|HELP", 2, LOADING | STALE, NONE, Local),
        row("COMMAND|INFO", -2, LOADING | STALE, NONE, Local),
        row("COMMAND|LIST", -2, LOADING | STALE, NONE, Local),
    ]),
    family("CONFIG", -2, PLAIN, Local, &[
        row("CONFIG|GET", -3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CONFIG|HELP", 2, LOADING | STALE, NONE, Local),
        row("CONFIG|RESETSTAT", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("CONFIG|REWRITE", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local)
            .not("it does not rewrite its configuration file"),
        row("CONFIG|SET", -4, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local)
            .but("`notify-keyspace-events` only, all else is set in `proxy.toml`"),
    ]),
    row("DBSIZE", 1, READONLY | FAST, NONE, Keyspace),
    row("DEBUG", -2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local).but("`DEBUG SLEEP` only"),
    row("FAILOVER", -1, ADMIN | NOSCRIPT | STALE, NONE, Local).but(AS_ALONE),
    row("FLUSHALL", -1, WRITE, NONE, Flush),
    row("FLUSHDB", -1, WRITE, NONE, Flush),
    row("INFO", -1, LOADING | STALE, NONE, Local),
    row("LASTSAVE", 1, LOADING | STALE | FAST, NONE, Local)
        .but("the present, since what was acknowledged is saved"),
    family("LATENCY", -2, PLAIN, Local, &[
        row("LATENCY|DOCTOR", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("LATENCY|GRAPH", 3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("LATENCY|HELP", 2, LOADING | STALE, NONE, Local),
        row("LATENCY|HISTOGRAM", -2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("LATENCY|HISTORY", 3, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("LATENCY|LATEST", 2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
        row("LATENCY|RESET", -2, ADMIN | NOSCRIPT | LOADING | STALE, NONE, Local),
    ]),
    row("LOLWUT", -1, READONLY | FAST, NONE, Local),
    family("MEMORY", -2, PLAIN, Local, &[
        row("MEMORY|DOCTOR", 2, PLAIN, NONE, Local).but(OWN_MEMORY),
        row("MEMORY|HELP", 2, LOADING | STALE, NONE, Local),
        row("MEMORY|MALLOC-STATS", 2, PLAIN, NONE, Local).but(OWN_MEMORY),
        row("MEMORY|PURGE", 2, PLAIN, NONE, Local).but(OWN_MEMORY),
        row("MEMORY|STATS", 2, PLAIN, NONE, Local).but(OWN_MEMORY),
        row("MEMORY|USAGE", -3, READONLY, range(2, 2, 1), Read),
    ]),
    family("MODULE", -2, PLAIN, Local, &[
        row("MODULE|HELP", 2, LOADING | STALE, NONE, Local),
        row("MODULE|LIST", 2, ADMIN | NOSCRIPT, NONE, Local).but("there are none"),
        refused("MODULE|LOAD", -3, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, NONE, NO_MODULES),
        refused("MODULE|LOADEX", -3, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, NONE, NO_MODULES),
        refused("MODULE|UNLOAD", 3, ADMIN | NOSCRIPT | NO_ASYNC_LOADING, NONE, NO_MODULES),
    ]),
    refused("MONITOR", 1, ADMIN | NOSCRIPT | LOADING | STALE, NONE, "telling every command to others would slow all clients, SLOWLOG and the metrics tell what goes on"),
    refused("PSYNC", -3, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, NONE, NO_REPLICATION),
    refused("REPLCONF", -1, ADMIN | NOSCRIPT | LOADING | STALE | ALLOW_BUSY, NONE, NO_REPLICATION),
    row("REPLICAOF", 3, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING, NONE, Local)
        .but("`NO ONE` only; `freshet import` brings in another server"),
    refused("RESTORE-ASKING", -4, WRITE | DENYOOM | ASKING, FIRST, "it has no cluster mode"),
    row("ROLE", 1, NOSCRIPT | LOADING | STALE | FAST, NONE, Local).but(AS_ALONE),
    row("SAVE", 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, NONE, Local).not(NO_DUMP),
    row("SHUTDOWN", -1, ADMIN | NOSCRIPT | LOADING | STALE | NO_MULTI | ALLOW_BUSY, NONE, Local)
        .not("no client stops it, send the process SIGTERM"),
    row("SLAVEOF", 3, ADMIN | NOSCRIPT | STALE | NO_ASYNC_LOADING, NONE, Local)
        .but("`NO ONE` only; `freshet import` brings in another server"),
    family("SLOWLOG", -2, PLAIN, Local, &[
        row("SLOWLOG|GET", -2, ADMIN | LOADING | STALE, NONE, Local),
        row("SLOWLOG|HELP", 2, LOADING | STALE, NONE, Local),
        row("SLOWLOG|LEN", 2, ADMIN | LOADING | STALE, NONE, Local),
        row("SLOWLOG|RESET", 2, ADMIN | LOADING | STALE, NONE, Local),
    ]),
    row("SWAPDB", 3, WRITE | FAST, NONE, Flush),
    refused("SYNC", 1, ADMIN | NOSCRIPT | NO_ASYNC_LOADING | NO_MULTI, NONE, NO_REPLICATION),
    row("TIME", 1, LOADING | STALE | FAST, NONE, Local),
    // Transactions.
    row("DISCARD", 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, NONE, Transaction),
    row("EXEC", 1, NOSCRIPT | LOADING | STALE | SKIP_SLOWLOG, NONE, Transaction),
    row("MULTI", 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, NONE, Transaction),
    row("UNWATCH", 1, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, NONE, Transaction),
    row("WATCH", -2, NOSCRIPT | LOADING | STALE | FAST | ALLOW_BUSY, ALL, Transaction),
    // Scripting.
    row("EVAL", -3, SCRIPT, counted(0, 2), Script),
    row("EVAL_RO", -3, READONLY | SCRIPT, counted(0, 2), Script),
    row("EVALSHA", -3, SCRIPT, counted(0, 2), Script),
    row("EVALSHA_RO", -3, READONLY | SCRIPT, counted(0, 2), Script),
    row("FCALL", -3, SCRIPT, counted(0, 2), Script),
    row("FCALL_RO", -3, READONLY | SCRIPT, counted(0, 2), Script),
    family("FUNCTION", -2, PLAIN, Local, &[
        row("FUNCTION|DELETE", 3, WRITE | NOSCRIPT, NONE, Local),
        row("FUNCTION|DUMP", 2, NOSCRIPT, NONE, Local),
        row("FUNCTION|FLUSH", -2, WRITE | NOSCRIPT, NONE, Local),
        row("FUNCTION|HELP", 2, LOADING | STALE, NONE, Local),
        row("FUNCTION|KILL", 2, NOSCRIPT | ALLOW_BUSY, NONE, Local),
        row("FUNCTION|LIST", -2, NOSCRIPT, NONE, Local),
        row("FUNCTION|LOAD", -3, WRITE | DENYOOM | NOSCRIPT, NONE, Local),
        row("FUNCTION|RESTORE", -3, WRITE | DENYOOM | NOSCRIPT, NONE, Local),
        row("FUNCTION|STATS", 2, NOSCRIPT | ALLOW_BUSY, NONE, Local),
    ]),
    family("SCRIPT", -2, PLAIN, Local, &[
        row("SCRIPT|DEBUG", 3, NOSCRIPT, NONE, Local).but("`NO` only, there is no debugger"),
        row("SCRIPT|EXISTS", -3, NOSCRIPT, NONE, Local),
        row("SCRIPT|FLUSH", -2, NOSCRIPT, NONE, Local),
        row("SCRIPT|HELP", 2, LOADING | STALE, NONE, Local),
        row("SCRIPT|KILL", 2, NOSCRIPT | ALLOW_BUSY, NONE, Local),
        row("SCRIPT|LOAD", 3, NOSCRIPT | STALE, NONE, Local),
    ]),
    // Pubsub.
    row("PSUBSCRIBE", -2, PUBSUB | NOSCRIPT | LOADING | STALE, NONE, Local),
    row("PUBLISH", 3, PUBSUB | LOADING | STALE | FAST, NONE, Local),
    family("PUBSUB", -2, PLAIN, Local, &[
        row("PUBSUB|CHANNELS", -2, PUBSUB | LOADING | STALE, NONE, Local),
        row("PUBSUB|HELP", 2, LOADING | STALE, NONE, Local),
        row("PUBSUB|NUMPAT", 2, PUBSUB | LOADING | STALE, NONE, Local),
        row("PUBSUB|NUMSUB", -2, PUBSUB | LOADING | STALE, NONE, Local),
        row("PUBSUB|SHARDCHANNELS", -2, PUBSUB | LOADING | STALE, NONE, Local),
        row("PUBSUB|SHARDNUMSUB", -2, PUBSUB | LOADING | STALE, NONE, Local),
    ]),
    row("PUNSUBSCRIBE", -1, PUBSUB | NOSCRIPT | LOADING | STALE, NONE, Local),
    row("SPUBLISH", 3, PUBSUB | LOADING | STALE | FAST, FIRST, Local),
    row("SSUBSCRIBE", -2, PUBSUB | NOSCRIPT | LOADING | STALE, ALL, Local),
    row("SUBSCRIBE", -2, PUBSUB | NOSCRIPT | LOADING | STALE, NONE, Local),
    row("SUNSUBSCRIBE", -1, PUBSUB | NOSCRIPT | LOADING | STALE, ALL, Local),
    row("UNSUBSCRIBE", -1, PUBSUB | NOSCRIPT | LOADING | STALE, NONE, Local),
    // Hash.
    row("HDEL", -3, WRITE | FAST, FIRST, Write),
    row("HEXISTS", 3, READONLY | FAST, FIRST, Read),
    row("HGET", 3, READONLY | FAST, FIRST, Read),
    row("HGETALL", 2, READONLY, FIRST, Read),
    row("HINCRBY", 4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("HINCRBYFLOAT", 4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("HKEYS", 2, READONLY, FIRST, Read),
    row("HLEN", 2, READONLY | FAST, FIRST, Read),
    row("HMGET", -3, READONLY | FAST, FIRST, Read),
    row("HMSET", -4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("HRANDFIELD", -2, READONLY, FIRST, Read),
    row("HSCAN", -3, READONLY, FIRST, Read),
    row("HSET", -4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("HSETNX", 4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("HSTRLEN", 3, READONLY | FAST, FIRST, Read),
    row("HVALS", 2, READONLY, FIRST, Read),
    // List.
    row("BLMOVE", 6, WRITE | DENYOOM | NOSCRIPT | BLOCKING, range(1, 2, 1), Write),
    row("BLMPOP", -5, WRITE | BLOCKING | MOVABLEKEYS, counted(0, 2), Write),
    row("BLPOP", -3, WRITE | NOSCRIPT | BLOCKING, range(1, -2, 1), Write),
    row("BRPOP", -3, WRITE | NOSCRIPT | BLOCKING, range(1, -2, 1), Write),
    row("BRPOPLPUSH", 4, WRITE | DENYOOM | NOSCRIPT | BLOCKING, range(1, 2, 1), Write),
    row("LINDEX", 3, READONLY, FIRST, Read),
    row("LINSERT", 5, WRITE | DENYOOM, FIRST, Write),
    row("LLEN", 2, READONLY | FAST, FIRST, Read),
    row("LMOVE", 5, WRITE | DENYOOM, range(1, 2, 1), Write),
    row("LMPOP", -4, WRITE | MOVABLEKEYS, counted(0, 1), Write),
    row("LPOP", -2, WRITE | FAST, FIRST, Write),
    row("LPOS", -3, READONLY, FIRST, Read),
    row("LPUSH", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("LPUSHX", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("LRANGE", 4, READONLY, FIRST, Read),
    row("LREM", 4, WRITE, FIRST, Write),
    row("LSET", 4, WRITE | DENYOOM, FIRST, Write),
    row("LTRIM", 4, WRITE, FIRST, Write),
    row("RPOP", -2, WRITE | FAST, FIRST, Write),
    row("RPOPLPUSH", 3, WRITE | DENYOOM, range(1, 2, 1), Write),
    row("RPUSH", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("RPUSHX", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    // Set.
    row("SADD", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("SCARD", 2, READONLY | FAST, FIRST, Read),
    row("SDIFF", -2, READONLY, ALL, Read),
    row("SDIFFSTORE", -3, WRITE | DENYOOM, ALL, Write),
    row("SINTER", -2, READONLY, ALL, Read),
    row("SINTERCARD", -3, READONLY | MOVABLEKEYS, counted(0, 1), Read),
    row("SINTERSTORE", -3, WRITE | DENYOOM, ALL, Write),
    row("SISMEMBER", 3, READONLY | FAST, FIRST, Read),
    row("SMEMBERS", 2, READONLY, FIRST, Read),
    row("SMISMEMBER", -3, READONLY | FAST, FIRST, Read),
    row("SMOVE", 4, WRITE | FAST, range(1, 2, 1), Write),
    row("SPOP", -2, WRITE | FAST, FIRST, Write),
    row("SRANDMEMBER", -2, READONLY, FIRST, Read),
    row("SREM", -3, WRITE | FAST, FIRST, Write),
    row("SSCAN", -3, READONLY, FIRST, Read),
    row("SUNION", -2, READONLY, ALL, Read),
    row("SUNIONSTORE", -3, WRITE | DENYOOM, ALL, Write),
    // Sorted set.
    row("BZMPOP", -5, WRITE | BLOCKING | MOVABLEKEYS, counted(0, 2), Write),
    row("BZPOPMAX", -3, WRITE | NOSCRIPT | BLOCKING | FAST, range(1, -2, 1), Write),
    row("BZPOPMIN", -3, WRITE | NOSCRIPT | BLOCKING | FAST, range(1, -2, 1), Write),
    row("ZADD", -4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("ZCARD", 2, READONLY | FAST, FIRST, Read),
    row("ZCOUNT", 4, READONLY | FAST, FIRST, Read),
    row("ZDIFF", -3, READONLY | MOVABLEKEYS, counted(0, 1), Read),
    row("ZDIFFSTORE", -4, WRITE | DENYOOM | MOVABLEKEYS, counted(1, 2), Write),
    row("ZINCRBY", 4, WRITE | DENYOOM | FAST, FIRST, Write),
    row("ZINTER", -3, READONLY | MOVABLEKEYS, counted(0, 1), Read),
    row("ZINTERCARD", -3, READONLY | MOVABLEKEYS, counted(0, 1), Read),
    row("ZINTERSTORE", -4, WRITE | DENYOOM | MOVABLEKEYS, counted(1, 2), Write),
    row("ZLEXCOUNT", 4, READONLY | FAST, FIRST, Read),
    row("ZMPOP", -4, WRITE | MOVABLEKEYS, counted(0, 1), Write),
    row("ZMSCORE", -3, READONLY | FAST, FIRST, Read),
    row("ZPOPMAX", -2, WRITE | FAST, FIRST, Write),
    row("ZPOPMIN", -2, WRITE | FAST, FIRST, Write),
    row("ZRANDMEMBER", -2, READONLY, FIRST, Read),
    row("ZRANGE", -4, READONLY, FIRST, Read),
    row("ZRANGEBYLEX", -4, READONLY, FIRST, Read),
    row("ZRANGEBYSCORE", -4, READONLY, FIRST, Read),
    row("ZRANGESTORE", -5, WRITE | DENYOOM, range(1, 2, 1), Write),
    row("ZRANK", 3, READONLY | FAST, FIRST, Read),
    row("ZREM", -3, WRITE | FAST, FIRST, Write),
    row("ZREMRANGEBYLEX", 4, WRITE, FIRST, Write),
    row("ZREMRANGEBYRANK", 4, WRITE, FIRST, Write),
    row("ZREMRANGEBYSCORE", 4, WRITE, FIRST, Write),
    row("ZREVRANGE", -4, READONLY, FIRST, Read),
    row("ZREVRANGEBYLEX", -4, READONLY, FIRST, Read),
    row("ZREVRANGEBYSCORE", -4, READONLY, FIRST, Read),
    row("ZREVRANK", 3, READONLY | FAST, FIRST, Read),
    row("ZSCAN", -3, READONLY, FIRST, Read),
    row("ZSCORE", 3, READONLY | FAST, FIRST, Read),
    row("ZUNION", -3, READONLY | MOVABLEKEYS, counted(0, 1), Read),
    row("ZUNIONSTORE", -4, WRITE | DENYOOM | MOVABLEKEYS, counted(1, 2), Write),
    // Stream.
    row("XACK", -4, WRITE | FAST, FIRST, Write),
    row("XADD", -5, WRITE | DENYOOM | FAST, FIRST, Write),
    row("XAUTOCLAIM", -6, WRITE | FAST, FIRST, Write),
    row("XCLAIM", -6, WRITE | FAST, FIRST, Write),
    row("XDEL", -3, WRITE | FAST, FIRST, Write),
    family("XGROUP", -2, PLAIN, Local, &[
        row("XGROUP|CREATE", -5, WRITE | DENYOOM, range(2, 2, 1), Write),
        row("XGROUP|CREATECONSUMER", 5, WRITE | DENYOOM, range(2, 2, 1), Write),
        row("XGROUP|DELCONSUMER", 5, WRITE, range(2, 2, 1), Write),
        row("XGROUP|DESTROY", 4, WRITE, range(2, 2, 1), Write),
        row("XGROUP|HELP", 2, LOADING | STALE, NONE, Local),
        row("XGROUP|SETID", -5, WRITE, range(2, 2, 1), Write),
    ]),
    family("XINFO", -2, PLAIN, Local, &[
        row("XINFO|CONSUMERS", 4, READONLY, range(2, 2, 1), Read),
        row("XINFO|GROUPS", 3, READONLY, range(2, 2, 1), Read),
        row("XINFO|HELP", 2, LOADING | STALE, NONE, Local),
        row("XINFO|STREAM", -3, READONLY, range(2, 2, 1), Read),
    ]),
    row("XLEN", 2, READONLY | FAST, FIRST, Read),
    row("XPENDING", -3, READONLY, FIRST, Read),
    row("XRANGE", -4, READONLY, FIRST, Read),
    row("XREAD", -4, READONLY | BLOCKING | MOVABLEKEYS, Keys::BehindStreams, Read),
    row("XREADGROUP", -7, WRITE | BLOCKING | MOVABLEKEYS, Keys::BehindStreams, Write),
    row("XREVRANGE", -4, READONLY, FIRST, Read),
    row("XSETID", -3, WRITE | DENYOOM | FAST, FIRST, Write),
    row("XTRIM", -4, WRITE, FIRST, Write),
    // Geo.
    row("GEOADD", -5, WRITE | DENYOOM, FIRST, Write),
    row("GEODIST", -4, READONLY, FIRST, Read),
    row("GEOHASH", -2, READONLY, FIRST, Read),
    row("GEOPOS", -2, READONLY, FIRST, Read),
    row("GEORADIUS", -6, WRITE | DENYOOM | MOVABLEKEYS, FIRST, Write),
    row("GEORADIUS_RO", -6, READONLY, FIRST, Read),
    row("GEORADIUSBYMEMBER", -5, WRITE | DENYOOM | MOVABLEKEYS, FIRST, Write),
    row("GEORADIUSBYMEMBER_RO", -5, READONLY, FIRST, Read),
    row("GEOSEARCH", -7, READONLY, FIRST, Read),
    row("GEOSEARCHSTORE", -8, WRITE | DENYOOM, range(1, 2, 1), Write),
    // Hyperloglog.
    row("PFADD", -2, WRITE | DENYOOM | FAST, FIRST, Write),
    row("PFCOUNT", -2, READONLY, ALL, Read).but("writes no count into the string"),
    refused("PFDEBUG", 3, WRITE | DENYOOM | ADMIN, range(2, 2, 1), NO_SELF_TEST),
    row("PFMERGE", -2, WRITE | DENYOOM, ALL, Write),
    refused("PFSELFTEST", 1, ADMIN, NONE, NO_SELF_TEST),
    // Cluster.
    row("ASKING", 1, FAST, NONE, Local).but(AS_WITHOUT_CLUSTER),
    family("CLUSTER", -2, PLAIN, Local, &[
        row("CLUSTER|ADDSLOTS", -3, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|ADDSLOTSRANGE", -4, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|BUMPEPOCH", 2, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|COUNT-FAILURE-REPORTS", 3, ADMIN | STALE, NONE, Local),
        row("CLUSTER|COUNTKEYSINSLOT", 3, STALE, NONE, Local),
        row("CLUSTER|DELSLOTS", -3, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|DELSLOTSRANGE", -4, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|FAILOVER", -2, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|FLUSHSLOTS", 2, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|FORGET", 3, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|GETKEYSINSLOT", 4, STALE, NONE, Local),
        row("CLUSTER|HELP", 2, LOADING | STALE, NONE, Local),
        row("CLUSTER|INFO", 2, STALE, NONE, Local),
        row("CLUSTER|KEYSLOT", 3, STALE, NONE, Local),
        row("CLUSTER|LINKS", 2, STALE, NONE, Local),
        row("CLUSTER|MEET", -4, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|MYID", 2, STALE, NONE, Local),
        row("CLUSTER|NODES", 2, STALE, NONE, Local),
        row("CLUSTER|REPLICAS", 3, ADMIN | STALE, NONE, Local),
        row("CLUSTER|REPLICATE", 3, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|RESET", -2, ADMIN | NOSCRIPT | STALE, NONE, Local),
        row("CLUSTER|SAVECONFIG", 2, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|SET-CONFIG-EPOCH", 3, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|SETSLOT", -4, ADMIN | STALE | NO_ASYNC_LOADING, NONE, Local),
        row("CLUSTER|SHARDS", 2, STALE, NONE, Local),
        row("CLUSTER|SLAVES", 3, ADMIN | STALE, NONE, Local),
        row("CLUSTER|SLOTS", 2, STALE, NONE, Local),
    ])
    .but(AS_WITHOUT_CLUSTER),
    row("READONLY", 1, LOADING | STALE | FAST, NONE, Local).but(AS_WITHOUT_CLUSTER),
    row("READWRITE", 1, LOADING | STALE | FAST, NONE, Local).but(AS_WITHOUT_CLUSTER),
];

/// Slots of the look-up table: a power of two well above the number of rows, so
/// that probes are short.
const SLOTS: usize = 1024;

/// A slot that no row took.
const EMPTY: u16 = u16::MAX;

/// Open addressing over [`TABLE`], built by the compiler.
static INDEX: [u16; SLOTS] = build_index();

const fn build_index() -> [u16; SLOTS] {
    let mut index = [EMPTY; SLOTS];
    let mut row = 0;
    while row < TABLE.len() {
        let mut slot = slot_of(TABLE[row].name.as_bytes());
        while index[slot] != EMPTY {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = row as u16;
        row += 1;
    }
    index
}

/// Where the probes for `name` begin; upper and lower case fall together.
const fn slot_of(name: &[u8]) -> usize {
    let mut hash = name.len() as u32;
    let mut i = 0;
    while i < name.len() {
        hash = (hash ^ (name[i] | 0x20) as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    (hash ^ (hash >> 15)) as usize % SLOTS
}

/// The longest name in the table; longer requests are not even hashed.
const NAME_MAX: usize = 32;

/// The row of the command called `name`, in any case of letters; of a family,
/// the family's own row. `FAMILY|SUBCOMMAND` is not found here, as in Redis.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    if name.len() > NAME_MAX {
        return None;
    }
    let mut slot = slot_of(name);
    while INDEX[slot] != EMPTY {
        let command = &TABLE[INDEX[slot] as usize];
        if command.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(command);
        }
        slot = (slot + 1) % SLOTS;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        for command in TABLE {
            assert!(command.name.len() <= NAME_MAX);
            let found = lookup(command.name.to_lowercase().as_bytes()).unwrap();
            assert_eq!(found.name, command.name);
            assert_eq!(found.name, lookup(command.name.as_bytes()).unwrap().name);
        }
        for unknown in ["", "FOO", "GETT", "OBJECT|ENCODING", "\u{e7}et"] {
            assert!(lookup(unknown.as_bytes()).is_none(), "{unknown}");
        }
    }

    #[test]
    fn probes_are_short() {
        let longest = INDEX
            .split(|slot| *slot == EMPTY)
            .map(<[u16]>::len)
            .max()
            .unwrap();
        assert!(longest <= 8, "{longest} rows in a row");
    }

    #[test]
    fn served_commands_with_keys_have_the_class_of_their_flags() {
        let rows = TABLE.iter().flat_map(|c| c.subcommands.iter().chain([c]));
        for command in rows.filter(|c| c.keys != Keys::None) {
            match command.class {
                Write => assert!(command.flags.has(WRITE), "{}", command.name),
                Read | Expiry => assert!(command.flags.has(READONLY), "{}", command.name),
                Transaction | Script | Unserved => {}
                // Channels of shards count as keys in Redis.
                Local if command.flags.has(PUBSUB) => {}
                Local | Keyspace | Flush => panic!("{} has keys", command.name),
            }
        }
    }
}
