//! The key file: who a node is. Written once, never overwritten, readable by its owner alone.

use anyhow::{Context as _, Result, anyhow, bail};
use libp2p::identity::Keypair;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// More than the largest key anybody could put here by mistake.
const MAX_SIZE: u64 = 64 * 1024;

/// The key in the file at `path`, made if there is no such file. Says whether it was made.
pub(crate) fn load_or_create(path: &Path) -> Result<(Keypair, bool)> {
    match File::open(path) {
        Ok(file) => Ok((load(file, path)?, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((create(path)?, true)),
        Err(error) => Err(error).with_context(|| format!("cannot read the key file {}", path.display())),
    }
}

fn load(file: File, path: &Path) -> Result<Keypair> {
    let shown = path.display();
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        bail!("{shown} is not a file that could hold a key");
    }
    refuse_if_others_can_read(&file, path)?;
    let mut bytes = Vec::new();
    file.take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the key file {shown}"))?;
    // The type by hand, because the library cannot name the types that it was built without: the first field of the
    // protobuf message, in the one encoding that libp2p writes.
    let found = match bytes.as_slice() {
        [] => bail!("the key file {shown} is empty. Remove it, and a new one is made: a new key is a new peer id"),
        [0x08, 0, ..] => "RSA",
        [0x08, 2, ..] => "secp256k1",
        [0x08, 3, ..] => "ECDSA",
        _ => {
            return Keypair::from_protobuf_encoding(&bytes).map_err(|error| {
                anyhow!(
                    "the key file {shown} is damaged, or no libp2p private key ({error}). It was left as it is. \
                     Restore it, or choose another with --key: a new key is a new peer id"
                )
            });
        }
    };
    bail!(
        "the key file {shown} holds a key of type {found}, and only Ed25519 keys can knock. Choose another with --key"
    )
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

/// Asks the open file and not the path: what is checked is what is read.
#[cfg(unix)]
fn refuse_if_others_can_read(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let shown = path.display();
    let mode = file
        .metadata()
        .with_context(|| format!("cannot read the key file {shown}"))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        bail!(
            "the key file {shown} has mode {:04o}: others can use it, and whoever has the key is this node. To mend \
             that: chmod 600 {}",
            mode & 0o7777,
            // To be pasted as it is.
            shlex::try_quote(&path.to_string_lossy()).map_or_else(|_| shown.to_string(), |name| name.into_owned())
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_others_can_read(_: &File, _: &Path) -> Result<()> {
    Ok(())
}
