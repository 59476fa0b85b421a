//! The samples' own algorithms, compiled for this machine: the guests' sources as they are.

#[path = "../../guest-tasks/kernels/src/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a guest, and its tests")]
pub(crate) mod kernels;
#[path = "../../guest-tasks/mandelbrot/src/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a guest, and its tests")]
pub(crate) mod mandelbrot;
#[path = "../../guest-tasks/monte_carlo/src/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a guest, and its tests")]
pub(crate) mod monte_carlo;
#[path = "../../guest-tasks/primes/src/lib.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "a guest, and its tests")]
pub(crate) mod primes;
