//! Credentials and verifiers (RFC 5531 §8.2, §9, appendix A).

use atoll_xdr::{Decode, Decoder, Encode, Encoder, Error, Opaque, Result, xdr_enum, xdr_struct};

/// Longest body of a credential or verifier in bytes (RFC 5531 §8.2).
pub const MAX_AUTH_BODY: usize = 400;

/// Longest machine name in an AUTH_SYS credential (RFC 5531 appendix A).
pub const MAX_MACHINE_NAME: usize = 255;

/// Most supplementary groups in an AUTH_SYS credential (RFC 5531 appendix A).
pub const AUTH_SYS_MAX_GIDS: usize = 16;

/// Body of the verifier by which a server accepts a TLS probe (RFC 9289 §4.1).
pub const STARTTLS: &[u8; 8] = b"STARTTLS";

xdr_enum! {
    /// Authentication flavors this implementation knows (RFC 5531 §8.2, RFC 9289 §7.2).
    ///
    /// On the wire a flavor is any number: [`OpaqueAuth::flavor`] keeps it raw, so an unknown one can be answered
    /// with `AUTH_REJECTEDCRED` rather than as garbage.
    pub enum AuthFlavor {
        /// No identity.
        None = 0,
        /// Numeric uid, gid and groups, unproven.
        Sys = 1,
        /// A short hand that a server gave out for an AUTH_SYS credential; never given out by this one.
        Short = 2,
        /// Diffie-Hellman, obsolete.
        Dh = 3,
        /// GSS-API (RFC 2203).
        RpcsecGss = 6,
        /// Asks whether the server offers TLS (RFC 9289 §4.1).
        Tls = 7,
    }
}

xdr_struct! {
    /// `opaque_auth`: a credential or a verifier, its body not yet looked at.
    #[derive(Hash)]
    pub struct OpaqueAuth {
        /// Number of the flavor, of [`AuthFlavor`] or unknown.
        pub flavor: u32,
        /// Flavor-specific body.
        pub body: Opaque<MAX_AUTH_BODY>,
    }
}

impl OpaqueAuth {
    /// AUTH_NONE with an empty body.
    pub const NONE: Self = Self { flavor: AuthFlavor::None as u32, body: Opaque::from_static(b"") };

    /// An AUTH_SYS credential.
    pub fn sys(sys: &AuthSys) -> Self {
        let mut e = Encoder::new();
        e.put(sys);
        let body = Opaque::new(e.into_bytes())
            .expect("the longest authsys_parms (20 + 256 + 64 bytes) is below the bound of an auth body");
        Self { flavor: AuthFlavor::Sys as u32, body }
    }

    /// The verifier that answers a TLS probe with yes (RFC 9289 §4.1).
    pub const fn starttls() -> Self {
        Self { flavor: AuthFlavor::None as u32, body: Opaque::from_static(STARTTLS) }
    }

    /// The known flavor, if it is one.
    pub fn known_flavor(&self) -> Option<AuthFlavor> {
        AuthFlavor::from_u32(self.flavor)
    }

    /// Reads the body as AUTH_SYS parameters; nothing may follow them. The caller has checked the flavor; a failure
    /// is answered with `AUTH_BADCRED`.
    pub fn auth_sys(&self) -> Result<AuthSys> {
        let mut d = Decoder::new(self.body.as_bytes().clone());
        let sys = d.decode()?;
        d.finish()?;
        Ok(sys)
    }
}

/// Supplementary groups of an AUTH_SYS credential, stored inline: decoding a call allocates nothing for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Gids {
    // Entries from `len` on are 0, so that equality and hash are those of the slice.
    gids: [u32; AUTH_SYS_MAX_GIDS],
    len: u8,
}

impl Gids {
    /// Groups from a slice of at most [`AUTH_SYS_MAX_GIDS`].
    pub fn new(gids: &[u32]) -> Result<Self> {
        let mut all = [0; AUTH_SYS_MAX_GIDS];
        match all.get_mut(..gids.len()) {
            Some(head) => head.copy_from_slice(gids),
            None => return Err(Error::TooLong { len: gids.len(), max: AUTH_SYS_MAX_GIDS }),
        }
        #[allow(clippy::cast_possible_truncation)] // at most 16
        Ok(Self { gids: all, len: gids.len() as u8 })
    }
}

impl std::ops::Deref for Gids {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.gids[..usize::from(self.len)]
    }
}

impl std::fmt::Debug for Gids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Decode for Gids {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> Result<Self> {
        let len = d.count(AUTH_SYS_MAX_GIDS, 4)?;
        let mut gids = [0; AUTH_SYS_MAX_GIDS];
        for gid in &mut gids[..len] {
            *gid = d.u32()?;
        }
        #[allow(clippy::cast_possible_truncation)] // at most 16
        Ok(Self { gids, len: len as u8 })
    }
}

impl Encode for Gids {
    fn encode(&self, e: &mut Encoder) {
        e.u32(u32::from(self.len));
        for gid in self.iter() {
            e.u32(*gid);
        }
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for Gids {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        let gids: Vec<u32> = (0..s.below(AUTH_SYS_MAX_GIDS + 1)).map(|_| u32::sample(s)).collect();
        Self::new(&gids).expect("at most 16")
    }
}

xdr_struct! {
    /// `authsys_parms`: body of an AUTH_SYS credential (RFC 5531 appendix A).
    pub struct AuthSys {
        /// Arbitrary number chosen by the caller, often the time.
        pub stamp: u32,
        /// Name of the caller's machine; unproven and never an identity.
        pub machine_name: Opaque<MAX_MACHINE_NAME>,
        /// Effective user.
        pub uid: u32,
        /// Effective group.
        pub gid: u32,
        /// Supplementary groups.
        pub gids: Gids,
    }
}
