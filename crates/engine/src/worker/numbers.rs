//! Calls of functions over numbers: the input's numbers are the parameters, and the results are the output's.

use wasmtime::{Func, FuncType, Store, Val, ValType};

use super::call::{CallPayload, CallResult};
use super::linker::TaskState;
use proto::inbox::Input;
use proto::message::RunEnd;

/// The longest encoding of a number: that of an `i64`.
const NUMBER_BYTES_MAX: usize = 10;

/// Calls the function; with `FIBER` the call may be suspended.
pub(super) async fn call<const FIBER: bool>(
    store: &mut Store<TaskState>,
    function: Func,
    input: &mut dyn Input,
    output_bytes_max: u64,
) -> wasmtime::Result<CallResult> {
    let ty = function.ty(&*store);
    let params = match read(&ty, input)? {
        Ok(params) => params,
        Err(message) => {
            let payload = CallPayload::Owned(message.into_bytes());
            return Ok(CallResult { payload, ..CallResult::of(RunEnd::InputDecode) });
        }
    };
    let mut results = vec![Val::I32(0); ty.results().len()];
    if FIBER {
        Box::pin(function.call_async(&mut *store, &params, &mut results)).await?;
    } else {
        function.call(&mut *store, &params, &mut results)?;
    }
    let output = encoded(&results)?;
    let bytes = output.len() as u64;
    if bytes > output_bytes_max {
        return Ok(CallResult::of(RunEnd::OutputTooLarge { bytes }));
    }
    Ok(CallResult { payload: CallPayload::Owned(output), ..CallResult::of(RunEnd::Ok) })
}

/// Reads a number for each parameter, or says what is wrong with the input.
///
/// # Errors
/// If the host is gone.
fn read(ty: &FuncType, input: &mut dyn Input) -> wasmtime::Result<Result<Vec<Val>, String>> {
    let wanted = ty.params().len();
    let wrong =
        |what: &str| Ok(Err(format!("the input is not the {wanted} numbers of the function: {what}")));
    // Only so many bytes can be meant, so no more are held.
    if input.left() > (wanted * NUMBER_BYTES_MAX) as u64 {
        return wrong("it is too long");
    }
    let mut bytes = vec![0; input.left() as usize];
    input.read(&mut bytes)?;
    let mut rest = &bytes[..];
    let mut params = Vec::with_capacity(wanted);
    for ty in ty.params() {
        match take(&ty, rest) {
            Ok((value, left)) => {
                params.push(value);
                rest = left;
            }
            Err(error) => return wrong(&format!("number {}: {error}", params.len() + 1)),
        }
    }
    if rest.is_empty() { Ok(Ok(params)) } else { wrong("bytes are left over") }
}

fn take<'a>(ty: &ValType, bytes: &'a [u8]) -> Result<(Val, &'a [u8]), String> {
    let taken = match ty {
        ValType::I32 => postcard::take_from_bytes(bytes).map(|(value, rest)| (Val::I32(value), rest)),
        ValType::I64 => postcard::take_from_bytes(bytes).map(|(value, rest)| (Val::I64(value), rest)),
        // The bits are taken as they are: a NaN stays the one that it is.
        ValType::F32 => fixed(bytes).map(|(bits, rest)| (Val::F32(u32::from_le_bytes(bits)), rest)),
        ValType::F64 => fixed(bytes).map(|(bits, rest)| (Val::F64(u64::from_le_bytes(bits)), rest)),
        other => return Err(format!("a {other} is no number")),
    };
    taken.map_err(|error| error.to_string())
}

fn fixed<const BYTES: usize>(bytes: &[u8]) -> postcard::Result<([u8; BYTES], &[u8])> {
    let (first, rest) = bytes.split_first_chunk().ok_or(postcard::Error::DeserializeUnexpectedEnd)?;
    Ok((*first, rest))
}

fn encoded(results: &[Val]) -> wasmtime::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for result in results {
        bytes = match result {
            Val::I32(value) => postcard::to_extend(value, bytes)?,
            Val::I64(value) => postcard::to_extend(value, bytes)?,
            Val::F32(bits) => [bytes, bits.to_le_bytes().to_vec()].concat(),
            Val::F64(bits) => [bytes, bits.to_le_bytes().to_vec()].concat(),
            _ => wasmtime::bail!("the function returned something that is no number"),
        };
    }
    Ok(bytes)
}
