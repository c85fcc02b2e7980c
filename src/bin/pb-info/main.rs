//! Says what parallel_backend sees here.
fn main() {}
