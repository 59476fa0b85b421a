//! A component in this process, called by our `Arguments` and `Returned`, and by wasmtime's `Val`s.

use std::io;

use engine::config::{EngineKind, Running, engine_config};
use engine::values::{Arguments, Limit, Returned};
use proto::description::{CodeKind, MemoryKind};
use proto::inbox::Input;
use wasmtime::component::{Component, Func, InstancePre, Linker, TypedFunc, Val};
use wasmtime::{Engine, OptLevel, RegallocAlgorithm, Store};

use super::text::{ComponentText, PADS};
use super::types::Type;
use super::value::Value;
use crate::random::Random;

/// Bytes that a value may have as postcard. Those that are made here have less.
const BYTES_MAX: u64 = 1 << 24;

/// Of so many values one is spoiled.
const SPOILED_ONE_OF: u64 = 4;

/// What the compiler of components would make, but faster and without epochs: nothing here runs for long.
pub(super) fn engine() -> wasmtime::Result<Engine> {
    let kind = EngineKind::Modules(CodeKind::Unchecked, MemoryKind::Pooled);
    let mut config = engine_config(kind, Running::default())?;
    config.parallel_compilation(false);
    config.cranelift_opt_level(OptLevel::None);
    config.cranelift_regalloc_algorithm(RegallocAlgorithm::SinglePass);
    Engine::new(&config)
}

/// How often values that were spoiled could be read nevertheless, and how often they could not.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Spoiled {
    pub(super) read: u64,
    pub(super) refused: u64,
}

/// A component and its instance.
pub(super) struct InProcess<'a> {
    component: InstancePre<()>,
    text: &'a ComponentText,
    ty: &'a Type,
    instance: Instance,
    pub(super) spoiled: Spoiled,
}

/// Returns what each slot holds.
type Slots = TypedFunc<(), (Vec<u64>,)>;

/// The functions of an instance.
struct Instance {
    store: Store<()>,
    same: Both,
    put: Both,
    get: Both,
    reset: Func,
    spoil: Func,
    slots: Option<(Both, Slots)>,
    whole: Whole,
}

/// The functions that return the value alone.
#[derive(Clone, Copy)]
enum Whole {
    /// It is flat.
    Flat { one: Both, raw: Both },
    /// It is in memory.
    InMemory { first: Both },
}

/// One function, to be called in both ways.
#[derive(Clone, Copy)]
struct Both {
    func: Func,
    typed: TypedFunc<Arguments, Returned>,
}

impl<'a> InProcess<'a> {
    pub(super) fn new(
        engine: &Engine,
        wasm: &[u8],
        text: &'a ComponentText,
        ty: &'a Type,
    ) -> wasmtime::Result<InProcess<'a>> {
        let component = Component::new(engine, wasm)?;
        let component = Linker::new(engine).instantiate_pre(&component)?;
        let instance = Instance::new(&component, text)?;
        Ok(InProcess { component, text, ty, instance, spoiled: Spoiled::default() })
    }

    /// Compares all ways of one value.
    ///
    /// # Errors
    /// What differs, for a person.
    pub(super) fn check(&mut self, value: &Value, random: &mut Random) -> Result<(), String> {
        let _limit = Limit::set(BYTES_MAX);
        let ty = self.ty;
        let instance = &mut self.instance;
        let mut bytes = postcard(value, ty);
        let val = value.to_val(ty);
        instance.check_flat(&bytes, &val, ty)?;
        bytes.extend(0..PADS);
        instance.reset()?;
        same_bytes("`same` by our own", &instance.same.ours(&mut instance.store, &bytes)?, &bytes)?;
        if let Whole::InMemory { first } = instance.whole {
            instance.reset()?;
            let whole = first.ours_whole(&mut instance.store, &bytes, ty)?;
            same_bytes("`first` by our own", &whole, &bytes[..bytes.len() - usize::from(PADS)])?;
        }

        let pads = (0..PADS).map(Val::U8);
        let arguments: Vec<Val> = std::iter::once(val).chain(pads).collect();
        instance.reset()?;
        instance.put.wasmtimes(&mut instance.store, &arguments, &mut [])?;
        let got = instance.get.ours(&mut instance.store, &[])?;
        same_bytes("`put` by wasmtime, `get` by our own", &got, &bytes)?;

        instance.reset()?;
        instance.put.ours(&mut instance.store, &bytes)?;
        let got = instance.got_by_wasmtime(ty)?;
        same_bytes("`put` by our own, `get` by wasmtime", &got, &bytes)?;
        if random.below(SPOILED_ONE_OF) == 0 {
            self.check_raw(random)?;
            self.check_spoiled(&bytes, random)?;
        }
        Ok(())
    }

    /// Compares how both read what may be no value: a place in memory some bytes of which were changed. What is not read is
    /// a trap, after which there must be another instance.
    fn check_spoiled(&mut self, bytes: &[u8], random: &mut Random) -> Result<(), String> {
        let spoils: Vec<_> = (0..=random.below(3))
            .map(|_| {
                let bound = [8, 32, 200][random.below(3) as usize];
                let byte = [0, 1, 2, 0x7f, 0x80, 0xd8, 0xff, random.number() as u8];
                (random.below(bound) as u32, byte[random.below(8) as usize])
            })
            .collect();
        let spoiled = || {
            let mut instance = Instance::new(&self.component, self.text).map_err(shown)?;
            instance.put.ours(&mut instance.store, bytes)?;
            for (at, byte) in &spoils {
                let arguments = [Val::U32(*at), Val::U8(*byte)];
                instance.spoil.call(&mut instance.store, &arguments, &mut []).map_err(shown)?;
            }
            Ok::<_, String>(instance)
        };
        let mut instance = spoiled()?;
        let ours = instance.get.ours(&mut instance.store, &[]);
        // Lists that lie in one place may be larger than both allow, of which each has an idea of its own.
        if ours.as_ref().is_err_and(|error| error.contains("over its limit")) {
            return Ok(());
        }
        let wasmtimes = spoiled()?.got_by_wasmtime(self.ty);
        self.compare("`get` of spoiled memory", ours, wasmtimes, format_args!("{spoils:x?}"))
    }

    /// Compares how both read any bits as a flat result.
    fn check_raw(&mut self, random: &mut Random) -> Result<(), String> {
        let Whole::Flat { .. } = self.instance.whole else { return Ok(()) };
        let bits = random.number() >> (8 * random.below(8)) << (8 * random.below(4));
        let argument = postcard(&Value::Unsigned(bits), &Type::Unsigned(64));
        let instance = || Instance::new(&self.component, self.text).map_err(shown);
        let raw = |instance: &Instance| match instance.whole {
            Whole::Flat { raw, .. } => Ok(raw),
            Whole::InMemory { .. } => Err("`raw` is not exported".to_string()),
        };
        let mut ours = instance()?;
        let ours = raw(&ours)?.ours_whole(&mut ours.store, &argument, self.ty);
        let mut wasmtimes = instance()?;
        let mut got = [Val::Bool(false)];
        let called = raw(&wasmtimes)?.wasmtimes(&mut wasmtimes.store, &[Val::U64(bits)], &mut got);
        let wasmtimes = called.and_then(|()| bytes_of(&got[0], self.ty));
        self.compare("`raw`", ours, wasmtimes, format_args!("{bits:#x}"))
    }

    fn compare(
        &mut self,
        what: &str,
        ours: Result<Vec<u8>, String>,
        wasmtimes: Result<Vec<u8>, String>,
        of: std::fmt::Arguments<'_>,
    ) -> Result<(), String> {
        match (&ours, &wasmtimes) {
            (Ok(ours), Ok(wasmtimes)) if ours == wasmtimes => self.spoiled.read += 1,
            (Err(_), Err(_)) => self.spoiled.refused += 1,
            _ => {
                let what =
                    format!("{what}, {of}: wasmtime has read\n{wasmtimes:02x?}, we have read\n{ours:02x?}");
                return Err(what);
            }
        }
        Ok(())
    }
}

impl Instance {
    fn new(component: &InstancePre<()>, text: &ComponentText) -> wasmtime::Result<Instance> {
        let mut store = Store::new(component.engine(), ());
        let instance = component.instantiate(&mut store)?;
        let mut function = |name| -> wasmtime::Result<Both> {
            let func = instance.get_func(&mut store, name);
            let func = func.ok_or_else(|| wasmtime::format_err!("`{name}` is not exported"))?;
            Ok(Both { func, typed: func.typed(&store)? })
        };
        let [same, put, get] = ["same", "put", "get"].map(&mut function);
        let [reset, spoil] = ["reset", "spoil"].map(&mut function);
        let whole = match text.has_one {
            true => Whole::Flat { one: function("one")?, raw: function("raw")? },
            false => Whole::InMemory { first: function("first")? },
        };
        let slots = match text.has_slots {
            true => Some((function("keep")?, function("slots")?.func.typed(&store)?)),
            false => None,
        };
        let reset = reset?.func;
        let spoil = spoil?.func;
        Ok(Instance { same: same?, put: put?, get: get?, reset, spoil, slots, whole, store })
    }

    fn reset(&mut self) -> Result<(), String> {
        self.reset.call(&mut self.store, &[], &mut []).map_err(shown)
    }

    /// What `get` returns, read by wasmtime and written as postcard.
    fn got_by_wasmtime(&mut self, ty: &Type) -> Result<Vec<u8>, String> {
        let mut got = [Val::Bool(false)];
        self.get.wasmtimes(&mut self.store, &[], &mut got)?;
        let tuple =
            Type::Tuple([ty.clone()].into_iter().chain((0..PADS).map(|_| Type::Unsigned(8))).collect());
        bytes_of(&got[0], &tuple)
    }

    /// Compares what the value becomes when it is flat, if it may be.
    fn check_flat(&mut self, bytes: &[u8], val: &Val, ty: &Type) -> Result<(), String> {
        if let Some((keep, slots)) = self.slots {
            self.reset()?;
            keep.wasmtimes(&mut self.store, std::slice::from_ref(val), &mut [])?;
            let (expected,) = slots.call(&mut self.store, ()).map_err(shown)?;
            self.reset()?;
            keep.ours(&mut self.store, bytes)?;
            let (found,) = slots.call(&mut self.store, ()).map_err(shown)?;
            if found != expected {
                return Err(format!("`keep`: wasmtime's slots are\n{expected:x?}, ours\n{found:x?}"));
            }
        }
        if let Whole::Flat { one, .. } = self.whole {
            same_bytes("`one` by our own", &one.ours_whole(&mut self.store, bytes, ty)?, bytes)?;
        }
        Ok(())
    }
}

impl Both {
    fn ours(self, store: &mut Store<()>, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self.returned(store, bytes)? {
            Returned::Value(bytes) => Ok(bytes),
            Returned::Error(bytes) => Err(format!("an error was returned: {bytes:?}")),
        }
    }

    /// Calls a function that returns a value of this type. If that is a result, its case is told apart from the bytes.
    fn ours_whole(self, store: &mut Store<()>, bytes: &[u8], ty: &Type) -> Result<Vec<u8>, String> {
        match (self.returned(store, bytes)?, ty) {
            (Returned::Value(bytes), Type::Result(..)) => Ok([&[0], &bytes[..]].concat()),
            (Returned::Error(bytes), Type::Result(..)) => Ok([&[1], &bytes[..]].concat()),
            (Returned::Value(bytes), _) => Ok(bytes),
            (Returned::Error(bytes), _) => Err(format!("an error was returned: {bytes:?}")),
        }
    }

    fn returned(self, store: &mut Store<()>, bytes: &[u8]) -> Result<Returned, String> {
        let arguments = Arguments::read(&mut Bytes(bytes)).map_err(shown)?;
        let arguments = arguments.map_err(|len| format!("no memory for {len} bytes"))?;
        self.typed.call(store, arguments).map_err(shown)
    }

    fn wasmtimes(self, store: &mut Store<()>, arguments: &[Val], results: &mut [Val]) -> Result<(), String> {
        self.func.call(store, arguments, results).map_err(shown)
    }
}

/// Bytes as a task's input.
struct Bytes<'a>(&'a [u8]);

impl Input for Bytes<'_> {
    fn left(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<()> {
        io::Read::read_exact(&mut self.0, into)
    }

    fn skip(&mut self) -> io::Result<()> {
        self.0 = &[];
        Ok(())
    }
}

fn postcard(value: &Value, ty: &Type) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.push_postcard(ty, &mut bytes);
    bytes
}

fn bytes_of(val: &Val, ty: &Type) -> Result<Vec<u8>, String> {
    let value = Value::of_val(val, ty).ok_or_else(|| format!("{val:?} is no value of {ty}"))?;
    Ok(postcard(&value, ty))
}

fn shown(error: wasmtime::Error) -> String {
    format!("{error:#}")
}

fn same_bytes(what: &str, found: &[u8], expected: &[u8]) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: expected\n{expected:02x?}, found\n{found:02x?}")),
    }
}
