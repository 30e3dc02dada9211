//! System calls that rustix does not have. The only place with `unsafe`.
