//! A clock for short times: the processor's own counter, where it has one that runs evenly.
//!
//! Reading it takes half as long as asking the system (24 against 44 ns on a virtual Xeon), which counts where a whole
//! map takes 200. What a tick is worth is told by the system's clock: exactly after the first few milliseconds, within a factor
//! of two before.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The counter. Only differences of one thread's readings mean something.
#[inline]
pub fn ticks() -> u64 {
    arch::read().unwrap_or_else(|| FIRST.begin.elapsed().as_nanos() as u64)
}

/// What so many ticks are in nanoseconds.
#[inline]
pub fn nanoseconds(ticks: u64) -> u64 {
    let scale = match SCALE.load(Ordering::Relaxed) {
        0 => learn(),
        scale => scale,
    };
    ((u128::from(ticks) * u128::from(scale)) >> SHIFT) as u64
}

const SHIFT: u32 = 32;
/// Nanoseconds a tick, times 2^32; 0 until known well.
static SCALE: AtomicU64 = AtomicU64::new(0);

struct First {
    begin: Instant,
    ticks: u64,
}

static FIRST: LazyLock<First> =
    LazyLock::new(|| First { begin: Instant::now(), ticks: arch::read().unwrap_or(0) });

#[cold]
fn learn() -> u64 {
    /// Long enough that the two readings' distance does not matter.
    const LONG_NS: u64 = 5_000_000;
    if arch::read().is_none() {
        SCALE.store(1 << SHIFT, Ordering::Relaxed);
        return 1 << SHIFT;
    }
    let elapsed = FIRST.begin.elapsed().as_nanos() as u64;
    let ticks = arch::read().unwrap_or(0).saturating_sub(FIRST.ticks);
    if elapsed < LONG_NS || ticks == 0 {
        // Counters run at 1 to 4 GHz (x86), or as the system's timer says (AArch64, 24 MHz to 1 GHz).
        return if cfg!(target_arch = "aarch64") { 1 << SHIFT } else { 1 << (SHIFT - 1) };
    }
    let scale = ((u128::from(elapsed) << SHIFT) / u128::from(ticks)).clamp(1, u128::from(u64::MAX)) as u64;
    SCALE.store(scale, Ordering::Relaxed);
    scale
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::x86_64::{__cpuid, _rdtsc};
    use std::sync::atomic::{AtomicU8, Ordering};

    /// 0: not asked; 1: no; 2: yes.
    static STEADY: AtomicU8 = AtomicU8::new(0);

    #[inline]
    pub fn read() -> Option<u64> {
        match STEADY.load(Ordering::Relaxed) {
            2 => {}
            1 => return None,
            _ => {
                if !ask() {
                    return None;
                }
            }
        }
        // SAFETY: every x86-64 has the instruction; a system that forbids it says that the counter is not steady.
        Some(unsafe { _rdtsc() })
    }

    /// Whether the counter runs evenly, whatever the clock frequency and the sleep states: Intel SDM 17.17.1, invariant TSC.
    #[cold]
    fn ask() -> bool {
        const LEAF: u32 = 0x8000_0007;
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 has the instruction.
        let steady = unsafe { __cpuid(0x8000_0000).eax >= LEAF && __cpuid(LEAF).edx >> 8 & 1 == 1 };
        STEADY.store(if steady { 2 } else { 1 }, Ordering::Relaxed);
        steady
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    #[inline]
    pub fn read() -> Option<u64> {
        let ticks;
        // SAFETY: reads a register that every system lets programs read.
        unsafe { asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nostack, nomem, preserves_flags)) };
        Some(ticks)
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    pub fn read() -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn ticks_measure_time() {
        let (begin, first) = (Instant::now(), ticks());
        while begin.elapsed() < Duration::from_millis(20) {}
        let counted = ticks() - first;
        let elapsed = begin.elapsed().as_nanos() as u64;
        let measured = nanoseconds(counted);
        assert!(measured > elapsed / 4 && measured < elapsed * 4, "{measured} ns instead of {elapsed}");
    }
}
