//! Somebody on the path.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver};

/// Passes one connection on to `target`. What it has counted when both ways are closed: bytes there, and bytes back.
pub(crate) fn recording(target: SocketAddr) -> (SocketAddr, Receiver<(usize, usize)>) {
    let (listener, address) = listen();
    let (sender, counts) = mpsc::channel();
    std::thread::spawn(move || {
        let near = listener.accept().unwrap().0;
        let far = TcpStream::connect(target).unwrap();
        let back = std::thread::spawn({
            let (far, near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
            move || pass_on(far, near)
        });
        let there = pass_on(near, far);
        let _ = sender.send((there, back.join().unwrap()));
    });
    (address, counts)
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) -> usize {
    let (mut buffer, mut count) = ([0; 4096], 0);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        count += n;
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    count
}

/// Takes everything and gives nothing, as somebody does who drops the packets of one port.
pub(crate) fn swallowing() -> SocketAddr {
    let (listener, address) = listen();
    std::thread::spawn(move || {
        let sockets: Vec<_> = listener.incoming().collect();
        drop(sockets);
    });
    address
}

/// Closes every connection at once.
pub(crate) fn closing() -> SocketAddr {
    let (listener, address) = listen();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    address
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// `address` with another port in it.
pub(crate) fn through(address: &str, proxy: SocketAddr) -> String {
    let mut parts: Vec<_> = address.split('/').collect();
    let port = proxy.port().to_string();
    parts[4] = &port;
    parts.join("/")
}
