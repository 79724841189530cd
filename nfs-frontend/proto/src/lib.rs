//! Wire types of ONC RPC, portmap, MOUNT, NFSv3, NLM, NSM, RQUOTA and NFSACL.
