//! A link with a round-trip time, made of a TUN device: what is sent to [`FAR`] comes back to [`NEAR`] after the delay,
//! with its addresses swapped, so that the kernel takes its own packets for another host's. Both ends then live on this
//! machine, and TCP's own handshake is delayed as well. Swapping leaves every checksum as it was.

use crate::sys;
use anyhow::{Context as _, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

const NAME: &str = "knockbench";
const MTU: usize = 1500;

/// Where listeners listen.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 1);
/// Where they are reached.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 213, 77, 2);

/// Sets the link up. It goes when the process does.
pub(crate) fn start(one_way: Duration) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this measurement makes a TUN device ({NAME}, {NEAR}/24), which takes root; run it with sudo"
    );
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .context("no TUN devices here (/dev/net/tun)")?;
    sys::become_tun(&device, NAME).with_context(|| format!("cannot make the TUN device {NAME}"))?;
    ip(&["addr", "add", &format!("{NEAR}/24"), "dev", NAME])?;
    ip(&["link", "set", NAME, "mtu", &MTU.to_string(), "up"])?;

    let back = device.try_clone()?;
    let (sender, packets) = mpsc::channel();
    std::thread::spawn(move || take(device, one_way, &sender));
    std::thread::spawn(move || give_back(back, &packets));
    Ok(())
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip")
        .args(args)
        .status()
        .context("needs `ip` (iproute2)")?;
    ensure!(done.success(), "`ip {}` failed", args.join(" "));
    Ok(())
}

fn take(mut device: File, one_way: Duration, sender: &mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut buffer = [0; MTU];
    while let Ok(n) = device.read(&mut buffer) {
        let mut packet = buffer[..n].to_vec();
        // Only IPv4: the kernel also looks for IPv6 routers on every new device.
        if packet.len() < 20 || packet[0] >> 4 != 4 {
            continue;
        }
        let (source, destination) = packet[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        if sender.send((Instant::now() + one_way, packet)).is_err() {
            return;
        }
    }
}

/// Every packet is delayed alike, so the first to come is the first to go.
fn give_back(mut device: File, packets: &mpsc::Receiver<(Instant, Vec<u8>)>) {
    for (due, packet) in packets {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if device.write_all(&packet).is_err() {
            return;
        }
    }
}
