//! Inputs that many tasks share.

use bytes::Bytes;

use super::Pool;
use crate::error::ShareError;
use crate::shared_input::SharedInput;

impl Pool {
    /// Copies a large input once to where workers map it, for tasks that are given it with
    /// [`TaskOptions::shared`](crate::TaskOptions::shared): a table, an index, a model. Each worker is
    /// sent it (a descriptor: no byte is copied again) with the first task that has it, and the machine's
    /// memory holds it once, however many workers there are. Guests read from it what they want, with
    /// the SDK's `wasmpool_guest::shared` or the imports `shared_len` and `shared_read`; nobody
    /// can write to it.
    ///
    /// It is freed when the last clone of the handle and the last task that was given it are gone. At
    /// most [`PoolBuilder::shares_max`](crate::PoolBuilder::shares_max) of
    /// [`PoolBuilder::share_bytes_max`](crate::PoolBuilder::share_bytes_max) bytes each are there at a time.
    ///
    /// ```no_run
    /// # fn main() -> anyhow::Result<()> {
    /// # wasmpool::init();
    /// let pool = wasmpool::Pool::new()?;
    /// let find = pool.load_file("lookup.wasm")?.task::<String, Option<String>>("find")?;
    /// let table = pool.share(std::fs::read("table.tsv")?)?;
    /// let found = pool.task(&find).shared(&table).submit("key")?.result()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn share(&self, bytes: impl Into<Bytes>) -> Result<SharedInput, ShareError> {
        let bytes = bytes.into();
        let handle = self.here().ok_or(ShareError::OtherProcess)?;
        let core = &handle.core;
        let settings = &core.settings;
        handle.shares.share(core.id, &bytes, settings.held.share_bytes_max, settings.held.shares_max)
    }
}
