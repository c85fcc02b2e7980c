//! BLIS and AMD's AOCL-BLIS.
//!
//! Up to 0.9 the count belongs to the process; since 1.0 to the calling thread, unless built without
//! thread-local storage. Its integers have 64 bits unless configured otherwise. "Ways" (threads for each of
//! the five loops) beat the plain count while any of them is above 1, so they are reset and put back with it.
//!
//! AOCL-BLIS follows OpenMP until its own setter is called once on a thread, and then never again: there the
//! OpenMP count is the knob, unless the environment has made BLIS decide already.

use super::find::Object;
use super::openmp;
use super::pool::{Knob, Pool, Reach, Saved};
use std::ffi::{CStr, c_char, c_int};
use std::sync::Arc;

const PREFIXES: &[&str] = &["libblis"];

/// Getters, setter and ways for one width of BLIS's integer.
struct Functions<I> {
    get: unsafe extern "C" fn() -> I,
    set: unsafe extern "C" fn(I),
    /// Ways of the loops, outermost first.
    get_ways: [unsafe extern "C" fn() -> I; 5],
    set_ways: unsafe extern "C" fn(I, I, I, I, I),
}

impl<I> Functions<I> {
    /// Finds them.
    ///
    /// # Safety
    /// The library was built with integers of type `I`.
    unsafe fn of(object: &Object) -> Option<Self> {
        // SAFETY: the functions' types in bli_thread.h for integers of type `I`.
        unsafe {
            Some(Functions {
                get: object.own("bli_thread_get_num_threads")?,
                set: object.own("bli_thread_set_num_threads")?,
                get_ways: [
                    object.own("bli_thread_get_jc_nt")?,
                    object.own("bli_thread_get_pc_nt")?,
                    object.own("bli_thread_get_ic_nt")?,
                    object.own("bli_thread_get_jr_nt")?,
                    object.own("bli_thread_get_ir_nt")?,
                ],
                set_ways: object.own("bli_thread_set_ways")?,
            })
        }
    }
}

impl<I: Copy + Into<i64> + TryFrom<i64> + Default> Functions<I> {
    fn ways(&self) -> [i64; 5] {
        // SAFETY: the library is pinned; the getters take nothing.
        self.get_ways.map(|get| unsafe { get() }.into())
    }

    fn set_ways(&self, ways: [i64; 5]) {
        let [jc, pc, ic, jr, ir] = ways.map(|way| I::try_from(way).unwrap_or_default());
        // SAFETY: the library is pinned, and it takes any counts.
        unsafe { (self.set_ways)(jc, pc, ic, jr, ir) };
    }

    fn set_count(&self, threads: i64) {
        // SAFETY: as above.
        unsafe { (self.set)(I::try_from(threads).unwrap_or_default()) };
    }

    fn count(&self) -> i64 {
        // SAFETY: as above.
        unsafe { (self.get)() }.into()
    }
}

fn in_use(ways: [i64; 5]) -> bool {
    ways.iter().any(|way| *way > 1)
}

impl<I: Copy + Into<i64> + TryFrom<i64> + Default> Knob for Functions<I> {
    fn get(&self) -> i32 {
        let ways = self.ways();
        // An unset way, or an unset count, reads -1 and means 1.
        let count = if in_use(ways) { ways.iter().map(|way| way.max(&1)).product() } else { self.count() };
        i32::try_from(count.max(1)).unwrap_or(i32::MAX)
    }

    fn set(&self, threads: i32) -> Saved {
        let (ways, count) = (self.ways(), self.count());
        if in_use(ways) {
            self.set_ways([1; 5]);
        }
        self.set_count(threads.into());
        Saved::Ways(ways, count)
    }

    fn restore(&self, saved: Saved) {
        if let Saved::Ways(ways, count) = saved {
            if in_use(ways) {
                self.set_ways(ways);
            }
            self.set_count(count);
        }
    }
}

/// The BLIS that `object` is, or has linked into it.
pub fn find(object: &Arc<Object>) -> Option<Pool> {
    if !object.defines("bli_thread_set_num_threads") {
        return None;
    }
    let version = text(object, "bli_info_get_version_str");
    // A wider integer than it returns does no harm here: the low half holds the answer.
    let bits = ask(object, "bli_info_get_int_type_size").unwrap_or(i64::BITS as c_int);
    let reach = match ask(object, "bli_info_get_enable_tls") {
        Some(with_tls) if with_tls != 0 => Reach::Thread,
        _ => Reach::Process,
    };
    let is_amd = version.as_deref().is_some_and(|version| version.contains("AOCL"));
    let pool = |reach, knob| Pool::of(object, super::BLAS, "blis", PREFIXES, reach, knob);
    let mut found = match openmp::bound_to(object).filter(|_| is_amd && !environment_decides()) {
        Some(openmp) => pool(Reach::Thread, Box::new(openmp) as Box<dyn Knob>),
        // SAFETY: the library says that its integers have this width.
        None if bits == 32 => pool(reach, Box::new(unsafe { Functions::<i32>::of(object) }?)),
        // SAFETY: as above.
        None => pool(reach, Box::new(unsafe { Functions::<i64>::of(object) }?)),
    };
    found.threading_layer = Some(threading_layer(object).to_owned());
    found.architecture = architecture(object);
    found.version = version;
    Some(found)
}

/// Whether a variable has told BLIS how many threads to use.
fn environment_decides() -> bool {
    ["BLIS_NUM_THREADS", "BLIS_JC_NT", "BLIS_PC_NT", "BLIS_IC_NT", "BLIS_JR_NT", "BLIS_IR_NT"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

/// A build may hold several layers: newer ones tell which is the default, older ones which is built in.
fn threading_layer(object: &Object) -> &'static str {
    let says = |name: &str| ask(object, name).is_some_and(|answer| answer != 0);
    let has_default = object.defines("bli_info_get_enable_openmp_as_default");
    let suffix = if has_default { "_as_default" } else { "" };
    if says(&format!("bli_info_get_enable_openmp{suffix}")) {
        "openmp"
    } else if says(&format!("bli_info_get_enable_pthreads{suffix}")) {
        "pthreads"
    } else {
        "disabled"
    }
}

fn architecture(object: &Object) -> Option<String> {
    type Name = unsafe extern "C" fn(c_int) -> *const c_char;
    let id = ask(object, "bli_arch_query_id")?;
    // SAFETY: the function's type in bli_arch.h: it takes an enum.
    let name = unsafe { object.own::<Name>("bli_arch_string") }?;
    // SAFETY: the object is pinned, the id is its own, and the result is null or a static text.
    unsafe { name(id).as_ref().map(|text| CStr::from_ptr(text).to_string_lossy().into_owned()) }
}

/// What an `int(void)` or `gint_t(void)` says.
fn ask(object: &Object, name: &str) -> Option<c_int> {
    // SAFETY: the functions that are asked for take nothing and return a small integer, whose low half is an
    // int.
    unsafe { object.own::<unsafe extern "C" fn() -> c_int>(name).map(|function| function()) }
}

/// What a `const char *(void)` says.
fn text(object: &Object, name: &str) -> Option<String> {
    // SAFETY: the function that is asked for returns null or a static text.
    unsafe {
        let function = object.own::<unsafe extern "C" fn() -> *const c_char>(name)?;
        function().as_ref().map(|text| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}
