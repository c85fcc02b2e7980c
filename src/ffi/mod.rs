//! Every symbol that the library exports, and nothing else: one file for each section of the header.

pub mod errors;
