//! Whether the environment has changed, without reading it anew.

/// The environment as it was when somebody looked. `setenv`, `putenv` and `unsetenv` are noticed; what a program changes inside
/// a text that it has passed to `putenv` is not.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    /// The address of the list, and how many texts it has.
    list: usize,
    texts: usize,
    /// The addresses of the first and the last text; 0 if there is none.
    ends: (usize, usize),
    /// The sum of the addresses of all texts: `setenv` gives every new text an address of its own.
    sum: usize,
    /// Whether a variable of this library is set.
    has_ours: bool,
}

type Text = *const libc::c_char;

#[cfg(target_os = "linux")]
impl Environment {
    /// As it is now. None where that cannot be told.
    pub fn here() -> Option<Self> {
        let list = list();
        let texts = texts(list);
        // SAFETY: texts of the environment are strings.
        let is_ours = |text: Text| unsafe { libc::strncmp(text, c"PB_".as_ptr(), 3) } == 0;
        Some(Environment {
            list: list.addr(),
            texts: texts.clone().count(),
            ends: (address(texts.clone().next()), address(texts.clone().last())),
            sum: sum(list),
            has_ours: texts.clone().any(is_ours),
        })
    }

    /// Whether it is the same now. It takes about a nanosecond for each three variables.
    pub fn is_same(&self) -> bool {
        list().addr() == self.list && sum(list()) == self.sum
    }

    /// Whether no variable of this library can have been set by a call or two since it was surely the same: where there is none, the
    /// first to be set comes last.
    pub fn is_same_at_a_glance(&self) -> bool {
        let list = list();
        if self.has_ours || list.addr() != self.list || list.is_null() {
            return false;
        }
        // SAFETY: the list has had that many texts, and a NULL after them. The C library makes none shorter; to lay another one at
        // its place takes longer than that.
        unsafe {
            let end = list.add(self.texts);
            let ends = || (address(Some(*list)), address(Some(*end.sub(1))));
            (*end).is_null() && (self.texts == 0 || ends() == self.ends)
        }
    }
}

#[cfg(target_os = "linux")]
fn list() -> *const Text {
    unsafe extern "C" {
        static environ: *const Text;
    }
    // SAFETY: as `getenv` does: a program that changes the environment while other threads read it has itself to blame.
    unsafe { environ }
}

#[cfg(target_os = "linux")]
fn address(text: Option<Text>) -> usize {
    text.map_or(0, |text| text.addr())
}

/// The texts of a list, which is the environment's.
#[cfg(target_os = "linux")]
fn texts(list: *const Text) -> impl Iterator<Item = Text> + Clone {
    let mut at = list;
    std::iter::from_fn(move || {
        // SAFETY: the list ends with NULL, and nobody goes on from there.
        let text = if at.is_null() { std::ptr::null() } else { unsafe { *at } };
        at = at.wrapping_add(1);
        (!text.is_null()).then_some(text)
    })
}

#[cfg(target_os = "linux")]
fn sum(list: *const Text) -> usize {
    texts(list).fold(1, |sum, text| sum.wrapping_add(text.addr()))
}

/// As on Linux.
#[cfg(not(target_os = "linux"))]
impl Environment {
    /// None.
    pub fn here() -> Option<Self> {
        None
    }

    /// There is none.
    pub fn is_same(&self) -> bool {
        false
    }

    /// There is none.
    pub fn is_same_at_a_glance(&self) -> bool {
        false
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::Environment;
    use std::ffi::CStr;

    fn set(name: &CStr, value: &CStr) {
        // SAFETY: the names are this test's own, and texts of the C library's.
        assert_eq!(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }, 0);
    }

    fn unset(name: &CStr) {
        // SAFETY: as above.
        assert_eq!(unsafe { libc::unsetenv(name.as_ptr()) }, 0);
    }

    /// One test for both, since tests run side by side.
    #[test]
    fn every_change_is_noticed_and_one_of_ours_at_a_glance() {
        let name = c"PB_TEST_OF_ENVIRON";
        for value in [c"1", c"2", c"3"] {
            let before = Environment::here().unwrap();
            assert!(before.is_same());
            set(name, value);
            assert!(!before.is_same() && !before.is_same_at_a_glance(), "{value:?}");
        }
        let with = Environment::here().unwrap();
        unset(name);
        assert!(!with.is_same() && !with.is_same_at_a_glance());
        let without = Environment::here().unwrap();
        assert!(without.is_same() && (without.has_ours || without.is_same_at_a_glance()));
        set(c"TEST_OF_ENVIRON", c"1");
        unset(name);
        assert!(!without.is_same());
        unset(c"TEST_OF_ENVIRON");
    }
}
