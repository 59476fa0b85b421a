//! Optimising modules whose first code was made quickly, while that code already runs.
//!
//! To compile a large module with optimisation takes seconds, for which whoever loads it would wait. So its first code is
//! of the quick tier, and a thread here has the optimised code made meanwhile, by a compiler process as any other, under
//! the same limits. That compiler takes a compile slot only while another one stays free for those who are waited for, and
//! steps back behind this process's tasks from its first moment. The code is swapped between tasks
//! (`module/code.rs`).

use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::load::Key;
use super::quarantine::Quarantine;
use crate::error::ModuleError;
use crate::held::{Permit, Permits};
use crate::host::cache::{Cache, CacheKey, Compiled};
use crate::host::compile::{self, CompileSlots, Source, Wasm};
use crate::host::core::Core;
use crate::module::{Code, Loaded, Tiering};
use proto::description::Tier;
use proto::limits;
use proto::limits::compile::CompileLimits;
use proto::sync::Lock;

/// Has modules optimised in the background.
pub(super) struct Optimizer {
    core: Arc<Core>,
    cache: Option<Arc<Cache>>,
    slots: Arc<CompileSlots>,
    /// Numbers machine code, as it numbers modules.
    numbers: Permits,
    /// Each module whose optimised code is still to come holds one.
    turns: Permits,
    /// These modules are not optimised: it went over a limit.
    refused: Mutex<Quarantine>,
}

/// Allows a module to be compiled quickly at first, since it will be optimised later.
pub(super) struct Turn {
    /// Code of at least so many bytes is compiled quickly.
    pub(super) quick_from: u64,
    _permit: Permit,
}

/// The module whose optimised code is to be made.
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) wasm: Wasm<'static>,
    pub(super) limits: CompileLimits,
    pub(super) _turn: Turn,
}

impl Optimizer {
    pub(super) fn new(
        core: Arc<Core>,
        cache: Option<Arc<Cache>>,
        slots: Arc<CompileSlots>,
        numbers: Permits,
    ) -> Optimizer {
        let refused = Mutex::new(Quarantine::new(limits::QUARANTINE_MODULES_MAX));
        Optimizer { core, cache, slots, numbers, turns: Permits::default(), refused }
    }

    /// Returns a turn, if a module of so many bytes may be compiled quickly. Code that counts fuel is not: where a stack overflows depends
    /// on the tier, and such code is to do the same each time.
    pub(super) fn turn(
        &self,
        key: &Key,
        wasm_bytes: usize,
        tiering: Tiering,
        limits: &CompileLimits,
    ) -> Option<Turn> {
        let quick_from = match tiering {
            Tiering::Never => return None,
            Tiering::Auto => limits::QUICK_CODE_BYTES_MIN,
            Tiering::Always => 0,
        };
        // The compiler knows how much of it is code.
        if (wasm_bytes as u64) < quick_from {
            return None;
        }
        let is_refused = || self.refused.hold().find(key, limits).is_some();
        if key.1.is_metered() || self.core.settings.compiler.processes_max < 2 || is_refused() {
            return None;
        }
        let (_, permit) = self.turns.take(limits::QUICK_MODULES_MAX)?;
        Some(Turn { quick_from, _permit: permit })
    }

    /// Begins to make the optimised code, on a thread of its own. Whoever drops the module lets it go on only where a cache
    /// keeps what comes of it.
    pub(super) fn begin(self: &Arc<Self>, module: &Arc<Loaded>, wanted: Wanted) {
        let name = module.shown.clone();
        let weak = Arc::downgrade(module);
        let optimizer = self.clone();
        let work = move || optimizer.optimize(&name, &weak, &wanted);
        if let Err(error) = std::thread::Builder::new().name("wasmpool-optimize".into()).spawn(work) {
            let message = format!("no thread could be started to wait for it: {error}");
            module.codes.fail(ModuleError::Compiler { message });
        }
    }

    fn optimize(&self, name: &Arc<str>, module: &Weak<Loaded>, wanted: &Wanted) {
        let result = self.compiled(module, wanted).and_then(|(compiled, began)| {
            let Some(module) = module.upgrade() else { return Ok(()) };
            // Only the size of the code may differ.
            let mut described = compiled.description.clone();
            described.machine_code_bytes = module.description.machine_code_bytes;
            if described != module.description {
                let message = "it described the module in two ways".into();
                return Err(ModuleError::Compiler { message });
            }
            module.codes.replace(self.code(&module, compiled));
            self.core.optimized(name.clone(), began.elapsed());
            Ok(())
        });
        let Err(error) = result else { return };
        if !matches!(error, ModuleError::Closed { .. }) {
            tracing::warn!(module = %name, %error, "a module is not optimised, and goes on as it was first compiled");
        }
        self.refused.hold().add(wanted.key, &wanted.limits, &error);
        if let Some(module) = module.upgrade() {
            module.codes.fail(error);
        }
    }

    /// Compiles the module, and stores it in the cache in place of the quick code.
    fn compiled(&self, module: &Weak<Loaded>, wanted: &Wanted) -> Result<(Compiled, Instant), ModuleError> {
        let closed =
            || ModuleError::Closed { message: "it was shut down before the module was optimised".into() };
        let slot = self.slots.take_spare(|| self.core.is_stopped()).ok_or_else(closed)?;
        if module.strong_count() == 0 && self.cache.is_none() {
            return Err(closed());
        }
        let began = Instant::now();
        let &Wanted { key: (digest, code), ref wasm, ref limits, .. } = wanted;
        let source = Source { wasm, code, limits, entry: None, quick_from: None, is_waited_for: false };
        let compiled = compile::compile(&self.core, &source)?;
        drop(slot);
        if let Some(cache) = &self.cache {
            let key = |tier| CacheKey::new(digest, code, tier, self.core.settings.workers.machine_code);
            cache.keep(&key(Tier::Optimized), &compiled);
            cache.remove(&key(Tier::Quick));
        }
        Ok((compiled, began))
    }

    fn code(&self, module: &Loaded, compiled: Compiled) -> Code {
        let permit = module.codes.current().life.permit();
        Code::new(self.numbers.number(), module.description.code(), compiled, permit)
    }
}
