//! Another server takes the place of the cache or of the store, or one of several proxies
//! loses its way to them.

mod apart;
mod history;
mod rollout;
mod sentinel;
mod store;
mod warm_up;

use std::time::Duration;

use crate::support::{Client, Program, process};

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until the proxy says that its cache is in this state.
fn await_state(program: &Program, state: &str) {
    let wanted = format!("freshet_cache_state{{state=\"{state}\"}} 1");
    process::await_true(state, LIMIT, || {
        let page = program.http("/metrics");
        page.is_ok_and(|(_, text)| text.contains(&wanted))
    })
    .unwrap_or_else(|error| panic!("{error}; it said:\n{}", program.log_text()));
}

/// Waits until a write is taken, and returns after how many refusals.
fn await_write(client: &mut Client, key: &str, value: &str) -> u32 {
    let mut refusals = 0;
    process::await_true("a write is taken", LIMIT, || {
        let reply = client.call(&["SET", key, value]).unwrap();
        match reply.error() {
            None => true,
            Some(text) => {
                assert!(text.starts_with("TRYAGAIN"), "{text}");
                refusals += 1;
                false
            }
        }
    })
    .unwrap();
    refusals
}
