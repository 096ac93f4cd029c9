//! One lane over one WebSocket, for as long as both want it.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, Stream as Messages, StreamExt, sink::Sink};
use innermesh_proto::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, protocol::WebSocketConfig},
};

use super::Lane;
use crate::listen::{Class, Place};

/// What is read at once.
const READ: usize = 32 * 1024;

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneEnd {
    /// The other end closed it.
    #[error("it was closed")]
    Closed,
    /// What came is no message of a lane.
    #[error("what came is not of a lane")]
    Garbage,
    /// No QUIC connection stands on it.
    #[error("nobody uses it")]
    Unused,
    /// The connection's.
    #[error(transparent)]
    Socket(#[from] tungstenite::Error),
}

/// Bounds of the WebSocket: a message of this size has to be in memory as a whole.
pub(super) fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        // Each message is whole when it is written.
        .write_buffer_size(0)
        .max_write_buffer_size(2 * limits::LANE_MESSAGE_BYTES)
        .max_message_size(Some(limits::LANE_MESSAGE_BYTES))
        .max_frame_size(Some(limits::LANE_MESSAGE_BYTES))
}

/// Carries datagrams until the lane ends. One that was taken in has `places`, and ends where
/// nobody uses it; whoever opened one knows what for.
pub(super) async fn carry<S>(
    lane: &Lane,
    socket: WebSocketStream<S>,
    places: Option<&[Arc<Place>]>,
) -> LaneEnd
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sink, stream) = socket.split();
    let end = tokio::select! {
        end = send(lane, sink) => end,
        end = receive(lane, stream) => end,
        () = unused(lane, places) => LaneEnd::Unused,
    };
    if is_garbage(&end) {
        lane.lanes.0.tally.lanes_garbage.add();
    }
    end
}

fn is_garbage(end: &LaneEnd) -> bool {
    use tungstenite::Error::{Capacity, Protocol, Utf8};
    match end {
        LaneEnd::Garbage => true,
        LaneEnd::Socket(Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => false,
        LaneEnd::Socket(error) => matches!(error, Capacity(_) | Protocol(_) | Utf8(_)),
        LaneEnd::Closed | LaneEnd::Unused => false,
    }
}

async fn send(
    lane: &Lane,
    mut sink: impl Sink<Message, Error = tungstenite::Error> + Unpin,
) -> LaneEnd {
    loop {
        // All that came while the one before was written goes in one.
        let message = Message::Binary(lane.outgoing().await);
        if let Err(error) = sink.send(message).await {
            return error.into();
        }
    }
}

async fn receive(
    lane: &Lane,
    mut stream: impl Messages<Item = Result<Message, tungstenite::Error>> + Unpin,
) -> LaneEnd {
    loop {
        // Meanwhile it isn't read, and TCP holds the other end back.
        lane.has_room().await;
        match stream.next().await {
            Some(Ok(Message::Binary(message))) if lane.take(&message) => {}
            // tungstenite answers them itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return LaneEnd::Closed,
            Some(Ok(_)) => return LaneEnd::Garbage,
            Some(Err(error)) => return error.into(),
        }
    }
}

/// Waits until no QUIC connection has stood on it for a while. One of a member's has its
/// place for good.
async fn unused(lane: &Lane, places: Option<&[Arc<Place>]>) {
    let Some(places) = places else {
        return std::future::pending().await;
    };
    let clock = &lane.lanes.0.clock;
    let mut is_proved = false;
    loop {
        clock
            .sleep(Duration::from_millis(limits::LANE_UNUSED_MS))
            .await;
        let (is_used, is_member) = lane.is_used();
        if !is_used {
            return;
        }
        if is_member && !is_proved {
            places.iter().for_each(|place| place.prove(Class::Member));
            is_proved = true;
        }
    }
}
