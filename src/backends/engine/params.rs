//! The parameters of a scope on an engine. Scopes with equal parameters use the same bridge.

use super::super::parse_params;
use super::Kind;
use crate::status::{Error, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is for the library itself; all else is for the bridge.
const OWN: [&str; 4] = ["idle_timeout", "python", "stall_timeout", "start_timeout"];

/// The address that stands for no cluster at all: the bridge runs the chunks itself. For tests.
const ECHO: &str = "echo";

/// What can be said of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// Whose they are.
    pub kind: Kind,
    /// What is asked of the bridge: `dask`, `ray` or `echo`.
    pub engine_name: &'static str,
    /// The parameters that are for the bridge.
    pub options: BTreeMap<String, String>,
    /// The interpreter: as it was named, or found in the environment.
    pub python: String,
    /// How long the session may take to begin.
    pub start: Duration,
    /// How long the engine may be silent where it should speak, or without a worker.
    pub engine: Duration,
    /// How long a call may go on without an answer; `None` for ever.
    pub stall: Option<Duration>,
    /// How long an unused bridge stays.
    pub idle: Duration,
}

impl Params {
    /// Reads `key=value;key=value`.
    pub fn parse(kind: Kind, text: Option<&str>) -> Result<Params> {
        let pairs = parse_params(kind.name(), text, kind.parameters())?;
        let given = |key: &str| pairs.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let is_echo = given("address") == Some(ECHO);
        if kind == Kind::Dask && given("address").is_none() && given("scheduler_file").is_none() {
            return Err(no_address());
        }
        let seconds = |key: &str, default: u64| {
            match given(key) {
            None => Ok(Duration::from_secs(default)),
            Some(value) => time(value).ok_or_else(|| {
                let name = kind.name();
                Error::invalid(format!(
                    "parameter '{key}' of backend '{name}' is '{value}': it must be a number of seconds above 0"
                ))
            }),
        }
        };
        let stays_here =
            |key: &str| OWN.contains(&key) || (is_echo && ["address", "engine_timeout"].contains(&key));
        let options = pairs.iter().filter(|(key, _)| !stays_here(key));
        Ok(Params {
            kind,
            engine_name: if is_echo { ECHO } else { kind.name() },
            options: options.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            python: given("python").map_or_else(default_python, str::to_owned),
            start: seconds("start_timeout", 30)?,
            engine: seconds("engine_timeout", 30)?,
            stall: given("stall_timeout").map(|_| seconds("stall_timeout", 0)).transpose()?,
            idle: seconds("idle_timeout", 300)?,
        })
    }
}

/// The interpreter where no parameter names one.
pub fn default_python() -> String {
    let variable = std::env::var("PB_PYTHON").ok().filter(|program| !program.is_empty());
    variable.unwrap_or_else(|| "python3".to_owned())
}

/// A number of seconds above 0 that a clock can add.
fn time(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().filter(|seconds: &f64| *seconds > 0.0 && *seconds < 1e9)?;
    Duration::try_from_secs_f64(seconds).ok()
}

fn no_address() -> Error {
    Error::invalid(
        "backend 'dask' joins no cluster that was not named: pass \"address=tcp://HOST:PORT\" of a scheduler, \
         \"scheduler_file=PATH\" that it has written, or \"address=local\" for workers on this machine",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_and_the_rest_has_defaults() {
        let text = "address=tcp://127.0.0.1:8786; tls_ca=/ca.pem;python=/usr/bin/python3;start_timeout=1.5;stall_timeout=9";
        let params = Params::parse(Kind::Dask, Some(text)).unwrap();
        assert_eq!((&params.python[..], params.engine_name), ("/usr/bin/python3", "dask"));
        assert_eq!((params.start, params.stall), (Duration::from_millis(1500), Some(Duration::from_secs(9))));
        assert_eq!((params.engine, params.idle), (Duration::from_secs(30), Duration::from_secs(300)));
        let options: Vec<_> = params.options.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        assert_eq!(options, [("address", "tcp://127.0.0.1:8786"), ("tls_ca", "/ca.pem")]);
    }

    #[test]
    fn echo_is_an_address() {
        let params = Params::parse(Kind::Dask, Some("address=echo;threads=3;engine_timeout=1")).unwrap();
        assert_eq!((params.engine_name, params.options.len()), ("echo", 1));
        assert_eq!(Params::parse(Kind::Ray, None).unwrap().engine_name, "ray");
    }

    #[test]
    fn dask_wants_to_be_told_where_it_is() {
        for text in [None, Some("start_timeout=3")] {
            let error = Params::parse(Kind::Dask, text).unwrap_err();
            assert!(
                error.message.contains("address=tcp://HOST:PORT") && error.message.contains("address=local")
            );
        }
        Params::parse(Kind::Dask, Some("scheduler_file=/tmp/s.json")).unwrap();
    }

    /// The bridge refuses what its engine does not list, the library what is not in its own list: they must agree.
    #[test]
    fn both_sides_know_the_same_parameters() {
        for kind in [Kind::Dask, Kind::Ray] {
            let file = format!("engine/parallel_backend_engine/{}_engine.py", kind.name());
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            let list = text.split("parameters = frozenset(").nth(1).unwrap().split("))").next().unwrap();
            let theirs = list.split('"').skip(1).step_by(2).filter(|key| !OWN.contains(key));
            let ours = kind.parameters().iter().copied().filter(|key| !OWN.contains(key));
            let sorted =
                |keys: Vec<&str>| std::collections::BTreeSet::from_iter(keys.into_iter().map(str::to_owned));
            assert_eq!(sorted(ours.collect()), sorted(theirs.collect()), "{}", path.display());
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in ["idle_timeout=0", "engine_timeout=x", "stall_timeout=-1", "start_timeout=1e99"] {
            let error = Params::parse(Kind::Ray, Some(wrong)).unwrap_err();
            assert!(error.message.contains(wrong.split('=').next().unwrap()), "{error}");
        }
        assert!(
            Params::parse(Kind::Ray, Some("tls_ca=x")).unwrap_err().message.contains("no parameter 'tls_ca'")
        );
    }
}
