//! One file per scenario.

mod mount;
