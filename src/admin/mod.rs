//! The admin API: JSON over HTTP/1.1 on a Unix socket in the data directory (whoever may open it is trusted, its mode is
//! 0600) and on TCP (a bearer token from a 0600 file in the data directory).
//!
//! | method, path | body | answer |
//! |---|---|---|
//! | GET /v1/status | | [`report::Report`] |
//! | GET /v1/exports | | `[string]`: exports in the words of `--export` |
//! | PUT /v1/exports | `{"words": "…"}` | the export as it is in force |
//! | DELETE /v1/exports?path=P | | |
//! | GET /v1/volumes | | `[Volume]` |
//! | POST /v1/volumes | `{"name": "…"}` | |
//! | GET /v1/clients, /v1/opens, /v1/locks, /v1/delegations, /v1/copies `?limit=N&after=PLACE` | | [`states::Listing`] of [`states::Client`], [`states::Open`], [`states::Lock`], [`states::Delegation`], [`states::Copy`] |
//! | DELETE /v1/clients?id=ID | | [`states::Evicted`] |
//! | POST /v1/scrub | | findings, one JSON object a line, as they come; the last line is a summary |
//!
//! A failure is `{"error": "…"}` with a status of 4xx (the caller's) or 5xx (ours).

pub(crate) mod client;
pub(crate) mod report;
pub(crate) mod server;
pub(crate) mod states;
