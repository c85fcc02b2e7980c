//! A copy of the loop over items, near the tasks.
//!
//! A call to a function more than some 4 GB away costs the processor three cycles more than one nearby, which is more than the
//! function takes where an item takes a nanosecond; and a shared library lies terabytes away from the program (`docs/threading.md`
//! has the figures). So the page of the library's file that has the loop is mapped a second time, just below the object that the tasks are
//! in. It is a mapping like those of the loader: of the file, read and executed, never written. Where it cannot be had, the
//! loop that is here does the same.
//!
//! The loop is written in assembly, since its copy must not refer to anything but its arguments. It leaves the stack as it finds it,
//! which is what debuggers expect of code that they know nothing of: `pb_near_enter`, which stays here and which they do know, saves
//! the registers for it. Nothing unwinds through the copy: a function that throws, which is forbidden, ends the program, as it does
//! in the other loop, whose library is not the one that the exception comes from.

use super::items::{Call, Stopped, Walk};
use std::ffi::c_void;
use std::fs::{self, File};
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The copy runs as many items at a time.
pub(super) const AT_ONCE: usize = 8;
/// From so many items in a chunk on it is used.
const WORTH: usize = 2 * AT_ONCE;
/// After so many items over the distance it is made: they have cost 0.12 ms by then, which is what it costs (measured on an EPYC, as are
/// the three cycles).
const DEAR: usize = 1 << 17;
/// What is near: 32 bits are what processors keep of a branch's target at no cost.
const REACH: usize = 1 << 32;
/// Bytes from an object down to the first place that is tried; each further one is twice as far. (With 1 MiB or more an item of saxpy took a
/// tenth longer than with 64 KiB, for a reason that we do not know.)
const CLOSEST: usize = 64 << 10;
const PLACES: u32 = 16;

/// How the loop ended: the code in `eax`, and in `rdx` what it called last.
#[repr(C)]
struct Ran {
    code: i32,
    called: usize,
}

unsafe extern "C" {
    /// Runs the items of a walk, a multiple of [`AT_ONCE`] and not none, by the copy at that address, until one returns another code
    /// than 0.
    fn pb_near_enter(walk: *const Walk, copy: usize) -> Ran;
    fn pb_near_items();
    fn pb_near_items_end();
}

// The loops have what to call in [r12], the item in r13, ctx in r14 and the walk in r15; what they have called in rbx, and the code
// in eax. For the task, rdi, rsi, rdx and rcx are as `Call` has them. Where the walk has got is written before each call.
std::arch::global_asm!(
    "    .text",
    "    .balign 64",
    "    .globl pb_near_enter",
    "    .hidden pb_near_enter",
    "    .type pb_near_enter, @function",
    "pb_near_enter:",
    "    .cfi_startproc",
    "    push rbp",
    "    .cfi_def_cfa_offset 16",
    "    .cfi_offset rbp, -16",
    "    mov rbp, rsp",
    "    .cfi_def_cfa_register rbp",
    "    push rbx",
    "    push r12",
    "    push r13",
    "    push r14",
    "    push r15",
    "    .cfi_offset rbx, -24",
    "    .cfi_offset r12, -32",
    "    .cfi_offset r13, -40",
    "    .cfi_offset r14, -48",
    "    .cfi_offset r15, -56",
    "    mov r15, rdi",
    "    mov r12, [r15 + {next}]",
    "    mov r13, [r15 + {at}]",
    "    mov r14, [r15 + {ctx}]",
    // With this return address on it the stack is aligned as calls need it.
    "    call rsi",
    "    mov rdx, rbx",
    "    pop r15",
    "    pop r14",
    "    pop r13",
    "    pop r12",
    "    pop rbx",
    "    pop rbp",
    "    .cfi_def_cfa rsp, 8",
    "    ret",
    "    .cfi_endproc",
    "    .size pb_near_enter, . - pb_near_enter",
    "    .balign 64",
    "    .globl pb_near_items",
    "    .hidden pb_near_items",
    "    .type pb_near_items, @function",
    "pb_near_items:",
    "    mov rax, [r15 + {input}]",
    "    or rax, [r15 + {output}]",
    "    jnz 3f",
    "    .balign 64",
    // Without arrays.
    "2:",
    "    .set ahead, 0",
    "    .rept {at_once}",
    "    mov rdi, r14",
    "    lea rsi, [r13 + ahead]",
    "    mov [r15 + {at}], rsi",
    "    xor edx, edx",
    "    xor ecx, ecx",
    "    mov rbx, [r12]",
    "    call rbx",
    "    test eax, eax",
    "    jnz 5f",
    "    .set ahead, ahead + 1",
    "    .endr",
    "    add r13, {at_once}",
    "    cmp r13, [r15 + {end}]",
    "    jb 2b",
    "    mov [r15 + {at}], r13",
    "    ret",
    // With one or two: the walk in r12, the elements in r14 and r15.
    "3:",
    "    mov r12, r15",
    "    mov r14, [r12 + {input}]",
    "    mov r15, [r12 + {output}]",
    "    .balign 64",
    "4:",
    "    .rept {at_once}",
    "    mov [r12 + {at}], r13",
    "    mov rdi, [r12 + {ctx}]",
    "    mov rsi, r13",
    "    mov rdx, r14",
    "    mov rcx, r15",
    "    mov rax, [r12 + {next}]",
    "    inc r13",
    "    add r14, [r12 + {input_step}]",
    "    add r15, [r12 + {output_step}]",
    "    mov rbx, [rax]",
    "    call rbx",
    "    test eax, eax",
    "    jnz 5f",
    "    .endr",
    "    cmp r13, [r12 + {end}]",
    "    jb 4b",
    "    mov [r12 + {at}], r13",
    "5:",
    "    ret",
    "    .size pb_near_items, . - pb_near_items",
    "    .globl pb_near_items_end",
    "    .hidden pb_near_items_end",
    "pb_near_items_end:",
    next = const offset_of!(Walk, next),
    at = const offset_of!(Walk, at),
    ctx = const offset_of!(Walk, ctx),
    end = const offset_of!(Walk, end),
    input = const offset_of!(Walk, input),
    output = const offset_of!(Walk, output),
    input_step = const offset_of!(Walk, input_step),
    output_step = const offset_of!(Walk, output_step),
    at_once = const AT_ONCE,
);

/// The loop near a task.
pub(super) struct Near {
    copy: usize,
}

impl Near {
    /// The one for so many items of `call`, if that is far from here.
    pub(super) fn to(call: Call, items: usize) -> Option<Near> {
        let (call, here) = (call as usize, pb_near_items as *const () as usize);
        if items < WORTH || call.abs_diff(here) < REACH {
            return None;
        }
        copy(call, items).filter(|copy| call.abs_diff(*copy) < REACH).map(|copy| Near { copy })
    }

    /// Runs the items of a walk until one does not succeed.
    ///
    /// # Safety
    /// `call` may be called for these items; there are a multiple of [`AT_ONCE`], and not none.
    pub(super) unsafe fn run(&self, walk: &Walk, call: Call) -> Result<(), Stopped> {
        // SAFETY: as the caller promised; at that address is the loop, which refers to nothing outside of it but the walk.
        let Ran { code, called } = unsafe { pb_near_enter(walk, self.copy) };
        Stopped::unless_done(code, called, call)
    }
}

/// Where the copy is, once there is one; it is made near the function that wants it first.
///
/// A word, not a lock: a fork while it is made leaves a child without a copy, which does not wait for one. What the address stands
/// for is written before it is stored (Release) and looked at after it is loaded (Acquire).
fn copy(call: usize, items: usize) -> Option<usize> {
    const UNKNOWN: usize = 0;
    const NONE: usize = 1;
    static COPY: AtomicUsize = AtomicUsize::new(UNKNOWN);
    static FAR: AtomicUsize = AtomicUsize::new(0);
    let mut copy = COPY.load(Ordering::Acquire);
    if copy == UNKNOWN
        && FAR.fetch_add(items, Ordering::Relaxed) >= DEAR
        && COPY.compare_exchange(UNKNOWN, NONE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    {
        copy = make(call).unwrap_or(NONE);
        COPY.store(copy, Ordering::Release);
    }
    (copy > NONE).then_some(copy)
}

/// Maps the code near `call`, and returns where it is.
fn make(call: usize) -> Option<usize> {
    let begin = pb_near_items as *const () as usize;
    let size = pb_near_items_end as *const () as usize - begin;
    // SAFETY: asks for a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    let (first, past) = (begin & !(page - 1), (begin + size).next_multiple_of(page));

    let maps = fs::read("/proc/self/maps").ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let own = Mapping::of(&maps, begin)?;
    let file = File::open(own.file).ok()?;
    let offset = own.offset + (first - own.begin) as u64;
    // A page beyond the end of a file must not be touched.
    if file.metadata().ok()?.len() < offset + (past - first) as u64 {
        return None;
    }
    let below = Mapping::of(&maps, call)?.begin;
    let place =
        (0..PLACES).find_map(|n| map(&file, offset, below.checked_sub(CLOSEST << n)?, past - first))?;
    let copy = place + (begin - first);
    // SAFETY: both are mapped and readable, and nobody writes them.
    let is_same = unsafe {
        std::slice::from_raw_parts(begin as *const u8, size)
            == std::slice::from_raw_parts(copy as *const u8, size)
    };
    if !is_same {
        // The file is another one by now. SAFETY: that mapping has just been made, and nobody else knows of it.
        unsafe { libc::munmap(place as *mut c_void, past - first) };
        return None;
    }
    Some(copy)
}

/// Maps a part of a file to be executed at an address where nothing is yet.
fn map(file: &File, offset: u64, address: usize, length: usize) -> Option<usize> {
    let offset = libc::off_t::try_from(offset).ok()?;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED_NOREPLACE;
    let execute = libc::PROT_READ | libc::PROT_EXEC;
    // SAFETY: it replaces no mapping.
    let place =
        unsafe { libc::mmap(address as *mut c_void, length, execute, flags, file.as_raw_fd(), offset) };
    if place == libc::MAP_FAILED {
        return None;
    }
    if place as usize != address {
        // A kernel before 4.17, to which the address is a wish. SAFETY: that mapping has just been made.
        unsafe { libc::munmap(place, length) };
        return None;
    }
    Some(address)
}

/// A file's mapping, as a line of `/proc/self/maps` tells it.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'m> {
    begin: usize,
    offset: u64,
    file: &'m str,
}

impl Mapping<'_> {
    /// The one that has an address.
    fn of(maps: &str, address: usize) -> Option<Mapping<'_>> {
        maps.lines().find_map(|line| {
            // begin-end permissions offset device inode path, the path after spaces.
            let mut words = line.splitn(6, ' ');
            let (begin, end) = words.next()?.split_once('-')?;
            let hex = |text| usize::from_str_radix(text, 16).ok();
            let (begin, end) = (hex(begin)?, hex(end)?);
            let offset = words.nth(1)?;
            let file = words.nth(2).unwrap_or("").trim_start();
            let offset = u64::from_str_radix(offset, 16).ok()?;
            (begin <= address && address < end).then_some(Mapping { begin, offset, file })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::items::Next;
    use super::*;

    #[test]
    fn a_mapping_is_found_by_an_address_in_it() {
        let maps = "\
55d0c1a4e000-55d0c1a4f000 r--p 00000000 fe:00 9871                       /opt/my programs/a b
55d0c1a4f000-55d0c1a51000 r-xp 00001000 fe:00 9871                       /opt/my programs/a b
7f53f0000000-7f53f0021000 rw-p 00000000 00:00 0 
7f53f4a5d000-7f53f4a83000 r-xp 00072000 fe:00 12                         /usr/lib/libparallel_backend.so.0.1 (deleted)
";
        let of = |address| Mapping::of(maps, address).map(|m| (m.begin, m.offset, m.file));
        assert_eq!(of(0x55d0_c1a4_ffff), Some((0x55d0_c1a4_f000, 0x1000, "/opt/my programs/a b")));
        assert_eq!(of(0x55d0_c1a5_0fff), Some((0x55d0_c1a4_f000, 0x1000, "/opt/my programs/a b")));
        assert_eq!(of(0x55d0_c1a5_1000), None);
        assert_eq!(of(0x7f53_f000_0000), Some((0x7f53_f000_0000, 0, "")));
        let gone = "/usr/lib/libparallel_backend.so.0.1 (deleted)";
        assert_eq!(of(0x7f53_f4a5_d000), Some((0x7f53_f4a5_d000, 0x72000, gone)));
    }

    unsafe extern "C-unwind" fn until_20(
        _: *mut c_void,
        index: usize,
        _: *const c_void,
        _: *mut c_void,
    ) -> i32 {
        if index == 20 { 7 } else { 0 }
    }

    #[test]
    fn a_copy_is_made_below_the_object_that_asks() {
        let here = make as *const () as usize;
        let copy = make(here).unwrap();
        assert!(copy < here && here - copy < REACH);
        let run = |begin: usize, end| {
            let (input, output) = (std::ptr::null(), std::ptr::null_mut());
            let (next, ctx) = (Next::new(until_20), std::ptr::null_mut());
            let at = begin.into();
            let walk = Walk { next: &next, at, ctx, end, input, output, input_step: 0, output_step: 0 };
            // SAFETY: there are 8 or 16 items, which need nothing.
            let ran = unsafe { pb_near_enter(&walk, copy) };
            (walk.at.get(), ran.code)
        };
        assert_eq!(run(8, 16), (16, 0));
        assert_eq!(run(8, 24), (20, 7));
        assert_eq!(run(13, 21), (20, 7));
    }
}
