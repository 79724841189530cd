//! Power cuts and kill -9 under load: nothing that was acknowledged is lost, nothing is half done. See `README.md` in this folder.
#![allow(clippy::unwrap_used)]

mod choice;
mod client;
mod content;
mod history;
mod killed;
mod machine;
mod model;
mod power;
mod replies;
mod settings;
mod slow;
mod syncs;
mod worker;
