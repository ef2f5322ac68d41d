//! Which connections are being asked. The handlers of one connection, the manager's and that of
//! wanted peers, have no other way to know of each other.

use libp2p_swarm::ConnectionId;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many questions are under way on each connection of the process: an id is used for one only.
static ASKED: Mutex<BTreeMap<ConnectionId, usize>> = Mutex::new(BTreeMap::new());

fn asked() -> MutexGuard<'static, BTreeMap<ConnectionId, usize>> {
    ASKED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stream for a question is being opened or negotiated, until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(ConnectionId);

impl UnderWay {
    pub(crate) fn new(connection: ConnectionId) -> Self {
        *asked().entry(connection).or_default() += 1;
        Self(connection)
    }

    pub(crate) fn is_on(connection: ConnectionId) -> bool {
        asked().contains_key(&connection)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut asked = asked();
        match asked.get_mut(&self.0) {
            Some(questions) if *questions > 1 => *questions -= 1,
            _ => {
                asked.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_asked_until_the_last_question_is_over() {
        let [one, other] = [usize::MAX, usize::MAX - 1].map(ConnectionId::new_unchecked);
        let questions = [UnderWay::new(one), UnderWay::new(one)];
        for question in questions {
            assert!(UnderWay::is_on(one) && !UnderWay::is_on(other));
            drop(question);
        }
        assert!(!UnderWay::is_on(one));
    }
}
