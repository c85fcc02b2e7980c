//! FlexiBLAS: a front that sends every call to a backend library, which can be switched while the program
//! runs.
//!
//! It exports the setters of OpenBLAS, MKL and BLIS as aliases of its own, so it has to be recognised before
//! them. Its setter only forwards to the backend of the moment. The backend is a loaded object like any
//! other, found and limited as itself; the front is listed and left alone.

use super::find::Object;
use super::pool::{Get, Knob, Pool, Reach, Saved};
use std::ffi::c_int;
use std::sync::Arc;

struct Front {
    get: Get,
}

impl Knob for Front {
    fn get(&self) -> i32 {
        // SAFETY: the library is pinned; the function takes nothing.
        unsafe { (self.get)() }
    }

    fn set(&self, _threads: i32) -> Saved {
        Saved::Nothing
    }

    fn restore(&self, _saved: Saved) {}
}

/// The FlexiBLAS that `object` is.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    if !object.defines("flexiblas_avail") {
        return None;
    }
    // SAFETY: the function's type in flexiblas_api.h. Pools keep their objects pinned.
    let get = unsafe { object.own("flexiblas_get_num_threads") }?;
    let knob = Box::new(Front { get });
    let front = Pool::of(object, super::BLAS, "flexiblas", &["libflexiblas"], Reach::Process, knob);
    Some(Pool { controllable: false, version: version(object), ..front })
}

fn version(object: &Object) -> Option<String> {
    type Ask = unsafe extern "C" fn(*mut c_int, *mut c_int, *mut c_int);
    // SAFETY: the function's type in flexiblas_api.h.
    let ask = unsafe { object.own::<Ask>("flexiblas_get_version") }?;
    let (mut major, mut minor, mut patch) = (0, 0, 0);
    // SAFETY: the library is pinned; three ints are written.
    unsafe { ask(&mut major, &mut minor, &mut patch) };
    Some(format!("{major}.{minor}.{patch}"))
}
