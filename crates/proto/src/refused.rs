//! Names the call that the system refused, the limit behind that, and what to do about it.
//!
//! Every call on the way to a ready worker or compiler goes through [`calling`], in the host and in the
//! children, so that none of them can fail without its name.

pub mod near;

use std::fmt;
use std::io;

use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Addresses (`RLIMIT_AS`) that are enough for a module of some tens of megabytes, its compiler included: 4 GiB for
/// the one memory of an instance, and what else there is. Small modules need
/// little more than those 4 GiB.
const ADDRESSES_ENOUGH: u64 = 6 << 30;

/// The limits that advice is given about, with their names and the shell's options for them.
const LIMITS: [(Resource, &str, &str); 5] = [
    (Resource::Nofile, "RLIMIT_NOFILE", "-n"),
    (Resource::Fsize, "RLIMIT_FSIZE", "-f"),
    (Resource::As, "RLIMIT_AS", "-v"),
    (Resource::Data, "RLIMIT_DATA", "-d"),
    (Resource::Nproc, "RLIMIT_NPROC", "-u"),
];

/// A child remembers the limits that it was given, before it sets its own: advice about its own limits would
/// help nobody.
static GIVEN: OnceLock<[Option<u64>; LIMITS.len()]> = OnceLock::new();

/// Soft limits that a child raises to the hard ones: whoever set them meant their own program, and
/// what a child may have at most is said by what it sets itself later, and by the hard ones. A soft
/// limit of CPU time ends a process by a signal that says nothing.
const RAISED: [Resource; 5] =
    [Resource::Cpu, Resource::As, Resource::Data, Resource::Fsize, Resource::Nofile];

/// Raises what it may, and remembers the limits as they then are. A child's first step.
pub fn remember_limits() {
    for resource in RAISED {
        raise_to_hard(resource);
    }
    GIVEN.get_or_init(|| LIMITS.map(|(resource, ..)| getrlimit(resource).current));
}

/// Raises the soft limit of this process to the hard one.
pub fn raise_to_hard(resource: Resource) {
    let limit = getrlimit(resource);
    // The kernel refuses this to nobody. If it did, this process would go on with what there is.
    let _ = setrlimit(resource, Rlimit { current: limit.maximum, ..limit });
}

/// A call that the system refused. It travels inside of an [`io::Error`] of the same kind.
#[derive(Debug)]
struct Refused {
    /// The call, if it says more than the message that the error stands in.
    call: Option<&'static str>,
    error: io::Error,
    advice: String,
}

/// Writing so many bytes: what refuses that refuses a smaller limit, too.
pub fn writing<E: Into<io::Error>>(call: &'static str, bytes: usize) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = bare(error.into());
        let kind = error.kind();
        let errno = Errno::from_io_error(&error);
        let mut advice = errno.map(|errno| advice(call, errno)).unwrap_or_default();
        if errno == Some(Errno::FBIG) {
            advice = format!("{advice}; {bytes} bytes are needed");
        }
        io::Error::new(kind, Refused { call: Some(call), error, advice })
    }
}

/// Adds the limit behind an error, with its name and what to do about it, where a limit is behind it: a person who
/// reads "File too large" knows neither. The doors to files and streams return no error that has not gone through
/// here.
pub fn explained<E: Into<io::Error>>(error: E) -> io::Error {
    let error = error.into();
    let advice = match Errno::from_io_error(&error) {
        Some(errno @ (Errno::MFILE | Errno::NFILE | Errno::FBIG)) => advice("", errno),
        _ => String::new(),
    };
    match advice.is_empty() {
        true => error,
        false => io::Error::new(error.kind(), Refused { call: None, error, advice }),
    }
}

/// Returns whether the system has no more of something: that is nothing that the caller has done wrong.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(errno(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN))
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { call, error, advice } = self;
        match call {
            Some(call) => write!(f, "{call}: {error}")?,
            None => write!(f, "{error}")?,
        }
        if advice.is_empty() { Ok(()) } else { write!(f, "; {advice}") }
    }
}

impl std::error::Error for Refused {}

/// Adds the name of its call, and what to do, to an error.
pub fn calling<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = bare(error.into());
        let kind = error.kind();
        let advice = Errno::from_io_error(&error).map(|errno| advice(call, errno)).unwrap_or_default();
        io::Error::new(kind, Refused { call: Some(call), error, advice })
    }
}

/// Returns an error without the advice that it has: it is about to get some with the name of its call.
fn bare(error: io::Error) -> io::Error {
    match error.downcast::<Refused>() {
        Ok(Refused { call: None, error, .. }) => error,
        Ok(refused) => io::Error::new(refused.error.kind(), refused),
        Err(error) => error,
    }
}

/// Returns the number of an error, whether it has gone through [`calling`] or not.
pub fn errno(error: &io::Error) -> Option<Errno> {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Refused>());
    Errno::from_io_error(inner.map_or(error, |refused| &refused.error))
}

/// Returns which limits that this process was started with may have refused it memory; nothing, if there are none.
pub fn limits_of_memory() -> Option<String> {
    let addresses = Some(limits(&[Resource::As])).filter(|advice| !advice.is_empty());
    let addresses = addresses.map(|advice| advice + &addresses_enough());
    let both = [addresses, Some(limits(&[Resource::Data])).filter(|advice| !advice.is_empty())];
    let both: Vec<String> = both.into_iter().flatten().collect();
    (!both.is_empty()).then(|| both.join("; "))
}

fn addresses_enough() -> String {
    format!("; {} KiB are enough for most modules", ADDRESSES_ENOUGH >> 10)
}

fn limits(wanted: &[Resource]) -> String {
    let known = LIMITS.iter().enumerate().filter(|(_, (resource, ..))| wanted.contains(resource));
    let advice = known.filter_map(|(index, &(resource, name, option))| {
        let value = GIVEN.get().map_or_else(|| getrlimit(resource).current, |given| given[index])?;
        Some(format!("{name} is {value}: raise it (ulimit {option})"))
    });
    advice.collect::<Vec<_>>().join("; ")
}

fn advice(call: &str, errno: Errno) -> String {
    match errno {
        Errno::MFILE => limits(&[Resource::Nofile]),
        Errno::NFILE => "the whole system has no descriptor left (sysctl fs.file-max)".into(),
        Errno::FBIG => limits(&[Resource::Fsize]),
        Errno::NOMEM => {
            let too_little = "there is too little memory, or vm.overcommit_memory is 2";
            limits_of_memory().unwrap_or_else(|| too_little.into())
        }
        Errno::AGAIN => match near::what_refuses_a_thread() {
            Some(near::Near::Limit(resource)) => limits(&[resource]),
            Some(near::Near::Group { most }) => {
                format!("the cgroup's pids.max is {most}, and as many are there: raise it")
            }
            None => {
                let others = "or the cgroup's pids.max or kernel.threads-max is reached";
                [limits(&[Resource::Nproc]), others.into()].join(" ").trim().to_string()
            }
        },
        Errno::NOENT | Errno::NOTDIR if call.contains("/proc") => {
            "is /proc mounted here? (mount -t proc proc /proc)".into()
        }
        Errno::NOSYS => {
            "this kernel does not have it, or a container's seccomp profile hides it: allow it there".into()
        }
        Errno::PERM | Errno::ACCESS => {
            "a container's seccomp profile or a security module refuses it: allow it there".into()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_is_named_with_its_limit_and_what_to_do() {
        let said = |call, errno: Errno| calling(call)(errno).to_string();
        let files = getrlimit(Resource::Nofile).current;
        let error = said("memfd_create", Errno::MFILE);
        assert!(error.starts_with("memfd_create: Too many open files"), "{error}");
        assert!(files.is_none_or(|files| error.contains(&format!("RLIMIT_NOFILE is {files}"))), "{error}");
        assert!(said("open /proc/self/exe", Errno::NOENT).contains("is /proc mounted"));
        assert!(!said("open x", Errno::NOENT).contains("/proc"));
        for errno in [Errno::NOSYS, Errno::PERM] {
            assert!(said("close_range", errno).contains("seccomp profile"));
        }
        assert!(said("fork", Errno::AGAIN).contains("pids.max"));
        assert!(said("mmap", Errno::NOMEM).contains("; "));
    }

    #[test]
    fn an_error_is_explained_once_and_only_where_a_limit_is_behind_it() {
        let files = getrlimit(Resource::Nofile).current;
        let error = explained(Errno::MFILE);
        assert_eq!(errno(&error), Some(Errno::MFILE));
        let limit = files.map(|files| format!("; RLIMIT_NOFILE is {files}: raise it (ulimit -n)"));
        let said = format!("Too many open files (os error 24){}", limit.unwrap_or_default());
        assert_eq!(error.to_string(), said);
        assert_eq!(explained(error).to_string(), said);
        assert_eq!(calling("open")(explained(Errno::MFILE)).to_string(), format!("open: {said}"));
        let named = calling("fork")(Errno::MFILE).to_string();
        assert_eq!(explained(calling("fork")(Errno::MFILE)).to_string(), named);
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::PIPE] {
            assert_eq!(explained(errno).raw_os_error(), Some(errno.raw_os_error()));
        }
    }

    #[test]
    fn a_named_error_keeps_its_number_and_kind() {
        let error = calling("socketpair")(Errno::MFILE);
        assert_eq!(errno(&error), Some(Errno::MFILE));
        let error = calling("mmap")(io::Error::from(Errno::NOMEM));
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(errno(&error), Some(Errno::NOMEM));
        assert_eq!(errno(&io::Error::other("no number")), None);
    }
}
