//! Every symbol that the library exports, and nothing else: one file for each section of the header.
//!
//! The rules of the boundary: the body of every export is one call of a guard (`guard.rs`), which stops panics and
//! keeps the error's text; arguments are checked in the order of the signature; outputs are written last, on success
//! only; structs are read and written by their `struct_size` (`abi.rs`); numbers from C stay integers until checked.
#![allow(non_camel_case_types, reason = "types are named as C sees them")]

mod abi;
pub mod backend;
mod blocks;
pub mod bytes;
mod bytes_task;
pub mod context;
pub mod elsewhere;
pub mod errors;
mod fork;
mod guard;
mod items;
pub mod job;
pub mod join;
pub mod life;
pub mod map;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_pointer_width = "64", target_os = "linux", target_env = "gnu")),
    path = "near_nothing.rs"
)]
mod near;
pub mod pools;
pub mod reduce;
pub mod shared;
mod task;
pub mod trace;
