//! The floating-point mode of a thread: rounding, denormals, which exceptions trap.
//!
//! A caller that rounds upward, or flushes denormals to zero, expects its tasks to do so on every worker; so the mode is
//! taken from the caller and held by the workers. Only control bits count: what exceptions were raised (the sticky flags)
//! stays with each thread.
//!
//! Rust's optimiser takes the default mode for granted, in the whole of a program that a C caller with another one has called.
//! Here that changes nothing: what the library computes in floating point (seconds for a progress report, a quota) may be
//! rounded in any direction.

pub use arch::FloatMode;

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;

    /// MXCSR: all but the six sticky flags.
    const SSE_CONTROL: u32 = !0x3f;
    /// This kind of processor, in a mode's bits.
    const KIND: u64 = 1;
    /// Bits of the x87 control word that keep an exception from trapping.
    const X87_MASKS: u16 = 0x3f;

    /// A thread's mode: of SSE and AVX (below), and of x87 (above), where `long double` and `fegetround` live. One word, which is
    /// compared and copied at once.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FloatMode(u64);

    impl FloatMode {
        fn new(sse: u32, x87: u16) -> Self {
            FloatMode(u64::from(x87) << 32 | u64::from(sse & SSE_CONTROL))
        }

        /// The calling thread's.
        #[inline]
        pub fn here() -> Self {
            FloatMode::new(mxcsr(), x87())
        }

        /// Makes it the calling thread's.
        #[inline]
        pub fn set(self) {
            if self != Self::here() {
                self.change();
            }
        }

        #[cold]
        fn change(self) {
            let word = self.0 as u32 | mxcsr() & !SSE_CONTROL;
            // SAFETY: the word is one that stmxcsr wrote, but for sticky flags, so no reserved bit is set; clearing a mask
            // over a set flag does not trap.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &word, options(nostack, readonly, preserves_flags)) };
            let word = (self.0 >> 32) as u16;
            if x87() == word {
                return;
            }
            if word & X87_MASKS != X87_MASKS {
                // An exception of long ago whose flag is still up would trap as soon as its mask is gone.
                // SAFETY: lowers flags and does nothing else.
                unsafe { asm!("fnclex", options(nostack, nomem, preserves_flags)) };
            }
            // SAFETY: the word is one that fnstcw wrote.
            unsafe { asm!("fldcw [{}]", in(reg) &word, options(nostack, readonly, preserves_flags)) };
        }

        /// The mode for a process elsewhere, tagged with the kind of processor.
        pub fn bits(self) -> u64 {
            KIND << 56 | self.0
        }

        /// The mode that such bits mean here; the calling thread's own where they come from another kind of processor.
        /// Reserved bits, which would be a fault, are not taken over.
        pub fn from_bits(bits: u64) -> Self {
            if bits >> 56 != KIND {
                return Self::here();
            }
            FloatMode::new(bits as u32 & 0xffc0, (bits >> 32) as u16 & 0x1f3f | 0x40)
        }
    }

    fn mxcsr() -> u32 {
        let mut word = 0;
        // SAFETY: writes four bytes, those of `word`.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }

    fn x87() -> u16 {
        let mut word = 0;
        // SAFETY: writes two bytes, those of `word`.
        unsafe { asm!("fnstcw [{}]", in(reg) &raw mut word, options(nostack, preserves_flags)) };
        word
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    /// A thread's mode: FPCR, which has control bits only.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FloatMode(u64);

    impl FloatMode {
        /// The calling thread's.
        #[inline]
        pub fn here() -> Self {
            let word;
            // SAFETY: reads a register that every thread may read.
            unsafe { asm!("mrs {}, fpcr", out(reg) word, options(nostack, nomem, preserves_flags)) };
            FloatMode(word)
        }

        /// Makes it the calling thread's.
        #[inline]
        pub fn set(self) {
            if Self::here() != self {
                // SAFETY: the word is one that the register had on another thread.
                unsafe { asm!("msr fpcr, {}", in(reg) self.0, options(nostack, nomem, preserves_flags)) };
            }
        }

        /// The mode for a process elsewhere, tagged with the kind of processor.
        pub fn bits(self) -> u64 {
            2 << 56 | self.0 & 0x07ff_ffff
        }

        /// The mode that such bits mean here; the calling thread's own where they come from another kind of processor.
        pub fn from_bits(bits: u64) -> Self {
            if bits >> 56 == 2 { FloatMode(bits & 0x07ff_ffff) } else { Self::here() }
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod arch {
    /// Nothing: how this processor keeps its mode is not known here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FloatMode;

    impl FloatMode {
        /// The calling thread's.
        pub fn here() -> Self {
            FloatMode
        }

        /// Makes it the calling thread's.
        pub fn set(self) {}

        /// Nothing to carry.
        pub fn bits(self) -> u64 {
            0
        }

        /// Nothing that was carried.
        pub fn from_bits(_bits: u64) -> Self {
            FloatMode
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    unsafe extern "C" {
        fn fesetround(mode: i32) -> i32;
        fn fegetround() -> i32;
    }
    const FE_UPWARD: i32 = 0x800;

    #[inline(never)]
    fn third() -> u64 {
        (black_box(1.0_f64) / black_box(3.0)).to_bits()
    }

    #[test]
    fn a_mode_is_carried_to_another_thread_and_put_back() {
        let nearest = third();
        let default = FloatMode::here();
        // SAFETY: C's own functions; the mode is put back before anything else is computed.
        let upward = unsafe {
            fesetround(FE_UPWARD);
            FloatMode::here()
        };
        default.set();
        let other = std::thread::spawn(move || {
            let before = FloatMode::here();
            upward.set();
            // SAFETY: as above.
            let seen = (third(), unsafe { fegetround() });
            before.set();
            // SAFETY: as above.
            (seen, third(), unsafe { fegetround() })
        });
        assert_eq!(other.join().unwrap(), ((nearest + 1, FE_UPWARD), nearest, 0));
        assert_eq!(FloatMode::here(), default);
        assert_eq!(third(), nearest);
    }
}
