//! Asking the processor to load a cache line that will be needed soon. The only unsafe code of the memtable.
//!
//! A prefetch changes no state that a program can see; where the architecture has no stable intrinsic for it,
//! it does nothing.

/// Starts loading the cache line that holds the first byte of `target`.
#[inline]
pub(super) fn prefetch_read<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the instruction never faults and reads nothing into the program; the address is that of a
        // live reference besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast::<i8>()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
