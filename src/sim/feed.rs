//! What happens in a simulator, told as it happens: to requests that wait for an event, and to live streams.
//!
//! The feed belongs to the name, not to the open simulator: it goes on when that is closed and opened again, or emptied.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::broadcast;

use super::log::LogEntry;
use crate::clock::EventId;
use crate::simdb::EventRecord;
use crate::simdb::event_index::Row;

/// Happenings that a listener may be behind; a slower one is told that it missed some.
const KEPT: usize = 1_024;

/// Something that happened.
#[derive(Debug)]
pub enum Happening {
    /// An event folder came to be.
    Event(Row, Box<EventRecord>),
    /// A read or a search that is in the request log only.
    Read(LogEntry),
    /// A marker was set.
    Marker(String, EventId),
    /// The simulator was emptied, or became what a snapshot was.
    Reset,
}

/// The same for those who listen.
#[derive(Debug)]
pub struct Told {
    /// What happened.
    pub what: Happening,
    text: OnceLock<Arc<str>>,
}

impl Told {
    /// What a stream says of it, which `make` makes for the first that asks.
    pub fn text(&self, make: impl FnOnce() -> String) -> Arc<str> {
        self.text.get_or_init(|| make().into()).clone()
    }
}

/// What is to be told, and to whom.
type Telling = (broadcast::Sender<Arc<Told>>, Arc<Told>);

/// Who tells. What wakes hundreds of listeners keeps the serving threads busy for milliseconds: whoever wrote gets the answer
/// first.
fn teller() -> Option<&'static Sender<Telling>> {
    static TELLER: OnceLock<Option<Sender<Telling>>> = OnceLock::new();
    let started = TELLER.get_or_init(|| {
        let (sender, receiver) = channel::<Telling>();
        let tells = move || {
            while let Ok(first) = receiver.recv() {
                std::thread::sleep(AFTER);
                for (listeners, told) in std::iter::once(first).chain(receiver.try_iter()) {
                    // Those who left in between need not be told.
                    let _ = listeners.send(told);
                }
            }
        };
        std::thread::Builder::new().name("feed".into()).spawn(tells).ok().map(|_| sender)
    });
    started.as_ref()
}

/// How long after the commit listeners are told.
const AFTER: Duration = Duration::from_millis(1);

/// The live feed of a simulator.
#[derive(Clone, Debug)]
pub struct Feed(broadcast::Sender<Arc<Told>>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT))
    }
}

impl Feed {
    /// Tells what happened, in a moment; `what` is made only if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> Happening) {
        if self.0.receiver_count() > 0 {
            let told = Arc::new(Told { what: what(), text: OnceLock::new() });
            // Where no thread can be had, it is told at once.
            if let Err(back) =
                teller().map_or_else(|| Err((self.0.clone(), told.clone())), |teller| teller.send((self.0.clone(), told.clone())).map_err(|e| e.0))
            {
                let _ = back.0.send(back.1);
            }
        }
    }

    /// Listens from now on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Arc<Told>> {
        self.0.subscribe()
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.0.receiver_count()
    }
}
