//! `test_as_completed.py`.
