//! The thread that reads the inputs and submits them.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Plan;
use super::budget::Budget;
use super::joblog::Digest;
use super::source::{Item, Label, Reading, Source};
use crate::call::{CallFuture, Prepared};
use crate::exit::Failure;
use crate::input::InputArg;
use wasmpool::internal::Charge;
use wasmpool::task::TaskReport;

/// The result of reading an input.
pub(super) enum Fed {
    Started(Box<Started>),
    /// The job log says that it is done.
    Skipped,
    /// The map cannot go on.
    Unusable(Failure),
}

/// A call that was made, or why it could not be.
pub(super) struct Started {
    pub(super) job: Job,
    pub(super) future: Result<CallFuture, Failure>,
}

/// One input on its way.
pub(super) struct Job {
    /// The number counts all inputs, from 1.
    pub(super) seq: u64,
    /// The number counts the inputs that are run, from 0.
    pub(super) number: u64,
    pub(super) label: Label,
    pub(super) digest: Digest,
    pub(super) bytes: usize,
    /// The charge covers the input and its largest result, until the result is there. A retry keeps it.
    pub(super) charge: Arc<Charge>,
    /// The input, where it may have to be run again. It is held once, however often it runs.
    again: Option<Prepared>,
    pub(super) attempts: u32,
    /// The number of earlier attempts that a worker began.
    pub(super) begun: u32,
}

impl Job {
    /// Submits it once more, if there is something to submit.
    /// `before` is the report of the attempt that failed.
    pub(super) fn retry(
        &mut self,
        plan: &Plan,
        before: Option<&TaskReport>,
    ) -> Option<Result<CallFuture, Failure>> {
        let prepared = self.again.as_ref()?;
        self.attempts += 1;
        self.begun += before.map_or(0, |report| report.attempts);
        Some(plan.call.submit_prepared(prepared, Some(&self.label.short())))
    }
}

/// Submits until the source is at its end, the pool is lost, or nothing more is wanted.
pub(super) fn feed(
    plan: &Plan,
    (source, reading): (Source, &Reading),
    budget: &Budget,
    sender: &Sender<Fed>,
) {
    let mut number = 0;
    for (seq, Item { label, content }) in (1..).zip(source.items(reading)) {
        let digest = match &content {
            Ok(content) => content.digest(),
            Err(_) => Digest::of(label.short().as_bytes()),
        };
        if let Some(before) = plan.done.get(seq) {
            let fed = if before == digest { Fed::Skipped } else { Fed::Unusable(other_inputs(seq, &label)) };
            let is_last = matches!(fed, Fed::Unusable(_));
            if sender.send(fed).is_err() || is_last {
                return;
            }
            continue;
        }
        let content = content.and_then(|content| content.read(reading.bytes_max));
        let bytes = content.as_ref().map_or(0, Vec::len);
        let prepared = content.and_then(|content| prepare(plan, &label, content)).and_then(|prepared| {
            match budget.excess(prepared.bytes()) {
                None => Ok(prepared),
                Some(failure) => Err(failure),
            }
        });
        let Some(charge) = budget.take(prepared.as_ref().ok().map(Prepared::bytes)) else { return };
        let again = prepared.as_ref().ok().filter(|_| plan.retries > 0).cloned();
        let short = label.short();
        let future = prepared.and_then(|prepared| plan.call.submit_prepared(&prepared, Some(&short)));
        let is_last = future.as_ref().is_err_and(Failure::is_end_of_pool);
        let job = Job { seq, number, label, digest, bytes, charge, again, attempts: 1, begun: 0 };
        if sender.send(Fed::Started(Box::new(Started { job, future }))).is_err() || is_last {
            return;
        }
        number += 1;
    }
}

fn other_inputs(seq: u64, label: &Label) -> Failure {
    Failure::Usage(format!(
        "input {seq}, {label}, is not the one that the job log has: give the same inputs in the same order, or name \
         another log"
    ))
}

fn prepare(plan: &Plan, label: &Label, content: Vec<u8>) -> Result<Prepared, Failure> {
    let (given, placeholder) = given(plan, label, content)?;
    plan.call.prepare(given, placeholder.as_deref())
}

/// Returns what a call is given of an input: its content, and what stands for it in the arguments.
pub(super) fn given(
    plan: &Plan,
    label: &Label,
    mut content: Vec<u8>,
) -> Result<(InputArg, Option<String>), Failure> {
    if plan.call.description().is_some() {
        let given = if plan.json { InputArg::Json(content) } else { InputArg::Content(content) };
        return Ok((given, None));
    }
    if let Label::File(path) = label {
        // Bytes that are no text are shown as this character, too.
        if plan.call.has_placeholder() && path.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Failure::Input("the file's name is not UTF-8, so it cannot be an argument".into()));
        }
        return Ok((InputArg::Content(content), Some(path.clone())));
    }
    if plan.call.has_placeholder() {
        let line = String::from_utf8(content)
            .map_err(|_| Failure::Input("the line is not UTF-8, so it cannot be an argument".into()))?;
        return Ok((InputArg::Nothing, Some(line)));
    }
    // Programs that read lines expect them to end.
    content.push(b'\n');
    Ok((InputArg::Content(content), None))
}

/// Says of each input what would be run; calls `show` with that, or with what is wrong.
pub(super) fn dry_run(
    plan: &Plan,
    module: &str,
    (source, reading): (Source, &Reading),
    mut show: impl FnMut(&Label, Result<String, Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (seq, Item { label, content }) in (1..).zip(source.items(reading)) {
        if let (Ok(content), Some(before)) = (&content, plan.done.get(seq)) {
            if before != content.digest() {
                return Err(other_inputs(seq, &label));
            }
            continue;
        }
        let rehearsed = content.and_then(|content| content.read(reading.bytes_max)).and_then(|content| {
            let (given, placeholder) = given(plan, &label, content)?;
            let stdin =
                if matches!(given, InputArg::Nothing) { "/dev/null".into() } else { label.to_string() };
            plan.call.check(given, placeholder.as_deref())?;
            Ok(plan.call.show(module, &stdin, placeholder.as_deref()))
        });
        show(&label, rehearsed)?;
    }
    Ok(())
}
