//! Error numbers by name (errno(3)), as x86, ARM and RISC-V have them.

/// The number of an errno.
pub(super) fn number(name: &str) -> Option<u16> {
    let alias = match name {
        "EWOULDBLOCK" => "EAGAIN",
        "EDEADLOCK" => "EDEADLK",
        "ENOTSUP" => "EOPNOTSUPP",
        name => name,
    };
    let bare = alias.strip_prefix('E').filter(|bare| *bare != "-")?;
    (1..)
        .zip(NAMES.split(' '))
        .find(|(_, known)| *known == bare)
        .map(|(n, _)| n)
}

/// In their order from 1, without the E; a dash where there is none (`asm-generic/errno.h`).
const NAMES: &str = "PERM NOENT SRCH INTR IO NXIO 2BIG NOEXEC BADF CHILD AGAIN NOMEM ACCES FAULT \
NOTBLK BUSY EXIST XDEV NODEV NOTDIR ISDIR INVAL NFILE MFILE NOTTY TXTBSY FBIG NOSPC SPIPE ROFS \
MLINK PIPE DOM RANGE DEADLK NAMETOOLONG NOLCK NOSYS NOTEMPTY LOOP - NOMSG IDRM CHRNG L2NSYNC \
L3HLT L3RST LNRNG UNATCH NOCSI L2HLT BADE BADR XFULL NOANO BADRQC BADSLT - BFONT NOSTR NODATA \
TIME NOSR NONET NOPKG REMOTE NOLINK ADV SRMNT COMM PROTO MULTIHOP DOTDOT BADMSG OVERFLOW NOTUNIQ \
BADFD REMCHG LIBACC LIBBAD LIBSCN LIBMAX LIBEXEC ILSEQ RESTART STRPIPE USERS NOTSOCK DESTADDRREQ \
MSGSIZE PROTOTYPE NOPROTOOPT PROTONOSUPPORT SOCKTNOSUPPORT OPNOTSUPP PFNOSUPPORT AFNOSUPPORT \
ADDRINUSE ADDRNOTAVAIL NETDOWN NETUNREACH NETRESET CONNABORTED CONNRESET NOBUFS ISCONN NOTCONN \
SHUTDOWN TOOMANYREFS TIMEDOUT CONNREFUSED HOSTDOWN HOSTUNREACH ALREADY INPROGRESS STALE UCLEAN \
NOTNAM NAVAIL ISNAM REMOTEIO DQUOT NOMEDIUM MEDIUMTYPE CANCELED NOKEY KEYEXPIRED KEYREVOKED \
KEYREJECTED OWNERDEAD NOTRECOVERABLE RFKILL HWPOISON";

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, n) in [
            ("EPERM", 1),
            ("EAGAIN", 11),
            ("EWOULDBLOCK", 11),
            ("ENOSYS", 38),
            ("ENOMSG", 42),
            ("EBFONT", 59),
            ("ENOTSUP", 95),
            ("EAFNOSUPPORT", 97),
            ("EHWPOISON", 133),
        ] {
            assert_eq!(number(name), Some(n), "{name}");
        }
        for none in ["", "E", "E-", "PERM", "EX"] {
            assert_eq!(number(none), None, "{none}");
        }
    }
}
