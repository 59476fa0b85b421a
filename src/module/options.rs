//! The choices that there are when a module is loaded.

use proto::description::{CodeKind, Interrupt};
use proto::limits::compile::CompileLimits;

/// The way in which a module is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct ModuleOptions {
    metered: bool,
    deterministic: bool,
    interrupt: Interrupt,
    pub(crate) name: Option<String>,
    pub(crate) compile_limits: Option<CompileLimits>,
    /// The module is loaded to run this task, or (`Some(None)`) whatever it has to run; `None` means that
    /// nothing is known.
    pub(crate) entry: Option<Option<String>>,
}

impl ModuleOptions {
    /// The module is not metered, and is named after its file or its digest.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compiles in the counting of fuel, so that [`TaskOptions::fuel`](crate::TaskOptions::fuel)
    /// works. Metered code runs slower.
    pub fn metered(mut self, metered: bool) -> Self {
        self.metered = metered;
        self
    }

    /// Sets what compiling it may cost, in place of the pool's
    /// [`compile_limits`](crate::PoolBuilder::compile_limits): [`CompileLimits::trusted`] for a module of
    /// one's own.
    pub fn compile_limits(mut self, limits: CompileLimits) -> Self {
        self.compile_limits = Some(limits);
        self
    }

    /// Compiles it for [`TaskOptions::deterministic`](crate::TaskOptions::deterministic): metered, and
    /// with one bit pattern for every NaN that an operation makes. Code that computes with floats
    /// runs slower.
    pub fn deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }

    /// Sets how its tasks are stopped. Default: [`Interrupt::Check`].
    pub fn interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// Says that the module is loaded to run this task, or whatever it has to run. A module without it is
    /// then refused before it is compiled, which may take minutes, and not after.
    pub fn to_run(mut self, task: Option<impl Into<String>>) -> Self {
        self.entry = Some(task.map(Into::into));
        self
    }

    pub(crate) fn code(&self) -> CodeKind {
        CodeKind::of(self.metered, self.deterministic, self.interrupt)
    }

    /// The name in errors and logs.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}
