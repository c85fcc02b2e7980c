//! The rules of the house: which room may import which, where `unsafe` may stand, how long a file may be.
//!
//! The rooms and the reasons are in the section "Rooms" of the architecture document. A rule that is broken is
//! told with its file and line.

mod paths;

use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Rooms that any room may import, and that know no room but each other.
const LEAVES: &[&str] = &["status", "scope", "sync", "fork", "trace"];

/// Each room, and the rooms that it may import besides the leaves. `backends` is the trait,
/// `backends/*` each single backend.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "ffi",
        &[
            "call",
            "context",
            "registry",
            "job",
            "backends",
            "backends/*",
            "limits",
            "cpu",
            "message",
            "shared",
            "tasks",
            "worker",
            "join",
        ],
    ),
    // What runs the chunks that come from another process.
    ("worker", &["context", "job", "link", "limits", "message", "process", "shared", "tasks"]),
    ("join", &["call", "context", "job", "limits", "backends/*"]),
    ("call", &["context", "registry", "job", "backends", "backends/*", "limits", "cpu"]),
    ("context", &["registry", "backends", "job", "cpu", "limits", "message"]),
    ("registry", &["backends", "backends/*", "tasks"]),
    ("backends/*", &["backends", "job", "limits", "cpu", "link", "message", "process", "shared", "tasks"]),
    ("backends", &["job", "limits", "cpu"]),
    ("job", &["limits", "cpu", "message", "shared", "tasks"]),
    // What a caller and its worker processes have in common.
    ("link", &["message", "process", "shared"]),
    ("message", &["tasks"]),
    ("tasks", &[]),
    ("limits", &[]),
    ("cpu", &[]),
    ("shared", &[]),
    ("process", &[]),
];

/// What the paths of files with `unsafe` begin with: the C boundary, foreign libraries, system calls, memory that
/// processes share, and the one place where the scheduler hands out memory.
const MAY_BE_UNSAFE: &[&str] = &[
    "src/ffi/",
    "src/limits",
    "src/cpu",
    "src/tasks/",
    "src/worker/",
    "src/link/",
    "src/shared/",
    "src/process",
    "src/backends/multiprocessing/board.rs",
    "src/backends/foreign",
    "src/backends/threading/cell/",
];

/// The longest file has fewer lines.
const TOO_MANY_LINES: usize = 500;
const SOURCES: &[&str] = &["rs", "c", "h", "cpp", "hpp", "py", "R", "jl"];
const GENERATED: &[&str] = &["include/parallel_backend.h"];

/// A source file: its path from the repository's root, with `/`, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The module in the crate, e.g. `["job", "claims"]`. None for programs, tests and other languages.
    fn module(&self) -> Option<Vec<&str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let inside = inside.strip_suffix("/mod").unwrap_or(inside);
        match inside {
            _ if inside.starts_with("bin/") => None,
            "lib" => Some(Vec::new()),
            _ => Some(inside.split('/').collect()),
        }
    }

    fn breaks(&self, line: usize, rule: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, rule.as_ref())
    }
}

/// The room that a path from the crate's root leads into. `backends` are the modules of that room.
fn room_of(path: &[impl AsRef<str>], backends: &BTreeSet<String>) -> Option<String> {
    match path {
        [] => None,
        [room, backend, ..] if room.as_ref() == "backends" && backends.contains(backend.as_ref()) => {
            Some(format!("backends/{}", backend.as_ref()))
        }
        [room, ..] => Some(room.as_ref().to_owned()),
    }
}

/// The line of the table for a room; none for a room that is not in it.
fn may_import(room: &str) -> Option<&'static [&'static str]> {
    if LEAVES.contains(&room) {
        return Some(&[]);
    }
    let key = if room.starts_with("backends/") { "backends/*" } else { room };
    MAY_IMPORT.iter().find(|(name, _)| *name == key).map(|(_, imports)| *imports)
}

fn import_violations(sources: &[Source]) -> Vec<String> {
    let modules = sources.iter().filter_map(|source| Some((source, source.module()?)));
    let backends = modules.clone().filter_map(|(_, module)| match module[..] {
        ["backends", backend, ..] => Some(backend.to_owned()),
        _ => None,
    });
    let backends = backends.collect();
    modules.flat_map(|(source, module)| imports_of(source, &module, &backends)).collect()
}

/// What is wrong with the imports of one file.
fn imports_of(source: &Source, module: &[&str], backends: &BTreeSet<String>) -> Vec<String> {
    // lib.rs is the list of rooms: it may name them all.
    let Some(room) = room_of(module, backends) else {
        return Vec::new();
    };
    let Some(allowed) = may_import(&room) else {
        return vec![source.breaks(1, format!("room `{room}` is not in the table of import rules"))];
    };
    let mentions = match paths::mentions(module, &source.text) {
        Ok(mentions) => mentions,
        Err(error) => return vec![source.breaks(error.span().start().line, "not Rust")],
    };
    let mut wrong = Vec::new();
    for mention in mentions {
        let Some(other) = room_of(&mention.path, backends) else {
            wrong.push(
                source.breaks(mention.line, "the crate's root is no room: name what is needed from where"),
            );
            continue;
        };
        let each_backend = other.starts_with("backends/") && allowed.contains(&"backends/*");
        if other != room && !LEAVES.contains(&&*other) && !allowed.contains(&&*other) && !each_backend {
            let rule =
                format!("room `{room}` imports `{other}`; it may import only {allowed:?} and the leaves");
            wrong.push(source.breaks(mention.line, rule));
        }
    }
    // One import and its uses on a line are one mistake.
    wrong.dedup();
    wrong
}

fn unsafe_violations(source: &Source) -> Vec<String> {
    let inside = source.path.starts_with("src/") && source.is_rust();
    if !inside || MAY_BE_UNSAFE.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = source.text.parse().unwrap_or_default();
    let rule = format!("`unsafe` stands only in {MAY_BE_UNSAFE:?}");
    lines_with("unsafe", code).into_iter().map(|line| source.breaks(line, &rule)).collect()
}

/// The lines on which a keyword stands in the code.
fn lines_with(keyword: &str, code: TokenStream) -> Vec<usize> {
    code.into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => lines_with(keyword, group.stream()),
            TokenTree::Ident(ident) if ident == keyword => vec![ident.span().start().line],
            _ => Vec::new(),
        })
        .collect()
}

fn shape_violations(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = source.text.lines().count();
    if lines >= TOO_MANY_LINES && !GENERATED.contains(&&*source.path) {
        let rule =
            format!("{lines} lines: a file of {TOO_MANY_LINES} lines or more is a room with two purposes");
        wrong.push(source.breaks(lines, rule));
    }
    let begins_with_docs = || source.text.lines().find(|line| !line.is_empty())?.strip_prefix("//!");
    if source.is_rust() && begins_with_docs().is_none() {
        wrong.push(source.breaks(1, "a file begins with `//!`: what it is for"));
    }
    wrong
}

/// All source files below the repository's root that people write.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(root, root, &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap_or_default());
        let kind = entry.file_type().unwrap();
        // Hidden folders, build outputs, and the documents that are only lent to a checkout.
        let skipped = name.starts_with(['.', '_']) || ["target", "build", "shared"].contains(&&*name);
        if kind.is_dir() && !skipped {
            collect(root, &path, found);
        }
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if kind.is_file() && SOURCES.contains(&extension) {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
            found.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "the rules of the house are broken:\n{}", violations.join("\n"));
}

#[test]
fn rooms_import_only_what_they_may() {
    let sources = sources();
    assert!(sources.iter().any(|source| source.module().is_some_and(|module| module == ["scope"])));
    assert_none(import_violations(&sources));
}

#[test]
fn unsafe_code_stays_in_its_places() {
    assert_none(sources().iter().flat_map(unsafe_violations).collect());
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    assert_none(sources().iter().flat_map(shape_violations).collect());
}

mod the_checker {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    /// The violations of one file in a crate that has a few more.
    fn imports(path: &str, text: &str) -> Vec<String> {
        let others = ["src/backends/mod.rs", "src/backends/loky/mod.rs", "src/backends/threading/pool.rs"];
        let others = others.iter().filter(|other| **other != path).map(|path| source(path, ""));
        import_violations(&others.chain([source(path, text)]).collect::<Vec<_>>())
    }

    fn imports_wrongly(path: &str, text: &str, what: &str) {
        let found = imports(path, text);
        assert!(found.len() == 1 && found[0].contains(what), "{text:?} in {path}: {found:?}");
    }

    #[test]
    fn lets_the_allowed_imports_pass() {
        for (path, text) in [
            ("src/ffi/map.rs", "use crate::{call::run, context, status::Status}; use super::guard;"),
            (
                "src/context/merge.rs",
                "use crate::backends::Backend; use super::stack::Frame; fn f() { super::pop() }",
            ),
            ("src/registry.rs", "use crate::backends::{Backend, loky, threading::pool::Pool};"),
            (
                "src/backends/loky/mod.rs",
                "use super::Backend; use crate::{job::Job, limits}; mod pipe; use pipe::P;",
            ),
            ("src/backends/loky/pipe.rs", "use super::super::Backend; use super::worker; use crate::fork;"),
            ("src/backends/mod.rs", "pub mod loky; pub mod threading; use crate::job::Job;"),
            ("src/job/mod.rs", "mod claims; use claims::Claim; #[cfg(test)] mod tests { use super::*; }"),
            (
                "src/limits/scope.rs",
                "use crate::scope::ScopeStack; pub(crate) fn f(&self) { self.x(std::job::y) }",
            ),
            ("src/bin/pb-info/main.rs", "use parallel_backend::{cpu, limits};"),
            ("src/lib.rs", "pub mod ffi; pub use ffi::x;"),
        ] {
            assert_eq!(imports(path, text), Vec::<String>::new(), "{text:?} in {path}");
        }
    }

    #[test]
    fn finds_every_way_to_write_an_import() {
        imports_wrongly(
            "src/job/mod.rs",
            "use crate::ffi::map;",
            "src/job/mod.rs:1: room `job` imports `ffi`",
        );
        imports_wrongly(
            "src/limits/find.rs",
            "\n\nfn f() { crate::cpu::count() }",
            "find.rs:3: room `limits`",
        );
        imports_wrongly("src/job/claims.rs", "use super::super::backends::Backend;", "imports `backends`");
        imports_wrongly(
            "src/cpu.rs",
            "use super::{status::{Error, Result},\n job as j};",
            "cpu.rs:2: room `cpu`",
        );
        imports_wrongly("src/job/mod.rs", "mod tests { use super::super::context; }", "imports `context`");
        imports_wrongly("src/job/mod.rs", "type Made = Vec<crate::registry::Made>;", "imports `registry`");
        imports_wrongly("src/job/mod.rs", "macro_rules! m { () => { $crate::ffi::f() } }", "imports `ffi`");
        imports_wrongly("src/job/mod.rs", "pub use self::super::call;", "imports `call`");
    }

    #[test]
    fn tells_the_trait_from_a_backend() {
        imports_wrongly(
            "src/backends/loky/mod.rs",
            "use super::threading::pool;",
            "imports `backends/threading`",
        );
        imports_wrongly("src/backends/mod.rs", "mod loky; pub use loky::Loky;", "imports `backends/loky`");
        imports_wrongly("src/context/mod.rs", "use crate::backends::loky;", "imports `backends/loky`");
        let found = imports("src/context/mod.rs", "use crate::backends as b;\nfn f() { b::loky::start() }");
        assert!(
            found.len() == 1 && found[0].contains("mod.rs:2: room `context` imports `backends/loky`"),
            "{found:?}"
        );
    }

    #[test]
    fn wants_every_room_in_the_table_and_every_import_from_a_room() {
        imports_wrongly("src/helpers.rs", "", "room `helpers` is not in the table");
        imports_wrongly("src/scope.rs", "use crate::job::Job;", "room `scope` imports `job`");
        imports_wrongly("src/job/mod.rs", "use crate::*;", "the crate's root is no room");
        imports_wrongly("src/job/mod.rs", "use crate::{*};", "the crate's root is no room");
        imports_wrongly("src/job/mod.rs", "use crate::Job;", "imports `Job`");
    }

    #[test]
    fn reads_code_and_not_what_is_written_about_it() {
        let text = "//! See [`crate::ffi`].\n/// crate::ffi::x\nfn f() -> &'static str {\n    /* crate::ffi */ \"crate::ffi::x\"\n}";
        assert_eq!(imports("src/job/mod.rs", text), Vec::<String>::new());
        assert_eq!(
            unsafe_violations(&source("src/job/mod.rs", "// unsafe\nfn f() { g(\"unsafe {\") }")).len(),
            0
        );
        assert_eq!(imports("src/job/mod.rs", "fn f() {").len(), 1, "what cannot be read is not passed over");
    }

    #[test]
    fn finds_unsafe_code_outside_its_places() {
        let code = "fn f() {\n    if true { unsafe { g() } }\n}";
        let found = unsafe_violations(&source("src/job/mod.rs", code));
        assert!(found.len() == 1 && found[0].starts_with("src/job/mod.rs:2: `unsafe`"), "{found:?}");
        for allowed in
            ["src/ffi/map.rs", "src/cpu/affinity.rs", "src/limits/find.rs", "src/backends/foreign.rs"]
        {
            assert!(unsafe_violations(&source(allowed, code)).is_empty(), "{allowed}");
        }
    }

    #[test]
    fn finds_long_files_and_files_without_docs() {
        let shape =
            |path: &str, lines: usize| shape_violations(&source(path, &"//! text\n".repeat(lines))).concat();
        assert_eq!(shape("c-tests/map.c", TOO_MANY_LINES - 1), "");
        assert!(shape("c-tests/map.c", TOO_MANY_LINES).starts_with("c-tests/map.c:500: 500 lines"));
        assert_eq!(shape("include/parallel_backend.h", TOO_MANY_LINES), "");
        let without = shape_violations(&source("src/x.rs", "fn f() {}\n//! late\n"));
        assert_eq!(without, ["src/x.rs:1: a file begins with `//!`: what it is for"]);
    }
}
