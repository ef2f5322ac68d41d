# What every finding starts with: a temporary folder that goes with the script. Sourced, not run.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# A crate named "finding" whose main.rs comes from standard input and whose dependencies are the arguments.
# CARGO_TARGET_DIR, if set, is kept, so that several findings share what they build.
crate() {
    mkdir -p finding/src
    {
        printf '[package]\nname = "finding"\nversion = "0.0.0"\nedition = "2024"\n\n[dependencies]\n'
        printf '%s\n' "$@"
    } > finding/Cargo.toml
    cat > finding/src/main.rs
}

run() {
    (cd finding && cargo run --quiet)
}

# The finding holds as long as each line of the first argument is a line of the second.
expect() {
    printf '%s\n' "$2"
    while IFS= read -r line; do
        grep -qxF -- "$line" <<< "$2" || {
            printf 'CHANGED: no longer seen: %s\n' "$line" >&2
            exit 1
        }
    done <<< "$1"
    echo "as it was"
}
