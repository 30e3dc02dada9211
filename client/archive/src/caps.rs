//! File capabilities in archives (capabilities(7), "File capability extended attribute
//! versioning").
//!
//! In a user namespace the kernel keeps the host's id of the namespace's root with a file's
//! capabilities (version 3). Archives have the container's view, as tools inside would write it.

/// `security.capability`.
const REVISION: u32 = 0xff00_0000;
const V1: u32 = 0x0100_0000;
const V2: u32 = 0x0200_0000;
const V3: u32 = 0x0300_0000;
const V1_LEN: usize = 12;
const V2_LEN: usize = 20;
const V3_LEN: usize = 24;

/// The value of `security.capability` for an archive. `inside` turns an id of the host into the
/// container's, `None` where it has none: then the capabilities count for nobody there.
pub fn capability_into_archive(
    value: &[u8],
    inside: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    match split(value) {
        (V3, V3_LEN) => Some(with_root(value, inside(root_of(value))?)),
        _ => Some(value.to_vec()),
    }
}

/// The value that an archive's `security.capability` gets on the disk. `on_host` turns an id of
/// the container into the host's, `None` where it has none.
pub fn capability_from_archive(
    value: &[u8],
    on_host: impl Fn(u32) -> Option<u32>,
) -> Option<Vec<u8>> {
    match split(value) {
        // The kernel reads it, and takes none (setxattr(2) answers EINVAL).
        (V1, V1_LEN) => {
            let value = version_2(value, [&value[4..], &[0; 8]].concat());
            Some(with_root(&value, on_host(0)?))
        }
        // On the disk that would be the host's root, and count for nobody in the container.
        (V2, V2_LEN) => Some(with_root(value, on_host(0)?)),
        (V3, V3_LEN) => Some(with_root(value, on_host(root_of(value))?)),
        _ => Some(value.to_vec()),
    }
}

fn split(value: &[u8]) -> (u32, usize) {
    (word(value, 0) & REVISION, value.len())
}

fn word(value: &[u8], at: usize) -> u32 {
    let bytes = value.get(at..at + 4).and_then(|b| b.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

fn root_of(value: &[u8]) -> u32 {
    word(value, V2_LEN)
}

fn version_2(value: &[u8], sets: Vec<u8>) -> Vec<u8> {
    let magic = word(value, 0) & !REVISION | V2;
    [&magic.to_le_bytes()[..], &sets].concat()
}

/// The same capabilities for another root: of version 2 where that is 0.
fn with_root(value: &[u8], root: u32) -> Vec<u8> {
    let sets = &value[4..V2_LEN];
    match root {
        0 => version_2(value, sets.to_vec()),
        root => {
            let magic = word(value, 0) & !REVISION | V3;
            [&magic.to_le_bytes()[..], sets, &root.to_le_bytes()].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CAP_NET_BIND_SERVICE, permitted and effective.
    fn value(revision: u32, sets: usize, root: Option<u32>) -> Vec<u8> {
        let mut value = (revision | 1).to_le_bytes().to_vec();
        value.extend((1u32 << 10).to_le_bytes());
        value.extend([0; 12].iter().take(4 * (2 * sets - 1)));
        value.extend(root.iter().flat_map(|root| root.to_le_bytes()));
        value
    }

    #[test]
    fn capabilities_have_the_containers_root_in_an_archive_and_the_hosts_on_the_disk() {
        let inside = |id: u32| id.checked_sub(700_000);
        let on_host = |id: u32| (id < 65_536).then_some(id + 700_000);
        let (v1, v2) = (value(V1, 1, None), value(V2, 2, None));
        assert_eq!((v1.len(), v2.len()), (V1_LEN, V2_LEN));
        let v3 = |root| value(V3, 2, Some(root));
        assert_eq!(
            capability_into_archive(&v3(700_000), inside),
            Some(v2.clone())
        );
        assert_eq!(capability_into_archive(&v3(700_005), inside), Some(v3(5)));
        assert_eq!(capability_into_archive(&v3(5), inside), None);
        assert_eq!(capability_into_archive(&v2, inside), Some(v2.clone()));
        assert_eq!(capability_from_archive(&v3(5), on_host), Some(v3(700_005)));
        assert_eq!(capability_from_archive(&v3(70_000), on_host), None);
        assert_eq!(capability_from_archive(&v1, on_host), Some(v3(700_000)));
        assert_eq!(capability_from_archive(&v2, on_host), Some(v3(700_000)));
        assert_eq!(capability_from_archive(&v1, Some), Some(v2.clone()));
        assert_eq!(capability_from_archive(&v2, Some), Some(v2.clone()));
        assert_eq!(capability_into_archive(&v2, Some), Some(v2));
        assert_eq!(
            capability_from_archive(b"junk", on_host),
            Some(b"junk".to_vec())
        );
    }
}
