//! What the process has freed and still holds.

/// Gives back to the system what was allocated for a moment, and is free among what is still in use: the allocator keeps
/// that for itself. Takes milliseconds: for after something big, not for every day.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim(3) may be called at any time and from any thread; it touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
