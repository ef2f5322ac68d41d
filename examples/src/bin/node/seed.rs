//! How long strangers are kept, which is to be the same after a restart.

use crate::key;
use anyhow::{Context as _, Result, anyhow};
use libp2p::identity::Keypair;
use std::path::{Path, PathBuf};

/// What else a node keeps, in a file beside its key.
pub(crate) fn beside(key: &Path, what: &str) -> PathBuf {
    let mut path = key.as_os_str().to_owned();
    path.push(".");
    path.push(what);
    path.into()
}

/// 32 random bytes in a file beside the key, made if there is no such file: they decide how long strangers are kept, which
/// is to be the same after a restart.
pub(crate) fn load_or_create(key: &Path) -> Result<[u8; 32]> {
    let path = beside(key, "close-time");
    let shown = path.display();
    match libp2p_knock::read_secret_file(&path) {
        Ok(bytes) => bytes.try_into().map_err(|bytes: Vec<u8>| {
            anyhow!(
                "{shown} has {} bytes and not 32. Remove it, and a new one is made",
                bytes.len()
            )
        }),
        Err(error) if error.is_not_found() => {
            // From where keys come from.
            let random = Keypair::generate_ed25519().try_into_ed25519()?.secret();
            let mut seed = [0; 32];
            seed.copy_from_slice(random.as_ref());
            key::write_new(&path, &seed).with_context(|| format!("cannot write {shown}"))?;
            Ok(seed)
        }
        Err(error) => Err(error.into()),
    }
}
