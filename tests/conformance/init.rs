//! `test_init.py`.
