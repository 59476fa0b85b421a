//! Files in memory that pass between processes, and that nobody changes once they are sealed.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, SealFlags};

/// # Errors
/// What the system says.
pub(crate) fn empty(name: &str) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?))
}

/// From here on its bytes and its size stay; readers begin at its start.
///
/// # Errors
/// What the system says, such as that somebody holds a writable mapping of it.
pub(crate) fn seal(mut file: &File) -> io::Result<()> {
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, seals)?)
}

/// # Errors
/// What the system says.
pub(crate) fn sealed(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = empty(name)?;
    file.write_all(bytes)?;
    seal(&file)?;
    Ok(file)
}
