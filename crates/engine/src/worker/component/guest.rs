//! What a pool gives to a component: the interfaces of `wasmpool:guest` (`guest-tasks/wit`), as the byte ABI's imports are
//! given to a module.

use wasmtime::component::{ComponentType, Lift, Linker};
use wasmtime::{Result, StoreContextMut};

use super::super::linker::TaskState;
use proto::imports::component::{GUEST_PACKAGE, GUEST_VERSION};
use proto::limits::SHARED_READ_BYTES_MAX;
use proto::message::LogSource;

/// How important a record is.
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[expect(dead_code, reason = "its values come from components")]
#[repr(u8)]
enum Level {
    #[component(name = "error")]
    Error,
    #[component(name = "warn")]
    Warn,
    #[component(name = "info")]
    Info,
    #[component(name = "debug")]
    Debug,
    #[component(name = "trace")]
    Trace,
}

impl Level {
    fn number(self) -> u8 {
        match self {
            Level::Error => 1,
            Level::Warn => 2,
            Level::Info => 3,
            Level::Debug => 4,
            Level::Trace => 5,
        }
    }
}

/// Defines both interfaces.
///
/// # Errors
/// Wasmtime's; none is expected.
pub(super) fn define(linker: &mut Linker<TaskState>) -> Result<()> {
    let name = |interface| format!("{GUEST_PACKAGE}/{interface}@{GUEST_VERSION}");
    linker.instance(&name("log"))?.func_wrap("record", record)?;
    let mut shared = linker.instance(&name("shared"))?;
    shared.func_wrap("length", length)?;
    shared.func_wrap("read", read)
}

type Fields = Vec<(String, String)>;

fn record(
    store: StoreContextMut<'_, TaskState>,
    (level, target, message, fields): (Level, String, String, Fields),
) -> Result<()> {
    let fields = match fields.is_empty() {
        true => String::new(),
        false => {
            let object: serde_json::Map<_, _> =
                fields.into_iter().map(|(name, value)| (name, value.into())).collect();
            serde_json::Value::Object(object).to_string()
        }
    };
    Ok(store.data().task_log.record(LogSource::Guest, level.number(), &target, &message, &fields)?)
}

/// The length of a shared input, if there is one of that number.
fn length(store: StoreContextMut<'_, TaskState>, (index,): (u32,)) -> Result<(Option<u64>,)> {
    let mapping = store.data().shares.get(index as usize);
    Ok((mapping.map(|mapping| mapping.bytes().len() as u64),))
}

/// A part of a shared input, as much of it as there is; `none` if there is no such input.
fn read(
    store: StoreContextMut<'_, TaskState>,
    (index, offset, len): (u32, u64, u32),
) -> Result<(Option<Vec<u8>>,)> {
    let Some(mapping) = store.data().shares.get(index as usize) else { return Ok((None,)) };
    let rest =
        usize::try_from(offset).ok().and_then(|offset| mapping.bytes().get(offset..)).unwrap_or_default();
    let len = u64::from(len).min(SHARED_READ_BYTES_MAX).min(rest.len() as u64) as usize;
    Ok((Some(rest[..len].to_vec()),))
}
