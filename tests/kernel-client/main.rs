//! The real Linux NFS client against the server. See `README.md` in this folder.
#![allow(clippy::unwrap_used)]

mod lab;
mod scenarios;
