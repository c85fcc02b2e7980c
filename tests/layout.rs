//! The header tells a C and a C++ compiler the same layouts and numbers as Rust has: a file of static assertions,
//! made here from Rust's own, must compile.

use parallel_backend::backends::foreign::*;
use parallel_backend::ffi::{backend::*, bytes::*, context::*, errors::*, map::*, pools::*};
use parallel_backend::status::pb_status;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::mem::offset_of;
use std::process::{Command, Stdio};

const INCLUDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/include");

/// An assertion at compile time that C99 and C++17 both know: an array of negative size is an error.
fn assert(c: &mut String, holds: &str) {
    let number = c.lines().count();
    writeln!(c, "typedef char layout_{number}[({holds}) ? 1 : -1];").unwrap();
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Asserts a struct's size and alignment, and each field's place and size. The fields must be all of them, in order.
macro_rules! layout {
    ($c:expr, $name:ident: $($field:ident)*) => {{
        let _all = |value: &$name| { let $name { $($field: _),* } = value; };
        let name = stringify!($name);
        assert($c, &format!("sizeof({name}) == {}", size_of::<$name>()));
        writeln!($c, "struct align_{name} {{ char c; {name} value; }};").unwrap();
        assert($c, &format!("offsetof(struct align_{name}, value) == {}", align_of::<$name>()));
        $(
            let field = stringify!($field);
            assert($c, &format!("offsetof({name}, {field}) == {}", offset_of!($name, $field)));
            let size = size_of_field(|value: &$name| &value.$field);
            assert($c, &format!("sizeof((({name} *)0)->{field}) == {size}"));
        )*
    }};
}

macro_rules! constants {
    ($($name:ident)*) => { BTreeMap::from([$((stringify!($name).to_owned(), i64::from($name))),*]) };
}

fn constants() -> BTreeMap<String, i64> {
    constants! {
        PB_ABI_VERSION PB_OK PB_PENDING PB_DONE PB_ERR_INVALID_ARGUMENT PB_ERR_UNKNOWN_BACKEND
        PB_ERR_BACKEND_UNAVAILABLE PB_ERR_SCOPE PB_ERR_TASK_FAILED PB_ERR_TASK_NOT_PORTABLE PB_ERR_WORKER_LOST
        PB_ERR_TIMEOUT PB_ERR_CANCELLED PB_ERR_UNSUPPORTED PB_ERR_OUT_OF_MEMORY PB_ERR_IO PB_ERR_ABI PB_ERR_EXISTS
        PB_ERR_INTERNAL PB_REQUIRE_SHAREDMEM PB_PREFER_THREADS PB_PREFER_PROCESSES PB_COLLECT_ERRORS
        PB_NON_IDEMPOTENT PB_UNORDERED PB_BACKEND_ABI_VERSION PB_BACKEND_SHARES_MEMORY PB_BACKEND_INNER_LIMITS
        PB_BACKEND_MAKE_DEFAULT PB_API_BLAS PB_API_OPENMP PB_API_TBB PB_API_ALL
    }
}

/// The assertions, as a file that C and C++ can read.
fn assertions() -> String {
    let mut c = "#include <parallel_backend.h>\n".to_owned();
    layout!(&mut c, pb_error_info: struct_size status task_code task_index exit_code signal attempts reserved);
    layout!(&mut c, pb_map_options: struct_size n_jobs flags batch_size timeout ctx_size task statuses progress
            progress_user retries reserved range);
    layout!(&mut c, pb_chunk: begin end);
    layout!(&mut c, pb_bytes: data size);
    layout!(&mut c, pb_backend_vtable: struct_size abi_version capabilities open close effective_n_jobs run
            nested_backend destroy max_n_jobs shutdown);
    layout!(&mut c, pb_thread_pool: struct_size user_api internal_api prefix filepath version threading_layer
            architecture scope num_threads controllable);
    for (name, size, signed) in
        [("pb_status", size_of::<pb_status>(), true), ("pb_scope", size_of::<pb_scope>(), false)]
    {
        assert(&mut c, &format!("sizeof({name}) == {size}"));
        assert(&mut c, &format!("(({name})-1 < 0) == {}", i32::from(signed)));
    }
    for (name, value) in constants() {
        assert(&mut c, &format!("{name} == ({value})"));
    }
    c
}

/// What a compiler says of a file; empty if it takes it.
fn complaints(compiler: &str, language: &str, standard: &str, file: &str) -> String {
    let mut child = Command::new(compiler)
        .args(["-fsyntax-only", "-x", language, &format!("-std={standard}"), "-I", INCLUDE, "-"])
        .args(["-Wall", "-Wpedantic", "-Werror"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    child.stdin.take().unwrap().write_all(file.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), text.is_empty(), "{text}");
    text
}

const COMPILERS: [(&str, &str, &str); 2] = [("cc", "c", "c99"), ("c++", "c++", "c++17")];

#[test]
fn c_and_cpp_have_the_layouts_and_numbers_of_rust() {
    for (compiler, language, standard) in COMPILERS {
        assert_eq!(complaints(compiler, language, standard, &assertions()), "");
    }
}

#[test]
fn a_field_in_another_place_would_be_seen() {
    let right = assertions();
    let end = format!("offsetof(pb_chunk, end) == {}", offset_of!(pb_chunk, end));
    let wrong = right.replace(&end, "offsetof(pb_chunk, end) == 1");
    assert_ne!(right, wrong);
    for (compiler, language, standard) in COMPILERS {
        assert!(complaints(compiler, language, standard, &wrong).contains("layout_"));
    }
}

/// No struct and no number of the header is left out above.
#[test]
fn the_header_has_nothing_that_is_not_checked_here() {
    let header = std::fs::read_to_string(format!("{INCLUDE}/parallel_backend.h")).unwrap();
    let c = assertions();
    for line in header.lines() {
        if let Some(name) = line.strip_prefix("typedef struct ").and_then(|rest| rest.strip_suffix(" {")) {
            assert!(c.contains(&format!("sizeof({name})")), "struct {name} is not checked");
        }
    }
    let constants = constants();
    let defines = header.lines().filter_map(|line| line.strip_prefix("#define ")?.split_once(' '));
    for (name, value) in defines.filter(|(name, _)| !name.starts_with("PB_VERSION_")) {
        assert_eq!(constants.get(name).map(i64::to_string).as_deref(), Some(value), "{name}");
    }
}
