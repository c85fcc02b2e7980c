//! The frames of the bridge, as the library reads them, fed what a bridge sends and what none would: cut, flipped and stitched
//! bytes must end as an error or as some word, never as a panic or a huge allocation. Deterministic: the same mutations at
//! every run.
#![cfg(target_os = "linux")]

use parallel_backend::backends::engine::frames::{Answer, Decoder, HEADER, MAGIC, Word};
use parallel_backend::status::Status;
use std::os::fd::OwnedFd;

/// A frame as the bridge would write it.
fn frame(kind: u16, call: u64, meta: &str, attached: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(1_u16.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(call.to_le_bytes());
    bytes.extend((meta.len() as u32).to_le_bytes());
    bytes.extend(attached.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(meta.as_bytes());
    bytes.extend(body);
    bytes
}

const READY: &str = r#"{"engine":"echo","engine_version":"","python":"3.11.2","slots":4,"slot_cost":0.0001,"least":0.001,
    "chunk_bytes":1000,"credit":4000,"more":"what a newer bridge says besides"}"#;

/// One of each, with the call 7.
fn all() -> Vec<Vec<u8>> {
    vec![
        frame(16, 0, READY, 0, b""),
        frame(17, 0, r#"{"status":"PB_ERR_TIMEOUT","text":"no scheduler"}"#, 0, b""),
        frame(18, 7, r#"{"chunks":[[0,3,1,"w1"],[5,2,2,"w2"]]}"#, 0, b"abcde"),
        frame(19, 7, r#"{"chunks":[[3,1,"w","was killed by signal 9"]]}"#, 0, b""),
        frame(20, 7, r#"{"status":"PB_ERR_TASK_NOT_PORTABLE","text":"no such library"}"#, 0, b""),
        frame(21, 0, r#"{"slots":9}"#, 0, b""),
        frame(22, 7, r#"{"running":2,"workers":["w1","w2"]}"#, 0, b""),
        frame(23, 0, r#"{"level":"warning","text":"slow"}"#, 0, b""),
    ]
}

/// The words in some bytes; whatever is wrong with them ends the list.
fn words(bytes: &[u8]) -> (Vec<(u64, Word)>, Option<parallel_backend::status::Error>) {
    let mut decoder = Decoder::default();
    let mut words = Vec::new();
    // As a stream brings them: in pieces that know nothing of frames.
    for piece in bytes.chunks(17) {
        decoder.feed(piece, None);
        loop {
            match decoder.next_word() {
                Ok(Some(word)) => words.push(word),
                Ok(None) => break,
                Err(error) => return (words, Some(error)),
            }
        }
    }
    (words, None)
}

fn error_of(bytes: &[u8]) -> String {
    words(bytes).1.map_or_else(|| "no error".to_owned(), |error| error.message.clone())
}

#[test]
fn every_word_is_understood() {
    let (words, error) = words(&all().concat());
    assert_eq!((words.len(), error), (8, None));
    let Word::Ready(ready) = &words[0].1 else { panic!("{:?}", words[0]) };
    assert_eq!((ready.slots, ready.credit), (4, 4000));
    let Word::Fatal(error) = &words[1].1 else { panic!("{:?}", words[1]) };
    assert_eq!((error.status, &error.message[..]), (Status::ERR_TIMEOUT, "no scheduler"));
    let answer = |seq, place, attempts, worker: &str| Answer { seq, place, attempts, worker: worker.into() };
    let answers = vec![answer(0, 0..3, 1, "w1"), answer(5, 3..5, 2, "w2")];
    assert_eq!(words[2], (7, Word::Results(answers, b"abcde".to_vec())));
    assert!(matches!(&words[3].1, Word::Lost(lost) if lost[0].how == "was killed by signal 9"));
    assert!(matches!(&words[4].1, Word::Failed(error) if error.status == Status::ERR_TASK_NOT_PORTABLE));
    assert_eq!(words[5], (0, Word::Slots(9)));
    assert_eq!(words[6], (7, Word::Cancelled(2, vec!["w1".into(), "w2".into()])));
    assert_eq!(words[7].1, Word::Log("warning".into(), "slow".into()));
}

#[test]
fn what_is_wrong_is_said() {
    for (bytes, why) in [
        (b"HTTP/1.1 200 OK".to_vec(), "begins differently"),
        (frame(99, 0, "{}", 0, b""), "no frame of type 99"),
        (frame(1, 0, "{}", 0, b""), "no frame of type 1"),
        (frame(18, 7, "{}", 2, b""), "2 descriptors"),
        (frame(18, 7, "{}", 1, b"x"), "1 descriptors and 1 bytes of body"),
        (frame(18, 7, "{}", 1, b""), "did not come"),
        (frame(18, 7, "nonsense", 0, b""), "meta of type 18"),
        (frame(18, 7, r#"{"chunks":[[0,4,1,"w"]]}"#, 0, b"abc"), "longer than its body"),
        (frame(18, 7, r#"{"chunks":[[0,2,1,"w"]]}"#, 0, b"abc"), "shorter than its body"),
        (
            frame(18, 7, r#"{"chunks":[[0,18446744073709551615,1,"w"],[1,9,1,"w"]]}"#, 0, b"a"),
            "longer than its body",
        ),
        (frame(16, 0, &READY.replace("0.001", "-1"), 0, b""), "numbers of READY"),
        (frame(16, 0, &READY.replace("4000", "0"), 0, b""), "numbers of READY"),
        (frame(21, 0, r#"{"slots":-1}"#, 0, b""), "meta of type 21"),
        (frame(18, 7, &"[".repeat(100_000), 0, b""), "meta of type 18"),
    ] {
        let message = error_of(&bytes);
        assert!(message.contains(why), "{why:?}: {message}");
    }
    let mut other = frame(21, 0, "{}", 0, b"");
    other[4] = 2;
    assert!(error_of(&other).contains("version 2"));
}

#[test]
fn sizes_beyond_the_limits_are_refused_before_their_bytes_are_awaited() {
    let mut large = frame(18, 7, "", 0, b"");
    large[24..32].copy_from_slice(&((1_u64 << 30) + 1).to_le_bytes());
    assert!(error_of(&large).contains("1073741825 of body"));
    let mut large = frame(18, 7, "", 0, b"");
    large[16..20].copy_from_slice(&((1_u32 << 20) + 1).to_le_bytes());
    assert!(error_of(&large).contains("1048577 bytes of meta"));
}

fn file(bytes: &[u8]) -> OwnedFd {
    parallel_backend::link::segment::sealed(&[bytes]).unwrap()
}

#[test]
fn a_body_may_come_as_a_file() {
    let mut decoder = Decoder::default();
    let bytes = [frame(18, 7, r#"{"chunks":[[0,3,1,"w"]]}"#, 1, b""), frame(21, 0, r#"{"slots":1}"#, 0, b"")]
        .concat();
    decoder.feed(&bytes, Some(file(b"abc")));
    assert!(matches!(decoder.next_word(), Ok(Some((7, Word::Results(_, body)))) if body == b"abc"));
    assert_eq!(decoder.next_word(), Ok(Some((0, Word::Slots(1)))));
    assert_eq!(decoder.next_word(), Ok(None));
    assert!(!decoder.is_in_the_middle());
}

#[test]
fn a_body_that_is_no_file_or_too_many_of_them_are_refused() {
    let mut decoder = Decoder::default();
    let (pipe, _other) = parallel_backend::link::stream::pipe().unwrap();
    decoder.feed(&frame(18, 7, r#"{"chunks":[]}"#, 1, b""), Some(pipe));
    assert!(decoder.next_word().unwrap_err().message.contains("something else"));
    let mut decoder = Decoder::default();
    (0..65).for_each(|_| decoder.feed(b"", Some(file(b"x"))));
    assert!(decoder.next_word().unwrap_err().message.contains("no frame has announced"));
}

#[test]
fn a_stream_that_ends_in_a_frame_is_seen() {
    let whole = all().concat();
    let mut decoder = Decoder::default();
    decoder.feed(&whole[..whole.len() - 1], None);
    while let Ok(Some(_)) = decoder.next_word() {}
    assert!(decoder.is_in_the_middle());
}

/// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

#[test]
fn broken_bytes_do_no_harm() {
    let mut random = Random(4711);
    let (mut refused, mut understood) = (0, 0);
    for round in 0..20_000 {
        let mut bytes: Vec<u8> = all().concat();
        for _ in 0..1 + round % 4 {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] ^= 1 << random.below(8),
                1 => bytes[at] = random.below(256) as u8,
                2 => bytes.truncate(at.max(1)),
                _ => {
                    let from = random.below(bytes.len());
                    let piece = bytes[from..bytes.len().min(from + random.below(HEADER * 2))].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        match words(&bytes) {
            (_, Some(error)) => {
                assert!(!error.message.is_empty());
                refused += 1;
            }
            (words, None) => understood += words.len(),
        }
    }
    // Both happen all the time, or the test tests nothing.
    assert!(refused > 1000 && understood > 1000, "{refused} {understood}");
}
