//! Which replies are right, as far as that can be said without knowing what was asked before.

use atoll_proto::nfs4::{ArgOp4, Compound4Res, NfsStat4, OpNum4, ResOp4};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// Statuses by minor version (0, or 1 for later ones) and operation.
type Table = BTreeMap<(u32, u32), BTreeSet<u32>>;

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let statuses: BTreeMap<String, u32> =
        (1..11_000).filter_map(|n| NfsStat4::from_u32(n).map(|s| (plain(&format!("{s:?}")), n))).collect();
    let ops: BTreeMap<String, u32> =
        (0..11_000).filter_map(|n| OpNum4::from_u32(n).map(|o| (plain(&format!("{o:?}")), n))).collect();
    let mut table = Table::new();
    for line in include_str!("valid_errors.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split(' ');
        let minor: u32 = words.next().unwrap().parse().unwrap();
        let Some(op) = ops.get(&plain(words.next().unwrap())) else { panic!("{line}") };
        let allowed = words
            .filter(|word| !word.is_empty())
            .map(|word| *statuses.get(&plain(word)).unwrap_or_else(|| panic!("{word} in {line}")));
        table.entry((minor.min(1), *op)).or_default().extend(allowed);
    }
    table
});

/// What the tables leave out, with the reason.
const MORE: &[(u32, Option<OpNum4>, NfsStat4)] = &[
    // Of the session, not of the operation; some tables of later RFCs leave one out.
    (1, None, NfsStat4::RepTooBig),
    (1, None, NfsStat4::RepTooBigToCache),
    (1, None, NfsStat4::RetryUncachedRep),
    (1, None, NfsStat4::TooManyOps),
    // RFC 7530 §10.2.1 asks for it; RFC 8881 does not say what else it should be.
    (1, Some(OpNum4::Open), NfsStat4::NotSupp),
    // As in the description of the operation: RFC 8276 §8.4.3.3, RFC 7862 §15.11.3.
    (1, Some(OpNum4::ListXattrs), NfsStat4::TooSmall),
    (1, Some(OpNum4::Seek), NfsStat4::Nxio),
    // They are reads and writes, which a share reservation denies to who has none (RFC 8881 §9.1.2); their tables forget it.
    (1, Some(OpNum4::Allocate), NfsStat4::Locked),
    (1, Some(OpNum4::Deallocate), NfsStat4::Locked),
    (1, Some(OpNum4::Clone), NfsStat4::Locked),
    (1, Some(OpNum4::Copy), NfsStat4::Locked),
    (1, Some(OpNum4::IoAdvise), NfsStat4::Locked),
    (1, Some(OpNum4::Seek), NfsStat4::Locked),
    (1, Some(OpNum4::ReadPlus), NfsStat4::Locked),
    // Of a file that has lost its last name, as knfsd.
    (1, Some(OpNum4::Link), NfsStat4::NoEnt),
];

fn is_allowed(minor: u32, op: OpNum4, status: NfsStat4) -> bool {
    let minor = minor.min(1);
    TABLE.get(&(minor, op.to_u32())).is_some_and(|allowed| allowed.contains(&status.to_u32()))
        || MORE.iter().any(|(m, o, s)| *m == minor && o.is_none_or(|o| o == op) && *s == status)
}

/// Whether a reply can be one of this request.
pub(crate) fn judge(minor: u32, asked: &[ArgOp4], res: &Compound4Res) -> Result<(), String> {
    let count = res.ops.len();
    if count > asked.len() {
        return Err(format!("more results than operations | {res:?}"));
    }
    for (n, (op, result)) in asked.iter().zip(res.ops.iter()).enumerate() {
        if op.op() != result.op() && !matches!(result, ResOp4::Illegal(_)) {
            return Err(format!("the result of another operation | {op:?}: {result:?}"));
        }
        let status = result.status();
        let last = n + 1 == count;
        match status {
            Err(_) if !last => return Err(format!("operations go on after one that failed | {res:?}")),
            Err(status) if !is_allowed(minor, result.op(), status) => {
                return Err(format!(
                    "minor version {minor}, {:?}: {status:?} is not listed | {op:?}",
                    result.op()
                ));
            }
            _ => {}
        }
        if last && status != res.status {
            return Err(format!("the status is not that of the last operation | {res:?}"));
        }
    }
    match res.status {
        Ok(()) if count < asked.len() => Err(format!("results are missing | {res:?}")),
        Err(NfsStat4::Io | NfsStat4::ServerFault) => {
            Err(format!("the server says {:?} | {res:?}", res.status))
        }
        _ => Ok(()),
    }
}
