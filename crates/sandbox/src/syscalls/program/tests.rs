//! The program against its list, and against what seccompiler makes of the list: each number, each condition both ways.

use std::collections::BTreeMap;

use proto::preopen::DirAccess;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::*;
use crate::Profile;
use crate::syscalls::{allowed, answered_enosys};

const PROFILES: [Profile; 7] = [
    Profile::Worker,
    Profile::ScanningWorker,
    Profile::Compiler,
    Profile::WithDirectories { access: DirAccess::ReadOnly, scans: false },
    Profile::WithDirectories { access: DirAccess::ReadOnly, scans: true },
    Profile::WithDirectories { access: DirAccess::ReadWrite, scans: false },
    Profile::WithDirectories { access: DirAccess::ReadWrite, scans: true },
];

/// A call as the kernel shows it.
#[derive(Debug, Clone, Copy)]
struct Call {
    architecture: u32,
    number: u32,
    arguments: [u64; 6],
}

/// Returns what the program does with the call.
fn run(program: &[sock_filter], call: &Call) -> u32 {
    decide(program, call).0
}

/// Returns how many instructions it takes.
fn count(program: &[sock_filter], call: &Call) -> usize {
    decide(program, call).1
}

/// Runs a program as the kernel does.
fn decide(program: &[sock_filter], call: &Call) -> (u32, usize) {
    let word = |at: u32| match at {
        NUMBER => call.number,
        ARCHITECTURE => call.architecture,
        _ => {
            let argument = call.arguments[(at - ARGUMENTS) as usize / 8];
            if at.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut at, mut loaded) = (0, 0);
    for steps in 1.. {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match u32::from(code) {
            LOAD => loaded = word(k),
            AND => loaded &= k,
            JUMP => at += k as usize,
            IF_EQUAL => at += branch(loaded == k),
            IF_AT_LEAST => at += branch(loaded >= k),
            RETURN => return (k, steps),
            code => panic!("an instruction of another kind: {code:#x}"),
        }
    }
    unreachable!("a program only jumps ahead")
}

/// What the list says, in its own words.
fn by_the_list(list: &[Allowed], answered: &[(&str, c_long)], call: &Call) -> u32 {
    let is_native = Some(call.architecture) == NATIVE;
    let is_it = |number: c_long| is_native && number == c_long::from(call.number);
    let holds = |test: &Test| match *test {
        Test::Is(argument, value) => call.arguments[usize::from(argument)] == value,
        Test::Lacks(argument, bits) => call.arguments[usize::from(argument)] & bits == 0,
        Test::IsBut(argument, but, value) => call.arguments[usize::from(argument)] & !but == value,
        Test::LowIsBut(argument, but, value) => call.arguments[usize::from(argument)] as u32 & !but == value,
    };
    if answered.iter().any(|&(_, number)| is_it(number)) {
        return NO_SUCH_CALL.k;
    }
    let listed = list.iter().find(|allowed| is_it(allowed.number));
    let allows =
        |allowed: &Allowed| allowed.when.is_empty() || allowed.when.iter().any(|when| when.iter().all(holds));
    if listed.is_some_and(allows) { ALLOW.k } else { KILL.k }
}

/// What seccompiler makes of it: two filters, of which the kernel takes the sterner answer.
fn by_seccompiler(list: &[Allowed], answered: &[(&str, c_long)]) -> [BpfProgram; 2] {
    let program = |rules, otherwise, action| {
        let arch = TargetArch::try_from(std::env::consts::ARCH).expect("known");
        BpfProgram::try_from(SeccompFilter::new(rules, otherwise, action, arch).expect("a filter"))
            .expect("a program")
    };
    let answered = || answered.iter().map(|&(_, number)| (number, Vec::new()));
    let no_such_call = SeccompAction::Errno(libc::ENOSYS as u32);
    let refuse = program(answered().collect(), SeccompAction::Allow, no_such_call);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = list
        .iter()
        .map(|allowed| (allowed.number, allowed.when.iter().map(|when| rule(when)).collect()))
        .collect();
    rules.extend(answered());
    [refuse, program(rules, SeccompAction::KillProcess, SeccompAction::Allow)]
}

fn rule(when: &[Test]) -> SeccompRule {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let condition = |test: &Test| match *test {
        Test::Is(argument, value) => SeccompCondition::new(argument, Qword, Eq, value),
        Test::Lacks(argument, bits) => SeccompCondition::new(argument, Qword, MaskedEq(bits), 0),
        Test::IsBut(argument, but, value) => SeccompCondition::new(argument, Qword, MaskedEq(!but), value),
        Test::LowIsBut(argument, but, value) => {
            SeccompCondition::new(argument, Dword, MaskedEq(u64::from(!but)), u64::from(value))
        }
    };
    SeccompRule::new(when.iter().map(|test| condition(test).expect("a condition")).collect()).expect("a rule")
}

/// Runs programs of seccompiler's, which use other instructions as well.
fn run_theirs(programs: &[BpfProgram; 2], call: &Call) -> u32 {
    const IF_ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    let translated = programs.clone().map(|program| {
        program.into_iter().map(|mut step| {
            if u32::from(step.code) == IF_ABOVE {
                step.code = IF_AT_LEAST as u16;
                step.k += 1;
            }
            step
        })
    });
    let [first, second] = translated.map(|program| run(&program.collect::<Vec<_>>(), call));
    // The kernel takes the lower of two actions, as signed numbers.
    if (first as i32) <= (second as i32) { first } else { second }
}

/// The values that the list's conditions are about, and their neighbours.
fn telling_values(list: &[Allowed]) -> Vec<u64> {
    let tests = list.iter().flat_map(|allowed| &allowed.when).flatten();
    let mut values: Vec<u64> = tests
        .flat_map(|test| match *test {
            Test::Is(_, value) => [value, value],
            Test::Lacks(_, bits) => [bits, 0],
            Test::IsBut(_, but, value) => [but | value, value],
            Test::LowIsBut(_, but, value) => [u64::from(but | value), u64::from(value)],
        })
        .chain([0, 1, u64::MAX, 1 << 31, 1 << 32, 1 << 63])
        .collect();
    values.sort_unstable();
    values.dedup();
    let near = |value: u64| [value, value ^ 1, value | 1 << 32, value | 1 << 63, !value];
    values.into_iter().flat_map(near).collect()
}

#[test]
fn each_number_and_each_condition_is_decided_as_the_list_says() {
    let native = NATIVE.expect("known");
    for profile in PROFILES {
        let (list, answered) = (allowed(profile), answered_enosys(profile));
        let program = assemble(&list, &answered).expect("a program");
        let theirs = by_seccompiler(&list, &answered);
        let check = |call: Call| {
            let wanted = by_the_list(&list, &answered, &call);
            assert_eq!(run(&program, &call), wanted, "{profile:?}: {call:x?}");
            assert_eq!(run_theirs(&theirs, &call), wanted, "seccompiler, {profile:?}: {call:x?}");
        };
        for number in (0..1200).chain([u32::MAX, 1 << 30, 1 << 30 | 1, 1 << 31, 1 << 31 | 9]) {
            check(Call { architecture: native, number, arguments: [0; 6] });
            check(Call { architecture: native, number, arguments: [u64::MAX; 6] });
            check(Call { architecture: 0x4000_0003, number, arguments: [0; 6] });
        }
        let values = telling_values(&list);
        for allowed in &list {
            let arguments: Vec<u8> = allowed
                .when
                .iter()
                .flatten()
                .map(|test| match *test {
                    Test::Is(at, _) | Test::Lacks(at, _) | Test::IsBut(at, ..) | Test::LowIsBut(at, ..) => at,
                })
                .collect();
            for (&one, &other) in arguments.iter().zip(arguments.iter().cycle().skip(1)) {
                for (&first, &second) in
                    values.iter().flat_map(|first| values.iter().map(move |second| (first, second)))
                {
                    let mut call =
                        Call { architecture: native, number: allowed.number as u32, arguments: [0; 6] };
                    call.arguments[usize::from(one)] = first;
                    call.arguments[usize::from(other)] = second;
                    check(call);
                }
            }
        }
    }
}

#[test]
fn a_call_is_decided_after_a_few_instructions() {
    let list = allowed(Profile::WithDirectories { access: DirAccess::ReadWrite, scans: true });
    let program = assemble(&list, &[]).expect("a program");
    for number in 0..1200 {
        let unconditional = list.iter().all(|allowed| allowed.number != number || allowed.when.is_empty());
        let call = Call { architecture: NATIVE.expect("known"), number: number as u32, arguments: [0; 6] };
        let steps = count(&program, &call);
        assert!(!unconditional || steps <= 24, "{number} is decided after {steps}");
    }
}

#[test]
fn a_condition_that_cannot_be_met_is_refused() {
    let call = |test| [Allowed { name: "read", number: 0, when: vec![vec![test]] }];
    assert!(assemble(&call(Test::Is(6, 0)), &[]).is_err());
    assert!(assemble(&call(Test::IsBut(0, 1, 1)), &[]).is_err());
    assert!(assemble(&call(Test::LowIsBut(0, 1, 2)), &[]).is_ok());
}
