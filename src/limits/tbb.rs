//! oneTBB: a `tbb::global_control` object of ours caps its parallelism while it lives.
//!
//! The smallest value of all live objects wins, so this can lower a count, never raise one, and it composes
//! with objects that the program has made itself.

use super::find::Object;
use super::pool::{Knob, Pool, Reach, Saved};
use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// `tbb::detail::d1::global_control`.
#[repr(C)]
struct Control {
    value: usize,
    reserved: isize,
    parameter: c_int,
}

/// The parameter that counts threads, the caller's included.
const MAX_ALLOWED_PARALLELISM: c_int = 0;

/// `void (global_control &)`
type Change = unsafe extern "C" fn(*mut Control);

struct Tbb {
    active_value: unsafe extern "C" fn(c_int) -> usize,
    create: Change,
    destroy: Change,
    /// The object through which we hold the count down, if we do.
    ours: AtomicPtr<Control>,
}

impl Tbb {
    fn replace(&self, new: *mut Control) {
        if !new.is_null() {
            // SAFETY: the library is pinned, and the object stays where it is until it is destroyed below.
            unsafe { (self.create)(new) };
        }
        let old = self.ours.swap(new, Ordering::AcqRel);
        if !old.is_null() {
            // SAFETY: `old` comes from `Box::into_raw` in `set`, was created above, and whoever swaps it out
            // owns it.
            unsafe {
                (self.destroy)(old);
                drop(Box::from_raw(old));
            }
        }
    }
}

impl Knob for Tbb {
    fn get(&self) -> i32 {
        // SAFETY: the library is pinned; the function takes a parameter's number.
        let value = unsafe { (self.active_value)(MAX_ALLOWED_PARALLELISM) };
        i32::try_from(value).unwrap_or(i32::MAX)
    }

    fn set(&self, threads: i32) -> Saved {
        let value = usize::try_from(threads).unwrap_or(1).max(1);
        self.replace(Box::into_raw(Box::new(Control {
            value,
            reserved: 0,
            parameter: MAX_ALLOWED_PARALLELISM,
        })));
        Saved::Nothing
    }

    fn restore(&self, _saved: Saved) {
        self.replace(ptr::null_mut());
    }

    /// Our object is nobody else's to change, and must go in any case.
    fn restore_unless_changed(&self, saved: Saved, _seen: i32) {
        self.restore(saved);
    }
}

/// The oneTBB that `object` is.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    // SAFETY: the types of r1::create, r1::destroy and r1::global_control_active_value, whose names are
    // mangled here; a C++ reference is passed as an address. Pools keep their objects pinned.
    let tbb = unsafe {
        Tbb {
            active_value: object.own("_ZN3tbb6detail2r127global_control_active_valueEi")?,
            create: object.own("_ZN3tbb6detail2r16createERNS0_2d114global_controlE")?,
            destroy: object.own("_ZN3tbb6detail2r17destroyERNS0_2d114global_controlE")?,
            ours: AtomicPtr::default(),
        }
    };
    let version = version(object);
    Some(Pool {
        version,
        ..Pool::of(object, super::TBB, "tbb", &["libtbb"], Reach::SharedPool, Box::new(tbb))
    })
}

fn version(object: &Object) -> Option<String> {
    // SAFETY: the function's type in tbb/version.h; the result is null or a static text.
    unsafe {
        let ask = object.own::<unsafe extern "C" fn() -> *const std::ffi::c_char>("TBB_runtime_version")?;
        ask().as_ref().map(|text| std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
