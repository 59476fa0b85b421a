//! The versions of a module, one after the other, and what its handles are aimed at.
//!
//! Each load has versions of its own, so a replacement reaches the clones of one [`Module`](super::Module) and the handles that
//! were made of them, and nobody who loaded the same bytes elsewhere. A handle holds a [`Target`], whose [`Aim`] is the version
//! in force; the table of targets is only for the replacement, which has to look at every handle before it changes any.
//!
//! Submitting takes no lock: it reads the aim once, and what it read holds for the whole request, for all of a batch or map,
//! and for later attempts. So a task is of one version, whatever happens meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex, Weak};

use arc_swap::ArcSwap;

use super::call::Entrance;
use super::{About, Loaded, ModuleKind, ModuleOptions, TaskDescription};
use crate::error::ModuleError;
use crate::fork::Birth;
use proto::description::find_task;
use proto::message::{Callee, TaskIndex};
use proto::sync::Lock;

/// The targets of ended handles are removed once there are this many more than others. Each takes little memory until then.
const TARGETS_UNSWEPT_MAX: usize = 64;

/// A task or program of one version of a module. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    pub(crate) module: Arc<Loaded>,
    pub(crate) name: Arc<str>,
    /// The task's place in this version; of a program it says nothing.
    pub(crate) index: TaskIndex,
}

impl Aim {
    /// Returns what the worker is to enter.
    pub(crate) fn callee(&self, entrance: Entrance) -> Callee {
        match entrance {
            Entrance::Task => Callee::Task(self.index),
            Entrance::Program { args, env, stdin } => Callee::Command { args, env, stdin },
        }
    }

    fn task(&self) -> Option<&TaskDescription> {
        self.module.about.description.tasks.get(self.index.0 as usize)
    }
}

/// The aim that all clones of one handle share.
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    is_program: bool,
    aim: ArcSwap<Aim>,
}

impl Target {
    /// Returns what is called now.
    pub(crate) fn aim(&self) -> Aim {
        Aim::clone(&self.aim.load())
    }

    /// Returns the name of the module in force.
    pub(crate) fn module_name(&self) -> String {
        self.aim.load().module.about.name.clone()
    }

    /// Returns the aim that would be the same in another version.
    fn aim_in(&self, next: &Arc<Loaded>) -> Result<Aim, ModuleError> {
        let aim = self.aim.load();
        let mut index = aim.index;
        if self.is_program {
            next.about.check_program()?;
        } else {
            let (found, task) = next.about.find(&self.name)?;
            if let Some(before) = aim.task() {
                next.about.check_alike(before, task)?;
            }
            index = found;
        }
        Ok(Aim { module: next.clone(), name: aim.name.clone(), index })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of {}", self.name, self.aim.load().module.about.shown)
    }
}

/// The versions of a module that was loaded.
pub(crate) struct Versions {
    /// Every version is loaded in this way.
    pub(crate) options: ModuleOptions,
    /// A process that was forked from this one takes no lock, which a thread that it does not have may hold.
    birth: Birth,
    /// It changes only under the lock of the targets.
    current: ArcSwap<Loaded>,
    targets: Mutex<Targets>,
}

struct Targets {
    /// The targets of the handles, and of some that have ended since the last sweep.
    all: Vec<Weak<Target>>,
    /// A sweep is due at this many.
    sweep_at: usize,
}

impl Versions {
    pub(crate) fn new(current: Arc<Loaded>, options: ModuleOptions) -> Versions {
        let targets = Targets { all: Vec::new(), sweep_at: TARGETS_UNSWEPT_MAX };
        let (current, targets) = (ArcSwap::new(current), Mutex::new(targets));
        Versions { options, birth: Birth::here(), current, targets }
    }

    /// Returns the version in force.
    pub(crate) fn current(&self) -> Arc<Loaded> {
        self.current.load_full()
    }

    /// Makes a target in the version in force, which `find` is shown; it returns the task's name and place, or `None` for the
    /// program. No replacement comes between.
    pub(super) fn target(
        &self,
        find: impl FnOnce(&About) -> Result<Option<(TaskIndex, String)>, ModuleError>,
    ) -> Result<Arc<Target>, ModuleError> {
        let targets = self.birth.is_here().then(|| self.targets.hold());
        let module = self.current();
        let found = find(&module.about)?;
        let is_program = found.is_none();
        let (index, name) = found.unwrap_or_else(|| (TaskIndex(0), module.about.program().to_string()));
        let name: Arc<str> = name.into();
        let aim = ArcSwap::from_pointee(Aim { module, name: name.clone(), index });
        let target = Arc::new(Target { name, is_program, aim });
        // In a forked process nothing is replaced.
        if let Some(mut targets) = targets {
            targets.note(&target);
        }
        Ok(target)
    }

    /// Puts another version into force, if every handle there is can be used with it; else nothing changes.
    pub(crate) fn replace(&self, next: &Arc<Loaded>) -> Result<(), ModuleError> {
        // The lock is given up before the old version ends with what is dropped here: that may take its time.
        let _before;
        let locked = self.targets.hold();
        let targets: Vec<_> = locked.all.iter().filter_map(Weak::upgrade).collect();
        let aims = targets.iter().map(|target| target.aim_in(next)).collect::<Result<Vec<_>, _>>();
        let aims = aims.map_err(|why| ModuleError::Replacement {
            module: self.current().about.shown.to_string(),
            why: why.into(),
        })?;
        for (target, aim) in targets.iter().zip(aims) {
            target.aim.store(Arc::new(aim));
        }
        _before = self.current.swap(next.clone());
        drop(locked);
        Ok(())
    }
}

impl Targets {
    /// Adds a target. A sweep removes those that have ended once they may be half of all, so that each call pays little for
    /// it.
    fn note(&mut self, target: &Arc<Target>) {
        if self.all.len() >= self.sweep_at {
            self.all.retain(|target| target.strong_count() > 0);
            self.sweep_at = 2 * self.all.len() + TARGETS_UNSWEPT_MAX;
        }
        self.all.push(Arc::downgrade(target));
    }
}

impl About {
    /// Returns the task of that name, and its place.
    pub(super) fn find(&self, name: &str) -> Result<(TaskIndex, &TaskDescription), ModuleError> {
        let tasks = &self.description.tasks;
        match find_task(tasks, name) {
            // The index fits, since there are at most `TASKS_PER_MODULE_MAX`.
            Some(index) => Ok((TaskIndex(index as u32), &tasks[index])),
            None => Err(ModuleError::UnknownTask {
                module: self.shown.to_string(),
                name: name.to_string(),
                known: self.description.task_names(),
            }),
        }
    }

    pub(super) fn check_program(&self) -> Result<(), ModuleError> {
        if self.description.kind == ModuleKind::Command {
            return Ok(());
        }
        let known = self.description.task_names();
        Err(ModuleError::NotACommand { module: self.shown.to_string(), known })
    }

    /// Checks that the task takes and returns the same bytes as the one before it: handles of both kinds have made them
    /// already.
    fn check_alike(&self, before: &TaskDescription, task: &TaskDescription) -> Result<(), ModuleError> {
        if before.codec != task.codec {
            let (declared, asked) = (task.codec.name().to_string(), before.codec.name().to_string());
            return Err(self.mismatch(task, "codec", declared, asked));
        }
        self.compare(task, "input", &task.input, &before.input)?;
        self.compare(task, "output", &task.output, &before.output)
    }
}
