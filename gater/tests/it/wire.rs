//! A forwarder between two nodes that counts what passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

/// What has passed: connections (datagrams of the dialer, for UDP), and bytes of the dialer and of the listener.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

impl Wire {
    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn up(&self) -> u64 {
        self.counts.up.load(Ordering::SeqCst)
    }

    pub(crate) fn down(&self) -> u64 {
        self.counts.down.load(Ordering::SeqCst)
    }

    pub(crate) async fn tcp(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: listener.local_addr().unwrap(),
            counts: Arc::default(),
        };
        let counts = this.counts.clone();
        tokio::spawn(async move {
            while let Ok((dialer, _)) = listener.accept().await {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(listener) = TcpStream::connect(to).await else {
                    continue;
                };
                let (from_dialer, to_dialer) = dialer.into_split();
                let (from_listener, to_listener) = listener.into_split();
                let (up, down) = (counts.clone(), counts.clone());
                tokio::spawn(async move { forward(from_dialer, to_listener, &up.up).await });
                tokio::spawn(async move { forward(from_listener, to_dialer, &down.down).await });
            }
        });
        this
    }

    pub(crate) async fn udp(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let this = Self {
            address: socket.local_addr().unwrap(),
            counts: Arc::default(),
        };
        let counts = this.counts.clone();
        tokio::spawn(async move {
            let (mut dialer, mut buffer) = (None, vec![0; 65536]);
            while let Ok((n, from)) = socket.recv_from(&mut buffer).await {
                let (counter, next) = match from == to {
                    true => (&counts.down, dialer),
                    false => {
                        dialer = Some(from);
                        counts.connections.fetch_add(1, Ordering::SeqCst);
                        (&counts.up, Some(to))
                    }
                };
                counter.fetch_add(n as u64, Ordering::SeqCst);
                if let Some(next) = next {
                    let _ = socket.send_to(&buffer[..n], next).await;
                }
            }
        });
        this
    }
}

async fn forward(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, count: &AtomicU64) {
    let mut buffer = vec![0; 16384];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        count.fetch_add(n as u64, Ordering::SeqCst);
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
