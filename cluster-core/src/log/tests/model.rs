//! The log with its threads against a naive one, with reopenings.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Append(Vec<usize>),
    Vote(u8),
    Truncate(prop::sample::Index),
    Purge(prop::sample::Index),
    PurgeBeyond(u64),
    Reopen,
    PowerCut(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let size = prop_oneof![Just(0usize), 1..300usize, 4000..6000usize];
    prop_oneof![
        10 => prop::collection::vec(size, 1..6).prop_map(Act::Append),
        2 => any::<u8>().prop_map(Act::Vote),
        2 => any::<prop::sample::Index>().prop_map(Act::Truncate),
        2 => any::<prop::sample::Index>().prop_map(Act::Purge),
        1 => (1..20u64).prop_map(Act::PurgeBeyond),
        1 => Just(Act::Reopen),
        1 => any::<u64>().prop_map(Act::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_log_is_what_a_vector_is(acts in prop::collection::vec(act(), 1..60)) {
        let mut sim = SimDisk::new();
        let mut wal = Wal::open(disk(&sim), dir(), config()).unwrap();
        let mut model = View::default();
        let mut term = 1;
        for act in acts {
            let places: Vec<EntryId> =
                model.purged.into_iter().chain(model.entries.iter().map(|e| e.id)).collect();
            let steps = match &act {
                Act::Append(sizes) => {
                    let first = model.last.map_or(1, |last| last.index + 1);
                    let entries = sizes.iter().zip(first..);
                    entries.map(|(size, index)| Step::Entry(entry(term, index, &[*size, 1]))).collect()
                }
                Act::Vote(vote) => vec![Step::Vote(Bytes::from(vec![*vote]))],
                Act::Truncate(at) => {
                    term += 1;
                    vec![Step::Truncate(if places.is_empty() { None } else { Some(*at.get(&places)) })]
                }
                Act::Purge(at) if !places.is_empty() => vec![Step::Purge(*at.get(&places))],
                Act::PurgeBeyond(by) => {
                    vec![Step::Purge(id(term, model.last.map_or(0, |last| last.index) + by))]
                }
                Act::Reopen | Act::PowerCut(_) | Act::Purge(_) => vec![],
            };
            match steps.first() {
                Some(Step::Entry(_)) => {
                    let entries = steps.iter().filter_map(|step| match step {
                        Step::Entry(entry) => Some(entry.clone()),
                        _ => None,
                    });
                    wait(|done| wal.append(entries.collect(), done)).unwrap();
                }
                Some(Step::Vote(vote)) => wait(|done| wal.save_vote(vote.clone(), done)).unwrap(),
                Some(Step::Truncate(last)) => wait(|done| wal.truncate_after(*last, done)).unwrap(),
                Some(Step::Purge(upto)) => wait(|done| wal.purge(*upto, done)).unwrap(),
                None => {}
            }
            steps.iter().for_each(|step| model.apply(step));
            if let Act::PowerCut(seed) = act {
                sim = sim.crash(seed);
            }
            if let Act::Reopen | Act::PowerCut(_) = act {
                drop(wal);
                wal = Wal::open(disk(&sim), dir(), config()).unwrap();
            }
            prop_assert!(view(&wal).unwrap() == model);
            prop_assert!(wal.status().cache_bytes <= 3 * config().cache_bytes as u64);
        }
    }
}
