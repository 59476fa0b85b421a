//! The fuzz targets that need the insides of the host: its core and links against workers that lie, its cache against
//! files that change, the texts of its errors. `fuzz/` runs them, beside those that the other crates' public items are
//! enough for; nothing here is for embedders.
//!
//! Each target is a function of bytes that panics where a promise is broken.

pub mod cache;
pub mod host_link;
mod input;
pub mod text;

pub use input::Input;

/// Runs the work, which may then hold at most so many bytes more than are held now, and takes a second of CPU time at
/// most. Only the program can hold it to that, since the allocator is the program's.
pub type Bounded = fn(usize, &mut dyn FnMut());

/// Runs work that has a result.
fn within<T>(bounded: Bounded, bytes: usize, work: impl FnOnce() -> T) -> T {
    let mut work = Some(work);
    let mut result = None;
    bounded(bytes, &mut || result = work.take().map(|work| work()));
    result.expect("the work was run")
}
