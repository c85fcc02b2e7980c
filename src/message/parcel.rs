//! Byte strings of any sizes in one: the inputs, or the results, of a chunk of a map of bytes.
//!
//! Their number, then the size of each ([`NONE`] for one that there is not), then the strings, each from a multiple of
//! [`ALIGN`] on, so that numbers in them lie as a compiler expects where the parcel itself does.

use super::wire::{Reader, Writer};
use super::{Pieces, malformed};
use crate::status::Result;

const ALIGN: usize = 16;
/// The size of a string that there is not.
const NONE: u64 = u64::MAX;
/// A longer string is a piece of its own; shorter ones are copied together.
const LONG: usize = 4096;

/// Packs strings.
pub fn pack<'a>(strings: impl ExactSizeIterator<Item = Option<&'a [u8]>> + Clone) -> Pieces<'a> {
    let mut writer = Writer::default();
    writer.size(strings.len());
    strings.clone().for_each(|string| writer.u64(string.map_or(NONE, |string| string.len() as u64)));
    let mut pieces = Pieces::default();
    for string in strings.flatten() {
        let at = pieces.len() + writer.0.len();
        writer.0.resize(writer.0.len() + at.next_multiple_of(ALIGN) - at, 0);
        if string.len() < LONG {
            writer.bytes(string);
        } else {
            pieces.push(std::mem::take(&mut writer.0));
            pieces.push(string);
        }
    }
    pieces.push(writer.0);
    pieces
}

/// The strings of a parcel, which must have so many.
pub fn unpack(parcel: &[u8], count: u64) -> Result<Vec<Option<&[u8]>>> {
    let mut reader = Reader::new(parcel);
    if reader.u64()? != count {
        return Err(malformed("a parcel has another number of strings"));
    }
    let count = usize::try_from(count).ok().and_then(|count| count.checked_mul(8));
    let sizes = reader.bytes(count.ok_or_else(|| malformed("a parcel is beyond this machine's size"))?)?;
    let mut strings = Vec::with_capacity(sizes.len() / 8);
    for size in sizes.chunks_exact(8) {
        let size = u64::from_le_bytes(size.try_into().unwrap_or_default());
        if size == NONE {
            strings.push(None);
            continue;
        }
        reader.align(ALIGN)?;
        let size = usize::try_from(size).map_err(|_| malformed("a string is beyond this machine's size"))?;
        strings.push(Some(reader.bytes(size)?));
    }
    reader.end()?;
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let long = [8; LONG + 1];
        let strings = [Some(&b"one"[..]), None, Some(&long), Some(b""), Some(&[7; 100]), Some(&long)];
        let parcel = pack(strings.iter().copied());
        assert_eq!(parcel.iter().count(), 4, "long ones are not copied together");
        assert_eq!(unpack(&parcel.into_bytes(), 6).unwrap(), strings);
        assert_eq!(unpack(&pack([].into_iter()).into_bytes(), 0).unwrap(), [None; 0]);
    }

    #[test]
    fn what_is_none_is_refused() {
        let parcel = pack([Some(&b"one"[..]), None].into_iter()).into_bytes();
        assert!(unpack(&parcel, 3).is_err());
        for end in 0..parcel.len() {
            assert!(unpack(&parcel[..end], 2).is_err());
        }
        let mut lies = parcel.to_vec();
        lies[8..16].fill(0x7f);
        assert!(unpack(&lies, 2).is_err());
        lies[..8].fill(0x20);
        assert!(unpack(&lies, 0x2020_2020_2020_2020).is_err(), "and nothing is allocated for it");
    }
}
