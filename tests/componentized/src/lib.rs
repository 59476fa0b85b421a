//! The tests of this package are all that it has: tests/componentized/tests.
