//! `test_shutdown.py`.
