//! The words of an export: `PATH=CLIENTS,OPTION,…`.
//!
//! The options are those of exports(5) where they exist there. CLIENTS are joined by `:`; an IPv6 address stands in
//! brackets, `[2001:db8::]/32`.

use anyhow::{Context, Result, bail};
use atoll_base::id::{ROOT_VOLUME, VolumeId};
use atoll_meta::export::{AtimePolicy, ClientMatch, ExportSpec, SecFlavor, Squash};
use std::fmt::Write as _;
use std::net::IpAddr;

/// uid and gid of squashed callers: what Linux and others call nobody.
const NOBODY: u32 = 65534;

/// An export as it was typed: the volume still by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportWords {
    /// Everything but the volume.
    pub spec: ExportSpec,
    /// Name of the volume, if not the root volume.
    pub volume: Option<String>,
}

impl std::str::FromStr for ExportWords {
    type Err = anyhow::Error;

    fn from_str(words: &str) -> Result<Self> {
        parse(words).with_context(|| format!("--export {words:?}"))
    }
}

fn parse(words: &str) -> Result<ExportWords> {
    let Some((path, rest)) = words.split_once('=') else {
        bail!("expected PATH=CLIENTS,OPTION,… such as '/=192.168.0.0/16,rw'");
    };
    check_path(path)?;
    let mut parts = rest.split(',');
    let clients = parse_clients(parts.next().unwrap_or_default())?;
    let mut out = ExportWords { spec: spec(path, clients), volume: None };
    for option in parts {
        apply(&mut out, option)?;
    }
    Ok(out)
}

/// An export of `path` with the defaults of exports(5): but read-write, as these are the only words for it.
fn spec(path: &str, clients: Vec<ClientMatch>) -> ExportSpec {
    ExportSpec {
        path: path.to_owned(),
        volume: ROOT_VOLUME,
        volume_path: path.to_owned(),
        clients,
        read_only: false,
        squash: Squash::Root,
        anon_uid: NOBODY,
        anon_gid: NOBODY,
        sec: vec![SecFlavor::Sys],
        secure: true,
        manage_gids: false,
        atime: AtimePolicy::Relative,
        security_label: false,
    }
}

/// What is exported when nobody said anything: `/`, read-write, to this machine alone.
pub fn loopback_only() -> ExportSpec {
    let clients = vec![
        ClientMatch::Network { addr: IpAddr::from([127, 0, 0, 0]), prefix: 8 },
        ClientMatch::Network { addr: std::net::Ipv6Addr::LOCALHOST.into(), prefix: 128 },
    ];
    ExportSpec { squash: Squash::None, secure: false, ..spec("/", clients) }
}

fn check_path(path: &str) -> Result<()> {
    if !path.starts_with('/') {
        bail!("the path {path:?} must begin with /");
    }
    if path != "/" && path[1..].split('/').any(|c| matches!(c, "" | "." | "..")) {
        bail!("the path {path:?} must have no empty, . or .. components and no / at the end");
    }
    Ok(())
}

fn apply(out: &mut ExportWords, option: &str) -> Result<()> {
    let spec = &mut out.spec;
    let number = |value: &str| value.parse::<u32>().with_context(|| format!("{option:?}: not a number"));
    match option.split_once('=') {
        None => match option {
            "ro" => spec.read_only = true,
            "rw" => spec.read_only = false,
            "root_squash" => spec.squash = Squash::Root,
            "no_root_squash" => spec.squash = Squash::None,
            "all_squash" => spec.squash = Squash::All,
            "secure" => spec.secure = true,
            "insecure" => spec.secure = false,
            "manage_gids" => spec.manage_gids = true,
            "security_label" => spec.security_label = true,
            "relatime" => spec.atime = AtimePolicy::Relative,
            "noatime" => spec.atime = AtimePolicy::Never,
            "strictatime" => spec.atime = AtimePolicy::Strict,
            _ => bail!("unknown option {option:?}"),
        },
        Some(("anonuid", value)) => spec.anon_uid = number(value)?,
        Some(("anongid", value)) => spec.anon_gid = number(value)?,
        Some(("sec", value)) => spec.sec = parse_sec(value)?,
        Some(("volume", value)) => {
            out.volume = Some(value.to_owned());
            // Of another volume, all is exported unless `subdir=` says otherwise.
            spec.volume_path = "/".to_owned();
        }
        Some(("subdir", value)) => {
            check_path(value)?;
            spec.volume_path = value.to_owned();
        }
        Some(_) => bail!("unknown option {option:?}"),
    }
    Ok(())
}

fn parse_sec(value: &str) -> Result<Vec<SecFlavor>> {
    value
        .split(':')
        .map(|flavor| match flavor {
            "sys" => Ok(SecFlavor::Sys),
            "none" => Ok(SecFlavor::None),
            "krb5" | "krb5i" | "krb5p" => bail!("sec={flavor} is not supported yet: sys and none are"),
            other => bail!("unknown security flavour {other:?}"),
        })
        .collect()
}

fn parse_clients(words: &str) -> Result<Vec<ClientMatch>> {
    // A lone IPv6 address or network needs no brackets.
    if let Some(Ok(network)) = parse_network(words) {
        return Ok(vec![network]);
    }
    let mut clients = Vec::new();
    let mut depth = 0;
    for word in words.split(|c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ':' && depth == 0
    }) {
        clients.push(parse_client(word)?);
    }
    Ok(clients)
}

fn parse_client(word: &str) -> Result<ClientMatch> {
    if word == "*" {
        return Ok(ClientMatch::Any);
    }
    if let Some(network) = parse_network(word) {
        return network;
    }
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if word.len() <= 253 && word.split('.').all(label_ok) {
        return Ok(ClientMatch::Host(word.to_ascii_lowercase()));
    }
    bail!(
        "{word:?} is no client: expected *, a host name, an address, or a network such as 10.0.0.0/8 or [2001:db8::]/32"
    )
}

/// `None` if it does not look like an address at all.
fn parse_network(word: &str) -> Option<Result<ClientMatch>> {
    let (addr, prefix) = match word.rsplit_once('/') {
        Some((addr, prefix)) => (addr, Some(prefix)),
        None => (word, None),
    };
    let bare = addr.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(addr);
    let addr: IpAddr = bare.parse().ok()?;
    let full = if addr.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix.map(str::parse::<u8>) {
        None => full,
        Some(Ok(prefix)) if prefix <= full => prefix,
        Some(_) => return Some(Err(anyhow::anyhow!("{word:?}: the prefix length must be 0 to {full}"))),
    };
    Some(Ok(ClientMatch::Network { addr: masked(addr, prefix), prefix }))
}

/// The address with its host bits cleared.
fn masked(addr: IpAddr, prefix: u8) -> IpAddr {
    let keep = |bits: u8| u128::MAX.checked_shl(u32::from(bits - prefix)).unwrap_or(0);
    match addr {
        IpAddr::V4(v4) => IpAddr::from((u32::from(v4) & keep(32) as u32).to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & keep(128)).to_be_bytes()),
    }
}

/// Clients in the form in which they are typed.
pub fn clients_to_words(clients: &[ClientMatch]) -> String {
    let words = clients.iter().map(|client| match client {
        ClientMatch::Any => "*".to_owned(),
        ClientMatch::Host(name) => name.clone(),
        ClientMatch::Network { addr: IpAddr::V4(addr), prefix: 32 } => addr.to_string(),
        ClientMatch::Network { addr: IpAddr::V4(addr), prefix } => format!("{addr}/{prefix}"),
        ClientMatch::Network { addr: IpAddr::V6(addr), prefix } => format!("[{addr}]/{prefix}"),
    });
    words.collect::<Vec<_>>().join(":")
}

/// An export in the form in which it is typed; parsing it again gives the same.
pub fn to_words(spec: &ExportSpec, volume: Option<&str>) -> String {
    let mut out = format!("{}={}", spec.path, clients_to_words(&spec.clients));
    out.push_str(if spec.read_only { ",ro" } else { ",rw" });
    out.push_str(match spec.squash {
        Squash::None => ",no_root_squash",
        Squash::Root => ",root_squash",
        Squash::All => ",all_squash",
    });
    if !spec.secure {
        out.push_str(",insecure");
    }
    let mut number = |name: &str, value: u32| {
        if value != NOBODY {
            let _infallible = write!(out, ",{name}={value}");
        }
    };
    number("anonuid", spec.anon_uid);
    number("anongid", spec.anon_gid);
    if spec.sec != [SecFlavor::Sys] {
        let names = spec.sec.iter().map(|flavor| match flavor {
            SecFlavor::Sys => "sys",
            SecFlavor::None => "none",
            SecFlavor::Krb5 => "krb5",
            SecFlavor::Krb5i => "krb5i",
            SecFlavor::Krb5p => "krb5p",
        });
        out.push_str(",sec=");
        out.push_str(&names.collect::<Vec<_>>().join(":"));
    }
    if spec.manage_gids {
        out.push_str(",manage_gids");
    }
    if spec.security_label {
        out.push_str(",security_label");
    }
    match spec.atime {
        AtimePolicy::Relative => {}
        AtimePolicy::Never => out.push_str(",noatime"),
        AtimePolicy::Strict => out.push_str(",strictatime"),
    }
    if spec.volume != VolumeId(1) || volume.is_some() {
        let _infallible = write!(out, ",volume={}", volume.unwrap_or("?"));
    }
    let implied = if volume.is_some() { "/" } else { &spec.path };
    if spec.volume_path != implied {
        let _infallible = write!(out, ",subdir={}", spec.volume_path);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn spec_of(words: &str) -> ExportSpec {
        words.parse::<ExportWords>().unwrap().spec
    }

    #[test]
    fn the_form_of_the_readme() {
        let spec = spec_of("/=*,rw,no_root_squash");
        assert_eq!(spec.clients, [ClientMatch::Any]);
        assert_eq!((spec.read_only, spec.squash, spec.secure), (false, Squash::None, true));
    }

    #[test]
    fn several_clients_and_networks() {
        let spec =
            spec_of("/a/b=10.1.2.3/8:[2001:db8::1]/32:Host.example:192.168.1.1,ro,anonuid=7,sec=sys:none");
        assert_eq!(
            spec.clients,
            [
                ClientMatch::Network { addr: "10.0.0.0".parse().unwrap(), prefix: 8 },
                ClientMatch::Network { addr: "2001:db8::".parse().unwrap(), prefix: 32 },
                ClientMatch::Host("host.example".into()),
                ClientMatch::Network { addr: "192.168.1.1".parse().unwrap(), prefix: 32 },
            ]
        );
        assert!(spec.read_only);
        assert_eq!((spec.anon_uid, spec.anon_gid), (7, NOBODY));
        assert_eq!(spec.sec, [SecFlavor::Sys, SecFlavor::None]);
        assert_eq!(spec_of("/=2001:db8::/32").clients.len(), 1, "a lone IPv6 network needs no brackets");
        assert_eq!(spec_of("/=0.0.0.0/0").clients, [ClientMatch::Network { addr: [0; 4].into(), prefix: 0 }]);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (words, reason) in [
            ("/", "expected PATH=CLIENTS"),
            ("data=*", "must begin with /"),
            ("/a/../b=*", "components"),
            ("/a/=*", "components"),
            ("/=", "is no client"),
            ("/=10.0.0.0/33", "prefix length"),
            ("/=*,rwx", "unknown option"),
            ("/=*,anonuid=me", "not a number"),
            ("/=*,sec=krb5", "not supported yet"),
            ("/=a b", "is no client"),
        ] {
            let error = format!("{:#}", words.parse::<ExportWords>().unwrap_err());
            assert!(error.contains(reason), "{words}: {error}");
        }
    }

    fn client() -> impl Strategy<Value = ClientMatch> {
        let network = |addr: IpAddr, prefix| ClientMatch::Network { addr: masked(addr, prefix), prefix };
        prop_oneof![
            Just(ClientMatch::Any),
            (any::<[u8; 4]>(), 0..=32_u8).prop_map(move |(a, p)| network(a.into(), p)),
            (any::<[u8; 16]>(), 0..=128_u8).prop_map(move |(a, p)| network(a.into(), p)),
            "[a-z][a-z0-9-]{0,20}(\\.[a-z]{1,10}){0,3}".prop_map(ClientMatch::Host),
        ]
    }

    proptest! {
        #[test]
        fn words_and_back(
            clients in prop::collection::vec(client(), 1..5),
            flags in any::<[bool; 5]>(),
            anon in any::<(u32, u32)>(),
            volume in prop::option::of("[a-z]{1,8}"),
        ) {
            let spec = ExportSpec {
                read_only: flags[0], secure: flags[1], manage_gids: flags[2], security_label: flags[4],
                squash: if flags[3] { Squash::All } else { Squash::None },
                anon_uid: anon.0, anon_gid: anon.1,
                volume_path: "/x".to_owned(),
                ..spec("/x", clients)
            };
            let parsed: ExportWords = to_words(&spec, volume.as_deref()).parse().unwrap();
            prop_assert_eq!(parsed, ExportWords { spec, volume });
        }

        #[test]
        fn any_words_end_in_an_answer(words in ".{0,60}") {
            let _either = words.parse::<ExportWords>();
        }
    }
}
