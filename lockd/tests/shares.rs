//! Share reservations: the rules of NLM SHARE and of OPEN, and all operations against a naive list.

#![allow(clippy::unwrap_used)]

use atoll_lockd::ShareBits::{Both, None as Nothing, Read, Write};
use atoll_lockd::limits::MAX_SHARES_PER_FILE;
use atoll_lockd::{
    Bound, ClientMatch, FileLocks, LockOwner, NlmClient, Released, Share, ShareBits, ShareError, ShareRule,
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
    table.share(owner(0), share(Read, Write), ShareRule::Replace).unwrap();
    for (access, deny, granted) in [
        (Read, Nothing, true),
        (Read, Write, true),
        (Write, Nothing, false), // the holder denies it
        (Read, Read, false),     // the holder has it
        (Nothing, Nothing, true),
    ] {
        let outcome = table.clone().share(owner(1), share(access, deny), ShareRule::Replace);
        assert_eq!(outcome.is_ok(), granted, "{access:?} {deny:?}");
        if let Err(ShareError::Conflict(conflict)) = outcome {
            assert_eq!((conflict.owner, conflict.share), (owner(0), share(Read, Write)));
        }
    }
}

#[test]
fn nlm_replaces_its_own_and_open_unites_with_it() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Both, Both), ShareRule::Replace).unwrap();
    assert_eq!(table.share(owner(0), share(Read, Nothing), ShareRule::Replace), Ok(share(Read, Nothing)));
    assert_eq!(table.share(owner(0), share(Write, Nothing), ShareRule::Unite), Ok(share(Both, Nothing)));
    // An OPEN conflicts with the same owner's former one (RFC 7530 §9.9).
    assert!(matches!(
        table.share(owner(0), share(Read, Write), ShareRule::Unite),
        Err(ShareError::Conflict(_))
    ));
    assert_eq!(table.share(owner(0), share(Nothing, Nothing), ShareRule::Unite), Err(ShareError::NoAccess));
    assert_eq!(table.shares().get(&owner(0)), Some(share(Both, Nothing)));
}

#[test]
fn a_downgrade_only_takes_away() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Both, Write), ShareRule::Unite).unwrap();
    assert_eq!(table.share_downgrade(&owner(0), share(Read, Both)), Err(ShareError::NotHeld));
    assert_eq!(table.share_downgrade(&owner(1), share(Read, Nothing)), Err(ShareError::NotHeld));
    assert_eq!(table.share_downgrade(&owner(0), share(Nothing, Write)), Err(ShareError::NoAccess));
    assert_eq!(table.share_downgrade(&owner(0), share(Read, Nothing)), Ok(()));
    assert!(table.share(owner(1), share(Both, Nothing), ShareRule::Unite).is_ok());
    assert_eq!(table.unshare(&owner(0)), Some(share(Read, Nothing)));
    assert_eq!(table.unshare(&owner(0)), None);
    assert_eq!(table.unshare(&owner(1)), Some(share(Both, Nothing)));
    assert!(table.is_empty());
}

#[test]
fn access_without_an_open_is_tested_against_all() {
    let mut table = FileLocks::new(0);
    table.share(owner(0), share(Read, Write), ShareRule::Replace).unwrap();
    let write = share(Write, Nothing);
    assert_eq!(table.shares().conflict(None, write).unwrap().owner, owner(0));
    assert_eq!(table.shares().conflict(Some(&owner(0)), write), None);
}

#[test]
fn shares_are_bounded() {
    let mut table = FileLocks::new(0);
    for n in 0..MAX_SHARES_PER_FILE as u32 {
        table.share(owner(n), share(Read, Nothing), ShareRule::Replace).unwrap();
    }
    let one_more = table.share(owner(u32::MAX), share(Read, Nothing), ShareRule::Replace);
    assert_eq!(one_more, Err(ShareError::TooMany(Bound::SharesPerFile)));
    assert!(table.share(owner(0), share(Both, Nothing), ShareRule::Replace).is_ok(), "no new one");
}

fn bits() -> impl Strategy<Value = ShareBits> {
    (0_u32..4).prop_map(|bits| ShareBits::from_wire(bits).unwrap())
}

proptest! {
    #[test]
    fn no_one_has_what_another_denies(
        ops in prop::collection::vec((0_u32..5, 0_u32..8, bits(), bits()), 1..60)
    ) {
        let mut table = FileLocks::new(0);
        let mut list: Vec<(u32, u32, u32)> = Vec::new();
        for (who, what, access, deny) in ops {
            let (a, d) = (access.to_wire(), deny.to_wire());
            let clash = |own: bool| {
                list.iter().any(|(other, oa, od)| (own || *other != who) && (a & od != 0 || d & oa != 0))
            };
            let at = list.iter().position(|(other, ..)| *other == who);
            match what {
                0..=2 => {
                    let expected = !clash(false);
                    let outcome = table.share(owner(who), share(access, deny), ShareRule::Replace);
                    prop_assert_eq!(outcome.is_ok(), expected);
                    if expected {
                        list.retain(|(other, ..)| *other != who);
                        list.push((who, a, d));
                    }
                }
                3..=4 => {
                    let expected = a != 0 && !clash(true);
                    let outcome = table.share(owner(who), share(access, deny), ShareRule::Unite);
                    prop_assert_eq!(outcome.is_ok(), expected);
                    match (expected, at) {
                        (true, Some(at)) => list[at] = (who, list[at].1 | a, list[at].2 | d),
                        (true, None) => list.push((who, a, d)),
                        (false, _) => {}
                    }
                }
                5 => {
                    let within = at.filter(|at| a & !list[*at].1 == 0 && d & !list[*at].2 == 0 && a != 0);
                    let outcome = table.share_downgrade(&owner(who), share(access, deny));
                    prop_assert_eq!(outcome.is_ok(), within.is_some());
                    if let Some(at) = within {
                        list[at] = (who, a, d);
                    }
                }
                6 => {
                    prop_assert_eq!(table.unshare(&owner(who)).is_some(), at.is_some());
                    list.retain(|(other, ..)| *other != who);
                }
                _ => {
                    let which = ClientMatch::Client(owner(who).client().clone());
                    let shares = list.iter().filter(|(other, ..)| other % 2 == who % 2).count();
                    prop_assert_eq!(table.concerns(&which), shares > 0);
                    let released = table.release_client(&which, &mut Vec::new());
                    prop_assert_eq!(released, Released { ranges: 0, waiters: 0, shares });
                    list.retain(|(other, ..)| other % 2 != who % 2);
                }
            }
            list.sort_unstable();
            let held: Vec<_> = table.shares().iter().map(|(o, s)| (o.clone(), s.access.to_wire(), s.deny.to_wire())).collect();
            let mut expected: Vec<_> = list.iter().map(|(who, a, d)| (owner(*who), *a, *d)).collect();
            expected.sort_unstable();
            prop_assert_eq!(held, expected);
            prop_assert_eq!(table.verify(), Ok(()));
            let stored = postcard::to_stdvec(&table).unwrap();
            prop_assert_eq!(postcard::from_bytes::<FileLocks>(&stored).unwrap(), table.clone());
        }
    }
}
