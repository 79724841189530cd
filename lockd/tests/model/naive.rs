//! The naive model: one cell for each byte, plain loops, nothing merged or ordered cleverly.

use atoll_lockd::{ByteRange, Conflict, LockClient, LockError, LockMode, LockOwner, NlmClient};

/// Cells 0..64 are the bytes 0..64, the last stands for all bytes from 64 to the end of file.
pub(super) const CELLS: usize = 65;
/// Owners 0 and 1 are of one NLM client, 2 and 3 of another, 4 and 5 of one of v4.
pub(super) const OWNERS: usize = 6;

pub(super) type Cells = [Option<LockMode>; CELLS];

pub(super) fn owner(index: usize) -> LockOwner {
    match index {
        0..4 => {
            let client = NlmClient::new(vec![b'A' + (index / 2) as u8], None).unwrap();
            LockOwner::nlm(client, b"host", index as i32).unwrap()
        }
        _ => LockOwner::v4(9, vec![index as u8]).unwrap(),
    }
}

pub(super) fn client_of(index: usize) -> LockClient {
    owner(index).client().clone()
}

/// Cells `first..=last` of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Span {
    pub(super) fn range(self) -> ByteRange {
        let last = if self.last == CELLS - 1 { u64::MAX } else { self.last as u64 };
        ByteRange::inclusive(self.first as u64, last).unwrap()
    }

    pub(super) fn cells(self) -> std::ops::RangeInclusive<usize> {
        self.first..=self.last
    }

    pub(super) fn overlaps(self, other: Span) -> bool {
        self.cells().any(|cell| other.cells().contains(&cell))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub(super) owner: usize,
    pub(super) span: Span,
    pub(super) mode: LockMode,
}

#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) number: u64,
    pub(super) request: Request,
    pub(super) cells: Cells,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) confirmed: [Cells; OWNERS],
    pub(super) grants: Vec<Grant>,
    pub(super) waiters: Vec<Request>,
    pub(super) next: u64,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { confirmed: [[None; CELLS]; OWNERS], grants: Vec::new(), waiters: Vec::new(), next: 0 }
    }

    /// The mode in which `owner` holds `cell`: that of its newest grant there, or what is confirmed.
    pub(super) fn held(&self, owner: usize, cell: usize) -> Option<LockMode> {
        let grants = self.grants.iter().rev().filter(|grant| grant.request.owner == owner);
        grants.filter_map(|grant| grant.cells[cell]).next().or(self.confirmed[owner][cell])
    }

    pub(super) fn holds_any(&self, owner: usize) -> bool {
        (0..CELLS).any(|cell| self.held(owner, cell).is_some())
    }

    /// Whether `other` holds what a request of another owner conflicts with.
    fn blocks(&self, other: usize, request: &Request) -> bool {
        other != request.owner
            && request.span.cells().any(|cell| {
                self.held(other, cell)
                    .is_some_and(|held| held == LockMode::Exclusive || request.mode == LockMode::Exclusive)
            })
    }

    pub(super) fn free_of_holders(&self, request: &Request) -> bool {
        (0..OWNERS).all(|other| !self.blocks(other, request))
    }

    /// Whether the rule of fairness holds a request back: an earlier one conflicts, and its owner holds nothing.
    pub(super) fn must_queue(&self, ahead: &[Request], request: &Request) -> bool {
        !self.holds_any(request.owner)
            && ahead.iter().any(|earlier| {
                earlier.owner != request.owner
                    && earlier.span.overlaps(request.span)
                    && (earlier.mode == LockMode::Exclusive || request.mode == LockMode::Exclusive)
            })
    }

    /// Holdings as maximal runs of one mode.
    pub(super) fn runs(&self, owner: usize) -> Vec<(Span, LockMode)> {
        let mut runs: Vec<(Span, LockMode)> = Vec::new();
        for cell in 0..CELLS {
            let Some(mode) = self.held(owner, cell) else { continue };
            match runs.last_mut() {
                Some((span, last)) if *last == mode && span.last + 1 == cell => span.last = cell,
                _ => runs.push((Span { first: cell, last: cell }, mode)),
            }
        }
        runs
    }

    pub(super) fn conflict(&self, request: &Request) -> Option<Conflict> {
        let mut found: Vec<(usize, LockOwner, Conflict)> = Vec::new();
        for other in (0..OWNERS).filter(|other| *other != request.owner) {
            for (span, mode) in self.runs(other) {
                let exclusive = mode == LockMode::Exclusive || request.mode == LockMode::Exclusive;
                if exclusive && span.overlaps(request.span) {
                    let conflict = Conflict { owner: owner(other), range: span.range(), mode };
                    found.push((span.first, owner(other), conflict));
                }
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        found.into_iter().next().map(|(_, _, conflict)| conflict)
    }

    /// Whether waiting would close a circle: the transitive closure of "waits for what the other holds".
    pub(super) fn deadlock(&self, request: &Request) -> bool {
        let mut waits = [[false; OWNERS]; OWNERS];
        for waiter in self.waiters.iter().chain([request]) {
            for (other, waits) in waits[waiter.owner].iter_mut().enumerate() {
                *waits |= self.blocks(other, waiter);
            }
        }
        for via in 0..OWNERS {
            for from in 0..OWNERS {
                for to in 0..OWNERS {
                    waits[from][to] |= waits[from][via] && waits[via][to];
                }
            }
        }
        // A circle may be there already (two threads of one owner): only what this request waits for counts.
        (0..OWNERS).any(|other| self.blocks(other, request) && waits[other][request.owner])
    }

    pub(super) fn explicit(&mut self, owner: usize, span: Span, mode: Option<LockMode>) {
        for cell in span.cells() {
            self.confirmed[owner][cell] = mode;
            for grant in self.grants.iter_mut().filter(|grant| grant.request.owner == owner) {
                grant.cells[cell] = None;
            }
        }
        self.grants.retain(|grant| grant.cells.iter().any(Option::is_some));
    }

    pub(super) fn lock(&mut self, request: Request, wait: bool) -> Result<Outcome, LockError> {
        let place = self.waiters.iter().position(|waiter| *waiter == request);
        let ahead = &self.waiters[..place.unwrap_or(self.waiters.len())];
        let free = self.free_of_holders(&request);
        if !wait && !free {
            return Ok(Outcome::Denied);
        }
        if wait && (!free || self.must_queue(ahead, &request)) {
            if place.is_none() {
                if self.deadlock(&request) {
                    return Err(LockError::Deadlock);
                }
                if let Some(number) = self.grants.iter().find(|g| g.request == request).map(|g| g.number) {
                    self.acknowledge(number);
                }
                self.waiters.push(request);
            }
            return Ok(Outcome::Blocked);
        }
        self.explicit(request.owner, request.span, Some(request.mode));
        self.waiters.retain(|waiter| *waiter != request);
        Ok(Outcome::Granted)
    }

    pub(super) fn acknowledge(&mut self, number: u64) {
        let index = self.grants.iter().position(|grant| grant.number == number).unwrap();
        let grant = self.grants.remove(index);
        for cell in 0..CELLS {
            if grant.cells[cell].is_none() {
                continue;
            }
            self.confirmed[grant.request.owner][cell] = grant.cells[cell];
            for older in self.grants[..index].iter_mut().filter(|g| g.request.owner == grant.request.owner) {
                older.cells[cell] = None;
            }
        }
        self.grants.retain(|grant| grant.cells.iter().any(Option::is_some));
    }

    pub(super) fn refuse(&mut self, number: u64) {
        self.grants.retain(|grant| grant.number != number);
    }

    /// Grants whoever can be granted, oldest first, in passes from the start until a pass grants nobody.
    pub(super) fn wake(&mut self) -> Vec<(u64, Request)> {
        let mut granted = Vec::new();
        loop {
            let before = granted.len();
            let mut at = 0;
            while at < self.waiters.len() {
                let request = self.waiters[at].clone();
                if !self.free_of_holders(&request) || self.must_queue(&self.waiters[..at], &request) {
                    at += 1;
                    continue;
                }
                self.waiters.remove(at);
                let mut cells = [None; CELLS];
                for cell in request.span.cells() {
                    cells[cell] = Some(request.mode);
                    if request.mode == LockMode::Shared {
                        let own = |g: &&mut Grant| g.request.owner == request.owner;
                        let below = self.grants.iter_mut().filter(own).map(|g| &mut g.cells[cell]);
                        for mode in below.chain([&mut self.confirmed[request.owner][cell]]).flatten() {
                            *mode = LockMode::Shared;
                        }
                    }
                }
                self.grants.push(Grant { number: self.next, request: request.clone(), cells });
                granted.push((self.next, request));
                self.next += 1;
            }
            if granted.len() == before {
                return granted;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Granted,
    Denied,
    Blocked,
}
