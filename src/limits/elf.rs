//! The functions that a loaded ELF object itself defines, read from its dynamic symbol table in memory.
//!
//! `dlsym` on a handle also searches the object's dependencies, so it would take Debian's `libblas.so.3`,
//! which only needs `libopenblas.so.0`, for an OpenBLAS of its own. The object's own table cannot mislead in
//! this way.

use std::ffi::CStr;

#[cfg(target_pointer_width = "32")]
use libc::Elf32_Sym as Sym;
#[cfg(target_pointer_width = "64")]
use libc::Elf64_Sym as Sym;

/// One entry of a dynamic table: `Elf64_Dyn` or `Elf32_Dyn`.
#[repr(C)]
pub struct Dyn {
    tag: isize,
    value: usize,
}

const DT_NULL: isize = 0;
const DT_HASH: isize = 4;
const DT_STRTAB: isize = 5;
const DT_SYMTAB: isize = 6;
const DT_STRSZ: isize = 10;
const DT_GNU_HASH: isize = 0x6fff_fef5;

const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// The dynamic symbols of one object. The slices are `'static` because whoever holds this also pins the
/// object.
pub struct Symbols {
    table: &'static [Sym],
    names: &'static [u8],
}

impl Symbols {
    /// Finds the tables of the object at `base`. `None` where it has no symbols or no hash to count them by, or defines no function, as
    /// most programs do not for others.
    ///
    /// # Safety
    /// `dynamic` is the dynamic table of an object loaded at `base`, which stays loaded for as long as the
    /// result is used.
    pub unsafe fn read(base: usize, dynamic: *const Dyn) -> Option<Symbols> {
        let (mut table, mut names, mut names_size, mut hash, mut gnu_hash) = (0, 0, 0, 0, 0);
        let mut entry = dynamic;
        loop {
            // SAFETY: a dynamic table ends with DT_NULL, and `entry` has not passed it.
            let Dyn { tag, value } = unsafe { entry.read() };
            match tag {
                DT_NULL => break,
                DT_SYMTAB => table = value,
                DT_STRTAB => names = value,
                DT_STRSZ => names_size = value,
                DT_HASH => hash = value,
                DT_GNU_HASH => gnu_hash = value,
                _ => {}
            }
            // SAFETY: this entry was not the last one.
            entry = unsafe { entry.add(1) };
        }
        if table == 0 || names == 0 {
            return None;
        }
        // glibc has turned these values into addresses when it loaded the object; musl leaves them as
        // offsets.
        let address = |value: usize| if value < base { base + value } else { value };
        let count = match (gnu_hash, hash) {
            (0, 0) => return None,
            // SAFETY: the second word of a DT_HASH table is the number of symbols.
            (0, hash) => unsafe { *(address(hash) as *const u32).add(1) as usize },
            // SAFETY: the address is that of the object's GNU hash table.
            (hash, _) => unsafe { count_by_gnu_hash(address(hash)) },
        };
        // SAFETY: the dynamic table gives both addresses and the size of the names, the hash table the number
        // of symbols; all of them lie in segments that are mapped while the object is loaded, and nobody
        // writes there.
        let symbols = unsafe {
            Symbols {
                table: std::slice::from_raw_parts(address(table) as *const Sym, count),
                names: std::slice::from_raw_parts(address(names) as *const u8, names_size),
            }
        };
        let has_some = symbols.functions().next().is_some();
        has_some.then_some(symbols)
    }

    /// Whether the object itself defines a function of this name.
    pub fn defines(&self, name: &str) -> bool {
        let is_it = |text: &[u8]| text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0);
        self.mentions(name) && self.functions().any(is_it)
    }

    /// The names of the object's own functions that contain `part`.
    pub fn containing(&self, part: &str) -> Vec<&'static str> {
        if !self.mentions(part) {
            return Vec::new();
        }
        let name = |text| CStr::from_bytes_until_nul(text).ok()?.to_str().ok();
        self.functions().filter_map(name).filter(|name| name.contains(part)).collect()
    }

    /// Whether `text` stands anywhere among the names, defined or only used: a fast way to say no.
    fn mentions(&self, text: &str) -> bool {
        memchr::memmem::find(self.names, text.as_bytes()).is_some()
    }

    /// The table of names from the start of each own function's name on.
    fn functions(&self) -> impl Iterator<Item = &'static [u8]> {
        let names = self.names;
        self.table.iter().filter_map(move |symbol| {
            let is_function = matches!(symbol.st_info & 0xf, STT_FUNC | STT_GNU_IFUNC);
            let is_defined = symbol.st_shndx != 0;
            names.get(symbol.st_name as usize..).filter(|_| is_function && is_defined)
        })
    }
}

/// How many symbols a GNU hash table covers: it does not say, but its last chain ends at the last symbol.
///
/// # Safety
/// `table` is the address of a loaded object's GNU hash table.
unsafe fn count_by_gnu_hash(table: usize) -> usize {
    let words = table as *const u32;
    // SAFETY: the four words of the header are bucket count, first symbol, Bloom filter size and shift; the
    // filter (machine words), the buckets and the chains follow, and every chain ends with an odd value.
    unsafe {
        let (buckets, first, filter) = (*words as usize, *words.add(1) as usize, *words.add(2) as usize);
        let bucket = words.add(4 + filter * (size_of::<usize>() / 4));
        let chain = bucket.add(buckets);
        let last_chain = (0..buckets).map(|i| *bucket.add(i) as usize).max().unwrap_or(0);
        if last_chain < first {
            return first;
        }
        let mut last = last_chain;
        while *chain.add(last - first) & 1 == 0 {
            last += 1;
        }
        last + 1
    }
}
