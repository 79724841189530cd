//! Leave to wait: whether what runs on this thread may wait for the disk in place, instead of handing the work to another thread and being woken.
//!
//! Whoever polls a call knows whether anybody else would be kept waiting, and the log knows when there is something to wait for. Between them are layers that care
//! for neither; so the leave goes along with the thread. It is for one wait.

use std::cell::Cell;

thread_local! {
    static LEAVE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, which has leave to wait once if `given`. Also tells whether it took the leave.
pub fn with<R>(given: bool, work: impl FnOnce() -> R) -> (R, bool) {
    let outer = Restored(LEAVE.replace(given));
    let result = work();
    let taken = given && !LEAVE.get();
    drop(outer);
    (result, taken)
}

/// Whether there is leave.
pub fn is_given() -> bool {
    LEAVE.get()
}

/// Takes the leave, if there is one.
pub fn take() -> bool {
    LEAVE.replace(false)
}

/// Gives back what was there before, also if the work panics.
struct Restored(bool);

impl Drop for Restored {
    fn drop(&mut self) {
        LEAVE.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_for_one_wait_of_the_work_it_was_given_to() {
        assert!(!is_given() && !take());
        assert_eq!(
            with(true, || (is_given(), take(), is_given(), take())),
            ((true, true, false, false), true)
        );
        assert_eq!(with(true, || ()), ((), false));
        assert_eq!(with(false, take), (false, false));
        assert!(!take(), "what was not taken is gone");
        assert_eq!(with(true, || (with(false, take), take())), (((false, false), true), true));
    }

    #[test]
    fn a_panic_leaves_none_behind() {
        let panicked = std::panic::catch_unwind(|| with(true, || panic!("as told")));
        assert!(panicked.is_err());
        assert!(!is_given());
    }
}
