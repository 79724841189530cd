//! The POSIX conformance suite `pjdfstest`, whole, as root over the mount.
//!
//! `pjdfstest.expected` and `pjdfstest4.expected` list the cases that do not pass with any server of the version, the kernel's own included, each with
//! its reason. A case that does not pass and is not listed fails the test, and so does one that is listed and passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::lab::client::{Client, MNT};
use crate::lab::server::{Kind, Server};
use crate::lab::{Lab, long, tools_dir};

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
allow_remount = REMOUNT
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
"#;

/// How many cases version 0.2.2 has on Linux with these features.
const CASES: usize = 398;

/// How many the selection for 4.0 and 4.1 has at least.
const SOME_CASES: usize = 60;

#[test]
fn pjdfstest() {
    let lab = Arc::new(Lab::new("pjdfstest"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount(&server, "mountproto=tcp,nolock");
    whole(&lab, client, &server, include_str!("../pjdfstest.expected"));
}

#[test]
fn pjdfstest_v4_2() {
    let lab = Arc::new(Lab::new("pjdfstest4"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    client.mount4(&server, "4.2", MNT);
    whole(&lab, client, &server, include_str!("../pjdfstest4.expected"));
}

/// The parts in which the minor versions differ: 4.0 has other opens, and neither has the operations of 4.2. In the long form all.
#[test]
fn pjdfstest_v4_0_and_v4_1() {
    let lab = Arc::new(Lab::new("pjdfstest40"));
    let mut client = Client::boot(&lab, 'a');
    let server = Server::start(&lab);
    let expected = parse_expected(include_str!("../pjdfstest4.expected"));
    let parts: &[&str] =
        if long() { &[""] } else { &["open::", "unlink::", "truncate::", "posix_fallocate"] };
    for version in ["4.0", "4.1"] {
        client.mount4(&server, version, MNT);
        let mut ran = 0;
        for part in parts {
            let output = suite(&mut client, "false", part);
            let results = parse_results(&output);
            ran += results.len();
            let strange = |(name, result): (&_, &_)| {
                (*result == "FAILED" && !expected.contains_key(name)).then_some(*name)
            };
            let unexpected: Vec<&str> = results.iter().filter_map(strange).collect();
            let unexpected: Vec<&&str> = unexpected.iter().collect();
            assert!(unexpected.is_empty(), "{version}: {unexpected:#?}\n{}", details(&output, &unexpected));
        }
        assert!(ran >= SOME_CASES, "{version}: only {ran} cases ran");
        client.sh(&format!("rm -r {MNT}/work; umount {MNT}"));
    }
    client.no_complaints();
}

/// Runs the cases that `cases` selects.
fn suite(client: &mut Client, remount: &str, cases: &str) -> String {
    assert!(tools_dir().join("bin/pjdfstest").exists(), "no pjdfstest: run .ci/setup-client.sh");
    let config = CONFIG.replace("REMOUNT", remount);
    let output = client.sh_within(
        &format!(
            "cat > /tmp/config.toml <<'END'\n{config}\nEND\n\
             mkdir -p /tmp/other /mnt/nfs/work; chmod 755 /mnt/nfs/work\n\
             mountpoint -q /tmp/other || mount -t tmpfs other /tmp/other\n\
             pjdfstest -c /tmp/config.toml -s /tmp/other -p /mnt/nfs/work {cases} || true"
        ),
        Duration::from_secs(900),
    );
    assert!(output.contains("Summary: "), "it did not come to its end:\n{output}");
    output
}

/// Runs all of it on a client that has mounted.
fn whole(lab: &Lab, mut client: Client, server: &Server, expected: &str) {
    // The suite leaves a file open for writing, so the cases that remount read-only need a run of their own.
    let most = suite(&mut client, "false", "");
    let read_only = suite(&mut client, "true", "erofs");
    let output = format!("{most}\n{read_only}");
    std::fs::write(lab.dir().join("pjdfstest.txt"), &output).unwrap();

    client.no_complaints();
    let mut results = parse_results(&most);
    results.retain(|name, _| !name.contains("erofs"));
    results.extend(parse_results(&read_only));
    let expected = parse_expected(expected);
    assert!(results.len() >= CASES, "only {} cases ran:\n{output}", results.len());
    let failed: BTreeSet<&str> = results.iter().filter(|(_, r)| **r != "ok").map(|(name, _)| *name).collect();
    let listed: BTreeSet<&str> = expected.keys().copied().collect();
    println!("pjdfstest: {} cases, {} of them do not pass", results.len(), failed.len());
    if server.kind() == Kind::Ganesha {
        println!("not held against the list: {:?}", failed.symmetric_difference(&listed));
        return;
    }
    let unexpected: Vec<_> = failed.difference(&listed).collect();
    assert!(
        unexpected.is_empty(),
        "do not pass, and are not listed: {unexpected:#?}\n{}",
        details(&output, &unexpected)
    );
    let fixed: Vec<_> = listed.difference(&failed).collect();
    assert!(fixed.is_empty(), "are listed, but pass or do not exist: {fixed:#?}");
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
