//! Questions on a stream, each behind its length (RFC 7766, RFC 7858).

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use innermesh_host::{Clock, Mono, Stream};
use innermesh_proto::limits;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::{
    super::super::tcp::{Messages, frame},
    Asked, Ended, IDLE, Keeper, KeptError, LOOK, SILENCE,
};

/// Bytes of questions that are written at once, and a little more.
const QUESTIONS: usize = 16 * 1024;

/// What is under way on one stream.
struct UnderWay {
    open: BTreeMap<u16, Asked>,
    next: u16,
    /// When something was heard, or was asked while nothing else was.
    heard: Mono,
    has_answered: bool,
}

impl UnderWay {
    /// Gives a question an id of its own on this stream; the message with that.
    fn begin(&mut self, asked: Asked, now: Mono) -> Option<Vec<u8>> {
        if self.open.len() >= limits::DNS_FORWARDS {
            // Whoever gave up asking needs none any more.
            self.open.retain(|_, open| !open.is_given_up());
        }
        if self.open.len() >= limits::DNS_FORWARDS {
            asked.end(Err(KeptError::Busy));
            return None;
        }
        while self.open.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let mut message = asked.message.clone();
        set_id(&mut message, self.next.to_be_bytes());
        if self.open.is_empty() {
            self.heard = now;
        }
        self.open.insert(self.next, asked);
        self.next = self.next.wrapping_add(1);
        Some(message)
    }

    /// Hands an answer to whoever asked. One to nobody is passed over.
    fn answer(&mut self, message: &[u8], now: Mono) {
        self.heard = now;
        let Some(own) = message.first_chunk::<2>() else {
            return;
        };
        if let Some(asked) = self.open.remove(&u16::from_be_bytes(*own)) {
            self.has_answered = true;
            let mut message = message.to_vec();
            set_id(&mut message, asked.id());
            asked.end(Ok(message));
        }
    }
}

fn set_id(message: &mut [u8], id: [u8; 2]) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id;
    }
}

impl Keeper {
    pub(super) async fn converse_stream(&mut self, stream: Box<dyn Stream>) -> Ended {
        let clock = self.around.clock.clone();
        let under_way = Mutex::new(UnderWay {
            open: BTreeMap::new(),
            next: 0,
            heard: clock.now(),
            has_answered: false,
        });
        let (reader, writer) = tokio::io::split(stream);
        let why = tokio::select! {
            why = read(reader, &under_way, &*clock) => why,
            why = self.write(writer, &under_way) => why,
            why = watch(&under_way, &*clock) => why,
        };
        let under_way = under_way.into_inner();
        let under_way = under_way.unwrap_or_else(PoisonError::into_inner);
        Ended {
            open: under_way.open.into_values().collect(),
            has_answered: under_way.has_answered,
            why,
        }
    }

    async fn write(
        &mut self,
        mut writer: impl AsyncWrite + Unpin,
        under_way: &Mutex<UnderWay>,
    ) -> KeptError {
        let clock = self.around.clock.clone();
        let mut out = Vec::new();
        loop {
            let mut next = match self.lost.pop_front() {
                Some(asked) => Some(asked),
                None => self.asked.recv().await,
            };
            if next.is_none() {
                // Nobody is there any more to ask.
                return KeptError::Closed;
            }
            while let Some(asked) = next {
                if !asked.is_given_up()
                    && let Some(message) = lock(under_way).begin(asked, clock.now())
                    && frame(&mut out, |out| out.extend_from_slice(&message)).is_err()
                {
                    return KeptError::NoMessage;
                }
                if out.len() >= QUESTIONS {
                    break;
                }
                next = self.lost.pop_front().or_else(|| self.asked.try_recv().ok());
            }
            let written: io::Result<()> = async {
                writer.write_all(&out).await?;
                writer.flush().await
            }
            .await;
            if written.is_err() {
                return KeptError::Closed;
            }
            out.clear();
        }
    }
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    under_way: &Mutex<UnderWay>,
    clock: &dyn Clock,
) -> KeptError {
    let mut messages = Messages::default();
    while let Ok(true) = messages.read(&mut reader).await {
        while let Some(message) = messages.next() {
            lock(under_way).answer(message, clock.now());
        }
    }
    KeptError::Closed
}

/// Ends when nothing was asked for a while, or nothing comes although it was.
async fn watch(under_way: &Mutex<UnderWay>, clock: &dyn Clock) -> KeptError {
    loop {
        clock.sleep(LOOK).await;
        let mut under_way = lock(under_way);
        let silence = clock.now().saturating_sub(under_way.heard);
        let is_open = !under_way.open.is_empty();
        if is_open && silence >= SILENCE {
            return KeptError::Silent;
        }
        if !is_open && silence >= IDLE {
            // What ends so was good.
            under_way.has_answered = true;
            return KeptError::Closed;
        }
    }
}

/// Held across nothing that can panic half-way.
fn lock(under_way: &Mutex<UnderWay>) -> MutexGuard<'_, UnderWay> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}
