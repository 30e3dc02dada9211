//! littlebox-bench
