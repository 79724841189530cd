//! The POSIX conformance suite `pjdfstest`, whole, as root over the mount.
//!
//! `pjdfstest.expected` lists the cases that fail with every NFSv3 server, the kernel's own included, each with its
//! reason. A case that fails and is not listed fails the test, and so does one that is listed and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::Client;
use crate::lab::server::{Kind, Server};
use crate::lab::{Lab, tools_dir};

/// `daemon` and `nobody` are on every Debian. The nap between two changes whose times must differ is longer than a
/// tick of the slowest clock in use (10 ms, ext4 of a User-Mode Linux peer).
const CONFIG: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.03
allow_remount = true
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

#[test]
fn pjdfstest() {
    assert!(tools_dir().join("bin/pjdfstest").exists(), "no pjdfstest: run .ci/setup-client.sh");
    let lab = Arc::new(Lab::new("pjdfstest"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount(&server, "mountproto=tcp,nolock");
    let script = format!(
        "cat > /tmp/config.toml <<'END'\n{CONFIG}\nEND\n\
         mkdir /tmp/other /mnt/nfs/work; chmod 755 /mnt/nfs/work; mount -t tmpfs other /tmp/other\n\
         pjdfstest -c /tmp/config.toml -s /tmp/other -p /mnt/nfs/work || true"
    );
    let output = client.sh_within(&script, Duration::from_secs(900));
    std::fs::write(lab.dir().join("pjdfstest.txt"), &output).unwrap();

    let results = parse_results(&output);
    let expected = parse_expected(include_str!("../pjdfstest.expected"));
    assert!(results.len() > 500, "only {} cases ran:\n{output}", results.len());
    let of = |wanted: &str| -> BTreeSet<&str> {
        results.iter().filter(|(_, r)| **r == wanted).map(|(name, _)| *name).collect()
    };
    let failed = of("FAILED");
    let listed: BTreeSet<&str> = expected.keys().copied().collect();
    println!("pjdfstest: {} ok, {} failed, {} skipped", of("ok").len(), failed.len(), of("skipped").len());
    if server.kind() == Kind::Ganesha {
        println!("not held against the list: {:?}", failed.symmetric_difference(&listed));
        return;
    }
    let unexpected: Vec<_> = failed.difference(&listed).collect();
    assert!(unexpected.is_empty(), "fail, and are not listed: {unexpected:#?}\n{}", details(&output, &unexpected));
    let fixed: Vec<_> = listed.difference(&failed).collect();
    assert!(fixed.is_empty(), "listed as failing, but do not fail: {fixed:#?}");
}

/// Case to result, from lines `NAME   ok|FAILED|skipped`.
fn parse_results(output: &str) -> BTreeMap<&str, &str> {
    output
        .lines()
        .filter(|line| !line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, result)| (name, result.trim()))
        .filter(|(name, result)| name.contains("::") && ["ok", "FAILED", "skipped"].contains(result))
        .collect()
}

/// Case to reason, from lines `NAME: REASON`; `#` starts a comment line.
fn parse_expected(list: &str) -> BTreeMap<&str, &str> {
    list.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("no reason in line {line:?}")))
        .collect()
}

/// What the suite printed below the named cases.
fn details(output: &str, names: &[&&str]) -> String {
    let mut text = String::new();
    let mut shown = false;
    for line in output.lines() {
        if !line.starts_with(char::is_whitespace) {
            shown = line.split(' ').next().is_some_and(|n| names.iter().any(|name| **name == n));
        }
        if shown {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
