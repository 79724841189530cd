//! The hash of a request's key: SipHash-1-3 (Aumasson and Bernstein, 2012), written out because its values are stored.

use atoll_meta::OnceKey;

struct Sip([u64; 4]);

impl Sip {
    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *b = b.rotate_left(13) ^ *a;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*d);
        *d = d.rotate_left(16) ^ *c;
        *a = a.wrapping_add(*d);
        *d = d.rotate_left(21) ^ *a;
        *c = c.wrapping_add(*b);
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }
}

fn halves(bytes: [u8; 16]) -> [u64; 2] {
    let number = u128::from_le_bytes(bytes);
    [number as u64, (number >> 64) as u64]
}

/// The upper half of the hash of a key, by the cluster's secret.
pub(super) fn tag(secret: [u8; 16], key: &OnceKey) -> u32 {
    let [k0, k1] = halves(secret);
    let mut sip = Sip([
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ]);
    let [client0, client1] = halves(key.client);
    // 28 bytes; the last word holds what is left and their number.
    for word in [client0, client1, key.fingerprint, u64::from(key.xid) | 28 << 56] {
        sip.word(word);
    }
    sip.0[2] ^= 0xff;
    (0..3).for_each(|_| sip.round());
    let [a, b, c, d] = sip.0;
    ((a ^ b ^ c ^ d) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was stored must be found by every later release.
    #[test]
    fn tags_stay_what_they_are() {
        let key = |xid| OnceKey { client: *b"0123456789abcdef", xid, fingerprint: 0x0102_0304_0506_0708 };
        let tags = [0, 1, u32::MAX].map(|xid| tag(*b"fedcba9876543210", &key(xid)));
        assert_eq!(tags, [2_295_714_505, 3_296_654_576, 4_094_956_770]);
    }

    #[test]
    fn they_are_of_siphash() {
        use std::hash::{DefaultHasher, Hasher};
        let key = OnceKey { client: *b"0123456789abcdef", xid: 77, fingerprint: 0x0102_0304_0506_0708 };
        // That of today's standard library, with a secret of zeros.
        let mut hasher = DefaultHasher::new();
        let words = [&key.client[..], &key.fingerprint.to_le_bytes(), &key.xid.to_le_bytes()].concat();
        hasher.write(&words);
        assert_eq!(tag([0; 16], &key), (hasher.finish() >> 32) as u32);
    }
}
