//! Link arguments. Of the shared library: a soname (cargo sets none), and no unloading, since worker threads
//! run code of the library for as long as the process lives. Of pb-info and pb-worker: the `pb_` symbols that plugins and tasks
//! call, so that these find the program's own library and bring no second one to life.

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
}
