//! Tasks that other processes can find: by the name they were registered under, or by where they lie in a loaded file.
//!
//! A [`Reference`] is made in the process that calls and resolved in the one that works. A place is a file, an identity of
//! the code in it and an offset, so static functions can be found too; where the identities differ the resolver refuses: a
//! library that was built anew between the two has something else at that offset.
//!
//! Addresses that were looked up stay valid: the library of a task that was referred to is kept loaded.

#[cfg(target_os = "linux")]
mod object;
#[cfg(not(target_os = "linux"))]
#[path = "object_nothing.rs"]
mod object;
mod own;

pub use object::own_library;
pub use own::{can_rerun, note_rerun};

use crate::status::{Error, Result, Status};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What finds a task in another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    /// The name that it is registered under; tried first.
    pub name: Option<String>,
    /// Where it lies.
    pub place: Option<Place>,
}

/// A function's place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The library's path; empty for the program itself.
    pub file: String,
    /// What tells one build of the file from another.
    pub identity: Vec<u8>,
    /// The exported symbol at this place, where there is one: for people.
    pub symbol: String,
    /// Bytes from where the file's first segment is mapped.
    pub offset: u64,
}

impl Place {
    /// Whether it is a function of the program, which only that program can run.
    pub fn is_program(&self) -> bool {
        self.file.is_empty()
    }
}

#[derive(Default)]
struct Known {
    names: BTreeMap<String, usize>,
    /// Places that were looked up, by address.
    places: HashMap<usize, Arc<Place>>,
    /// Addresses that were resolved, by place.
    addresses: HashMap<String, Vec<(Place, usize)>>,
    /// Where builds of libraries are here that may lie elsewhere in the process that calls, by identity.
    brought: HashMap<Vec<u8>, String>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

fn with_known<R>(f: impl FnOnce(&mut Known) -> R) -> R {
    f(lock().get_or_insert_default())
}

fn lock() -> MutexGuard<'static, Option<Known>> {
    // Nothing that can panic runs under the lock.
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often a name or a library has been added: what a reference meant before then it may not mean after.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A number that grows when a reference may have got another meaning.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// Holds the lock over a fork, so that the child finds it free.
pub fn fork_guard() -> impl Sized + 'static {
    lock()
}

fn not_portable(message: String) -> Error {
    Error::new(Status::ERR_TASK_NOT_PORTABLE, message)
}

/// Registers a function of this process. The same pair twice is fine; another function under a name in use is not.
pub fn register(name: &str, address: usize) -> Result<()> {
    if name.is_empty() || name.len() > 255 {
        return Err(Error::invalid("the name of a task has 1 to 255 bytes"));
    }
    with_known(|known| match known.names.get(name) {
        Some(other) if *other != address => Err(Error::new(
            Status::ERR_EXISTS,
            format!("another task is registered as '{name}' already: choose another name"),
        )),
        _ => {
            known.names.insert(name.to_owned(), address);
            CHANGES.fetch_add(1, Ordering::Release);
            Ok(())
        }
    })
}

/// The function registered under a name.
pub fn registered(name: &str) -> Option<usize> {
    with_known(|known| known.names.get(name).copied())
}

/// How another process finds a function: by `name` if given, else by a name that it is registered under, and by its place.
pub fn reference(address: usize, name: Option<&str>) -> Result<Reference> {
    let (by_address, place) = with_known(|known| {
        let by_address =
            known.names.iter().find(|(_, other)| **other == address).map(|(name, _)| name.clone());
        (by_address, known.places.get(&address).cloned())
    });
    let name = name.map(str::to_owned).or(by_address);
    let place = match place {
        Some(place) => Ok(place),
        // Takes the dynamic loader's lock, so ours is free.
        None => object::place_of(address).map(|place| {
            let place = Arc::new(place);
            with_known(|known| known.places.insert(address, place.clone()));
            place
        }),
    };
    match (name, place) {
        (None, Err(error)) => Err(error),
        (name, place) => Ok(Reference { name, place: place.ok().map(|place| Place::clone(&place)) }),
    }
}

/// Loads a library for good, in which tasks of its build are found from now on, wherever their own process has it.
pub fn bring(file: &str) -> Result<()> {
    let identity = object::load_file(file)?;
    with_known(|known| known.brought.insert(identity, file.to_owned()));
    CHANGES.fetch_add(1, Ordering::Release);
    Ok(())
}

/// The address, in this process, of what a reference means.
pub fn resolve(reference: &Reference) -> Result<usize> {
    let by_name = || reference.name.as_deref().and_then(registered);
    if let Some(address) = by_name() {
        return Ok(address);
    }
    let Some(place) = &reference.place else {
        let name = reference.name.as_deref().unwrap_or_default();
        return Err(not_portable(format!(
            "no task is registered as '{name}' in the worker, and its function lies in no file: call pb_register_task \
             there too, from a library's initialiser or before pb_worker_main"
        )));
    };
    let known = with_known(|known| {
        let there = known.addresses.get(&place.file)?;
        there.iter().find(|(other, _)| other == place).map(|(_, address)| *address)
    });
    if let Some(address) = known {
        return Ok(address);
    }
    let brought = with_known(|known| known.brought.get(&place.identity).cloned());
    let address = match brought {
        Some(file) if !place.is_program() => object::address_of(&Place { file, ..place.clone() })?,
        _ => object::address_of(place)?,
    };
    // A library may have registered the name when it was loaded just now.
    let address = by_name().unwrap_or(address);
    with_known(|known| {
        known.addresses.entry(place.file.clone()).or_default().push((place.clone(), address));
    });
    Ok(address)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    extern "C" fn here() {}

    fn text(result: Result<impl Sized>) -> (Status, String) {
        let error = result.err().unwrap();
        (error.status, error.message.clone())
    }

    #[test]
    fn a_function_of_the_program_is_found_again() {
        let reference = reference(here as *const () as usize, None).unwrap();
        assert!(reference.place.as_ref().unwrap().is_program());
        assert_eq!(resolve(&reference).unwrap(), here as *const () as usize);
    }

    #[test]
    fn so_is_a_function_of_a_library() {
        let qsort = libc::qsort as *const () as usize;
        let reference = reference(qsort, None).unwrap();
        let place = reference.place.clone().unwrap();
        assert!(place.file.contains("libc"), "{place:?}");
        assert_eq!(place.symbol, "qsort");
        assert_eq!(resolve(&reference).unwrap(), qsort);
    }

    #[test]
    fn another_build_is_refused() {
        let mut reference = reference(libc::qsort as *const () as usize, None).unwrap();
        let place = reference.place.as_mut().unwrap();
        place.identity[1] ^= 1;
        let (status, message) = text(resolve(&reference));
        assert_eq!(status, Status::ERR_TASK_NOT_PORTABLE);
        assert!(message.contains("another build") && message.contains("qsort"), "{message}");
    }

    #[test]
    fn an_offset_outside_the_code_is_refused() {
        for offset in [0, u64::MAX, 1 << 40] {
            let mut reference = reference(libc::qsort as *const () as usize, None).unwrap();
            reference.place.as_mut().unwrap().offset = offset;
            assert!(text(resolve(&reference)).1.contains("no code"));
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut reference = reference(libc::qsort as *const () as usize, None).unwrap();
        reference.place.as_mut().unwrap().file = "/nowhere/libtask.so".into();
        assert!(text(resolve(&reference)).1.contains("/nowhere/libtask.so"));
    }

    #[test]
    fn data_is_no_task_but_may_have_a_name() {
        let data = Box::new(1u64);
        let address = &raw const *data as usize;
        assert!(text(reference(address, None)).1.contains("pb_register_task"));
        register("data", address).unwrap();
        let found = reference(address, None).unwrap();
        assert_eq!(found, Reference { name: Some("data".into()), place: None });
        assert_eq!(resolve(&found).unwrap(), address);
        assert_eq!(text(register("data", 1)).0, Status::ERR_EXISTS);
    }
}
