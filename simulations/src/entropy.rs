//! What the agents' libraries draw from the operating system behind the host's
//! back: chitchat's choice of peers and the order of hash maps. In a world's
//! own thread it comes from the world's seed, by a `getrandom` that stands
//! before libc's; elsewhere it is the kernel's.
//!
//! aws-lc asks the kernel without libc: TLS between agents draws here instead
//! (`handshakes`). What else aws-lc draws shows in the bytes that are sent and
//! in none of their lengths or times.

#![allow(unsafe_code, reason = "it is a C function, called by name")]

use std::{cell::Cell, ffi::c_void, io, thread};

use crate::random;

thread_local! {
    /// The state of SplitMix64, in a world's thread.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `world` in a thread of its own, in which all randomness is `seed`'s.
///
/// # Panics
/// As `world` does.
pub fn seeded<T: Send>(seed: u64, world: impl FnOnce() -> T + Send) -> T {
    let world = move || {
        STATE.set(Some(seed));
        world()
    };
    let result = thread::scope(|scope| scope.spawn(world).join());
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// As getrandom(2).
///
/// # Safety
/// `buffer` is valid for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: u32) -> isize {
    // A thread that is being torn down has no state any more.
    let Some(mut state) = STATE.try_with(Cell::get).ok().flatten() else {
        // SAFETY: the caller's promise is the kernel's condition.
        let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
        return got as isize;
    };
    if length > 0 {
        // SAFETY: the caller promises `length` bytes.
        let out = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
        for part in out.chunks_mut(8) {
            let bits = random::split_mix(&mut state);
            part.copy_from_slice(&bits.to_le_bytes()[..part.len()]);
        }
        STATE.set(Some(state));
    }
    length as isize
}

/// Draws `out`: of the seed's in a world's thread, else of the kernel's.
///
/// # Errors
/// The kernel has none.
pub fn draw(out: &mut [u8]) -> io::Result<()> {
    // SAFETY: the slice is valid for its length.
    let got = unsafe { getrandom(out.as_mut_ptr().cast(), out.len(), 0) };
    if usize::try_from(got) == Ok(out.len()) {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        hash::{BuildHasher, RandomState},
    };

    use super::*;

    fn order() -> (Vec<u32>, u64) {
        let set: HashSet<u32> = (0..100).collect();
        (set.into_iter().collect(), RandomState::new().hash_one(1))
    }

    #[test]
    fn hash_maps_have_the_seeds_order_in_a_world_and_any_elsewhere() {
        assert_eq!(seeded(1, order), seeded(1, order));
        assert_ne!(seeded(1, order), seeded(2, order));
        let elsewhere = || std::thread::spawn(order).join().unwrap();
        assert_ne!(elsewhere(), elsewhere());
    }
}
