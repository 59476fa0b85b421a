//! The state that the map's thread and the caller share: the iterator, the inputs that were pulled, and those
//! that were submitted.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use super::{Knock, Plan, is_over};
use crate::account::{Account, Charge, Need, Waited};
use crate::error::SubmitError;
use crate::ewma::Ewma;
use crate::future::TaskFuture;
use crate::host::Core;
use crate::host::batch::Inputs;
use crate::host::core::WhenFull;
use crate::host::request::{Request, RequestInput, map_bytes_max};
use crate::module::{Aim, Callable, Entrance, InputOf};
use crate::pool::batch::Submitted;
use crate::stdin::StdinSource;
use crate::sync::Sender;
use proto::limits::{BATCH_ANSWERS_BYTES_MAX, BATCH_BYTES_MAX, BATCH_ITEMS_MAX, RESULT_BYTES_BESIDE};
use proto::payload::Payload;
use proto::sync::{Lock, Sleep};

/// This many inputs are pulled ahead of the results, unless set: enough to keep many workers busy.
const BUFFER_SIZE: usize = 1024;

/// Tasks so short that they travel together have room for several batches.
const BUFFER_SIZE_BATCHED: usize = 4096;

/// A caller that asks for a smaller look-ahead wants each input to be submitted as it is pulled.
const BATCHED_FROM: usize = 256;

/// The part of a map that both threads see.
pub(in crate::pool) struct FeedState<C: Callable, I> {
    task: C,
    /// The version of the module that was in force when the map began: all of it runs that one.
    aim: Aim,
    core: Arc<Core>,
    pub(super) account: Arc<Account>,
    /// The map's thread waits for room in the pool's queue under this ticket.
    pub(super) ticket: u64,
    state: Mutex<State<C, I>>,
    /// Something was submitted, or the iterator has ended, or nobody submits any more.
    changed: Condvar,
}

pub(super) struct State<C: Callable, I> {
    pub(super) plan: Plan,
    /// It is `None` while a thread pulls.
    pub(super) source: Option<Source<I>>,
    /// This many tasks make a batch, as the results suggest.
    pub(super) batch_size: usize,
    /// The account has room for a batch and the largest answers that it may have.
    has_room_for_batches: bool,
    /// These inputs are encoded, and wait for the rest of their batch.
    pub(super) gathered: Inputs,
    /// These prepared requests found no room so far; they come before the gathered inputs.
    pub(super) unadmitted: VecDeque<Box<PreparedRequest>>,
    /// The caller has not taken these over yet; each has the number of its first input.
    pub(super) submitted: VecDeque<(usize, Submitted<C::Output>)>,
    /// The number of inputs that were submitted.
    pub(super) count: usize,
    /// It is told the numbers of the inputs that have results.
    pub(super) listener: Option<Sender<usize>>,
    /// The iterator panicked with this; nothing more is pulled before the caller has it.
    pub(super) panic: Option<Box<dyn Any + Send>>,
    pub(super) end: Option<End>,
    /// The caller waits, so nothing is to be gathered.
    pub(super) is_urgent: bool,
    /// A thread submits, or waits for room to do so.
    pub(super) is_submitting: bool,
    pub(super) is_closed: bool,
    /// The number of threads that sleep on [`FeedState::changed`]: a wake-up is a system call even if nobody
    /// sleeps.
    sleepers: usize,
}

/// The reason why nothing more is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pool) enum End {
    /// There are no more inputs.
    Exhausted,
    /// Inputs were left when the time ran out.
    Late,
}

/// The iterator, and the state of pulling from it.
pub(super) struct Source<I> {
    inputs: I,
    /// This many of the next inputs travel together; it is decided at the first of each batch.
    batch_size: usize,
    /// Some inputs of a batch were pulled, and more are to follow.
    pub(super) is_amid: bool,
    /// The number of the current chunk, and how many inputs it still lacks.
    chunk: (u64, usize),
    encoded: Vec<u8>,
    /// The time that the iterator takes for an input, on average.
    pub(super) pace: Ewma,
}

/// The result of one pull.
pub(super) enum Pulled {
    /// The input is in [`Source::encoded`], and may travel with others.
    Short,
    Alone(Result<(Entrance, Payload), SubmitError>, Option<StdinSource>),
    Nothing,
}

/// The thread that pulls or submits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The map's own thread may wait for anything.
    Thread,
    /// The caller, while nothing is under way, waits for room.
    Waiting,
    /// The caller, while something is under way, waits for that and not for room.
    Passing,
}

/// A request to be submitted, or an error in its place.
pub(super) struct PreparedRequest {
    request: Result<Request, SubmitError>,
    /// The number of its tasks.
    pub(super) count: usize,
    /// The inputs of a batch.
    inputs: Option<Bytes>,
    charge: Option<Arc<Charge>>,
}

/// The result of giving a prepared request to the pool.
pub(super) enum Handed<O> {
    Submitted(Submitted<O>),
    /// The pool's queue has no room.
    Full(Box<PreparedRequest>, Arc<Charge>, SubmitError),
}

impl<C: Callable, I> State<C, I> {
    /// Returns whether anything waits to be submitted.
    pub(super) fn has_some(&self) -> bool {
        !self.unadmitted.is_empty() || self.gathered.count() > 0
    }

    /// Returns whether this thread may wait for room. A caller with something submitted may not: only by taking that
    /// result does it give room back.
    fn may_wait(&self, by: By) -> bool {
        match by {
            By::Thread => true,
            By::Waiting => self.submitted.is_empty(),
            By::Passing => false,
        }
    }

    pub(super) fn has_submitted_all(&self) -> bool {
        !self.is_submitting && !self.has_some()
    }

    /// Returns how many inputs may be pulled ahead of the results.
    pub(super) fn buffer_size(&self) -> usize {
        let usual = if self.batch_size > 1 { BUFFER_SIZE_BATCHED } else { BUFFER_SIZE };
        self.plan.buffer_size.unwrap_or(usual)
    }

    /// Makes a batch of these inputs.
    pub(super) fn prepare_request(&self, shared: &FeedState<C, I>, inputs: Inputs) -> Box<PreparedRequest> {
        let count = inputs.count();
        let bytes = inputs.into_bytes();
        // Only inputs of tasks that travel in batches are gathered.
        let work = RequestInput::Batch { inputs: bytes.clone(), count };
        let request = Request::new(shared.core.bounds(), shared.aim.clone(), work, self.plan.options.clone());
        Box::new(PreparedRequest { request, count, inputs: Some(bytes), charge: None })
    }

    /// Ends the gathering: the gathered inputs become a prepared request.
    fn prepare_gathered(&mut self, shared: &FeedState<C, I>) {
        if self.gathered.count() > 0 {
            let inputs = std::mem::take(&mut self.gathered);
            let prepared = self.prepare_request(shared, inputs);
            self.unadmitted.push_back(prepared);
        }
    }
}

impl<C: Callable, I> FeedState<C, I> {
    pub(super) fn new(core: Arc<Core>, task: C, inputs: I) -> Self {
        let plan = Plan::new();
        let pace = Ewma::default();
        let source =
            Source { inputs, batch_size: 1, is_amid: false, chunk: (0, 0), encoded: Vec::new(), pace };
        let state = State {
            plan,
            source: Some(source),
            batch_size: 1,
            has_room_for_batches: false,
            gathered: Inputs::default(),
            unadmitted: VecDeque::new(),
            submitted: VecDeque::new(),
            count: 0,
            listener: None,
            panic: None,
            end: None,
            is_urgent: false,
            is_submitting: false,
            is_closed: false,
            sleepers: 0,
        };
        let ticket = core.new_ticket();
        let account = Account::new(Need::default());
        let aim = task.target().aim();
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let shared = FeedState { task, aim, core, account, ticket, state, changed };
        shared.resize();
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<C, I>> {
        self.state.hold()
    }

    /// Sleeps until something has changed, or the deadline.
    pub(super) fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State<C, I>>,
        deadline: Option<Instant>,
    ) -> MutexGuard<'a, State<C, I>> {
        state.sleepers += 1;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        state = self.changed.sleep(state, left);
        state.sleepers -= 1;
        state
    }

    /// Wakes sleeping threads. The caller holds the lock.
    pub(super) fn notify(&self, state: &State<C, I>) {
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    /// Sets the account to the plan's bounds.
    pub(super) fn resize(&self) {
        let state = self.lock();
        let items = state.buffer_size();
        let bytes = state.plan.bytes_max;
        let options = state.plan.options.clone();
        drop(state);
        let (bytes, one) =
            map_bytes_max(&self.core.settings, self.core.workers_max(), !C::IS_BATCHED, options, bytes);
        // A batch larger than the account would go alone, and exceed a bound that single tasks keep.
        let of_batch =
            BATCH_ANSWERS_BYTES_MAX + BATCH_BYTES_MAX as u64 + BATCH_ITEMS_MAX as u64 * RESULT_BYTES_BESIDE;
        self.lock().has_room_for_batches = one.saturating_add(of_batch) <= bytes;
        self.account.set_max(Need { items, bytes });
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        self.notify(&state);
    }

    // ── Pulled ───────────────────────────────────────────────────────────────

    /// Returns how many more inputs may be pulled: as many as have room ahead of the results. It
    /// returns 0 if there is no room now, no time, or no need.
    pub(super) fn room(&self, by: By) -> usize {
        let state = self.lock();
        let deadline = state.plan.deadline();
        let gathered = state.gathered.count();
        let is_free = state.unadmitted.is_empty();
        drop(state);
        let waited = match by {
            By::Thread => self.account.wait(Need { items: gathered + 1, bytes: 0 }, deadline),
            By::Waiting | By::Passing if is_over(deadline) => Waited::Late,
            By::Waiting | By::Passing if is_free => Waited::Room,
            By::Waiting | By::Passing => Waited::Closed,
        };
        match waited {
            Waited::Room => self.account.items_free().saturating_sub(gathered),
            Waited::Closed | Waited::Never => 0,
            Waited::Late => {
                self.end(End::Late);
                0
            }
        }
    }

    /// Decides the size of the next batch before its first input is pulled: each worker gets one, and another
    /// can wait behind it. A batch takes as much room in the queue as its tasks.
    fn begin(&self, source: &mut Source<I>) {
        let state = self.lock();
        let size = state.batch_size;
        let buffer_size = state.buffer_size();
        let may = size > 1
            && state.has_room_for_batches
            && state.plan.chunk_size.is_none()
            && buffer_size >= BATCHED_FROM;
        let options = (may && C::IS_BATCHED).then(|| state.plan.options.clone());
        drop(state);
        source.batch_size = match options {
            Some(options) if self.core.may_batch(&options) => {
                let room = buffer_size.min(self.core.settings.tasks.queued_max);
                size.min(room / (2 * self.core.workers_max())).max(1)
            }
            _ => 1,
        };
    }

    /// Gathers the pulled input, or submits it behind those gathered before.
    pub(super) fn see_to(&self, source: &mut Source<I>, pulled: Pulled, by: By) {
        let mut state = self.lock();
        match pulled {
            Pulled::Short => {
                if !state.gathered.push(&source.encoded) {
                    // An empty batch has room for any input that counts as short.
                    state.prepare_gathered(self);
                    state.gathered.push(&source.encoded);
                }
                let is_complete = state.gathered.count() >= source.batch_size || state.is_urgent;
                if !is_complete && state.unadmitted.is_empty() && by != By::Waiting {
                    return;
                }
                source.is_amid = false;
            }
            Pulled::Alone(encoded, stdin) => {
                let chunk = state.plan.chunk_size.map(|size| {
                    if source.chunk.1 == 0 {
                        source.chunk = (self.core.new_chunk(), size);
                    }
                    source.chunk.1 -= 1;
                    source.chunk.0
                });
                let options = state.plan.options.clone();
                let request = encoded.and_then(|(entrance, input)| {
                    let work = RequestInput::One { entrance, input, owns_input: C::OWNS_INPUT, chunk, stdin };
                    Request::new(self.core.bounds(), self.aim.clone(), work, options)
                });
                source.is_amid = false;
                state.prepare_gathered(self);
                state.unadmitted.push_back(Box::new(PreparedRequest {
                    request,
                    count: 1,
                    inputs: None,
                    charge: None,
                }));
            }
            Pulled::Nothing => {
                drop(state);
                self.submit(by);
                return self.end(End::Exhausted);
            }
        }
        drop(state);
        self.submit(by);
    }

    // ── Submitted ────────────────────────────────────────────────────────────

    /// Submits unadmitted and gathered inputs in order, as far as there is room.
    pub(super) fn submit(&self, by: By) {
        let mut state = self.lock();
        let deadline = state.plan.deadline();
        while state.is_submitting {
            // The submitting thread takes the gathered inputs, too.
            if !state.may_wait(by) || state.is_closed {
                return;
            }
            state = self.sleep(state, None);
        }
        state.is_submitting = true;
        while !state.is_closed {
            state.prepare_gathered(self);
            let Some(prepared) = state.unadmitted.pop_front() else { break };
            let by = if state.may_wait(by) { by } else { By::Passing };
            drop(state);
            let submitted = self.submit_one(prepared, by, deadline);
            state = self.lock();
            match submitted {
                Ok(submitted) => {
                    let number = state.count;
                    state.count += submitted.left();
                    if let Some(listener) = &state.listener {
                        submitted.announce(listener, number);
                    }
                    state.submitted.push_back((number, submitted));
                    self.notify(&state);
                }
                Err(prepared) => {
                    state.unadmitted.push_front(prepared);
                    break;
                }
            }
        }
        state.is_submitting = false;
        self.notify(&state);
    }

    /// Charges for a prepared request and submits it, or gives it back if there is no room or no time.
    fn submit_one(
        &self,
        mut prepared: Box<PreparedRequest>,
        by: By,
        deadline: Option<Instant>,
    ) -> Result<Submitted<C::Output>, Box<PreparedRequest>> {
        let mut need = Need {
            items: prepared.count,
            bytes: prepared.request.as_ref().map_or(0, |request| request.bytes_max()),
        };
        let charge = loop {
            if let Some(charge) = prepared.charge.take().or_else(|| self.account.try_take(need)) {
                break charge;
            }
            if !self.account.can_have_room(need) {
                let task = self.aim.name.to_string();
                let bytes = std::mem::take(&mut need.bytes);
                let max = self.account.bytes_max();
                prepared.request = Err(SubmitError::NoRoomInMap { task, bytes, max });
                continue;
            }
            match if by == By::Passing { Waited::Closed } else { self.account.wait(need, deadline) } {
                // The bound may have been lowered meanwhile.
                Waited::Room | Waited::Never => {}
                Waited::Closed => return Err(prepared),
                Waited::Late => {
                    self.end(End::Late);
                    return Err(prepared);
                }
            }
        };
        let mut given = (prepared, charge);
        loop {
            let when_full = match by {
                By::Passing => WhenFull::Reject,
                By::Waiting => WhenFull::Wait(deadline),
                By::Thread => {
                    let waker = Waker::from(Arc::new(Knock(self.account.clone())));
                    WhenFull::Wake { ticket: self.ticket, waker, not_after: deadline }
                }
            };
            let (mut prepared, charge, error) = match self.give(given.0, given.1, when_full) {
                Handed::Submitted(submitted) => return Ok(submitted),
                Handed::Full(prepared, charge, error) => (prepared, charge, error),
            };
            let waited = match by {
                By::Thread => self.account.wait_for_knock(deadline),
                _ if is_over(deadline) => Waited::Late,
                // A full queue is an error inside of a waker, where nobody may wait.
                By::Waiting => return Ok(Submitted::rejected(error, prepared.count, charge)),
                By::Passing => Waited::Closed,
            };
            match waited {
                Waited::Room | Waited::Never => given = (prepared, charge),
                Waited::Late | Waited::Closed => {
                    if waited == Waited::Late {
                        self.end(End::Late);
                    }
                    prepared.charge = Some(charge);
                    return Err(prepared);
                }
            }
        }
    }

    /// Gives a prepared request to the pool.
    pub(super) fn give(
        &self,
        prepared: Box<PreparedRequest>,
        charge: Arc<Charge>,
        when_full: WhenFull,
    ) -> Handed<C::Output> {
        let PreparedRequest { request, count, inputs, .. } = *prepared;
        let request = match request {
            Ok(request) => request.charged(charge.clone()),
            Err(error) => return Handed::Submitted(Submitted::rejected(error, count, charge)),
        };
        // A worker may have run some of a batch before this thread goes on.
        let submitted = inputs.as_ref().map(|_| Instant::now());
        match self.core.submit(request, when_full) {
            Ok(cell) => {
                let owner: Weak<Core> = Arc::downgrade(&self.core);
                let future = TaskFuture::new(cell, C::decode, owner);
                Handed::Submitted(match inputs.zip(submitted) {
                    None => Submitted::one(future, charge),
                    Some((inputs, submitted)) => Submitted::many(future, (inputs, count), submitted, charge),
                })
            }
            Err(rejected) => match *rejected {
                (error @ SubmitError::QueueFull { .. }, request) => {
                    let request = Ok(request.uncharged());
                    Handed::Full(
                        Box::new(PreparedRequest { request, count, inputs, charge: None }),
                        charge,
                        error,
                    )
                }
                (error, _) => Handed::Submitted(Submitted::rejected(error, count, charge)),
            },
        }
    }
}

impl<I> Source<I> {
    /// Pulls an input and encodes it.
    pub(super) fn pull<C>(&mut self, shared: &FeedState<C, I>) -> Pulled
    where
        C: Callable,
        I: Iterator,
        I::Item: InputOf<C>,
    {
        if !self.is_amid {
            shared.begin(self);
            self.is_amid = true;
        }
        // The iterator and the encoders are the caller's code, so no lock is held.
        let Some(input) = self.inputs.next() else { return Pulled::Nothing };
        self.encoded.clear();
        let bytes_max = shared.core.settings.tasks.input_bytes_max.min(BATCH_BYTES_MAX / 2);
        if self.batch_size > 1
            && input.encode_onto(&shared.task, &mut self.encoded).is_ok()
            && self.encoded.len() <= bytes_max
        {
            return Pulled::Short;
        }
        self.encoded = Vec::new();
        // An input that cannot be encoded gives an error at its own place.
        Pulled::Alone(input.encode(&shared.task), input.stdin().cloned())
    }
}
