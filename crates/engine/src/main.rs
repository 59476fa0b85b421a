//! The program that a pool starts its children from, where the embedder's own executable has no engine.

fn main() {
    wasmpool_engine::main();
}
