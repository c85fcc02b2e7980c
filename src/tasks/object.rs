//! Files of code as they are mapped in this process (ELF): which one has an address, and what identifies its build.
//!
//! Only `dladdr` is used to find an object, never a walk over the loader's list: its lock is one that glibc sets free in a
//! forked child. What is read of an object lies in its mapped headers and read-only segments.

use super::{Place, not_portable};
use crate::status::Result;
use libloading::os::unix::Library;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[cfg(target_pointer_width = "32")]
use libc::{Elf32_Ehdr as Ehdr, Elf32_Phdr as Phdr};
#[cfg(target_pointer_width = "64")]
use libc::{Elf64_Ehdr as Ehdr, Elf64_Phdr as Phdr};

const PF_X: u32 = 1;
const NT_GNU_BUILD_ID: u32 = 3;
/// Kinds of identity, the first byte of one.
const BUILD_ID: u8 = 1;
const CODE_HASH: u8 = 2;

/// A mapped object.
struct Object {
    /// Where its first segment is mapped.
    start: usize,
    /// The name that the loader knows it by.
    name: PathBuf,
    symbol: Option<(String, usize)>,
}

/// The object that has an address, with the symbol at or before it.
fn find(address: usize) -> Option<Object> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: `info` is writable; any address may be asked for.
    if unsafe { libc::dladdr(address as *const c_void, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: `dladdr` succeeded: both are nul-terminated texts of a loaded object, or NULL.
    let (name, symbol) = unsafe {
        let symbol = (!info.dli_sname.is_null()).then(|| CStr::from_ptr(info.dli_sname));
        (CStr::from_ptr(info.dli_fname), symbol)
    };
    Some(Object {
        start: info.dli_fbase as usize,
        name: OsStr::from_bytes(name.to_bytes()).into(),
        symbol: symbol.map(|text| (text.to_string_lossy().into_owned(), info.dli_saddr as usize)),
    })
}

/// Where the program itself is mapped.
fn program_start() -> Option<usize> {
    // SAFETY: the auxiliary vector may always be read; AT_PHDR is the address of the program's own headers.
    let headers = unsafe { libc::getauxval(libc::AT_PHDR) } as usize;
    find(headers).map(|object| object.start)
}

impl Object {
    fn is_program(&self) -> bool {
        program_start() == Some(self.start)
    }

    /// The file, as an absolute path.
    fn path(&self) -> PathBuf {
        if self.is_program() {
            return std::env::current_exe().unwrap_or_else(|_| self.name.clone());
        }
        self.name.canonicalize().unwrap_or_else(|_| self.name.clone())
    }

    /// The mapped program headers; none for what does not begin with an ELF header.
    fn headers(&self) -> &'static [Phdr] {
        let header = self.start as *const Ehdr;
        // SAFETY: `start` is where a loaded object's first segment is mapped, which begins with the file's header and has the
        // table of program headers after it; both are at least a page and stay while the object is loaded.
        unsafe {
            let magic = (*header).e_ident;
            if magic[..4] != *b"\x7fELF" {
                return &[];
            }
            let table = (self.start + (*header).e_phoff as usize) as *const Phdr;
            std::slice::from_raw_parts(table, (*header).e_phnum.into())
        }
    }

    /// The mapped bytes of segments of a kind.
    fn segments(&self, kind: u32) -> impl Iterator<Item = (&'static Phdr, &'static [u8])> {
        let headers = self.headers();
        let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD);
        // Addresses in the file count from its first segment, which begins on a page.
        let first = first.map_or(0, |header| header.p_vaddr as usize & !4095);
        let start = self.start;
        headers.iter().filter(move |header| header.p_type == kind).map(move |header| {
            let at = start.wrapping_add(header.p_vaddr as usize).wrapping_sub(first);
            // SAFETY: the segment of a loaded object is mapped over its size in the file. Only notes and code are asked for,
            // which are readable and not written to.
            (header, unsafe { std::slice::from_raw_parts(at as *const u8, header.p_filesz as usize) })
        })
    }

    fn code(&self) -> impl Iterator<Item = &'static [u8]> {
        self.segments(libc::PT_LOAD).filter(|(header, _)| header.p_flags & PF_X != 0).map(|(_, bytes)| bytes)
    }

    fn has_code_at(&self, address: usize) -> bool {
        self.code().any(|bytes| bytes.as_ptr_range().contains(&(address as *const u8)))
    }

    /// What tells this build from another: the linker's build-id, or a hash of the code where it wrote none.
    fn identity(&self) -> Vec<u8> {
        let id = self.segments(libc::PT_NOTE).find_map(|(_, notes)| build_id(notes));
        match id {
            Some(id) => [&[BUILD_ID], id].concat(),
            None => [&[CODE_HASH][..], &hash(self.code()).to_le_bytes()].concat(),
        }
    }
}

/// The build-id among the notes of a segment: each has three words (sizes of name and content, kind), then both, padded.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    let padded = |size: usize| size.checked_add(3).map(|size| size & !3);
    loop {
        let word = |at: usize| Some(u32::from_ne_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (name_size, size, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let content = 12usize.checked_add(padded(name_size)?)?;
        let end = content.checked_add(padded(size)?)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16) == Some(b"GNU\0") && size > 0 {
            return notes.get(content..content.checked_add(size)?);
        }
        notes = notes.get(end..)?;
    }
}

/// FNV-1a over words: it need only tell two builds apart.
fn hash(code: impl Iterator<Item = &'static [u8]>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut mix = |word: u64| hash = (hash ^ word).wrapping_mul(0x100_0000_01b3).rotate_left(29);
    for bytes in code {
        let words = bytes.chunks_exact(8);
        let rest = words.remainder();
        words.for_each(|word| mix(u64::from_le_bytes(word.try_into().unwrap_or_default())));
        rest.iter().for_each(|byte| mix(u64::from(*byte)));
        mix(bytes.len() as u64);
    }
    hash
}

fn shown(symbol: &str) -> String {
    if symbol.is_empty() { "a function".to_owned() } else { format!("the function '{symbol}'") }
}

/// The place of a function of this process. Its library stays loaded from now on.
pub fn place_of(address: usize) -> Result<Place> {
    let object = find(address).filter(|object| object.has_code_at(address)).ok_or_else(|| {
        not_portable(
            "the task's function lies in no loaded file, so another process cannot find it (code that was made while the \
             program ran?): put it into a shared library, or pb_register_task it in the program and in its workers"
                .into(),
        )
    })?;
    let is_program = object.is_program();
    if !is_program {
        // SAFETY: the object is loaded already, so no initialiser runs.
        let library = unsafe { Library::open(Some(&object.name), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        // One reference stays for ever: the address is remembered.
        std::mem::forget(library);
    }
    let file = if is_program { String::new() } else { object.path().to_string_lossy().into_owned() };
    Ok(Place {
        file,
        identity: object.identity(),
        symbol: object
            .symbol
            .as_ref()
            .filter(|(_, at)| *at == address)
            .map_or(String::new(), |(name, _)| name.clone()),
        offset: (address - object.start) as u64,
    })
}

/// The function at a place, in this process; loads its library.
pub fn address_of(place: &Place) -> Result<usize> {
    let object = if place.is_program() { program(place)? } else { load(&place.file)? };
    if object.identity() != place.identity {
        let what = if place.is_program() { "the program".to_owned() } else { format!("'{}'", place.file) };
        return Err(not_portable(format!(
            "the worker has another build of {what} than the caller, in which {} may lie elsewhere: was it installed anew \
             while the caller ran? Start the caller again",
            shown(&place.symbol)
        )));
    }
    let address = usize::try_from(place.offset).ok().and_then(|offset| object.start.checked_add(offset));
    address.filter(|address| object.has_code_at(*address)).ok_or_else(|| {
        not_portable(format!("there is no code at offset {} of '{}'", place.offset, object.name.display()))
    })
}

fn program(place: &Place) -> Result<Object> {
    let own = program_start()
        .and_then(find)
        .ok_or_else(|| not_portable("this program cannot be looked into".into()))?;
    if own.identity() == place.identity {
        return Ok(own);
    }
    Err(not_portable(format!(
        "{} of the calling program is not in this worker ('{}'): call pb_worker_main first in main(), so that workers are \
         the program itself; or put the task into a shared library",
        shown(&place.symbol),
        own.path().display()
    )))
}

/// Loads a library that has tasks, for good. Returns the identity of its build.
pub fn load_file(path: &str) -> Result<Vec<u8>> {
    load(path).map(|object| object.identity())
}

fn load(file: &str) -> Result<Object> {
    // SAFETY: loading runs the library's initialisers, as it did in the process that refers to it.
    let library = unsafe { Library::open(Some(Path::new(file)), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
    let library = library.map_err(|error| {
        not_portable(format!("the worker cannot load '{file}', which has the task: {error}"))
    })?;
    let missing = || not_portable(format!("'{file}' cannot be looked into"));
    let object = start_of(library).and_then(find);
    object.ok_or_else(missing)
}

/// An address inside a library, which stays loaded.
#[cfg(target_env = "gnu")]
fn start_of(library: Library) -> Option<usize> {
    let handle = library.into_raw();
    let mut link_map: *const [usize; 3] = std::ptr::null();
    // SAFETY: the handle is open, and RTLD_DI_LINKMAP writes one pointer.
    let failed = unsafe { libc::dlinfo(handle, libc::RTLD_DI_LINKMAP, (&raw mut link_map).cast()) };
    // SAFETY: on success it points to the object's link map, whose third word is the address of its dynamic section.
    (failed == 0).then(|| unsafe { (*link_map)[2] })
}

/// musl's handle is what its link map is elsewhere.
#[cfg(not(target_env = "gnu"))]
fn start_of(library: Library) -> Option<usize> {
    let link_map = library.into_raw() as *const [usize; 3];
    // SAFETY: the handle is open; musl defines it to begin as a link map does.
    Some(unsafe { (*link_map)[2] })
}

/// The file that this library is part of: the shared library, or the program that has it inside.
pub fn own_library() -> Option<PathBuf> {
    find(own_library as *const () as usize).map(|object| object.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, content: &[u8]) -> Vec<u8> {
        let word = |n: usize| (n as u32).to_ne_bytes();
        let mut bytes = [word(name.len()), word(content.len()), kind.to_ne_bytes()].concat();
        for part in [name, content] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn the_build_id_is_found_among_notes() {
        let notes =
            [note(b"GNU\0", 1, b"abcdefg"), note(b"xy\0", 3, b"no"), note(b"GNU\0", 3, b"the id")].concat();
        assert_eq!(build_id(&notes), Some(&b"the id"[..]));
        assert_eq!(build_id(&notes[..notes.len() - 8]), None);
        assert_eq!(build_id(&[255; 40]), None, "sizes that lie are no way out of the notes");
    }

    #[test]
    fn the_hash_sees_every_byte() {
        let hashes = [&b"12345678abc"[..], b"12345678abd", b"12345678ab", b"22345678abc"]
            .map(|code| hash([code].into_iter()));
        for (i, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..i].contains(hash));
        }
    }

    #[test]
    fn builds_have_an_identity() {
        let libc = find(libc::qsort as *const () as usize).unwrap();
        assert_eq!(libc.identity()[0], BUILD_ID);
        assert!(!libc.is_program());
        assert!(program_start().and_then(find).unwrap().is_program());
    }
}
