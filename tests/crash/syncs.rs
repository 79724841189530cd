//! Without any one of the syncs something is lost, and the campaign sees it.

use crate::choice::Mix;
use crate::history::{History, How, Plan, When};
use crate::{machine, settings};
use atoll_base::disk::sim::Malice;
use std::time::{Duration, Instant};

/// Histories in which the loss must show.
const CHANCES: u64 = 120;

/// What makes the loss of this sync show soonest.
fn plan(site: &str) -> Plan {
    let any = Plan::default();
    let malice = Some(Malice { loose_entries: true, cut_writes: true });
    match site {
        // Made once and synced once; what is synced later in the same directory hides the loss.
        "dir.identity.entry" | "dir.identity.file" | "blocks.root" | "meta.format" | "meta.dir" => {
            Plan { lives: 2, ends: vec![(When::Start, How::Power)], malice, ..any }
        }
        "node.meta" | "wal.recover.parent" => {
            Plan { lives: 1, ends: vec![(When::Load, How::Power)], malice, ..any }
        }
        "wal.recover.dir" => Plan {
            lives: 4,
            ends: vec![(When::Site("wal.segment.dir", 5), How::Killed), (When::Load, How::Power)],
            delay: Some(Duration::from_millis(400)),
            malice,
            ..any
        },
        "wal.recover.file" => {
            Plan { ends: vec![(When::Load, How::Killed), (When::Load, How::Power)], malice, ..any }
        }
        "blocks.remove" | "blocks.reseal" | "blocks.seal" => {
            Plan { malice, mix: Mix { large: 25, ..Mix::default() }, ..any }
        }
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
