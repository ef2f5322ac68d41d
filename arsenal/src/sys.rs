//! What is asked of the operating system: descriptors, cores, and what a process and the kernel spend.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Raises the limit of open files to `wanted` or as near as it goes, and says where it is now.
pub fn raise_open_files(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    // Beyond the hard limit for whoever may.
    for (soft, hard) in [(wanted, maximum.max(wanted)), (wanted.min(maximum), maximum)] {
        let raised = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            return soft;
        }
    }
    current
}

/// Keeps this thread, and those it starts from now on, on one core.
///
/// # Errors
///
/// When there is no such core, or this process may not use it.
pub fn pin_to_core(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        set.set(core);
    }
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// Lets other processes go first, the more the higher `by` is, up to 19.
///
/// # Errors
///
/// When the kernel refuses.
pub fn be_nice(by: u8) -> Result<()> {
    rustix::process::nice(i32::from(by)).with_context(|| format!("cannot be nicer by {by}"))?;
    Ok(())
}

/// What a process has used and holds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Resident memory.
    pub rss_kib: u64,
    /// CPU time so far, user and system, all threads.
    pub cpu_ms: u64,
    /// Time so far in which its first thread could have run and others had the core, where the kernel says so.
    pub waited_ms: Option<u64>,
    /// Open descriptors.
    pub open_files: usize,
}

/// The figures of a process, from outside it.
///
/// # Errors
///
/// When it is gone, or this is not Linux.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let files = format!("/proc/{pid}/fd");
    Ok(Usage {
        rss_kib: field_kib(&read("status")?, "VmRSS:").context("no VmRSS")?,
        cpu_ms: cpu_ms(&read("stat")?, rustix::param::clock_ticks_per_second()).context("no CPU time")?,
        waited_ms: read("schedstat").ok().and_then(|text| waited_ms(&text)),
        open_files: std::fs::read_dir(&files)
            .with_context(|| format!("cannot read {files}"))?
            .count(),
    })
}

fn field_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time are the 14th and 15th field; the second may contain anything, and ends with a parenthesis.
fn cpu_ms(stat: &str, ticks_per_second: u64) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    ((user + system) * 1000).checked_div(ticks_per_second)
}

/// Time on a core, time waiting for one, both in nanoseconds, and how often.
fn waited_ms(schedstat: &str) -> Option<u64> {
    let nanos: u64 = schedstat.split_whitespace().nth(1)?.parse().ok()?;
    Some(nanos / 1_000_000)
}

/// What the kernel spends on TCP, of all processes and both ends of each connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KernelTcp {
    /// Sockets, those in TIME_WAIT left out.
    pub sockets: u64,
    /// Buffers.
    pub buffers_kib: u64,
    /// Socket structures, where the kernel lets us look.
    pub slab_kib: Option<u64>,
}

impl KernelTcp {
    /// Both together, in MiB.
    pub fn mib(&self) -> f64 {
        (self.buffers_kib + self.slab_kib.unwrap_or(0)) as f64 / 1024.0
    }
}

/// The kernel's figures now.
///
/// # Errors
///
/// Where this is not Linux.
pub fn kernel_tcp() -> Result<KernelTcp> {
    let sockstat = std::fs::read_to_string("/proc/net/sockstat").context("cannot read /proc/net/sockstat")?;
    let field = |name| sockstat_tcp(&sockstat, name).with_context(|| format!("no {name} in /proc/net/sockstat"));
    let page_kib = rustix::param::page_size() as u64 / 1024;
    Ok(KernelTcp {
        sockets: field("alloc")?,
        buffers_kib: field("mem")? * page_kib,
        // For root only.
        slab_kib: std::fs::read_to_string("/proc/slabinfo")
            .ok()
            .map(|text| slab_kib(&text)),
    })
}

fn sockstat_tcp(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().find_map(|line| line.strip_prefix("TCP: "))?.split(' ');
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

fn slab_kib(text: &str) -> u64 {
    let bytes = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let ours = [
            "TCP",
            "TCPv6",
            "sock_inode_cache",
            "request_sock_TCP",
            "request_sock_TCPv6",
            "tw_sock_TCP",
        ];
        ours.contains(&name).then_some(())?;
        let objects: u64 = words.nth(1)?.parse().ok()?;
        let size: u64 = words.next()?.parse().ok()?;
        Some(objects * size)
    });
    bytes.sum::<u64>() / 1024
}

/// CPU time as a share of one core over `elapsed`.
pub fn share(before: &Usage, after: &Usage, elapsed: Duration) -> f64 {
    let used = after.cpu_ms.saturating_sub(before.cpu_ms) as f64 / 1e3;
    used / elapsed.as_secs_f64().max(1e-3)
}

/// Time spent waiting for a core as a share of `elapsed`.
pub fn waited_share(before: &Usage, after: &Usage, elapsed: Duration) -> Option<f64> {
    let waited = after.waited_ms?.saturating_sub(before.waited_ms?) as f64 / 1e3;
    Some(waited / elapsed.as_secs_f64().max(1e-3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_whose_name_has_spaces_and_parentheses_is_read_right() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 100 1000 10 0";
        assert_eq!(cpu_ms(stat, 100), Some(3000));
        assert_eq!(cpu_ms("12 (a", 100), None);
        assert_eq!(waited_ms("9000000 5000000 3\n"), Some(5));
    }

    #[test]
    fn the_kernels_tables_are_read_by_name() {
        let sockstat = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 7 alloc 8 mem 3\nUDP: inuse 1 mem 2\n";
        assert_eq!(sockstat_tcp(sockstat, "mem"), Some(3));
        assert_eq!(sockstat_tcp(sockstat, "gone"), None);
        let slab = "slabinfo - version: 2.1\nTCP  10 20 2048 16 8 : tunables\nTCPx 1 1 9999 1 1\n";
        assert_eq!(slab_kib(slab), 40);
    }

    #[test]
    fn this_process_has_figures() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.rss_kib > 100 && usage.open_files > 2, "{usage:?}");
        assert!(kernel_tcp().unwrap().mib() >= 0.0);
    }
}
