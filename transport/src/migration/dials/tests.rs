use super::*;
use futures::channel::oneshot::{Receiver, Sender, channel};
use futures::executor::block_on;
use futures::future::{join, ready};

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
