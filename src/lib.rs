//! joblib's `parallel_backend` for native code, behind a C ABI.
//!
//! The caller chooses, for a scope, where parallel maps run; library code below just calls `pb_parallel_map`;
//! and BLAS and OpenMP inside the tasks never oversubscribe the machine. The public surface is
//! `include/parallel_backend.h`, generated from [`ffi`]; what lies below it is the library's own.

pub mod backends;
pub mod call;
pub mod context;
pub mod cpu;
pub mod ffi;
pub mod fork;
pub mod job;
pub mod join;
pub mod limits;
#[cfg(target_os = "linux")]
pub mod link;
pub mod message;
#[cfg(target_os = "linux")]
pub mod process;
pub mod registry;
pub mod scope;
pub mod shared;
pub mod status;
pub(crate) mod sync;
pub mod tasks;
pub mod trace;
pub mod worker;
