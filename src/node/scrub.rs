//! Verifies everything a running node stores: the metadata against themselves, the blocks against their checksums, and
//! each against the other. Changes nothing.
//!
//! Clients go on meanwhile, so what looks wrong is looked at again before it is reported: a file may have been removed, and its
//! blocks collected, since the view was taken. Memory: the check of the metadata holds a few words per inode and about
//! 50 bytes per block (a terabyte in blocks of 4 MiB: 13 MB); of the blocks only the bad ones are kept here.
//!
//! Needs tokio's multi-threaded runtime: the check reads the metadata in place.

use super::Node;
use anyhow::Result;
use atoll_base::block::BlockId;
use atoll_model::{check, read};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc::Sender;

/// Bytes read between two looks at whether somebody still listens.
const STEP_BYTES: u64 = 64 << 20;

/// Damaged blocks remembered to be named at the end.
const DAMAGED_MAX: usize = 100_000;

/// Something wrong, or the summary that ends a scrub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which file, as `VOLUME:/path`, or which part of the store.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// What a scrub ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Blocks read and verified.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Things that are wrong.
    pub findings: u64,
}

/// A line of a scrub's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Something wrong.
    Finding(Finding),
    /// The end.
    Summary(Summary),
    /// The scrub could not go on, for this reason.
    Stopped(String),
}

impl Node {
    /// Verifies everything and sends what it finds; ends early when nobody listens any more.
    pub async fn scrub(&self, lines: Sender<Line>) {
        let last = match self.verify(&lines).await {
            Ok(summary) => Line::Summary(summary),
            Err(error) => Line::Stopped(format!("{error:#}")),
        };
        // Whoever asked may have gone.
        let _gone = lines.send(last).await;
    }

    async fn verify(&self, lines: &Sender<Line>) -> Result<Summary> {
        let mut out = Out { lines, summary: Summary::default() };
        let bad = self.verify_metadata(&mut out).await?;
        self.report_if_referenced(bad, &mut out).await?;
        self.verify_blocks(&mut out).await?;
        Ok(out.summary)
    }

    /// Checks the metadata in themselves, and that each block they refer to exists and is long enough; returns those
    /// that are not.
    async fn verify_metadata(&self, out: &mut Out<'_>) -> Result<BTreeMap<BlockId, String>> {
        let mut bad = BTreeMap::new();
        let mut unnamed = 0_u64;
        // One consistent view, read in place; clients go on beside it.
        let (findings, volumes) = self
            .meta
            .with_state(|kv| {
                tokio::task::block_in_place(|| {
                    let findings = check::check(kv, &mut |id, end| {
                        let what = match self.blocks.length(id) {
                            Some(len) if len >= end => return,
                            Some(len) => format!("its block {id:?} has {len} of {end} bytes"),
                            None => format!("its block {id:?} does not exist"),
                        };
                        if bad.len() < DAMAGED_MAX {
                            bad.insert(id, what);
                        } else {
                            unnamed += 1;
                        }
                    })?;
                    Ok((findings, read::volumes(kv)?))
                })
            })
            .await?;
        for finding in findings {
            let volume = finding.volume.and_then(|id| volumes.iter().find(|v| v.id == id));
            let place = match volume {
                Some(volume) => format!("{}:{}", volume.name, finding.path),
                None => "metadata".to_owned(),
            };
            out.found(Finding::new(place, finding.what)).await?;
        }
        if unnamed > 0 {
            let what = format!("{unnamed} more blocks do not exist or are too short");
            out.found(Finding::new("block store", what)).await?;
        }
        Ok(bad)
    }

    /// Reports bad blocks, but not those that nothing refers to any more.
    async fn report_if_referenced(
        &self,
        mut bad: BTreeMap<BlockId, String>,
        out: &mut Out<'_>,
    ) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let gone = self
            .meta
            .with_state(|kv| {
                let mut gone = Vec::new();
                for id in bad.keys() {
                    if !read::block_is_referenced(kv, *id)? {
                        gone.push(*id);
                    }
                }
                Ok(gone)
            })
            .await?;
        gone.iter().for_each(|id| drop(bad.remove(id)));
        self.name_and_report(bad, out).await
    }

    /// Each block's bytes fit its checksums.
    async fn verify_blocks(&self, out: &mut Out<'_>) -> Result<()> {
        let mut cursor = None;
        let mut damaged = BTreeMap::new();
        let mut unnamed = 0_u64;
        loop {
            let store = self.blocks.clone();
            let (next, step) =
                tokio::task::spawn_blocking(move || store.scrub_step(cursor, STEP_BYTES)).await?;
            out.summary.blocks += step.blocks;
            out.summary.bytes += step.bytes;
            for damage in step.damage {
                if damaged.len() < DAMAGED_MAX {
                    let what = format!(
                        "{} bytes of it cannot be read: block {:?} at byte {}: {}",
                        damage.len, damage.id, damage.offset, damage.detail
                    );
                    damaged.insert(damage.id, what);
                } else {
                    unnamed += 1;
                }
            }
            if next.is_none() || out.lines.is_closed() {
                break;
            }
            cursor = next;
        }
        if unnamed > 0 {
            out.found(Finding::new("block store", format!("{unnamed} more damaged parts of blocks"))).await?;
        }
        // Damage in a block that is only waiting to be deleted harms nobody.
        self.report_if_referenced(damaged, out).await
    }

    /// Reports what is wrong with blocks under the names of the files that refer to them.
    async fn name_and_report(&self, bad: BTreeMap<BlockId, String>, out: &mut Out<'_>) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let ids: BTreeSet<BlockId> = bad.keys().copied().collect();
        let named = self
            .meta
            .with_state(|kv| tokio::task::block_in_place(|| read::files_of_blocks(kv, &ids)))
            .await?;
        for (id, what) in bad {
            let files = named.iter().filter(|file| file.block == id);
            // Between the two looks the last file that referred to it has gone.
            for file in files {
                let place = format!("{}:{}", file.volume, file.path);
                out.found(Finding::new(place, what.clone())).await?;
            }
        }
        Ok(())
    }
}

struct Out<'a> {
    lines: &'a Sender<Line>,
    summary: Summary,
}

impl Out<'_> {
    async fn found(&mut self, finding: Finding) -> Result<()> {
        tracing::error!(place = finding.place, what = finding.what, "damage found");
        self.summary.findings += 1;
        self.lines.send(Line::Finding(finding)).await?;
        Ok(())
    }
}
