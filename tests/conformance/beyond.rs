//! What Python does not test, and this pool must.
