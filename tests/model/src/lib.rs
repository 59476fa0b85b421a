//! Nothing: the tests include the sources that they check.
