//! The report for people.

use super::report::{Report, Variable};
use super::table;
use parallel_backend::call::Outlook;
use parallel_backend::cpu::Report as Cpus;
use parallel_backend::limits::PoolInfo;

pub fn of(report: &Report) -> String {
    let mut out = format!("parallel_backend {}\n", env!("CARGO_PKG_VERSION"));
    section(&mut out, "CPUs that this process may use", cpus(&report.cpus));
    section(&mut out, "Backends", backends(report));
    let call = match &report.call {
        Ok(outlook) => would_use(outlook),
        Err(error) => vec![row(["error", &error.message])],
    };
    section(&mut out, "A map called here would use", call);
    section(&mut out, "Environment", environment(&report.environment));
    section(&mut out, "Native thread pools", pools(&report.pools));
    out
}

fn section(out: &mut String, title: &str, rows: Vec<Vec<String>>) {
    out.push_str(&format!("\n{title}\n"));
    table::write(out, &rows);
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn counted(n: impl Into<i64>, what: &str) -> String {
    let n = n.into();
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn cpus(cpus: &Cpus) -> Vec<Vec<String>> {
    let counts = format!("{} on {}", counted(cpus.logical, "CPU"), counted(cpus.physical, "physical core"));
    let reasons = cpus.reasons().into_iter().map(|reason| row(["because", &reason]));
    let warnings = cpus.warnings().into_iter().map(|warning| row(["warning", &warning]));
    let topology = &cpus.topology;
    let domains = format!(
        "{}, {}, {}",
        counted(topology.count(|place| place.core) as i64, "core"),
        counted(topology.count(|place| place.cache) as i64, "last-level cache"),
        counted(topology.count(|place| place.node) as i64, "NUMA node"),
    );
    [row(["count", &counts]), row(["in", &domains])].into_iter().chain(reasons).chain(warnings).collect()
}

fn backends(report: &Report) -> Vec<Vec<String>> {
    let in_force = report.call.as_ref().ok().map(|outlook| &*outlook.backend);
    let available = report.backends.iter().map(|name| {
        let state = if in_force == Some(&**name) { "available, in force" } else { "available" };
        row([name, state])
    });
    let unavailable =
        report.unavailable.iter().map(|(name, why)| row([name, &format!("unavailable: {why}")]));
    available.chain(unavailable).collect()
}

fn would_use(outlook: &Outlook) -> Vec<Vec<String>> {
    let limits = outlook.inner_limits.iter().map(|(threads, workers)| match outlook.inner_limits.len() {
        1 => format!("{} in each worker", counted(*threads, "thread")),
        _ => format!("{} in {}", counted(*threads, "thread"), counted(*workers as i64, "worker")),
    });
    let limits = match outlook.inner_limits.len() {
        0 => "left as they are".to_owned(),
        _ => limits.collect::<Vec<_>>().join(", "),
    };
    vec![
        row(["backend", &outlook.backend]),
        row(["workers", &outlook.workers.to_string()]),
        row(["BLAS and OpenMP", &limits]),
    ]
}

fn environment(variables: &[Variable]) -> Vec<Vec<String>> {
    if variables.is_empty() {
        return vec![row(["no variable PB_... is set"])];
    }
    let line = |variable: &Variable| {
        let setting = format!("{}={}", variable.name, variable.value);
        row([&setting, variable.problem.as_deref().unwrap_or_default()])
    };
    variables.iter().map(line).collect()
}

fn pools(pools: &[PoolInfo]) -> Vec<Vec<String>> {
    if pools.is_empty() {
        return vec![row(["none is loaded (--load LIBRARY looks into one)"])];
    }
    let title = row(["API", "library", "version", "threads", "setter reaches", "built for", "file"]);
    let line = |pool: &PoolInfo| {
        let built =
            [&pool.threading_layer, &pool.architecture].map(|text| text.as_deref()).into_iter().flatten();
        row([
            &pool.user_api,
            &pool.internal_api,
            pool.version.as_deref().unwrap_or("-"),
            &pool.num_threads.to_string(),
            if pool.controllable { pool.scope } else { "nothing" },
            &built.collect::<Vec<_>>().join(", "),
            &pool.filepath,
        ])
    };
    [title].into_iter().chain(pools.iter().map(line)).collect()
}
