//! Every label that there can be.

use super::{KnockOutcome, Outcome};
use crate::config::KeyExchange;
use crate::knock::Refusal;
use crate::stream::Role;
use prometheus_client::encoding::EncodeLabelSet;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    pub(super) outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HandshakeLabel {
    pub(super) role: &'static str,
    pub(super) outcome: &'static str,
    pub(super) group: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RoleLabel {
    pub(super) role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DirectionLabel {
    pub(super) direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HookLabel {
    pub(super) hook: &'static str,
}

pub(super) const ROLES: [Role; 2] = [Role::Dialer, Role::Listener];

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Dialer => "dialer",
        Role::Listener => "listener",
    }
}

pub(super) const OUTCOMES: [Outcome; 10] = [
    Outcome::Ok,
    Outcome::Certificate,
    Outcome::Closed,
    Outcome::Denied,
    Outcome::Inner,
    Outcome::Other,
    Outcome::Timeout,
    Outcome::Tls,
    Outcome::Unanswered,
    Outcome::WrongPeer,
];

pub(super) fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Certificate => "certificate",
        Outcome::Closed => "closed",
        Outcome::Denied => "denied",
        Outcome::Inner => "connect",
        Outcome::Other => "other",
        Outcome::Timeout => "timeout",
        Outcome::Tls => "tls",
        Outcome::Unanswered => "unanswered",
        Outcome::WrongPeer => "wrong_peer",
    }
}

/// Every label of a handshake that there can be. What was agreed on is known when TLS is through:
/// after that only a hook, or another mode, can stand in the way.
pub(super) fn handshakes() -> impl Iterator<Item = HandshakeLabel> {
    let groups = [KeyExchange::X25519, KeyExchange::X25519MlKem768].map(KeyExchange::name);
    let of = move |role: Role, outcome: Outcome| {
        let groups: &[&'static str] = match outcome {
            Outcome::Inner => &[],
            Outcome::Unanswered if role == Role::Listener => &[],
            Outcome::Ok | Outcome::Denied => &groups,
            Outcome::Other => &[groups[0], groups[1], ""],
            _ => &[""],
        };
        let label = move |group: &&'static str| HandshakeLabel {
            role: role_name(role),
            outcome: name(outcome),
            group,
        };
        groups.iter().map(label).collect::<Vec<_>>()
    };
    let pairs = ROLES
        .into_iter()
        .flat_map(|role| OUTCOMES.map(|outcome| (role, outcome)));
    pairs.flat_map(move |(role, outcome)| of(role, outcome))
}

/// What [`knock_name`] says.
pub(super) const KNOCKS: [&str; 19] = [
    "accepted",
    "denied",
    "displaced",
    "evicted",
    "incomplete",
    "timeout",
    "refused_version",
    "refused_self",
    "refused_key",
    "refused_signature",
    "refused_box",
    "refused_replayed",
    "refused_budget",
    "refused_not_configured",
    "refused_noise",
    "refused_time",
    "refused_floor",
    "refused_payload",
    "refused_flight",
];

pub(super) fn knock_name(outcome: KnockOutcome) -> &'static str {
    match outcome {
        KnockOutcome::Accepted => "accepted",
        KnockOutcome::Denied => "denied",
        KnockOutcome::Displaced => "displaced",
        KnockOutcome::Evicted => "evicted",
        KnockOutcome::Incomplete => "incomplete",
        KnockOutcome::Timeout => "timeout",
        KnockOutcome::Refused(refusal) => match refusal {
            Refusal::Version(_) => "refused_version",
            Refusal::SelfDial => "refused_self",
            Refusal::Key => "refused_key",
            Refusal::Signature => "refused_signature",
            Refusal::Box => "refused_box",
            Refusal::Replayed => "refused_replayed",
            Refusal::Budget => "refused_budget",
            Refusal::NotConfigured => "refused_not_configured",
            Refusal::Noise => "refused_noise",
            Refusal::Time => "refused_time",
            Refusal::Floor => "refused_floor",
            Refusal::Reserved | Refusal::Mode(_) | Refusal::FlightLength(_) => "refused_payload",
            Refusal::Flight | Refusal::Hello | Refusal::TlsVersion | Refusal::KeyShare => "refused_flight",
        },
    }
}
