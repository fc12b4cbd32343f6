//! What the process has freed and still holds.

/// Has all threads allocate from one arena. By itself glibc gives each thread its own, and what the task frees on one of
/// the runtime's threads is not there for it on the next: with a thousand tunnels that is a fifth of all memory. For when
/// there is no other thread yet; an arena that is there stays.
pub fn one_arena() {
    // SAFETY: mallopt(3) changes a setting of the allocator; no other thread allocates while it does.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back to the system what was allocated for a moment, and is free among what is still in use: the allocator keeps
/// that for itself. Takes milliseconds: for after something big, not for every day.
pub fn give_back() {
    // SAFETY: malloc_trim(3) may be called at any time and from any thread; it touches only what is free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
