//! The frames between the library and its bridge, as `docs/bridge.md` lays them down: a header of fixed size, meta as JSON, a
//! body of bytes that may come as a descriptor.
//!
//! The decoder trusts nothing: every length is compared with its limit before a byte of it is awaited, what is taken is what
//! has arrived, and sizes inside a frame must add up to the frame's. Any bytes at all are either frames or an error
//! (`tests/frames.rs` feeds it broken ones). Descriptors arrive with the first byte of the frame that they belong to, and the
//! system keeps both in order: so a queue of descriptors beside the bytes is enough to match them.

use crate::status::{Error, Result, Status};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// The first bytes of every frame.
pub const MAGIC: [u8; 4] = *b"PBbr";
/// The protocol.
pub const VERSION: u16 = 1;
/// Bytes of a header.
pub const HEADER: usize = 32;
/// The most bytes of meta.
pub const META_MOST: usize = 1 << 20;
/// The most bytes of a body.
pub const BODY_MOST: u64 = 1 << 30;
/// A longer body travels in a file of its own.
pub const INLINE_MOST: usize = 1 << 20;
/// More descriptors than this wait for no frame.
const FILES_MOST: usize = 64;

/// Frames that the library sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Order {
    /// Opens the session.
    Hello = 1,
    /// Opens a call.
    Call = 2,
    /// Chunks of a call.
    Submit = 3,
    /// Asks a call to end early.
    Cancel = 4,
    /// A call is over.
    End = 5,
    /// The session is over.
    Shutdown = 6,
}

/// The meta of [`Order::Hello`].
#[derive(Debug, Serialize)]
pub struct Hello<'a> {
    /// `dask`, `ray` or `echo`.
    pub engine: &'a str,
    /// The library's version.
    pub version: &'a str,
    /// The library's file.
    pub library: &'a str,
    /// The parameters of the scope.
    pub options: &'a BTreeMap<String, String>,
    /// Seconds until the session must be ready.
    pub start_timeout: f64,
}

/// A file that workers need.
#[derive(Debug, Serialize)]
pub struct Shipped {
    /// Where it lies here.
    pub path: String,
    /// What tells this build from others, in hexadecimal digits.
    pub identity: String,
}

/// The meta of [`Order::Call`]; its body is ctx, where that is not inside the messages.
#[derive(Debug, Serialize)]
pub struct CallMeta {
    /// The task's library first.
    pub files: Vec<Shipped>,
    /// Bytes of ctx; 0 where it is inside the messages.
    pub ctx_size: u64,
    /// How often an item whose worker died is started again.
    pub retries: u32,
    /// Whether no item may be started twice.
    pub once_only: bool,
}

/// The meta of [`Order::Submit`]; its body are the messages.
#[derive(Debug, Default, Serialize)]
pub struct SubmitMeta {
    /// Number, bytes and items of each chunk.
    pub chunks: Vec<(u64, u64, u64)>,
}

/// What the engine says of itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Ready {
    /// Its name.
    pub engine: String,
    /// Its version.
    pub engine_version: String,
    /// The interpreter's version.
    pub python: String,
    /// Tasks that it runs at the same time.
    pub slots: u32,
    /// Seconds of its own work for a task.
    pub slot_cost: f64,
    /// Seconds of the shortest sensible chunk.
    pub least: f64,
    /// The most bytes of a chunk, there and back.
    pub chunk_bytes: u64,
    /// The most bytes on their way.
    pub credit: u64,
}

/// A reply that came: where it lies in the body, for which chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The chunk's number.
    pub seq: u64,
    /// The reply's bytes in the body.
    pub place: std::ops::Range<usize>,
    /// How often the engine started the chunk.
    pub attempts: u32,
    /// Where it ran.
    pub worker: String,
}

/// A chunk whose worker died.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    /// The chunk's number.
    pub seq: u64,
    /// How often the engine started it.
    pub attempts: u32,
    /// The worker.
    pub worker: String,
    /// What became of it, to follow "its worker".
    pub how: String,
}

/// What the bridge says.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// The session can be used.
    Ready(Ready),
    /// The session is over.
    Fatal(Error),
    /// Replies, and the body that they lie in.
    Results(Vec<Answer>, Vec<u8>),
    /// Chunks whose workers died.
    Lost(Vec<Lost>),
    /// The call cannot go on.
    Failed(Error),
    /// So many tasks run at the same time from now on.
    Slots(u32),
    /// A cancelled call is over, but for so many chunks, which run there.
    Cancelled(u64, Vec<String>),
    /// For people: a level and a text.
    Log(String, String),
}

fn malformed(why: impl std::fmt::Display) -> Error {
    Error::new(Status::ERR_INTERNAL, format!("the bridge sent what is no frame: {why}"))
}

/// The bytes of a frame before its body. `inline` is 0 where the body comes as a descriptor.
pub fn encode(
    order: Order,
    call: u64,
    meta: &impl Serialize,
    inline: usize,
    attached: bool,
) -> Result<Vec<u8>> {
    let meta =
        serde_json::to_vec(meta).map_err(|error| Error::new(Status::ERR_INTERNAL, error.to_string()))?;
    if meta.len() > META_MOST {
        let message = format!("{} bytes of description for the bridge are more than {META_MOST}", meta.len());
        return Err(Error::new(Status::ERR_UNSUPPORTED, message));
    }
    let mut bytes = Vec::with_capacity(HEADER + meta.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((order as u16).to_le_bytes());
    bytes.extend(call.to_le_bytes());
    bytes.extend((meta.len() as u32).to_le_bytes());
    bytes.extend(u32::from(attached).to_le_bytes());
    bytes.extend((inline as u64).to_le_bytes());
    bytes.extend(meta);
    Ok(bytes)
}

/// Cuts what arrives into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// What was cut off already.
    at: usize,
    files: VecDeque<OwnedFd>,
}

/// The header of a frame whose bytes may still be on their way.
struct Header {
    kind: u16,
    call: u64,
    meta: usize,
    attached: bool,
    body: usize,
}

impl Header {
    fn read(bytes: &[u8; HEADER]) -> Result<Header> {
        let word = |at: usize, size: usize| {
            bytes[at..at + size].iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let (version, kind, call) = (word(4, 2), word(6, 2) as u16, word(8, 8));
        let (meta, attached, body) = (word(16, 4), word(20, 4), word(24, 8));
        if version != u64::from(VERSION) {
            return Err(malformed(format_args!("it has version {version} of the protocol")));
        }
        if !(16..=23).contains(&kind) {
            return Err(malformed(format_args!("there is no frame of type {kind}")));
        }
        if meta > META_MOST as u64 || body > BODY_MOST {
            let why = format_args!("type {kind} announces {meta} bytes of meta and {body} of body");
            return Err(malformed(why));
        }
        if attached > 1 || (attached == 1 && body > 0) {
            let why = format_args!("type {kind} announces {attached} descriptors and {body} bytes of body");
            return Err(malformed(why));
        }
        Ok(Header { kind, call, meta: meta as usize, attached: attached == 1, body: body as usize })
    }
}

impl Decoder {
    /// Takes what has arrived.
    pub fn feed(&mut self, bytes: &[u8], file: Option<OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.files.extend(file);
    }

    /// Whether the stream would end inside a frame.
    pub fn is_in_the_middle(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// The next frame that is whole: its call, and what it says.
    pub fn next_word(&mut self) -> Result<Option<(u64, Word)>> {
        if self.files.len() > FILES_MOST {
            return Err(malformed("descriptors arrive that no frame has announced"));
        }
        let rest = &self.bytes[self.at..];
        let begins_well = rest.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic);
        if !begins_well {
            return Err(malformed("it begins differently"));
        }
        let Some(header) = rest.first_chunk::<HEADER>() else {
            self.tidy();
            return Ok(None);
        };
        let header = Header::read(header)?;
        let (meta_end, end) = (HEADER + header.meta, HEADER + header.meta + header.body);
        let Some(frame) = rest.get(..end) else {
            self.tidy();
            return Ok(None);
        };
        let meta = frame[HEADER..meta_end].to_vec();
        let body = match header.attached {
            false => frame[meta_end..].to_vec(),
            true => {
                let file = self.files.pop_front();
                read_file(file.ok_or_else(|| malformed("a descriptor that it announces did not come"))?)?
            }
        };
        self.at += end;
        Ok(Some((header.call, word(header.kind, &meta, body)?)))
    }

    /// Lets go of what was cut off.
    fn tidy(&mut self) {
        self.bytes.drain(..self.at);
        self.at = 0;
        if self.bytes.is_empty() {
            // One large frame must not keep its memory for ever.
            self.bytes.shrink_to(INLINE_MOST);
        }
    }
}

/// A body that came as a file. It is read, not mapped: who has the other end may still shorten it.
fn read_file(file: OwnedFd) -> Result<Vec<u8>> {
    let cannot = |error: std::io::Error| malformed(format_args!("its body cannot be read: {error}"));
    let file = File::from(file);
    let about = file.metadata().map_err(cannot)?;
    if !about.is_file() || about.len() > BODY_MOST {
        return Err(malformed(format_args!("its body came as something else, of {} bytes", about.len())));
    }
    let mut body = Vec::new();
    body.try_reserve_exact(about.len() as usize).map_err(|_| {
        let message =
            format!("no memory for {} bytes of results: use smaller chunks (batch_size)", about.len());
        Error::new(Status::ERR_OUT_OF_MEMORY, message)
    })?;
    body.resize(about.len() as usize, 0);
    file.read_exact_at(&mut body, 0).map_err(cannot)?;
    Ok(body)
}

#[derive(Deserialize)]
struct Trouble {
    status: String,
    text: String,
}

impl Trouble {
    fn error(self) -> Error {
        let known = (Status::ERR_INTERNAL.0..0).map(Status).find(|status| status.name() == self.status);
        Error::new(known.unwrap_or(Status::ERR_INTERNAL), self.text)
    }
}

#[derive(Deserialize)]
struct Results {
    chunks: Vec<(u64, u64, u32, String)>,
}

#[derive(Deserialize)]
struct Losses {
    chunks: Vec<(u64, u32, String, String)>,
}

#[derive(Deserialize)]
struct Slots {
    slots: u32,
}

#[derive(Deserialize)]
struct Cancelled {
    running: u64,
    workers: Vec<String>,
}

#[derive(Deserialize)]
struct Log {
    level: String,
    text: String,
}

fn read<'a, T: Deserialize<'a>>(kind: u16, meta: &'a [u8]) -> Result<T> {
    serde_json::from_slice(meta).map_err(|error| malformed(format_args!("the meta of type {kind}: {error}")))
}

/// What a frame says.
fn word(kind: u16, meta: &[u8], body: Vec<u8>) -> Result<Word> {
    Ok(match kind {
        16 => Word::Ready(ready(read(kind, meta)?)?),
        17 => Word::Fatal(read::<Trouble>(kind, meta)?.error()),
        18 => Word::Results(answers(read(kind, meta)?, body.len())?, body),
        19 => {
            let Losses { chunks } = read(kind, meta)?;
            let lost = |(seq, attempts, worker, how)| Lost { seq, attempts, worker, how };
            Word::Lost(chunks.into_iter().map(lost).collect())
        }
        20 => Word::Failed(read::<Trouble>(kind, meta)?.error()),
        21 => Word::Slots(read::<Slots>(kind, meta)?.slots),
        22 => {
            let Cancelled { running, workers } = read(kind, meta)?;
            Word::Cancelled(running, workers)
        }
        _ => {
            let Log { level, text } = read(kind, meta)?;
            Word::Log(level, text)
        }
    })
}

fn ready(ready: Ready) -> Result<Ready> {
    let is_time = |seconds: f64| (0.0..1e6).contains(&seconds);
    if !is_time(ready.slot_cost) || !is_time(ready.least) || ready.chunk_bytes == 0 || ready.credit == 0 {
        return Err(malformed(format_args!("numbers of READY that cannot be: {ready:?}")));
    }
    Ok(ready)
}

/// The replies' places in a body of `len` bytes, which they fill.
fn answers(results: Results, len: usize) -> Result<Vec<Answer>> {
    let mut at = 0_usize;
    let mut answers = Vec::with_capacity(results.chunks.len());
    for (seq, size, attempts, worker) in results.chunks {
        let end = usize::try_from(size).ok().and_then(|size| at.checked_add(size));
        let end =
            end.filter(|end| *end <= len).ok_or_else(|| malformed("its replies are longer than its body"))?;
        answers.push(Answer { seq, place: at..end, attempts, worker });
        at = end;
    }
    if at != len {
        return Err(malformed("its replies are shorter than its body"));
    }
    Ok(answers)
}
