//! Strangers over TCP: questions of one connection are answered in turn, as none waits
//! for others.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use innermesh_host::{
    Clock, Stream,
    datagrams::DATAGRAM_BYTES,
    listen::{self, Place, Room},
    within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::PublicDns;

/// How long a connection may be idle, and how long one question and its answer may take
/// (RFC 7766 §6.2.3: some seconds).
const IDLE: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    dns: Arc<PublicDns>,
    listener: listen::Tcp,
    room: Arc<Room>,
    clock: Arc<dyn Clock>,
) {
    let pause = clock.clone();
    let answer = move |(stream, source): (Box<dyn Stream>, SocketAddr), _, place: Arc<Place>| {
        let (dns, clock) = (dns.clone(), pause.clone());
        async move {
            if let Err(error) = converse(&dns, &*clock, stream, source, &place).await {
                tracing::debug!(%source, %error, "a stranger's DNS over TCP ended");
            }
        }
    };
    listen::serve("strangers' DNS over TCP", listener, room, clock, answer).await;
}

async fn converse(
    dns: &PublicDns,
    clock: &dyn Clock,
    mut stream: Box<dyn Stream>,
    source: SocketAddr,
    place: &Arc<Place>,
) -> io::Result<()> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let message = within(clock, IDLE, read(&mut stream)).await;
        let Some(message) = message.ok_or_else(late)?? else {
            return Ok(());
        };
        let working = place.working();
        let mut reply = vec![0, 0];
        dns.respond(&message, source.ip(), false, &mut reply);
        let length = u16::try_from(reply.len() - 2).map_err(io::Error::other)?;
        if length == 0 {
            // What isn't answered is no question.
            return Err(io::ErrorKind::InvalidData.into());
        }
        if let Some(place) = reply.first_chunk_mut::<2>() {
            *place = length.to_be_bytes();
        }
        within(clock, IDLE, stream.write_all(&reply))
            .await
            .ok_or_else(late)??;
        drop(working);
    }
}

/// The next message behind its length; none where the client has closed.
async fn read(stream: &mut Box<dyn Stream>) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if let Err(error) = stream.read_exact(&mut length).await {
        let has_closed = error.kind() == io::ErrorKind::UnexpectedEof;
        return if has_closed { Ok(None) } else { Err(error) };
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length > DATAGRAM_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
