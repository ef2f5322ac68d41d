//! The key file: who a node is. Written once, never overwritten, readable by its owner alone.

use anyhow::{Context as _, Result};
use libp2p::identity::Keypair;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// The key in the file at `path`, made if there is no such file. Says whether it was made. Keys of other libp2p programs
/// are read too.
pub(crate) fn load_or_create(path: &Path) -> Result<(Keypair, bool)> {
    match libp2p_knock::keypair_from_file(path) {
        Ok(key) => Ok((key, false)),
        Err(error) if error.is_not_found() => Ok((create(path)?, true)),
        Err(error) => Err(error).context(
            "cannot use the key file, and left it as it is. Restore it, or choose another with --key: a new key is a \
             new peer id",
        ),
    }
}

fn create(path: &Path) -> Result<Keypair> {
    let key = Keypair::generate_ed25519();
    let bytes = key.to_protobuf_encoding()?;
    let shown = path.display();
    write_new(path, &bytes).with_context(|| format!("cannot create the key file {shown}"))?;
    Ok(key)
}

/// The mode is set as the file comes into being: at no moment could somebody else have opened it.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| {
        // Half of it would be refused at the next start.
        let _ = std::fs::remove_file(path);
    })
}
