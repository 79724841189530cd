//! Clients of v4.0: SETCLIENTID, SETCLIENTID_CONFIRM, RENEW (RFC 7530 §16.29, §16.33, §16.34).

use crate::engine::v4::compound::{Compound, Done, Halt};
use atoll_base::block::BlockService;
use atoll_meta::MetadataService;
use atoll_meta::nfs4::{Callback40, ClientId, ClientOp, ClientOutcome};
use atoll_proto::nfs4::{
    ClientUsing4, Failure, NetAddr4, NfsStat4, SetClientId4Args, SetClientId4Ok, SetClientIdConfirm4Args,
    Text4,
};
use bytes::Bytes;

fn text(bytes: &Bytes) -> Text4 {
    Text4::new(bytes.clone()).unwrap_or_default()
}

impl<M: MetadataService, B: BlockService> Compound<M, B> {
    pub(crate) async fn set_client_id(
        &mut self,
        args: SetClientId4Args,
    ) -> Result<Result<SetClientId4Ok, Failure<ClientUsing4>>, Halt> {
        let location = args.callback.cb_location;
        let op = ClientOp::SetClientId {
            owner: args.client.ownerid.into_bytes(),
            verifier: args.client.verifier,
            principal: self.principal(),
            callback: Callback40 {
                program: args.callback.cb_program,
                netid: location.netid.into_bytes(),
                address: location.addr.into_bytes(),
                ident: args.callback_ident,
            },
            about: self.about(Bytes::new()),
        };
        match self.change_client(op).await {
            Ok(ClientOutcome::Set { client, confirm }) => {
                self.engine.v4.leases.renew(client);
                Ok(Ok(SetClientId4Ok { clientid: client.0, setclientid_confirm: confirm }))
            }
            Ok(ClientOutcome::InUse(callback)) => {
                let client_using = NetAddr4 { netid: text(&callback.netid), addr: text(&callback.address) };
                Ok(Err(Failure::With(ClientUsing4 { client_using })))
            }
            Ok(other) => unreachable!("SETCLIENTID ended as {other:?}"),
            Err(Halt::Status(status)) => Ok(Err(Failure::Plain(status))),
            Err(halt) => Err(halt),
        }
    }

    pub(crate) async fn confirm_client_id(&mut self, args: &SetClientIdConfirm4Args) -> Done<()> {
        let op = ClientOp::Confirm {
            client: ClientId(args.clientid),
            confirm: args.setclientid_confirm,
            principal: self.principal(),
        };
        self.settle_client(op).await?;
        let client = ClientId(args.clientid);
        self.engine.v4.leases.renew(client);
        // Perhaps it gave another address.
        self.engine.v4.delegations.paths40.forget(client);
        let _tried = self.engine.has_path_40(client, self.call.local.ip());
        Ok(())
    }

    pub(crate) async fn renew(&mut self, client: u64) -> Done<()> {
        let client = self.acting(client).await?;
        // RFC 7530 §16.28.4: it is to return what it has, and give an address that can be reached.
        if self.engine.v4.delegations.paths40.is_missed(client) {
            return Err(NfsStat4::CbPathDown.into());
        }
        Ok(())
    }
}
