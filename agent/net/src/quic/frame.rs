//! Reads one frame from a stream, and no more of it than its sender may send.

use std::sync::Arc;

use innermesh_proto::limits;
use quinn::{ReadError, RecvStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A whole frame.
#[derive(Debug)]
pub(super) struct ReadFrame {
    pub(super) bytes: Vec<u8>,
    /// The room that a large frame takes up until it was dealt with.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum ReadFrameError {
    /// Longer than allowed; the rest was not read.
    TooLong,
    /// The stream or its connection ended.
    Stream(ReadError),
}

/// Reads to the end of the stream, at most `limit` bytes. Beyond
/// [`limits::SMALL_FRAME_BYTES`] it first waits for `large`: what a peer can
/// make us hold is then a few large frames, and not one for every stream.
pub(super) async fn read(
    stream: &mut RecvStream,
    limit: usize,
    large: Option<&Arc<Semaphore>>,
) -> Result<ReadFrame, ReadFrameError> {
    let mut bytes = Vec::new();
    let mut room = None;
    while let Some(chunk) = stream
        .read_chunk(limits::SMALL_FRAME_BYTES, true)
        .await
        .map_err(ReadFrameError::Stream)?
    {
        let length = bytes.len() + chunk.bytes.len();
        if length > limit {
            return Err(ReadFrameError::TooLong);
        }
        if length > limits::SMALL_FRAME_BYTES && room.is_none() {
            // The semaphore is never closed, so an error can't happen; without
            // a permit the frame would only be read unhindered.
            room = match large {
                Some(large) => large.clone().acquire_owned().await.ok(),
                None => None,
            };
        }
        bytes.extend_from_slice(&chunk.bytes);
    }
    Ok(ReadFrame { bytes, room })
}
