//! The modules and shared inputs that a worker holds.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Weak};

use super::invocation::TaskShares;
use crate::held::{Held, Holder};
use crate::module::Loaded;
use crate::shared_input::SharedInput;
use proto::control::ControlSocket;
use proto::limits::{FORGOTTEN_AT_ONCE_MAX, SHARES_PER_TASK_MAX};
use proto::message::{ModuleId, ShareId, ToWorkerControl};
use proto::sync::Lock;

/// Everything that one worker has been sent and not been told to forget.
#[derive(Debug, Default)]
pub(super) struct Sent {
    state: Mutex<State>,
    /// The number of modules among it; it only changes under the lock.
    modules: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    modules: HashSet<ModuleId>,
    /// Each shared input has its size here.
    shares: HashMap<ShareId, u64>,
    /// The worker has yet to be told to forget these, since its socket was full. There are never more than it
    /// was sent.
    unsaid: Vec<Held>,
}

impl Sent {
    pub(super) fn shares(&self) -> usize {
        self.state.hold().shares.len()
    }

    pub(super) fn share_bytes(&self) -> u64 {
        self.state.hold().shares.values().sum()
    }

    /// Returns how many modules it holds, or is about to.
    pub(super) fn modules(&self) -> usize {
        self.modules.load(Ordering::Relaxed)
    }

    /// Notes that the worker is to have the module, and returns whether it is to be sent.
    pub(super) fn order_module(&self, module: &Loaded) -> bool {
        let mut state = self.state.hold();
        let is_new = state.modules.insert(module.id);
        self.modules.store(state.modules.len(), Ordering::Relaxed);
        is_new
    }

    /// Notes that the worker is to have these shared inputs, and returns those that are to be sent.
    pub(super) fn order_shares(&self, shares: &TaskShares) -> Option<Vec<SharedInput>> {
        let shares = shares.as_deref()?;
        let mut state = self.state.hold();
        // An input that is shared twice is sent once.
        let is_new = |share: &&SharedInput| state.shares.insert(share.id(), share.len()).is_none();
        let new: Vec<SharedInput> = shares.iter().filter(is_new).cloned().collect();
        (!new.is_empty()).then_some(new)
    }

    /// Notes that one has ended, and tells the worker if it was sent.
    pub(super) fn forget(&self, held: Held, control: &ControlSocket) {
        let mut state = self.state.hold();
        let was_sent = match held {
            Held::Module(module) => state.modules.remove(&module),
            Held::Share(share) => state.shares.remove(&share).is_some(),
        };
        self.modules.store(state.modules.len(), Ordering::Relaxed);
        if was_sent {
            state.unsaid.push(held);
            state.say(control);
        }
    }

    /// Sends a module. The caller holds it until this returns, so that it is not forgotten meanwhile.
    pub(super) fn send_module(
        &self,
        control: &ControlSocket,
        module: &Loaded,
        holder: &Weak<dyn Holder>,
    ) -> io::Result<()> {
        // The worker first hears what to forget, which makes room for what comes.
        self.state.hold().say(control);
        let message = ToWorkerControl::Module { module: module.id, code: module.about.description.code() };
        control.send(&message, &[module.artifact.as_fd(), module.description_file.as_fd()])?;
        module.life.add_holder(holder.clone());
        Ok(())
    }

    /// Sends shared inputs. The caller holds them until this returns, so that they are not forgotten
    /// meanwhile.
    pub(super) fn send_shares(
        &self,
        control: &ControlSocket,
        new: &[SharedInput],
        holder: &Weak<dyn Holder>,
    ) -> io::Result<()> {
        debug_assert!(new.len() <= SHARES_PER_TASK_MAX, "submit refuses more");
        self.state.hold().say(control);
        let shares = new.iter().map(|share| (share.id(), share.len())).collect();
        let descriptors: Vec<_> = new.iter().map(|share| share.file().as_fd()).collect();
        control.send(&ToWorkerControl::Share { shares }, &descriptors)?;
        new.iter().for_each(|share| share.life().add_holder(holder.clone()));
        Ok(())
    }
}

impl State {
    /// Tells the worker what to forget; the rest is told later, if the socket is full.
    fn say(&mut self, control: &ControlSocket) {
        while !self.unsaid.is_empty() {
            let now = &self.unsaid[..self.unsaid.len().min(FORGOTTEN_AT_ONCE_MAX)];
            let mut modules = Vec::new();
            let mut shares = Vec::new();
            for held in now {
                match *held {
                    Held::Module(module) => modules.push(module),
                    Held::Share(share) => shares.push(share),
                }
            }
            if control.send(&ToWorkerControl::Forget { modules, shares }, &[]).is_err() {
                return;
            }
            self.unsaid.drain(..self.unsaid.len().min(FORGOTTEN_AT_ONCE_MAX));
        }
    }
}
