//! The codec of messages, fed what it wrote and what it did not: cut, flipped and stitched bytes must end as an error or as
//! some message, never as a panic or a huge allocation. Deterministic: the same mutations at every run.

use parallel_backend::message::{
    Around, Data, Failure, Kind, MAGIC, Reply, Request, Statuses, VERSION, pack, unpack,
};
use parallel_backend::status::Status;
use parallel_backend::tasks::{self, Place, Reference};
use parallel_backend::worker::{Alone, Worker};

fn reference() -> Reference {
    Reference {
        name: Some("saxpy".into()),
        place: Some(Place {
            file: "/lib/libtask.so".into(),
            identity: vec![1, 2, 3, 4],
            symbol: "saxpy".into(),
            offset: 4711,
        }),
    }
}

fn around() -> Around {
    Around {
        level: 2,
        depth: 3,
        cpus: 4,
        limit: 2,
        backend: "threading".into(),
        n_jobs: -1,
        ..Around::default()
    }
}

fn request(task: &[u8]) -> Request<'_> {
    Request {
        task,
        around: around(),
        seat: 1,
        seats: 2,
        collect_errors: true,
        timeout: 0.5,
        ctx: Data::Inline(b"context"),
        begin: 10,
        end: 13,
        inputs: Data::Inline(b"abcdef"),
        input_size: 2,
        outputs: Data::Inline(&[]),
        output_size: 8,
        ..Request::default()
    }
}

/// The same with what lies elsewhere, or nothing at all, in every place.
fn requests(task: &[u8]) -> [Request<'_>; 4] {
    let shared = Data::Shared { block: 9, offset: 64, len: 24 };
    let nothing = Data::None;
    [
        request(task),
        Request { ctx: nothing, inputs: nothing, outputs: nothing, ..request(task) },
        Request { outputs: shared, ctx: shared, ..request(task) },
        Request { kind: Kind::Bytes, input_size: 0, output_size: 0, ..request(task) },
    ]
}

fn parcel() -> Vec<u8> {
    pack([Some(&b"one"[..]), None, Some(b""), Some(&[7; 50])].into_iter()).into_bytes().into_owned()
}

fn reply() -> Reply<'static> {
    let failure = Failure {
        item: 1,
        status: Status::ERR_TASK_FAILED,
        code: 7,
        asked: false,
        message: "item 11 failed".into(),
    };
    Reply {
        ran: 3,
        statuses: Statuses::Each(&[0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]),
        failure: Some(failure),
        nanoseconds: 99,
        outputs: &[5; 24],
        ..Reply::default()
    }
}

fn refusal() -> Reply<'static> {
    Reply { refused: Some((Status::ERR_TASK_NOT_PORTABLE, "no")), ..Reply::default() }
}

#[test]
fn what_was_written_is_read() {
    let task = Request::encode_task(&reference());
    assert_eq!(Request::decode_task(&task).unwrap(), reference());
    let nameless = Reference { name: None, ..reference() };
    assert_eq!(Request::decode_task(&Request::encode_task(&nameless)).unwrap(), nameless);
    for request in requests(&task) {
        assert_eq!(Request::decode(&request.encode()).unwrap(), request);
    }
    let asked = Failure { asked: true, ..reply().failure.unwrap() };
    for reply in [Reply::default(), reply(), Reply { failure: Some(asked), ..reply() }, refusal()] {
        assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
    }
}

#[test]
fn inline_arrays_begin_at_multiples_of_64() {
    let task = Request::encode_task(&reference());
    let message = request(&task).encode();
    let Data::Inline(inputs) = Request::decode(&message).unwrap().inputs else { panic!("inline") };
    assert_eq!((inputs.as_ptr() as usize - message.as_ptr() as usize) % 64, 0);
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    let task = Request::encode_task(&reference());
    let good = request(&task);
    for (wrong, why) in [
        (Request { end: 10, ..good.clone() }, "no items"),
        (Request { begin: 14, ..good.clone() }, "no items"),
        (Request { end: 14, ..good.clone() }, "inputs have another size"),
        (Request { input_size: u64::MAX, ..good.clone() }, "more than memory"),
        (Request { output_size: u64::MAX / 2, ..good.clone() }, "outputs are more than memory"),
        (Request { seat: 2, ..good.clone() }, "worker is none"),
        (Request { timeout: f64::NAN, ..good.clone() }, "timeout"),
        (Request { around: Around { cpus: 0, ..around() }, ..good.clone() }, "context"),
        (Request { outputs: Data::Inline(b"x"), ..good.clone() }, "outputs already"),
    ] {
        let error = Request::decode(&wrong.encode()).unwrap_err();
        assert!(error.message.contains(why), "{why}: {error}");
    }
    let late = Failure { item: 3, ..reply().failure.unwrap() };
    let wrong = Reply { failure: Some(late), ..reply() };
    assert!(Reply::decode(&wrong.encode()).unwrap_err().message.contains("did not run"));
    let wrong = Reply { ran: 2, ..reply() };
    assert!(Reply::decode(&wrong.encode()).unwrap_err().message.contains("another number of statuses"));
}

#[test]
fn another_version_says_so() {
    let task = Request::encode_task(&reference());
    let mut message = request(&task).encode();
    message[MAGIC.len()..][..2].copy_from_slice(&(VERSION + 1).to_le_bytes());
    let error = Request::decode(&message).unwrap_err();
    assert_eq!(error.status, Status::ERR_ABI);
    assert!(error.message.contains("same version"), "{error}");
    assert!(Reply::decode(&request(&task).encode()).unwrap_err().message.contains("not a reply"));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let message = "é".repeat(5000);
    let failure = Failure { message, ..reply().failure.unwrap() };
    let bytes = Reply { failure: Some(failure), ..reply() }.encode();
    let text = Reply::decode(&bytes).unwrap().failure.unwrap().message;
    assert_eq!(text.chars().count(), 2048);
}

/// xorshift64*: enough to be arbitrary, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end.max(1)
    }
}

fn decode_all(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert!(request.items() > 0);
        let _ = Request::decode_task(request.task);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        (0..usize::try_from(reply.ran).unwrap_or(0).min(10)).for_each(|item| {
            let _ = reply.statuses.get(item);
        });
    }
    let _ = Request::decode_task(bytes);
    let count = bytes.get(..8).and_then(|count| count.try_into().ok()).map_or(4, u64::from_le_bytes);
    let _ = unpack(bytes, count);
}

/// One of each kind of message, and of what travels in one.
fn seeds() -> Vec<Vec<u8>> {
    let task = Request::encode_task(&reference());
    let requests = requests(&task).map(|request| request.encode());
    let replies = [reply(), refusal()].map(|reply| reply.encode());
    requests.into_iter().chain(replies).chain([task.clone(), parcel()]).collect()
}

#[test]
fn what_is_cut_anywhere_is_an_error() {
    for seed in seeds() {
        for end in 0..seed.len() {
            let cut = &seed[..end];
            let is_any = Request::decode(cut).is_ok()
                || Reply::decode(cut).is_ok()
                || Request::decode_task(cut).is_ok()
                || unpack(cut, 4).is_ok();
            assert!(!is_any, "cut at {end} of {}", seed.len());
        }
    }
}

extern "C" fn nothing() {}

#[test]
fn more_items_than_memory_can_count_are_refused_by_a_worker() {
    let reference = tasks::reference(nothing as *const () as usize, None).unwrap();
    let task = Request::encode_task(&reference);
    for kind in [Kind::Elements, Kind::Bytes] {
        let none = Data::None;
        let request =
            Request { kind, ctx: none, inputs: none, input_size: 0, output_size: 0, ..request(&task) };
        let message = Request { end: 1 << 60, ..request }.encode();
        Worker::default().run(&message, Alone::new(), |reply| {
            let bytes = reply.into_bytes();
            let (status, text) = Reply::decode(&bytes).unwrap().refused.unwrap();
            assert_eq!(status, Status::ERR_OUT_OF_MEMORY, "{text}");
        });
    }
}

#[test]
fn broken_messages_are_errors() {
    let seeds = seeds();
    for bytes in &seeds {
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            decode_all(&flipped);
        }
    }
    let mut random = Random(4711);
    for _ in 0..20_000 {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(8) {
            let (at, len) = (random.below(bytes.len()), random.below(9));
            let end = (at + len).min(bytes.len());
            match random.below(4) {
                0 => bytes[at..end].fill(random.below(256) as u8),
                1 => bytes[at..end].fill(255),
                2 => drop(bytes.drain(at..end)),
                _ => {
                    let other = &seeds[random.below(seeds.len())];
                    let from = random.below(other.len());
                    bytes.splice(at..end, other[from..].iter().copied().take(len * 4));
                }
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        decode_all(&bytes);
    }
}
