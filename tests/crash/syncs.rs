//! Without any one of the syncs something is lost, and the campaign sees it.

use crate::choice::Mix;
use crate::history::{History, How, Plan, When};
use crate::slow::Delays;
use crate::{machine, settings};
use atoll_base::disk::sim::Malice;
use std::time::{Duration, Instant};

/// Histories in which the loss must show.
const CHANCES: u64 = 120;

/// Syncs whose loss no history of the whole server can show, with the reason: the campaigns of their own crates show it.
const ELSEWHERE: [(&str, &str); 1] = [(
    "blocks.root",
    "a node makes `blocks` and then `meta` in the same directory, and node.meta syncs that directory before anything is \
     acknowledged; a block store does not know what its caller syncs",
)];

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
        // A process died in the midst of a write of several records: those that are whole count, and the segment takes no more,
        // so no later sync makes up for this one. Then the power goes before the segment is purged. (The first groups of segments have a site of their own.)
        "wal.recover.file" => Plan {
            lives: 8,
            ends: vec![(When::Group(1, 20), How::Killed), (When::Site("wal.append", 0, 4), How::Power)],
            delays: Some((How::Killed, Delays { append: Duration::from_millis(3), ..Delays::default() })),
            malice,
            mix: Mix { large: 0, commits: 1, unstable: 0 },
            clients: 12,
        },
        // A segment was sealed in peace, then the power went.
        "blocks.seal" => Plan {
            lives: 8,
            ends: vec![(When::Peace, How::Power)],
            malice,
            mix: Mix { large: 35, ..Mix::default() },
            ..any
        },
        // A segment went, its file became another, and the power goes before that is synced, or anything in it: the file has one name and the other's header.
        "blocks.remove" => Plan {
            lives: 12,
            // In between all goes as it should, and there is more that can go.
            ends: vec![(When::Site("blocks.create", 1, 6), How::Power), (When::Rest, How::Power)],
            malice,
            mix: Mix { large: 35, ..Mix::default() },
            ..any
        },
        "blocks.reuse" => Plan {
            lives: 12,
            ends: vec![(When::Site("blocks.create", 1, 6), How::Power)],
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
        if let Some((_, why)) = ELSEWHERE.iter().find(|(elsewhere, _)| elsewhere == site)
            && only.is_none()
        {
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
                // With the sync the same goes well: it was its loss that was seen.
                History::new(n, plan(site)).run().unwrap_or_else(|what| panic!("with {site}: {what}"));
                println!("without {site}: after {n} histories, {:.0?}: {what}", began.elapsed())
            }
            None => unnoticed.push(*site),
        }
    }
    assert!(unnoticed.is_empty(), "nothing is lost without the syncs of {unnoticed:?}");
}
