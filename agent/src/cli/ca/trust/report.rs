//! What is told of stores: rows for people, fields for scripts.

use serde::Serialize;

use super::{
    super::super::{
        failure::Failure,
        show::{Cell, Column, Screen, Table},
    },
    anchor::Anchor,
    machine::Barrier,
    store::{Kind, Store},
};
use crate::host::UnixTime;

/// What came of putting a root into a store, or of taking it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Put there, and read back.
    Installed,
    /// It was there.
    Already,
    /// Taken out, and looked for.
    Removed,
    /// It wasn't there any more.
    Absent,
    /// Only root may.
    NeedsRoot,
    /// The program that keeps the store isn't installed.
    NoTool,
    /// Tried, and told why not.
    Failed,
}

impl Change {
    /// Whether the store is now as was asked.
    pub fn is_done(self) -> bool {
        !matches!(self, Self::NeedsRoot | Self::NoTool | Self::Failed)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Already => "already there",
            Self::Removed => "removed",
            Self::Absent => "already gone",
            Self::NeedsRoot => "needs sudo",
            Self::NoTool => "no tool",
            Self::Failed => "failed",
        }
    }
}

/// One store, after a change.
#[derive(Debug, Serialize)]
pub struct Changed {
    /// Whose it is.
    pub kind: Kind,
    /// Where.
    pub place: String,
    /// What the root is called in it.
    pub name: String,
    /// SHA-256 of the root, in hexadecimal.
    pub fingerprint_sha256: String,
    /// What came of it.
    pub result: Change,
    /// More about that.
    pub detail: Option<String>,
}

impl Changed {
    /// About one store.
    pub fn new(
        kind: Kind,
        place: String,
        anchor: &Anchor,
        result: Change,
        detail: Option<String>,
    ) -> Self {
        Self {
            kind,
            place,
            name: anchor.name(),
            fingerprint_sha256: anchor.fingerprint.clone(),
            result,
            detail,
        }
    }
}

/// What `install` and `uninstall` print.
#[derive(Debug, Default, Serialize)]
pub struct Changes {
    /// All stores, in the order in which they were changed.
    pub stores: Vec<Changed>,
    /// What else there is to say.
    pub notes: Vec<String>,
    /// Why it ended before its end, if it did.
    #[serde(skip)]
    pub stopped: Option<Failure>,
}

impl Changes {
    /// Whether all stores are now as was asked.
    pub fn are_done(&self) -> bool {
        self.stores.iter().all(|store| store.result.is_done())
    }

    /// Whether any of them can be changed by root only.
    pub fn need_root(&self) -> bool {
        let mut stores = self.stores.iter();
        stores.any(|store| store.result == Change::NeedsRoot)
    }

    /// Whether browsers have to look again.
    pub fn concern_browsers(&self) -> bool {
        self.stores.iter().any(|store| {
            store.kind.is_nss() && matches!(store.result, Change::Installed | Change::Removed)
        })
    }

    /// For a person.
    pub fn draw(&self, screen: &mut Screen) {
        let rows = self.stores.iter().map(|store| {
            let word = store.result.word();
            let cells = [
                if store.result.is_done() {
                    Cell::good(word)
                } else {
                    Cell::bad(word)
                },
                Cell::new(store.kind.title()),
                Cell::new(&store.place),
            ];
            (cells, store.detail.as_deref())
        });
        listing(screen, "RESULT", rows);
    }
}

/// How the root stands in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Clients believe it.
    Installed,
    /// It isn't there.
    Absent,
    /// It isn't there, and another root of this domain is.
    Other,
    /// It is there, and its time is over.
    Expired,
    /// It is there, and servers aren't believed by it.
    Untrusted,
    /// The store couldn't be read.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Absent => "not installed",
            Self::Other => "another root",
            Self::Expired => "expired",
            Self::Untrusted => "not trusted",
            Self::Unknown => "unknown",
        }
    }
}

/// One store, looked at.
#[derive(Debug, Serialize)]
pub struct Looked {
    /// Whose it is.
    pub kind: Kind,
    /// Where.
    pub place: String,
    /// How the root stands in it.
    pub state: State,
    /// Whether `agent ca trust install` put it there.
    pub recorded: bool,
    /// Whether whoever asks may change the store.
    pub writable: bool,
    /// More about that, and what to do.
    pub detail: Option<String>,
    /// Whether root may change it.
    #[serde(skip)]
    by_root: bool,
}

impl Looked {
    /// About one store; what keeps whoever asks from changing it is told where
    /// there is something to change.
    pub fn new(
        store: &dyn Store,
        anchor: &Anchor,
        state: State,
        detail: Option<String>,
        barrier: Option<&Barrier>,
        recorded: bool,
    ) -> Self {
        let mut looked = Self {
            kind: store.kind(),
            place: store.place(anchor),
            state,
            recorded,
            writable: barrier.is_none(),
            detail: None,
            by_root: matches!(barrier, None | Some(Barrier::Rights)),
        };
        let barrier = match barrier.filter(|_| looked.is_lacking()) {
            None => None,
            Some(Barrier::Rights) => Some("not writable without sudo".to_string()),
            Some(Barrier::Other(why)) => Some(why.clone()),
        };
        let parts: Vec<String> = detail.into_iter().chain(barrier).collect();
        looked.detail = (!parts.is_empty()).then(|| parts.join("; "));
        looked
    }

    /// Whether `install`, perhaps with sudo, would put the root here.
    pub fn is_open(&self) -> bool {
        self.by_root && self.is_lacking()
    }

    fn is_lacking(&self) -> bool {
        matches!(self.state, State::Absent | State::Other)
    }
}

/// What `status` prints.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The mesh's domain.
    pub domain: String,
    /// What the root is called in the stores.
    pub name: String,
    /// SHA-256 of the root, in hexadecimal.
    pub fingerprint_sha256: String,
    /// When it ends.
    pub not_after: UnixTime,
    /// Whether it has.
    pub expired: bool,
    /// All stores of this machine.
    pub stores: Vec<Looked>,
    /// Roots of other meshes, or earlier ones, that were installed from here.
    pub others: Vec<OtherRoot>,
    /// What to do.
    pub notes: Vec<String>,
}

/// A root that isn't this mesh's.
#[derive(Debug, Serialize)]
pub struct OtherRoot {
    /// Whose the store is.
    pub kind: Kind,
    /// Where.
    pub place: String,
    /// What the root is called in it.
    pub name: String,
}

impl Status {
    /// For a person.
    pub fn draw(&self, screen: &mut Screen) {
        let word = if self.expired { "ended" } else { "until" };
        screen.fields(&[
            ("root of", self.domain.clone()),
            ("SHA-256", screen.fingerprint(&self.fingerprint_sha256)),
            (word, self.not_after.to_string()),
        ]);
        let rows = self.stores.iter().map(|store| {
            let word = store.state.word();
            let cells = [
                match store.state {
                    State::Installed => Cell::good(word),
                    State::Absent | State::Unknown => Cell::care(word),
                    State::Other | State::Expired | State::Untrusted => Cell::bad(word),
                },
                Cell::new(store.kind.title()),
                Cell::new(&store.place),
            ];
            (cells, store.detail.as_deref())
        });
        listing(screen, "STATE", rows);
        if !self.others.is_empty() {
            let mut others = Table::new(columns("ALSO INSTALLED"));
            for other in &self.others {
                others.add([
                    Cell::new(&other.name),
                    Cell::new(other.kind.title()),
                    Cell::new(&other.place),
                ]);
            }
            screen.table(&others.sorted());
        }
    }
}

const fn columns(first: &'static str) -> [Column; 3] {
    [
        Column::whole(first),
        Column::whole("STORE"),
        Column::new("PLACE"),
    ]
}

/// A table in the order of the stores, with more about some below it.
fn listing<'a>(
    screen: &mut Screen,
    first: &'static str,
    rows: impl Iterator<Item = ([Cell; 3], Option<&'a str>)>,
) {
    let (mut table, mut more) = (Table::new(columns(first)), Vec::new());
    for (cells, detail) in rows {
        more.extend(detail.map(|detail| {
            let [_, store, place] = &cells;
            format!("{store}, {place}: {detail}")
        }));
        table.add(cells);
    }
    screen.table(&table);
    for detail in more {
        screen.say("\n");
        screen.paragraph(&detail);
    }
}
