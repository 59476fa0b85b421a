//! The account of a map: it bounds what the map holds in this process.
//!
//! A map charges the account before it submits a task, for the bytes of its input and for the largest result
//! that it may have. When the task has ended, the charge is lowered to the result's size, and it is given
//! back when the result is taken. So no task begins unless its largest result has room, and results that wait
//! (behind a slow one, or for a caller who does not ask) cannot outgrow the account. A task that needs more
//! bytes than the whole account has is refused.
//!
//! Only one thread at a time takes. Any thread may settle and give back, even under a lock, since no code of
//! the caller's runs here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::fork::OfProcess;
use proto::sync::Lock;

/// The room that something needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    /// The number of inputs; each counts until its result is taken.
    pub items: usize,
    /// The bytes of inputs and of their largest results.
    pub bytes: u64,
}

/// The result of waiting for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// There is room now.
    Room,
    /// The account was closed.
    Closed,
    /// The deadline came first.
    Late,
    /// The account never has so much.
    Never,
}

/// The bounds of the account, and what is charged to it.
#[derive(Debug)]
pub struct Account {
    state: Mutex<AccountState>,
    /// This is read for each input, without the lock.
    is_closed: AtomicBool,
    changed: Condvar,
}

#[derive(Debug)]
struct AccountState {
    max: Need,
    charged: Need,
    charges: usize,
    is_closed: bool,
    /// The taking thread sleeps until there is room for this.
    awaited: Option<Need>,
    /// The taking thread was told that something else has changed.
    is_knocked: bool,
}

impl AccountState {
    fn has_room(&self, need: Need) -> bool {
        // A batch of more items than the bound goes alone: it may have been gathered when the bound was higher.
        let has_items = self.charges == 0 || self.charged.items.saturating_add(need.items) <= self.max.items;
        has_items && self.charged.bytes.saturating_add(need.bytes) <= self.max.bytes
    }

    /// There can be room for it, once nothing else is charged.
    fn can_have_room(&self, need: Need) -> bool {
        need.bytes <= self.max.bytes
    }

    /// Returns whether to wake a sleeping taker: it is woken once a quarter of the account is free, and not for each
    /// result.
    fn is_worth_waking(&self, need: Need) -> bool {
        let items = need.items.max(self.max.items / 4);
        let bytes = need.bytes.max(self.max.bytes / 4);
        self.is_closed || self.has_room(Need { items, bytes })
    }
}

impl Account {
    /// An account to which nothing is charged.
    pub fn new(max: Need) -> Arc<Account> {
        let state = AccountState {
            max,
            charged: Need::default(),
            charges: 0,
            is_closed: false,
            awaited: None,
            is_knocked: false,
        };
        Arc::new(Account {
            state: Mutex::new(state),
            is_closed: AtomicBool::new(false),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, AccountState> {
        self.state.hold()
    }

    /// Charges the account, if there is room.
    pub fn try_take(self: &Arc<Self>, need: Need) -> Option<Arc<Charge>> {
        let mut state = self.lock();
        if state.is_closed || !state.has_room(need) {
            return None;
        }
        state.charged.items += need.items;
        state.charged.bytes += need.bytes;
        state.charges += 1;
        assert!(
            state.charged.bytes <= state.max.bytes
                && (state.charges == 1 || state.charged.items <= state.max.items),
            "a map holds more than its account has: {:?} of {:?}",
            state.charged,
            state.max
        );
        drop(state);
        Some(Arc::new(Charge {
            account: OfProcess::new(self.clone()),
            items: need.items,
            bytes: Mutex::new(need.bytes),
        }))
    }

    /// Waits until there is room, but does not take it.
    pub fn wait(&self, need: Need, deadline: Option<Instant>) -> Waited {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return Waited::Closed;
            }
            if !state.can_have_room(need) {
                return Waited::Never;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Waited::Late;
            }
            if state.has_room(need) {
                return Waited::Room;
            }
            state.awaited = Some(need);
            state = self.sleep(state, deadline, |state| state.awaited.is_some());
            state.awaited = None;
        }
    }

    /// Waits until [`knock`](Self::knock) is called, or was called since the last such wait.
    pub fn wait_for_knock(&self, deadline: Option<Instant>) -> Waited {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return Waited::Closed;
            }
            if std::mem::take(&mut state.is_knocked) {
                return Waited::Room;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Waited::Late;
            }
            state = self.sleep(state, deadline, |state| !state.is_knocked && !state.is_closed);
        }
    }

    fn sleep<'a>(
        &self,
        state: MutexGuard<'a, AccountState>,
        deadline: Option<Instant>,
        is_to_wait: impl Fn(&mut AccountState) -> bool,
    ) -> MutexGuard<'a, AccountState> {
        match deadline {
            None => self.changed.wait_while(state, is_to_wait).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let woken = self.changed.wait_timeout_while(state, left, is_to_wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Ends a [`wait_for_knock`](Self::wait_for_knock).
    pub fn knock(&self) {
        self.lock().is_knocked = true;
        self.changed.notify_all();
    }

    /// Lets nothing more be taken, and wakes the taker.
    pub fn close(&self) {
        let mut state = self.lock();
        (state.is_closed, state.awaited) = (true, None);
        self.is_closed.store(true, Ordering::SeqCst);
        drop(state);
        self.changed.notify_all();
    }

    /// Returns whether nothing more can be charged.
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Returns how many more inputs have room.
    pub fn items_free(&self) -> usize {
        let state = self.lock();
        state.max.items.saturating_sub(state.charged.items)
    }

    /// Returns how many inputs are charged.
    pub fn items(&self) -> usize {
        self.lock().charged.items
    }

    /// Returns whether there can be room for it at all.
    pub fn can_have_room(&self, need: Need) -> bool {
        self.lock().can_have_room(need)
    }

    /// Returns the most bytes that may be charged.
    pub fn bytes_max(&self) -> u64 {
        self.lock().max.bytes
    }

    /// Sets another bound for what is taken from now on.
    pub fn set_max(&self, max: Need) {
        let mut state = self.lock();
        state.max = max;
        // The taker that waits may have room now, or never.
        state.awaited = None;
        drop(state);
        self.changed.notify_all();
    }

    fn give_back(&self, items: usize, bytes: u64, is_all: bool) {
        let mut state = self.lock();
        state.charged.items -= items;
        state.charged.bytes -= bytes;
        state.charges -= usize::from(is_all);
        let is_to_wake = state.awaited.is_some_and(|need| state.is_worth_waking(need));
        if is_to_wake {
            state.awaited = None;
        }
        drop(state);
        if is_to_wake {
            self.changed.notify_all();
        }
    }
}

/// The charge for a task or a batch. It has two owners, one who runs the task and one who takes its result,
/// and is given back with the last of them. In a fork it gives nothing back: a thread that is not there may
/// hold the account's lock.
#[derive(Debug)]
pub struct Charge {
    account: OfProcess<Arc<Account>>,
    items: usize,
    bytes: Mutex<u64>,
}

impl Charge {
    /// Lowers the charge to the final size. A size above the charge is ignored: others may have taken the
    /// room.
    pub fn settle(&self, bytes: u64) {
        let mut charged = self.bytes.hold();
        debug_assert!(bytes <= *charged, "{bytes} bytes were charged as {charged}");
        let surplus = charged.saturating_sub(bytes);
        *charged -= surplus;
        drop(charged);
        if surplus > 0
            && let Some(account) = self.account.here()
        {
            account.give_back(0, surplus, false);
        }
    }

    /// Returns what is charged now.
    pub fn bytes(&self) -> u64 {
        *self.bytes.hold()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(account) = self.account.here() {
            account.give_back(self.items, self.bytes(), true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn need(items: usize, bytes: u64) -> Need {
        Need { items, bytes }
    }

    fn charged(account: &Account) -> Need {
        account.lock().charged
    }

    #[test]
    fn what_is_charged_is_never_more_than_the_account_has_and_the_oversized_is_refused() {
        let account = Account::new(need(9, 10));
        let first = account.try_take(need(1, 6)).expect("there is room");
        let second = account.try_take(need(1, 4)).expect("there is room");
        assert!(account.try_take(need(1, 1)).is_none(), "10 of 10");
        first.settle(2);
        assert_eq!(charged(&account), need(2, 6));
        assert!(account.try_take(need(1, 11)).is_none() && !account.can_have_room(need(1, 11)));
        assert_eq!(account.wait(need(1, 11), None), Waited::Never);
        drop((first, second));
        assert!(account.try_take(need(1, 11)).is_none(), "alone it would be over the bound, too");
        assert_eq!(account.wait(need(1, 11), None), Waited::Never);
        let whole = account.try_take(need(1, 10)).expect("all there is");
        assert!(account.try_take(need(1, 1)).is_none(), "nothing goes beside it");
        drop(whole);
        assert_eq!(charged(&account), need(0, 0));
        let many = account.try_take(need(100, 0)).expect("more items than the bound go alone");
        assert!(account.try_take(need(1, 0)).is_none(), "nothing goes beside them");
        drop(many);
    }

    #[test]
    fn who_waits_learns_that_a_lower_bound_has_never_room() {
        let account = Account::new(need(9, 10));
        let held = account.try_take(need(1, 10)).expect("there is room");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| account.wait(need(1, 8), None));
            while account.lock().awaited.is_none() {
                std::thread::yield_now();
            }
            account.set_max(need(9, 7));
            assert_eq!(waiting.join().expect("it was told"), Waited::Never);
        });
        drop(held);
    }

    #[test]
    fn inputs_without_bytes_count_too_and_who_waits_learns_of_the_end() {
        let account = Account::new(need(2, 10));
        let held = [0, 1].map(|_| account.try_take(need(1, 0)).expect("there is room"));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| account.wait(need(1, 0), None));
            account.close();
            assert_eq!(waiting.join().expect("it was told"), Waited::Closed);
        });
        assert!(account.is_closed() && account.try_take(need(0, 0)).is_none());
        assert_eq!(account.items(), 2);
        drop(held);
    }

    #[test]
    fn who_waits_is_woken_once_a_quarter_is_free_or_at_the_deadline() {
        let account = Account::new(need(8, 800));
        let mut held: Vec<_> =
            (0..8).map(|_| account.try_take(need(1, 100)).expect("there is room")).collect();
        let soon = Instant::now().checked_add(Duration::from_millis(1));
        assert_eq!(account.wait(need(1, 1), soon), Waited::Late);
        let awaited_after: Vec<_> = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| account.wait(need(1, 1), None));
            while account.lock().awaited.is_none() {
                std::thread::yield_now();
            }
            let awaited_after = (0..2).map(|_| (drop(held.pop()), account.lock().awaited.is_some()).1);
            let awaited_after = awaited_after.collect();
            assert_eq!(waiting.join().expect("it is woken"), Waited::Room);
            awaited_after
        });
        assert_eq!(awaited_after, [true, false]);
    }

    #[test]
    fn a_knock_is_heard_by_who_waits_for_it_later() {
        let account = Account::new(need(1, 1));
        account.knock();
        assert_eq!(account.wait_for_knock(None), Waited::Room);
        assert_eq!(account.wait_for_knock(Some(Instant::now())), Waited::Late);
        account.close();
        assert_eq!(account.wait_for_knock(None), Waited::Closed);
    }
}
