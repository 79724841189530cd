//! What a random history is made of.

use super::super::rig::at;
use atoll_base::attr::{SetAttr, SetTime};
use atoll_base::label::Label;
use proptest::prelude::*;

/// One step; small numbers choose among what exists when it is taken.
#[derive(Clone, Debug)]
pub(super) enum Do {
    Create { dir: u8, name: u8, node: u8, how: u8, mode: u16, size: Option<u8> },
    Link { ino: u8, dir: u8, name: u8 },
    Remove { dir: u8, name: u8, kind: u8 },
    Rename { from: u8, name: u8, to: u8, to_name: u8 },
    Set { ino: u8, set: SetAttr, guard: bool },
    Truncate { ino: u8, size: u8 },
    Write { ino: u8, at: u8, parts: Vec<(u8, u8, bool)>, flush: Option<FlushPlan> },
    Begin { ino: u8 },
    Register,
    Lost { ino: u8 },
    Touch { ino: u8, ahead: u8 },
    Xattr { ino: u8, name: u8, value: Option<u8>, how: u8 },
    Repack { ino: u8, start: u8, len: u8, inline: bool },
    Punch { ino: u8, at: u8, len: u8 },
    Extend { ino: u8, size: u8 },
    Clone { from: u8, from_at: u8, to: u8, to_at: u8, len: u8, partial: bool },
    Delegate { ino: u8, who: u8, writes: bool },
    Return { which: u8 },
    Recall { which: u8, change: bool },
    Sweep,
    Collect,
    Replay { which: u8 },
}

#[derive(Clone, Debug)]
pub(super) struct FlushPlan {
    pub(super) ahead: u8,
    pub(super) longer: u8,
    pub(super) release: bool,
    pub(super) cover: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) who: u8,
    pub(super) via: u8,
    pub(super) client: u8,
    pub(super) once: bool,
    pub(super) back: bool,
    pub(super) what: Do,
}

fn small_set() -> impl Strategy<Value = SetAttr> {
    let time = prop_oneof![
        4 => Just(SetTime::Keep),
        1 => Just(SetTime::Server),
        1 => (0..3000_u16).prop_map(|n| SetTime::Client(at(n.into())))
    ];
    let who = prop::option::weighted(0.2, prop_oneof![Just(0_u32), Just(1), Just(2), Just(101), Just(7)]);
    let born = prop::option::weighted(0.2, (0..3000_u16).prop_map(|n| at(n.into())));
    let label = prop::option::weighted(
        0.2,
        (0..3_usize).prop_map(|len| Box::new(Label { format: 1, policy: 2, data: vec![b'l'; len].into() })),
    );
    (prop::option::weighted(0.4, 0..0o10000_u32), who.clone(), who, time.clone(), time, born, label).prop_map(
        |(mode, uid, gid, atime, mtime, btime, label)| SetAttr {
            mode,
            uid,
            gid,
            atime,
            mtime,
            btime,
            label,
            ..SetAttr::default()
        },
    )
}

fn what() -> impl Strategy<Value = Do> {
    let b = any::<u8>;
    let flush = (0..4_u8, 0..20_u8, any::<bool>(), any::<bool>())
        .prop_map(|(ahead, longer, release, cover)| FlushPlan { ahead, longer, release, cover });
    prop_oneof![
        6 => (b(), 0..5_u8, b(), 0..4_u8, 0..0o10000_u16, prop::option::weighted(0.3, b()))
            .prop_map(|(dir, name, node, how, mode, size)| Do::Create { dir, name, node, how, mode, size }),
        2 => (b(), b(), 0..5_u8).prop_map(|(ino, dir, name)| Do::Link { ino, dir, name }),
        3 => (b(), 0..5_u8, b()).prop_map(|(dir, name, kind)| Do::Remove { dir, name, kind }),
        4 => (b(), 0..5_u8, b(), 0..5_u8)
            .prop_map(|(from, name, to, to_name)| Do::Rename { from, name, to, to_name }),
        3 => (b(), small_set(), any::<bool>()).prop_map(|(ino, set, guard)| Do::Set { ino, set, guard }),
        3 => (b(), b()).prop_map(|(ino, size)| Do::Truncate { ino, size }),
        14 => (b(), b(), prop::collection::vec((0..10_u8, 1..30_u8, any::<bool>()), 0..5),
            prop::option::weighted(0.3, flush))
            .prop_map(|(ino, at, parts, flush)| Do::Write { ino, at, parts, flush }),
        4 => b().prop_map(|ino| Do::Begin { ino }),
        1 => Just(Do::Register),
        1 => b().prop_map(|ino| Do::Lost { ino }),
        1 => (b(), b()).prop_map(|(ino, ahead)| Do::Touch { ino, ahead }),
        2 => (b(), 0..6_u8, prop::option::of(b()), 0..4_u8)
            .prop_map(|(ino, name, value, how)| Do::Xattr { ino, name, value, how }),
        3 => (b(), b(), b(), any::<bool>())
            .prop_map(|(ino, start, len, inline)| Do::Repack { ino, start, len, inline }),
        3 => (b(), b(), b()).prop_map(|(ino, at, len)| Do::Punch { ino, at, len }),
        1 => (b(), b()).prop_map(|(ino, size)| Do::Extend { ino, size }),
        6 => (b(), b(), b(), b(), b(), any::<bool>()).prop_map(|(from, from_at, to, to_at, len, partial)| {
            Do::Clone { from, from_at, to, to_at, len, partial }
        }),
        6 => (b(), 0..2_u8, any::<bool>()).prop_map(|(ino, who, writes)| Do::Delegate { ino, who, writes }),
        4 => b().prop_map(|which| Do::Return { which }),
        1 => (b(), any::<bool>()).prop_map(|(which, change)| Do::Recall { which, change }),
        2 => Just(Do::Sweep),
        1 => Just(Do::Collect),
        3 => b().prop_map(|which| Do::Replay { which }),
    ]
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    (0..4_u8, 0..4_u8, 0..4_u8, any::<bool>(), prop::bool::weighted(0.1), what())
        .prop_map(|(who, via, client, once, back, what)| Act { who, via, client, once, back, what })
}
