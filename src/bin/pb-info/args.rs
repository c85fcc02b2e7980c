//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub const USAGE: &str = "\
usage: pb-info [--json] [--load LIBRARY...] [--plugin LIBRARY...]
       pb-info trace FILE [-o PICTURE.svg]
       pb-info --help | --version
";

pub const HELP: &str = "\
pb-info: what parallel_backend sees here - CPUs, backends, thread pools - and what a map would use

usage: pb-info [--json] [--load LIBRARY...] [--plugin LIBRARY...]
       pb-info trace FILE [-o PICTURE.svg]
       pb-info --help | --version

  --json               print JSON instead of text
  --load LIBRARY...    first load these libraries, by path, or by name as the dynamic loader finds them
  --plugin LIBRARY...  then load these plugins, which add their backends
  trace FILE           instead: the figures of a timeline that PB_TRACE=FILE or pb_trace_start has written
  -o PICTURE.svg       and draw it
  --help, -h           print this text
  --version, -V        print the version

Exit status: 0 when the report was printed, 1 when a library or a file could not be loaded, 2 for a wrong command line.
";

/// What one run is to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Version,
    Report(Args),
    Trace(Trace),
}

/// Which timeline is to be shown.
#[derive(Debug, Default, PartialEq)]
pub struct Trace {
    pub file: PathBuf,
    /// The picture to draw.
    pub out: Option<PathBuf>,
}

/// What a report is to show.
#[derive(Debug, Default, PartialEq)]
pub struct Args {
    pub json: bool,
    pub load: Vec<PathBuf>,
    pub plugins: Vec<PathBuf>,
}

/// Reads the arguments after the program's name; says what is wrong with them.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Command, String> {
    let mut args = Args::default();
    let mut words = words.peekable();
    if words.next_if(|word| word == "trace").is_some() {
        return trace(words).map(Command::Trace);
    }
    while let Some(word) = words.next() {
        let list = match word.to_str() {
            Some("--help" | "-h") => return Ok(Command::Help),
            Some("--version" | "-V") => return Ok(Command::Version),
            Some("--json") => {
                args.json = true;
                continue;
            }
            Some("--load") => &mut args.load,
            Some("--plugin") => &mut args.plugins,
            _ => return Err(format!("unknown argument {}", word.to_string_lossy())),
        };
        let before = list.len();
        while let Some(library) = words.next_if(|word| !word.to_string_lossy().starts_with('-')) {
            list.push(library.into());
        }
        if list.len() == before {
            return Err(format!("{} needs a library", word.to_string_lossy()));
        }
    }
    Ok(Command::Report(args))
}

fn trace(mut words: impl Iterator<Item = OsString>) -> Result<Trace, String> {
    let (mut file, mut out) = (None, None);
    while let Some(word) = words.next() {
        let (place, value) = match word.to_str() {
            Some("-o") => (&mut out, words.next().ok_or("-o needs a file")?),
            Some(option) if option.starts_with('-') => return Err(format!("unknown argument {option}")),
            _ => (&mut file, word),
        };
        if let Some(first) = place.replace(PathBuf::from(value)) {
            return Err(format!("one file at a time: {} is the first", first.display()));
        }
    }
    Ok(Trace { file: file.ok_or("trace needs a file")?, out })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn libraries_follow_their_option_until_the_next_one() {
        let expected = Args { json: true, load: vec!["a".into(), "b".into()], plugins: vec!["c".into()] };
        assert_eq!(parsed("--load a b --plugin c --json"), Ok(Command::Report(expected)));
        assert_eq!(parsed(""), Ok(Command::Report(Args::default())));
    }

    #[test]
    fn a_timeline_is_a_file_and_perhaps_a_picture() {
        let trace = |file: &str, out: Option<&str>| {
            Ok(Command::Trace(Trace { file: file.into(), out: out.map(PathBuf::from) }))
        };
        assert_eq!(parsed("trace a.json"), trace("a.json", None));
        assert_eq!(parsed("trace -o b.svg a.json"), trace("a.json", Some("b.svg")));
        assert_eq!(parsed("trace"), Err("trace needs a file".into()));
        assert_eq!(parsed("trace a -o"), Err("-o needs a file".into()));
        assert_eq!(parsed("trace a b"), Err("one file at a time: a is the first".into()));
        assert_eq!(parsed("trace --json a"), Err("unknown argument --json".into()));
    }

    #[test]
    fn wrong_words_are_named() {
        assert_eq!(parsed("--josn"), Err("unknown argument --josn".into()));
        assert_eq!(parsed("lib.so"), Err("unknown argument lib.so".into()));
        assert_eq!(parsed("--load --json"), Err("--load needs a library".into()));
    }
}
