//! A [`Guard`] with somebody who waits: connections that want a place, and
//! those that lose theirs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use innermesh_proto::limits;
use tokio::sync::watch;

use super::guard::{Class, Guard, Id, Shares, Source, Step};
use crate::Clock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Waits,
    Served,
    Over,
}

/// Places that several listeners may share.
pub struct Room {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    guard: Guard,
    fates: BTreeMap<Id, watch::Sender<Fate>>,
}

impl State {
    fn carry_out(&mut self, steps: Vec<Step>) {
        for step in steps {
            let (id, fate) = match step {
                Step::Serve(id) => (id, Fate::Served),
                Step::Displace(id) | Step::Refuse(id) => (id, Fate::Over),
            };
            if let Some(told) = self.fates.get(&id) {
                told.send_replace(fate);
            }
        }
    }
}

impl Room {
    /// One with these shares.
    pub fn new(shares: Shares, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: Mutex::new(State {
                guard: Guard::new(shares),
                fates: BTreeMap::new(),
            }),
        })
    }

    /// Waits for a place; `None` where there is none within
    /// [`limits::PLACE_WAIT_MS`], or not even room to wait.
    pub async fn enter(self: &Arc<Self>, source: Source) -> Option<Place> {
        let (id, mut fate) = {
            let mut state = self.lock();
            let id = state.guard.arrive(source);
            let (told, fate) = watch::channel(Fate::Waits);
            state.fates.insert(id, told);
            let steps = state.guard.poll(self.clock.now());
            state.carry_out(steps);
            (id, fate)
        };
        // From here on it leaves when it is dropped.
        let place = Place {
            room: self.clone(),
            id,
            fate: fate.clone(),
        };
        let deadline = self.clock.now() + Duration::from_millis(limits::PLACE_WAIT_MS);
        loop {
            match *fate.borrow_and_update() {
                Fate::Served => return Some(place),
                Fate::Over => return None,
                Fate::Waits => {}
            }
            let now = self.clock.now();
            if now >= deadline {
                return None;
            }
            let next = self.lock().guard.next_poll(now).unwrap_or(deadline);
            tokio::select! {
                changed = fate.changed() => changed.ok()?,
                () = self.clock.sleep(next.min(deadline).saturating_sub(now)) => self.poll(),
            }
        }
    }

    /// Connections that have a place.
    pub fn served(&self) -> usize {
        self.lock().guard.served()
    }

    fn poll(&self) {
        let mut state = self.lock();
        let steps = state.guard.poll(self.clock.now());
        state.carry_out(steps);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// A place, given back when dropped.
pub struct Place {
    room: Arc<Room>,
    id: Id,
    fate: watch::Receiver<Fate>,
}

impl Place {
    /// Waits until the place is another's: the connection must end.
    pub async fn displaced(&self) {
        let mut fate = self.fate.clone();
        let _ = fate.wait_for(|fate| *fate == Fate::Over).await;
    }

    /// A request is being answered for as long as this value lives.
    pub fn working(self: &Arc<Self>) -> Working {
        self.room
            .lock()
            .guard
            .work(self.id, true, self.room.clock.now());
        Working(self.clone())
    }

    /// The peer has proved to be of a class that has places of its own.
    pub fn prove(&self, class: Class) {
        self.room.lock().guard.prove(self.id, class);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.fates.remove(&self.id);
        state.guard.leave(self.id);
        let steps = state.guard.poll(self.room.clock.now());
        state.carry_out(steps);
    }
}

/// See [`Place::working`].
pub struct Working(Arc<Place>);

impl Drop for Working {
    fn drop(&mut self) {
        let room = &self.0.room;
        room.lock().guard.work(self.0.id, false, room.clock.now());
    }
}
