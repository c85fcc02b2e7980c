//! Link arguments. Of the shared library: a soname (cargo sets none), and no unloading, since worker threads
//! run code of the library for as long as the process lives. Of pb-info and pb-worker: the `pb_` symbols that plugins and tasks
//! call, so that these find the program's own library and bring no second one to life.

use std::path::{Path, PathBuf};

const PACKAGE: &str = "parallel_backend_engine";
const PACKAGE_FOLDER: &str = "engine/parallel_backend_engine";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let version = env!("CARGO_PKG_VERSION");
    let mut parts = version.split('.');
    let major = parts.next().unwrap_or("0");
    let minor = parts.next().unwrap_or("0");
    // While the major version is 0 each minor version may break the ABI, and the soname says so.
    let abi = if major == "0" { format!("0.{minor}") } else { major.to_owned() };
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libparallel_backend.{abi}.dylib")
        }
        _ => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libparallel_backend.so.{abi}");
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
    }
    println!("cargo:rustc-link-arg-bin=pb-info=-rdynamic");
    println!("cargo:rustc-link-arg-bin=pb-worker=-rdynamic");
    embed_engine();
}

/// Writes the list of the bridge's Python modules, with their texts, that `src/backends/engine/python.rs` includes.
fn embed_engine() {
    let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(PACKAGE_FOLDER);
    println!("cargo:rerun-if-changed={}", folder.display());
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "py"));
    let name_of = |file: &Path| match file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default() {
        "__init__" => PACKAGE.to_owned(),
        module => format!("{PACKAGE}.{module}"),
    };
    files.sort_by_key(|file| name_of(file));
    let entry = |file: &PathBuf| format!("    ({:?}, include_str!({:?})),\n", name_of(file), file);
    let entries: String = files.iter().map(entry).collect();
    let list = format!(
        "/// The bridge's modules.\nconst MODULES: [(&str, &str); {}] = [\n{entries}];\n",
        files.len()
    );
    let out = Path::new(&std::env::var_os("OUT_DIR").unwrap_or_default()).join("engine_modules.rs");
    if let Err(error) = std::fs::write(&out, list) {
        panic!("cannot write {}: {error}", out.display());
    }
}
