//! What came of a chunk.

use super::wire::Reader;
use super::{Pieces, REPLY, begin, malformed, open};
use crate::status::{Error, Result, Status};

/// The longest text of a failure that travels.
const MAX_TEXT: usize = 4096;

/// How each item that ran ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses<'a> {
    /// All of them well.
    AllGood,
    /// One number for each, as in `pb_map_options.statuses`: little-endian, 4 bytes each.
    Each(&'a [u8]),
}

/// The first item that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which item of the chunk, from 0.
    pub item: u64,
    /// PB_ERR_TASK_FAILED or PB_ERR_TIMEOUT.
    pub status: Status,
    /// What the task returned.
    pub code: i32,
    /// Whether the chunk had been asked to end early before: then this may be how the task did so.
    pub asked: bool,
    /// For people.
    pub message: String,
}

/// A worker's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Why the chunk could not be run at all; then nothing of it has.
    pub refused: Option<(Status, &'a str)>,
    /// How many items have run, from the chunk's first on.
    pub ran: u64,
    /// How they ended.
    pub statuses: Statuses<'a>,
    /// The first that failed.
    pub failure: Option<Failure>,
    /// What they took altogether.
    pub nanoseconds: u64,
    /// Their outputs, where these travel in the reply.
    pub outputs: &'a [u8],
}

impl Default for Reply<'_> {
    fn default() -> Self {
        Reply {
            refused: None,
            ran: 0,
            statuses: Statuses::AllGood,
            failure: None,
            nanoseconds: 0,
            outputs: &[],
        }
    }
}

impl Statuses<'_> {
    /// How item `item` of the chunk ended.
    pub fn get(&self, item: usize) -> i32 {
        match self {
            Statuses::AllGood => 0,
            Statuses::Each(bytes) => {
                let status = bytes.get(item * 4..item * 4 + 4).and_then(|bytes| bytes.try_into().ok());
                status.map_or(Status::ERR_INTERNAL.0, i32::from_le_bytes)
            }
        }
    }
}

/// The beginning of a text that is not too long.
fn clip(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_TEXT)).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl<'a> Reply<'a> {
    /// The answer that a request cannot be run here.
    pub fn refusal(error: &Error) -> Vec<u8> {
        Reply { refused: Some((error.status, &error.message)), ..Reply::default() }.encode()
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Pieces::of(self.outputs)).into_bytes().into_owned()
    }

    /// The message with other outputs than its own.
    pub fn encode_with<'b>(&self, outputs: Pieces<'b>) -> Pieces<'b> {
        let mut writer = begin(REPLY, 64);
        let (status, text) = self.refused.unwrap_or((Status::OK, ""));
        writer.i32(status.0);
        writer.block(clip(text).as_bytes());
        writer.u64(self.ran);
        writer.u64(self.nanoseconds);
        match &self.failure {
            None => writer.u8(0),
            Some(Failure { item, status, code, asked, message }) => {
                writer.u8(if *asked { 2 } else { 1 });
                writer.u64(*item);
                writer.i32(status.0);
                writer.i32(*code);
                writer.block(clip(message).as_bytes());
            }
        }
        match self.statuses {
            Statuses::AllGood => writer.u8(0),
            Statuses::Each(each) => {
                writer.u8(1);
                writer.block(each);
            }
        }
        writer.size(outputs.len());
        let mut message = Pieces::of(writer.0);
        message.append(outputs);
        message
    }

    /// Reads a message.
    pub fn decode(message: &'a [u8]) -> Result<Reply<'a>> {
        let mut reader = open(message, REPLY)?;
        let (status, text) = (Status(reader.i32()?), reader.text()?);
        let refused = match status {
            Status::OK => None,
            status if status.is_known_error() => Some((status, text)),
            _ => return Err(malformed("its status is no error")),
        };
        let (ran, nanoseconds) = (reader.u64()?, reader.u64()?);
        let failure = match reader.u8()? {
            0 => None,
            kind @ (1 | 2) => Some(Failure { asked: kind == 2, ..read_failure(&mut reader, ran)? }),
            other => return Err(malformed(format_args!("there is no kind {other} of failure"))),
        };
        let statuses = match reader.u8()? {
            0 => Statuses::AllGood,
            1 => Statuses::Each(reader.block()?),
            other => return Err(malformed(format_args!("there is no kind {other} of statuses"))),
        };
        if matches!(statuses, Statuses::Each(each) if Some(each.len() as u64) != ran.checked_mul(4)) {
            return Err(malformed("it has another number of statuses than items"));
        }
        let outputs = reader.block()?;
        reader.end()?;
        Ok(Reply { refused, ran, statuses, failure, nanoseconds, outputs })
    }
}

fn read_failure(reader: &mut Reader, ran: u64) -> Result<Failure> {
    let (item, status, code, message) = (reader.u64()?, Status(reader.i32()?), reader.i32()?, reader.text()?);
    if item >= ran {
        return Err(malformed("an item failed that did not run"));
    }
    if status != Status::ERR_TASK_FAILED && status != Status::ERR_TIMEOUT {
        return Err(malformed("an item failed in no known way"));
    }
    Ok(Failure { item, status, code, asked: false, message: message.to_owned() })
}
