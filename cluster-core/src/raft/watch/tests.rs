#![allow(clippy::unwrap_used)]

use super::*;
use futures_util::FutureExt;
use std::hint::{black_box, spin_loop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::task::Wake;
use std::time::Duration;
use tokio::time::timeout;

/// Long enough for a loaded machine; nothing waits so long that works.
const PATIENCE: Duration = Duration::from_secs(60);

fn channel<T: Send + Sync>(init: T) -> (GroupSender<T>, GroupReceiver<T>) {
    GroupWatch::channel(init)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future>(future: Pin<&mut F>, count: &Arc<Count>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&count.clone().into()))
}

/// What `changed` gives at once.
fn now<T: Send + Sync>(rx: &mut GroupReceiver<T>) -> Option<Result<(), RecvError>> {
    rx.changed().now_or_never()
}

fn in_list<T>(shared: &Shared<T>) -> usize {
    let waiting = shared.waiting();
    let flag = shared.state.load(Ordering::SeqCst) & WAITED_FOR != 0;
    assert_eq!(flag, !waiting.wakers.is_empty());
    waiting.wakers.len()
}

#[test]
fn the_first_value_counts_as_seen_and_later_ones_do_once_they_were_waited_for() {
    let (tx, mut rx) = channel(1);
    assert!(*rx.borrow_watched() == 1 && now(&mut rx).is_none());
    tx.send(2).unwrap();
    // To look does not mark it.
    assert!(*rx.borrow_watched() == 2 && *tx.borrow_watched() == 2);
    assert_eq!(now(&mut rx), Some(Ok(())));
    assert!(now(&mut rx).is_none());
    tx.send(3).unwrap();
    tx.send(4).unwrap();
    assert_eq!(*rx.borrow_and_update(), 4);
    assert!(now(&mut rx).is_none());
}

#[test]
fn each_receiver_has_seen_what_it_has_seen_and_a_copy_what_the_original_had() {
    let (tx, mut rx) = channel(1);
    let mut before = rx.clone();
    tx.send(2).unwrap();
    let mut copy = rx.clone();
    let mut later = tx.subscribe();
    assert_eq!(now(&mut rx), Some(Ok(())));
    assert_eq!(now(&mut before), Some(Ok(())));
    assert_eq!(now(&mut copy), Some(Ok(())));
    assert!(now(&mut later).is_none());
    let mut copy = rx.clone();
    assert!(now(&mut copy).is_none());
}

#[test]
fn the_end_of_the_last_sender_is_an_error_after_its_last_value() {
    let (tx, mut rx) = channel(1);
    let other = tx.clone();
    let count = Arc::<Count>::default();
    let mut waits = rx.clone();
    let mut changed = pin!(waits.changed());
    assert!(poll(changed.as_mut(), &count).is_pending());
    drop(tx);
    assert!(count.get() == 0 && now(&mut rx).is_none());
    other.send(2).unwrap();
    drop(other);
    assert_eq!(count.get(), 1);
    assert_eq!(poll(changed, &count), Poll::Ready(Ok(())));
    for rx in [&mut rx.clone(), &mut rx] {
        assert_eq!(now(rx), Some(Ok(())));
        assert_eq!(now(rx), Some(Err(RecvError(()))));
        assert!(now(rx) == Some(Err(RecvError(()))) && *rx.borrow_watched() == 2);
    }
}

#[test]
fn who_waits_is_woken_by_the_end_of_the_last_sender() {
    let (tx, mut rx) = channel(1);
    let count = Arc::<Count>::default();
    let mut changed = pin!(rx.changed());
    assert!(poll(changed.as_mut(), &count).is_pending());
    drop(tx);
    assert_eq!(count.get(), 1);
    assert_eq!(poll(changed, &count), Poll::Ready(Err(RecvError(()))));
}

#[test]
fn nothing_is_sent_if_nobody_receives_until_somebody_does() {
    let (tx, rx) = channel(1);
    let other = rx.clone();
    drop(rx);
    tx.send(2).unwrap();
    drop(other);
    assert_eq!(tx.send(3).map_err(|e| e.0), Err(3));
    assert_eq!(*tx.borrow_watched(), 2);
    // To modify it needs nobody.
    assert!(tx.send_if_modified(|value| std::mem::replace(value, 4) == 2));
    let mut rx = tx.subscribe();
    assert!(now(&mut rx).is_none() && *rx.borrow_watched() == 4);
    tx.send(5).unwrap();
    assert_eq!(now(&mut rx), Some(Ok(())));
}

#[test]
fn only_what_is_said_to_be_modified_is_told() {
    let (tx, mut rx) = channel(1);
    let count = Arc::<Count>::default();
    let mut other = rx.clone();
    let mut changed = pin!(other.changed());
    assert!(poll(changed.as_mut(), &count).is_pending());
    let silently = tx.send_if_modified(|value| {
        *value = 2;
        false
    });
    assert!(!silently && now(&mut rx).is_none() && *rx.borrow_watched() == 2 && count.get() == 0);
    assert!(tx.send_if_different(3) && !tx.send_if_different(3));
    assert!(tx.send_if_greater(4) && !tx.send_if_greater(4));
    assert_eq!(now(&mut rx), Some(Ok(())));
    assert!(now(&mut rx).is_none() && count.get() == 1);
    assert_eq!(poll(changed, &count), Poll::Ready(Ok(())));
}

#[test]
fn a_panic_of_who_modifies_it_harms_nobody_else() {
    let (tx, mut rx) = channel(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tx.send_if_modified(|value| {
            *value = 2;
            panic!("wanted by the test");
        })
    }));
    assert!(panicked.is_err() && now(&mut rx).is_none());
    assert!(*rx.borrow_watched() == 2 && *tx.borrow_watched() == 2);
    tx.send(3).unwrap();
    assert!(now(&mut rx) == Some(Ok(())) && *rx.borrow_and_update() == 3);
    assert!(tx.send_if_different(4));
}

#[test]
fn all_who_wait_are_woken_once() {
    let (tx, rx) = channel(1);
    for waiting in [1, 2, 5] {
        let mut all: Vec<_> = (0..waiting).map(|_| (rx.clone(), Arc::<Count>::default())).collect();
        let mut futures: Vec<_> =
            all.iter_mut().map(|(rx, count)| (Box::pin(rx.changed()), count.clone())).collect();
        tx.send_if_modified(|_| true);
        // What is new to them they need not wait for.
        for (future, count) in &mut futures {
            assert_eq!(poll(future.as_mut(), count), Poll::Ready(Ok(())));
        }
        drop(futures);
        let mut futures: Vec<_> =
            all.iter_mut().map(|(rx, count)| (Box::pin(rx.changed()), count.clone())).collect();
        for (future, count) in &mut futures {
            assert!(poll(future.as_mut(), count).is_pending());
        }
        assert_eq!(in_list(&tx.0), waiting);
        tx.send_if_modified(|_| true);
        assert_eq!(in_list(&tx.0), 0);
        tx.send_if_modified(|_| true);
        for (mut future, count) in futures {
            assert_eq!(count.get(), 1);
            assert_eq!(poll(future.as_mut(), &count), Poll::Ready(Ok(())));
        }
        for (rx, _) in &mut all {
            assert!(now(rx).is_none());
        }
    }
}

#[test]
fn what_is_sent_between_a_look_and_the_wait_is_not_missed() {
    let (tx, mut rx) = channel(1);
    let count = Arc::<Count>::default();
    let waker = count.clone().into();
    {
        let mut changed = Changed { shared: &rx.shared, version: &mut rx.version, ticket: None };
        let looked = changed.shared.state.load(Ordering::SeqCst);
        tx.send(2).unwrap();
        assert_eq!(changed.poll_after(looked, &waker), Poll::Ready(Ok(())));
    }
    assert!(in_list(&tx.0) == 0 && now(&mut rx).is_none());
    let mut changed = Changed { shared: &rx.shared, version: &mut rx.version, ticket: None };
    let looked = changed.shared.state.load(Ordering::SeqCst);
    drop(tx);
    assert_eq!(changed.poll_after(looked, &waker), Poll::Ready(Err(RecvError(()))));
    assert_eq!(count.get(), 0);
}

#[test]
fn it_is_the_last_waker_that_is_woken() {
    let (tx, mut rx) = channel(1);
    let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
    let mut changed = pin!(rx.changed());
    for count in [&first, &first, &second, &second] {
        assert!(poll(changed.as_mut(), count).is_pending());
        assert_eq!(in_list(&tx.0), 1);
    }
    assert_eq!(Arc::strong_count(&first), 1);
    tx.send(2).unwrap();
    assert!(first.get() == 0 && second.get() == 1);
}

#[test]
fn who_waits_no_more_is_forgotten_and_others_are_not() {
    let (tx, rx) = channel(1);
    let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
    let (mut one, mut two) = (rx.clone(), rx.clone());
    let mut remains = pin!(two.changed());
    {
        let mut leaves = pin!(one.changed());
        assert!(poll(leaves.as_mut(), &first).is_pending());
        assert!(poll(remains.as_mut(), &second).is_pending());
        assert_eq!(in_list(&tx.0), 2);
    }
    assert!(in_list(&tx.0) == 1 && Arc::strong_count(&first) == 1);
    tx.send(2).unwrap();
    assert!(first.get() == 0 && second.get() == 1);
    assert!(now(&mut tx.subscribe()).is_none() && in_list(&tx.0) == 0);
}

/// Uses the channel when it is woken, and once more when it is dropped.
struct ComesBack(GroupSender<u64>);

impl Wake for ComesBack {
    fn wake(self: Arc<Self>) {
        self.0.send_if_modified(|value| {
            *value += 1;
            true
        });
    }
}

impl Drop for ComesBack {
    fn drop(&mut self) {
        assert!(now(&mut self.0.subscribe()).is_none());
        self.0.send_if_modified(|value| {
            *value += 100;
            true
        });
    }
}

#[test]
fn a_waker_may_use_the_channel_while_it_is_woken_or_dropped() {
    let (tx, rx) = channel(0);
    let waker = || Waker::from(Arc::new(ComesBack(tx.clone())));
    let mut receivers = [rx.clone(), rx.clone(), rx.clone()];
    let mut futures: Vec<_> = receivers.iter_mut().map(|rx| Box::pin(rx.changed())).collect();
    for future in &mut futures {
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    }
    // Replaced, and with that dropped: what it sends wakes the one in its place, and the others.
    let count = Arc::<Count>::default();
    assert!(poll(futures[0].as_mut(), &count).is_pending());
    assert_eq!(count.get(), 1);
    assert_eq!(*rx.borrow_watched(), 100 + 2 * 101);
    // Dropped with who waited.
    let mut rx = tx.subscribe();
    let mut changed = Box::pin(rx.changed());
    assert!(changed.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    drop(changed);
    assert_eq!(*tx.borrow_watched(), 2 * 100 + 2 * 101);
}

/// Two threads meet here, and go on within a few cycles of each other.
#[derive(Default)]
struct Meeting {
    arrived: AtomicUsize,
    is_over: AtomicBool,
}

impl Meeting {
    /// `nth`: how often, with this time. Whether both have come.
    fn meet(&self, nth: usize) -> bool {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0u32;
        while self.arrived.load(Ordering::SeqCst) < 2 * nth {
            if self.is_over.load(Ordering::Relaxed) {
                return false;
            }
            spins += 1;
            if spins.is_multiple_of(256) { std::thread::yield_now() } else { spin_loop() }
        }
        true
    }
}

/// The other side need not wait for one that has panicked.
struct Over<'a>(&'a Meeting);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// Brings two sides to the same moment: who has been too early waits longer the next time, by a few cycles.
#[derive(Default)]
struct Aim(AtomicI32);

impl Aim {
    /// Waits, if this side is to be the later one.
    fn wait(&self, is_sender: bool) {
        let ahead = self.0.load(Ordering::Relaxed);
        for n in 0..if is_sender { ahead } else { -ahead } {
            black_box(n);
        }
    }

    fn adjust(&self, sender_was_first: bool) {
        self.0.fetch_add(if sender_was_first { 1 } else { -1 }, Ordering::Relaxed);
    }
}

/// One thread sends while another begins to wait. Decided each time, without a clock: what was sent is seen at once, or who
/// waits has been woken when both have done their part.
#[test]
fn what_is_sent_while_somebody_begins_to_wait_is_seen_or_wakes_him() {
    const ROUNDS: usize = 20_000;
    let (tx, rx) = &channel(0);
    let meeting = &Meeting::default();
    let aims = &<[Aim; 3]>::default();
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let _over = Over(meeting);
            for round in 1..=ROUNDS {
                if !meeting.meet(2 * round - 1) {
                    return;
                }
                aims[round % 3].wait(true);
                tx.send(round).unwrap();
                if !meeting.meet(2 * round) {
                    return;
                }
            }
        });
        let _over = Over(meeting);
        let (mut rx, mut another) = (rx.clone(), rx.clone());
        for round in 1..=ROUNDS {
            let [count, anew, other] = [(); 3].map(|()| Arc::<Count>::default());
            drop(another.borrow_and_update());
            let mut leaves = Box::pin(another.changed());
            // In turn: nobody else, one who goes on waiting, and one who ceases to just then.
            if round % 3 != 0 {
                assert!(poll(leaves.as_mut(), &other).is_pending());
            }
            let mut changed = Box::pin(rx.changed());
            assert!(meeting.meet(2 * round - 1));
            aims[round % 3].wait(false);
            let mut leaves = (round % 3 != 2).then_some(leaves);
            let at_once = poll(changed.as_mut(), &count);
            aims[round % 3].adjust(at_once.is_ready());
            if at_once.is_ready() {
                // And waits for the next, perhaps while the sender is not done with this one.
                drop(changed);
                changed = Box::pin(rx.changed());
                assert!(poll(changed.as_mut(), &anew).is_pending());
            }
            assert!(meeting.meet(2 * round));
            if at_once.is_pending() {
                assert_eq!(count.get(), 1, "round {round}");
                assert_eq!(poll(changed.as_mut(), &count), Poll::Ready(Ok(())));
            } else {
                assert_eq!(at_once, Poll::Ready(Ok(())));
                // Woken in vain, or waiting still.
                assert_eq!(in_list(&tx.0), 1 - anew.get(), "round {round}");
                assert!(poll(changed.as_mut(), &anew).is_pending());
            }
            if let Some(leaves) = leaves.as_mut() {
                assert!(round % 3 == 0 || other.get() == 1, "round {round}");
                assert_eq!(poll(leaves.as_mut(), &other), Poll::Ready(Ok(())));
            }
            assert_eq!(*tx.borrow_watched(), round);
        }
        sender.join().unwrap();
    });
}

/// Tasks in a ring, each of which hands on what it gets as soon as it gets it. It stands still for ever if one wake-up is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_handed_round_comes_back_each_time() {
    const TASKS: usize = 5;
    const LAPS: u64 = 2000;
    let (stop, stopped) = channel(());
    let (first, mut from) = channel(0u64);
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (to, next) = channel(0u64);
        let mut stopped = stopped.clone();
        let mut from = std::mem::replace(&mut from, next);
        tasks.push(tokio::spawn(async move {
            loop {
                // As openraft does: waiting that is begun anew each time, and seldom comes to its end.
                tokio::select! {
                    changed = from.changed() => if changed.is_err() { break },
                    _ = stopped.changed() => break,
                }
                let value = *from.borrow_watched();
                to.send_if_greater(value);
            }
        }));
    }
    let laps = async {
        for lap in 1..=LAPS {
            first.send(lap).unwrap();
            assert_eq!(from.wait_until_ge(&lap).await, Ok(lap));
        }
    };
    timeout(PATIENCE, laps).await.unwrap();
    assert!(in_list(&stop.0) <= TASKS);
    drop(stop);
    for task in tasks {
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }
}

/// Several send, several wait, each at its own pace; all of them see the last value, and none an older one after a newer.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn all_who_wait_come_to_the_last_value() {
    const SENDERS: u64 = 3;
    const EACH: u64 = 2000;
    let (tx, rx) = channel(0u64);
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let mut rx = rx.clone();
            tokio::spawn(async move {
                let mut last = 0;
                while last < SENDERS * EACH {
                    rx.changed().await.unwrap();
                    let now = *rx.borrow_and_update();
                    assert!(now > last);
                    last = now;
                }
                rx.changed().await
            })
        })
        .collect();
    let sending: Vec<_> = (0..SENDERS)
        .map(|_| {
            let tx = tx.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    tx.send_if_modified(|value| {
                        *value += 1;
                        true
                    });
                    if n % 4 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for task in sending {
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    drop(tx);
    for task in waiting {
        assert_eq!(timeout(PATIENCE, task).await.unwrap().unwrap(), Err(RecvError(())));
    }
}
