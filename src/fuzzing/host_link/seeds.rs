//! The inputs that the fuzzer begins with.

use proto::message::samples::run_ends;

/// A choice of a submission: a task of a chunk.
const TASK: u8 = 1;

/// A choice of a submission: a batch of eight.
const BATCH: u8 = 3 + 7 * 4;

const BEGUN: &[u8] = &[11];
const LOGGED: &[u8] = &[1, 1, 0, 3, 5, 0x1b, b'[', b'3', b'1', b'm'];

/// Returns lives of workers: honest ones, and one for each lie, about tasks and about batches; some of them read by a
/// caller that waits.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = honest();
    seeds.extend(lying());
    seeds.extend(batches());
    seeds
}

/// Returns a seed. It has settings (the policy, workers, recycling, prefetching), tasks, the worker's first word, and its
/// lies.
fn life(policy: u8, prefetched: u8, what: u8, attended: bool, lies: &[&[u8]]) -> Vec<u8> {
    let mut seed = vec![policy, 0, 0, prefetched];
    for choice in [what, TASK, what] {
        seed.extend([0, choice, 255, 255, 40, 0, choice % 4]);
    }
    seed.extend([5, 0]);
    for lie in lies {
        seed.extend([10, 0]);
        seed.extend(*lie);
        if attended {
            // The caller reads for no time or a few microseconds; the worker logs, and goes on while it is read.
            seed.extend([8, 0, 3, 4, 0, 14, 2, 1, 0, 4, 200]);
        }
    }
    // It dies, and says a little more while it is read.
    seed.extend([7, 0, 40, 0]);
    seed.extend([1, 1, 0, 0, 2, b'h', b'i', 3, 2, 0, 0]);
    seed.extend([0; 40]);
    seed
}

fn ended(message: u8, task: u8, end: u8, frames: u8, payload_bytes: u8) -> Vec<u8> {
    let mut lie = vec![message, task, end, frames];
    lie.extend([9; 16]);
    lie.extend([payload_bytes, 0, 1]);
    lie
}

fn done(task: u8, end: u8, frames: u8) -> Vec<u8> {
    ended(3, task, end, frames, 10)
}

/// Returns a life for each end of a run, of a task and of one in a batch.
fn honest() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for end in 0..run_ends().len() as u8 {
        let lies = [BEGUN, LOGGED, &done(1, end, 20), &done(2, 0, 0)];
        seeds.push(life(end % 3, end, TASK, end % 2 == 1, &lies));
        let item = |task, end| ended(12, task, end, 20, 10);
        let lies = [BEGUN, &item(1, end), LOGGED, &item(2, 0), &[14, 3, 6, 2, 2]];
        seeds.push(life(end % 3, 7, BATCH, end % 2 == 0, &lies));
    }
    seeds
}

/// Returns lives with each lie, before and after an answer.
fn lying() -> Vec<Vec<u8>> {
    let lies: [&[u8]; 9] = [
        &[0, 6, b'W', b'P', b'1', 0, 255, 255],
        &[5, 255, 255, 255, 255, 255, 255, 255, 255],
        &[6, 200],
        &[7, 1, 0, 0, 0, 0, 0, 0, 0],
        &[7, 0, 0, 4, 0, 0, 0, 0, 0],
        &[8],
        &[9, 1, 2],
        &[10, 16, 0, 255, 255, 255, 255, 255, 255, 255, 255],
        &[10, 48, 0, 0, 0, 0, 0, 0, 0, 0, 128],
    ];
    let mut seeds = Vec::new();
    for (number, lie) in lies.into_iter().enumerate() {
        let attended = number % 2 == 0;
        seeds.push(life(1, 7, TASK, attended, &[BEGUN, lie, &done(1, 0, 0), lie, &done(2, 0, 0)]));
        seeds.push(life(0, 0, TASK, false, &[lie, LOGGED, lie]));
        seeds.push(life(1, 3, BATCH, attended, &[BEGUN, &[14, 1, 3, 0], lie, &[14, 4, 5, 2, 3], lie]));
    }
    seeds
}

/// Returns lives that answer the batch 1 to 8: whole, in two parts, with logs of the task at hand and of the one before,
/// a part and an interrupt, one too many, nothing, the wrong ones, more after the end, and its end with a payload.
fn batches() -> Vec<Vec<u8>> {
    let whole: &[u8] = &[14, 1, 8, 2, 0];
    let batches: [&[&[u8]]; 10] = [
        &[whole],
        &[&[14, 1, 3, 2, 0], BEGUN, &[14, 4, 5, 2, 3]],
        &[&[14, 1, 8, 3, 0]],
        &[&[14, 1, 8, 7, 0]],
        &[&[14, 1, 3, 1, 0], BEGUN, &[14, 4, 5, 2, 3]],
        &[&[14, 1, 9, 2, 0]],
        &[&[14, 1, 0, 2, 0]],
        &[&[14, 5, 3, 2, 0]],
        &[whole, &[14, 1, 1, 0]],
        &[&[14, 1, 8, 0], &done(1, 0, 0)],
    ];
    let mut seeds = Vec::new();
    for (number, batch) in batches.into_iter().enumerate() {
        for attended in [false, true] {
            let next = done(9, 0, 0);
            let lies = [&[BEGUN], batch, &[BEGUN, &next, BEGUN, &[14, 10, 8, 2, 0]]].concat();
            seeds.push(life(number as u8 % 3, 7, BATCH, attended, &lies));
        }
    }
    seeds
}
