//! Who comes first: threads that nobody waits for give way to those that answer.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// For what goes on behind every write: it must keep up with them.
pub const BEHIND: i32 = 10;
/// For what may take its time: the greatest nice value.
pub const LAST: i32 = 19;

/// Lets this thread, and those it makes, give way by a nice value. On Linux a thread has a priority of its own; where it cannot be
/// had, all are equal.
pub fn give_way(nice: i32) {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), nice);
}

/// Keeps this thread, and those it makes, on the second half of the processors that it may use: on the others nobody meets it,
/// however the system judges priorities. Where there is but one, or this cannot be had, it stays anywhere.
pub fn keep_to_half() {
    let Ok(mut allowed) = sched_getaffinity(None) else { return };
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    for cpu in &all[..all.len() / 2] {
        allowed.unset(*cpu);
    }
    let _ = sched_setaffinity(None, &allowed);
}

#[cfg(test)]
mod tests {
    use super::{keep_to_half, sched_getaffinity};

    #[test]
    fn half_of_the_processors_stay_free() -> Result<(), rustix::io::Errno> {
        let all = sched_getaffinity(None)?.count();
        let kept = std::thread::spawn(|| {
            keep_to_half();
            sched_getaffinity(None)
        });
        let kept = kept.join().unwrap_or(Err(rustix::io::Errno::SRCH))?.count();
        assert_eq!(kept, all.div_ceil(2), "of {all}");
        assert_eq!(sched_getaffinity(None)?.count(), all, "this thread is as before");
        Ok(())
    }
}
