//! Where the last N lines begin.
