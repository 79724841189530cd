//! Security flavors: SECINFO, SECINFO_NO_NAME (RFC 8881 §18.29, §18.45).

use atoll_xdr::{Array, Decode, Decoder, Encode, Encoder, Opaque, Result as XdrResult, xdr_enum, xdr_struct};

use super::limits::{MAX_CHOICES, MAX_GSS};
use super::{Name4, NfsStat4};
use crate::rpc::AuthFlavor;

xdr_enum! {
    /// Service of RPCSEC_GSS (`rpc_gss_svc_t`; `rpc_gss_service_t` in RFC 2203 §5).
    pub enum GssService4 {
        /// Authentication only.
        None = 1,
        /// Integrity.
        Integrity = 2,
        /// Privacy.
        Privacy = 3,
    }

    /// Which object SECINFO_NO_NAME is about (`secinfo_style4`).
    pub enum SecInfoStyle4 {
        /// The current one.
        CurrentFh = 0,
        /// Its parent.
        Parent = 1,
    }
}

xdr_struct! {
    /// Arguments of SECINFO.
    pub struct SecInfo4Args {
        /// A name in the current directory.
        pub name: Name4,
    }

    /// A GSS mechanism (`rpcsec_gss_info`).
    pub struct GssInfo4 {
        /// Mechanism.
        pub oid: Opaque<MAX_GSS>,
        /// Quality of protection.
        pub qop: u32,
        /// Service.
        pub service: GssService4,
    }
}

/// A flavor that is accepted (`secinfo4`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecInfo4 {
    /// RPCSEC_GSS with a mechanism.
    Gss(GssInfo4),
    /// Another flavor, by its number.
    Flavor(u32),
}

const RPCSEC_GSS: u32 = AuthFlavor::RpcsecGss as u32;

impl Encode for SecInfo4 {
    fn encode(&self, e: &mut Encoder) {
        match self {
            Self::Gss(info) => {
                e.u32(RPCSEC_GSS);
                e.put(info);
            }
            Self::Flavor(flavor) => {
                debug_assert_ne!(*flavor, RPCSEC_GSS, "RPCSEC_GSS comes with a mechanism");
                e.u32(*flavor);
            }
        }
    }
}

impl Decode for SecInfo4 {
    const MIN_LEN: usize = 4;

    fn decode(d: &mut Decoder) -> XdrResult<Self> {
        Ok(match d.u32()? {
            RPCSEC_GSS => Self::Gss(d.decode()?),
            flavor => Self::Flavor(flavor),
        })
    }
}

#[cfg(test)]
impl atoll_xdr::Sample for SecInfo4 {
    fn sample(s: &mut atoll_xdr::Entropy<'_>) -> Self {
        match u32::sample(s) {
            flavor if flavor % 2 == 0 && flavor != RPCSEC_GSS => Self::Flavor(flavor),
            _ => Self::Gss(GssInfo4::sample(s)),
        }
    }
}

/// Results of SECINFO and SECINFO_NO_NAME: flavors in the order of the server's preference.
pub type SecInfo4Res = Result<Array<SecInfo4, MAX_CHOICES>, NfsStat4>;
