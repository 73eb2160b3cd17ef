//! What happens in a simulator, told as it happens: to requests that wait for an event, and to live streams.
//!
//! The feed belongs to the name, not to the open simulator: it goes on when that is closed and opened again, or emptied.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

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
    Read(Box<LogEntry>),
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
struct Teller {
    /// To those who wait for something.
    waiting: Sender<Telling>,
    /// To live streams: the more there are, the more is told at once.
    streaming: Sender<Telling>,
}

impl Teller {
    fn of_all() -> Option<&'static Self> {
        static TELLER: OnceLock<Option<Teller>> = OnceLock::new();
        TELLER.get_or_init(|| Some(Self { waiting: begin(|_| AFTER)?, streaming: begin(|streams| AFTER.max(EACH * streams).min(MOST))? })).as_ref()
    }
}

/// Begins to tell, each time after a pause that depends on how many listen.
fn begin(pause: impl Fn(u32) -> Duration + Send + 'static) -> Option<Sender<Telling>> {
    let (sender, receiver) = channel::<Telling>();
    let tell = |(listeners, told): Telling| {
        // Those who left in between need not be told.
        let _ = listeners.send(told);
        listeners.receiver_count()
    };
    let tells = move || {
        while let Ok(first) = receiver.recv() {
            let mut listeners = u32::try_from(first.0.receiver_count()).unwrap_or(u32::MAX);
            let (mut next, mut quiet) = (Some(first), Instant::now());
            // While something happens it looks by itself: whoever tells it something need not wake it, which costs more than the rest.
            while quiet.elapsed() < AWAKE {
                std::thread::sleep(pause(listeners));
                if let Some(most) = next.take().into_iter().chain(receiver.try_iter()).map(tell).max() {
                    (listeners, quiet) = (u32::try_from(most).unwrap_or(u32::MAX), Instant::now());
                }
            }
        }
    };
    std::thread::Builder::new().name("feed".into()).spawn(tells).ok().map(|_| sender)
}

/// How long it stays awake when nothing happens.
const AWAKE: Duration = Duration::from_millis(200);
/// How long after the commit listeners are told.
const AFTER: Duration = Duration::from_millis(1);
/// How much later streams are told for each of them.
const EACH: Duration = Duration::from_micros(200);
/// How much later they are told at most.
const MOST: Duration = Duration::from_millis(100);

/// The live feed of a simulator.
#[derive(Clone, Debug)]
pub struct Feed {
    waiting: broadcast::Sender<Arc<Told>>,
    streaming: broadcast::Sender<Arc<Told>>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { waiting: broadcast::Sender::new(KEPT), streaming: broadcast::Sender::new(KEPT) }
    }
}

impl Feed {
    /// Tells what happened, in a moment; `what` is made only if somebody listens.
    pub fn tell(&self, what: impl FnOnce() -> Happening) {
        if self.listeners() == 0 {
            return;
        }
        let told = Arc::new(Told { what: what(), text: OnceLock::new() });
        let teller = Teller::of_all();
        for (listeners, teller) in [(&self.waiting, teller.map(|t| &t.waiting)), (&self.streaming, teller.map(|t| &t.streaming))] {
            if listeners.receiver_count() == 0 {
                continue;
            }
            let telling = (listeners.clone(), told.clone());
            // Where no thread can be had, it is told at once.
            if let Err((listeners, told)) = teller.map_or(Err(telling.clone()), |teller| teller.send(telling).map_err(|e| e.0)) {
                let _ = listeners.send(told);
            }
        }
    }

    /// Waits from now on for something to happen.
    #[must_use]
    pub fn wait(&self) -> broadcast::Receiver<Arc<Told>> {
        self.waiting.subscribe()
    }

    /// Streams from now on what happens.
    #[must_use]
    pub fn stream(&self) -> broadcast::Receiver<Arc<Told>> {
        self.streaming.subscribe()
    }

    /// How many listen.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.waiting.receiver_count() + self.streaming.receiver_count()
    }
}
