//! Log lines: `time level message name=value ...`, as cheap as one line a request must be.
//!
//! tracing's own formatter looks at every character through several layers, and a channel with a thread at its end costs
//! each line an allocation and a system call: together a sixth of a read. Here a line is formatted once, into a buffer that
//! a thread writes out ten times a second.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How long a line may wait.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Bytes that are written at once whatever the time.
const WRITE_AT: usize = 64 << 10;

/// Starts logging to standard error; what is returned writes out the rest when it is dropped.
pub fn start(filter: &str) -> Result<Lines, String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log: {e}"))?;
    let lines = Lines::default();
    tracing_subscriber::fmt().with_env_filter(filter).event_format(Plain).with_writer(lines.clone()).init();
    let buffer = Arc::downgrade(&lines.0);
    let writing = std::thread::Builder::new().name("log".into()).spawn(move || {
        while let Some(buffer) = buffer.upgrade() {
            write_out(&buffer);
            drop(buffer);
            std::thread::sleep(WRITE_EVERY);
        }
    });
    writing.map_err(|e| e.to_string())?;
    Ok(lines)
}

/// Lines that wait to be written.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Drop for Lines {
    fn drop(&mut self) {
        write_out(&self.0);
    }
}

fn write_out(buffer: &Mutex<Vec<u8>>) {
    let waiting = std::mem::take(&mut *buffer.lock());
    if !waiting.is_empty() {
        // Nobody is left to tell if standard error is gone.
        let _ = io::stderr().write_all(&waiting);
    }
}

/// Adds lines to the buffer.
pub struct Adding<'a>(&'a Mutex<Vec<u8>>);

impl io::Write for Adding<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = self.0.lock();
        buffer.extend_from_slice(bytes);
        if buffer.len() >= WRITE_AT {
            let full = std::mem::take(&mut *buffer);
            drop(buffer);
            io::stderr().write_all(&full)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Adding<'a>;

    fn make_writer(&'a self) -> Adding<'a> {
        Adding(&self.0)
    }
}

/// The form of a line.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let now = chrono::Utc::now().timestamp_millis();
        write!(writer, "{} {:5}", crate::clock::instant(now), event.metadata().level())?;
        let mut fields = Fields { writer: &mut writer, outcome: Ok(()) };
        event.record(&mut fields);
        fields.outcome?;
        writeln!(writer)
    }
}

struct Fields<'w, 'o> {
    writer: &'w mut Writer<'o>,
    outcome: fmt::Result,
}

impl Fields<'_, '_> {
    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let named = match field.name() {
            "message" => self.writer.write_char(' '),
            name => self.writer.write_char(' ').and_then(|()| self.writer.write_str(name)).and_then(|()| self.writer.write_char('=')),
        };
        let written = named.and_then(|()| OneLine(self.writer).write_fmt(value));
        self.outcome = self.outcome.and(written);
    }
}

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"));
    }
}

/// What a client sent must not begin a line of its own.
struct OneLine<'w, 'o>(&'w mut Writer<'o>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|b| b >= b' ' && b != 0x7f) {
            return self.0.write_str(text);
        }
        for c in text.chars() {
            if c.is_control() { write!(self.0, "{}", c.escape_default())? } else { self.0.write_char(c)? }
        }
        Ok(())
    }
}
