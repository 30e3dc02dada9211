//! Files with holes: the old format of GNU tar, which everybody reads, and its format 1.0 in PAX
//! headers (tar's manual, "Storing Sparse Files").

use std::io;

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{BLOCK, Entry, Segment, bad, lossy};
use crate::FileError;

/// The most parts of one file.
pub(crate) const SEGMENTS: usize = 16 * 1024;
/// In a header, and in each block that follows it.
const IN_HEADER: usize = 4;
const IN_BLOCK: usize = 21;

/// Puts the map into a GNU header and gives the blocks that follow it.
pub(super) fn write_map(header: &mut Header, entry: &Entry, segments: &[Segment]) -> Vec<u8> {
    let mut map = segments.to_vec();
    if map
        .last()
        .is_none_or(|last| last.offset + last.len < entry.size)
    {
        // Tells where the last hole ends.
        map.push(Segment {
            offset: entry.size,
            len: 0,
        });
    }
    let (first, rest) = map.split_at(map.len().min(IN_HEADER));
    if let Some(gnu) = header.as_gnu_mut() {
        fill(&mut gnu.sparse, first);
        gnu.set_is_extended(!rest.is_empty());
        gnu.set_real_size(entry.size);
    }
    let mut blocks = Vec::new();
    for (n, chunk) in rest.chunks(IN_BLOCK).enumerate() {
        let mut block = GnuExtSparseHeader::new();
        fill(&mut block.sparse, chunk);
        block.set_is_extended((n + 1) * IN_BLOCK < rest.len());
        blocks.extend_from_slice(block.as_bytes());
    }
    blocks
}

fn fill(fields: &mut [GnuSparseHeader], segments: &[Segment]) {
    for (field, segment) in fields.iter_mut().zip(segments) {
        field.set_offset(segment.offset);
        field.set_length(segment.len);
    }
}

/// Reads the map of a GNU header; `block` reads the next one into its argument.
pub(super) fn read_map(
    header: &Header,
    path: &[u8],
    mut block: impl FnMut(&mut [u8]) -> Result<(), FileError>,
) -> Result<(u64, Vec<Segment>), FileError> {
    let wrong = |_: io::Error| malformed(path);
    let gnu = header.as_gnu().ok_or_else(|| malformed(path))?;
    let mut segments = Vec::new();
    take(&gnu.sparse, &mut segments).map_err(wrong)?;
    let mut more = gnu.is_extended();
    while more {
        let mut extension = GnuExtSparseHeader::new();
        block(extension.as_mut_bytes())?;
        take(&extension.sparse, &mut segments).map_err(wrong)?;
        if segments.len() > SEGMENTS + 1 {
            return Err(too_many(path));
        }
        more = extension.is_extended();
    }
    Ok((gnu.real_size().map_err(wrong)?, segments))
}

fn take(fields: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> io::Result<()> {
    for field in fields.iter().filter(|field| !field.is_empty()) {
        segments.push(Segment {
            offset: field.offset()?,
            len: field.length()?,
        });
    }
    Ok(())
}

/// Reads the map at the head of a content (format 1.0): numbers on lines of their own, filled up
/// to a whole block. Returns it with the bytes that it takes.
pub(super) fn read_lines(
    path: &[u8],
    mut block: impl FnMut(&mut [u8]) -> Result<(), FileError>,
) -> Result<(u64, Vec<Segment>), FileError> {
    let mut blocks = 0;
    let mut numbers = Vec::new();
    let mut wanted = None;
    let mut digits = Vec::new();
    while wanted.is_none_or(|wanted| numbers.len() < wanted) {
        let mut bytes = [0; BLOCK];
        block(&mut bytes)?;
        blocks += BLOCK as u64;
        for byte in bytes {
            if byte != b'\n' {
                digits.push(byte);
                continue;
            }
            let text = std::str::from_utf8(&digits).ok();
            let number: u64 = text
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| malformed(path))?;
            digits.clear();
            match wanted {
                None if number > SEGMENTS as u64 + 1 => return Err(too_many(path)),
                None => wanted = usize::try_from(2 * number).ok(),
                Some(_) => numbers.push(number),
            }
            if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                break;
            }
        }
        if digits.len() > 20 && wanted.is_none_or(|wanted| numbers.len() < wanted) {
            return Err(malformed(path));
        }
    }
    let pairs = numbers.chunks_exact(2);
    let segments = pairs.map(|pair| Segment {
        offset: pair[0],
        len: pair[1],
    });
    Ok((blocks, segments.collect()))
}

/// Checks a map against the file's size and the bytes that are stored.
pub(super) fn checked(
    path: &[u8],
    size: u64,
    stored: u64,
    segments: Vec<Segment>,
) -> Result<Vec<Segment>, FileError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for segment in &segments {
        let next = segment.offset.checked_add(segment.len);
        match next {
            Some(next) if segment.offset >= end && next <= size => end = next,
            _ => return Err(malformed(path)),
        }
        sum += segment.len;
    }
    match sum == stored && i64::try_from(size).is_ok() {
        true => Ok(segments),
        false => Err(malformed(path)),
    }
}

fn malformed(path: &[u8]) -> FileError {
    bad(&format!(
        "{}: a malformed map of a sparse file",
        lossy(path)
    ))
}

fn too_many(path: &[u8]) -> FileError {
    FileError::Limit {
        path: lossy(path),
        what: "parts of a sparse file".into(),
        limit: SEGMENTS as u64,
    }
}
