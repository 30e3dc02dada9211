//! Keys: keyctl(2).

use rustix::io::Result;

use super::check;

/// Replaces this process' session keyring by a fresh one without a name
/// (`KEYCTL_JOIN_SESSION_KEYRING` with a null pointer, keyctl_join_session_keyring(3)).
pub fn join_new_session_keyring() -> Result<()> {
    let no_name = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed and asks for a keyring without a name.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, no_name) })
        .map(drop)
}
