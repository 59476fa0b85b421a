//! Bringing a module in: known already, refused already, being brought in by another thread, in the
//! cache, or compiled; in this order.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};

use super::quarantine::{Quarantine, would_meet};
use super::{Handle, Pool};
use crate::error::ModuleError;
use crate::held::{Held, Life, Permit, Permits};
use crate::host::cache::{Cache, CacheKey, Compiled};
use crate::host::compile::{self, WasmFile};
use crate::host::memory;
use crate::module::{About, Digest, Loaded, Module, ModuleOptions};
use proto::description::{CodeKind, ModuleOutline, WantedEntry};
use proto::limits;
use proto::limits::compile::{CompileLimit, CompileLimits};
use proto::message::ModuleId;
use proto::refused::calling;
use proto::sync::{Lock, Sleep};

/// Two modules are the same to a pool if their bytes are, and they are compiled in the same way.
pub(super) type Key = (Digest, CodeKind);

/// The modules of a pool, those that it will not have, and those on their way.
pub(super) struct Loads {
    state: Mutex<State>,
    permits: Permits,
}

struct State {
    modules: Known<Loaded>,
    quarantine: Quarantine,
    flights: HashMap<Key, Arc<Flight>>,
}

/// One module on its way, and those who wait for it.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<Landing>>,
    changed: Condvar,
}

/// An error comes with the limits under which it was met. `None`: whoever had begun panicked.
type Landing = Option<Result<Arc<Loaded>, (ModuleError, CompileLimits)>>;

impl Pool {
    /// Loads a wasm file: compiled in a process of its own, or taken from the cache. The module is named
    /// after the file. With a cache, an unchanged file that was loaded before (judged by its size and the
    /// times of its last changes) is not read again. On file systems that do not notice every change (tmpfs,
    /// overlays, networks) it is always read.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_file(&self, path: impl AsRef<Path>) -> Result<Module, ModuleError> {
        self.load_file_with(path, ModuleOptions::new())
    }

    /// Does the same as [`load_file`](Self::load_file), with options.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_file_with(
        &self,
        path: impl AsRef<Path>,
        options: ModuleOptions,
    ) -> Result<Module, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        let options = named_after(path.as_ref(), options);
        Ok(Module::new(handle.load_path(path.as_ref(), options.clone())?, options))
    }

    /// Reads what a wasm file imports and exports without compiling it, even if the module cannot be loaded
    /// for its imports or its shape. This happens in a process of its own, as does everything that reads a
    /// module.
    ///
    /// # Errors
    /// [`ModuleError`] if the file is no valid module up to its code.
    pub fn outline_file(&self, path: impl AsRef<Path>) -> Result<ModuleOutline, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        let limits = CompileLimits::trusted().or_memory(memory::for_a_compiler());
        let max = limits.get(CompileLimit::WasmBytes);
        let wasm = WasmFile::open(path.as_ref(), &handle.core.settings.sandbox.files, max)?.read(max)?;
        self.outline(&wasm)
    }

    /// Does the same as [`outline_file`](Self::outline_file) with the bytes of a module.
    ///
    /// # Errors
    /// [`ModuleError`] if they are no valid module up to its code.
    pub fn outline(&self, wasm: &[u8]) -> Result<ModuleOutline, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        let limits = CompileLimits::trusted().or_memory(memory::for_a_compiler());
        let _turn = handle.compile_slots.take();
        compile::outline(&handle.core, wasm, &limits)
    }

    /// Reads a module's file, of at most so many bytes, whatever is in it.
    pub(crate) fn read_wasm(&self, path: &Path, bytes_max: u64) -> Result<Vec<u8>, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        WasmFile::open(path, &handle.core.settings.sandbox.files, bytes_max)?.read(bytes_max)
    }

    /// Loads a module from its bytes.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load(&self, wasm: &[u8]) -> Result<Module, ModuleError> {
        self.load_with(wasm, ModuleOptions::new())
    }

    /// Does the same as [`load`](Self::load), with options. A module that this pool has loaded already and
    /// somebody still holds is returned as it is, under its first name. A module that nobody holds any longer
    /// is released ([`Module`]), and loading it again takes it from the cache or compiles it once more. At
    /// most [`PoolBuilder::modules_max`](crate::PoolBuilder::modules_max) are held at a time. The call waits
    /// for the compiler, and for its compile slot
    /// ([`PoolBuilder::compilers_max`](crate::PoolBuilder::compilers_max)); loads of the same module from
    /// several threads share one compilation.
    ///
    /// A module that went over one of its [`CompileLimits`], or whose compiler died, is in quarantine for the
    /// pool's life: it is refused at once with the same error, until it comes with a larger limit of that
    /// kind. A module that met its [`timeout`](CompileLimits::timeout) on a machine so busy that its compiler
    /// got less than a tenth of that time on a CPU is not.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn load_with(&self, wasm: &[u8], options: ModuleOptions) -> Result<Module, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        Ok(Module::new(handle.load_slice(wasm, options.clone())?, options))
    }

    /// Puts another version in the place of a loaded module, and returns its handle. Tasks that were submitted before go on
    /// with the version that they began with, and so do all tasks of a map that was called before, and later attempts
    /// of a [`Retry`](crate::task::Retry). What is submitted after this call has returned, by `module`, by its clones or by
    /// handles that were made of any of them, runs the new one; during the call it is one of the two. Nobody waits for anybody.
    /// The old machine code is released, here and in the workers, when its last task has ended.
    ///
    /// It is loaded with the [`ModuleOptions`] that `module` was loaded with, as [`load_with`](Self::load_with) does; so the
    /// cache is used, and equal bytes are compiled once. Meanwhile both versions are held, and count in
    /// [`PoolBuilder::modules_max`](crate::PoolBuilder::modules_max). A module that was loaded again from the same bytes is
    /// another one to this call, which does not change it.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// # let pool = wasmpool::Pool::new()?;
    /// let module = pool.load_file("primes.wasm")?;
    /// let count = module.task::<u64, u64>("count")?;
    /// println!("{}", pool.submit(&count, &1_000_000)?.result()?);
    /// // Somebody has built a faster one.
    /// pool.replace_module(&module, &std::fs::read("primes.wasm")?)?;
    /// println!("{}", pool.submit(&count, &1_000_000)?.result()?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ModuleError::Replacement`] if a handle that somebody holds does not fit the new version: its task is not there, or
    /// takes or returns another type. The other errors of [`load_with`](Self::load_with), and [`ModuleError::ForeignModule`].
    /// After any of them the old version goes on.
    pub fn replace_module(&self, module: &Module, wasm: &[u8]) -> Result<Module, ModuleError> {
        self.replace_by(module, |handle, options| handle.load_slice(wasm, options))
    }

    /// Does the same as [`replace_module`](Self::replace_module) with a file, as [`load_file`](Self::load_file) loads it. The
    /// module keeps its name.
    ///
    /// # Errors
    /// As [`replace_module`](Self::replace_module).
    pub fn replace_module_file(
        &self,
        module: &Module,
        path: impl AsRef<Path>,
    ) -> Result<Module, ModuleError> {
        self.replace_by(module, |handle, options| handle.load_path(path.as_ref(), options))
    }

    fn replace_by(
        &self,
        module: &Module,
        load: impl FnOnce(&Handle, ModuleOptions) -> Result<Arc<Loaded>, ModuleError>,
    ) -> Result<Module, ModuleError> {
        let handle = self.here().ok_or(ModuleError::OtherProcess)?;
        let versions = module.versions();
        if versions.current().pool != handle.core.id {
            return Err(ModuleError::ForeignModule { module: module.name().to_string() });
        }
        let next = load(handle, versions.options.clone())?;
        versions.replace(&next)?;
        Ok(module.of(&next))
    }
}

/// A module without a name is named after its file.
fn named_after(path: &Path, mut options: ModuleOptions) -> ModuleOptions {
    if options.name.is_none() {
        options.name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    }
    options
}

impl Handle {
    /// Loads a file, which is not read if the cache knows it.
    fn load_path(&self, path: &Path, options: ModuleOptions) -> Result<Arc<Loaded>, ModuleError> {
        let max = self.limits_of(&options).get(CompileLimit::WasmBytes);
        let mut file = WasmFile::open(path, &self.core.settings.sandbox.files, max)?;
        let Some((cache, stamp)) = self.cache.as_ref().zip(file.stamp()) else {
            return self.load_slice(&file.read(max)?, options);
        };
        let known = cache.digest_of(stamp);
        if let Some(digest) = known
            && let Some(module) = self.load_known(digest, cache, &options)
        {
            return module;
        }
        let before = file.rested_stamp();
        let wasm = file.read(max)?;
        let digest = Digest::of(&wasm);
        if let Some((before, after)) = before.zip(file.stamp()) {
            cache.remember(before, after, digest);
        }
        self.load_bytes(&wasm, digest, options, known)
    }

    fn load_slice(&self, wasm: &[u8], options: ModuleOptions) -> Result<Arc<Loaded>, ModuleError> {
        let max = self.limits_of(&options).get(CompileLimit::WasmBytes);
        compile::check_wasm_bytes(wasm.len() as u64, max)?;
        self.load_bytes(wasm, Digest::of(wasm), options, None)
    }

    /// The cache has no entry of `missed`: it was looked for a moment ago, and whoever is told why an entry is not used is
    /// told once.
    fn load_bytes(
        &self,
        wasm: &[u8],
        digest: Digest,
        options: ModuleOptions,
        missed: Option<Digest>,
    ) -> Result<Arc<Loaded>, ModuleError> {
        let code = options.code();
        let limits = self.limits_of(&options);
        let entry = options.entry.clone().map(|task| {
            let module = options.name.clone().unwrap_or_else(|| digest.short());
            WantedEntry { module, task }
        });
        let cached = || self.cache.as_ref()?.find(&self.cache_key(digest, code));
        self.enter(digest, options, || match missed == Some(digest) {
            false if let Some(compiled) = cached() => Ok((compiled, true)),
            _ => self.compiled(wasm, digest, code, &limits, entry),
        })
    }

    /// A module whose bytes need not be read: it is loaded already, or in the cache.
    fn load_known(
        &self,
        digest: Digest,
        cache: &Cache,
        options: &ModuleOptions,
    ) -> Option<Result<Arc<Loaded>, ModuleError>> {
        let code = options.code();
        if let Some(module) = self.loads.get(&(digest, code)) {
            return Some(Ok(module));
        }
        let compiled = cache.find(&self.cache_key(digest, code))?;
        Some(self.enter(digest, options.clone(), || Ok((compiled, true))))
    }

    /// The pool's module of that digest: the one that it has, or what `compiled` makes.
    fn enter(
        &self,
        digest: Digest,
        options: ModuleOptions,
        compiled: impl FnOnce() -> Result<(Compiled, bool), ModuleError>,
    ) -> Result<Arc<Loaded>, ModuleError> {
        let code = options.code();
        let limits = self.limits_of(&options);
        let name = options.name.unwrap_or_else(|| digest.short());
        let max = self.core.settings.held.modules_max;
        self.loads.load((digest, code), &limits, max, || {
            let (compiled, from_cache) = compiled()?;
            let shown: Arc<str> = format!("{name} (sha256 {}…)", digest.short()).into();
            self.core.loaded(shown.clone(), from_cache);
            Ok(move |number, permit| {
                let id = ModuleId(number);
                let description = compiled.description;
                Arc::new(Loaded {
                    pool: self.core.id,
                    id,
                    about: Arc::new(About { shown, name, digest, description, from_cache }),
                    artifact: compiled.artifact,
                    description_file: compiled.description_file,
                    life: Life::new(Held::Module(id), permit),
                })
            })
        })
    }

    fn cache_key(&self, digest: Digest, code: CodeKind) -> CacheKey {
        CacheKey::new(digest, code, self.core.settings.workers.machine_code)
    }

    /// Returns the limits that hold here: the machine decides about memory that is not set.
    fn limits_of(&self, options: &ModuleOptions) -> CompileLimits {
        let limits = options.compile_limits.as_ref().unwrap_or(&self.core.settings.compiler.limits);
        limits.clone().or_memory(memory::for_a_compiler())
    }

    fn compiled(
        &self,
        wasm: &[u8],
        digest: Digest,
        code: CodeKind,
        limits: &CompileLimits,
        entry: Option<WantedEntry>,
    ) -> Result<(Compiled, bool), ModuleError> {
        let Handle { core, cache, compile_slots, .. } = self;
        let key = self.cache_key(digest, code);
        let slot = compile_slots.take();
        let compiled = compile::compile(core, wasm, code, limits, entry)?;
        drop(slot);
        if let Some(cache) = cache
            && let Err(error) = cache.store(&key, &compiled).map_err(calling("write (of a cache entry)"))
        {
            tracing::warn!(%digest, %error, "a compiled module could not be cached");
        }
        Ok((compiled, false))
    }
}

impl Loads {
    pub(super) fn new() -> Loads {
        let state = State {
            modules: Known::new(),
            quarantine: Quarantine::new(limits::QUARANTINE_MODULES_MAX),
            flights: HashMap::new(),
        };
        Loads { state: Mutex::new(state), permits: Permits::default() }
    }

    /// Returns how many modules are held.
    pub(super) fn held(&self) -> usize {
        self.permits.taken()
    }

    /// The module, if it is loaded.
    fn get(&self, key: &Key) -> Option<Arc<Loaded>> {
        self.lock().modules.find(key)
    }

    /// Loads the module on behalf of all who ask for it at the same time. `make` runs without a lock, on one
    /// thread at a time for each key, and makes a module from its number and its permit, one of `max`.
    fn load<M: FnOnce(u64, Permit) -> Arc<Loaded>>(
        &self,
        key: Key,
        limits: &CompileLimits,
        max: usize,
        make: impl FnOnce() -> Result<M, ModuleError>,
    ) -> Result<Arc<Loaded>, ModuleError> {
        let departure = loop {
            let mut state = self.lock();
            if let Some(loaded) = state.modules.find(&key) {
                return Ok(loaded);
            }
            if let Some(error) = state.quarantine.find(&key, limits) {
                return Err(error);
            }
            let Some(flight) = state.flights.get(&key).cloned() else {
                state.flights.insert(key, Arc::default());
                break Departure { loads: self, key };
            };
            drop(state);
            match flight.wait() {
                Some(Ok(module)) => return Ok(module),
                Some(Err((error, met))) if would_meet(&error, &met, limits) => return Err(error),
                // Our limits are larger than theirs, so we try as well.
                Some(Err(_)) | None => {}
            }
        };
        // The permit is taken before anything is compiled for it.
        let permit = self.permits.take(max).ok_or(ModuleError::TooMany { max });
        let result = permit.and_then(|(number, permit)| make().map(|module| module(number, permit)));
        let mut state = self.lock();
        match &result {
            Ok(module) => state.modules.note(key, module),
            Err(error) => state.quarantine.add(key, limits, error),
        }
        drop(state);
        departure.land(Some(result.clone().map_err(|error| (error, limits.clone()))));
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.hold()
    }
}

/// Modules that somebody holds, and some that have ended since the last sweep.
struct Known<T> {
    by_key: HashMap<Key, Weak<T>>,
    /// A sweep is due at this many.
    sweep_at: usize,
}

impl<T> Known<T> {
    fn new() -> Self {
        Known { by_key: HashMap::new(), sweep_at: limits::MODULES_UNSWEPT_MAX }
    }

    fn find(&self, key: &Key) -> Option<Arc<T>> {
        self.by_key.get(key)?.upgrade()
    }

    /// Adds a module. A sweep removes those that have ended once they may be half of all, so that each call
    /// pays little for it.
    fn note(&mut self, key: Key, new: &Arc<T>) {
        if self.by_key.len() >= self.sweep_at {
            self.by_key.retain(|_, one| one.strong_count() > 0);
            self.sweep_at = 2 * self.by_key.len() + limits::MODULES_UNSWEPT_MAX;
        }
        self.by_key.insert(key, Arc::downgrade(new));
    }
}

impl Flight {
    fn wait(&self) -> Landing {
        let mut landed = self.landed.hold();
        loop {
            if let Some(landing) = &*landed {
                return landing.clone();
            }
            landed = self.changed.sleep(landed, None);
        }
    }
}

/// The duty to end a flight, also by a panic.
struct Departure<'a> {
    loads: &'a Loads,
    key: Key,
}

impl Departure<'_> {
    /// Wakes those who wait. Those who come now must be able to find the result already.
    fn land(&self, landing: Landing) {
        if let Some(flight) = self.loads.lock().flights.remove(&self.key) {
            *flight.landed.hold() = Some(landing);
            flight.changed.notify_all();
        }
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        self.land(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        (Digest::of(&number.to_le_bytes()), CodeKind::Plain)
    }

    #[test]
    fn what_has_ended_is_not_found_and_does_not_pile_up() {
        let mut known = Known::new();
        let held: Vec<_> = (0..100).map(Arc::new).collect();
        held.iter().for_each(|one| known.note(key(**one), one));
        for number in 100..10_000 {
            let short = Arc::new(number);
            known.note(key(number), &short);
            assert!(known.find(&key(number)).is_some());
            drop(short);
            assert!(known.find(&key(number)).is_none());
            assert!(
                known.by_key.len() <= 2 * held.len() + limits::MODULES_UNSWEPT_MAX,
                "{}",
                known.by_key.len()
            );
        }
        assert!(held.iter().all(|one| known.find(&key(**one)) == Some(one.clone())));
    }
}
