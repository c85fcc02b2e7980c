//! Which CPUs are online, and which of them the calling thread may run on.
//!
//! libc is called directly: the safe wrappers at hand (`rustix`, `nix`) stop at 1024 CPUs, where
//! `sched_getaffinity` then fails.

use std::ffi::c_ulong;

const WORD_BITS: usize = c_ulong::BITS as usize;
/// A mask of more CPUs than any kernel has: where looking for its size ends.
#[cfg(any(target_os = "linux", target_os = "android"))]
const MOST_CPUS: usize = 1 << 20;
/// The size of glibc's `cpu_set_t`: enough at the first try on almost every machine.
const USUAL_CPUS: usize = 1024;

/// A set of CPU numbers, as the bits of the kernel's mask; the last word is not 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CpuSet(Vec<c_ulong>);

impl CpuSet {
    fn new(mut words: Vec<c_ulong>) -> Self {
        while words.last() == Some(&0) {
            words.pop();
        }
        CpuSet(words)
    }

    /// Lets the calling thread run on these CPUs only. Whether the system has done so.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn bind_this_thread(&self) -> bool {
        // SAFETY: the kernel reads the given number of bytes, which are the words'; 0 is the calling thread.
        unsafe { libc::sched_setaffinity(0, size_of_val(&self.0[..]), self.0.as_ptr().cast()) == 0 }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    pub(super) fn bind_this_thread(&self) -> bool {
        false
    }

    pub(super) fn len(&self) -> i32 {
        let bits: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        i32::try_from(bits).unwrap_or(i32::MAX)
    }

    /// The numbers in the set, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * WORD_BITS).filter(|cpu| self.0[cpu / WORD_BITS] >> (cpu % WORD_BITS) & 1 == 1)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        let mut words: Vec<c_ulong> = Vec::new();
        for cpu in cpus {
            words.resize(words.len().max(cpu / WORD_BITS + 1), 0);
            words[cpu / WORD_BITS] |= 1 << (cpu % WORD_BITS);
        }
        CpuSet::new(words)
    }
}

/// How many CPUs are online; at least 1.
pub(super) fn online() -> i32 {
    // SAFETY: sysconf takes a number and touches no memory of ours.
    let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    i32::try_from(online).unwrap_or(1).max(1)
}

/// The CPUs that the calling thread may run on, whatever pin of ours it has; none where the system does not say.
pub(super) fn of_this_thread() -> Option<CpuSet> {
    super::pin::home().or_else(in_force)
}

/// The calling thread's mask as it is now.
pub(super) fn in_force() -> Option<CpuSet> {
    masks_from(USUAL_CPUS / WORD_BITS)
}

/// Asks with a mask of `words` words, and with larger ones as long as the kernel finds it too small.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn masks_from(mut words: usize) -> Option<CpuSet> {
    while words * WORD_BITS <= MOST_CPUS {
        let mut mask: Vec<c_ulong> = vec![0; words];
        // SAFETY: the kernel writes at most the given number of bytes, all within `mask`, whose words may have
        // any bits; `cpu_set_t` is an array of such words with their alignment; 0 is the calling thread.
        let status = unsafe { libc::sched_getaffinity(0, size_of_val(&mask[..]), mask.as_mut_ptr().cast()) };
        if status == 0 {
            return Some(CpuSet::new(mask));
        }
        // EINVAL: the machine could have more CPUs than the mask has bits.
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
            return None;
        }
        words = (2 * words).max(1);
    }
    None
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn masks_from(_words: usize) -> Option<CpuSet> {
    None
}

#[cfg(all(test, target_os = "linux"))]
pub(super) mod tests {
    use super::*;

    /// Lets the calling thread run only on the first of its CPUs.
    pub(in crate::cpu) fn pin_to_first_cpu() {
        let first: CpuSet = of_this_thread().unwrap().iter().take(1).collect();
        assert!(first.bind_this_thread());
    }

    #[test]
    fn a_mask_that_is_too_small_grows() {
        let bits = |cpus: Option<CpuSet>| cpus.unwrap().iter().collect::<Vec<_>>();
        assert_eq!(bits(masks_from(0)), bits(of_this_thread()));
    }

    #[test]
    fn a_set_has_the_numbers_of_its_bits() {
        let mut words = vec![0; 40];
        words[0] = 0b101;
        words[20] = 1 << 3;
        let cpus = CpuSet::new(words);
        assert_eq!(cpus.len(), 3);
        assert_eq!(cpus.iter().collect::<Vec<_>>(), [0, 2, 20 * WORD_BITS + 3]);
        assert_eq!(cpus.iter().collect::<CpuSet>(), cpus);
    }

    #[test]
    fn a_thread_runs_on_online_cpus_only() {
        assert!((1..=online()).contains(&of_this_thread().unwrap().len()));
    }
}
