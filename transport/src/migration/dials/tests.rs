use super::*;
use futures::channel::oneshot::{Receiver, Sender, channel};
use futures::executor::block_on;
use futures::future::{join, join_all, ready};
use futures::stream::StreamExt as _;

type Result1 = Result<&'static str, &'static str>;

const LONG: Duration = Duration::from_secs(600);

fn controlled() -> (Sender<Result1>, impl Future<Output = Result1> + Send + 'static) {
    let (sender, receiver): (_, Receiver<Result1>) = channel();
    (sender, async move { receiver.await.expect("not dropped") })
}

async fn no_dial() -> Result1 {
    panic!("dialled")
}

fn setting() -> (Peers, Arc<Round>, PeerId) {
    let peers = Peers::default();
    let round = peers.round();
    (peers, round, PeerId::random())
}

#[test]
fn a_stock_dial_goes_when_the_last_knock_at_its_peer_has_failed() {
    let (peers, round, peer) = setting();
    let (one, first) = controlled();
    let (other, second) = controlled();
    let mut knocks =
        [first.boxed(), second.boxed()].map(|dial| Box::pin(peers.knock(peer, &round, LONG, dial).run().fuse()));
    let mut stock = Box::pin(peers.stock(peer, &round, LONG).run(ready(Result1::Ok("stock"))));
    let mut pending = || {
        for _ in 0..2 {
            assert!(stock.as_mut().now_or_never().is_none());
            for knock in &mut knocks {
                let _ = knock.as_mut().now_or_never();
            }
        }
    };
    pending();
    one.send(Err("refused")).unwrap();
    pending();
    other.send(Err("refused")).unwrap();
    assert!(matches!(block_on(stock), Ok("stock")));
}

#[test]
fn a_knock_without_a_place_is_driven_and_gets_one_when_it_has_succeeded() {
    let (peers, round, peer) = setting();
    let (sender, dial) = controlled();
    let knock = peers.knock(peer, &round, LONG, dial);
    let mut stocks: Vec<_> = (0..8)
        .map(|_| Box::pin(peers.stock(peer, &round, LONG).run(no_dial())))
        .collect();
    for _ in 0..2 {
        for stock in &mut stocks {
            assert!(stock.as_mut().now_or_never().is_none());
        }
    }
    sender.send(Ok("knock")).unwrap();
    for stock in stocks {
        assert!(matches!(block_on(stock), Err(Lost::Displaced)));
    }
    assert!(matches!(block_on(knock.run()), Ok("knock")));
}

#[test]
fn a_stock_dial_under_way_ends_for_a_knock_without_a_place_and_not_for_one_that_has_one() {
    for has_place in [false, true] {
        let (peers, round, peer) = setting();
        let (sender, dial) = controlled();
        let (connected, stock) = controlled();
        let mut knock = Box::pin(peers.knock(peer, &round, LONG, dial).run());
        // Its own head start is over at once.
        let mut stock = Box::pin(peers.stock(peer, &round, Duration::ZERO).run(stock));
        if has_place {
            assert!(knock.as_mut().now_or_never().is_none());
        }
        for _ in 0..2 {
            assert!(stock.as_mut().now_or_never().is_none());
        }
        sender.send(Ok("knock")).unwrap();
        if has_place {
            assert!(matches!(block_on(knock), Ok("knock")));
            connected.send(Ok("stock")).unwrap();
            assert!(matches!(block_on(stock), Ok("stock")));
        } else {
            assert!(matches!(block_on(stock), Err(Lost::Displaced)));
            assert!(matches!(block_on(knock), Ok("knock")));
        }
    }
}

#[test]
fn a_knock_in_another_round_is_waited_for_and_displaces_nothing() {
    let (peers, round, peer) = setting();
    let (sender, dial) = controlled();
    let mut knock = Box::pin(peers.knock(peer, &peers.round(), LONG, dial).run());
    assert!(knock.as_mut().now_or_never().is_none());
    let mut stock = Box::pin(peers.stock(peer, &round, LONG).run(ready(Result1::Ok("stock"))));
    for _ in 0..2 {
        assert!(stock.as_mut().now_or_never().is_none());
    }
    let other = peers
        .stock(PeerId::random(), &peers.round(), LONG)
        .run(ready(Result1::Ok("another peer's")));
    assert!(matches!(block_on(other), Ok("another peer's")));
    sender.send(Ok("knock")).unwrap();
    let (knock, stock) = block_on(join(knock, stock));
    assert!(matches!((knock, stock), (Ok("knock"), Ok("stock"))));
}

#[test]
fn knocks_that_had_their_head_start_give_way_one_by_one_until_a_stock_dial_is_polled() {
    let (peers, round, peer) = setting();
    let start = Duration::from_millis(1);
    let (_senders, dials): (Vec<_>, Vec<_>) = (0..8).map(|_| controlled()).unzip();
    let mut knocks: Vec<_> = dials
        .into_iter()
        .map(|dial| Box::pin(peers.knock(peer, &round, start, dial).run()))
        .collect();
    let stock = peers.stock(peer, &round, start).run(ready(Result1::Ok("stock")));
    let (first, _, rest) = block_on(select_all(knocks.drain(..)));
    assert!(matches!(first, Err(Lost::GaveWay)));
    assert!(matches!(block_on(stock), Ok("stock")));
    for mut knock in rest {
        assert!(knock.as_mut().now_or_never().is_none(), "it keeps its place");
    }
}

#[test]
fn nothing_stays_of_dials_that_have_ended() {
    let (peers, round, peer) = setting();
    for result in [Ok("knock"), Err("refused")] {
        drop(peers.knock(peer, &round, LONG, ready(result)));
        let _ = block_on(peers.knock(peer, &round, LONG, ready(result)).run());
    }
    assert!(lock(&round.knocks).is_empty());
    let mut known = lock(&peers.0);
    assert_eq!(known.knocks[&peer].len(), 1, "the one that has succeeded, for a moment");
    known.forget(Instant::now() + GRACE);
    assert!(known.knocks.is_empty() && known.won.is_empty());
}

#[test]
fn the_panic_of_a_knock_reaches_its_own_dial() {
    let (peers, round, peer) = setting();
    let knock = peers.knock(peer, &round, LONG, async {
        let result: Result1 = Ok("knock");
        if result.is_ok() {
            panic!("in a transport of the user's");
        }
        result
    });
    let stock = peers.stock(peer, &round, LONG).run(ready(Result1::Ok("stock")));
    assert!(matches!(block_on(stock), Ok("stock")), "driven, it has failed");
    let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| block_on(knock.run())));
    assert!(panicked.is_err());
}

/// Knocks that stay without an answer, and how many of them have begun.
fn silent(number: usize) -> (Arc<AtomicUsize>, Vec<Sender<Result1>>, Vec<BoxFuture<'static, Result1>>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let (senders, dials): (Vec<_>, Vec<_>) = (0..number)
        .map(|_| {
            let (sender, dial) = controlled();
            let begun = begun.clone();
            let dial = async move {
                begun.fetch_add(1, Ordering::Relaxed);
                dial.await
            };
            (sender, dial.boxed())
        })
        .unzip();
    (begun, senders, dials)
}

#[test]
fn a_stock_dial_that_is_dropped_before_it_is_polled_takes_no_knocks_place() {
    for polled_before in [false, true] {
        let (peers, round, peer) = setting();
        let (sender, dial) = controlled();
        let mut knock = Box::pin(peers.knock(peer, &round, Duration::ZERO, dial).run());
        let stock = peers.stock(peer, &round, Duration::ZERO).run(no_dial());
        if polled_before {
            assert!(knock.as_mut().now_or_never().is_none());
        }
        drop(stock);
        let waited = block_on(select(&mut knock, Deadline::after(4 * TURN)));
        assert!(matches!(waited, Either::Right(_)), "it keeps its place");
        sender.send(Ok("knock")).unwrap();
        assert!(matches!(block_on(knock), Ok("knock")));
    }
}

#[test]
fn without_a_head_start_a_knock_that_is_polled_first_races_with_the_stock_dial() {
    let (peers, round, peer) = setting();
    let (sender, dial) = controlled();
    let (_connected, connect) = controlled();
    let mut knock = Box::pin(peers.knock(peer, &round, Duration::ZERO, dial).run());
    let mut stock = Box::pin(peers.stock(peer, &round, Duration::ZERO).run(connect));
    for _ in 0..2 {
        assert!(knock.as_mut().now_or_never().is_none(), "it keeps its place");
        assert!(stock.as_mut().now_or_never().is_none());
    }
    let waited = block_on(select(&mut knock, Deadline::after(4 * TURN)));
    assert!(matches!(waited, Either::Right(_)), "it keeps its place");
    sender.send(Ok("knock")).unwrap();
    assert!(matches!(block_on(knock), Ok("knock")));
}

#[test]
fn the_head_starts_of_knocks_in_front_of_a_stock_dial_do_not_add_up() {
    // In milliseconds. libp2p gives up after 10 s.
    let all = [(1, 5500), (12, 5500), (17, 5500), (25, 5500), (250, 9000)].map(|(number, limit)| async move {
        let (peers, round, peer) = setting();
        let (_, _senders, dials) = silent(number);
        let head_start = crate::migration::HEAD_START;
        let start = Instant::now();
        let mut dials: Vec<_> = dials
            .into_iter()
            .map(|dial| peers.knock(peer, &round, head_start, dial).run().boxed())
            .collect();
        let stock = peers.stock(peer, &round, head_start);
        dials.push(stock.run(ready(Result1::Ok("stock"))).boxed());
        // As libp2p polls them.
        let done = futures::stream::iter(dials).buffer_unordered(8);
        let first = done.filter_map(|done| ready(done.ok()));
        assert_eq!(pin!(first).next().await, Some("stock"));
        let elapsed = start.elapsed();
        assert!(elapsed < Duration::from_millis(limit), "{number} knocks: {elapsed:?}");
    });
    block_on(join_all(all));
}

#[test]
fn stock_dials_drive_eight_knocks_at_once_and_the_next_when_one_has_ended() {
    for head_start in [LONG, Duration::ZERO] {
        let (peers, round, peer) = setting();
        let (begun, mut senders, dials) = silent(40);
        let _knocks: Vec<_> = dials
            .into_iter()
            .map(|dial| peers.knock(peer, &round, head_start, dial))
            .collect();
        let mut stocks: Vec<_> = (0..8)
            .map(|_| Box::pin(peers.stock(peer, &round, head_start).run(pending::<Result1>())))
            .collect();
        let mut poll = || {
            for stock in &mut stocks {
                for _ in 0..2 {
                    assert!(stock.as_mut().now_or_never().is_none());
                }
            }
            begun.load(Ordering::Relaxed)
        };
        assert_eq!(poll(), 8);
        for (ended, sender) in senders.drain(..32).enumerate() {
            sender.send(Err("refused")).unwrap();
            assert_eq!(poll(), 9 + ended, "in order");
        }
    }
}

#[test]
fn a_knock_whose_own_dial_is_dropped_is_not_waited_for() {
    for has_place in [false, true] {
        let (peers, round, peer) = setting();
        let (_sender, dial) = controlled();
        let mut knock = Box::pin(peers.knock(peer, &round, LONG, dial).run());
        if has_place {
            assert!(knock.as_mut().now_or_never().is_none());
        }
        let stock = peers.stock(peer, &round, LONG).run(ready(Result1::Ok("stock")));
        let mut stock = Box::pin(stock);
        let waited = async {
            let waited = select(&mut stock, Deadline::after(Duration::from_secs(20))).await;
            matches!(waited, Either::Left((Ok("stock"), _)))
        };
        // The stock dial drives it by then.
        let drops = Deadline::after(TURN).map(|()| drop(knock));
        assert!(block_on(join(waited, drops)).0, "has_place: {has_place}");
    }
}

#[test]
fn a_stock_dial_leaves_a_knock_of_its_round_that_has_succeeded_its_grace() {
    let (peers, round, peer) = setting();
    let mut knock = Box::pin(peers.knock(peer, &round, LONG, ready(Result1::Ok("knock"))).run());
    let mut stock = Box::pin(peers.stock(peer, &round, LONG).run(ready(Result1::Ok("stock"))));
    assert!(stock.as_mut().now_or_never().is_none(), "it lets the others be polled");
    // A wrapper around it goes on with the connection.
    assert!(matches!(knock.as_mut().now_or_never(), Some(Ok("knock"))));
    drop(knock);
    let start = Instant::now();
    assert!(stock.as_mut().now_or_never().is_none(), "it waits to be dropped");
    assert!(matches!(block_on(stock), Ok("stock")), "the wrapper has refused it");
    assert!(start.elapsed() >= GRACE / 2);
}
