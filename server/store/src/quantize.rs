//! Weights of another type: what `create --quantize` makes of a model's file.

use std::sync::atomic::{AtomicU64, Ordering};

use ir_engine::convert::{Job, Settings};
use ir_engine::file::ModelFile;
use ir_engine::quant::mixes::{MIXES, Mix};

use crate::disk;
use crate::error::{Error, Kind, Result};
use crate::gc::hash_file;
use crate::manifest::Layer;
use crate::pull::Wanted;
use crate::store::Store;

impl Store {
    /// The layers with the weights as this type; `q4_K_M` and the like, in any case of letters.
    ///
    /// # Errors
    /// There is no such type, the weights lie in several files, they cannot be read or written, or there is no room.
    pub(crate) fn quantized(
        &self,
        layers: Vec<Layer>,
        kind: &str,
        wanted: &mut Wanted,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<Layer>> {
        let mix = Mix::of(kind).ok_or_else(|| {
            let all: Vec<&str> = MIXES.iter().map(|m| m.name).collect();
            Error::name(format!("there is no type {:?} to quantise to: {}", shortened(kind), all.join(", ")))
        })?;
        let (weights, others): (Vec<Layer>, Vec<Layer>) = layers.into_iter().partition(|layer| layer.role() == "model");
        let [layer] = weights.as_slice() else {
            return Err(Error::unsupported("only a model of one file is quantised: `ir merge` makes one of parts"));
        };
        let source = ModelFile::open(&self.blob(&layer.digest()?)).map_err(|e| Error::corrupt(e.to_string()))?;
        let settings = Settings { mix: Some(mix), ..Settings::default() };
        let job = Job::new(&source, &settings).map_err(|e| Error::unsupported(e.to_string()))?;
        self.expect_space(job.byte_len())?;
        say(&format!("quantizing to {}", mix.name));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.own("partial", &format!("quantized-{}-{number}", std::process::id()))?;
        // What a killed process of the same number left.
        disk::remove(&temporary)?;
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let written = job.write(&temporary, threads, &mut |_| true);
        let kept = written.map_err(|e| Error::new(Kind::Disk, e.to_string())).and_then(|()| {
            let digest = hash_file(&temporary)?;
            let blob = self.blob(&digest);
            wanted.add(self, &digest)?;
            std::fs::rename(&temporary, &blob).map_err(|e| Error::disk("write", &blob, &e))?;
            Ok(digest)
        });
        if kept.is_err() {
            disk::remove(&temporary)?;
        }
        let digest = kept?;
        say(&format!("creating new layer {digest}"));
        Ok([Layer::new("model", digest, job.byte_len())].into_iter().chain(others).collect())
    }

    /// Refuses what the disk has no room for.
    pub(crate) fn expect_space(&self, size: u64) -> Result {
        let free = fs4::available_space(&self.settings.root).unwrap_or(u64::MAX);
        if size <= free {
            return Ok(());
        }
        let (root, free, size) = (self.settings.root.display(), free / 1_000_000, size / 1_000_000);
        Err(Error::new(Kind::Space, format!("{root} has {free} MB free, and {size} MB are needed")))
    }
}

/// A name as an error shows it.
fn shortened(kind: &str) -> String {
    kind.chars().take(40).collect()
}
