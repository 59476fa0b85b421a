//! Files, directories, programs.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};

use super::{Attack, REPLACED_EXIT_CODE, call, refused};
use proto::policy::SandboxLayer::{Descriptors, EmptyRoot, Landlock, Seccomp};
use proto::probe::Targets;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "read-file",
        tries: "read a file that everybody may read",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| fs::read_to_string(secret(targets)),
    },
    Attack {
        name: "write-file",
        tries: "append to a file that everybody may write",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            fs::OpenOptions::new()
                .append(true)
                .open(secret(targets))?
                .write_all(b".")
                .map(|()| "written".into())
        },
    },
    Attack {
        name: "create-file",
        tries: "create a file in a directory that everybody may write",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            let path = Path::new(&targets.dir).join(format!("created-{}", std::process::id()));
            File::create(&path)?;
            fs::remove_file(&path).map(|()| "created and removed".into())
        },
    },
    Attack {
        name: "make-directory",
        tries: "make a directory",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            let path = Path::new(&targets.dir).join(format!("made-{}", std::process::id()));
            fs::create_dir(&path)?;
            fs::remove_dir(&path).map(|()| "made and removed".into())
        },
    },
    Attack {
        name: "link-file",
        tries: "give a file a second name",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |targets| {
            let path = Path::new(&targets.dir).join(format!("linked-{}", std::process::id()));
            fs::hard_link(secret(targets), &path)?;
            fs::remove_file(&path).map(|()| "linked and removed".into())
        },
    },
    Attack {
        name: "list-root",
        tries: "list the root directory",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |_| match fs::read_dir("/")?.count() {
            0 => Err(refused("it is empty")),
            entries => Ok(format!("{entries} entries")),
        },
    },
    Attack {
        name: "stat-file",
        tries: "learn whether a file exists, and its size",
        against: &[EmptyRoot, Seccomp],
        run: |targets| {
            let path = c_path(&secret(targets));
            let mut stat = [0u8; 256];
            let flags = libc::AT_SYMLINK_NOFOLLOW as usize;
            let at = libc::AT_FDCWD as isize as usize;
            let arguments = [at, path.as_ptr() as usize, stat.as_mut_ptr() as usize, flags, 0, 0];
            call(libc::SYS_newfstatat, arguments).map(|_| "it exists".into())
        },
    },
    Attack {
        // The filter cannot see the path; only an empty root helps.
        name: "stat-empty-path",
        tries: "the same, with the one flag that the filter lets through",
        against: &[EmptyRoot],
        run: |targets| {
            let path = c_path(&secret(targets));
            let mut stat = [0u8; 256];
            let flags = libc::AT_EMPTY_PATH as usize;
            let at = libc::AT_FDCWD as isize as usize;
            let arguments = [at, path.as_ptr() as usize, stat.as_mut_ptr() as usize, flags, 0, 0];
            call(libc::SYS_newfstatat, arguments).map(|_| "it exists".into())
        },
    },
    Attack {
        name: "change-mode",
        tries: "change a file's mode to what it is",
        against: &[EmptyRoot, Seccomp],
        run: |targets| {
            let metadata = fs::metadata(secret(targets))?;
            fs::set_permissions(secret(targets), metadata.permissions()).map(|()| "changed".into())
        },
    },
    Attack {
        name: "inherited-descriptor",
        tries: "read through a descriptor that the host left open across exec",
        against: &[Descriptors],
        run: |targets| {
            // SAFETY: if there is such a descriptor it is the host's gift; it is not closed here.
            let file = unsafe { File::from_raw_fd(targets.descriptor) };
            let mut file = ManuallyDrop::new(file);
            let mut text = String::new();
            match file.read_to_string(&mut text)? {
                0 => Err(refused("there is something else, or nothing")),
                _ => Ok(text),
            }
        },
    },
    Attack {
        name: "exec-program",
        tries: "run /bin/sh",
        against: &[EmptyRoot, Landlock, Seccomp],
        run: |_| {
            let code = CString::new(format!("exit {REPLACED_EXIT_CODE}")).map_err(io::Error::other)?;
            let argv = [c"sh".as_ptr(), c"-c".as_ptr(), code.as_ptr(), std::ptr::null()];
            let none: [*const u8; 1] = [std::ptr::null()];
            let arguments = [c"/bin/sh".as_ptr() as usize, argv.as_ptr() as usize, none.as_ptr() as usize];
            let [path, argv, envp] = arguments;
            call(libc::SYS_execve, [path, argv, envp, 0, 0, 0]).map(|_| "came back".into())
        },
    },
    Attack {
        name: "exec-memfd",
        tries: "run a program from memory",
        against: &[Seccomp],
        run: |_| {
            let name = c"program".as_ptr() as usize;
            let fd = call(libc::SYS_memfd_create, [name, 0, 0, 0, 0, 0])?;
            let program = exits_with(REPLACED_EXIT_CODE as u8);
            call(libc::SYS_write, [fd, program.as_ptr() as usize, program.len(), 0, 0, 0])?;
            let none: [*const u8; 1] = [std::ptr::null()];
            let empty = c"".as_ptr() as usize;
            let none = none.as_ptr() as usize;
            let flags = libc::AT_EMPTY_PATH as usize;
            call(libc::SYS_execveat, [fd, empty, none, none, flags, 0]).map(|_| "came back".into())
        },
    },
    Attack {
        name: "watch-files",
        tries: "be told of changes to files (inotify)",
        against: &[Seccomp],
        run: |_| call(libc::SYS_inotify_init1, [0; 6]).map(|_| "a descriptor".into()),
    },
    Attack {
        name: "file-handle",
        tries: "a handle of a file, to be opened past all directories",
        against: &[EmptyRoot, Seccomp],
        run: |targets| {
            // struct file_handle: the room for the handle comes first.
            let mut handle = [0u32; 40];
            handle[0] = 128;
            let path = c_path(&secret(targets));
            let mut mount = 0i32;
            let at = libc::AT_FDCWD as isize as usize;
            let handle = handle.as_mut_ptr() as usize;
            let mount = &raw mut mount as usize;
            call(libc::SYS_name_to_handle_at, [at, path.as_ptr() as usize, handle, mount, 0, 0])
                .map(|_| "a handle".into())
        },
    },
];

fn secret(targets: &Targets) -> PathBuf {
    Path::new(&targets.dir).join("secret")
}

fn c_path(path: &Path) -> CString {
    // A path with a zero byte is one that does not exist.
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap_or_default()
}

/// A whole program for x86-64: `exit(code)`. One header, one segment, twelve bytes of code.
fn exits_with(code: u8) -> Vec<u8> {
    let base = 0x40_0000u64;
    let headers = 64 + 56u64;
    let machine = [0xbf, code, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 62] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes());
    for word in [base + headers, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // The segment is loadable, readable and executable.
    elf.extend(1u32.to_le_bytes());
    elf.extend(5u32.to_le_bytes());
    let len = headers + machine.len() as u64;
    for word in [0, base, base, len, len, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(machine);
    elf
}
