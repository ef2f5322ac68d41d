//! What the measurements ask of the operating system.

use anyhow::{Context as _, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// CPU time of this process so far, user and system, all threads.
pub(crate) fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// CPU time of this thread so far. Unlike the wall's, it does not run while the machine does something else.
pub(crate) fn thread_cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Resident memory of this process in bytes, after the allocator has given back what it can.
pub(crate) fn resident() -> Result<u64> {
    trim();
    let status = std::fs::read_to_string("/proc/self/smaps_rollup").context("resident memory is read on Linux only")?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix("kB"))
        .context("no Rss line")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// Without this, pages that are free but scattered count as the connections'.
#[allow(unsafe_code, reason = "no safe crate has malloc_trim")]
fn trim() {
    // SAFETY: takes an integer and may be called at any time from any thread.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Raises the limit of open files as far as it goes, and says how far that is.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let raised = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    raised.unwrap_or(u64::MAX)
}

/// Makes `file`, an open `/dev/net/tun`, the device `name`, which carries bare IP packets.
#[allow(unsafe_code, reason = "no safe crate has TUNSETIFF")]
pub(crate) fn become_tun(file: &std::fs::File, name: &str) -> std::io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let mut request = [0_u8; 40]; // struct ifreq
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = u16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).map_err(std::io::Error::other)?;
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which is what the pointer points to.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if done < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
