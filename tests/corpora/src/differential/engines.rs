//! Engines that differ in one thing: the code of one counts fuel, that of another has safepoints.

use std::sync::Arc;

use engine::config::{EngineKind, Reserve, Running, engine_config};
use engine::memories::Memories;
use proto::description::{CodeKind, MemoryKind};
use wasmtime::{Config, Engine, OptLevel, RegallocAlgorithm};

/// Says how exactly two runs are comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// The engines are those of workers.
    First,
    /// Each NaN has the same bits, which depend on how instructions were selected otherwise; and stacks are so large
    /// that what ends at all does not run out of them. Another look at what differed.
    Second,
}

/// The stack of wasm at the second look. The thread has twice as much.
const LARGE_STACK_BYTES: usize = 32 << 20;
pub(super) const LARGE_THREAD_BYTES: usize = 2 * LARGE_STACK_BYTES;

/// The engines of plain code, and that of code with safepoints.
#[derive(Debug)]
pub(super) struct Engines {
    pub(super) metered: Engine,
    /// Of plain code that counts no fuel and is optimized. Cranelift tells of some traps at another place that traps for
    /// the same reason, as it has arranged the code: what differs is compared with this.
    pub(super) plain: Engine,
    pub(super) instrumented: Engine,
}

impl Engines {
    /// # Errors
    /// What wasmtime says.
    pub(super) fn new(memories: MemoryKind, look: Look) -> wasmtime::Result<Engines> {
        let mut plain = config(CodeKind::Unchecked, memories, look)?;
        let mut metered = plain.clone();
        metered.consume_fuel(true);
        // It is compiled in half the time.
        metered.cranelift_opt_level(OptLevel::None);
        metered.cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
        let mut instrumented = config(CodeKind::Plain, memories, look)?;
        if memories == MemoryKind::Own {
            // Only one instance stands at a time, so both have the same slots.
            let own = Arc::new(Memories::new(Reserve::Full));
            metered.with_host_memory(own.clone());
            plain.with_host_memory(own.clone());
            instrumented.with_host_memory(own);
        }
        let (metered, plain) = (Engine::new(&metered)?, Engine::new(&plain)?);
        Ok(Engines { metered, plain, instrumented: Engine::new(&instrumented)? })
    }
}

fn config(code: CodeKind, memories: MemoryKind, look: Look) -> wasmtime::Result<Config> {
    let mut running = Running::default();
    if look == Look::Second {
        running.wasm_stack_bytes = LARGE_STACK_BYTES;
    }
    let mut config = engine_config(EngineKind::Modules(code, memories), running)?;
    // Modules are small, and there may be several campaigns at once.
    config.parallel_compilation(false);
    if look == Look::Second {
        config.cranelift_nan_canonicalization(true);
    }
    Ok(config)
}
