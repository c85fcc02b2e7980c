//! The report for programs. Names that are here stay; see `docs/pb-info.md`.

use super::report::{Report, Variable};
use parallel_backend::call::Outlook;
use parallel_backend::cpu::Report as Cpus;
use parallel_backend::ffi::errors::PB_ABI_VERSION;
use parallel_backend::limits::PoolInfo;
use parallel_backend::status::Result;
use serde_json::{Value, json};

pub fn of(report: &Report) -> String {
    let unavailable = report.unavailable.iter().map(|(name, why)| json!({ "name": name, "reason": why }));
    let whole = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "abi_version": PB_ABI_VERSION,
        "cpus": cpus(&report.cpus),
        "backends": {
            "available": report.backends.iter().map(|name| &**name).collect::<Vec<_>>(),
            "unavailable": unavailable.collect::<Vec<_>>(),
        },
        "call": call(&report.call),
        "environment": report.environment.iter().map(variable).collect::<Vec<_>>(),
        "thread_pools": report.pools.iter().map(pool).collect::<Vec<_>>(),
    });
    format!("{whole:#}\n")
}

fn cpus(cpus: &Cpus) -> Value {
    json!({
        "logical": cpus.logical,
        "physical": cpus.physical,
        "cores": cpus.topology.count(|place| place.core),
        "caches": cpus.topology.count(|place| place.cache),
        "nodes": cpus.topology.count(|place| place.node),
        "reasons": cpus.reasons(),
        "warnings": cpus.warnings(),
    })
}

fn call(call: &Result<Outlook>) -> Value {
    match call {
        Ok(outlook) => {
            let limits = outlook.inner_limits.iter();
            let limits = limits.map(|(threads, workers)| json!({ "threads": threads, "workers": workers }));
            json!({
                "backend": &*outlook.backend,
                "workers": outlook.workers,
                "inner_limits": limits.collect::<Vec<_>>(),
            })
        }
        Err(error) => json!({ "error": { "status": error.status.name(), "message": error.message } }),
    }
}

fn variable(variable: &Variable) -> Value {
    json!({ "name": variable.name, "value": variable.value, "problem": variable.problem })
}

fn pool(pool: &PoolInfo) -> Value {
    json!({
        "user_api": pool.user_api,
        "internal_api": pool.internal_api,
        "prefix": pool.prefix,
        "filepath": pool.filepath,
        "version": pool.version,
        "threading_layer": pool.threading_layer,
        "architecture": pool.architecture,
        "scope": pool.scope,
        "num_threads": pool.num_threads,
        "controllable": pool.controllable,
    })
}
