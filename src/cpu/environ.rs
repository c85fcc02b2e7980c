//! Whether the environment has changed.

/// A number that is another one after a variable has been set, changed or removed by `setenv`, `putenv` or `unsetenv`: so that
/// what was read need not be read again at every call. It takes about a nanosecond for each three variables. None where that
/// cannot be told.
///
/// It is the sum of the addresses of all texts: `setenv` gives every new text an address of its own. What a program changes inside
/// a text that it has passed to `putenv` is not seen.
#[cfg(target_os = "linux")]
pub fn environment_mark() -> Option<u64> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    // SAFETY: as `getenv` does: the list ends with NULL, and a program that changes the environment while other threads read it
    // has itself to blame.
    unsafe {
        let mut mark = 1;
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            mark = ((*at).addr() as u64).wrapping_add(mark);
            at = at.add(1);
        }
        Some(mark)
    }
}

/// As on Linux.
#[cfg(not(target_os = "linux"))]
pub fn environment_mark() -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::environment_mark;
    use std::ffi::CStr;

    fn set(name: &CStr, value: &CStr) {
        // SAFETY: the names are this test's own, and texts of the C library's.
        assert_eq!(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }, 0);
    }

    #[test]
    fn every_change_changes_the_mark() {
        let mut seen = vec![environment_mark().unwrap()];
        for value in [c"1", c"2", c"3"] {
            set(c"PB_TEST_OF_MARKS", value);
            let now = environment_mark().unwrap();
            assert!(!seen.contains(&now));
            assert_eq!(environment_mark(), Some(now));
            seen.push(now);
        }
    }
}
