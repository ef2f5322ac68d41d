//! A listener that leaks on purpose: the prober must find each leak, or its silence about others means nothing.

use arsenal::cells::Cells;
use arsenal::classes::{Class, CloseKind, classes, worst};
use arsenal::content::{Content, Pantry};
use arsenal::grid::{Ending, probe};
use arsenal::stats::Threshold;
use arsenal::sweep::Sweep;
use socket2::SockRef;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

async fn serve<F>(connection: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream));
        }
    });
    address
}

/// Reads a knock in one read of 97 bytes, and waits no longer than a second for it: what is left unread makes the
/// kernel reset the connection. And it answers whoever speaks multistream.
async fn leaky(mut stream: TcpStream) -> std::io::Result<()> {
    let mut knock = [0; 97];
    let Ok(read) = timeout(Duration::from_secs(1), stream.read(&mut knock)).await else {
        return Ok(());
    };
    if knock[..read?].starts_with(b"\x13/multistream") {
        stream.write_all(b"\x13/multistream/1.0.0\n").await?;
    }
    Ok(())
}

fn find(classes: &[Class], answered: bool, close: CloseKind, from_ms: f64, to_ms: f64) -> &Class {
    let wanted = |class: &&Class| {
        let (first, last) = class.span_ms.unwrap_or((-1.0, -1.0));
        class.answered == answered && class.close == close && first >= from_ms && last <= to_ms
    };
    classes
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("not found in {classes:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_a_threshold_a_reset_and_an_answer_are_found() {
    let target = serve(leaky).await;
    let mut sweep = Sweep::new(target);
    (sweep.rate, sweep.in_flight, sweep.limits.hold) = (400.0, 500, Duration::from_secs(3));
    let plan = (0..800).map(|index| probe(1, index, &Content::PLAIN, &[Ending::Hold]));
    let swept = sweep
        .run(Arc::new(Pantry::new(Vec::new(), None).unwrap()), plan, |_| {})
        .await;
    let classes = classes(&swept.records, Duration::from_millis(250));

    assert_eq!(swept.unsent(), 0, "{:?}", swept.not_connected);
    assert!(swept.probes_answered() > 20 && swept.bytes_answered() >= 20 * swept.probes_answered() as u64);
    assert!(worst(&classes) >= 4, "{classes:#?}");
    // Nothing sent: closed in order at the deadline. Something: at once.
    assert_eq!(find(&classes, false, CloseKind::Fin, 900.0, 2900.0).lengths, [0]);
    assert_eq!(find(&classes, false, CloseKind::Fin, 0.0, 700.0).lengths[0], 1);
    // From the 98th byte on something is left unread.
    assert_eq!(find(&classes, false, CloseKind::Rst, 0.0, 700.0).lengths[0], 98);
}

/// Silent, and in order; but it takes 40 ms longer over what begins like a knock.
async fn slow_to_refuse(mut stream: TcpStream) -> std::io::Result<()> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(300);
    let mut extra = Duration::ZERO;
    let read_all = async {
        let mut buffer = [0; 1024];
        let mut first = true;
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            if std::mem::take(&mut first) && n > 32 && buffer[0] == 2 {
                extra = Duration::from_millis(40);
            }
        }
        std::future::pending::<()>().await;
    };
    let _ = tokio::time::timeout_at(deadline, read_all).await;
    sleep(extra).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_time_that_depends_on_the_content_is_found_and_in_that_cell_alone() {
    let target = serve(slow_to_refuse).await;
    let mut sweep = Sweep::new(target);
    (sweep.rate, sweep.in_flight) = (300.0, 500);
    let cells = Cells {
        lengths: vec![16, 97],
        contents: vec![Content::Random, Content::Zeros, Content::V2Like, Content::Http],
        ending: Ending::Hold,
        samples: 60,
        threshold: Threshold::default(),
    };
    let pantry = Arc::new(Pantry::new(Vec::new(), None).unwrap());
    let (verdicts, swept) = cells.run(&sweep, pantry, 4, |_| {}).await;
    assert_eq!((swept.bytes_answered(), swept.unsent(), verdicts.len()), (0, 0, 8));
    let told: Vec<_> = verdicts
        .iter()
        .filter(|cell| cell.verdict.distinguishable)
        .map(|cell| (cell.content, cell.length))
        .collect();
    assert_eq!(told, [(Content::V2Like, 97)], "{verdicts:#?}");
}

#[tokio::test]
async fn a_probe_that_never_connects_is_counted_and_proves_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut sweep = Sweep::new(gone);
    sweep.rate = 0.0;
    let plan = (0..20).map(|index| probe(1, index, &Content::PLAIN, &Ending::ALL));
    let swept = sweep
        .run(Arc::new(Pantry::new(Vec::new(), None).unwrap()), plan, |_| {})
        .await;
    assert!(swept.records.is_empty());
    assert_eq!(
        swept.not_connected.get("ConnectionRefused"),
        Some(&20),
        "{:?}",
        swept.not_connected
    );
}

#[tokio::test]
async fn the_four_endings_reach_the_listener_as_what_they_are() {
    let (sender, mut seen) = tokio::sync::mpsc::channel(8);
    let target = serve(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut all = Vec::new();
            let end = stream.read_to_end(&mut all).await.map_err(|e| e.kind());
            let _ = sender.send(end).await;
            SockRef::from(&stream).set_linger(None)
        }
    })
    .await;
    for (ending, expected) in [
        (Ending::Fin, Ok(16)),
        (Ending::Close, Ok(16)),
        (Ending::Rst, Err(std::io::ErrorKind::ConnectionReset)),
    ] {
        let (mut probe, _) = probe(1, 0, &[Content::Random], &[ending]);
        probe.length = 16;
        let limits = arsenal::probe::Limits::default();
        let outcome = arsenal::probe::run(target, None, probe, vec![7; 16], limits)
            .await
            .unwrap();
        assert_eq!(seen.recv().await, Some(expected), "{ending}");
        let expected = if ending == Ending::Fin {
            CloseKind::Fin
        } else {
            CloseKind::None
        };
        assert_eq!(outcome.close, expected, "{ending}");
    }
}
