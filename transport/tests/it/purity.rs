//! The rule of ARCHITECTURE.md that the compiler does not know: what stands at the bottom is pure.

#[test]
fn the_pure_files_know_no_clock_no_socket_no_randomness_and_no_runtime() {
    let files = [
        ("address.rs", include_str!("../../src/address.rs")),
        ("bearings.rs", include_str!("../../src/bearings.rs")),
        ("certificate.rs", include_str!("../../src/certificate.rs")),
        ("knock.rs", include_str!("../../src/knock.rs")),
        ("knock/reader.rs", include_str!("../../src/knock/reader.rs")),
        ("knock/v2.rs", include_str!("../../src/knock/v2.rs")),
        ("records.rs", include_str!("../../src/records.rs")),
        ("knock/v3.rs", include_str!("../../src/knock/v3.rs")),
        ("knock/v3/aead.rs", include_str!("../../src/knock/v3/aead.rs")),
        ("knock/v3/hello.rs", include_str!("../../src/knock/v3/hello.rs")),
        ("knock/v3/network.rs", include_str!("../../src/knock/v3/network.rs")),
        ("knock/v3/noise.rs", include_str!("../../src/knock/v3/noise.rs")),
        ("knock/v3/open.rs", include_str!("../../src/knock/v3/open.rs")),
        ("knock/v3/payload.rs", include_str!("../../src/knock/v3/payload.rs")),
        ("knock/v3/seal.rs", include_str!("../../src/knock/v3/seal.rs")),
        ("silence/answering.rs", include_str!("../../src/silence/answering.rs")),
        ("silence/budget.rs", include_str!("../../src/silence/budget.rs")),
        ("silence/known.rs", include_str!("../../src/silence/known.rs")),
        ("silence/known/text.rs", include_str!("../../src/silence/known/text.rs")),
        ("silence/limits.rs", include_str!("../../src/silence/limits.rs")),
        ("silence/memory.rs", include_str!("../../src/silence/memory.rs")),
        ("silence/places.rs", include_str!("../../src/silence/places.rs")),
        ("silence/pool.rs", include_str!("../../src/silence/pool.rs")),
        ("silence/prefix.rs", include_str!("../../src/silence/prefix.rs")),
        ("silence/replay.rs", include_str!("../../src/silence/replay.rs")),
        ("silence/summary.rs", include_str!("../../src/silence/summary.rs")),
        ("x25519.rs", include_str!("../../src/x25519.rs")),
    ];
    for (name, text) in files {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for impure in [
            "::now(",
            "futures::",
            "tokio",
            "std::net",
            "std::io",
            "rand",
            "async ",
            "Mutex",
            "Atomic",
        ] {
            let line = code
                .lines()
                .find(|line| line.contains(impure) && !line.trim_start().starts_with("//"));
            assert_eq!(line, None, "{name} uses {impure}");
        }
    }
}
