//! zstd with contexts that a thread keeps: a new one for each message costs
//! more than most messages.

use std::{cell::RefCell, io};

use zstd::bulk::{Compressor, Decompressor};

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `plain` into `out` and returns how much of that is used.
///
/// # Errors
/// zstd's, above all that `out` is too short.
pub(super) fn compress(plain: &[u8], out: &mut [u8]) -> io::Result<usize> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)?),
        };
        compressor.compress_to_buffer(plain, out)
    })
}

/// Decompresses one frame into `out`, never beyond it, and returns how much of
/// that is used.
///
/// # Errors
/// zstd's, above all that `frame` is malformed or its plaintext longer than
/// `out`.
pub(super) fn decompress(frame: &[u8], out: &mut [u8]) -> io::Result<usize> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(frame, out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_that_has_failed_works_again() {
        let plain = [7; 1000];
        let (mut frame, mut back) = ([0; 1000], [0; 1000]);
        assert!(compress(&plain, &mut [0; 2]).is_err());
        let len = compress(&plain, &mut frame).unwrap();
        assert!(decompress(&frame[..len], &mut back[..999]).is_err());
        assert!(decompress(&frame[..len / 2], &mut back).is_err());
        assert_eq!(decompress(&frame[..len], &mut back).unwrap(), plain.len());
        assert_eq!(back, plain);
    }
}
