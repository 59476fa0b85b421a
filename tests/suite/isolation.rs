//! The report is true: where a layer cannot be had, it says so, and nothing else is missing; what
//! is demanded and cannot be had is an error that names it.
//!
//! Each case plays a system without the layer, in a process of its own (`inside`), as this user and, where
//! this is root, as an ordinary one.

mod limits;
mod outside;
mod places;
mod refusals;
mod reports;
mod seccomp;
mod timers;

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::mpsc;

use crate::support::{self, PATIENCE};
use rustix::event::{PollFd, PollFlags, Timespec};
use wasmpool::sandbox::SandboxLayer::{self, EmptyRoot, Landlock, Namespaces, ResourceLimits};
use wasmpool::sandbox::{Doctor, SandboxPolicy};

/// The case that `inside` is to play.
const CASE: &str = "WASMPOOL_ISOLATION_CASE";

/// A file that the host has open, without closing it for what it starts.
const LEAKED: &str = "wasmpool-isolation-leaked";

/// `nobody`.
const USER: u32 = 65_534;

/// A system that lacks something, and what becomes of it.
struct Case {
    name: &'static str,
    refused: &'static [&'static [refusals::Refusal]],
    /// The layers that a pool does without, where the host is root, and where it is not.
    missing: [&'static [SandboxLayer]; 2],
    play: fn(&Case),
}

const CASES: &[Case] = &[
    Case { name: "everything", refused: &[], missing: [&[], &[]], play: reports::are_true },
    Case {
        name: "no landlock",
        refused: &[refusals::LANDLOCK],
        missing: [&[Landlock], &[Landlock]],
        play: reports::are_true,
    },
    Case {
        name: "landlock off",
        refused: &[refusals::LANDLOCK_OFF],
        missing: [&[Landlock], &[Landlock]],
        play: reports::are_true,
    },
    Case {
        name: "no user namespaces",
        refused: &[refusals::NAMESPACES],
        missing: [&[Namespaces], &[Namespaces, EmptyRoot]],
        play: reports::are_true,
    },
    Case {
        name: "no mounts",
        refused: &[refusals::MOUNTS],
        missing: [&[EmptyRoot], &[EmptyRoot]],
        play: reports::are_true,
    },
    Case {
        name: "no pivot",
        refused: &[refusals::PIVOT],
        missing: [&[EmptyRoot], &[EmptyRoot]],
        play: reports::are_true,
    },
    Case {
        name: "no limits",
        refused: &[refusals::LIMITS],
        missing: [&[ResourceLimits], &[ResourceLimits]],
        play: reports::are_true,
    },
    Case {
        name: "no landlock, no user namespaces, no mounts",
        refused: &[refusals::LANDLOCK, refusals::NAMESPACES, refusals::MOUNTS],
        missing: [&[Landlock, Namespaces, EmptyRoot]; 2],
        play: reports::are_true,
    },
    Case {
        name: "no cgroup",
        refused: &[refusals::DIRECTORIES],
        missing: [&[SandboxLayer::Cgroup]; 2],
        play: reports::of_the_cgroup,
    },
    Case { name: "layers left out", refused: &[], missing: [&[], &[]], play: reports::of_what_is_left_out },
    Case {
        name: "no seccomp",
        refused: &[refusals::SECCOMP],
        missing: [&[], &[]],
        play: seccomp::is_not_there,
    },
    Case {
        name: "no seccomp filters",
        refused: &[refusals::SECCOMP_FILTERS],
        missing: [&[], &[]],
        play: seccomp::is_not_there,
    },
    Case {
        name: "seccomp refuses in the end",
        refused: &[refusals::SECCOMP_IN_THE_END],
        missing: [&[], &[]],
        play: seccomp::refuses_in_the_end,
    },
    Case {
        name: "no no_new_privs",
        refused: &[refusals::NO_NEW_PRIVS],
        missing: [&[], &[]],
        play: seccomp::has_no_new_privileges_to_stand_on,
    },
    Case {
        name: "less allowed",
        refused: &[],
        missing: [&[], &[]],
        play: limits::are_kept_where_less_is_allowed,
    },
    Case {
        name: "one limit",
        refused: &[refusals::ONE_LIMIT],
        missing: [&[ResourceLimits]; 2],
        play: limits::stand_but_for_one,
    },
    Case {
        name: "small files",
        refused: &[],
        missing: [&[], &[]],
        play: limits::on_files_make_smaller_rings_and_errors,
    },
    Case {
        name: "few addresses",
        refused: &[],
        missing: [&[], &[]],
        play: limits::on_addresses_mean_memories_one_by_one,
    },
    Case { name: "little cpu time", refused: &[], missing: [&[], &[]], play: limits::on_cpu_time_are_named },
    Case {
        name: "no close_range",
        refused: &[refusals::CLOSE_RANGE],
        missing: [&[], &[]],
        play: reports::are_true,
    },
    Case {
        name: "close_range forbidden",
        refused: &[refusals::CLOSE_RANGE_FORBIDDEN],
        missing: [&[], &[]],
        play: reports::are_true,
    },
    Case {
        name: "no signal at the host's death",
        refused: &[refusals::PARENT_DEATH],
        missing: [&[], &[]],
        play: refusals::kill_with_their_host_is_needed,
    },
    Case {
        name: "no timers",
        refused: &[refusals::TIMERS],
        missing: [&[], &[]],
        play: timers::are_done_without,
    },
    Case {
        name: "many workers",
        refused: &[],
        missing: [&[], &[]],
        play: timers::are_there_for_many_workers,
    },
    Case { name: NOWHERE, refused: &[], missing: [&[], &[]], play: places::are_done_without },
];

/// This case runs without /proc and /dev.
const NOWHERE: &str = "nowhere";

impl Case {
    fn missing(&self) -> &'static [SandboxLayer] {
        self.missing[usize::from(!rustix::process::getuid().is_root())]
    }
}

/// Plays a case. It is no test by itself: the others run it in a process of its own.
#[test]
fn inside() {
    let Ok(name) = std::env::var(CASE) else { return };
    if let Some(number) = name.strip_prefix("call ") {
        let number: usize = number.parse().expect("a number");
        return refusals::is_named_by_the_first_error(&refusals::NEEDED[number]);
    }
    let case = CASES.iter().find(|case| case.name == name).expect("a known case");
    case.refused.iter().for_each(|refused| refusals::install(refused));
    (case.play)(case);
}

fn played(name: &str) {
    let is_root = rustix::process::getuid().is_root();
    let users: &[Option<u32>] = if is_root { &[None, Some(USER)] } else { &[None] };
    for user in users {
        let mut command = support::own_process(&support::test_path(module_path!(), "inside"));
        command.arg("--test-threads=1").env(CASE, name);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = user {
            // The process gives up its other groups with the user.
            command.uid(*user).gid(*user);
        }
        if name == NOWHERE {
            places::hide(&mut command);
        }
        let child = command.spawn().expect("starts");
        let pid = rustix::process::Pid::from_child(&child);
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = receiver.recv_timeout(PATIENCE * 4) else {
            // Still unreaped, so the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("{name}, as {user:?}: it did not end");
        };
        let output = output.expect("its output can be read");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let [stdout, stderr] = said;
        assert!(output.status.success(), "{name}, as {user:?}: {stdout}\n{stderr}");
        assert!(stdout.contains("1 passed"), "{name}, as {user:?}: {stdout}\n{stderr}");
    }
}

#[test]
fn where_everything_is_to_be_had_the_report_is_true() {
    played("everything");
}

#[test]
fn without_landlock_the_report_says_so_and_all_else_stands() {
    played("no landlock");
    played("landlock off");
}

#[test]
fn without_user_namespaces_the_report_says_so_and_root_keeps_its_empty_root() {
    played("no user namespaces");
}

#[test]
fn without_mounts_the_report_says_so_and_all_else_stands() {
    played("no mounts");
    played("no pivot");
}

#[test]
fn without_resource_limits_the_report_says_so_and_all_else_stands() {
    played("no limits");
}

#[test]
fn without_landlock_namespaces_and_mounts_the_report_names_all_three() {
    played("no landlock, no user namespaces, no mounts");
}

#[test]
fn without_a_cgroup_the_report_says_so_and_all_else_stands() {
    played("no cgroup");
}

#[test]
fn what_is_left_out_knowingly_is_absent_or_said_to_stand_all_the_same() {
    played("layers left out");
}

#[test]
fn without_seccomp_only_those_start_who_do_without_it_knowingly() {
    played("no seccomp");
    played("no seccomp filters");
}

#[test]
fn where_seccomp_refuses_in_the_end_the_first_error_names_it() {
    played("seccomp refuses in the end");
}

#[test]
fn without_no_new_privs_only_those_start_who_do_without_it_knowingly() {
    played("no no_new_privs");
}

#[test]
fn where_less_is_allowed_than_is_wanted_each_limit_is_as_low_as_it_may_be() {
    played("less allowed");
}

#[test]
fn where_one_limit_cannot_be_set_the_others_stand_and_it_is_said_once() {
    played("one limit");
}

#[test]
fn with_a_limit_on_files_work_goes_on_as_long_as_a_module_has_room() {
    played("small files");
}

#[test]
fn with_a_limit_on_addresses_work_goes_on_as_long_as_one_memory_has_room() {
    played("few addresses");
}

#[test]
fn a_process_that_has_used_up_its_cpu_time_says_so() {
    played("little cpu time");
}

#[test]
fn without_close_range_everything_stands_all_the_same() {
    played("no close_range");
    played("close_range forbidden");
}

#[test]
fn without_proc_and_dev_a_pool_does_what_can_be_done_and_says_what_is_missing() {
    played(NOWHERE);
}

#[test]
fn many_workers_of_one_user_have_their_timers() {
    played("many workers");
}

#[test]
fn without_timers_tasks_are_stopped_all_the_same() {
    played("no timers");
}

#[test]
fn each_call_that_a_start_needs_is_named_where_it_is_refused() {
    played("no signal at the host's death");
    for number in 0..refusals::NEEDED.len() {
        played(&format!("call {number}"));
    }
}

/// Whoever has the table of mounts open is told of each change, also of one that was taken back.
#[test]
fn an_attack_that_succeeds_mounts_nothing_not_even_for_a_moment() {
    let mounts = std::fs::File::open("/proc/self/mountinfo").expect("opens");
    let report = Doctor::new().sandbox(SandboxPolicy::Off).run().expect("can be tried");
    assert!(report.succeeded().count() > 10, "{:?}", report.attacks);
    let mut told = [PollFd::new(&mounts, PollFlags::PRI)];
    assert_eq!(rustix::event::poll(&mut told, Some(&Timespec::default())), Ok(0));
}
