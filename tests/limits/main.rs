//! Thread pools of loaded libraries are found and limited.
//!
//! The libraries are small stand-ins with the symbols of the real ones, built from `fakes/` into the target
//! directory and loaded into this process, where they stay: so every test uses files of its own, and the
//! tests run one at a time, since a limit applies to every library of the process.

mod fakes;
mod families;
mod finding;
mod openmp;
mod registered;
mod sharing;
