//! [`Digest`]: a SHA-256, written `sha256:HEX` in manifests and `sha256-HEX` as a file's name.

use std::fmt;

use crate::error::{Error, Result};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(bytes).into())
    }

    pub(crate) fn finish(hash: sha2::Sha256) -> Digest {
        use sha2::Digest as _;
        Digest(hash.finalize().into())
    }

    /// Reads `sha256:HEX`, `sha256-HEX` or 64 hexadecimal digits.
    ///
    /// # Errors
    /// For anything else.
    pub fn parse(text: &str) -> Result<Digest> {
        let hex = text.strip_prefix("sha256:").or_else(|| text.strip_prefix("sha256-")).unwrap_or(text);
        let wrong = || {
            let shown: String = text.chars().take(80).collect();
            Error::corrupt(format!("{shown:?} is no SHA-256: it takes 64 hexadecimal digits"))
        };
        let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
        if hex.len() != 64 {
            return Err(wrong());
        }
        let mut out = [0; 32];
        for (byte, pair) in out.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong()) };
            *byte = high << 4 | low;
        }
        Ok(Digest(out))
    }

    /// The 64 digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The first 12 digits, as people are shown them.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    pub(crate) fn file_name(&self) -> String {
        format!("sha256-{}", self.hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
