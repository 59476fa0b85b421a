//! `test_wait.py`.
