//! Who comes first: threads that nobody waits for give way to those that answer.

/// For what goes on behind every write: it must keep up with them.
pub const BEHIND: i32 = 10;
/// For what may take its time: the greatest nice value.
pub const LAST: i32 = 19;

/// Lets this thread, and those it makes, give way by a nice value. On Linux a thread has a priority of its own; where it cannot be
/// had, all are equal.
pub fn give_way(nice: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}
