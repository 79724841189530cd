//! Security labels between file system and wire (RFC 7862 §9, §12.2.4; label formats: RFC 7569).
//!
//! The server is in the limited mode of §9.5.2: it stores what clients set, shows it, has delegations come back before it changes, and takes
//! it into account nowhere. Only exports with the option `security_label` have the attribute, as with knfsd: a client that knows labels then asks for
//! it with every object, and trusts what others wrote.

use atoll_base::label::Label;
use atoll_base::limits::LABEL_MAX;
use atoll_proto::nfs4::{Attr4, Bitmap, NfsStat4, SecLabel4};
use atoll_xdr::Opaque;

/// The attribute.
pub(crate) const LABEL: Bitmap = Bitmap::of(&[Attr4::SecLabel as u32]);

/// Whether the answer has no label for an object without one. Linux clients take an empty one for a broken one and complain of each. Asked for
/// nothing else it is empty, since that is how a client finds out that there are labels (§9.4).
pub(crate) fn left_out(asked: &Bitmap) -> bool {
    *asked != LABEL
}

/// A label as the attribute has it.
pub(crate) fn shown(label: Option<&Label>) -> SecLabel4 {
    match label {
        Some(label) => SecLabel4 {
            lfs: label.format,
            policy: label.policy,
            data: Opaque::new(label.data.clone()).expect("a stored label is below the wire's bound"),
        },
        None => SecLabel4 { lfs: 0, policy: 0, data: Opaque::default() },
    }
}

/// What a client wants set, of any format. An empty label removes what is there.
pub(crate) fn wanted(label: &SecLabel4) -> Result<Label, NfsStat4> {
    if label.data.len() > LABEL_MAX {
        return Err(NfsStat4::BadLabel);
    }
    Ok(Label { format: label.lfs, policy: label.policy, data: label.data.as_bytes().clone() })
}
