//! The name `Schema`: postcard's trait, and this crate's derive of it.

// The derive stands in front of the one that comes with the trait.
pub use derive::Schema;
pub use postcard_schema::*;
