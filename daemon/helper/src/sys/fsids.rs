//! setfsuid(2) and setfsgid(2).

/// Sets the ids that this thread makes and opens files with. A change from 0 to another user id
/// takes the file system capabilities out of the effective set; back to 0 gives them back.
pub fn set_fs_ids(uid: u32, gid: u32) {
    // SAFETY: both take plain numbers; what they return is the previous id, never an error.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}
