//! SECINFO, SECINFO_NO_NAME (RFC 8881 §18.29, §18.45; RFC 7530 §16.31): which flavours an object's export accepts.

use crate::engine::v4::compound::{Compound, Done, Halt, Object};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::export::SecFlavor;
use atoll_proto::nfs4::{Name4, NfsStat4, SecInfo4, SecInfoStyle4};
use atoll_proto::rpc::AuthFlavor;
use atoll_xdr::Array;

type Flavors = Array<SecInfo4, { atoll_proto::nfs4::limits::MAX_CHOICES }>;

fn flavors(object: &Object) -> Done<Flavors> {
    let accepted: Vec<SecInfo4> = match object {
        Object::Pseudo(..) => {
            vec![SecInfo4::Flavor(AuthFlavor::Sys as u32), SecInfo4::Flavor(AuthFlavor::None as u32)]
        }
        Object::Real(node) => {
            let known = node.export.spec.sec.iter().filter_map(|flavor| match flavor {
                SecFlavor::Sys => Some(AuthFlavor::Sys as u32),
                SecFlavor::None => Some(AuthFlavor::None as u32),
                // Not spoken yet; an export that accepts only these is refused when it is made.
                SecFlavor::Krb5 | SecFlavor::Krb5i | SecFlavor::Krb5p => None,
            });
            known.map(SecInfo4::Flavor).collect()
        }
    };
    Ok(Array::new(accepted).map_err(|_| NfsStat4::ServerFault)?)
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn sec_info(&mut self, name: &Name4) -> Done<Flavors> {
        let object = self.object()?.clone();
        super::names::check(name)?;
        let found = self.look_up(&object, name).await.map_err(|halt| match halt {
            // Not among its errors, as it is among LOOKUP's.
            Halt::Status(NfsStat4::Symlink) => NfsStat4::NotDir.into(),
            other => other,
        })?;
        self.consume();
        flavors(&found)
    }

    pub(crate) async fn sec_info_no_name(&mut self, style: SecInfoStyle4) -> Done<Flavors> {
        let object = self.object()?.clone();
        let found = match style {
            SecInfoStyle4::CurrentFh => object,
            SecInfoStyle4::Parent => self.parent(&object).await?,
        };
        self.consume();
        flavors(&found)
    }

    /// In v4.1 the current handle is used up (RFC 8881 §2.6.3.1.1.8).
    fn consume(&mut self) {
        if self.minor > 0 {
            self.current = None;
        }
    }
}
