//! What a connection of HTTP/2 has under way: part of the task that has the
//! connection, and gone with it.

use std::{future::Future, pin::Pin};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hyper::rt::Executor;
use tokio::sync::mpsc;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection of HTTP/2 puts the requests that it has under way. They
/// end with it.
#[derive(Clone)]
pub(crate) struct Streams(mpsc::UnboundedSender<Work>);

/// What is under way on a connection.
pub(crate) struct UnderWay(mpsc::UnboundedReceiver<Work>);

impl Streams {
    /// The connection sees to it that there are no more than it allows.
    pub fn new() -> (Self, UnderWay) {
        let (streams, under_way) = mpsc::unbounded_channel();
        (Self(streams), UnderWay(under_way))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, work: F) {
        // Nobody is there any more once the connection has ended.
        let _ = self.0.send(Box::pin(work));
    }
}

impl UnderWay {
    /// Runs what comes, until the connection is gone.
    pub async fn run(mut self) {
        let mut running = FuturesUnordered::new();
        loop {
            tokio::select! {
                work = self.0.recv() => match work {
                    Some(work) => running.push(work),
                    None => return,
                },
                Some(()) = running.next() => {}
            }
        }
    }
}
