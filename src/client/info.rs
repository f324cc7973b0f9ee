//! `INFO`: the sections that clients and exporters read, under Redis's names.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::access::REDIS_VERSION;
use super::hub::Hub;
use super::latency::percentile;
use super::process;
use crate::command::Call;
use crate::model::Reply;
use crate::pubsub::Space;

/// The sections in Redis's order, and whether `INFO` shows them unasked.
const SECTIONS: &[(&str, Shown)] = &[
    ("server", Shown::Always),
    ("clients", Shown::Always),
    ("memory", Shown::Always),
    ("persistence", Shown::Always),
    ("stats", Shown::Always),
    ("replication", Shown::Always),
    ("cpu", Shown::Always),
    ("modules", Shown::Always),
    ("commandstats", Shown::Asked),
    ("errorstats", Shown::Always),
    ("latencystats", Shown::Asked),
    ("cluster", Shown::Always),
    ("keyspace", Shown::Always),
    ("freshet", Shown::Always),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Always,
    Asked,
}

/// Answers `INFO [section ...]`.
pub async fn reply(hub: &Hub, call: &Call) -> Reply {
    let mut text = Lines::default();
    for (section, shown) in SECTIONS {
        if !is_wanted(section, *shown, call) {
            continue;
        }
        text.begin(section);
        match *section {
            "server" => server(hub, &mut text),
            "clients" => clients(hub, &mut text),
            "memory" => memory(&mut text),
            "persistence" => persistence(&mut text),
            "stats" => stats(hub, &mut text),
            "replication" => replication(hub, &mut text),
            "cpu" => cpu(&mut text),
            "commandstats" => command_stats(hub, &mut text),
            "errorstats" => error_stats(hub, &mut text),
            "latencystats" => latency_stats(hub, &mut text),
            "cluster" => text.put("cluster_enabled", 0),
            "keyspace" => keyspace(hub, &mut text).await,
            "freshet" => freshet(hub, &mut text),
            _ => {}
        }
    }
    Reply::Verbatim(*b"txt", Bytes::from(text.0))
}

fn is_wanted(section: &str, shown: Shown, call: &Call) -> bool {
    if call.request.len() == 1 {
        return shown == Shown::Always;
    }
    call.request.args().skip(1).any(|wish| {
        let is = |word: &str| wish.eq_ignore_ascii_case(word.as_bytes());
        is(section) || is("all") || is("everything") || (is("default") && shown == Shown::Always)
    })
}

/// Lines of `name:value`, in sections.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn begin(&mut self, section: &str) {
        if !self.0.is_empty() {
            self.0.push_str("\r\n");
        }
        let (first, rest) = section.split_at(1);
        // `CPU` is the one section that Redis writes in capitals throughout.
        if section == "cpu" {
            self.0.push_str("# CPU\r\n");
        } else {
            self.line(&format_args!("# {}{rest}", first.to_ascii_uppercase()));
        }
    }

    fn line(&mut self, text: &dyn Display) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{text}\r\n");
    }

    fn put(&mut self, name: &str, value: impl Display) {
        self.line(&format_args!("{name}:{value}"));
    }

    fn put_all(&mut self, fields: &[(&str, &dyn Display)]) {
        for (name, value) in fields {
            self.put(name, value);
        }
    }
}

fn server(hub: &Hub, text: &mut Lines) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let uptime = hub.started.elapsed().as_secs();
    let executable = std::env::current_exe().unwrap_or_default();
    text.put_all(&[
        ("redis_version", &REDIS_VERSION),
        ("redis_git_sha1", &"00000000"),
        ("redis_git_dirty", &0),
        ("redis_build_id", &"0000000000000000"),
        ("redis_mode", &"standalone"),
        ("os", &process::operating_system()),
        ("arch_bits", &usize::BITS),
        ("multiplexing_api", &"epoll"),
        ("process_id", &std::process::id()),
        ("process_supervised", &"no"),
        ("run_id", &hub.run_id),
        ("tcp_port", &hub.address().port()),
        ("server_time_usec", &now.as_micros()),
        ("uptime_in_seconds", &uptime),
        ("uptime_in_days", &(uptime / 86_400)),
        ("hz", &10),
        ("configured_hz", &10),
        ("lru_clock", &(now.as_secs() & 0xff_ffff)),
        ("executable", &executable.display()),
        ("config_file", &""),
        ("io_threads_active", &0),
    ]);
}

fn clients(hub: &Hub, text: &mut Lines) {
    text.put_all(&[
        ("connected_clients", &hub.registry.len()),
        ("cluster_connections", &0),
        ("maxclients", &hub.config().listen.max_clients),
        ("client_recent_max_input_buffer", &0),
        ("client_recent_max_output_buffer", &0),
        ("blocked_clients", &hub.flow.waiting()),
        (
            "tracking_clients",
            &hub.flow.broker().tracking().sizes().clients,
        ),
        ("clients_in_timeout_table", &0),
    ]);
}

/// A number of bytes as Redis shows it to people: `12.34M`.
fn human(bytes: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    for (unit, shift) in UNITS {
        if bytes >= 1 << shift {
            return format!("{:.2}{unit}", bytes as f64 / (1_u64 << shift) as f64);
        }
    }
    format!("{bytes}B")
}

fn memory(text: &mut Lines) {
    let memory = process::memory();
    let percent = memory.resident as f64 * 100.0 / memory.peak.max(1) as f64;
    text.put_all(&[
        ("used_memory", &memory.resident),
        ("used_memory_human", &human(memory.resident)),
        ("used_memory_rss", &memory.resident),
        ("used_memory_rss_human", &human(memory.resident)),
        ("used_memory_peak", &memory.peak),
        ("used_memory_peak_human", &human(memory.peak)),
        ("used_memory_peak_perc", &format_args!("{percent:.2}%")),
        ("used_memory_dataset", &0),
        ("total_system_memory", &memory.total),
        ("total_system_memory_human", &human(memory.total)),
        ("used_memory_lua", &0),
        ("used_memory_lua_human", &"0B"),
        ("used_memory_scripts", &0),
        ("used_memory_scripts_human", &"0B"),
        ("number_of_cached_scripts", &0),
        ("maxmemory", &0),
        ("maxmemory_human", &"0B"),
        ("maxmemory_policy", &"noeviction"),
        ("mem_fragmentation_ratio", &"1.00"),
        ("mem_fragmentation_bytes", &0),
        ("mem_allocator", &"system"),
        ("active_defrag_running", &0),
        ("lazyfree_pending_objects", &0),
    ]);
}

/// Whatever was acknowledged is saved: there is never anything to be saved.
fn persistence(text: &mut Lines) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    text.put_all(&[
        ("loading", &0),
        ("async_loading", &0),
        ("rdb_changes_since_last_save", &0),
        ("rdb_bgsave_in_progress", &0),
        ("rdb_last_save_time", &now.as_secs()),
        ("rdb_last_bgsave_status", &"ok"),
        ("rdb_last_bgsave_time_sec", &-1),
        ("rdb_current_bgsave_time_sec", &-1),
        ("rdb_saves", &0),
        ("aof_enabled", &0),
        ("aof_rewrite_in_progress", &0),
        ("aof_rewrite_scheduled", &0),
        ("aof_last_rewrite_time_sec", &-1),
        ("aof_current_rewrite_time_sec", &-1),
        ("aof_last_bgrewrite_status", &"ok"),
        ("aof_last_write_status", &"ok"),
    ]);
}

fn stats(hub: &Hub, text: &mut Lines) {
    let stats = &hub.stats;
    let rate = stats.rate();
    let kilobytes = |bytes: u64| format!("{:.2}", bytes as f64 / 1024.0);
    text.put_all(&[
        (
            "total_connections_received",
            &stats.connections.load(Relaxed),
        ),
        ("total_commands_processed", &stats.commands.load(Relaxed)),
        ("instantaneous_ops_per_sec", &rate.commands_per_second),
        ("total_net_input_bytes", &stats.input_bytes.load(Relaxed)),
        ("total_net_output_bytes", &stats.output_bytes.load(Relaxed)),
        (
            "instantaneous_input_kbps",
            &kilobytes(rate.input_per_second),
        ),
        (
            "instantaneous_output_kbps",
            &kilobytes(rate.output_per_second),
        ),
        (
            "rejected_connections",
            &stats.connections_refused.load(Relaxed),
        ),
        ("sync_full", &0),
        ("sync_partial_ok", &0),
        ("sync_partial_err", &0),
        ("expired_keys", &0),
        ("evicted_keys", &0),
        ("evicted_clients", &stats.connections_cut_off.load(Relaxed)),
    ]);
    more_stats(hub, text);
}

fn more_stats(hub: &Hub, text: &mut Lines) {
    let stats = &hub.stats;
    let broker = hub.flow.broker();
    let tracking = broker.tracking().sizes();
    text.put_all(&[
        ("keyspace_hits", &stats.lookup_hits.load(Relaxed)),
        ("keyspace_misses", &stats.lookup_misses.load(Relaxed)),
        ("pubsub_channels", &broker.count(Space::Channel)),
        ("pubsub_patterns", &broker.count(Space::Pattern)),
        ("pubsubshard_channels", &broker.count(Space::Shard)),
        ("latest_fork_usec", &0),
        ("total_forks", &0),
        ("migrate_cached_sockets", &0),
        ("slave_expires_tracked_keys", &0),
        ("tracking_total_keys", &tracking.keys),
        ("tracking_total_items", &tracking.items),
        ("tracking_total_prefixes", &tracking.prefixes),
        ("unexpected_error_replies", &0),
        ("total_error_replies", &stats.errors.load(Relaxed)),
        ("total_reads_processed", &stats.reads.load(Relaxed)),
        ("total_writes_processed", &stats.writes.load(Relaxed)),
    ]);
}

fn replication(hub: &Hub, text: &mut Lines) {
    text.put_all(&[
        ("role", &"master"),
        ("connected_slaves", &0),
        ("master_failover_state", &"no-failover"),
        ("master_replid", &hub.run_id),
        ("master_replid2", &"0".repeat(40)),
        ("master_repl_offset", &0),
        ("second_repl_offset", &-1),
        ("repl_backlog_active", &0),
        ("repl_backlog_size", &0),
        ("repl_backlog_first_byte_offset", &0),
        ("repl_backlog_histlen", &0),
    ]);
}

fn cpu(text: &mut Lines) {
    let time = process::cpu_time();
    text.put_all(&[
        (
            "used_cpu_sys",
            &format_args!("{:.6}", time.system.as_secs_f64()),
        ),
        (
            "used_cpu_user",
            &format_args!("{:.6}", time.user.as_secs_f64()),
        ),
        ("used_cpu_sys_children", &"0.000000"),
        ("used_cpu_user_children", &"0.000000"),
    ]);
}

fn command_stats(hub: &Hub, text: &mut Lines) {
    for stats in hub.stats.by_command() {
        let calls = stats.calls.load(Relaxed);
        let micros = stats.nanos.load(Relaxed) / 1000;
        let rejected = stats.rejected.load(Relaxed);
        if calls == 0 && rejected == 0 {
            continue;
        }
        text.line(&format_args!(
            "cmdstat_{}:calls={calls},usec={micros},usec_per_call={:.2},rejected_calls={rejected},\
             failed_calls={}",
            stats.command.name.to_ascii_lowercase(),
            micros as f64 / calls.max(1) as f64,
            stats.failed.load(Relaxed),
        ));
    }
}

fn error_stats(hub: &Hub, text: &mut Lines) {
    for (code, count) in hub.stats.by_error() {
        text.line(&format_args!("errorstat_{code}:count={count}"));
    }
}

fn latency_stats(hub: &Hub, text: &mut Lines) {
    for stats in hub.stats.by_command() {
        if stats.calls.load(Relaxed) > 0 {
            text.line(&format_args!(
                "latency_percentiles_usec_{}:p50={:.3},p99={:.3},p99.9={:.3}",
                stats.command.name.to_ascii_lowercase(),
                percentile(&stats, 0.5),
                percentile(&stats, 0.99),
                percentile(&stats, 0.999),
            ));
        }
    }
}

/// Counted by the store; no lines while it is away.
async fn keyspace(hub: &Hub, text: &mut Lines) {
    for size in hub.flow.database_sizes().await.unwrap_or_default() {
        text.line(&format_args!(
            "db{}:keys={},expires={},avg_ttl=0",
            size.db.index(),
            size.keys,
            size.expires
        ));
    }
}

fn freshet(hub: &Hub, text: &mut Lines) {
    let status = hub.flow.status();
    text.put_all(&[
        ("freshet_version", &env!("CARGO_PKG_VERSION")),
        ("cache_state", &status.cache_state),
        ("cache_generation", &status.generation),
        ("store_reachable", &u8::from(status.store_reachable)),
        ("units_in_flight", &status.units_in_flight),
        ("failed_logins", &hub.stats.failed_logins.load(Relaxed)),
        (
            "clients_cut_off",
            &hub.stats.connections_cut_off.load(Relaxed),
        ),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_redis_shows_them() {
        for (bytes, text) in [
            (0, "0B"),
            (1023, "1023B"),
            (990_360, "967.15K"),
            (672_007_184, "640.88M"),
            (25_276_514_304, "23.54G"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
