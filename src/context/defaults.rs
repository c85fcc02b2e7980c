//! What applies where no scope says otherwise: the process default, the environment, the built-in default.

use super::{Chosen, Setting};
use crate::registry;
use crate::status::{Error, Result};
use crate::trace;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

static DEFAULT: RwLock<Setting> = RwLock::new(Setting { backend: None, n_jobs: None, inner: None });

/// Counts changes of the process default.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// How often the process default has changed.
pub(super) fn changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> impl Sized + 'static {
    DEFAULT.write().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces the process default.
pub fn set_default(setting: Setting) {
    let old = std::mem::replace(&mut *DEFAULT.write().unwrap_or_else(PoisonError::into_inner), setting);
    CHANGES.fetch_add(1, Ordering::Release);
    drop(old); // may close a session, which may be foreign code: the lock is free again
}

/// Makes a backend the process default by its name.
pub fn make_default(name: &str) {
    set_default(Setting { backend: Some(Chosen::Named(name.to_owned().into())), ..Setting::default() });
}

/// Forgets the default backend if it is the one of that name.
pub fn forget_backend(name: &str) {
    let mut default = DEFAULT.write().unwrap_or_else(PoisonError::into_inner);
    let old = match &default.backend {
        Some(chosen) if *chosen.name() == *name => default.backend.take(),
        _ => None,
    };
    drop(default);
    CHANGES.fetch_add(1, Ordering::Release);
    drop(old);
}

/// Fills the keys that no scope set.
pub fn fill(setting: &mut Setting) -> Result<()> {
    setting.inherit(&DEFAULT.read().unwrap_or_else(PoisonError::into_inner));
    if setting.backend.is_none() {
        setting.backend = backend()?;
    }
    if setting.n_jobs.is_none() {
        setting.n_jobs = n_jobs()?;
    }
    if setting.inner.is_none() {
        setting.inner = inner()?;
    }
    Ok(())
}

const BACKEND: &str = "PB_BACKEND";
const N_JOBS: &str = "PB_N_JOBS";
const INNER: &str = "PB_INNER_MAX_NUM_THREADS";

fn n_jobs() -> Result<Option<i32>> {
    number(N_JOBS, |n| n != 0, "a number of workers, or negative as joblib counts; not 0")
}

fn inner() -> Result<Option<i32>> {
    number(INNER, |n| n > 0, "a number of threads from 1 up")
}

/// The variables of the environment that cannot be used as they are set, with the error that a map would end with.
pub fn malformed_variables() -> Vec<(&'static str, Error)> {
    let wrong = [
        (BACKEND, backend().err()),
        (N_JOBS, n_jobs().err()),
        (INNER, inner().err()),
        (trace::VARIABLE, trace::check_environment().err()),
    ];
    wrong.into_iter().filter_map(|(name, error)| Some((name, error?))).collect()
}

/// An environment variable, read anew at every call; empty is unset. What is not UTF-8 is wrong for all of them, and
/// shown as well as it can be.
fn text(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn backend() -> Result<Option<Chosen>> {
    let Some(name) = text(BACKEND) else { return Ok(None) };
    registry::check(&name)
        .map_err(|error| error.in_words(|said| format!("the environment variable {BACKEND}: {said}")))?;
    Ok(Some(Chosen::Named(name.into())))
}

fn number(name: &str, fits: impl Fn(i32) -> bool, meaning: &str) -> Result<Option<i32>> {
    let Some(value) = text(name) else { return Ok(None) };
    match value.parse() {
        Ok(n) if fits(n) => Ok(Some(n)),
        _ => {
            Err(Error::invalid(format!("the environment variable {name} is '{value}': it must be {meaning}")))
        }
    }
}
