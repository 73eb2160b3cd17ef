//! Where long searches run: on a few threads of their own that give way to all others, so that whoever asks for much waits
//! for those who ask for little, and not the other way round.

use std::io;

use tokio::runtime::{Builder, Runtime};

use crate::sim::priority;

/// The threads.
pub struct Lane(Option<Runtime>);

impl Lane {
    /// As many threads as there are cores.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn new() -> io::Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let runtime =
            Builder::new_current_thread().thread_name("search").max_blocking_threads(threads).on_thread_start(|| priority::give_way(priority::LAST)).build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `work` there.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let Some(runtime) = &self.0 else { return Err("the server stops".to_owned()) };
        runtime.spawn_blocking(work).await.map_err(|e| e.to_string())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Not waited for: what is dropped on a serving thread must not block it.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
