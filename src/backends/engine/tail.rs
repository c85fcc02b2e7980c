//! What the bridge has printed: its last 64 KiB, for error texts. Nothing of it is printed by the library, and what looks like
//! a secret of the environment is left out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// So much is kept.
const KEPT: usize = 64 << 10;
/// So much of it is quoted.
const QUOTED: usize = 2 << 10;
/// What is in the names of variables whose values are nobody's business.
const SECRET: [&str; 5] = ["TOKEN", "SECRET", "PASSW", "CREDENTIAL", "_KEY"];
/// A shorter value is in every text.
const SHORTEST_SECRET: usize = 6;

/// The end of what was printed.
#[derive(Debug)]
pub struct Tail {
    /// The pipe, until its end.
    file: Option<File>,
    bytes: VecDeque<u8>,
}

impl Tail {
    /// Of what comes through a pipe that does not block.
    pub fn new(pipe: OwnedFd) -> Tail {
        Tail { file: Some(File::from(pipe)), bytes: VecDeque::new() }
    }

    /// To be waited for.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.file.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Takes what is there.
    pub fn read(&mut self) {
        let mut some = [0; 4096];
        // Somebody who prints without end must not keep us here.
        for _ in 0..64 {
            match self.file.as_mut().map(|file| file.read(&mut some)) {
                Some(Ok(0)) | None => {
                    self.file = None;
                    return;
                }
                Some(Ok(count)) => self.keep(&some[..count]),
                Some(Err(_)) => return,
            }
        }
    }

    /// Takes what was said in another way, as a line.
    pub fn note(&mut self, line: &str) {
        self.keep(line.as_bytes());
        self.keep(b"\n");
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let over = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..over);
    }

    /// The last lines, to follow the text of an error; empty where nothing was printed.
    pub fn quote(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = redact(&String::from_utf8_lossy(&bytes), std::env::vars_os());
        let text = text.trim();
        let mut from = text.len().saturating_sub(QUOTED);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        let text = match text[from..].split_once('\n') {
            Some((_, lines)) if from > 0 => lines,
            _ => &text[from..],
        };
        if text.is_empty() { String::new() } else { format!("; its last lines: {text}") }
    }
}

/// Leaves out the values of variables that look like secrets, and passwords in addresses.
fn redact(text: &str, variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let is_secret = |name: &OsString| {
        let name = name.to_string_lossy().to_uppercase();
        SECRET.iter().any(|part| name.contains(part))
    };
    let secrets = variables.filter(|(name, value)| is_secret(name) && value.len() >= SHORTEST_SECRET);
    // A value that is no UTF-8 has lost in the text what it loses here.
    let leave_out = |text: String, (_, value): (_, OsString)| text.replace(&*value.to_string_lossy(), "***");
    let mut text = secrets.fold(text.to_owned(), leave_out);
    let mut at = 0;
    while let Some(found) = text[at..].find("://") {
        at += found + 3;
        let host = text[at..].find(|c: char| c.is_whitespace() || "/'\"".contains(c));
        let host = host.map_or(text.len(), |len| at + len);
        if let Some(user) = text[at..host].rfind('@') {
            text.replace_range(at..at + user, "***");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn tail(printed: &[u8]) -> Tail {
        let mut tail = Tail { file: None, bytes: VecDeque::new() };
        tail.keep(printed);
        tail
    }

    #[test]
    fn the_last_lines_are_quoted_whole() {
        assert_eq!(tail(b"").quote(), "");
        assert_eq!(tail(b"one\ntwo\n").quote(), "; its last lines: one\ntwo");
        let many: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
        let tail = tail(many.as_bytes());
        assert_eq!(tail.bytes.len(), KEPT);
        let quote = tail.quote();
        assert!(quote.ends_with("line 99999") && quote.len() < QUOTED + 30);
        assert!(quote.starts_with("; its last lines: line "), "{quote}");
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        assert!(tail(&[0xff; KEPT + 7]).quote().contains('\u{fffd}'));
    }

    #[test]
    fn secrets_are_left_out() {
        let variables = [("RAY_AUTH_TOKEN", "abcdef123"), ("MY_KEY", "x"), ("HOME", "/home/me")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let text = "token abcdef123 of /home/me at tls://me:pw@host:1/x and tcp://h:2 x";
        assert_eq!(
            redact(text, variables.into_iter()),
            "token *** of /home/me at tls://***@host:1/x and tcp://h:2 x"
        );
    }
    #[test]
    fn variables_may_be_any_bytes() {
        let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let variables = [(bytes(b"\xff"), bytes(b"caf\xe9")), (bytes(b"MY_TOKEN"), bytes(b"abc\xe9def"))];
        let text = String::from_utf8_lossy(b"caf\xe9 for abc\xe9def").into_owned();
        assert_eq!(redact(&text, variables.into_iter()), "caf\u{fffd} for ***");
    }
}
