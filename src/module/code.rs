//! The machine code of a module, and how better code takes the place of what stands in for it.
//!
//! Workers know machine code by a number of its own. So to swap code is to number the new code, and to give tasks that are
//! handed out from then on the new number. Tasks that workers already have keep the old code, which is forgotten after the
//! last of them, as a module is.

use std::fmt;
use std::fs::File;
use std::mem;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::error::ModuleError;
use crate::fork::Birth;
use crate::held::{Held, Life, Permit};
use crate::host::cache::Compiled;
use proto::description::{CodeKind, Tier};
use proto::message::ModuleId;
use proto::sync::{Lock, Sleep};

/// Machine code, as workers map it.
pub(crate) struct Code {
    pub(crate) id: ModuleId,
    pub(crate) kind: CodeKind,
    pub(crate) tier: Tier,
    pub(crate) artifact: File,
    pub(crate) description_file: File,
    /// The field comes last, so that both files are closed before its permit is free.
    pub(crate) life: Life,
}

impl Code {
    /// `permit` is that of the module.
    pub(crate) fn new(
        number: u64,
        kind: CodeKind,
        compiled: Compiled,
        permit: impl Into<Arc<Permit>>,
    ) -> Code {
        let id = ModuleId(number);
        let Compiled { tier, artifact, description_file, .. } = compiled;
        Code { id, kind, tier, artifact, description_file, life: Life::new(Held::Module(id), permit) }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({:?}, {})", self.id, self.tier.name())
    }
}

/// The code that a module has now, and what is to come.
pub(crate) struct Codes {
    birth: Birth,
    /// The tier of the first code. A forked process says this, since it must not wait for the lock.
    first: Tier,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    code: Arc<Code>,
    optimizing: Optimizing,
}

/// What becomes of code of the quick tier.
enum Optimizing {
    /// Nothing: the code is what was asked for.
    Done,
    UnderWay,
    /// It stays as it is.
    Failed(ModuleError),
}

impl Codes {
    /// If better code is to come, whoever makes this brings it, or says why it does not come.
    pub(crate) fn new(code: Code, is_better_to_come: bool) -> Codes {
        let first = code.tier;
        let optimizing = if is_better_to_come { Optimizing::UnderWay } else { Optimizing::Done };
        let state = Mutex::new(State { code: Arc::new(code), optimizing });
        Codes { birth: Birth::here(), first, state, changed: Condvar::new() }
    }

    /// Returns the code that a task is to be run by.
    pub(crate) fn current(&self) -> Arc<Code> {
        self.state.hold().code.clone()
    }

    pub(crate) fn tier(&self) -> Tier {
        if self.birth.is_here() { self.state.hold().code.tier } else { self.first }
    }

    /// Gives the code to every task that is handed out from now on.
    pub(crate) fn replace(&self, code: Code) {
        let mut state = self.state.hold();
        let old = mem::replace(&mut state.code, Arc::new(code));
        state.optimizing = Optimizing::Done;
        self.changed.notify_all();
        // The workers that have the old code are told of its end outside of the lock.
        drop(state);
        drop(old);
    }

    /// Says that no better code will come.
    pub(crate) fn fail(&self, error: ModuleError) {
        self.state.hold().optimizing = Optimizing::Failed(error);
        self.changed.notify_all();
    }

    /// Waits until nothing better is to come, or for so long, and returns the tier that there is then.
    ///
    /// # Errors
    /// The reason why the module is not optimised.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<Tier, ModuleError> {
        if !self.birth.is_here() {
            return Err(ModuleError::OtherProcess);
        }
        // `None` means that the timeout is beyond all time.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.state.hold();
        loop {
            match &state.optimizing {
                Optimizing::Done => return Ok(state.code.tier),
                Optimizing::Failed(error) => return Err(error.clone()),
                Optimizing::UnderWay => {}
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(state.code.tier);
            }
            state = self.changed.sleep(state, left);
        }
    }
}
