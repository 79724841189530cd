//! The machine's own user database and name service.

use crate::engine::exports::Resolver;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
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

    fn user_name(&self, uid: u32) -> Option<String> {
        Some(User::from_uid(Uid::from_raw(uid)).ok().flatten()?.name)
    }

    fn group_name(&self, gid: u32) -> Option<String> {
        Some(Group::from_gid(Gid::from_raw(gid)).ok().flatten()?.name)
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        Some(User::from_name(name).ok().flatten()?.uid.as_raw())
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        Some(Group::from_name(name).ok().flatten()?.gid.as_raw())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn knows_root_and_localhost() {
        assert_eq!(SystemResolver.user_name(0).as_deref(), Some("root"));
        assert_eq!(SystemResolver.user_id("root"), Some(0));
        let group = SystemResolver.group_name(0).unwrap();
        assert_eq!(SystemResolver.group_id(&group), Some(0));
        assert_eq!(SystemResolver.user_id("nobody's name"), None);
        assert!(SystemResolver.groups(0).unwrap().contains(&0));
        assert_eq!(SystemResolver.groups(4_000_000_000), None);
        assert!(SystemResolver.addresses("localhost").unwrap().iter().all(IpAddr::is_loopback));
    }
}
