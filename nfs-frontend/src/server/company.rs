//! Who calls alone. A client that sends one call after the other, while nobody else calls, loses nothing if the thread that serves it
//! waits for the disk in place, and wins two changes of thread ([`atoll_base::leave`]). Somebody else who comes meanwhile waits for the rest
//! of that sync. So there is leave only after some calls without company, and after the more of them the oftener there was company.

use std::sync::atomic::{AtomicU64, Ordering};

/// The most calls in a row that are needed. It begins with [`super::Limits::calls_alone`] and doubles each time that company comes where leave was given.
const MOST_CALLS: u32 = 1024;

/// After so many times more calls without company it is forgotten that there was any. So who comes once in 128 calls (16 times 8), or more rarely, may meet
/// one that waits each time.
const FORGOTTEN: u32 = 16;

/// What all connections share: over which of them something came last.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Number of the connection; 0 is none.
    last: AtomicU64,
    connections: AtomicU64,
}

impl Company {
    /// A call came otherwise than over a connection.
    pub(super) fn datagram(&self) {
        self.last.store(0, Ordering::Relaxed);
    }
}

/// How long one connection has been without company.
#[derive(Debug)]
pub(super) struct Streak {
    connection: u64,
    /// Calls in a row.
    calls: u32,
    /// After how many there is leave.
    needed: u32,
    /// After how many at least.
    least: u32,
}

impl Streak {
    /// Of a further connection.
    pub(super) fn new(company: &Company, least: u32) -> Self {
        let connection = company.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { connection, calls: 0, needed: least, least }
    }

    /// Something came over the connection.
    pub(super) fn received(&mut self, company: &Company) {
        // Who is alone only reads what all share.
        if company.last.load(Ordering::Relaxed) != self.connection {
            company.last.store(self.connection, Ordering::Relaxed);
            self.end();
        }
    }

    /// A call begins. `beside`: others are in progress, or have come with it. Whether it has leave to wait.
    pub(super) fn call(&mut self, beside: bool) -> bool {
        if beside {
            self.end();
            return false;
        }
        self.calls = self.calls.saturating_add(1);
        if self.calls > self.needed.saturating_mul(FORGOTTEN) {
            self.needed = self.least;
        }
        self.calls > self.needed
    }

    /// There is company.
    pub(super) fn end(&mut self) {
        if self.calls > self.needed {
            self.needed = self.needed.saturating_mul(2).min(MOST_CALLS);
        }
        self.calls = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: u32 = 8;

    /// How many calls, one after the other, until there is leave, which then is not taken away.
    fn until_leave(streak: &mut Streak, company: &Company) -> u32 {
        let mut call = || {
            streak.received(company);
            streak.call(false)
        };
        let refused = (0..).take_while(|_| !call()).count();
        assert!((0..10).all(|_| call()));
        refused as u32
    }

    #[test]
    fn who_calls_alone_gets_leave_after_a_while() {
        let company = Company::default();
        let mut one = Streak::new(&company, LEAST);
        assert_eq!(until_leave(&mut one, &company), LEAST);
        assert_eq!(until_leave(&mut one, &company), 0);
    }

    #[test]
    fn any_company_takes_it() {
        let company = Company::default();
        let disturbances: [&dyn Fn(&mut Streak); 4] =
            [&|one| assert!(!one.call(true)), &|one| one.end(), &|_| company.datagram(), &|_| {
                Streak::new(&company, LEAST).received(&company)
            }];
        for disturb in disturbances {
            let mut one = Streak::new(&company, LEAST);
            until_leave(&mut one, &company);
            disturb(&mut one);
            one.received(&company);
            assert!(!one.call(false));
        }
    }

    #[test]
    fn who_is_disturbed_again_and_again_waits_longer_until_that_is_forgotten() {
        let company = Company::default();
        let mut one = Streak::new(&company, LEAST);
        for needed in [8, 16, 32, 64, 128, 256, 512, 1024, 1024] {
            assert_eq!(until_leave(&mut one, &company), needed);
            one.end();
            // Again before there was leave: that costs nobody anything.
            one.call(false);
            one.end();
        }
        for _ in 0..MOST_CALLS * FORGOTTEN {
            one.call(false);
        }
        one.call(false);
        assert_eq!(one.needed, LEAST);
    }

    #[test]
    fn who_comes_once_in_a_hundred_calls_soon_meets_nobody_who_waits() {
        let company = Company::default();
        let (mut busy, mut rare) = (Streak::new(&company, LEAST), Streak::new(&company, LEAST));
        let mut met = 0;
        for _ in 0..100 {
            let mut leave = false;
            for _ in 0..100 {
                busy.received(&company);
                leave = busy.call(false);
            }
            met += u32::from(leave);
            rare.received(&company);
            assert!(!rare.call(false));
        }
        assert!(met <= 5, "{met}");
    }
}
