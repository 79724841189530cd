//! Share reservations: the rules of NLM SHARE and of OPEN, and all operations against a naive list.

#![allow(clippy::unwrap_used)]

use atoll_lockd::ShareBits::{Both, None as Nothing, Read, Write};
use atoll_lockd::limits::MAX_SHARES_PER_FILE;
use atoll_lockd::{
    Bound, ClientMatch, FileLocks, LockOwner, NlmClient, OpenCounts, Released, Share, ShareBits,
    ShareConflict, ShareError,
};
use proptest::prelude::*;

fn owner(n: u32) -> LockOwner {
    let client = NlmClient::new(vec![b'a' + (n % 2) as u8], None).unwrap();
    LockOwner::nlm(client, &n.to_be_bytes(), 0).unwrap()
}

fn share(access: ShareBits, deny: ShareBits) -> Share {
    Share { access, deny }
}

#[test]
fn access_and_deny_conflict_both_ways() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Read, Write)).unwrap();
    for (access, deny, granted) in [
        (Read, Nothing, true),
        (Read, Write, true),
        (Write, Nothing, false), // the holder denies it
        (Read, Read, false),     // the holder has it
        (Nothing, Nothing, true),
    ] {
        let outcome = table.clone().share(owner(1), share(access, deny));
        assert_eq!(outcome.is_ok(), granted, "{access:?} {deny:?}");
        if let Err(ShareError::Conflict(conflict)) = outcome {
            assert_eq!((conflict.owner, conflict.share), (Some(owner(0)), share(Read, Write)));
        }
    }
}

#[test]
fn nlm_replaces_its_own() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Both, Both)).unwrap();
    table.share(owner(0), share(Read, Nothing)).unwrap();
    assert_eq!(table.shares().get(&owner(0)), Some(share(Read, Nothing)));
    assert_eq!(table.unshare(&owner(0)), Some(share(Read, Nothing)));
    assert_eq!(table.unshare(&owner(0)), None);
    assert!(table.is_empty());
}

#[test]
fn an_open_conflicts_with_its_own_former_one_too() {
    let mut table = FileLocks::new(0);
    assert_eq!(table.open(None, share(Nothing, Nothing)), Err(ShareError::NoAccess));
    let held = table.open(None, share(Read, Nothing)).unwrap();
    let held = table.open(Some(held), share(Write, Nothing)).unwrap();
    assert_eq!(held, share(Both, Nothing));
    // RFC 7530 §9.9.
    let together = ShareConflict { owner: None, share: held };
    assert_eq!(table.open(Some(held), share(Read, Write)), Err(ShareError::Conflict(together)));
    assert_eq!(table.shares().opens().opens, 1);
}

#[test]
fn opens_and_nlm_see_each_other() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Read, Write)).unwrap();
    assert!(matches!(table.open(None, share(Write, Nothing)), Err(ShareError::Conflict(_))));
    table.open(None, share(Read, Nothing)).unwrap();
    let refused = table.share(owner(1), share(Read, Read));
    let opens = ShareConflict { owner: None, share: share(Read, Nothing) };
    assert!(matches!(refused, Err(ShareError::Conflict(conflict)) if conflict.owner == Some(owner(0))));
    table.unshare(&owner(0));
    assert_eq!(table.share(owner(1), share(Read, Read)), Err(ShareError::Conflict(opens)));
}

#[test]
fn a_downgrade_only_takes_away() {
    let mut table = FileLocks::new(0);
    let held = table.open(None, share(Both, Write)).unwrap();
    assert_eq!(table.downgrade_open(held, share(Read, Both)), Err(ShareError::NotHeld));
    assert_eq!(table.downgrade_open(held, share(Nothing, Write)), Err(ShareError::NoAccess));
    assert_eq!(table.downgrade_open(held, share(Read, Nothing)), Ok(()));
    assert!(table.open(None, share(Both, Nothing)).is_ok());
    assert_eq!(table.close_open(share(Read, Read)), Err(ShareError::NotHeld));
    table.close_open(share(Read, Nothing)).unwrap();
    table.close_open(share(Both, Nothing)).unwrap();
    assert!(table.is_empty());
}

#[test]
fn access_without_an_open_is_tested_against_all() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Read, Write)).unwrap();
    let write = share(Write, Nothing);
    assert_eq!(table.shares().conflict(None, write).unwrap().owner, Some(owner(0)));
    assert_eq!(table.shares().conflict(Some(&owner(0)), write), None);
}

#[test]
fn shares_are_bounded() {
    let mut table = FileLocks::new(0);
    for n in 0..MAX_SHARES_PER_FILE as u32 {
        table.share(owner(n), share(Read, Nothing)).unwrap();
    }
    let one_more = table.share(owner(u32::MAX), share(Read, Nothing));
    assert_eq!(one_more, Err(ShareError::TooMany(Bound::SharesPerFile)));
    assert!(table.share(owner(0), share(Both, Nothing)).is_ok(), "no new one");
}

fn bits() -> impl Strategy<Value = ShareBits> {
    (0_u32..4).prop_map(|bits| ShareBits::from_wire(bits).unwrap())
}

/// Who has a reservation: NLM owners by number, and opens in a list.
#[derive(Default)]
struct Naive {
    nlm: Vec<(u32, u32, u32)>,
    opens: Vec<(u32, u32)>,
}

impl Naive {
    fn clash(&self, except: Option<u32>, a: u32, d: u32) -> bool {
        let nlm = self.nlm.iter().filter(|(who, ..)| Some(*who) != except).map(|(_, a, d)| (*a, *d));
        nlm.chain(self.opens.iter().copied()).any(|(oa, od)| a & od != 0 || d & oa != 0)
    }

    fn counts(&self) -> OpenCounts {
        let n = |f: fn(&(u32, u32)) -> bool| self.opens.iter().filter(|open| f(open)).count() as u32;
        OpenCounts {
            opens: self.opens.len() as u32,
            read: n(|(a, _)| a & 1 != 0),
            write: n(|(a, _)| a & 2 != 0),
            deny_read: n(|(_, d)| d & 1 != 0),
            deny_write: n(|(_, d)| d & 2 != 0),
        }
    }
}

fn of(bits: (u32, u32)) -> Share {
    share(ShareBits::from_wire(bits.0).unwrap(), ShareBits::from_wire(bits.1).unwrap())
}

proptest! {
    #[test]
    fn no_one_has_what_another_denies(
        ops in prop::collection::vec((0_u32..5, 0_u32..9, bits(), bits()), 1..60)
    ) {
        let mut table = FileLocks::new(0);
        let mut naive = Naive::default();
        for (who, what, access, deny) in ops {
            let (a, d) = (access.to_wire(), deny.to_wire());
            let nth = who as usize % naive.opens.len().max(1);
            let open = naive.opens.get(nth).copied();
            match what {
                0..=1 => {
                    let expected = !naive.clash(Some(who), a, d);
                    prop_assert_eq!(table.share(owner(who), share(access, deny)).is_ok(), expected);
                    if expected {
                        naive.nlm.retain(|(other, ..)| *other != who);
                        naive.nlm.push((who, a, d));
                    }
                }
                2..=4 => {
                    let former = open.filter(|_| what == 4);
                    let expected = a != 0 && !naive.clash(None, a, d);
                    let outcome = table.open(former.map(of), share(access, deny));
                    prop_assert_eq!(outcome.is_ok(), expected);
                    match (expected, former) {
                        (true, Some((fa, fd))) => naive.opens[nth] = (fa | a, fd | d),
                        (true, None) => naive.opens.push((a, d)),
                        (false, _) => {}
                    }
                }
                5 => if let Some((fa, fd)) = open {
                    let within = a & !fa == 0 && d & !fd == 0 && a != 0;
                    prop_assert_eq!(table.downgrade_open(of((fa, fd)), share(access, deny)).is_ok(), within);
                    if within {
                        naive.opens[nth] = (a, d);
                    }
                },
                6 => if let Some(held) = open {
                    prop_assert_eq!(table.close_open(of(held)), Ok(()));
                    naive.opens.remove(nth);
                },
                7 => {
                    let held = naive.nlm.iter().any(|(other, ..)| *other == who);
                    prop_assert_eq!(table.unshare(&owner(who)).is_some(), held);
                    naive.nlm.retain(|(other, ..)| *other != who);
                }
                _ => {
                    let which = ClientMatch::Client(owner(who).client().clone());
                    let shares = naive.nlm.iter().filter(|(other, ..)| other % 2 == who % 2).count();
                    prop_assert_eq!(table.concerns(&which), shares > 0);
                    let released = table.release_client(&which, &mut Vec::new());
                    prop_assert_eq!(released, Released { ranges: 0, waiters: 0, shares });
                    naive.nlm.retain(|(other, ..)| other % 2 != who % 2);
                }
            }
            naive.nlm.sort_unstable();
            let held: Vec<_> = table.shares().iter().map(|(o, s)| (o.clone(), s.access.to_wire(), s.deny.to_wire())).collect();
            let mut expected: Vec<_> = naive.nlm.iter().map(|(who, a, d)| (owner(*who), *a, *d)).collect();
            expected.sort_unstable();
            prop_assert_eq!(held, expected);
            prop_assert_eq!(table.shares().opens(), naive.counts());
            prop_assert_eq!(table.is_empty(), naive.nlm.is_empty() && naive.opens.is_empty());
            prop_assert_eq!(table.verify(), Ok(()));
            let stored = postcard::to_stdvec(&table).unwrap();
            prop_assert_eq!(postcard::from_bytes::<FileLocks>(&stored).unwrap(), table.clone());
        }
    }
}
