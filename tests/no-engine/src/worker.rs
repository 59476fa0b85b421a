//! The pools of this package's tests start their children from this program.

fn main() {
    engine::main();
}
