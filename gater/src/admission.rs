//! Hooks that a gate asks beside its policy: closures of the shape that a knock's admission has.

use crate::context::{Direction, Link};
use crate::verdict::{Reason, Stage};
use arc_swap::ArcSwap;
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use std::error::Error;
use std::sync::Arc;

/// What a hook answers.
pub(crate) type Answer = Result<(), Box<dyn Error + Send + Sync>>;

type Hook = Arc<dyn Fn(&PeerId, &ConnectedPoint) -> Answer + Send + Sync>;

/// In the order in which they were added. All of them have to allow.
#[derive(Default)]
pub(crate) struct Admission(ArcSwap<Vec<Hook>>);

impl Admission {
    pub(crate) fn add(&self, hook: impl Fn(&PeerId, &ConnectedPoint) -> Answer + Send + Sync + 'static) {
        let hook: Hook = Arc::new(hook);
        self.0.rcu(|hooks| {
            let mut hooks = Vec::clone(hooks);
            hooks.push(hook.clone());
            hooks
        });
    }

    /// What the first of them that says no says, if they are to be asked here.
    #[inline]
    pub(crate) fn ask(&self, stage: Stage, peer: &PeerId, link: &Link<'_>) -> Result<(), Reason> {
        let hooks = self.0.load();
        if hooks.is_empty() {
            return Ok(());
        }
        let Some(point) = point(stage, link) else {
            return Ok(());
        };
        hooks
            .iter()
            .try_for_each(|hook| hook(peer, &point).map_err(|error| Reason::with_boxed("admission", error)))
    }
}

/// Between which ends, if the hooks are asked at this stage: about every knock, and about inbound
/// connections as soon as both ends are known.
fn point(stage: Stage, link: &Link<'_>) -> Option<ConnectedPoint> {
    match stage {
        Stage::Knock => link.point(),
        Stage::Secured | Stage::Upgraded if link.direction == Direction::Inbound => link.point(),
        _ => None,
    }
}
