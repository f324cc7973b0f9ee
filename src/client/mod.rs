//! One client's state, and the commands that are answered from it or from
//! what the server knows of itself, without the data path.

mod access;
mod acl;
mod clients;
mod help;
mod hub;
mod info;
mod latency;
mod local;
mod operations;
mod pause;
mod process;
mod registry;
mod settings;
mod slowlog;
mod state;
mod stats;
mod subscribe;
mod tracking;
mod transaction;
mod users;

pub use access::{REDIS_VERSION, admit};
pub use hub::Hub;
pub use local::{After, answer};
pub use pause::Pause;
pub use registry::{Address, Entry, Full, Order, Profile, Registry, Subscribed, Tracks, Unblock};
pub use slowlog::SlowLog;
pub use state::{Client, Eviction, Library, Mode, Replies};
pub use stats::Stats;
pub use tracking::Tracked;
pub use transaction::{Block, Watchlist, queue, refused, waits};
pub use users::{Account, Users};
