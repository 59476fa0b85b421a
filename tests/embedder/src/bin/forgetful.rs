//! Forgets `wasmpool::init()`: must end with a clear error, not with a fork bomb.

fn main() {
    match wasmpool::Pool::builder().workers(1).build() {
        Ok(_) => println!("built"),
        Err(error) => println!("refused: {error}"),
    }
}
