//! Networks that are not ours, and clocks that are wrong.

use super::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use tracing_subscriber::layer::SubscriberExt as _;

const HOUR: i64 = 3600;

#[tokio::test]
async fn nodes_of_different_networks_are_strangers_to_each_other_both_ways() {
    let private = |name: &[u8], secret| Network::private(name, &[secret; 32]).unwrap();
    let networks = [Network::open(), private(b"a", 1), private(b"a", 2), private(b"b", 1)];
    let meetings = (0..16).map(|n| {
        let (theirs, ours) = (&networks[n / 4], &networks[n % 4]);
        async move {
            let target = Target::closing_after(LATE, config(2).with_network(theirs.clone()).unwrap()).await;
            let dialling = config(1).with_network(ours.clone()).unwrap();
            if n / 4 == n % 4 {
                let (found, _) = dial(dialling, &target.listener).await.expect("one network");
                assert_eq!(found, peer(2));
                return;
            }
            let caught = catch_in(dialling.clone(), 2, ours).await;
            target.is_silent_to(&caught.flight, "refused_box").await;
            assert!(dial(dialling, &target.listener).await.is_err());
            assert_eq!(target.knocks("refused_box"), 2);
        }
    });
    futures::future::join_all(meetings).await;
}

/// A clock that can be set.
#[derive(Clone, Default)]
struct Adjustable(Arc<AtomicI64>);

impl Adjustable {
    fn set_ahead(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }

    fn now(&self) -> SystemTime {
        let seconds = self.0.load(Ordering::Relaxed);
        let by = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            SystemTime::now() - by
        } else {
            SystemTime::now() + by
        }
    }

    fn on(&self, config: Config) -> Config {
        let clock = self.clone();
        config.dangerous().with_clock(move || clock.now()).unwrap()
    }
}

/// What was said about clocks: who, and how many seconds.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(String, i64)>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Heard {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        #[derive(Default)]
        struct Fields(Option<String>, Option<i64>);

        impl tracing::field::Visit for Fields {
            fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
                if field.name() == "seconds_ahead" {
                    self.1 = Some(value);
                }
            }

            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "peer" {
                    self.0 = Some(format!("{value:?}"));
                }
            }
        }

        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Fields(Some(peer), Some(seconds)) = fields {
            assert_eq!(*event.metadata().level(), tracing::Level::WARN);
            self.0.lock().unwrap().push((peer, seconds));
        }
    }
}

#[tokio::test]
async fn a_dialer_whose_clock_is_an_hour_off_meets_silence_the_operator_is_told_and_once_it_is_set_he_is_in() {
    // For the whole process: whom a thread's own subscriber would miss is up to the other threads. Nobody else is seed 41.
    let heard = Heard::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(heard.clone())).unwrap();
    for off in [HOUR, -HOUR] {
        let mut target = Target::new(config(2)).await;
        let clock = Adjustable::default();
        clock.set_ahead(off);
        let dialling = clock.on(config(41));
        let caught = catch(dialling.clone(), 2).await;
        target.is_silent_to(&caught.flight, "refused_time").await;
        assert!(dial(dialling.clone(), &target.listener).await.is_err());
        assert_eq!(target.knocks("refused_time"), 2);

        let mut said = std::mem::take(&mut *heard.0.lock().unwrap());
        said.retain(|(who, _)| *who == peer(41).to_string());
        let [(_, seconds)] = &said[..] else {
            panic!("once a minute, and not {said:?}")
        };
        // What the way took counts as his being late.
        assert!((off - 10..=off).contains(seconds), "{seconds}");

        clock.set_ahead(0);
        target.lets_in(dialling).await;
    }
}

#[tokio::test]
async fn a_listener_whose_clock_is_wrong_is_silent_until_it_is_set() {
    for off in [HOUR, -HOUR] {
        let clock = Adjustable::default();
        clock.set_ahead(off);
        let mut target = Target::new(clock.on(config(2))).await;
        assert!(dial(config(1), &target.listener).await.is_err());
        assert_eq!(target.knocks("accepted"), 0);
        clock.set_ahead(0);
        target.lets_in(config(1)).await;
    }
}

#[tokio::test]
async fn a_listener_whose_clock_leaps_ahead_and_back_answers_no_capture_again_and_lets_peers_in() {
    let clock = Adjustable::default();
    let mut target = Target::new(clock.on(config(2))).await;
    let mut captures = Vec::new();
    for ahead in [0, HOUR, 0] {
        clock.set_ahead(ahead);
        // His own clock has leapt along.
        captures.push(target.answers(clock.on(config(1))).await);
    }
    let accepted = target.knocks("accepted");
    for ahead in [0, HOUR, -HOUR, 0] {
        clock.set_ahead(ahead);
        let answers = probe_all(&target.listener, captures.clone(), 3).await;
        assert!(answers.iter().all(Vec::is_empty), "{ahead} s ahead");
    }
    assert_eq!(target.knocks("accepted"), accepted);
    target.lets_in(config(3)).await;
}
