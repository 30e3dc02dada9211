//! littlebox-tests
