//! What a file may hold after a crash, byte by byte.

use bytes::Bytes;

/// The write verifier as a number.
pub(crate) type Verifier = u64;

/// UNSTABLE data that no COMMIT covers yet, and no later stable change has overwritten.
#[derive(Clone, Debug)]
struct Pending {
    offset: usize,
    data: Bytes,
    /// The verifier it was acknowledged with; `None` while it is not acknowledged.
    verifier: Option<Verifier>,
}

impl Pending {
    fn end(&self) -> usize {
        self.offset + self.data.len()
    }

    /// What is left of it outside of `from..to`.
    fn without(&self, from: usize, to: usize) -> Vec<Pending> {
        let mut left = Vec::new();
        if self.offset < from {
            let end = from.min(self.end());
            left.push(Pending { data: self.data.slice(..end - self.offset), ..self.clone() });
        }
        if self.end() > to {
            let start = to.max(self.offset);
            left.push(Pending {
                offset: start,
                data: self.data.slice(start - self.offset..),
                verifier: self.verifier,
            });
        }
        left
    }
}

/// The content of one file as its only writer knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// What is durable.
    base: Vec<u8>,
    /// What reads show while nothing goes wrong.
    now: Vec<u8>,
    pending: Vec<Pending>,
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl Content {
    pub(crate) fn now(&self) -> &[u8] {
        &self.now
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// A WRITE was answered as stable.
    pub(crate) fn write_stable(&mut self, offset: usize, data: &[u8]) {
        put(&mut self.base, offset, data);
        put(&mut self.now, offset, data);
        let end = offset + data.len();
        self.pending = self.pending.iter().flat_map(|p| p.without(offset, end)).collect();
    }

    /// A WRITE was answered as unstable, or not at all (without a verifier).
    pub(crate) fn write_unstable(&mut self, offset: usize, data: &Bytes, verifier: Option<Verifier>) {
        put(&mut self.now, offset, data);
        self.pending.push(Pending { offset, data: data.clone(), verifier });
    }

    /// A change of the size was answered.
    pub(crate) fn truncate(&mut self, size: usize) {
        self.base.resize(size, 0);
        self.now.resize(size, 0);
        self.pending = self.pending.iter().flat_map(|p| p.without(size, usize::MAX)).collect();
    }

    /// A COMMIT was answered with this verifier: what was acknowledged with it is durable.
    pub(crate) fn commit(&mut self, verifier: Verifier) {
        let mut left: Vec<Pending> = Vec::new();
        for p in std::mem::take(&mut self.pending) {
            if p.verifier == Some(verifier) {
                put(&mut self.base, p.offset, &p.data);
                // What was not acknowledged before may lie below it no more.
                left = left.iter().flat_map(|l| l.without(p.offset, p.end())).collect();
            } else {
                left.push(p);
            }
        }
        self.pending = left;
    }

    /// Whether a server whose verifier is `current` may show these bytes.
    pub(crate) fn allows(&self, seen: &[u8], current: Option<Verifier>) -> Result<(), String> {
        let kept = |p: &Pending| p.verifier.is_some() && p.verifier == current;
        let least =
            self.pending.iter().filter(|p| kept(p)).map(Pending::end).max().unwrap_or(0).max(self.base.len());
        if seen.len() < least || seen.len() > self.now.len().max(self.base.len()) {
            return Err(format!("{} bytes long, not {least}..={}", seen.len(), self.now.len()));
        }
        if self.pending.is_empty() && seen == self.base {
            return Ok(());
        }
        for (at, byte) in seen.iter().enumerate() {
            let mut fits = *byte == self.base.get(at).copied().unwrap_or(0);
            for p in &self.pending {
                if (p.offset..p.end()).contains(&at) {
                    let same = *byte == p.data[at - p.offset];
                    fits = if kept(p) { same } else { fits || same };
                }
            }
            if !fits {
                let unit = seen[at..].iter().zip(self.base.get(at..).unwrap_or_default());
                let wrong = unit.take_while(|(a, b)| a != b).count();
                return Err(format!(
                    "byte {at} is {byte:#04x}, which nobody wrote there last ({wrong} bytes differ from what is durable, {} \
                     writes are pending)",
                    self.pending.len()
                ));
            }
        }
        Ok(())
    }

    /// What was found after a restart, and allowed, is what counts from now on.
    pub(crate) fn settle(&mut self, seen: &[u8]) {
        *self = Self { base: seen.to_vec(), now: seen.to_vec(), pending: Vec::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_may_be_there_and_must_be_if_the_verifier_stays() {
        let mut c = Content::default();
        c.write_stable(0, b"aaaa");
        c.write_unstable(2, &Bytes::from_static(b"bbbb"), Some(1));
        for (seen, other, same) in [
            (&b"aaaa"[..], true, false),
            (b"aabb", true, false),
            (b"aabbbb", true, true),
            (b"aaaabb", true, false),
            (b"aabb\0\0", true, false),
            (b"aabbbbb", false, false),
            (b"aa", false, false),
            (b"axbbbb", false, false),
        ] {
            assert_eq!(c.allows(seen, Some(2)).is_ok(), other, "{seen:?}");
            assert_eq!(c.allows(seen, Some(1)).is_ok(), same, "{seen:?}");
        }
    }

    #[test]
    fn a_stable_write_ends_what_is_below_it_and_a_commit_makes_the_rest_certain() {
        let mut c = Content::default();
        c.write_unstable(0, &Bytes::from_static(b"uuuu"), Some(1));
        c.write_stable(1, b"ss");
        assert!(c.allows(b"ussu", Some(2)).is_ok());
        assert!(c.allows(b"\0ss", Some(2)).is_ok());
        assert!(c.allows(b"uuuu", Some(2)).is_err());
        c.commit(1);
        assert!(!c.has_pending());
        assert!(c.allows(b"ussu", Some(2)).is_ok());
        assert!(c.allows(b"\0ssu", Some(2)).is_err());
    }

    #[test]
    fn truncation_is_certain() {
        let mut c = Content::default();
        c.write_unstable(0, &Bytes::from_static(b"uuuu"), Some(1));
        c.truncate(2);
        assert!(c.allows(b"uu", Some(2)).is_ok() && c.allows(b"\0\0", Some(2)).is_ok());
        assert!(c.allows(b"", Some(2)).is_err() && c.allows(b"uuu", Some(2)).is_err());
    }
}
