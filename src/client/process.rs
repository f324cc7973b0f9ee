//! What the kernel says of this process, for `INFO`. Zeros where it says nothing.

use std::fs;
use std::time::Duration;

/// The kernel's `USER_HZ`, in which `/proc` counts time on all Linux platforms.
const TICKS_PER_SECOND: u64 = 100;

/// Time spent on a processor.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    /// In the kernel.
    pub system: Duration,
    /// In the program.
    pub user: Duration,
}

/// This process's time on a processor.
pub fn cpu_time() -> CpuTime {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name stands in parentheses and may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |index: usize| -> Duration {
        let ticks = fields.split_whitespace().nth(index);
        let ticks: u64 = ticks.and_then(|text| text.parse().ok()).unwrap_or(0);
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    };
    CpuTime {
        user: ticks(11),
        system: ticks(12),
    }
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Of this process, now.
    pub resident: u64,
    /// Of this process, at most since it started.
    pub peak: u64,
    /// Of the machine.
    pub total: u64,
}

/// This process's and the machine's memory.
pub fn memory() -> Memory {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Memory {
        resident: kilobytes(&status, "VmRSS:"),
        peak: kilobytes(&status, "VmHWM:"),
        total: kilobytes(&machine, "MemTotal:"),
    }
}

/// The value of the line `<name> <n> kB`, in bytes.
fn kilobytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

/// The operating system, as `uname -srm` says it.
pub fn operating_system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} {}", release.trim(), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_this_process() {
        let memory = memory();
        assert!(memory.resident > 0);
        assert!(memory.peak >= memory.resident);
        assert!(memory.total > memory.resident);
        let busy_until = std::time::Instant::now() + Duration::from_millis(50);
        while std::time::Instant::now() < busy_until {
            std::hint::spin_loop();
        }
        let time = cpu_time();
        assert!(time.user + time.system >= Duration::from_millis(10));
    }
}
