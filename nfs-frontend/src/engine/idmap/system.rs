//! The machine's own user database and name service.

use crate::engine::exports::Resolver;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use std::ffi::CString;
use std::net::{IpAddr, ToSocketAddrs};

/// Asks through the C library, so that whatever `nsswitch.conf` says holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn groups(&self, uid: u32) -> Option<Vec<u32>> {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
        let name = CString::new(user.name).ok()?;
        let groups = getgrouplist(&name, user.gid).ok()?;
        Some(groups.into_iter().map(Gid::as_raw).collect())
    }

    fn addresses(&self, host: &str) -> Option<Vec<IpAddr>> {
        // The port only completes the form that the call wants.
        let all = (host, 0).to_socket_addrs().ok()?;
        Some(all.map(|address| address.ip()).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn knows_root_and_localhost() {
        assert!(SystemResolver.groups(0).unwrap().contains(&0));
        assert_eq!(SystemResolver.groups(4_000_000_000), None);
        assert!(SystemResolver.addresses("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
