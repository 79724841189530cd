//! All wire types, as functions over bytes, so that one test can try each.

use std::fmt::Debug;

use atoll_xdr::{Decode, Decoder, Encode, Entropy, Sample};
use bytes::Bytes;

use super::encode;
use crate::rpc::Procedure;
use crate::{mount, nfs3, nfs4, nfsacl, nlm, nsm, portmap, rpc, rquota};

/// One type.
pub(crate) struct Codec {
    pub(super) name: &'static str,
    /// A random value, encoded; the value that was decoded from it was equal.
    pub(super) sample: fn(&mut Entropy<'_>) -> Bytes,
    /// Decodes, and if it succeeds encodes and decodes again: the values are equal.
    pub(super) decode: fn(Bytes) -> bool,
    /// Only decodes.
    pub(super) only_decode: fn(Bytes) -> bool,
    pub(super) min_len: usize,
    /// Bytes of memory that decoding may claim whatever the length of the input: for the large elements of an array
    /// with a small bound.
    pub(super) fixed: usize,
}

pub(crate) trait Wire: Encode + Decode + Sample + PartialEq + Debug {}
impl<T: Encode + Decode + Sample + PartialEq + Debug> Wire for T {}

pub(crate) fn codec<T: Wire>() -> Codec {
    Codec {
        name: std::any::type_name::<T>(),
        sample: |s| {
            let v = T::sample(s);
            let bytes = encode(&v);
            let mut d = Decoder::new(bytes.clone());
            assert_eq!(d.decode::<T>(), Ok(v));
            assert_eq!(d.finish(), Ok(()));
            bytes
        },
        decode: |bytes| match Decoder::new(bytes).decode::<T>() {
            Ok(v) => {
                assert_eq!(Decoder::new(encode(&v)).decode::<T>(), Ok(v));
                true
            }
            Err(_) => false,
        },
        only_decode: |bytes| Decoder::new(bytes).decode::<T>().is_ok(),
        min_len: T::MIN_LEN,
        fixed: 1024,
    }
}

/// A type that holds an array of at most `count` elements of `T` that take little on the wire and much in memory. A
/// growing `Vec` holds its old and its doubled allocation at once.
fn array_of<T>(codec: Codec, count: usize) -> Codec {
    Codec { fixed: 3 * count * size_of::<T>() + codec.fixed, ..codec }
}

struct Registry(Vec<Codec>);

impl Registry {
    fn procedure<P: Procedure<Args: Wire, Res: Wire>>(&mut self) {
        self.0.push(codec::<P::Args>());
        self.0.push(codec::<P::Res>());
    }
}

macro_rules! procedures {
    ($all:ident: $( $($module:ident)::+ { $($name:ident)+ } )+) => { $(
        {
            use $($module)::+ as program;
            let declared: &[program::Proc] = program::Proc::ALL;
            let listed = [$( program::Proc::$name ),+];
            assert_eq!(declared, listed, "every procedure is tried");
            $( $all.procedure::<program::call::$name>(); )+
            $( assert_eq!(
                <program::call::$name as Procedure>::PROCEDURE,
                program::Proc::$name.to_u32(),
            ); )+
        }
    )+ };
}

/// Arguments and results of every procedure, and the RPC headers.
pub(super) fn all() -> Vec<Codec> {
    let mut all = Registry(vec![
        codec::<rpc::OpaqueAuth>(),
        codec::<rpc::AuthSys>(),
        codec::<rpc::ReplyHeader>(),
        codec::<nsm::Status>(),
        codec::<nfs3::WccData>(),
        codec::<nfs3::Sattr3>(),
        codec::<nfs3::Fattr3>(),
        codec::<nfs3::FileHandle>(),
    ]);
    procedures! { all:
        portmap::v2 { Null Set Unset GetPort Dump CallIt }
        portmap::v3 { Null Set Unset GetAddr Dump CallIt GetTime Uaddr2Taddr Taddr2Uaddr }
        portmap::v4 {
            Null Set Unset GetAddr Dump Bcast GetTime Uaddr2Taddr Taddr2Uaddr GetVersAddr Indirect GetAddrList
        }
        mount::v1 { Null Mnt Dump Umnt UmntAll Export ExportAll }
        mount::v3 { Null Mnt Dump Umnt UmntAll Export }
        nfs3 {
            Null GetAttr SetAttr Lookup Access ReadLink Read Write Create MkDir SymLink MkNod Remove RmDir Rename Link
            ReadDir ReadDirPlus FsStat FsInfo PathConf Commit
        }
        nfsacl { Null GetAcl SetAcl }
        nlm::v1 {
            Null Test Lock Cancel Unlock Granted TestMsg LockMsg CancelMsg UnlockMsg GrantedMsg TestRes LockRes CancelRes
            UnlockRes GrantedRes
        }
        nlm::v3 {
            Null Test Lock Cancel Unlock Granted TestMsg LockMsg CancelMsg UnlockMsg GrantedMsg TestRes LockRes CancelRes
            UnlockRes GrantedRes Share Unshare NmLock FreeAll
        }
        nlm::v4 {
            Null Test Lock Cancel Unlock Granted TestMsg LockMsg CancelMsg UnlockMsg GrantedMsg TestRes LockRes CancelRes
            UnlockRes GrantedRes Share Unshare NmLock FreeAll
        }
        nsm { Null Stat Mon Unmon UnmonAll SimuCrash Notify }
        rquota::v1 { Null GetQuota GetActiveQuota }
        rquota::v2 { Null GetQuota GetActiveQuota }
    }
    let mut codecs = all.0;
    codecs.extend(nfs4::operation_codecs());
    codecs.extend([
        array_of::<nfs4::ArgOp4>(codec::<nfs4::Compound4Args>(), nfs4::limits::MAX_OPS),
        array_of::<nfs4::ResOp4>(codec::<nfs4::Compound4Res>(), nfs4::limits::MAX_OPS),
        array_of::<nfs4::callback::CbArgOp4>(
            codec::<nfs4::callback::CbCompound4Args>(),
            nfs4::limits::MAX_OPS,
        ),
        array_of::<nfs4::callback::CbResOp4>(
            codec::<nfs4::callback::CbCompound4Res>(),
            nfs4::limits::MAX_OPS,
        ),
        codec::<nfs4::callback::NotifyRename4>(),
        codec::<nfs4::callback::NotifyAttr4>(),
        codec::<nfs4::callback::NotifyVerifier4>(),
        codec::<nfs4::FsLocations4>(),
        codec::<nfs4::FsLocationsInfo4>(),
        codec::<nfs4::FsStatus4>(),
        codec::<nfs4::MdsThreshold4>(),
        codec::<nfs4::LayoutHint4>(),
        codec::<nfs4::RetentionGet4>(),
        codec::<nfs4::RetentionSet4>(),
        codec::<nfs4::SecLabel4>(),
        codec::<nfs4::OpenArguments4>(),
        codec::<nfs4::Acl4>(),
        codec::<nfs4::Acl41>(),
        codec::<nfs4::SetTime4>(),
        codec::<nfs4::ModeUmask4>(),
        codec::<nfs4::ModeMasked4>(),
    ]);
    codecs.sort_by_key(|codec| codec.name);
    codecs.dedup_by_key(|codec| codec.name);
    codecs
}
