//! Numbers and bytes in a row.

use super::malformed;
use crate::status::{Error, Result};

#[derive(Default)]
pub(super) struct Writer(pub Vec<u8>);

/// Numbers, written and read with their own width.
macro_rules! numbers {
    ($($name:ident),*) => {
        impl Writer {
            $(pub fn $name(&mut self, value: $name) {
                self.0.extend_from_slice(&value.to_le_bytes());
            })*
        }
        impl Reader<'_> {
            $(pub fn $name(&mut self) -> Result<$name> {
                let bytes = self.bytes(size_of::<$name>())?;
                bytes.try_into().map($name::from_le_bytes).map_err(|_| cut())
            })*
        }
    };
}

numbers!(u8, u16, u32, i32, u64, f64);

impl Writer {
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn size(&mut self, size: usize) {
        self.u64(size as u64);
    }

    /// Bytes with their number before them.
    pub fn block(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.bytes(bytes);
    }

    /// The same, beginning at a multiple of `align` from the start of the message.
    pub fn aligned_block(&mut self, bytes: &[u8], align: usize) {
        self.size(bytes.len());
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.bytes(bytes);
    }
}

fn cut() -> Error {
    malformed("it ends too early")
}

pub(super) struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(whole: &'a [u8]) -> Self {
        Reader { whole, at: 0 }
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or_else(cut)?;
        let bytes = self.whole.get(self.at..end).ok_or_else(cut)?;
        self.at = end;
        Ok(bytes)
    }

    pub fn size(&mut self) -> Result<usize> {
        usize::try_from(self.u64()?).map_err(|_| malformed("a size is beyond this machine's"))
    }

    pub fn block(&mut self) -> Result<&'a [u8]> {
        let size = self.size()?;
        self.bytes(size)
    }

    pub fn aligned_block(&mut self, align: usize) -> Result<&'a [u8]> {
        let size = self.size()?;
        self.align(align)?;
        self.bytes(size)
    }

    /// Passes over what fills up to a multiple of `align`.
    pub fn align(&mut self, align: usize) -> Result<()> {
        self.bytes(self.at.next_multiple_of(align) - self.at).map(drop)
    }

    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.block()?).map_err(|_| malformed("a text is not UTF-8"))
    }

    pub fn end(self) -> Result<()> {
        if self.at == self.whole.len() { Ok(()) } else { Err(malformed("there is more after its end")) }
    }
}
