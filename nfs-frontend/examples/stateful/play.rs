//! Plays a sequence from its beginning to its end.

use crate::client40::Client40;
use crate::client41::Client41;
use crate::dice::{Dice, Sequence};
use crate::old::Old;
use crate::trouble;
use crate::world::{Failed, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Plays it in a world of its own; the number of calls, and what is wrong if anything.
pub(crate) fn play(sequence: &Sequence, tell: bool) -> (u64, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let _former = trouble::take();
    let mut calls = 0;
    let played = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(sequence, tell, &mut calls))));
    let result = match played {
        Ok(result) => result.map_err(|Failed(words)| words),
        Err(_) => Err(format!("{} | ", trouble::take().unwrap_or("panic".into()))),
    };
    (calls, result)
}

struct Clients {
    of_41: [Client41; 3],
    of_40: [Client40; 2],
    old: Old,
}

async fn run(sequence: &Sequence, tell: bool, calls: &mut u64) -> Result<(), Failed> {
    let mut w = World::new(tell).await;
    let mut clients = Clients {
        of_41: [Client41::new("one", 1, 0), Client41::new("two", 2, 0), Client41::new("user", 2, 1000)],
        of_40: [Client40::new("three", 0), Client40::new("four", 0)],
        old: Old::default(),
    };
    for step in sequence {
        let result = one(&mut w, &mut clients, &mut Dice::new(step)).await;
        *calls = w.calls;
        result?;
    }
    w.end().await
}

async fn one(w: &mut World, clients: &mut Clients, d: &mut Dice<'_>) -> Result<(), Failed> {
    let kind = d.below(40);
    match kind {
        0..=13 => {
            let which = d.below(8);
            clients.of_41[which.min(2)].act(w, d).await
        }
        14..=23 => {
            let which = d.below(2);
            clients.of_40[which].act(w, d).await
        }
        24 | 25 => {
            let which = d.below(3);
            clients.of_41[which].repeat_any(w, d).await
        }
        26 => {
            let which = d.below(3);
            clients.of_41[which].break_rules(w, d).await
        }
        27..=29 => clients.old.nfs3(w, d).await,
        30..=32 => clients.old.nlm(w, d).await,
        33 => {
            let which = d.below(3);
            clients.of_41[which].end(w, d).await
        }
        34 => {
            let which = d.below(2);
            clients.of_40[which].end(d);
            Ok(())
        }
        35 | 36 => {
            let seconds = d.pick(&[31, 70, 1, 24 * 3600 + 100]);
            w.pass(Duration::from_secs(seconds)).await;
            trouble::take().map_or(Ok(()), |words| Err(Failed(format!("{words} | while time passes"))))
        }
        37 | 38 => {
            w.restart().await;
            for client in &mut clients.of_41 {
                client.restarted(w).await?;
            }
            Ok(())
        }
        _ => {
            w.fail_next(d);
            Ok(())
        }
    }
}
