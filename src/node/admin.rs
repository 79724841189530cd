//! What administrators ask of a node: exports and volumes.

use super::Node;
use crate::admin::report::Volume;
use crate::export_syntax::{self, ExportWords};
use crate::maintenance;
use anyhow::{Context, Result, bail};
use atoll_base::id::VolumeId;
use atoll_meta::export::{ExportSpec, Volume as VolumeState};
use atoll_meta::service::MetadataService;
use atoll_meta::{FsError, Op, Outcome};

impl Node {
    /// Exports in force, in the words of `--export`.
    pub async fn exports(&self) -> Result<Vec<String>> {
        let volumes = self.meta.volumes().await?;
        let exports = self.meta.exports();
        Ok(exports.list.iter().map(|e| in_words(&e.spec, &volumes)).collect())
    }

    /// Makes or changes an export; returns it as it is in force.
    pub async fn put_export(&self, words: ExportWords) -> Result<String> {
        let ExportWords { mut spec, volume } = words;
        let volumes = self.meta.volumes().await?;
        if let Some(name) = volume {
            spec.volume = volumes
                .iter()
                .find(|v| v.name == name)
                .map(|v| v.id)
                .with_context(|| format!("there is no volume {name:?} (see `atoll volume list`)"))?;
        }
        self.put_export_spec(spec.clone()).await?;
        Ok(in_words(&spec, &volumes))
    }

    /// The same for an export that is not in words.
    pub async fn put_export_spec(&self, spec: ExportSpec) -> Result<()> {
        // Each start with the same `--export` asks for what is in force already.
        if self.meta.exports().list.iter().any(|e| e.spec == spec) {
            return Ok(());
        }
        let path = spec.volume_path.clone();
        self.administer(Op::PutExport(spec)).await.map_err(|error| match error {
            FsError::NotFound => anyhow::anyhow!(
                "the directory {path} does not exist on the volume: mount what is above it and make it first"
            ),
            FsError::NotDirectory => anyhow::anyhow!("{path} is not a directory"),
            FsError::TableFull => anyhow::anyhow!("there are as many exports as there may be"),
            error => anyhow::Error::from(error).context("the export is refused"),
        })?;
        Ok(())
    }

    /// Takes an export back.
    pub async fn remove_export(&self, path: &str) -> Result<()> {
        let exports = self.meta.exports();
        let Some(export) = exports.list.iter().find(|e| e.spec.path == path) else {
            bail!("{path} is not exported (see `atoll export list`)");
        };
        self.administer(Op::RemoveExport(export.id)).await.context("the export could not be removed")?;
        Ok(())
    }

    /// All volumes.
    pub(crate) async fn volumes(&self) -> Result<Vec<Volume>> {
        let volumes = self.meta.volumes().await?.into_iter();
        Ok(volumes.map(|v| Volume { name: v.name, inodes: v.inodes, bytes: v.bytes }).collect())
    }

    /// Makes a volume.
    pub async fn create_volume(&self, name: &str) -> Result<()> {
        self.administer(Op::CreateVolume { name: name.to_owned() }).await.map_err(|error| match error {
            FsError::Exists => anyhow::anyhow!("a volume {name:?} exists already"),
            FsError::Invalid => {
                anyhow::anyhow!("{name:?} is no name for a volume: 1 to 64 of letters, digits, _ . -")
            }
            error => anyhow::Error::from(error).context("the volume could not be made"),
        })?;
        Ok(())
    }

    async fn administer(&self, op: Op) -> Result<Outcome, FsError> {
        maintenance::execute(&self.meta, None, op).await
    }
}

fn in_words(spec: &ExportSpec, volumes: &[VolumeState]) -> String {
    let volume = (spec.volume != VolumeId(1))
        .then(|| volumes.iter().find(|v| v.id == spec.volume).map(|v| v.name.as_str()))
        .flatten();
    export_syntax::to_words(spec, volume)
}
