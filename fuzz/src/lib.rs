//! Everything in wasmpool that reads what another process, a file or a guest wrote, as functions of
//! bytes that hold it to its promises. `fuzz_targets/` drives them with libFuzzer, `tests/smoke.rs`
//! with a few thousand mutations of their seeds.
//!
//! The sources are included as they stand, all but those that name wasmtime: the engine takes ten
//! minutes to build with instrumentation, and is fuzzed by its own project.

mod bounded;
mod inboxes;
mod input;
pub mod targets;

/// The library's sources, from its own files.
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::wrong_self_convention,
    reason = "the included sources have more than is fuzzed here"
)]
#[path = "../../src"]
mod source {
    pub(crate) mod account;
    pub(crate) mod task;
    pub(crate) mod limits;
    pub(crate) mod text;
    pub(crate) mod kernel;
    pub(crate) mod foreign;
    pub(crate) mod slice;
    pub(crate) mod sync;
    pub(crate) mod refused;
    pub(crate) mod imports;
    pub(crate) mod files;
    pub(crate) mod policy;
    pub(crate) mod walls;
    pub(crate) mod directory;
    pub(crate) mod shortage;
    pub(crate) mod trap;
    pub(crate) mod probe;
    pub(crate) mod observe;
    pub(crate) mod octets;
    pub(crate) mod error;
    pub(crate) mod schema;
    pub(crate) mod module;
    pub(crate) mod description;
    #[path = "description/samples.rs"]
    pub(crate) mod samples;
    pub(crate) mod options;
    pub(crate) mod report;
    pub(crate) mod command;
    pub(crate) mod id_map;
    pub(crate) mod ewma;
    pub(crate) mod fork;
    pub(crate) mod held;
    pub(crate) mod shared;
    pub(crate) mod stdin;
    pub(crate) mod wire;
    pub(crate) mod dispatch;

    pub(crate) mod future {
        mod cell;
        mod owner;

        pub(crate) use cell::{Cell, Failed, Filled, FutureState, Item, Labels, Outcome, Queues};
        pub(crate) use owner::TaskOwner;
    }

    pub(crate) mod host {
        pub(crate) mod asks;
        mod batch;
        pub(crate) mod cache;
        pub(crate) mod cgroup;
        pub(crate) mod completion;
        pub(crate) mod core;
        mod cpu;
        pub(crate) mod dirs;
        mod domains;
        mod effects;
        pub(crate) mod invocation;
        pub(crate) mod link;
        mod logs;
        mod observers;
        mod priority;
        pub(crate) mod request;
        pub(crate) mod settings;
        pub(crate) mod sent;

        /// The requests to the supervisor are kept here for the target, which plays the supervisor.
        pub(crate) mod requests {
            use std::sync::{Mutex, PoisonError};

            use crate::dispatch::WorkerKey;

            pub(crate) enum SupervisorRequest {
                Spawn(WorkerKey),
            }

            #[derive(Default)]
            pub(crate) struct SupervisorHandle(Mutex<Vec<SupervisorRequest>>);

            impl SupervisorHandle {
                pub(crate) fn ask(&self, request: SupervisorRequest) {
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).push(request);
                }

                pub(crate) fn wake(&self) {}

                pub(crate) fn take(&self) -> Vec<SupervisorRequest> {
                    std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
                }
            }
        }

        pub(crate) fn become_io_thread() {}

        /// Nothing waits here for anything.
        pub(crate) fn is_io_thread() -> bool {
            true
        }

        /// See `link`.
        pub(crate) fn read_loop(core: &core::Core, link: &std::sync::Arc<link::Link>) {
            link::read_loop(core, link);
        }

        /// See `link`.
        pub(crate) fn report_exit(link: &link::Link, death: crate::error::Death) {
            link.report_exit(death);
        }
    }

    pub(crate) mod sandbox {
        mod identity;

        pub(crate) use identity::{change as change_identity, drop_capabilities};

        use crate::refused::calling as doing;
    }

    pub(crate) mod artifact;
    pub(crate) mod guest;
}

// The names by which the sources know each other.
use source::{
    account, artifact, command, description, directory, dispatch, error, ewma, files, foreign, fork, future,
    guest, held, host, id_map, imports, kernel, limits, module, observe, octets, options, policy, probe,
    refused, report, samples, sandbox, schema, shared, shortage, slice, stdin, sync, task, text, trap, walls,
    wire,
};
