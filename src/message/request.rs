//! A chunk of items on its way to a worker.

use super::wire::{Reader, Writer};
use super::{REQUEST, begin, malformed, open};
use crate::status::Result;
use crate::tasks::{Place, Reference};

/// Inline arrays begin at such multiples from the start of the message: a message that is itself so aligned is used in place.
pub(super) const ALIGN: usize = 64;

/// Bytes that a worker needs, or where it finds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Data<'a> {
    /// The caller passed NULL.
    #[default]
    None,
    /// In the message.
    Inline(&'a [u8]),
    /// In memory that both sides have mapped. The carrier knows what the number means.
    Shared {
        /// Which memory.
        block: u64,
        /// Where in it.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
}

/// What a task finds around it: the worker's part of the caller's context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Nesting level of the task.
    pub level: i32,
    /// Maps around the task.
    pub depth: u32,
    /// CPUs that it owns.
    pub cpus: i32,
    /// Threads of BLAS and OpenMP; 0 for no limit.
    pub limit: i32,
    /// Whether the caller named that number, so that it may also raise a count.
    pub limit_is_exact: bool,
    /// Backend of maps inside the task; empty for the default.
    pub backend: String,
    /// Their number of workers; 0 where not set.
    pub n_jobs: i32,
    /// Their inner limit; 0 where not set.
    pub inner: i32,
    /// Whether somebody chose that backend, rather than the nesting rule.
    pub backend_was_chosen: bool,
    /// The caller's floating-point mode, as the processor's kind names it.
    pub float: u64,
}

/// What is called for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `pb_task_fn`: elements of one size.
    Elements,
    /// A `pb_bytes_fn`: inputs and results are parcels of byte strings ([`super::pack`]); results come in the reply.
    Bytes,
}

/// Items `begin..end` of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    /// What is called.
    pub kind: Kind,
    /// The call that the chunk is part of: a random number, by which it is cancelled and its ctx kept; 0 where nobody needs it.
    pub call: u64,
    /// The task, as [`Request::encode_task`] wrote it: workers remember what they resolved by these bytes.
    pub task: &'a [u8],
    /// What it finds around it.
    pub around: Around,
    /// The worker's index.
    pub seat: u32,
    /// How many workers the map has.
    pub seats: u32,
    /// Run every item, whatever fails.
    pub collect_errors: bool,
    /// Seconds for one item; 0 for any.
    pub timeout: f64,
    /// The map's ctx.
    pub ctx: Data<'a>,
    /// First index.
    pub begin: u64,
    /// One past the last.
    pub end: u64,
    /// The chunk's inputs.
    pub inputs: Data<'a>,
    /// Bytes of one.
    pub input_size: u64,
    /// Where outputs go: `None` for none, `Inline` (empty) for into the reply.
    pub outputs: Data<'a>,
    /// Bytes of one.
    pub output_size: u64,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Request {
            kind: Kind::Elements,
            call: 0,
            task: &[],
            around: Around::default(),
            seat: 0,
            seats: 1,
            collect_errors: false,
            timeout: 0.0,
            ctx: Data::None,
            begin: 0,
            end: 0,
            inputs: Data::None,
            input_size: 0,
            outputs: Data::None,
            output_size: 0,
        }
    }
}

impl Data<'_> {
    /// Bytes of it in a message.
    fn len_inside(&self) -> usize {
        if let Data::Inline(bytes) = self { bytes.len() } else { 0 }
    }

    fn encode(&self, writer: &mut Writer) {
        match self {
            Data::None => writer.u8(0),
            Data::Inline(bytes) => {
                writer.u8(1);
                writer.aligned_block(bytes, ALIGN);
            }
            Data::Shared { block, offset, len } => {
                writer.u8(2);
                [block, offset, len].into_iter().for_each(|number| writer.u64(*number));
            }
        }
    }
}

fn data<'a>(reader: &mut Reader<'a>) -> Result<Data<'a>> {
    match reader.u8()? {
        0 => Ok(Data::None),
        1 => Ok(Data::Inline(reader.aligned_block(ALIGN)?)),
        2 => Ok(Data::Shared { block: reader.u64()?, offset: reader.u64()?, len: reader.u64()? }),
        other => Err(malformed(format_args!("there is no kind {other} of data"))),
    }
}

fn flag(reader: &mut Reader) -> Result<bool> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(malformed(format_args!("{other} is neither yes nor no"))),
    }
}

impl Around {
    fn encode(&self, writer: &mut Writer) {
        writer.i32(self.level);
        writer.u32(self.depth);
        [self.cpus, self.limit, self.n_jobs, self.inner].into_iter().for_each(|number| writer.i32(number));
        writer.u8(self.limit_is_exact.into());
        writer.u8(self.backend_was_chosen.into());
        writer.u64(self.float);
        writer.block(self.backend.as_bytes());
    }

    fn decode(reader: &mut Reader) -> Result<Around> {
        let (level, depth) = (reader.i32()?, reader.u32()?);
        let (cpus, limit, n_jobs, inner) = (reader.i32()?, reader.i32()?, reader.i32()?, reader.i32()?);
        if level < 0 || cpus < 1 || limit < 0 || inner < 0 {
            return Err(malformed("a number of its context is negative"));
        }
        let (limit_is_exact, backend_was_chosen) = (flag(reader)?, flag(reader)?);
        let float = reader.u64()?;
        let backend = reader.text()?.to_owned();
        Ok(Around {
            level,
            depth,
            cpus,
            limit,
            limit_is_exact,
            backend,
            n_jobs,
            inner,
            backend_was_chosen,
            float,
        })
    }
}

impl<'a> Request<'a> {
    /// The bytes that stand for a task.
    pub fn encode_task(task: &Reference) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.u8(task.name.is_some().into());
        writer.block(task.name.as_deref().unwrap_or_default().as_bytes());
        writer.u8(task.place.is_some().into());
        if let Some(Place { file, identity, symbol, offset }) = &task.place {
            [file.as_bytes(), identity, symbol.as_bytes()].into_iter().for_each(|bytes| writer.block(bytes));
            writer.u64(*offset);
        }
        writer.0
    }

    /// The task that those bytes stand for.
    pub fn decode_task(bytes: &[u8]) -> Result<Reference> {
        let mut reader = Reader::new(bytes);
        let named = flag(&mut reader)?;
        let name = reader.text()?.to_owned();
        let placed = flag(&mut reader)?;
        let place = placed.then(|| {
            Ok(Place {
                file: reader.text()?.to_owned(),
                identity: reader.block()?.to_owned(),
                symbol: reader.text()?.to_owned(),
                offset: reader.u64()?,
            })
        });
        let place = place.transpose()?;
        reader.end()?;
        Ok(Reference { name: named.then_some(name), place })
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        // 192: about all that has a fixed size, and short texts.
        let inside = [&self.ctx, &self.inputs].into_iter().map(Data::len_inside).sum::<usize>();
        let mut writer = begin(REQUEST, self.task.len() + inside + 192);
        writer.u8(self.kind as u8);
        writer.u64(self.call);
        writer.block(self.task);
        self.around.encode(&mut writer);
        [self.seat, self.seats].into_iter().for_each(|number| writer.u32(number));
        writer.u8(self.collect_errors.into());
        writer.f64(self.timeout);
        [self.begin, self.end, self.input_size, self.output_size]
            .into_iter()
            .for_each(|number| writer.u64(number));
        [self.ctx, self.inputs, self.outputs].into_iter().for_each(|data| data.encode(&mut writer));
        writer.0
    }

    /// Reads a message.
    pub fn decode(message: &'a [u8]) -> Result<Request<'a>> {
        let mut reader = open(message, REQUEST)?;
        let kind = match reader.u8()? {
            0 => Kind::Elements,
            1 => Kind::Bytes,
            other => return Err(malformed(format_args!("there is no kind {other} of task"))),
        };
        let call = reader.u64()?;
        let task = reader.block()?;
        let around = Around::decode(&mut reader)?;
        let (seat, seats) = (reader.u32()?, reader.u32()?);
        let collect_errors = flag(&mut reader)?;
        let timeout = reader.f64()?;
        let (begin, end) = (reader.u64()?, reader.u64()?);
        let (input_size, output_size) = (reader.u64()?, reader.u64()?);
        let (ctx, inputs, outputs) = (data(&mut reader)?, data(&mut reader)?, data(&mut reader)?);
        reader.end()?;
        let request = Request {
            kind,
            call,
            task,
            around,
            seat,
            seats,
            collect_errors,
            timeout,
            ctx,
            begin,
            end,
            inputs,
            input_size,
            outputs,
            output_size,
        };
        request.check()?;
        Ok(request)
    }

    /// How many items it has.
    pub fn items(&self) -> usize {
        (self.end - self.begin) as usize
    }

    /// Whether the parts fit each other.
    fn check(&self) -> Result<()> {
        let items = self.end.checked_sub(self.begin).filter(|items| *items > 0);
        let items = items.ok_or_else(|| malformed("it has no items"))?;
        if self.seat >= self.seats {
            return Err(malformed("its worker is none of the map's"));
        }
        if self.timeout.is_nan() || self.timeout < 0.0 {
            return Err(malformed("its timeout is no time"));
        }
        let fits = |data: &Data, size: u64, what: &str| {
            // What one process can have, so that sizes can be multiplied from here on.
            let bytes = items.checked_mul(size).filter(|bytes| *bytes <= isize::MAX as u64);
            let bytes =
                bytes.ok_or_else(|| malformed(format_args!("its {what} are more than memory can hold")))?;
            let has = match data {
                Data::None => return Ok(()),
                Data::Inline(inline) => inline.len() as u64,
                Data::Shared { len, .. } => *len,
            };
            if has == bytes { Ok(()) } else { Err(malformed(format_args!("its {what} have another size"))) }
        };
        if self.kind == Kind::Bytes {
            // What is in a parcel is checked when it is opened.
            let empty =
                matches!(self.outputs, Data::Inline(&[])) && self.input_size == 0 && self.output_size == 0;
            return if empty { Ok(()) } else { Err(malformed("a map of bytes has no elements")) };
        }
        fits(&self.inputs, self.input_size, "inputs")?;
        match self.outputs {
            Data::Inline(&[]) => fits(&Data::None, self.output_size, "outputs"),
            Data::Inline(_) => Err(malformed("it has outputs already")),
            outputs => fits(&outputs, self.output_size, "outputs"),
        }
    }
}
