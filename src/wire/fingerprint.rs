//! The build's fingerprint: both sides must speak the very same wire.
//!
//! A worker is started from the host's own executable, so this only ever differs for
//! [`worker_program`](crate::PoolBuilder::worker_program), or for cached artifacts.

/// Hash of the version and of the sources that define the wire, the engine's settings and what is cached.
pub(crate) const BUILD: u64 = {
    let mut hash = fnv(0xcbf2_9ce4_8422_2325, env!("CARGO_PKG_VERSION").as_bytes());
    hash = fnv(hash, include_bytes!("message.rs"));
    hash = fnv(hash, include_bytes!("frame.rs"));
    hash = fnv(hash, include_bytes!("ring.rs"));
    hash = fnv(hash, include_bytes!("bell.rs"));
    hash = fnv(hash, include_bytes!("../schema.rs"));
    hash = fnv(hash, include_bytes!("../limits.rs"));
    hash = fnv(hash, include_bytes!("../limits/compile.rs"));
    hash = fnv(hash, include_bytes!("../error/module.rs"));
    hash = fnv(hash, include_bytes!("../module.rs"));
    hash = fnv(hash, include_bytes!("../module/code.rs"));
    hash = fnv(hash, include_bytes!("../compile/choice.rs"));
    hash = fnv(hash, include_bytes!("../compile/settings.rs"));
    hash = fnv(hash, include_bytes!("../compile/describe.rs"));
    hash = fnv(hash, include_bytes!("../compile/section.rs"));
    hash = fnv(hash, include_bytes!("../compile/cache.rs"));
    fnv(hash, include_bytes!("../../Cargo.toml"))
};

/// FNV-1a, 64 bits: no defence against malice, and none is needed between halves of one program.
const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash
}
