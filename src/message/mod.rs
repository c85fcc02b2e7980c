//! The one format in which work leaves the process: a chunk of items as a request, and what came of it as a reply.
//!
//! Every carrier - loky's shared memory, a C backend's pipe, Dask, Ray, MPI - ships these bytes and looks no further. A message
//! begins with [`MAGIC`] and [`VERSION`]; two versions do not mix, and say so. All numbers are little-endian; sizes and
//! indexes have 64 bits. The decoder trusts nothing: every length is compared with what is left before it is used, so any
//! bytes at all are either a message or an error (`tests/message.rs` feeds it broken ones).

mod marks;
mod parcel;
mod pieces;
mod reply;
mod request;
mod wire;

pub use marks::Marks;
pub use parcel::{pack, unpack};
pub use pieces::Pieces;
pub use reply::{Failure, Reply, Statuses};
pub use request::{Around, Data, Kind, Request};

use crate::status::{Error, Status};
use wire::{Reader, Writer};

/// The first bytes of every message.
pub const MAGIC: [u8; 4] = *b"PBms";
/// The format. It grows with every change: both sides are the same version of the library, or the receiver says no.
pub const VERSION: u16 = 3;

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("this is no message of parallel_backend: {why}"))
}

/// Bytes of the magic, the version and the kind.
const HEAD: usize = MAGIC.len() + 4;

/// A message with room for `size` bytes after its head.
fn begin(kind: u16, size: usize) -> Writer {
    let mut writer = Writer(Vec::with_capacity(HEAD + size));
    writer.bytes(&MAGIC);
    writer.u16(VERSION);
    writer.u16(kind);
    writer
}

fn open(message: &[u8], kind: u16) -> Result<Reader<'_>, Error> {
    let mut reader = Reader::new(message);
    if reader.bytes(4)? != MAGIC {
        return Err(malformed("it begins differently"));
    }
    let version = reader.u16()?;
    if version != VERSION {
        return Err(Error::new(
            Status::ERR_ABI,
            format!(
                "the message has format {version}, this library (version {}) reads format {VERSION}: caller and worker must \
                 have the same version of parallel_backend",
                env!("CARGO_PKG_VERSION")
            ),
        ));
    }
    if reader.u16()? != kind {
        return Err(malformed(if kind == REQUEST {
            "it is a reply, not a chunk"
        } else {
            "it is a chunk, not a reply"
        }));
    }
    Ok(reader)
}
