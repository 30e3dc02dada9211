//! Files of `/proc` and of cgroups hold names that a container chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use littleboxd::procfs;

fuzz_target!(|text: &str| {
    let _ = procfs::parse_stat(text);
    let _ = procfs::parse_status(text);
    let _ = procfs::parse_net_dev(text);
    let _ = procfs::parse_flat(text, "oom_kill");
    let _ = procfs::parse_io_stat(text);
    let _ = procfs::parse_blkio(text);
    let _ = procfs::parse_limit(text);
    let _ = procfs::parse_pressure(text);
});
