//! OpenBLAS, under whatever names it was built: `openblas_get_num_threads`,
//! `scipy_openblas_get_num_threads64_`, ...
//!
//! A build with its own threads has one pool for the whole process. A build on OpenMP takes its count from
//! the OpenMP runtime it is bound to, thread by thread; what its own setter does there changed several times:
//!
//! | version          | the next BLAS call uses                                         | set through    |
//! |------------------|-----------------------------------------------------------------|----------------|
//! | up to 0.3.20     | 1 if its own count is 1, else the calling thread's OpenMP count | its own setter |
//! | 0.3.21           | the calling thread's OpenMP count                               | OpenMP         |
//! | 0.3.22, 0.3.23   | its own count                                                   | its own setter |
//! | 0.3.24 to 0.3.33 | the calling thread's OpenMP count (its own setter is idle)      | OpenMP         |
//! | 0.3.34 and later | the smaller of the two                                          | OpenMP         |

use super::find::Object;
use super::ledger;
use super::openmp;
use super::pool::{Count, Get, Knob, Pool, Reach, ReadOnly, Saved, Set};
use std::ffi::{CStr, c_char};
use std::sync::Arc;

const PREFIXES: &[&str] = &["libscipy_openblas", "libopenblas"];

/// The affixes of one build's names.
struct Names {
    prefix: String,
    suffix: String,
}

impl Names {
    /// Reads them off the object's own symbols.
    fn of(object: &Object) -> Option<Names> {
        const GET: &str = "openblas_get_num_threads";
        // The Fortran twin has one underscore more than the C function, so the C function is the shortest.
        let getter = object.containing(GET).into_iter().min_by_key(|name| name.len())?;
        let (prefix, suffix) = getter.split_once(GET)?;
        Some(Names { prefix: prefix.to_owned(), suffix: suffix.to_owned() })
    }

    /// A function of this build.
    ///
    /// # Safety
    /// `F` is its type.
    unsafe fn function<F: Copy>(&self, object: &Object, name: &str) -> Option<F> {
        // SAFETY: the caller vouches for the type.
        unsafe { object.own(&format!("{}{name}{}", self.prefix, self.suffix)) }
    }

    /// What a function that returns a static text says.
    fn text(&self, object: &Object, name: &str) -> Option<String> {
        // SAFETY: both functions that are asked for in this way are `char *(void)`.
        let ask = unsafe { self.function::<unsafe extern "C" fn() -> *const c_char>(object, name) }?;
        // OpenBLAS composes the text in one buffer, anew at each call: one thread at a time.
        ledger::serially(|| {
            // SAFETY: the object is pinned by the caller; the result is null or a text that ends.
            let text = unsafe { ask().as_ref().map(|text| CStr::from_ptr(text)) };
            text.map(|text| text.to_string_lossy().into_owned())
        })
    }
}

/// Own setter of an old OpenMP build, which also changes the OpenMP count of whatever thread calls it: that
/// count is the thread's own business, so it is put back.
struct OwnCountAside {
    own: Count,
    openmp: Count,
}

impl OwnCountAside {
    fn keeping_openmp<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.openmp.get();
        let result = change();
        self.openmp.restore(Saved::Count(before));
        result
    }
}

impl Knob for OwnCountAside {
    fn get(&self) -> i32 {
        self.own.get()
    }

    fn set(&self, threads: i32) -> Saved {
        self.keeping_openmp(|| self.own.set(threads))
    }

    fn restore(&self, saved: Saved) {
        self.keeping_openmp(|| self.own.restore(saved));
    }
}

/// A newer OpenMP build: its own count bounds the OpenMP one, but only the latter is a thread's own.
struct Bounded {
    own: Count,
    openmp: Count,
}

impl Knob for Bounded {
    fn get(&self) -> i32 {
        self.own.get().min(self.openmp.get())
    }

    fn set(&self, threads: i32) -> Saved {
        self.openmp.set(threads)
    }

    fn restore(&self, saved: Saved) {
        self.openmp.restore(saved);
    }
}

/// The OpenBLAS that `object` is, or has linked into it.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    let names = Names::of(object)?;
    // SAFETY: these are the functions' types in every version, whatever their affixes;
    // `openblas_get_parallel` is `int(void)` too. Pools keep their objects pinned.
    let (own, parallel) = unsafe {
        let get = names.function::<Get>(object, "openblas_get_num_threads")?;
        let set = names.function::<Set>(object, "openblas_set_num_threads");
        let set = set.or_else(|| names.function(object, "goto_set_num_threads"))?;
        (Count::new(get, set), names.function::<Get>(object, "openblas_get_parallel"))
    };
    let config = names.text(object, "openblas_get_config").unwrap_or_default();
    let version = version_of(&config);
    // SAFETY: the object is pinned; the function returns a constant.
    let layer = match parallel.map(|parallel| unsafe { parallel() }) {
        Some(0) => "disabled",
        Some(1) => "pthreads",
        Some(2) => "openmp",
        _ if config.contains("USE_OPENMP") => "openmp",
        _ => "unknown",
    };
    let pool = |reach, knob| with_knob(object, reach, knob);
    let mut found = match (layer, openmp::bound_to(object)) {
        ("disabled", _) => Pool { controllable: false, ..pool(Reach::Process, Box::new(ReadOnly(1))) },
        ("openmp", Some(openmp)) => match version.as_deref().and_then(parse_version).unwrap_or_default() {
            old if old <= (0, 3, 20) => pool(Reach::Process, Box::new(OwnCountAside { own, openmp })),
            (0, 3, 22..=23) => pool(Reach::Process, Box::new(own)),
            (0, 3, 21) | (0, 3, 24..=33) => pool(Reach::Thread, Box::new(openmp)),
            _ => pool(Reach::Thread, Box::new(Bounded { own, openmp })),
        },
        _ => pool(Reach::SharedPool, Box::new(own)),
    };
    found.architecture = names.text(object, "openblas_get_corename");
    found.threading_layer = Some(layer.to_owned());
    found.version = version;
    Some(found)
}

fn with_knob(object: &Arc<Object>, reach: Reach, knob: Box<dyn Knob>) -> Pool {
    Pool::of(object, super::BLAS, "openblas", PREFIXES, reach, knob)
}

/// The version in a configuration text, "OpenBLAS 0.3.21 NO_LAPACKE ...". Versions before 0.3.4 do not tell.
fn version_of(config: &str) -> Option<String> {
    let word = config.strip_prefix("OpenBLAS")?.split_whitespace().next()?;
    word.starts_with(|first: char| first.is_ascii_digit()).then(|| word.to_owned())
}

/// "0.3.21.dev" as (0, 3, 21).
fn parse_version(version: &str) -> Option<(u32, u32, u32)> {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_text_has_the_version_since_0_3_4() {
        assert_eq!(version_of("OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH").as_deref(), Some("0.3.21"));
        assert_eq!(version_of("OpenBLAS 0.3.34.dev  USE64BITINT").as_deref(), Some("0.3.34.dev"));
        assert_eq!(version_of("NO_LAPACKE DYNAMIC_ARCH"), None);
        assert_eq!(version_of("OpenBLAS NO_LAPACKE"), None);
    }

    #[test]
    fn a_version_is_compared_by_its_numbers() {
        assert_eq!(parse_version("0.3.21"), Some((0, 3, 21)));
        assert_eq!(parse_version("0.3.34.dev"), Some((0, 3, 34)));
        assert_eq!(parse_version("0.3"), None);
        assert!(parse_version("0.3.9") < parse_version("0.3.20"));
    }
}
