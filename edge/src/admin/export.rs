//! The closing line of an export: it counts and hashes the lines before it, so that whoever reads them knows that all of
//! them came, as they were sent.

use sha2::{Digest, Sha256};
use tallygate_shared::feedback::ExportEnd;
use tallygate_shared::hex::hex;

/// Counts and hashes lines as they are sent.
#[derive(Default)]
pub struct ExportSum {
    hash: Sha256,
    lines: u64,
}

impl ExportSum {
    /// Takes whole lines in.
    pub fn add(&mut self, lines: &str) {
        self.hash.update(lines.as_bytes());
        let count = lines.bytes().filter(|byte| *byte == b'\n').count();
        self.lines = self.lines.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// The closing line, with its line break.
    pub fn end(&self) -> String {
        let sha256 = hex(&self.hash.clone().finalize());
        let end = ExportEnd { end: true, lines: self.lines, sha256 };
        // Plain fields: serialising them cannot fail.
        let mut line = serde_json::to_string(&end).unwrap_or_default();
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_add_up_to_the_whole() {
        let (mut whole, mut pages) = (ExportSum::default(), ExportSum::default());
        whole.add("a\nb\n");
        pages.add("a\n");
        pages.add("b\n");
        assert_eq!(whole.end(), pages.end());
        let end: ExportEnd = serde_json::from_str(&whole.end()).unwrap();
        assert_eq!(end.lines, 2);
        // printf 'a\nb\n' | sha256sum
        assert_eq!(end.sha256, "911169ddaaf146aff539f58c26c489af3b892dff0fe283c1c264c65ae5aa59a2");
    }
}
