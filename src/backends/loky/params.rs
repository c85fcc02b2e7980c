//! The parameters of a scope on `loky`. Scopes with equal parameters use the same workers.

use super::super::parse_params;
use crate::status::{Error, Result};
use std::time::Duration;

const KNOWN: [&str; 5] =
    ["idle_worker_timeout", "initializer", "max_tasks_per_worker", "max_worker_memory", "worker"];

/// What can be said of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// A worker without work for so long ends.
    pub idle: Duration,
    /// The registered name of a task that each worker runs first.
    pub initializer: Option<String>,
    /// Items after which a worker is replaced; 0 for never.
    pub max_tasks: u64,
    /// Resident bytes beyond which a worker is replaced between two chunks; 0 for no limit.
    pub max_memory: u64,
    /// The program and its arguments, instead of the one that is found.
    pub worker: Vec<String>,
}

impl Default for Params {
    fn default() -> Self {
        Params {
            idle: Duration::from_secs(300),
            initializer: None,
            max_tasks: 0,
            max_memory: 0,
            worker: Vec::new(),
        }
    }
}

impl Params {
    /// Reads `key=value;key=value`.
    pub fn parse(text: Option<&str>) -> Result<Params> {
        let mut params = Params::default();
        for (key, value) in parse_params("loky", text, &KNOWN)? {
            let wrong = |meaning: &str| {
                Error::invalid(format!(
                    "parameter '{key}' of backend 'loky' is '{value}': it must be {meaning}"
                ))
            };
            match key {
                "idle_worker_timeout" => {
                    let seconds = value.parse().ok().filter(|seconds: &f64| *seconds > 0.0);
                    let idle = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                    params.idle = idle.ok_or_else(|| wrong("a number of seconds above 0"))?;
                }
                "initializer" => params.initializer = Some(value.to_owned()),
                "max_tasks_per_worker" => {
                    params.max_tasks = value.parse().map_err(|_| wrong("a number of items"))?;
                }
                "max_worker_memory" => {
                    params.max_memory = bytes(value).ok_or_else(|| wrong("bytes, as in 500M or 2G"))?;
                }
                _ => params.worker = value.split_whitespace().map(str::to_owned).collect(),
            }
        }
        Ok(params)
    }
}

/// A number of bytes with K, M or G behind it, which count by 1024 as joblib's do.
fn bytes(text: &str) -> Option<u64> {
    let (digits, factor) = match text.char_indices().next_back()? {
        (at, 'K' | 'k') => (&text[..at], 1 << 10),
        (at, 'M' | 'm') => (&text[..at], 1 << 20),
        (at, 'G' | 'g') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_taken_and_the_rest_has_defaults() {
        let params = "idle_worker_timeout=0.5; initializer=warm up;max_worker_memory=2G;max_tasks_per_worker=7;worker=a b";
        let expected = Params {
            idle: Duration::from_millis(500),
            initializer: Some("warm up".into()),
            max_tasks: 7,
            max_memory: 2 << 30,
            worker: vec!["a".into(), "b".into()],
        };
        assert_eq!(Params::parse(Some(params)).unwrap(), expected);
        assert_eq!(Params::parse(None).unwrap(), Params::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        for wrong in [
            "idle_worker_timeout=0",
            "idle_worker_timeout=x",
            "max_tasks_per_worker=-1",
            "max_worker_memory=G",
            "max_worker_memory=18446744073709551615K",
        ] {
            let error = Params::parse(Some(wrong)).unwrap_err();
            assert!(error.message.contains(wrong.split('=').next().unwrap()), "{error}");
        }
    }
}
