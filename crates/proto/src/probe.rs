//! An attack on a throw-away worker: the worker is told what to try and on whom, and tells what came of it. The
//! attacks are `sandbox::attacks`, and their host is `host::doctor`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::Name;

/// Says what came of one attack, tried by native code inside of a throw-away worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
#[non_exhaustive]
pub enum AttackOutcome {
    /// The system said no; the text is its answer.
    Refused(String),
    /// The attempt ended the process: by this signal, 31 (SIGSYS) being the filter's.
    Killed(i32),
    /// It worked; the text is the evidence.
    Succeeded(String),
    /// Nobody knows: the throw-away process could not be started, or said nothing in time.
    Unknown(String),
}

impl AttackOutcome {
    /// Returns whether the attempt came to nothing.
    pub fn failed(&self) -> bool {
        matches!(self, AttackOutcome::Refused(_) | AttackOutcome::Killed(_))
    }
}

impl fmt::Display for AttackOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttackOutcome::Refused(why) => write!(f, "refused: {}", Name(why)),
            AttackOutcome::Killed(31) => f.write_str("killed by SIGSYS"),
            AttackOutcome::Killed(signal) => write!(f, "killed by signal {signal}"),
            AttackOutcome::Succeeded(what) => write!(f, "SUCCEEDED: {}", Name(what)),
            AttackOutcome::Unknown(why) => write!(f, "not known: {}", Name(why)),
        }
    }
}

/// Holds what a throw-away worker is told to try, and on whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Probe {
    /// An attack's index in the list, or a call.
    pub attempt: Attempt,
    /// The attack is made under the compiler's filter.
    pub as_compiler: bool,
    pub targets: Targets,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub enum Attempt {
    /// An attack of the list, by its index.
    Attack(u32),
    /// A system call by its number, with these arguments.
    Call(i64, [u64; 6]),
    /// A Rust panic that nobody catches.
    Panic,
    /// A write to address 8.
    Crash,
}

/// The targets of an attack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, postcard_schema::Schema)]
pub struct Targets {
    pub host_pid: u32,
    pub sibling_pid: u32,
    /// The address of the secret in the host's memory.
    pub host_address: u64,
    /// A directory that everybody may write to, with the file `secret` and the socket `socket`.
    pub dir: String,
    /// Says where the host listens, on the loopback device.
    pub tcp_port: u16,
    /// An abstract socket on which the host listens.
    pub abstract_name: String,
    /// A descriptor of the secret that the host has left open across exec.
    pub descriptor: i32,
    /// The descriptors of the directories that it was given; it knows them itself.
    pub dirs: Vec<i32>,
}
