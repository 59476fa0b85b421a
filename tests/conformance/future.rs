//! `test_future.py`.
