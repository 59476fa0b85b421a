//! A component in a pool with real processes: JSON becomes a task's input, and its output JSON.

use wasmpool::{Bytes, Pool};

use super::json;
use super::text::PADS;
use super::types::Type;
use super::value::Value;
use crate::random::Random;

/// Bytes that a JSON text may have, beyond those that it has by what it says.
const JSON_BYTES_MAX: usize = 1 << 24;

/// What is wrong with one of the values, or with all of them.
pub(super) struct Wrong {
    pub(super) value: Option<usize>,
    pub(super) what: String,
}

impl Wrong {
    fn all(what: impl ToString) -> Wrong {
        Wrong { value: None, what: what.to_string() }
    }
}

/// Runs the task `same` of a component with each of the values.
///
/// # Errors
/// What differs, for a person.
pub(super) fn check(
    pool: &Pool,
    wasm: &[u8],
    values: &[Value],
    ty: &Type,
    random: &mut Random,
) -> Result<(), Wrong> {
    let module = pool.load(wasm).map_err(Wrong::all)?;
    let same = module.raw_task("same").map_err(Wrong::all)?;
    let task = module.description().tasks.iter().find(|task| task.name == "same");
    let task = task.ok_or_else(|| Wrong::all("`same` has no description"))?;
    let (mut inputs, mut printed) = (Vec::new(), Vec::new());
    for (index, value) in values.iter().enumerate() {
        let wrong = |what| Wrong { value: Some(index), what };
        // JSON has one NaN.
        let value = value.with_plain_nans();
        let mut bytes = Vec::new();
        value.push_postcard(ty, &mut bytes);
        bytes.extend(0..PADS);
        let pads: String = (0..PADS).map(|pad| format!(",{pad}")).collect();
        let text = format!("[{}{pads}]", json::printed(&value, ty));
        for text in [&text, &arguments(&json::typed(&value, ty, random), random)] {
            let encoded = ::json::encode_arguments(task, text.as_bytes());
            let encoded = encoded.map_err(|error| wrong(format!("{error:?}, of\n{text}")))?;
            if encoded != bytes {
                let what = format!("expected\n{bytes:02x?}, encoded\n{encoded:02x?}, from\n{text}");
                return Err(wrong(what));
            }
        }
        inputs.push(Bytes::from(bytes));
        printed.push(text);
    }
    for (index, output) in pool.map(&same, inputs.clone()).enumerate() {
        let wrong = |what| Wrong { value: Some(index), what };
        let output = output.map_err(|error| wrong(format!("the task: {error}")))?;
        if output != inputs[index] {
            let what = format!("expected\n{:02x?}, the task returned\n{output:02x?}", &inputs[index][..]);
            return Err(wrong(what));
        }
        let text = ::json::decode(&task.output, &output, JSON_BYTES_MAX);
        let text = text.map_err(|error| wrong(format!("the output: {error:?}")))?;
        if text != printed[index] {
            return Err(wrong(format!("expected\n{}, decoded\n{text}", printed[index])));
        }
    }
    Ok(())
}

/// All arguments around the text of the first one: in their order, or by their names.
fn arguments(value: &str, random: &mut Random) -> String {
    if random.percent(50) {
        let pads: String = (0..PADS).map(|pad| format!(", {pad}")).collect();
        return format!("[{value}{pads}]");
    }
    let begin = random.below(PADS.into()) as u8;
    let [before, after] = [0..begin, begin..PADS]
        .map(|pads| pads.map(|pad| format!("\"p{pad}\": {pad}, ")).collect::<String>());
    format!("{{{after}\"x\": {value}, {before}").trim_end_matches(", ").to_string() + "}"
}
