//! The tasks and batches that the pool accepts. A [`Request`] is made in one way only, which goes through
//! every check, so that no caller can go around one.

use std::sync::Arc;

use bytes::Bytes;

use super::asks::TaskAsks;
use super::batch::longest_input;
use super::invocation::{Invocation, payload_bytes_max};
use super::settings::PoolSettings;
use crate::account::Charge;
use crate::error::SubmitError;
use crate::module::{Aim, Entrance};
use crate::options::TaskOptions;
use crate::panic_guard::PanicGuard;
use crate::stdin::StdinSource;
use proto::limits::task::TaskLimits;
use proto::limits::{
    BATCH_ANSWERS_BYTES_MAX, FRAME_META_BYTES_MAX, MAP_BYTES_MAX, RESULT_BYTES_BESIDE, SHARES_PER_TASK_MAX,
};
use proto::message::{Callee, CommandStdin, TaskIndex};
use proto::payload::Payload;
use proto::text::truncated;

/// The tasks that a task stays together with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Group {
    Alone,
    /// Tasks with the same number stay together if they can.
    Chunk(u64),
    /// It is a batch of this many tasks.
    Batch(usize),
}

impl Group {
    /// Returns how many tasks a batch has.
    pub(super) fn items(self) -> Option<usize> {
        match self {
            Group::Batch(items) => Some(items),
            Group::Alone | Group::Chunk(_) => None,
        }
    }

    /// Returns how many tasks it has beyond the first.
    pub(super) fn more(self) -> usize {
        self.items().map_or(0, |items| items.saturating_sub(1))
    }

    pub(super) fn chunk(self) -> Option<u64> {
        match self {
            Group::Chunk(chunk) => Some(chunk),
            Group::Alone | Group::Batch(_) => None,
        }
    }
}

/// The work of a request, with its input encoded.
pub(crate) enum RequestInput {
    /// One input; whether it is the pool's own memory, the number of its chunk, and the stdin that it reads
    /// while it runs.
    One {
        entrance: Entrance,
        input: Payload,
        owns_input: bool,
        chunk: Option<u64>,
        stdin: Option<StdinSource>,
    },
    /// Short tasks that travel together; `inputs` is laid out as in [`Inputs`](super::batch::Inputs). They
    /// have nothing but their inputs, so they are no commands.
    Batch { inputs: Bytes, count: usize },
}

/// A task or batch that has passed every check and only waits for room in the queue.
pub(crate) struct Request {
    pub(super) call: Invocation,
    pub(super) name: Arc<str>,
    pub(super) options: TaskOptions,
    pub(super) group: Group,
    /// The map's account charges for it here, and the charge is settled once its result has come.
    pub(super) charge: Option<Arc<Charge>>,
}

impl Request {
    /// Checks the work against the bounds of the pool of that number; each task of a batch is held to what one alone
    /// is. `options` are the caller's own.
    ///
    /// # Errors
    /// [`SubmitError`], except for those about the pool's state.
    pub(crate) fn new(
        (pool, settings): (u64, &PoolSettings),
        aim: Aim,
        work: RequestInput,
        mut options: TaskOptions,
    ) -> Result<Request, SubmitError> {
        admissible((pool, settings), &aim, &mut options)?;
        let (callee, input, owns_input, longest, group, stdin) = match work {
            RequestInput::One { entrance, input, owns_input, chunk, stdin } => {
                let longest = input.len();
                (
                    aim.callee(entrance),
                    input,
                    owns_input,
                    longest,
                    chunk.map_or(Group::Alone, Group::Chunk),
                    stdin,
                )
            }
            RequestInput::Batch { inputs, count } => {
                let longest = longest_input(&inputs);
                (aim.callee(Entrance::Task), inputs.into(), true, longest, Group::Batch(count), None)
            }
        };
        let too_large = |bytes, max| SubmitError::InputTooLarge { task: aim.name.to_string(), bytes, max };
        let max = settings.tasks.input_bytes_max;
        if longest > max {
            return Err(too_large(longest, max));
        }
        if let Callee::Command { args, env, .. } = &callee {
            check_texts(&aim.name, args, env)?;
            let texts = args.iter().chain(env.iter().flat_map(|(name, value)| [name, value]));
            let bytes = texts.map(|text| text.len() + 8).sum();
            let max = FRAME_META_BYTES_MAX / 2;
            if bytes > max {
                return Err(too_large(bytes, max));
            }
        }
        // The stdin is taken last, since a rejected request would lose it.
        let asks = match stdin {
            None => None,
            Some(_) if options.retry.is_some_and(|retry| retry.attempts_max > 1) => {
                return Err(SubmitError::StdinReadOnce { task: aim.name.to_string() });
            }
            Some(source) => match source.lend() {
                // The bytes that a deterministic task reads must not depend on when they come.
                Some(lent) => Some(TaskAsks::new(lent, options.seed.is_some())),
                None => return Err(SubmitError::StdinTaken { task: aim.name.to_string() }),
            },
        };
        let call = Invocation {
            module: aim.module,
            callee,
            limits: options.limits(),
            input: PanicGuard::new(input),
            owns_input,
            shares: options.shared.take(),
            asks,
        };
        Ok(Request { call, name: aim.name, options, group, charge: None })
    }

    pub(crate) fn task_name(&self) -> &str {
        &self.name
    }

    /// Returns how many tasks it has.
    pub(crate) fn items(&self) -> usize {
        self.group.items().unwrap_or(1)
    }

    /// Returns the most bytes that it takes in this process until its results are taken.
    pub(crate) fn bytes_max(&self) -> u64 {
        let of_answers = answer_bytes_max(&self.call.callee, &self.call.limits);
        let of_answers = match self.group.items() {
            None => of_answers,
            // The answer that goes over the bound may be of any size.
            Some(_) => of_answers.saturating_add(BATCH_ANSWERS_BYTES_MAX),
        };
        let beside = RESULT_BYTES_BESIDE.saturating_mul(self.items() as u64);
        of_answers.saturating_add(beside).saturating_add(self.call.input.len() as u64)
    }

    /// Removes its charge.
    pub(crate) fn uncharged(mut self) -> Self {
        self.charge = None;
        self
    }

    /// Sets its charge.
    pub(crate) fn charged(mut self, charge: Arc<Charge>) -> Self {
        self.charge = Some(charge);
        self
    }
}

/// Returns the most bytes of the frame of an answer.
fn answer_bytes_max(callee: &Callee, limits: &TaskLimits) -> u64 {
    payload_bytes_max(callee, limits) + FRAME_META_BYTES_MAX as u64
}

/// Returns the most bytes that a map over such tasks or commands may hold (`set`, if it is given), and what
/// [`Request::bytes_max`] returns for one of them with an empty input.
pub(crate) fn map_bytes_max(
    settings: &PoolSettings,
    workers_max: usize,
    is_command: bool,
    options: TaskOptions,
    set: Option<u64>,
) -> (u64, u64) {
    let limits = options.or(&settings.tasks.defaults).limits();
    let callee = match is_command {
        true => Callee::Command { args: Vec::new(), env: Vec::new(), stdin: CommandStdin::Sent },
        false => Callee::Task(TaskIndex(0)),
    };
    let one = answer_bytes_max(&callee, &limits).saturating_add(RESULT_BYTES_BESIDE);
    let usual = || MAP_BYTES_MAX.max(one.saturating_mul(2 * workers_max as u64));
    (set.or(settings.tasks.map_bytes_max).unwrap_or_else(usual), one)
}

/// Fills in the defaults, and rejects options that the task's module cannot keep.
fn admissible(
    (pool, settings): (u64, &PoolSettings),
    aim: &Aim,
    options: &mut TaskOptions,
) -> Result<(), SubmitError> {
    let task = || aim.name.to_string();
    let module = &aim.module;
    let about = &module.about;
    if module.pool != pool {
        return Err(SubmitError::ForeignModule { task: task() });
    }
    options.fill_in(&settings.tasks.defaults);
    let shared = options.shared.as_deref().unwrap_or_default();
    if shared.iter().any(|shared| shared.pool() != pool) {
        return Err(SubmitError::ForeignShared { task: task() });
    }
    let count = shared.len();
    let max = SHARES_PER_TASK_MAX;
    if count > max {
        return Err(SubmitError::TooManyShared { task: task(), count, max });
    }
    if options.fuel.is_some() && !about.description.metered {
        return Err(SubmitError::NotMetered { task: task(), module: about.shown.to_string() });
    }
    if options.seed.is_some() && !about.description.deterministic {
        return Err(SubmitError::NotDeterministic { task: task(), module: about.shown.to_string() });
    }
    if options.seed.is_some() && about.description.uses_wasi && !settings.sandbox.dirs.is_empty() {
        return Err(SubmitError::DirsNotDeterministic { task: task() });
    }
    Ok(())
}

/// Rejects texts that a program cannot be given: in its memory they end at a NUL.
pub(crate) fn check_texts(task: &str, args: &[String], env: &[(String, String)]) -> Result<(), SubmitError> {
    let args = args.iter().map(|arg| ("an argument", arg, &['\0'][..]));
    let env = env.iter().flat_map(|(name, value)| {
        [("a variable's name", name, &['\0', '='][..]), ("a variable's value", value, &['\0'])]
    });
    for (what, text, excluded) in args.chain(env) {
        if let Some(character) = text.chars().find(|character| excluded.contains(character)) {
            let task = task.to_string();
            let text = truncated(text, SHOWN_BYTES_MAX);
            return Err(SubmitError::Unrepresentable { task, what, character, text });
        }
    }
    Ok(())
}

/// An error shows this much of a rejected text.
const SHOWN_BYTES_MAX: usize = 60;
