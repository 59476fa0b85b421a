//! Tells what can be submitted, and with which inputs.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::versions::Target;
use super::{Command, RawTask, Task, TaskOutput};
use crate::command::{CommandInput, Stdin};
use crate::error::SubmitError;
use crate::report::CommandOutput;
use crate::stdin::StdinSource;
use postcard_schema::Schema;
use postcard_schema::schema::{DataModelType, NamedType};
use proto::message::CommandStdin;
use proto::payload::{INLINE_BYTES, Payload};

/// Something that can be submitted: a [`Task`], a [`RawTask`] or a [`Command`].
///
/// Sealed: the kinds of call are the wire's. Generic code names it as a bound, with what the task takes and
/// returns:
///
/// ```no_run
/// use wasmpool::error::{MapError, SubmitError};
/// use wasmpool::{Pool, module::Callable};
///
/// fn sum<C: Callable<Output = u64>>(pool: &Pool, task: &C, inputs: &[C::Input]) -> Result<u64, MapError> {
///     let submitted = inputs.iter().map(|input| pool.submit(task, input));
///     let futures = submitted.collect::<Result<Vec<_>, SubmitError>>()?;
///     futures.iter().map(|future| Ok(future.result()?)).sum()
/// }
/// ```
#[allow(private_interfaces, reason = "the trait is sealed, and what names private types is hidden")]
pub trait Callable: sealed::Sealed + Send + Sync {
    /// The type that the task takes; it also takes whatever is [`InputOf`] it.
    type Input: InputOf<Self>;
    /// The type that it returns.
    type Output;
    /// The encoded input is the library's own memory, so dropping it runs none of the caller's code.
    #[doc(hidden)]
    const OWNS_INPUT: bool = false;
    #[doc(hidden)]
    fn target(&self) -> &Target;
    /// Inputs may travel together. Those of a command may not, since each has arguments of its own.
    #[doc(hidden)]
    const IS_BATCHED: bool = true;
    #[doc(hidden)]
    fn decode(output: &TaskOutput) -> Result<Self::Output, String>;
}

/// A value with which the task `C` can be submitted: its [`Input`](Callable::Input), or a borrowed form of it,
/// of which no owned copy is made.
///
/// | the task takes | it is submitted with a reference to |
/// |---|---|
/// | any `I` | `I`, `&I`, `Box<I>`, `Rc<I>`, `Arc<I>` |
/// | `String` | `str`, `&str` |
/// | [`Args<T>`](Args) | `T` |
/// | `Vec<T>` | `[T]`, `&[T]`, `[T; N]` |
/// | bytes ([`RawTask`]) | [`Bytes`], which are not copied, `[u8]`, `[u8; N]`, `Vec<u8>`, `str`, `String` |
///
/// It is sealed.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// # wasmpool::init();
/// # let pool = wasmpool::Pool::new()?;
/// let find = pool.load_file("find.wasm")?.task::<String, Option<u64>>("find")?;
/// println!("{:?}", pool.submit(&find, "key")?.result()?);
/// # Ok(()) }
/// ```
#[allow(private_interfaces, reason = "the trait is sealed, and what names private types is hidden")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no input of `{C}`",
    label = "the task takes another type"
)]
pub trait InputOf<C: ?Sized>: sealed::Input<C> {
    #[doc(hidden)]
    fn encode(&self, task: &C) -> Result<(Entrance, Payload), SubmitError>;
    /// Encodes onto `bytes`, without memory of its own. After an error the end of `bytes` is of no use.
    #[doc(hidden)]
    fn encode_onto(&self, task: &C, bytes: &mut Vec<u8>) -> Result<(), SubmitError> {
        bytes.extend_from_slice(&self.encode(task)?.1);
        Ok(())
    }
    /// The stdin that the task is to read while it runs.
    #[doc(hidden)]
    fn stdin(&self) -> Option<&StdinSource> {
        None
    }
}

mod sealed {
    pub trait Sealed {}
    impl<I, O> Sealed for super::Task<I, O> {}
    impl Sealed for super::RawTask {}
    impl Sealed for super::Command {}

    pub trait Input<C: ?Sized> {}
}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl<I, O> Callable for Task<I, O>
where
    I: Serialize + Schema,
    O: DeserializeOwned + Schema,
{
    type Input = I;
    type Output = O;
    const OWNS_INPUT: bool = true;

    fn target(&self) -> &Target {
        &self.target
    }

    fn decode(output: &TaskOutput) -> Result<O, String> {
        match output {
            TaskOutput::Output(bytes) => match postcard::take_from_bytes(bytes) {
                Ok((value, [])) => Ok(value),
                Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
                Err(error) => Err(error.to_string()),
            },
            TaskOutput::Command(_) => Err("a command's output is not a task's".into()),
        }
    }
}

impl<I, O> Task<I, O> {
    /// Encodes a value that is `I` on the wire.
    fn encode(&self, input: &(impl Serialize + ?Sized)) -> Result<(Entrance, Payload), SubmitError> {
        // An input that does not fit, or cannot be encoded at all, is handled below.
        let few =
            postcard::to_slice(input, &mut [0; INLINE_BYTES]).ok().and_then(|bytes| Payload::inline(bytes));
        if let Some(few) = few {
            return Ok((Entrance::Task, few));
        }
        let bytes = postcard::to_stdvec(input).map_err(|error| self.target.encode_error(error))?;
        // A vector with room to spare would cost `Bytes` another allocation.
        Ok((Entrance::Task, Bytes::from(bytes.into_boxed_slice()).into()))
    }

    fn encode_onto(&self, input: &(impl Serialize + ?Sized), bytes: &mut Vec<u8>) -> Result<(), SubmitError> {
        let encoded = postcard::to_extend(input, Onto(bytes)).map(drop);
        encoded.map_err(|error| self.target.encode_error(error))
    }
}

/// Lets `$from` be an input: what it shows of itself by `$shown` is `$input` on the wire.
macro_rules! input_of_task {
    ($([$($generics:tt)*] $from:ty => $input:ty, |$this:ident| $shown:expr;)*) => {$(
        impl<$($generics)* O> sealed::Input<Task<$input, O>> for $from {}

        #[allow(private_interfaces, reason = "the trait is sealed")]
        impl<$($generics)* O> InputOf<Task<$input, O>> for $from
        where
            $input: Serialize + Schema,
        {
            fn encode(&self, task: &Task<$input, O>) -> Result<(Entrance, Payload), SubmitError> {
                let $this = self;
                task.encode($shown)
            }

            fn encode_onto(&self, task: &Task<$input, O>, bytes: &mut Vec<u8>) -> Result<(), SubmitError> {
                let $this = self;
                task.encode_onto($shown, bytes)
            }
        }
    )*};
}

input_of_task! {
    [I,] I => I, |this| this;
    [I,] &I => I, |this| *this;
    [I,] Box<I> => I, |this| &**this;
    [I,] Rc<I> => I, |this| &**this;
    [I,] Arc<I> => I, |this| &**this;
    // It is its content on the wire.
    [T: Serialize,] T => Args<T>, |this| this;
    [] str => String, |this| this;
    [] &str => String, |this| *this;
    [T: Serialize,] [T] => Vec<T>, |this| this;
    [T: Serialize,] &[T] => Vec<T>, |this| *this;
    // An array is a tuple on the wire, without its length before it.
    [T: Serialize, const N: usize,] [T; N] => Vec<T>, |this| &this[..];
}

/// The arguments of a task that has more than six: a tuple of up to sixteen. `Schema` is postcard's, and that has no
/// more for tuples than six.
///
/// ```no_run
/// # fn main() -> anyhow::Result<()> {
/// # wasmpool::init();
/// # let pool = wasmpool::Pool::new()?;
/// use wasmpool::module::Args;
/// let module = pool.load_file("sum.wasm")?;
/// let sum = module.task::<Args<(u8, u8, u8, u8, u8, u8, u8)>, u64>("sum")?;
/// println!("{}", pool.submit(&sum, &(1, 2, 3, 4, 5, 6, 7))?.result()?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Args<T>(pub T);

macro_rules! schema_of_args {
    ($($($of:ident)+;)*) => {$(
        impl<$($of: Schema),+> Schema for Args<($($of,)+)> {
            const SCHEMA: &'static NamedType =
                &NamedType { name: "Args", ty: &DataModelType::Tuple(&[$($of::SCHEMA),+]) };
        }
    )*};
}

schema_of_args! {
    A B C D E F G;
    A B C D E F G H;
    A B C D E F G H I;
    A B C D E F G H I J;
    A B C D E F G H I J K;
    A B C D E F G H I J K L;
    A B C D E F G H I J K L M;
    A B C D E F G H I J K L M N;
    A B C D E F G H I J K L M N O;
    A B C D E F G H I J K L M N O P;
}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl Callable for RawTask {
    type Input = Bytes;
    type Output = Bytes;

    fn target(&self) -> &Target {
        &self.target
    }

    fn decode(output: &TaskOutput) -> Result<Bytes, String> {
        match output {
            TaskOutput::Output(bytes) => Ok(bytes.to_bytes()),
            TaskOutput::Command(_) => Err("a command's output is not a task's".into()),
        }
    }
}

impl sealed::Input<RawTask> for Bytes {}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl InputOf<RawTask> for Bytes {
    fn encode(&self, _: &RawTask) -> Result<(Entrance, Payload), SubmitError> {
        Ok((Entrance::Task, self.clone().into()))
    }
}

macro_rules! input_of_raw_task {
    ($([$($generics:tt)*] $from:ty;)*) => {$(
        impl<$($generics)*> sealed::Input<RawTask> for $from {}

        #[allow(private_interfaces, reason = "the trait is sealed")]
        impl<$($generics)*> InputOf<RawTask> for $from {
            fn encode(&self, _: &RawTask) -> Result<(Entrance, Payload), SubmitError> {
                let bytes: &[u8] = self.as_ref();
                let copy = Payload::inline(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes).into());
                Ok((Entrance::Task, copy))
            }

            fn encode_onto(&self, _: &RawTask, bytes: &mut Vec<u8>) -> Result<(), SubmitError> {
                bytes.extend_from_slice(self.as_ref());
                Ok(())
            }
        }
    )*};
}

input_of_raw_task! {
    [] [u8];
    [] &[u8];
    [const N: usize] [u8; N];
    [] Vec<u8>;
    [] String;
    [] str;
    [] &str;
}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl Callable for Command {
    type Input = CommandInput;
    type Output = CommandOutput;
    const IS_BATCHED: bool = false;

    fn target(&self) -> &Target {
        &self.target
    }

    fn decode(output: &TaskOutput) -> Result<CommandOutput, String> {
        match output {
            TaskOutput::Command(output) => Ok(output.clone()),
            TaskOutput::Output(_) => Err("a task's output is not a command's".into()),
        }
    }
}

impl sealed::Input<Command> for CommandInput {}

#[allow(private_interfaces, reason = "the trait is sealed")]
impl InputOf<Command> for CommandInput {
    fn encode(&self, command: &Command) -> Result<(Entrance, Payload), SubmitError> {
        let program = self.program.clone().unwrap_or_else(|| command.target.module_name());
        let args = std::iter::once(program).chain(self.args.iter().cloned()).collect();
        let (stdin, payload) = match &self.stdin {
            Stdin::Bytes(bytes) => (CommandStdin::Sent, bytes.clone()),
            Stdin::Source(_) => (CommandStdin::Asked, Bytes::new()),
        };
        Ok((Entrance::Program { args, env: self.env.clone(), stdin }, payload.into()))
    }

    fn stdin(&self) -> Option<&StdinSource> {
        match &self.stdin {
            Stdin::Bytes(_) => None,
            Stdin::Source(source) => Some(source),
        }
    }
}

/// The part of a call that the handle and the input say, before it is known which version of the module is called.
#[derive(Debug)]
pub(crate) enum Entrance {
    Task,
    Program { args: Vec<String>, env: Vec<(String, String)>, stdin: CommandStdin },
}

/// Postcard wants to own what it extends.
struct Onto<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Onto<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.0.extend(bytes);
    }
}

impl Target {
    fn encode_error(&self, error: postcard::Error) -> SubmitError {
        SubmitError::Encode { task: self.name.to_string(), message: error.to_string() }
    }
}
