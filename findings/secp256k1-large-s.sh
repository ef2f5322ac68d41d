#!/usr/bin/env bash
# aws-lc-rs 1.19.0 beside libp2p-identity 0.3.1, secp256k1.
#
# Behaviour: about half of the ECDSA signatures that aws-lc-rs makes have an `s` in the upper half of the order.
# They are valid, and aws-lc-rs verifies them. libp2p-identity takes only the lower half and says that they are
# not. Every signature of libp2p-identity verifies with aws-lc-rs.
#
# Seen: of 400 signatures made by aws-lc-rs, between 140 and 260 refused (half, by chance of the nonce);
#       of 400 made by libp2p-identity, 0 refused.
#
# For users: a program that signs for a secp256k1 peer with another library must bring `s` into the lower half.
# Otherwise half of its handshakes fail.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

mkdir -p finding/src
cat > finding/Cargo.toml <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
aws-lc-rs = "=1.19.0"
libp2p-identity = { version = "=0.3.1", features = ["secp256k1", "rand"] }
TOML
cat > finding/src/main.rs <<'RUST'
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256K1_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use libp2p_identity::{Keypair, secp256k1};

const SIGNATURES: usize = 400;

fn main() {
    let rng = SystemRandom::new();
    let message = |n: usize| format!("message {n}").into_bytes();

    let theirs = EcdsaKeyPair::generate(&ECDSA_P256K1_SHA256_ASN1_SIGNING).expect("a key");
    let point = secp256k1::PublicKey::try_from_bytes(theirs.public_key().as_ref()).expect("a point of the curve");
    let verifies_itself = UnparsedPublicKey::new(&ECDSA_P256K1_SHA256_ASN1, theirs.public_key().as_ref());
    let refused = (0..SIGNATURES)
        .filter(|&n| {
            let signature = theirs.sign(&rng, &message(n)).expect("signed");
            verifies_itself.verify(&message(n), signature.as_ref()).expect("valid");
            !point.verify(&message(n), signature.as_ref())
        })
        .count();
    eprintln!("{refused} of {SIGNATURES} refused by libp2p-identity");
    println!("aws-lc-rs to libp2p-identity: half refused: {}", (140..=260).contains(&refused));

    let ours = Keypair::generate_secp256k1();
    let public = ours.public().try_into_secp256k1().expect("made so").to_bytes();
    let verifier = UnparsedPublicKey::new(&ECDSA_P256K1_SHA256_ASN1, public);
    let refused = (0..SIGNATURES)
        .filter(|&n| verifier.verify(&message(n), &ours.sign(&message(n)).expect("signed")).is_err())
        .count();
    println!("libp2p-identity to aws-lc-rs: {refused} refused");
}
RUST

expected='aws-lc-rs to libp2p-identity: half refused: true
libp2p-identity to aws-lc-rs: 0 refused'
seen=$(cd finding && cargo run --quiet)
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || {
    printf 'this has changed; expected:\n%s\n' "$expected" >&2
    exit 1
}
