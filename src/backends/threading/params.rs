//! What a scope or the environment can say about the pool's threads: `pin`, `spin_us`, `stack_size`.
//!
//! A key of the scope beats the variable of the environment, which is read once in a process, when the backend is first used.
//!
//! The pool is one for all scopes, so what concerns it as a whole is kept here, in words that anybody may read at any time:
//! - how long an idle thread stays awake: as the scope wants whose map, of those outside any task, began last. Two callers
//!   that want different times overwrite each other, and each has its own back at its next map;
//! - the stack of threads that start: the largest that any scope has asked for so far. It never shrinks, so that a thread
//!   which starts later, for whatever map, is as good as its elders.

use crate::backends::parse_params;
use crate::cpu::{Pins, Unit};
use crate::status::{Error, Result, Status};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What main threads usually have; untouched pages cost nothing.
const USUAL_STACK: usize = 8 << 20;
const SMALLEST_STACK: u64 = 64 << 10;
const LARGEST_STACK: u64 = 64 << 30;
const LONGEST_SPIN_US: u64 = 1_000_000;

/// A parameter: its key, its variable, and what its value must be.
struct Key {
    name: &'static str,
    variable: &'static str,
    meaning: &'static str,
}

const PIN: Key = Key { name: "pin", variable: "PB_PIN", meaning: "cores, llc, numa or none" };
const SPIN: Key = Key {
    name: "spin_us",
    variable: "PB_SPIN_US",
    meaning: "the microseconds that an idle thread stays awake, from 0 to 1000000",
};
const STACK: Key = Key {
    name: "stack_size",
    variable: "PB_STACK_SIZE",
    meaning: "a number of bytes, or of 1024 bytes with K, and so on with M and G, from 64K to 64G",
};
const KEYS: [&Key; 3] = [&PIN, &SPIN, &STACK];

/// What was said, in the environment or in a scope's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    /// `Some(None)`: not to be pinned, whatever the environment says.
    pin: Option<Option<Unit>>,
    spin_us: Option<u64>,
    stack_size: Option<usize>,
}

impl Said {
    /// Takes a value in; false if it makes no sense.
    fn hear(&mut self, name: &str, value: &str) -> bool {
        match name {
            "pin" => {
                self.pin = unit(value);
                self.pin.is_some()
            }
            "spin_us" => {
                self.spin_us = value.parse().ok().filter(|us| *us <= LONGEST_SPIN_US);
                self.spin_us.is_some()
            }
            _ => {
                self.stack_size = bytes(value);
                self.stack_size.is_some()
            }
        }
    }

    fn from_params(params: Option<&str>) -> Result<Said> {
        let mut said = Said::default();
        for (name, value) in parse_params("threading", params, &KEYS.map(|key| key.name))? {
            if !said.hear(name, value) {
                let key = KEYS.into_iter().find(|key| key.name == name);
                let meaning = key.map_or("", |key| key.meaning);
                return Err(Error::invalid(format!(
                    "params of backend 'threading': {name} is '{value}': it must be {meaning}"
                )));
            }
        }
        Ok(said)
    }

    /// Reads the variables; with the errors of those that make no sense.
    fn from_environment(get: impl Fn(&str) -> Option<String>) -> (Said, Vec<(&'static str, Error)>) {
        let mut said = Said::default();
        let mut wrong = Vec::new();
        for Key { name, variable, meaning } in KEYS {
            let Some(value) = get(variable) else { continue };
            let value = value.trim();
            if !value.is_empty() && !said.hear(name, value) {
                let message =
                    format!("the environment variable {variable} is '{value}': it must be {meaning}");
                wrong.push((*variable, Error::invalid(message)));
            }
        }
        (said, wrong)
    }
}

fn unit(value: &str) -> Option<Option<Unit>> {
    match value {
        "cores" => Some(Some(Unit::Core)),
        "llc" => Some(Some(Unit::Cache)),
        "numa" => Some(Some(Unit::Node)),
        "none" => Some(None),
        _ => None,
    }
}

/// Bytes, within bounds, from a text such as `512K`.
fn bytes(value: &str) -> Option<usize> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(1 << shift)?;
    usize::try_from(bytes).ok().filter(|_| (SMALLEST_STACK..=LARGEST_STACK).contains(&bytes))
}

fn environment() -> &'static (Said, Vec<(&'static str, Error)>) {
    static ENVIRONMENT: OnceLock<(Said, Vec<(&'static str, Error)>)> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        Said::from_environment(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))
    })
}

/// The names of the variables that this backend reads.
pub fn variables() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().map(|key| key.variable)
}

/// The variables that cannot be used as they are set, with the error that a map would end with.
pub fn malformed_variables() -> &'static [(&'static str, Error)] {
    &environment().1
}

/// The parameters of a session.
#[derive(Debug)]
pub(super) struct Params {
    /// Where workers run, if they are to be pinned.
    pub(super) pins: Option<Arc<Pins>>,
    spin_us: Option<u64>,
}

impl Params {
    /// From a scope's parameters, and the environment for what they leave open.
    pub(super) fn new(params: Option<&str>) -> Result<Params> {
        let said = Said::from_params(params)?;
        let (fallback, wrong) = environment();
        if let Some((_, error)) = wrong.first() {
            return Err(error.clone());
        }
        if let Some(bytes) = said.stack_size.or(fallback.stack_size) {
            STACK_SIZE.fetch_max(bytes, Ordering::Relaxed);
        }
        let pins = said.pin.or(fallback.pin).flatten().map(pins).transpose()?;
        Ok(Params { pins, spin_us: said.spin_us.or(fallback.spin_us) })
    }

    /// A map outside any task begins in this session.
    pub(super) fn take_effect(&self) {
        let spin = self.spin_us.unwrap_or(ADAPTIVE);
        // Compared first, so that calls in a row share the line.
        if SPIN_US.load(Ordering::Relaxed) != spin {
            SPIN_US.store(spin, Ordering::Relaxed);
        }
    }
}

fn pins(unit: Unit) -> Result<Arc<Pins>> {
    Pins::of_this_thread(unit).map(Arc::new).ok_or_else(|| {
        Error::new(
            Status::ERR_UNSUPPORTED,
            "threads cannot be pinned on this system: leave pin out, or say pin=none",
        )
    })
}

const ADAPTIVE: u64 = u64::MAX;
static SPIN_US: AtomicU64 = AtomicU64::new(ADAPTIVE);
/// 0 as long as nobody has asked.
static STACK_SIZE: AtomicUsize = AtomicUsize::new(0);

/// How long a thread that has become idle stays awake; none where that is left to the pool.
pub(super) fn spin() -> Option<Duration> {
    Some(SPIN_US.load(Ordering::Relaxed)).filter(|us| *us != ADAPTIVE).map(Duration::from_micros)
}

/// Bytes of stack of a thread that starts now.
pub(super) fn stack_size() -> usize {
    match STACK_SIZE.load(Ordering::Relaxed) {
        0 => USUAL_STACK,
        asked => asked,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn said(params: &str) -> Said {
        Said::from_params(Some(params)).unwrap()
    }

    fn refused(params: &str) -> String {
        let error = Said::from_params(Some(params)).unwrap_err();
        assert_eq!(error.status, Status::ERR_INVALID_ARGUMENT);
        error.message.clone()
    }

    #[test]
    fn every_key_is_understood() {
        assert_eq!(said(""), Said::default());
        assert_eq!(
            said("pin=llc; spin_us=250; stack_size=16M"),
            Said { pin: Some(Some(Unit::Cache)), spin_us: Some(250), stack_size: Some(16 << 20) }
        );
        assert_eq!(said("pin=cores").pin, Some(Some(Unit::Core)));
        assert_eq!(said("pin=numa").pin, Some(Some(Unit::Node)));
        assert_eq!(said("pin=none").pin, Some(None));
        assert_eq!(said("spin_us=0").spin_us, Some(0));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_would() {
        assert!(refused("pin=socket").contains("pin is 'socket': it must be cores, llc, numa or none"));
        for value in ["", "-1", "1.5", "1000001", "1ms"] {
            assert!(refused(&format!("spin_us={value}")).contains("from 0 to 1000000"), "{value}");
        }
        for value in ["", "K", "-1", "63K", "65G", "8T", "8MB", "18446744073709551615G"] {
            assert!(refused(&format!("stack_size={value}")).contains("from 64K to 64G"), "{value}");
        }
        assert!(refused("spin=1").contains("no parameter 'spin'; it knows: pin, spin_us, stack_size"));
    }

    #[test]
    fn a_stack_has_bytes_or_a_suffix() {
        for (text, bytes) in [("65536", 64 << 10), ("64K", 64 << 10), ("3m", 3 << 20), ("1G", 1 << 30)] {
            assert_eq!(said(&format!("stack_size={text}")).stack_size, Some(bytes));
        }
    }

    #[test]
    fn the_environment_has_the_same_values_under_its_own_names() {
        let get = |name: &str| match name {
            "PB_PIN" => Some(" cores ".to_owned()),
            "PB_SPIN_US" => Some(String::new()),
            "PB_STACK_SIZE" => Some("1".to_owned()),
            _ => None,
        };
        let (said, wrong) = Said::from_environment(get);
        assert_eq!(said, Said { pin: Some(Some(Unit::Core)), ..Said::default() });
        let [(name, error)] = &wrong[..] else { panic!("{wrong:?}") };
        assert_eq!(*name, "PB_STACK_SIZE");
        assert!(
            error.message.starts_with("the environment variable PB_STACK_SIZE is '1': it must be a number")
        );
    }

    /// One test, since the pool's words are the process's.
    #[test]
    fn the_pool_does_as_the_last_map_wants_and_keeps_the_largest_stack() {
        let params = |text| Params::new(Some(text)).unwrap();
        params("spin_us=70").take_effect();
        assert_eq!(spin(), Some(Duration::from_micros(70)));
        params("").take_effect();
        assert_eq!(spin(), None);
        let large = params("stack_size=32M");
        assert_eq!(stack_size(), 32 << 20);
        params("stack_size=64K");
        drop(large);
        assert_eq!(stack_size(), 32 << 20);
    }
}
