//! What may take its time, on threads where it may: the host's identity, and the database. One call
//! to each at a time.

use super::announcement::Announcement;
use super::database::Database;
use crate::counters::HostCounters;
use crate::user_code::Hook;
use crate::{Handle, SignError};
use libp2p_identity::PeerId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Signs our own announcements.
#[derive(Clone)]
pub(super) struct Signer {
    host: Handle,
    key: [u8; 32],
    addresses: Vec<Vec<u8>>,
}

impl Signer {
    pub(super) fn new(host: Handle, key: [u8; 32], addresses: Vec<Vec<u8>>) -> Self {
        Self { host, key, addresses }
    }

    pub(super) fn host(&self) -> &Handle {
        &self.host
    }

    pub(super) fn sign(&self, counter: u64) -> Result<Announcement, SignError> {
        Announcement::sign(self.addresses.clone(), counter, self.key, |message| {
            self.host.sign(message)
        })
    }
}

/// An announcement of our own on its way through the host's identity, on a thread where that may
/// take its time.
pub(super) struct Signing {
    signer: Signer,
    counters: Arc<HostCounters>,
    /// The highest counter that is to be signed next.
    wanted: Option<u64>,
    running: Option<(u64, JoinHandle<Result<Announcement, SignError>>)>,
}

impl Signing {
    pub(super) fn new(signer: Signer) -> Self {
        Self {
            counters: signer.host.counters(),
            signer,
            wanted: None,
            running: None,
        }
    }

    /// With this counter, or a higher one that is wanted already.
    pub(super) fn want(&mut self, counter: u64) {
        self.wanted = self.wanted.max(Some(counter));
    }

    /// What the next signature brings. Cancel safe.
    pub(super) async fn next(&mut self) -> (u64, Result<Announcement, SignError>) {
        loop {
            if let Some((counter, running)) = &mut self.running {
                let signed = running.await.unwrap_or_else(|error| Err(panicked(error)));
                let counter = *counter;
                self.running = None;
                return (counter, signed);
            }
            let Some(counter) = self.wanted.take() else {
                return std::future::pending().await;
            };
            let (signer, counters) = (self.signer.clone(), self.counters.clone());
            let running = tokio::task::spawn_blocking(move || {
                let signed = counters.hook_panics.call(Hook::Sign, || signer.sign(counter));
                signed.unwrap_or_else(|| Err(panicked("it panicked")))
            });
            self.running = Some((counter, running));
        }
    }
}

fn panicked(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SignError {
    libp2p_knock::SignError(error.into()).into()
}

/// What the database is to do, one after another, on a thread where it may block.
pub(super) struct Queue {
    database: Arc<dyn Database>,
    counters: Arc<HostCounters>,
    waiting: VecDeque<Job>,
    running: Option<JoinHandle<Vec<Announcement>>>,
}

enum Job {
    Load(Vec<PeerId>),
    Store(BTreeMap<PeerId, Vec<u8>>),
}

impl Queue {
    pub(super) fn new(database: Arc<dyn Database>, counters: Arc<HostCounters>) -> Self {
        Self {
            database,
            counters,
            waiting: VecDeque::new(),
            running: None,
        }
    }

    pub(super) fn load(&mut self, members: Vec<PeerId>) {
        self.waiting.push_back(Job::Load(members));
    }

    pub(super) fn store(&mut self, announcements: Vec<Announcement>) {
        let new = announcements
            .into_iter()
            .map(|announcement| (announcement.peer(), announcement.encode()));
        // A database that hangs does not make this grow.
        if let Some(Job::Store(waiting)) = self.waiting.back_mut() {
            waiting.extend(new);
        } else {
            self.waiting.push_back(Job::Store(new.collect()));
        }
    }

    /// What the next reading of the database brings; nothing for one that failed. Cancel safe.
    pub(super) async fn next(&mut self) -> Vec<Announcement> {
        loop {
            if let Some(running) = &mut self.running {
                let loaded = running.await.unwrap_or_default();
                self.running = None;
                if !loaded.is_empty() {
                    return loaded;
                }
            }
            let Some(job) = self.waiting.pop_front() else {
                return std::future::pending().await;
            };
            self.begin(job);
        }
    }

    fn begin(&mut self, job: Job) {
        let (database, counters) = (self.database.clone(), self.counters.clone());
        self.running = Some(tokio::task::spawn_blocking(move || {
            let done = counters.hook_panics.call(Hook::Database, || job.run(&*database));
            // It may be the last to have it.
            counters.hook_panics.call(Hook::Database, || drop(database));
            done.unwrap_or_default()
        }));
    }

    pub(super) async fn finish(mut self) {
        while self.running.is_some() || !self.waiting.is_empty() {
            if let Some(running) = self.running.take() {
                let _ = running.await;
            }
            if let Some(job) = self.waiting.pop_front() {
                self.begin(job);
            }
        }
    }
}

impl Job {
    fn run(self, database: &dyn Database) -> Vec<Announcement> {
        match self {
            Self::Store(announcements) => {
                let announcements: Vec<_> = announcements.into_iter().collect();
                if let Err(error) = database.store(&announcements) {
                    tracing::warn!(%error, "announcements were not stored");
                }
                Vec::new()
            }
            Self::Load(members) => match database.read(&members) {
                Ok(found) => found
                    .into_iter()
                    .filter_map(|(peer, bytes)| match Announcement::decode(&bytes) {
                        Ok(announcement) => Some(announcement),
                        Err(error) => {
                            tracing::warn!(%peer, %error, "a stored announcement is of no use");
                            None
                        }
                    })
                    .collect(),
                Err(error) => {
                    tracing::warn!(%error, "announcements were not read");
                    Vec::new()
                }
            },
        }
    }
}
