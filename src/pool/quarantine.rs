//! Modules that are not to be compiled again. Pure.

use std::collections::{HashMap, VecDeque};

use super::load::Key;
use crate::error::ModuleError;
use proto::limits::compile::{CompileLimit, CompileLimits};

/// The modules that went over a limit or killed their compiler are remembered here, so that submitting a bomb
/// again costs nothing.
///
/// The memory is bounded: beyond the maximum the oldest module is forgotten. An attacker with that many bombs
/// does not need to submit one of them twice, and gains nothing by pushing one out.
#[derive(Debug)]
pub(super) struct Quarantine {
    entries: HashMap<Key, Entry>,
    order: VecDeque<Key>,
    max: usize,
}

#[derive(Debug)]
struct Entry {
    error: ModuleError,
    /// The module failed under these limits.
    limits: CompileLimits,
}

impl Quarantine {
    pub(super) fn new(max: usize) -> Quarantine {
        Quarantine { entries: HashMap::new(), order: VecDeque::new(), max }
    }

    /// The error of a module that would meet it again: one whose limits are larger may not.
    pub(super) fn find(&self, key: &Key, limits: &CompileLimits) -> Option<ModuleError> {
        let entry = self.entries.get(key)?;
        would_meet(&entry.error, &entry.limits, limits).then(|| entry.error.clone().in_quarantine())
    }

    /// Remembers the module if the error is its own doing, and costs more than a validation to find again.
    pub(super) fn add(&mut self, key: Key, limits: &CompileLimits, error: &ModuleError) {
        let its_own = match error {
            // A machine that was too busy for the compiler says nothing about the module. CPU time does.
            ModuleError::CompileLimit { kind: CompileLimit::Time, limit, seen, .. } => *seen >= *limit / 10,
            ModuleError::CompileLimit { .. } | ModuleError::CompilerDied { .. } => true,
            _ => false,
        };
        if !its_own {
            return;
        }
        let entry = Entry { error: error.clone(), limits: limits.clone() };
        if self.entries.insert(key, entry).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// Returns whether a module that failed under `met` with this error would meet it again under `limits`.
pub(super) fn would_meet(error: &ModuleError, met: &CompileLimits, limits: &CompileLimits) -> bool {
    let larger = |kind| limits.get(kind) > met.get(kind);
    match error {
        ModuleError::CompileLimit { kind, .. } => !larger(*kind),
        ModuleError::CompilerDied { .. } => {
            let dies_of = [CompileLimit::Time, CompileLimit::CpuTime, CompileLimit::Memory];
            !dies_of.into_iter().any(larger)
        }
        // These errors depend on what was to be run, and not on the module alone.
        ModuleError::NotACommand { .. } | ModuleError::UnknownTask { .. } => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Death, DeathCause, Phase};
    use crate::module::Digest;
    use proto::description::CodeKind;

    fn key(n: u32) -> Key {
        (Digest::of(&n.to_le_bytes()), CodeKind::Plain)
    }

    fn over(kind: CompileLimit, limits: &CompileLimits) -> ModuleError {
        let limit = limits.get(kind);
        ModuleError::CompileLimit {
            kind,
            limit,
            seen: limit,
            function: None,
            offset: None,
            others: Vec::new(),
            quarantined: false,
        }
    }

    #[test]
    fn a_module_is_refused_until_the_limit_that_it_met_is_larger() {
        for kind in CompileLimit::ALL {
            let met = CompileLimits::trusted().with(kind, 100 << 20);
            let mut quarantine = Quarantine::new(4);
            quarantine.add(key(1), &met, &over(kind, &met));
            match quarantine.find(&key(1), &met) {
                Some(ModuleError::CompileLimit { quarantined: true, kind: same, .. }) => {
                    assert_eq!(same, kind)
                }
                other => panic!("{other:?}"),
            }
            assert!(quarantine.find(&key(1), &met.clone().with(kind, 99 << 20)).is_some());
            assert!(quarantine.find(&key(1), &met.with(kind, 101 << 20)).is_none());
            assert!(
                quarantine.find(&(key(1).0, CodeKind::Metered), &CompileLimits::new()).is_none(),
                "other options"
            );
        }
    }

    #[test]
    fn one_that_took_the_compiler_with_it_is_refused_until_there_is_more_of_anything() {
        let limits = CompileLimits::new();
        let death = Death::new(7, DeathCause::Signaled(11), Phase::Compiling, String::new());
        let mut quarantine = Quarantine::new(4);
        quarantine.add(key(1), &limits, &ModuleError::CompilerDied { death, quarantined: false });
        let found = quarantine.find(&key(1), &limits);
        assert!(matches!(found, Some(ModuleError::CompilerDied { quarantined: true, .. })), "{found:?}");
        assert!(quarantine.find(&key(1), &limits.memory_bytes_max(8 << 30)).is_none());
    }

    #[test]
    fn what_the_module_cannot_help_is_not_remembered_and_the_oldest_makes_room() {
        let limits = CompileLimits::new();
        let mut quarantine = Quarantine::new(3);
        quarantine.add(key(0), &limits, &ModuleError::Compiler { message: "EMFILE".into() });
        assert!(quarantine.find(&key(0), &limits).is_none());
        let limit = limits.get(CompileLimit::Time);
        let mut starved = over(CompileLimit::Time, &limits);
        if let ModuleError::CompileLimit { seen, .. } = &mut starved {
            *seen = limit / 10 - 1;
        }
        quarantine.add(key(0), &limits, &starved);
        assert!(quarantine.find(&key(0), &limits).is_none());
        for n in 1..=5 {
            for _ in 0..2 {
                quarantine.add(key(n), &limits, &over(CompileLimit::Time, &limits));
            }
        }
        let known: Vec<_> = (1..=5).filter(|n| quarantine.find(&key(*n), &limits).is_some()).collect();
        assert_eq!(known, [3, 4, 5]);
        assert_eq!((quarantine.entries.len(), quarantine.order.len()), (3, 3));
    }
}
