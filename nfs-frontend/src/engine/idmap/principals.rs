//! Users and groups as NFSv4 writes them (RFC 8881 §5.9, RFC 7530 §5.9).
//!
//! Without a domain they are numbers in digits: these say the same at every client that trusts AUTH_SYS, whatever names it has. With one they are
//! `name@domain` as this machine's user database has them, and digits for who has no name there. Digits are understood always, `name@domain` of the own domain
//! only. Which machine's database it is, is the administrator's business: all frontends of a cluster must agree.

use super::Cache;
use crate::engine::exports::Resolver;
use atoll_proto::nfs4::{NfsStat4, Principal4};
use std::sync::Arc;
use std::time::Duration;

/// Entries in each of the two directions. One is some hundred bytes.
const NAMES_MAX: usize = 16384;

/// Longest name that is shown, domain included; who has a longer one is shown by number. Two lists of 1024 entries must fit into the bound of one object's attributes.
const SHOWN_MAX: usize = 96;

/// A user or a group: they are different name spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// `owner`, and who strings of ACEs.
    User,
    /// `owner_group`, and who strings of ACEs for groups.
    Group,
}

/// See the module.
pub(crate) struct Principals {
    /// In lower case; none: digits.
    domain: Option<String>,
    resolver: Arc<dyn Resolver>,
    names: Arc<Cache<(Kind, u32), Principal4>>,
    ids: Arc<Cache<(Kind, Vec<u8>), u32>>,
}

impl std::fmt::Debug for Principals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Principals").field("domain", &self.domain).finish_non_exhaustive()
    }
}

fn digits(id: u32) -> Principal4 {
    Principal4::copy_from(id.to_string().as_bytes()).expect("ten digits are below the bound")
}

impl Principals {
    pub(crate) fn new(
        domain: Option<&str>,
        resolver: Arc<dyn Resolver>,
        ttl: Duration,
        timeout: Duration,
    ) -> Self {
        Self {
            domain: domain.map(str::to_ascii_lowercase),
            resolver,
            names: Arc::new(Cache::new(NAMES_MAX, ttl, timeout)),
            ids: Arc::new(Cache::new(NAMES_MAX, ttl, timeout)),
        }
    }

    /// How users and groups are shown.
    pub(crate) async fn show(&self, all: impl Iterator<Item = (Kind, u32)>) -> Shown {
        let mut shown = Shown::default();
        let Some(domain) = &self.domain else { return shown };
        for (kind, id) in all {
            if let Some(name) = self.name_of(kind, id, domain.clone()).await {
                shown.0.push(((kind, id), name));
            }
        }
        shown
    }

    async fn name_of(&self, kind: Kind, id: u32, domain: String) -> Option<Principal4> {
        let resolver = self.resolver.clone();
        let look_up = move || {
            let name = match kind {
                Kind::User => resolver.user_name(id),
                Kind::Group => resolver.group_name(id),
            }?;
            let whole = format!("{name}@{domain}");
            (whole.len() <= SHOWN_MAX).then(|| Principal4::copy_from(whole.as_bytes()).ok()).flatten()
        };
        self.names.get((kind, id), look_up).await
    }

    /// Who is meant by what a client wrote.
    pub(crate) async fn read<'a>(&self, all: impl Iterator<Item = (Kind, &'a Principal4)>) -> Meant {
        let mut meant = Meant::default();
        let Some(own) = &self.domain else { return meant };
        for (kind, written) in all {
            let text = std::str::from_utf8(written.as_bytes()).unwrap_or_default();
            let Some((name, domain)) = text.rsplit_once('@') else { continue };
            if domain.eq_ignore_ascii_case(own)
                && let Some(id) = self.id_of(kind, name.to_owned()).await
            {
                meant.0.push(((kind, written.clone()), id));
            }
        }
        meant
    }

    async fn id_of(&self, kind: Kind, name: String) -> Option<u32> {
        let resolver = self.resolver.clone();
        let key = (kind, name.clone().into_bytes());
        let look_up = move || match kind {
            Kind::User => resolver.user_id(&name),
            Kind::Group => resolver.group_id(&name),
        };
        self.ids.get(key, look_up).await
    }
}

/// The names of some users and groups, looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown(Vec<((Kind, u32), Principal4)>);

impl Shown {
    /// How one is shown.
    pub(crate) fn name(&self, kind: Kind, id: u32) -> Principal4 {
        let named = self.0.iter().find(|(who, _)| *who == (kind, id));
        named.map_or_else(|| digits(id), |(_, name)| name.clone())
    }
}

/// Some users and groups that a client named, looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meant(Vec<((Kind, Principal4), u32)>);

impl Meant {
    /// Who is meant: `BadOwner` if nobody is known by that name, `Inval` if it is empty.
    pub(crate) fn id(&self, kind: Kind, written: &Principal4) -> Result<u32, NfsStat4> {
        let bytes: &[u8] = written.as_bytes();
        if bytes.is_empty() {
            return Err(NfsStat4::Inval);
        }
        if let Some((_, id)) = self.0.iter().find(|((k, name), _)| *k == kind && name == written) {
            return Ok(*id);
        }
        let is_number = bytes.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(bytes).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        number.ok_or(NfsStat4::BadOwner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::tests::world::Names;

    fn principals(domain: Option<&str>) -> Principals {
        let second = Duration::from_secs(1);
        Principals::new(domain, Arc::new(Names), second, second)
    }

    fn written(text: &str) -> Principal4 {
        Principal4::copy_from(text.as_bytes()).unwrap()
    }

    async fn show(all: &Principals, kind: Kind, id: u32) -> Principal4 {
        all.show([(kind, id)].into_iter()).await.name(kind, id)
    }

    async fn read(all: &Principals, kind: Kind, text: &str) -> Result<u32, NfsStat4> {
        let written = written(text);
        all.read([(kind, &written)].into_iter()).await.id(kind, &written)
    }

    #[tokio::test]
    async fn without_a_domain_there_are_only_digits() {
        let all = principals(None);
        assert_eq!(show(&all, Kind::User, 500).await, written("500"));
        assert_eq!(read(&all, Kind::User, "4294967295").await, Ok(u32::MAX));
        for bad in ["alice@example.org", "alice", "4294967296", "-1", "1x"] {
            assert_eq!(read(&all, Kind::User, bad).await, Err(NfsStat4::BadOwner), "{bad}");
        }
        assert_eq!(read(&all, Kind::User, "").await, Err(NfsStat4::Inval));
    }

    #[tokio::test]
    async fn with_a_domain_there_are_names_and_digits_for_who_has_none() {
        let all = principals(Some("Example.ORG"));
        assert_eq!(show(&all, Kind::User, 500).await, written("alice@example.org"));
        assert_eq!(show(&all, Kind::Group, 500).await, written("500"), "no group");
        assert_eq!(show(&all, Kind::Group, 1000).await, written("staff@example.org"));
        assert_eq!(read(&all, Kind::User, "alice@EXAMPLE.org").await, Ok(500));
        assert_eq!(read(&all, Kind::Group, "staff@example.org").await, Ok(1000));
        assert_eq!(read(&all, Kind::User, "77").await, Ok(77));
        for bad in ["alice@example.com", "alice", "staff@example.org", "@example.org"] {
            assert_eq!(read(&all, Kind::User, bad).await, Err(NfsStat4::BadOwner), "{bad}");
        }
    }
}
