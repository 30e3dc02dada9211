//! littlebox-plan
