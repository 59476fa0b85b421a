//! A loaded module: what it is, what it has, and typed handles to its tasks.
//!
//! The description was made by the compiler process; the host only reads it. The machine
//! code stays in a file that workers map: here it is a descriptor.

mod call;
mod options;
mod versions;

use std::fmt;
use std::fs::File;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ModuleError;
use crate::held::Life;

use crate::report::CommandOutput;
use proto::description::PROGRAM;
#[doc(inline)]
pub use proto::description::{
    CallingConvention, Codec, Interrupt, MemoryDescription, ModuleDescription, ModuleForm, ModuleKind,
    ModuleOutline, SourceLines, TaskDescription, UncallableFunction,
};
use proto::message::ModuleId;
use proto::payload::Payload;
#[doc(inline)]
pub use proto::schema::TypeSchema;

pub(crate) use call::Entrance;
pub use call::{Args, Callable, InputOf};
pub use options::ModuleOptions;
pub(crate) use versions::{Aim, Target, Versions};

/// The SHA-256 of a module's wasm bytes. `Display` prints all 64 hex digits, and `FromStr` reads them.
///
/// ```
/// use wasmpool::module::Digest;
/// let text = "93a44bbb96c751218e4c00d479e4c14358122a389acca16205b1e4d0dc5f9476";
/// let digest: Digest = text.parse()?;
/// assert_eq!(digest.to_string(), text);
/// # Ok::<(), wasmpool::module::ParseDigestError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub(crate) [u8; 32]);

impl Digest {
    pub(crate) fn of(wasm: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(wasm).into())
    }

    /// Returns the first twelve hex digits.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Reads 64 hex digits, of either case.
    fn from_str(text: &str) -> Result<Digest, ParseDigestError> {
        let digits = text.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(ParseDigestError(()));
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let digit = char::from(*digit).to_digit(16).ok_or(ParseDigestError(()))?;
                *byte = *byte << 4 | digit as u8;
            }
        }
        Ok(Digest(bytes))
    }
}

/// A text that is no [`Digest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a module's digest is 64 hex digits")]
pub struct ParseDigestError(());

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A compiled module of one pool. Cheap to clone.
///
/// It is released when nobody holds it any longer: neither the module nor one of its [`Task`]s, [`RawTask`]s
/// and [`Command`]s, and none of its tasks is open. Its descriptors are then closed, here and in the workers.
/// Loading the same bytes later brings it in again, from the cache if there is one.
///
/// [`Pool::replace_module`](crate::Pool::replace_module) puts another version in its place. What this handle says of itself
/// ([`name`](Self::name), [`digest`](Self::digest), [`description`](Self::description)) stays true of the version that it was
/// returned for; [`current`](Self::current) is the one in force, in which handles find their tasks.
#[derive(Clone)]
pub struct Module {
    about: Arc<About>,
    versions: Arc<Versions>,
}

/// The things that are known of one version, which take few bytes and may outlive it.
#[derive(Debug)]
pub(crate) struct About {
    /// Name and start of the digest, as errors show it.
    pub(crate) shown: Arc<str>,
    pub(crate) name: String,
    pub(crate) digest: Digest,
    pub(crate) description: ModuleDescription,
    pub(crate) from_cache: bool,
}

/// The machine code of one version. Whoever holds it keeps it in the host and in the workers.
pub(crate) struct Loaded {
    pub(crate) pool: u64,
    pub(crate) id: ModuleId,
    pub(crate) about: Arc<About>,
    pub(crate) artifact: File,
    pub(crate) description_file: File,
    /// The field comes last, so that both files are closed before its permit is free.
    pub(crate) life: Life,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loaded({})", self.about.shown)
    }
}

impl Module {
    /// Makes a handle with versions of its own, the first of which was loaded with these options.
    pub(crate) fn new(loaded: Arc<Loaded>, options: ModuleOptions) -> Module {
        Module { about: loaded.about.clone(), versions: Arc::new(Versions::new(loaded, options)) }
    }

    /// Makes the handle of a version that is one of this module's.
    pub(crate) fn of(&self, version: &Loaded) -> Module {
        Module { about: version.about.clone(), versions: self.versions.clone() }
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// Returns the handle of the version in force: this one, or what has replaced it.
    pub fn current(&self) -> Module {
        self.of(&self.versions.current())
    }

    /// Its name: the one given, else the file's, else the start of its digest.
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// The SHA-256 of its wasm.
    pub fn digest(&self) -> Digest {
        self.about.digest
    }

    /// Returns what it is and what it has.
    pub fn description(&self) -> &ModuleDescription {
        &self.about.description
    }

    /// Returns whether the machine code came from the cache.
    pub fn from_cache(&self) -> bool {
        self.about.from_cache
    }

    /// A typed handle to one of its tasks. `I` and `O` are compared with the module's
    /// schema here: names of types do not count, names of fields and variants do.
    ///
    /// # Errors
    /// [`ModuleError::UnknownTask`] with the names there are, [`ModuleError::SchemaMismatch`],
    /// [`ModuleError::RawTask`] for a task without a codec.
    ///
    /// An exported function over numbers is a task, too: that of `(i32, f64) -> i64` is a `Task<(i32, f64), i64>`, one without
    /// a result returns `()`, and several results are a tuple.
    ///
    /// So is each function that a component exports, by its name (`add`) or, if it is one of an interface, by that of the interface
    /// and its own (`demo:text/words@1.0.0#count`; without the version, or by `count` alone, where that says which one is
    /// meant). Of `result<T, E>` the output is a `T`, and an `E` comes as [`TaskError::Guest`](crate::TaskError::Guest) with its
    /// [data](crate::error::ErrorData). A record is a struct with the same names of fields (`#[serde(rename_all =
    /// "kebab-case")]`), a variant or an enum is an enum, a set of flags is a struct of bools.
    pub fn task<I, O>(&self, name: &str) -> Result<Task<I, O>, ModuleError>
    where
        I: Serialize + postcard_schema::Schema,
        O: DeserializeOwned + postcard_schema::Schema,
    {
        let target = self.versions.target(|about| {
            let (index, task) = about.find(name)?;
            if task.codec == Codec::Raw {
                return Err(ModuleError::RawTask {
                    module: about.shown.to_string(),
                    task: task.name.clone(),
                });
            }
            about.compare(task, "input", &task.input, &TypeSchema::of::<I>())?;
            about.compare(task, "output", &task.output, &TypeSchema::of::<O>())?;
            Ok(Some((index, task.name.clone())))
        })?;
        Ok(Task { target, types: PhantomData })
    }

    /// An untyped handle: bytes in, bytes out, in the task's own codec.
    ///
    /// # Errors
    /// [`ModuleError::UnknownTask`] with the names there are.
    pub fn raw_task(&self, name: &str) -> Result<RawTask, ModuleError> {
        let target = self.versions.target(|about| {
            let (index, task) = about.find(name)?;
            Ok(Some((index, task.name.clone())))
        })?;
        Ok(RawTask { target })
    }

    /// A handle to the program: the function without a name that takes and returns nothing, else `_start`.
    ///
    /// # Errors
    /// [`ModuleError::NotACommand`].
    pub fn command(&self) -> Result<Command, ModuleError> {
        let target = self.versions.target(|about| about.check_program().map(|()| None))?;
        Ok(Command { target })
    }
}

impl About {
    /// Returns the name of the program's task.
    pub(crate) fn program(&self) -> &'static str {
        match self.description.form {
            ModuleForm::Component => "wasi:cli/run",
            _ => PROGRAM,
        }
    }

    fn compare(
        &self,
        task: &TaskDescription,
        side: &str,
        declared: &TypeSchema,
        asked: &TypeSchema,
    ) -> Result<(), ModuleError> {
        if declared.is_compatible(asked) {
            return Ok(());
        }
        let (declared, asked) = (declared.show(declared.root()), asked.show(asked.root()));
        Err(self.mismatch(task, side, declared, asked))
    }

    fn mismatch(&self, task: &TaskDescription, side: &str, declared: String, asked: String) -> ModuleError {
        ModuleError::SchemaMismatch {
            module: self.shown.to_string(),
            task: task.name.clone(),
            side: side.to_string(),
            declared,
            asked,
        }
    }
}

/// Two handles are equal if they are of the same version of a module, loaded by the same pool.
impl PartialEq for Module {
    fn eq(&self, other: &Module) -> bool {
        Arc::ptr_eq(&self.about, &other.about)
    }
}

impl Eq for Module {}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Module({}, {})", self.about.shown, self.about.description.kind)
    }
}

/// A worker's answer to a task that succeeded.
#[derive(Debug, Clone)]
pub(crate) enum TaskOutput {
    Output(Payload),
    Command(CommandOutput),
}

/// A typed task: postcard in, postcard out.
pub struct Task<I, O> {
    target: Arc<Target>,
    types: PhantomData<fn(&I) -> O>,
}

/// An untyped task: bytes in, bytes out.
#[derive(Debug, Clone)]
pub struct RawTask {
    target: Arc<Target>,
}

/// A WASI command: argv, environment and stdin in; stdout, stderr and exit code out.
#[derive(Debug, Clone)]
pub struct Command {
    target: Arc<Target>,
}

impl<I, O> Clone for Task<I, O> {
    fn clone(&self) -> Self {
        Task { target: self.target.clone(), types: PhantomData }
    }
}

impl<I, O> fmt::Debug for Task<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Task({:?})", self.target)
    }
}
