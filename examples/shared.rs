//! A large input that many tasks share: sent once to each worker, freed when nobody has it any longer.

use wasmpool::Pool;

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = Pool::builder().workers(2).build()?;
    let find = pool.load_file("prebuilt/lookup.wasm")?.task::<String, Option<String>>("find")?;

    // Sorted lines, `key<TAB>value`: 20 MB.
    let lines: String =
        (0..1_000_000u32).map(|n| format!("{n:08}\tsquare {:>4}\n", u64::from(n).pow(2))).collect();
    let table = pool.share(lines)?;

    let keys = (0..1_000_000).step_by(10_007).map(|n| format!("{n:08}"));
    for found in pool.task(&find).shared(&table).map(keys) {
        println!("{}", found?.unwrap_or_default());
    }
    Ok(())
}
