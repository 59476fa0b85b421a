//! Writes the seeds of a target into a directory: `seeds TARGET DIR`.

use std::path::Path;

use wasmpool_fuzz::targets;

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let [_, name, dir] = &args[..] else { panic!("usage: seeds TARGET DIR") };
    let (_, _, seeds) = targets::ALL.iter().find(|target| target.0 == name).expect("a target's name");
    for (index, seed) in seeds().iter().enumerate() {
        std::fs::write(Path::new(dir).join(format!("seed-{index:02}")), seed).expect("writes a seed");
    }
}
