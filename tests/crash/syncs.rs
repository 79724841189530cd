//! Without any one of the syncs something is lost, and the campaign sees it.

use crate::choice::Mix;
use crate::history::{History, How, Plan, When};
use crate::slow::Delays;
use crate::{machine, settings};
use atoll_base::disk::sim::Malice;
use std::time::{Duration, Instant};

/// Histories in which the loss must show.
const CHANCES: u64 = 120;

/// Syncs whose loss the whole server makes up for, or shows too rarely: the campaigns of their own crates show it.
const ELSEWHERE: [(&str, &str); 3] = [
    ("blocks.root", "node.meta syncs the same directory before anything is acknowledged"),
    ("blocks.remove", "blocks that come back have no reference, and the next start collects them"),
    (
        "wal.recover.file",
        "needs a write of several records cut between them, and no purge until the power goes",
    ),
];

/// Takes a minute or more, so only the long form does it.
const RARE: &str = "wal.recover.dir";

/// What makes the loss of this sync show soonest.
fn plan(site: &str) -> Plan {
    let any = Plan::default();
    let malice = Some(Malice { loose_entries: true, cut_writes: true });
    match site {
        // Made once and synced once; what is synced later in the same directory hides the loss.
        "dir.identity.entry" | "dir.identity.file" | "meta.format" | "meta.dir" => {
            Plan { lives: 2, ends: vec![(When::Start, How::Power)], malice, ..any }
        }
        "node.meta" | "wal.recover.parent" => {
            Plan { lives: 1, ends: vec![(When::Load, How::Power)], malice, ..any }
        }
        // A process died before the sync of the second spare segment's name. The log comes to use it before a third is made.
        "wal.recover.dir" => Plan {
            lives: 2,
            ends: vec![
                (When::Site("wal.segment.dir", 2, 3), How::Killed),
                (When::Site("state.commit", 7, 15), How::Power),
            ],
            delays: Some((How::Power, Delays { segment: Duration::from_secs(4), ..Delays::default() })),
            malice,
            mix: Mix { large: 0, commits: 1, unstable: 0 },
            ..any
        },
        // Blocks are torn, then found torn, then new ones are written.
        "blocks.reseal" => Plan {
            lives: 8,
            ends: vec![(When::Site("blocks.append", 0, 6), How::Power)],
            malice,
            mix: Mix { large: 35, ..Mix::default() },
            ..any
        },
        // A segment was sealed in peace, then the power went.
        "blocks.seal" => Plan {
            lives: 8,
            ends: vec![(When::Peace, How::Power)],
            malice,
            mix: Mix { large: 35, ..Mix::default() },
            ..any
        },
        _ => any,
    }
}

#[test]
fn each_sync_is_needed() {
    let _turn = settings::turn();
    machine::record_panics();
    let mut whole = History::new(settings::seed(), Plan::default());
    whole.run().unwrap_or_else(|what| panic!("{what}"));
    let only = std::env::var("ATOLL_CRASH_SITES").ok();
    let mut unnoticed = Vec::new();
    for site in whole.disk.sites().keys() {
        if only.as_ref().is_some_and(|only| !only.split(',').any(|o| o == *site)) {
            continue;
        }
        if let Some((_, why)) = ELSEWHERE.iter().find(|(elsewhere, _)| elsewhere == site) {
            println!("{site} is left to the tests of its crate: {why}");
            continue;
        }
        if *site == RARE && only.is_none() && !settings::is_long() {
            println!("{site} is left to the long form");
            continue;
        }
        let began = Instant::now();
        let seen = (1..=CHANCES).find_map(|seed| {
            let mut history = History::new(seed, plan(site));
            history.disk.skip_site(site);
            history.run().err().map(|what| (seed, what))
        });
        match seen {
            Some((n, what)) => {
                println!("without {site}: after {n} histories, {:.0?}: {what}", began.elapsed())
            }
            None => unnoticed.push(*site),
        }
    }
    assert!(unnoticed.is_empty(), "nothing is lost without the syncs of {unnoticed:?}");
}
