//! Everything around running tasks: `doctor`, `config`, `completions`, `man`, `new`, `bench`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{cache, end, end_with, prebuilt, wasmpool};

/// The command with these words, and a cache that the tests share.
fn tool(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    command.env_clear().args(words).arg("--cache-dir").arg(cache());
    command
}

/// The same without flags of its own.
fn bare(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wasmpool"));
    command.env_clear().args(words);
    command
}

fn write(path: &Path, text: &str) {
    let folder = path.parent().expect("a folder");
    std::fs::create_dir_all(folder).and_then(|()| std::fs::write(path, text)).expect("writes");
}

// ── doctor ───────────────────────────────────────────────────────────────────

#[test]
fn a_doctor_looks_at_the_machine_and_has_a_hint_for_each_problem() {
    let ended = end(tool(&["doctor", "--workers", "1000"]).env("PATH", "/nowhere")).expect(0);
    let text = ended.text();
    for words in [
        "this machine\n",
        "hint: more workers than CPUs only wait for each other",
        "no rustc\n",
        "hint: guests in Rust cannot be compiled here",
        "\nattacks: ",
    ] {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let json = end(&mut tool(&["doctor", "--json", "--workers", "1"])).expect(0).json();
    let checks = json["machine"].as_array().expect("checks");
    let names: Vec<_> = checks.iter().filter_map(|check| check["name"].as_str()).collect();
    assert_eq!(names, ["CPUs", "memory", "open files", "stack", "overcommit", "cache", "tool-chain"]);
    assert_eq!(checks[0]["hint"], Value::Null);
}

#[test]
fn a_pool_has_the_walls_that_are_asked_for() {
    let run = |policy: &str| {
        let mut command = wasmpool("run", prebuilt("primes"));
        end(command.args(["count", "--input", "10", "-v", "--sandbox", policy]))
    };
    run("off").expect(0).says(" policy=off ");
    run("best-effort").expect(0).says(" policy=best-effort ");
    run("low").expect(2).says("[possible values: strict, best-effort, off]");
}

/// Returns what is said of a layer.
fn layer<'a>(page: &'a Value, name: &str) -> &'a Value {
    let layers = page["report"]["sandbox"]["layers"].as_array().expect("layers");
    layers.iter().find(|layer| layer["layer"] == name).unwrap_or_else(|| panic!("no {name}: {page}"))
}

#[test]
fn a_doctor_does_not_wait_for_a_compiler_that_hangs() {
    let bin = tempfile::tempdir().expect("a folder");
    let rustc = bin.path().join("rustc");
    std::fs::write(&rustc, "#!/bin/sh\nexec /bin/sleep 1000\n").expect("writes");
    std::fs::set_permissions(&rustc, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("sets");
    let ended = end(tool(&["doctor", "--workers", "1"]).env("PATH", bin.path())).expect(0);
    let page = String::from_utf8_lossy(&ended.stdout);
    assert!(page.contains("rustc does not answer within 5s"), "{page}");
}

#[test]
fn a_doctor_leaves_layers_out_or_all_others() {
    let doctor = |flags: &[&str]| end(tool(&["doctor", "--json"]).args(flags)).expect(0).json();
    let asked = |page: &Value| {
        ["Landlock", "NotDumpable", "Seccomp"].map(|name| layer(page, name)["requested"].as_bool())
    };
    assert_eq!(asked(&doctor(&[])), [Some(true); 3]);
    let without = doctor(&["--without", "landlock", "--without", "not-dumpable"]);
    assert_eq!(asked(&without), [Some(false), Some(false), Some(true)]);
    assert_eq!(asked(&doctor(&["--only", "seccomp"])), [Some(false), Some(false), Some(true)]);
    end(&mut tool(&["doctor", "--only", "walls"]))
        .expect(2)
        .says("there is no such layer; there are cgroup, ");
    end(&mut tool(&["doctor", "--only", "seccomp", "--without", "seccomp"]))
        .expect(2)
        .says("cannot be used with");
}

#[test]
fn a_doctor_shows_every_attack_if_asked_and_the_walls_of_a_pool_with_directories() {
    let shows = |flags: &[&str], words: &str| {
        end(tool(&["doctor"]).args(flags)).expect(0).text().lines().any(|line| line.contains(words))
    };
    let attack = "have processes accounted in a file";
    assert!(shows(&["--all"], attack) && !shows(&[], attack));
    let calls = |flags: &[&str]| {
        let page = end(tool(&["doctor", "--json"]).args(flags)).expect(0).json();
        layer(&page, "Seccomp")["reason"].as_str().expect("a reason").to_string()
    };
    assert!(calls(&["--dirs", "rw"]).contains(" of them for files"), "{}", calls(&["--dirs", "rw"]));
    assert_ne!(calls(&["--dirs", "ro"]), calls(&["--dirs", "rw"]), "who reads needs less");
    assert!(!calls(&[]).contains("for files"), "{}", calls(&[]));
    end(&mut tool(&["doctor", "--dirs", "all"])).expect(2).says("--dirs");
}

// ── config ───────────────────────────────────────────────────────────────────

/// Returns where the setting comes from, and what it is.
fn setting(command: &mut Command, key: &str) -> (String, String) {
    let json = end(command.arg("--json")).expect(0).json();
    let settings = json["settings"].as_array().expect("settings");
    let setting = settings.iter().find(|setting| setting["key"] == key).expect(key);
    let text = |field: &str| setting[field].as_str().expect("text").to_string();
    (text("value"), text("from"))
}

#[test]
fn a_flag_goes_before_a_variable_before_a_file_here_before_ones_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let home = folder.path().join("home");
    let own = home.join(".config/wasmpool/wasmpool.toml");
    let config = |flags: &[&str], variable: Option<&str>| {
        let mut command = bare(&["config"]);
        command.current_dir(folder.path()).env("HOME", &home).args(flags);
        if let Some(variable) = variable {
            command.env("WASMPOOL_WORKERS", variable);
        }
        setting(&mut command, "workers")
    };
    let pair = |value: &str, from: &str| (value.to_string(), from.to_string());
    assert_eq!(config(&[], None).1, "the default");
    write(&own, "workers = 5\nsandbox = \"strict\"\n");
    assert_eq!(config(&[], None), pair("5", &own.display().to_string()));
    write(&folder.path().join("wasmpool.toml"), "workers = 4\n");
    assert_eq!(config(&[], None), pair("4", "wasmpool.toml"));
    assert_eq!(config(&[], Some("3")), pair("3", "the environment variable WASMPOOL_WORKERS"));
    assert_eq!(config(&["--workers", "2"], Some("3")), pair("2", "the flag --workers"));
    let named = folder.path().join("named.toml");
    write(&named, "workers = 9\n");
    assert_eq!(config(&["--config", "named.toml"], None), pair("9", "named.toml"));
    let mut plain = bare(&["config"]);
    let page = end(plain.current_dir(folder.path()).env("HOME", &home)).expect(0).text();
    assert!(page.lines().any(|line| line.starts_with("sandbox ") && line.contains("strict")), "{page}");
}

#[test]
fn the_place_of_the_cache_is_the_one_that_is_used() {
    let cache = |variables: &[(&str, &str)]| {
        setting(bare(&["config"]).envs(variables.iter().copied()), "cache-dir").0
    };
    assert_eq!(cache(&[("HOME", "/home/me")]), "/home/me/.cache/wasmpool");
    assert_eq!(cache(&[("HOME", "/home/me"), ("XDG_CACHE_HOME", "/c")]), "/c/wasmpool");
    assert_eq!(cache(&[]), "none");
}

#[test]
fn what_a_file_says_holds_for_tasks() {
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("wasmpool.toml"), "timeout = \"200ms\"\nworkers = 1\n");
    let spin = |flags: &[&str]| {
        let mut command = wasmpool("run", prebuilt("echo"));
        command.current_dir(folder.path()).args(["spin", "--input", "1000000000000"]).args(flags);
        command
    };
    end(&mut spin(&[])).expect(1).says("200ms");
    end(&mut spin(&["--timeout", "100ms"])).expect(1).says("100ms");
    end(spin(&[]).env("WASMPOOL_TIMEOUT", "150ms")).expect(1).says("150ms");
    // A flag can take back what a variable says.
    let mut inspect = bare(&["inspect", "--no-cache"]);
    inspect.arg(prebuilt("primes")).env("WASMPOOL_CACHE_DIR", folder.path().join("cache"));
    end(&mut inspect).expect(0);
    assert!(!folder.path().join("cache").exists());
}

#[test]
fn a_file_that_is_wrong_is_refused_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |text: &str, says: &str| {
        write(&folder.path().join("wasmpool.toml"), text);
        end(bare(&["config"]).current_dir(folder.path())).expect(2).says("wasmpool.toml: ").says(says);
    };
    refused("workers = ", "line 1");
    refused("speed = 3", "there is no setting `speed`; there are workers, ");
    refused("timeout = \"soon\"", "`timeout`: invalid value 'soon'");
    refused("workers = [1]", "must be text or a number, not array");
    // A file that comes with somebody else's folder must not open the walls or write elsewhere.
    for trusted in ["sandbox = \"off\"", "cache-dir = \"here\"", "log-file = \"here\""] {
        refused(trusted, "is not taken from a file in the working directory");
    }
    end(&mut bare(&["config", "--config", "/nowhere/at/all"])).expect(2).says("there is no settings' file");
}

// ── every flag ───────────────────────────────────────────────────────────────

/// The flags that a page of help begins a line with.
fn flags(page: &str) -> impl Iterator<Item = &str> {
    let first = page.lines().filter_map(|line| line.trim_start().strip_prefix('-'));
    first.filter_map(|line| {
        let name = line.split("--").nth(1).or_else(|| line.strip_prefix('-'))?;
        name.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().filter(|name| !name.is_empty())
    })
}

#[test]
fn every_flag_is_in_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let files = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let tests: String = files.map(|file| std::fs::read_to_string(file).expect("text")).collect();
    let verbs =
        ["run", "map", "inspect", "bench", "test", "dev", "new", "doctor", "config", "completions", "man"];
    let pages: Vec<_> = verbs.map(|verb| end(&mut bare(&[verb, "--help"])).expect(0).text()).into();
    let all: std::collections::BTreeSet<_> = pages.iter().flat_map(|page| flags(page)).collect();
    assert!(all.len() > 50 && all.contains("joblog") && all.contains("quiet"), "{all:?}");
    let is_tested =
        |flag: &&&str| tests.contains(&format!("\"--{flag}\"")) || tests.contains(&format!("\"--{flag}="));
    let untested: Vec<_> = all.iter().filter(|flag| !is_tested(flag)).collect();
    assert!(untested.is_empty(), "{untested:?}");
}

// ── completions, man ─────────────────────────────────────────────────────────

#[test]
fn shells_are_told_of_every_command_and_flag() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = end(&mut bare(&["completions", shell])).expect(0).text();
        for word in ["map", "doctor", "joblog", "resume", "output-dir"] {
            assert!(script.contains(word), "{shell} is not told of {word}");
        }
    }
    end(&mut bare(&["completions", "tcsh"])).expect(2).says("possible values");
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    end(bare(&["man", "--dir"]).arg(folder.path().join("man"))).expect(0);
    for name in
        ["wasmpool", "wasmpool-run", "wasmpool-map", "wasmpool-bench", "wasmpool-new", "wasmpool-doctor"]
    {
        let path = folder.path().join("man").join(format!("{name}.1"));
        let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH NAME") && page.contains("EXIT CODES"), "{name}");
    }
    let page = end(&mut bare(&["man"])).expect(0).text();
    assert!(page.contains(".SH SUBCOMMANDS"), "{page}");
    // Tables and examples stay as they are.
    assert!(page.contains(".SH \"EXIT CODES\"\n.nf\n  0  success\n  1  the task failed"), "{page}");
}

// ── new ──────────────────────────────────────────────────────────────────────

#[test]
fn a_new_guest_of_either_kind_passes_its_own_test() {
    let folder = tempfile::tempdir().expect("a folder");
    for (kind, name) in [("command", "tool"), ("task", "hello-you")] {
        let mut command = bare(&["new", name, "--kind", kind]);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let ended = end(command.current_dir(folder.path())).expect(0);
        assert!(ended.text().starts_with(&format!("made {name}; next:\n  cd {name}\n  cargo test\n")));
        let crate_dir = folder.path().join(name);
        let readme = std::fs::read_to_string(crate_dir.join("README.md")).expect("reads");
        assert!(
            readme.contains("wasmpool run target/wasm32-") && readme.contains("wasmpool map target/wasm32-")
        );
        // The versions that this repository or package has, so that nothing is fetched.
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let locked =
            [here.join("../../Cargo.lock"), here.join("Cargo.lock")].into_iter().find(|path| path.is_file());
        std::fs::copy(locked.expect("a lock"), crate_dir.join("Cargo.lock")).expect("copies");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-guests");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["test", "--offline", "--quiet"]).current_dir(&crate_dir).env("CARGO_TARGET_DIR", target);
        let output = cargo.output().expect("cargo runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "{said}");
    }
}

#[test]
fn a_new_guest_in_another_language_has_all_that_its_commands_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let langs = [
        ("c", "wasmpool.h"),
        ("zig", "wasmpool.zig"),
        ("go", "wasmpool/wasmpool.go"),
        ("as", "assembly/wasmpool.ts"),
        ("js", "wit/world.wit"),
        ("python", "wit/world.wit"),
    ];
    for (lang, file) in langs {
        let ended = end(bare(&["new", lang, "--lang", lang]).current_dir(folder.path())).expect(0);
        assert!(ended.text().starts_with(&format!("made {lang}; next:\n  cd {lang}\n")), "{lang}");
        assert!(ended.text().contains("  wasmpool run tasks.wasm "), "{lang}: {}", ended.text());
        for file in [file, "README.md", "cases.toml", ".gitignore"] {
            assert!(folder.path().join(lang).join(file).is_file(), "{lang}: {file}");
        }
    }
    let mut command = bare(&["new", "tool", "--lang", "go", "--kind", "command"]);
    end(command.current_dir(folder.path())).expect(2).says("for WASI runs as it is");
}

#[test]
fn a_guest_that_cannot_be_made_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |words: &[&str], says: &str| {
        end(bare(words).current_dir(folder.path())).expect(2).says(says);
    };
    std::fs::create_dir(folder.path().join("there")).expect("a folder");
    refused(&["new", "there"], "is there already");
    refused(&["new", "Hello World"], "no name for a guest");
    refused(&["new", "hello", "--lang", "cobol"], "possible values");
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 1, "nothing was begun");
    // The crate is made without a compiler, too, and it is said what is missing.
    let ended = end(bare(&["new", "hello"]).current_dir(folder.path()).env("PATH", "/nowhere")).expect(0);
    ended.says("rustup target add wasm32-wasip1");
    assert!(folder.path().join("hello/src").is_dir());
}

// ── bench ────────────────────────────────────────────────────────────────────

#[test]
fn a_bench_is_no_profile() {
    let mut command = wasmpool("bench", prebuilt("echo"));
    end(command.args(["spin", "--input", "1", "--profile", "p.json"])).expect(2).says("run and map make one");
}

#[test]
fn a_bench_measures_latency_and_throughput_at_each_level() {
    let mut command = wasmpool("bench", prebuilt("echo"));
    command.args(["hash", "--input", "\"hello\"", "--time", "50ms", "--json", "-q", "--workers", "2"]);
    let json = end(&mut command).expect(0).json();
    let one = end(command.args(["--isolation", "reuse"])).expect(0).json();
    assert_eq!(one["levels"].as_array().map(Vec::len), Some(1));
    assert_eq!((&json["module"], &json["workers"]), (&"echo.wasm".into(), &2.into()));
    let levels = json["levels"].as_array().expect("levels");
    let names: Vec<_> = levels.iter().filter_map(|level| level["isolation"].as_str()).collect();
    assert_eq!(names, ["instance", "reuse"]);
    for level in levels {
        let number = |field: &str| level[field].as_f64().unwrap_or_else(|| panic!("no {field}: {level}"));
        let percentiles = ["p50_ns", "p90_ns", "p99_ns", "max_ns"].map(number);
        assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{percentiles:?}");
        assert!(number("calls") >= 1.0 && number("calls_per_second") > 0.0);
        let bars = level["histogram_ns"].as_array().expect("bars");
        let counted: u64 = bars.iter().filter_map(|bar| bar[1].as_u64()).sum();
        assert_eq!(counted as f64, number("calls"));
    }
}

#[test]
fn a_bench_draws_and_says_what_it_does_and_commands_have_one_level() {
    let mut command = wasmpool("bench", prebuilt("csv_stats"));
    let folder = tempfile::tempdir().expect("a folder");
    let csv = folder.path().join("a.csv");
    std::fs::write(&csv, "n\n1\n").expect("writes");
    command.args(["--time", "50ms", "--input-file"]).arg(&csv).args(["--", "--column", "n"]);
    let ended = end(&mut command).expect(0).says("measuring instance: 50ms for latency");
    let text = ended.text();
    assert!(text.starts_with("isolation ") && text.contains("\ninstance, one call at a time\n"), "{text}");
    assert!(text.contains("###") && !text.contains("reuse"), "{text}");
}

#[test]
fn a_bench_of_a_task_that_fails_is_no_bench() {
    let failing = |command: &mut Command| end_with(command.args(["--time", "50ms", "-q"]), "");
    failing(wasmpool("bench", prebuilt("primes")).args(["count", "--input", "-1"]))
        .expect(2)
        .says("expected u64");
    failing(wasmpool("bench", prebuilt("init_table")).args(["lookup", "--input", "0"])).expect(1);
    failing(wasmpool("bench", prebuilt("primes")).arg("count")).expect(2).says("needs an input");
    let mut command = wasmpool("bench", prebuilt("csv_stats"));
    end(command.args(["--time", "50ms", "-q", "--", "--column", "none"]))
        .expect(1)
        .says("calls that succeed");
}
