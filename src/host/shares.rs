//! What a worker holds of the pool's shared inputs.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::link::Link;
use crate::limits::SHARES_PER_TASK_MAX;
use crate::shared::{Holder, Shared};
use crate::wire::control::ControlSocket;
use crate::wire::message::{ShareId, ToWorkerControl};

/// The shared inputs of a task, or of a batch.
pub(crate) type TaskShares = Option<Arc<[Shared]>>;

/// Their numbers, in the guest's order.
pub(super) fn ids(shares: &TaskShares) -> Vec<ShareId> {
    shares.iter().flat_map(|shares| shares.iter()).map(Shared::id).collect()
}

/// What one worker has been sent, and not been told to forget.
#[derive(Debug, Default)]
pub(super) struct Sent(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// With their sizes.
    sent: HashMap<ShareId, u64>,
    /// What it has not been told yet to forget: its socket was full.
    unsaid: Vec<ShareId>,
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().sent.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lock().sent.values().sum()
    }

    /// Those of a task that the worker has not been sent yet, and now will be.
    pub(super) fn order(&self, shares: &TaskShares) -> Option<Vec<Shared>> {
        let shares = shares.as_deref()?;
        let mut state = self.lock();
        // The same input twice is one file.
        let is_new = |share: &&Shared| state.sent.insert(share.id(), share.len()).is_none();
        let new: Vec<Shared> = shares.iter().filter(is_new).cloned().collect();
        (!new.is_empty()).then_some(new)
    }

    /// Sends them. Whoever calls keeps them until it is back, so that none is forgotten meanwhile.
    pub(super) fn send(
        &self,
        control: &ControlSocket,
        new: &[Shared],
        holder: &Weak<Link>,
    ) -> io::Result<()> {
        debug_assert!(new.len() <= SHARES_PER_TASK_MAX, "submit refuses more");
        // What is gone makes room for what comes.
        self.lock().say(control);
        let shares = new.iter().map(|share| (share.id(), share.len())).collect();
        let descriptors: Vec<_> = new.iter().map(|share| share.file().as_fd()).collect();
        control.send(&ToWorkerControl::Share { shares }, &descriptors)?;
        new.iter().for_each(|share| share.add_holder(holder.clone()));
        Ok(())
    }
}

impl State {
    /// Says what is to be forgotten; later, if there is no room for it now.
    fn say(&mut self, control: &ControlSocket) {
        if self.unsaid.is_empty() {
            return;
        }
        let shares = std::mem::take(&mut self.unsaid);
        let message = ToWorkerControl::Unshare { shares };
        if let (Err(_), ToWorkerControl::Unshare { shares }) = (control.send(&message, &[]), message) {
            self.unsaid = shares;
        }
    }
}

impl Holder for Link {
    fn forget(&self, share: ShareId) {
        let mut state = self.shares.lock();
        if state.sent.remove(&share).is_some() {
            state.unsaid.push(share);
            state.say(&self.control);
        }
    }
}
