//! A task's future is a `std::future::Future`: any executor will do, here tokio's.

fn main() -> anyhow::Result<()> {
    wasmpool::init();
    let pool = wasmpool::Pool::builder().workers(2).build()?;
    let factors = pool.load_file("guest-tasks/prebuilt/init_table.wasm")?.task::<u32, Vec<u32>>("lookup")?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (first, second) = (pool.submit(&factors, &1001)?, pool.submit(&factors, &131_072)?);
        println!("1001 = {:?}", first.await?);
        println!("131072 = {:?}", second.await?);
        anyhow::Ok(())
    })
}
