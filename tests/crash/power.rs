//! Rounds of load and power cuts on the simulated disk.

use crate::history::{History, Plan};
use crate::{machine, settings};
use std::collections::BTreeMap;

#[test]
fn power() {
    let _turn = settings::turn();
    machine::record_panics();
    let (mut rounds, mut acknowledged, mut resolved) = (0, 0, [0, 0]);
    let mut sites: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in settings::seed().. {
        let mut history = History::new(seed, Plan::default());
        let result = history.run();
        result.unwrap_or_else(|what| panic!("{what}"));
        rounds += history.rounds;
        acknowledged += history.acknowledged();
        for worker in &history.workers {
            resolved[0] += worker.resolved[0];
            resolved[1] += worker.resolved[1];
        }
        for (site, n) in history.disk.sites() {
            *sites.entry(site).or_default() += n;
        }
        println!("seed {seed}: {} operations acknowledged", history.acknowledged());
        if rounds >= settings::power_rounds() {
            break;
        }
    }
    let [done, not] = resolved;
    println!(
        "{rounds} rounds: {acknowledged} operations acknowledged, none lost; of those under way {done} were done, {not} not"
    );
    println!("syncs: {sites:?}");
    assert!(done > 0 && not > 0, "the power never went in the midst of a call");
}
