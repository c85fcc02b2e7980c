//! What there is to report, gathered once, for text and JSON alike.

use parallel_backend::backends::threading;
use parallel_backend::call::{self, Outlook};
use parallel_backend::cpu::{self, Report as Cpus};
use parallel_backend::limits::{self, PoolInfo};
use parallel_backend::status::Result;
use parallel_backend::{context, registry};
use std::sync::Arc;

pub struct Report {
    pub cpus: Cpus,
    /// The names that can be used.
    pub backends: Vec<Arc<str>>,
    /// Names that cannot, and why.
    pub unavailable: Vec<(&'static str, String)>,
    /// What a map called here would use, or the error that it would end with.
    pub call: Result<Outlook>,
    /// The variables `PB_...` that are set, in alphabetical order.
    pub environment: Vec<Variable>,
    pub pools: Vec<PoolInfo>,
}

pub struct Variable {
    pub name: String,
    pub value: String,
    /// Why it has no effect, or not the one that was meant.
    pub problem: Option<String>,
}

/// The variables that the library reads, besides those of `threading`.
const READ: [&str; 10] = [
    "PB_BACKEND",
    "PB_INNER_MAX_NUM_THREADS",
    "PB_LIBRARY",
    "PB_MAX_CPU_COUNT",
    "PB_MPI_PLUGIN",
    "PB_N_JOBS",
    "PB_PLUGIN_PATH",
    "PB_PYTHON",
    "PB_TRACE",
    "PB_WORKER",
];

pub fn gather() -> Report {
    let cpus = cpu::report();
    // A backend that is loaded on demand is among the names only after it has been looked for.
    let call = call::outlook();
    let unavailable = registry::unavailable();
    Report {
        environment: environment(&cpus),
        cpus,
        backends: registry::names(),
        unavailable,
        call,
        pools: limits::pools(),
    }
}

fn environment(cpus: &Cpus) -> Vec<Variable> {
    let malformed = context::malformed_variables();
    let malformed: Vec<_> = malformed.iter().chain(threading::malformed_variables()).collect();
    let is_read = |name: &str| READ.contains(&name) || threading::variables().any(|read| read == name);
    let problem_of = |name: &str| match name {
        "PB_MAX_CPU_COUNT" => cpus.warnings().into_iter().next(),
        name if !is_read(name) => Some(format!("{name} is not read by this library")),
        name => malformed.iter().find(|(wrong, _)| *wrong == name).map(|(_, error)| error.message.clone()),
    };
    let set = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("PB_"))?;
        let problem = problem_of(&name);
        Some(Variable { name, value: value.to_string_lossy().into_owned(), problem })
    });
    let mut set: Vec<_> = set.collect();
    set.sort_by(|one, other| one.name.cmp(&other.name));
    set
}
