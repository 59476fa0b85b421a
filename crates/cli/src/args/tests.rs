use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_holds_together() {
    Args::command().debug_assert();
}

#[test]
fn what_follows_two_dashes_belongs_to_the_command() {
    let typed = ["wasmpool", "run", "c.wasm", "--env", "A=b=c", "--", "--column", "{}"];
    let Command::Run(run) = Args::try_parse_from(typed).expect("parses").verb else { panic!("another verb") };
    assert_eq!(run.target.args, ["--column", "{}"]);
    assert_eq!(run.target.env, [("A".into(), "b=c".into())]);
    assert_eq!(run.target.task, None);
}

#[test]
fn a_domain_is_that_of_every_task() {
    for verb in ["run", "map"] {
        let typed = ["wasmpool", verb, "m.wasm", "--domain", "tenant 17"];
        let target = match Args::try_parse_from(typed).expect("parses").verb {
            Command::Run(args) => args.target,
            Command::Map(args) => args.target,
            _ => panic!("another verb"),
        };
        let options = crate::settings::task_options(&target);
        assert_eq!(wasmpool::internal::domain(&options), Some("tenant 17"));
    }
}

#[test]
fn a_directory_is_read_only_and_of_the_same_name_unless_it_says_otherwise() {
    let dir = |host: &str, guest: &str, access| Dir { host: host.into(), guest: guest.into(), access };
    let read = DirAccess::ReadOnly;
    let write = DirAccess::ReadWrite;
    assert_eq!(super::dir("data"), Ok(dir("data", "data", read)));
    assert_eq!(super::dir("data:/in"), Ok(dir("data", "/in", read)));
    assert_eq!(super::dir("data:/in:ro"), Ok(dir("data", "/in", read)));
    assert_eq!(super::dir("/srv/data:.:rw"), Ok(dir("/srv/data", ".", write)));
    for (typed, words) in [
        ("", "HOST["),
        (":/in", "HOST["),
        ("data:", "HOST["),
        ("data:/in:rx", "`rx`"),
        ("data:/in:rw:", "HOST["),
        ("data:rw", "data:data:rw"),
    ] {
        let message = super::dir(typed).expect_err(typed);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn bounds_are_taken_by_their_names() {
    let limits = |typed: &str| {
        let typed = ["wasmpool", "inspect", "m.wasm", "--compile-limit", typed];
        Args::try_parse_from(typed).map(|args| args.common.compile_limit)
    };
    assert_eq!(limits("nesting=9").expect("parses"), [(CompileLimit::Nesting, 9)]);
    assert_eq!(limits("wasm-bytes=2MiB").expect("parses"), [(CompileLimit::WasmBytes, 2 << 20)]);
    for (typed, words) in [
        ("depth=9", "loop-nesting"),
        ("nesting", "NAME=N"),
        ("nesting=deep", "a number"),
        ("memory=9", "--compile-memory"),
        ("timeout=9", "--compile-timeout"),
        ("cpu-time=9", "--compile-cpu-time"),
    ] {
        let message = limits(typed).expect_err("is refused").to_string();
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_limit_of_nothing_within_which_nothing_could_run_is_refused() {
    for (flag, zero) in [
        ("--timeout", "0s"),
        ("--cpu-time", "0ms"),
        ("--memory", "0"),
        ("--fuel", "0"),
        ("--compile-cpu-time", "0s"),
        ("--compile-timeout", "0s"),
        ("--compile-memory", "0"),
        ("--slow-after", "0s"),
        ("--trace-bytes", "0"),
        ("--log-rate", "0"),
    ] {
        for verb in ["run", "map"] {
            let refused = Args::try_parse_from(["wasmpool", verb, "m.wasm", flag, zero]);
            assert_eq!(refused.expect_err(flag).exit_code(), 2, "{flag}");
        }
    }
    for (flag, zero) in [
        ("--output-limit", "0"),
        ("--input-limit", "0"),
        ("--log-limit", "0"),
        ("--cache-limit", "0"),
        ("--stop-grace", "0s"),
        ("--clock-resolution", "0s"),
    ] {
        let taken = Args::try_parse_from(["wasmpool", "run", "m.wasm", flag, zero]);
        assert!(taken.is_ok(), "{flag} of 0 has a meaning");
    }
}

#[test]
fn sources_exclude_each_other() {
    let typed = ["wasmpool", "map", "m.wasm", "--lines", "--files", "a"];
    assert_eq!(Args::try_parse_from(typed).expect_err("two sources").exit_code(), 2);
}
