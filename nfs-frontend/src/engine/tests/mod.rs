//! Tests of the engine through its public entry points: encoded calls in, decoded replies out.
#![allow(clippy::unwrap_used)]

mod backclient;
mod blocks;
mod meta;
mod turns;
pub(crate) mod world;

mod access;
mod backchannel;
mod basics;
mod closes;
mod crash;
mod damage;
mod delegation_stateids;
mod delegations;
mod directories;
mod early;
mod held;
mod listing;
mod nfs4;
mod offloads;
mod once;
mod parts;
mod slot_recalls;
mod told;
mod unstable;
mod v42;
