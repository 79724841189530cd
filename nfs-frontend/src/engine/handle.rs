//! File handles (RFC 1813 §2.3.3): what they say, and the proof that this cluster made them.
//!
//! Layout, 40 bytes, numbers big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 0 | layout version, 1 |
//! | 1..4 | zero |
//! | 4..8 | export |
//! | 8..12 | volume |
//! | 12..16 | generation |
//! | 16..24 | inode |
//! | 24..40 | SipHash-2-4 with 128 bits of all before, under the cluster's key |
//!
//! Invariant: a [`Handle`] exists only where the code was compared with the bytes, or where the server named the
//! object itself. The key is the cluster's, so a handle is good at every frontend and after every restart.

use atoll_base::id::{ExportId, Ino, VolumeId};
use atoll_proto::nfs3::FileHandle;
use siphasher::sip128::SipHasher24;

const VERSION: u8 = 1;
const LEN: usize = 40;
const SIGNED: usize = 24;

/// The secret under which file handles are made. Shared by all frontends of a cluster.
#[derive(Clone)]
pub struct HandleKey(SipHasher24);

impl std::fmt::Debug for HandleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HandleKey(…)")
    }
}

/// What a file handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The export it was given out under.
    pub export: ExportId,
    /// The volume.
    pub volume: VolumeId,
    /// The inode.
    pub ino: Ino,
    /// Its generation.
    pub generation: u32,
}

/// The bytes are no handle of this cluster: NFS3ERR_BADHANDLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file handle of this cluster")]
pub struct Forged;

impl HandleKey {
    /// From 16 secret random bytes.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher24::new_with_key(key))
    }

    /// What this cluster calls itself towards NFSv4 clients: the same at every frontend, different from any other cluster's, and
    /// nothing can be found out about the key by it.
    pub(crate) fn server_identity(&self) -> bytes::Bytes {
        let name = self.0.hash(b"the name of this cluster").as_u128();
        format!("atoll-{name:032x}").into_bytes().into()
    }

    /// The wire form.
    pub fn seal(&self, handle: &Handle) -> FileHandle {
        let mut bytes = [0; LEN];
        bytes[0] = VERSION;
        bytes[4..8].copy_from_slice(&handle.export.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&handle.volume.0.to_be_bytes());
        bytes[12..16].copy_from_slice(&handle.generation.to_be_bytes());
        bytes[16..24].copy_from_slice(&handle.ino.0.to_be_bytes());
        let mac = self.0.hash(&bytes[..SIGNED]).as_bytes();
        bytes[SIGNED..].copy_from_slice(&mac);
        FileHandle::new(&bytes).expect("40 bytes are below NFS3_FHSIZE")
    }

    /// Reads a handle that a client sent.
    pub fn open(&self, wire: &[u8]) -> Result<Handle, Forged> {
        let bytes: &[u8; LEN] = wire.try_into().map_err(|_| Forged)?;
        let mac = self.0.hash(&bytes[..SIGNED]).as_bytes();
        // Every byte is compared whatever the ones before: the time taken tells nothing about the right code.
        let difference = mac.iter().zip(&bytes[SIGNED..]).fold(0, |all, (a, b)| all | (a ^ b));
        if std::hint::black_box(difference) != 0 || bytes[..4] != [VERSION, 0, 0, 0] {
            return Err(Forged);
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(Handle {
            export: ExportId(word(4)),
            volume: VolumeId(word(8)),
            generation: word(12),
            ino: Ino(u64::from(word(16)) << 32 | u64::from(word(20))),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_handle() -> impl Strategy<Value = Handle> {
        (any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(e, v, i, g)| Handle {
            export: ExportId(e),
            volume: VolumeId(v),
            ino: Ino(i),
            generation: g,
        })
    }

    proptest! {
        #[test]
        fn a_handle_survives_the_wire(handle in any_handle(), key in any::<[u8; 16]>()) {
            let key = HandleKey::new(&key);
            prop_assert_eq!(key.open(key.seal(&handle).as_slice()), Ok(handle));
        }

        #[test]
        fn any_flipped_bit_is_noticed(handle in any_handle(), bit in 0usize..LEN * 8) {
            let key = HandleKey::new(&[7; 16]);
            let mut wire = key.seal(&handle).as_slice().to_vec();
            wire[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(key.open(&wire), Err(Forged));
        }

        #[test]
        fn noise_is_no_handle(wire in prop::collection::vec(any::<u8>(), 0..=64)) {
            prop_assert_eq!(HandleKey::new(&[7; 16]).open(&wire), Err(Forged));
        }

        #[test]
        fn another_key_makes_other_handles(handle in any_handle()) {
            let wire = HandleKey::new(&[1; 16]).seal(&handle);
            prop_assert_eq!(HandleKey::new(&[2; 16]).open(wire.as_slice()), Err(Forged));
        }
    }
}
