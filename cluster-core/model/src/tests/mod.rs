//! Tests of the state machine as a whole.

#![allow(clippy::unwrap_used)]

mod acls;
mod attributes;
mod damage;
mod data;
mod leases;
mod locks;
mod namespace;
mod nfs4;
mod once;
mod overwritten;
mod random;
mod refused;
mod rig;
mod tables;
mod world;
