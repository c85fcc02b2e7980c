//! A value for the whole process.

use crate::sync::Ordering;
use std::sync::atomic::AtomicPtr;

/// One value for the whole process, made when first needed, never freed.
pub(in crate::backends::threading) struct Leaked<T>(AtomicPtr<T>);

impl<T: Sync + 'static> Leaked<T> {
    pub(in crate::backends::threading) const fn new() -> Self {
        Leaked(AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(in crate::backends::threading) fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or from `Box::into_raw` below, and never freed. Acquire: what the maker wrote is visible.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    pub(in crate::backends::threading) fn get_or_make(&self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(there) = self.get() {
            return there;
        }
        let made = Box::into_raw(Box::new(make()));
        match self.0.compare_exchange(std::ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: from `Box::into_raw`, and leaked.
            Ok(_) => unsafe { &*made },
            Err(others) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `get`.
                unsafe { &*others }
            }
        }
    }

    /// In a forked child: the value belongs to threads that are not here.
    pub(in crate::backends::threading) fn forget(&self) {
        self.0.store(std::ptr::null_mut(), Ordering::Release);
    }
}
