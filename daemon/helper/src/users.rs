//! The container's own user database: `/etc/passwd` and `/etc/group`, never trusted.
