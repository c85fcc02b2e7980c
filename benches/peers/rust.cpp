/* The Rust peers are libraries (rust-peers/); this file makes the linker take C++, which Fork Union is in. */
