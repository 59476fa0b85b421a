//! `test_process_pool.py`.
