//! The one task of a world that has what was said arrive, and what an agent
//! does about it: who asks is judged, the handler is run. Most handlers are
//! done at once, here; one that isn't goes on in a task of its agent, within
//! its deadline and its peer's turns.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use innermesh_agent::{
    host::{Clock, tasks::Tasks, within},
    quic::{CallError, Caller, Counters, Handler, Membership},
};
use innermesh_proto::{
    limits,
    rpc::{Failure, method},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep_until,
};

use super::{
    ids::{ConnectionId, DeskId, Side},
    shared::{Shared, locked, words},
    talk::{Event, Frame, Phase, Turns},
};
use crate::{clock, net::wire::State};

/// How long what arrives before its connection is up waits for that.
const EARLY: Duration = Duration::from_millis(10);

/// Starts to deliver, once for a world.
pub(super) fn start(wire: &Arc<Shared>) {
    let mut state = wire.lock().unwrap_or_else(PoisonError::into_inner);
    if !std::mem::replace(&mut state.talk.delivering, true) {
        // Deliveries are no agent's work, and must not wait for its turn.
        let delivering = tokio::task::unconstrained(deliver(Arc::downgrade(wire)));
        tokio::spawn(delivering);
    }
}

async fn deliver(wire: Weak<Shared>) {
    while let Some((wake, next)) =
        locked(&wire, |state| (state.talk.wake.clone(), state.talk.next()))
    {
        match next {
            Ok(event) => happen(&wire, event),
            Err(None) => wake.notified().await,
            Err(Some(due)) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = sleep_until(due) => {}
            },
        }
    }
}

fn happen(wire: &Weak<Shared>, event: Event) {
    let work = locked(wire, |state| match event {
        Event::Arrives(connection, side, frame) => state.arrives(connection, side, frame),
        Event::Again(connection, side, frame, effort) => {
            state.say(connection, side, frame, effort);
            None
        }
        Event::Closed(connection, side, code, why) => {
            let why = CallError::Lost(words(code, &why));
            state.talk.over(connection, side, &why);
            None
        }
        Event::Trial(connection, side) => {
            state.trial(connection, side);
            None
        }
        Event::Flight(flight) => {
            state.flight(flight);
            None
        }
        Event::Look => {
            state.look();
            None
        }
    });
    if let Some(work) = work.flatten() {
        work.begin(wire);
    }
}

/// What an agent's handler is to do.
struct Work {
    connection: ConnectionId,
    /// The agent's side.
    side: Side,
    desk: DeskId,
    handler: Arc<dyn Handler>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    caller: Caller,
    frame: Frame,
    /// The peer's turns, once something of its took time.
    turns: Option<Arc<Semaphore>>,
}

impl State {
    /// What was said arrives: its handler's work, if it has any.
    fn arrives(&mut self, connection: ConnectionId, side: Side, frame: Frame) -> Option<Work> {
        let end = self.talk.end(connection, side)?;
        let (desk, phase) = (end.desk, end.phase);
        let place = self.talk.desk(desk)?.place;
        let now = clock::now();
        // It stands still since this was sent.
        let ready = self.ready(place, now);
        let early = (phase == Phase::Pending).then(|| now + EARLY);
        if let Some(later) = early.or((ready > now).then_some(ready)) {
            self.talk.at(later, Event::Arrives(connection, side, frame));
            return None;
        }
        if let Frame::Notice { body, .. } = &frame {
            self.delivered(connection, side.other(), body.len());
        }
        if phase == Phase::Over {
            return None;
        }
        if let Frame::Datagram(_) = &frame {
            self.acknowledge(connection, side);
        }
        match frame {
            Frame::Acknowledgement => {
                if let Some(end) = self.talk.end(connection, side) {
                    end.acks += 1;
                }
                None
            }
            Frame::Answer { number, result } => {
                if let Some(asked) = self.talk.answers.remove(&(connection, side, number)) {
                    // Who asked may give up at this very moment.
                    let _ = asked.send(result.map_err(CallError::Failed));
                }
                None
            }
            frame => self.judge(connection, side, desk, frame),
        }
    }

    /// Who asks, by the ledger at this moment, and whether it may.
    fn judge(
        &mut self,
        connection: ConnectionId,
        side: Side,
        desk: DeskId,
        frame: Frame,
    ) -> Option<Work> {
        let membership = self.talk.membership(connection, side);
        match membership {
            Membership::Revoked => {
                self.revoke(connection, side);
                return None;
            }
            Membership::Member => {
                self.talk.settle(connection, side);
            }
            Membership::Unknown => {}
        }
        let is_member = membership == Membership::Member;
        let exporter = self.talk.exporter(connection);
        let end = self.talk.end(connection, side)?;
        let caller = Caller {
            node: end.peer.filter(|_| is_member).map(|(_, node)| node),
            key: end.peer.map(|(key, _)| key),
            remote: end.remote,
            exporter,
        };
        let turns = end.turns.as_ref().map(|turns| match frame {
            Frame::Request { .. } => turns.calls.clone(),
            _ => turns.notices.clone(),
        });
        let here = self.talk.desk(desk)?;
        let (clock, tasks) = (here.clock.clone(), here.tasks.clone());
        let handler = here.handler.clone();
        let counters = &mut here.counters;
        let answer = match &frame {
            Frame::Request {
                number,
                method,
                body,
                ..
            } => {
                let long = !is_member && body.len() + 64 > limits::STRANGER_RPC_BYTES;
                let shut = !is_member && !here.open.contains(method);
                if long {
                    counters.frames_too_long += 1;
                    let why = CallError::TooLong(body.len());
                    self.refuse(connection, side, *number, why);
                    return None;
                }
                counters.requests += 1;
                if shut {
                    counters.not_member += 1;
                    Some((*number, Err(Failure::NotMember)))
                } else if *method == method::PING {
                    Some((*number, Ok(body.clone())))
                } else if handler.is_none() {
                    let why = Failure::Unavailable("the agent is starting".into());
                    Some((*number, Err(why)))
                } else {
                    None
                }
            }
            Frame::Notice { .. } if !is_member => {
                counters.not_member += 1;
                return None;
            }
            // The transports' own: it says nothing here.
            Frame::Notice { method, .. } if *method == method::HELLO => {
                counters.frames_malformed += 1;
                return None;
            }
            Frame::Notice { .. } => {
                counters.notices_received += 1;
                None
            }
            Frame::Datagram(_) if !is_member => {
                counters.datagrams_dropped += 1;
                return None;
            }
            Frame::Datagram(_) | Frame::Answer { .. } | Frame::Acknowledgement => None,
        };
        if let Some((number, result)) = answer {
            self.send(connection, side, Frame::Answer { number, result });
            return None;
        }
        Some(Work {
            connection,
            side,
            desk,
            handler: handler?,
            clock,
            tasks,
            caller,
            frame,
            turns,
        })
    }

    /// A request that isn't read to its end.
    fn refuse(&mut self, connection: ConnectionId, side: Side, number: u64, why: CallError) {
        let asked = (connection, side.other(), number);
        if let Some(asked) = self.talk.answers.remove(&asked) {
            let _ = asked.send(Err(why));
        }
    }
}

type Running<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The first step of something: most need no other.
fn first_step<T>(running: &mut Running<T>) -> Poll<T> {
    running
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

impl Work {
    fn begin(self, wire: &Weak<Shared>) {
        let Self {
            connection,
            side,
            desk,
            handler,
            clock,
            tasks,
            caller,
            frame,
            turns,
        } = self;
        let wire = wire.clone();
        let longest = Duration::from_millis(limits::HANDLER_MS);
        match frame {
            Frame::Datagram(datagram) => handler.datagram(&caller, datagram),
            Frame::Answer { .. } | Frame::Acknowledgement => {}
            Frame::Notice { method, body } => {
                let mut running: Running<()> =
                    Box::pin(async move { handler.notice(&caller, method, body).await });
                let turn = Turn::of(turns);
                if matches!(turn, Turn::Free | Turn::Taken(_))
                    && first_step(&mut running).is_ready()
                {
                    return;
                }
                tasks.spawn(async move {
                    let work = async {
                        let _turn = turn.take(&wire, connection, side, |t| &t.notices).await;
                        running.await;
                    };
                    if within(&*clock, longest, work).await.is_none() {
                        count(&wire, desk, |counters| counters.deadlines += 1);
                    }
                });
            }
            Frame::Request {
                number,
                method,
                deadline_ms,
                body,
            } => {
                let mut running: Running<_> = Box::pin(async move {
                    let _held = handler.make_room(&caller, method).await;
                    handler.call(&caller, method, body).await
                });
                let answer = move |wire: &Weak<Shared>, result| {
                    let result = fit(result);
                    let frame = Frame::Answer { number, result };
                    locked(wire, |state| state.send(connection, side, frame));
                };
                let turn = Turn::of(turns);
                if matches!(turn, Turn::Free | Turn::Taken(_))
                    && let Poll::Ready(result) = first_step(&mut running)
                {
                    return answer(&wire, result);
                }
                let limit = longest.min(Duration::from_millis(deadline_ms.into()));
                tasks.spawn(async move {
                    let mut started = false;
                    let work = async {
                        let _turn = turn.take(&wire, connection, side, |t| &t.calls).await;
                        started = true;
                        running.await
                    };
                    let result = within(&*clock, limit, work).await;
                    let result = result.unwrap_or_else(|| {
                        count(&wire, desk, |counters| {
                            if started {
                                counters.deadlines += 1
                            } else {
                                counters.busy += 1
                            }
                        });
                        Err(if started {
                            Failure::DeadlineExceeded
                        } else {
                            Failure::Busy
                        })
                    });
                    answer(&wire, result);
                });
            }
        }
    }
}

/// A peer's turn to have something worked on.
enum Turn {
    /// Nothing of its took time so far.
    Free,
    Taken(OwnedSemaphorePermit),
    /// Others of its have all there are.
    Waits(Arc<Semaphore>),
}

impl Turn {
    fn of(turns: Option<Arc<Semaphore>>) -> Self {
        match turns {
            None => Self::Free,
            Some(turns) => match turns.clone().try_acquire_owned() {
                Ok(turn) => Self::Taken(turn),
                Err(_) => Self::Waits(turns),
            },
        }
    }

    /// Holds the turn for what takes time.
    async fn take(
        self,
        wire: &Weak<Shared>,
        connection: ConnectionId,
        side: Side,
        which: impl Fn(&Turns) -> &Arc<Semaphore> + Send,
    ) -> Option<OwnedSemaphorePermit> {
        let turns = match self {
            Self::Taken(turn) => return Some(turn),
            Self::Waits(turns) => turns,
            Self::Free => locked(wire, |state| {
                let end = state.talk.end(connection, side)?;
                let turns = end.turns.get_or_insert_with(|| {
                    Box::new(Turns {
                        calls: Arc::new(Semaphore::new(limits::CALLS_PER_PEER)),
                        notices: Arc::new(Semaphore::new(limits::NOTICES_PER_PEER)),
                    })
                });
                Some(which(turns).clone())
            })
            .flatten()?,
        };
        // Nobody closes it.
        turns.acquire_owned().await.ok()
    }
}

fn count(wire: &Weak<Shared>, desk: DeskId, add: impl FnOnce(&mut Counters)) {
    locked(wire, |state| {
        if let Some(desk) = state.talk.desk(desk) {
            add(&mut desk.counters);
        }
    });
}

/// An answer that is too long for a frame is the handler's mistake.
fn fit(result: Result<Vec<u8>, Failure>) -> Result<Vec<u8>, Failure> {
    match result {
        Ok(body) if body.len() > limits::RPC_BODY_BYTES => Err(Failure::Internal(
            "the answer is too long for one frame".into(),
        )),
        other => other,
    }
}
