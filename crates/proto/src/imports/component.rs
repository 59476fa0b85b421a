//! The interfaces that a component may import: WASI 0.2 without its network, and what a pool gives to a guest.

/// The package of the interfaces that a pool gives to a guest, and its version.
pub const GUEST_PACKAGE: &str = "wasmpool:guest";
pub const GUEST_VERSION: &str = "0.1.0";

/// The interfaces of that package.
pub const GUEST_INTERFACES: [&str; 2] = ["log", "shared"];

/// The interfaces of WASI 0.2 that a worker provides, by package. Those of `wasi:sockets` are there since many tool-chains
/// import them whether or not a program uses them: each socket that is asked for is refused.
const WASI: [(&str, &[&str]); 6] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", &["preopens", "types"]),
    ("wasi:io", &["error", "poll", "streams"]),
    ("wasi:random", &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
    ),
];

/// Says whether a worker has what a component imports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provision {
    Provided,
    /// It is known, and is not given to a task, for this reason.
    Refused(&'static str),
    Unknown,
}

/// Returns whether a worker has an interface of this name, such as `wasi:cli/stdout@0.2.3`.
pub fn provision(name: &str) -> Provision {
    let (interface, version) =
        name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
    let Some((package, interface)) = interface.split_once('/') else { return Provision::Unknown };
    if package == GUEST_PACKAGE {
        let is_there = GUEST_INTERFACES.contains(&interface) && version == Some(GUEST_VERSION);
        return if is_there { Provision::Provided } else { Provision::Unknown };
    }
    match (package, version) {
        ("wasi:http", _) => {
            return Provision::Refused(
                "tasks have no network: build it without HTTP, and hand in what it needs as input",
            );
        }
        (_, Some(version)) if package.starts_with("wasi:") && !version.starts_with("0.2.") => {
            return Provision::Refused(if version.starts_with("0.3.") {
                "WASI 0.3 is not offered: build it for WASI 0.2"
            } else {
                "WASI 0.2 is offered, and no other"
            });
        }
        _ => {}
    }
    let interfaces = WASI.iter().find(|(provided, _)| *provided == package);
    match interfaces {
        Some((_, interfaces)) if interfaces.contains(&interface) && version.is_some() => Provision::Provided,
        _ => Provision::Unknown,
    }
}

/// Returns the names of all interfaces that are provided, of this version of WASI.
pub fn provided(wasi_version: &str) -> Vec<String> {
    let wasi = WASI.iter().flat_map(|(package, interfaces)| {
        interfaces.iter().map(move |interface| format!("{package}/{interface}@{wasi_version}"))
    });
    let guest =
        GUEST_INTERFACES.iter().map(|interface| format!("{GUEST_PACKAGE}/{interface}@{GUEST_VERSION}"));
    wasi.chain(guest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_of_wasi_0_2_is_provided_and_what_is_refused_says_why() {
        for name in provided("0.2.0").iter().chain(&provided("0.2.12")) {
            assert_eq!(provision(name), Provision::Provided, "{name}");
        }
        for (name, word) in [
            ("wasi:http/outgoing-handler@0.2.3", "network"),
            ("wasi:cli/stdout@0.3.0", "WASI 0.3"),
            ("wasi:filesystem/types@0.1.0", "WASI 0.2"),
        ] {
            assert!(matches!(provision(name), Provision::Refused(why) if why.contains(word)), "{name}");
        }
        for name in
            ["host", "a:b/c", "wasi:nn/graph@0.2.0", "wasi:cli/stdout", "wasmpool:guest/log@9.0.0", ""]
        {
            assert_eq!(provision(name), Provision::Unknown, "{name}");
        }
    }
}
