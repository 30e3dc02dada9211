//! Kinds of file systems that both daemon and helper have to recognize.

/// `f_type` (statfs(2), `linux/magic.h`).
const KERNELS: [u32; 23] = [
    0x0000_1cd1, // devpts
    0x0000_9fa0, // proc
    0x0027_e0eb, // cgroup
    0x0765_5821, // resctrl
    0x0a64_7361, // functionfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x4341_5d53, // smackfs
    0x5a3c_69f0, // apparmorfs
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0x6265_6572, // sysfs
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x6573_5543, // fusectl
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x6e73_6673, // nsfs
    0x7363_6673, // securityfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0xf97c_ff8c, // selinuxfs
];

/// Whether a file system is the kernel's own interface (procfs, sysfs, cgroups and the like), by the
/// `f_type` of statfs(2): its files are settings of the host.
pub fn is_kernel_interface(f_type: impl Into<i128>) -> bool {
    // The type's width and sign are the machine's; magic numbers have 32 bits.
    let magic = f_type.into() & i128::from(u32::MAX);
    KERNELS.iter().any(|kernels| i128::from(*kernels) == magic)
}
