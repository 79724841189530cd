//! Random histories of several clients against the naive reference, every state checked.

use super::world::{Act, World};
use atoll_lockd::{LockMode, Share, ShareBits};
use atoll_meta::delegation::{DelegationKind, DelegationWish, Intrusion};
use proptest::prelude::*;

fn bits() -> impl Strategy<Value = ShareBits> {
    (0_u32..4).prop_map(|bits| ShareBits::from_wire(bits).unwrap())
}

fn share() -> impl Strategy<Value = Share> {
    let some = (1_u32..4).prop_map(|bits| ShareBits::from_wire(bits).unwrap());
    let access = prop_oneof![3 => Just(ShareBits::Both), 2 => some];
    // Whoever denies anything leaves the others with little to do.
    let deny = prop_oneof![20 => Just(ShareBits::None), 1 => bits()];
    (access, deny).prop_map(|(access, deny)| Share { access, deny })
}

fn wish() -> impl Strategy<Value = DelegationWish> {
    let kind = prop_oneof![Just(DelegationKind::Read), Just(DelegationKind::Write)];
    (kind, any::<bool>(), any::<bool>()).prop_map(|(kind, timestamps, instead_of_open)| DelegationWish {
        kind,
        timestamps,
        instead_of_open,
        export: atoll_base::id::ExportId(1),
    })
}

fn at() -> impl Strategy<Value = (usize, usize)> {
    (0_usize..8).prop_flat_map(|first| (Just(first), 1..=8 - first))
}

fn act() -> impl Strategy<Value = Act> {
    // Two clients do most, so that they come to have much; a third waits in between.
    let client = prop_oneof![4 => Just(0_usize), 4 => Just(3_usize), 1 => 0_usize..5];
    let owner = prop_oneof![2 => Just(0_usize), 1 => 0_usize..3];
    let file = 0_usize..3;
    let mode = prop_oneof![2 => Just(LockMode::Shared), 1 => Just(LockMode::Exclusive)];
    let intrusion = prop_oneof![Just(Intrusion::Read), Just(Intrusion::Change)];
    let place = (client.clone(), owner.clone(), file.clone());
    prop_oneof![
        1 => client.clone().prop_map(Act::Boot),
        1 => client.clone().prop_map(Act::Expire),
        16 => (place.clone(), share(), prop::option::weighted(0.5, wish()))
            .prop_map(|((client, owner, file), share, wish)| Act::Open { client, owner, file, share, wish }),
        4 => (client.clone(), file.clone(), wish())
            .prop_map(|(client, file, wish)| Act::Delegate { client, file, wish }),
        6 => (client.clone(), file.clone()).prop_map(|(client, file)| Act::Return { client, file }),
        4 => (client.clone(), file.clone(), intrusion)
            .prop_map(|(client, file, intrusion)| Act::Recall { client, file, intrusion }),
        3 => (client.clone(), file.clone()).prop_map(|(client, file)| Act::Revoke { client, file }),
        4 => (client.clone(), file.clone()).prop_map(|(client, file)| Act::Write { client, file }),
        2 => (place.clone(), share())
            .prop_map(|((client, owner, file), share)| Act::Downgrade { client, owner, file, share }),
        3 => place.clone().prop_map(|(client, owner, file)| Act::Close { client, owner, file }),
        24 => (place.clone(), owner.clone(), at(), mode).prop_map(|((client, owner, file), locker, at, mode)| {
            Act::Lock { client, owner, locker, file, at, mode }
        }),
        10 => (place.clone(), at())
            .prop_map(|((client, locker, file), at)| Act::Unlock { client, locker, file, at }),
        4 => place.prop_map(|(client, locker, file)| Act::Free { client, locker, file }),
        1 => (client.clone(), owner).prop_map(|(client, locker)| Act::ReleaseOwner { client, locker }),
        1 => file.prop_map(Act::Replace),
        4 => client.prop_map(Act::Repeat),
        3 => Just(Act::Sweep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn histories_of_clients(acts in prop::collection::vec(act(), 1..200)) {
        let mut world = World::new();
        for act in &acts {
            world.act(act);
            world.check();
        }
        world.end();
    }
}
