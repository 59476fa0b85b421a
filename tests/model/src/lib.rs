//! This library is empty: the tests include the sources that they check.
