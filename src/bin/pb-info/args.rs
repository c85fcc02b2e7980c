//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

pub const USAGE: &str = "\
usage: pb-info [--json] [--load LIBRARY...] [--plugin LIBRARY...]
       pb-info --help | --version
";

pub const HELP: &str = "\
pb-info: what parallel_backend sees here - CPUs, backends, thread pools - and what a map would use

usage: pb-info [--json] [--load LIBRARY...] [--plugin LIBRARY...]
       pb-info --help | --version

  --json               print JSON instead of text
  --load LIBRARY...    first load these libraries, by path, or by name as the dynamic loader finds them
  --plugin LIBRARY...  then load these plugins, which add their backends
  --help, -h           print this text
  --version, -V        print the version

Exit status: 0 when the report was printed, 1 when a library could not be loaded, 2 for a wrong command line.
";

/// What one run is to do.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help,
    Version,
    Report(Args),
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
    fn wrong_words_are_named() {
        assert_eq!(parsed("--josn"), Err("unknown argument --josn".into()));
        assert_eq!(parsed("lib.so"), Err("unknown argument lib.so".into()));
        assert_eq!(parsed("--load --json"), Err("--load needs a library".into()));
    }
}
