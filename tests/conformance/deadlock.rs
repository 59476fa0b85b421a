//! `test_deadlock.py`.
