//! Intel MKL, by its mixed-case C functions (the lower-case twins take pointers).
//!
//! The count of a thread outranks that of the process, and 0 is its "unset": the setter returns what was
//! there, and exactly that is put back. The first call into `libmkl_rt` makes it choose and load its layers,
//! after which the program can no longer choose: as long as `libmkl_core` is not loaded, MKL is reported as
//! asleep and left alone.

use super::find::{Loaded, Object};
use super::pool::{Get, Knob, Pool, Reach, ReadOnly, Saved};
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

const PREFIXES: &[&str] = &["libmkl_rt", "libmkl"];

/// Sets and returns an int: `MKL_Set_Num_Threads_Local`, `MKL_Set_Threading_Layer`.
type Exchange = unsafe extern "C" fn(c_int) -> c_int;

struct Mkl {
    get: Get,
    set_local: Exchange,
}

impl Knob for Mkl {
    fn get(&self) -> i32 {
        // SAFETY: the library is pinned and awake; any thread may ask.
        unsafe { (self.get)() }
    }

    fn set(&self, threads: i32) -> Saved {
        // SAFETY: as above; the call concerns this thread only.
        Saved::Count(unsafe { (self.set_local)(threads) })
    }

    fn restore(&self, saved: Saved) {
        if let Saved::Count(before) = saved {
            // SAFETY: as above; 0 makes the thread follow the process again.
            unsafe { (self.set_local)(before) };
        }
    }
}

/// The MKL that `object` is, or has linked into it; `loaded` lists all objects of the process.
pub fn find(object: &Arc<Object>, loaded: &[Loaded]) -> Option<Pool> {
    // SAFETY: these are the functions' types in mkl.h, also in builds with 64-bit integers. Pools keep their
    // objects pinned.
    let mkl = unsafe {
        Mkl { get: object.own("MKL_Get_Max_Threads")?, set_local: object.own("MKL_Set_Num_Threads_Local")? }
    };
    let among_loaded =
        |start: &str| loaded.iter().any(|other| other.file_name().starts_with(start.as_bytes()));
    let is_front = object.file_name().starts_with("libmkl_rt");
    if !is_front && object.file_name().starts_with("libmkl_") && among_loaded("libmkl_rt") {
        // A layer behind the front: the same counts by another name.
        return None;
    }
    if is_front && !among_loaded("libmkl_core") {
        let asleep = Pool::of(object, super::BLAS, "mkl", PREFIXES, Reach::Thread, Box::new(ReadOnly(0)));
        return Some(Pool { controllable: false, asleep: true, ..asleep });
    }
    let mut found = Pool::of(object, super::BLAS, "mkl", PREFIXES, Reach::Thread, Box::new(mkl));
    found.version = version(object);
    found.threading_layer = threading_layer(object);
    Some(found)
}

/// "2022.1-Product" from "Intel(R) oneAPI Math Kernel Library Version 2022.1-Product Build 20220312 ...".
fn version(object: &Object) -> Option<String> {
    // SAFETY: the function's type in mkl.h.
    let ask = unsafe { object.own::<unsafe extern "C" fn(*mut c_char, c_int)>("MKL_Get_Version_String") }?;
    let mut text = [0u8; 256];
    // SAFETY: the library is pinned and awake, and writes no more than the size it is told: the last byte
    // stays 0.
    unsafe { ask(text.as_mut_ptr().cast(), text.len() as c_int - 1) };
    let text = CStr::from_bytes_until_nul(&text).ok()?.to_str().ok()?;
    Some(text.split_once("Version ")?.1.split_whitespace().next()?.to_owned())
}

/// What its threads are made with; only the front knows.
fn threading_layer(object: &Object) -> Option<String> {
    // SAFETY: the function's type in mkl.h.
    let exchange = unsafe { object.own::<Exchange>("MKL_Set_Threading_Layer") }?;
    // SAFETY: the library is pinned and awake; -1 sets nothing and returns the layer in use.
    let layer = match unsafe { exchange(-1) } {
        0 => "intel",
        1 => "sequential",
        2 => "pgi",
        3 => "gnu",
        4 => "tbb",
        _ => return None,
    };
    Some(layer.to_owned())
}
