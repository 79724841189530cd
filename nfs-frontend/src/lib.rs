//! NFS engine and server: protocol state, dirty data, sockets.
