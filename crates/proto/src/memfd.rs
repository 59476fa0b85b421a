//! Files in memory that pass between processes, and that nobody changes once they are sealed.

use std::fs::File;
use std::io::{self, Seek, Write};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

use crate::refused::{calling, writing};

/// # Errors
/// What the system says.
pub fn empty(name: &str) -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(File::from(rustix::fs::memfd_create(name, flags).map_err(calling("memfd_create"))?))
}

/// Seals a file: from here on its bytes and its size cannot change, and readers begin at its start.
///
/// # Errors
/// An error of the system's, such as that somebody holds a writable mapping of it.
pub fn seal(mut file: &File) -> io::Result<()> {
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(file, seals).map_err(calling("fcntl (F_ADD_SEALS)"))
}

/// Opens `/dev/null`, or makes an empty file that nobody can write to, if there is none.
///
/// # Errors
/// A call that the system refuses.
pub fn null() -> io::Result<File> {
    let opened = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    opened.map(File::from).or_else(|_| sealed("null", &[]))
}

/// # Errors
/// What the system says.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = empty(name)?;
    file.write_all(bytes).map_err(writing("write (to a file in memory)", bytes.len()))?;
    seal(&file)?;
    Ok(file)
}
