//! The service on three members.

use super::*;
use crate::raft::in_process::InProcess;
use crate::raft::types::{Member, MemberId};
use crate::service::{MetaMachine, open_member};
use atoll_meta::FsError;
use std::collections::BTreeMap;

async fn member(net: &InProcess<MetaMachine>, id: MemberId, disk: &SimDisk, founds: bool) -> LocalMetadata {
    let mut options = options();
    options.group.id = id;
    options.group.heartbeat = Duration::from_millis(50);
    options.group.found = founds.then(|| BTreeMap::from([1, 2, 3].map(|id| (id, Member::default()))));
    let network = net.network(id);
    let meta = open_member(Arc::new(disk.clone()), options, Arc::new(SystemClock), Arc::new(|_| {}), network)
        .await
        .unwrap();
    net.connect(id, &meta.shared.group, meta.shared.store.clone());
    meta
}

/// Whoever takes the call.
async fn execute<'m>(members: &[&'m LocalMetadata], op: Op, xid: u32) -> (&'m LocalMetadata, Response) {
    let answered = async {
        loop {
            for meta in members {
                if let Ok(response) = meta.execute(call(op.clone(), once(xid))).await {
                    return (*meta, response);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("nobody takes calls")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_member_goes_on_where_the_leader_ended() {
    let net = InProcess::default();
    let disks = [SimDisk::new(), SimDisk::new(), SimDisk::new()];
    let three = member(&net, 3, &disks[2], false).await;
    let two = member(&net, 2, &disks[1], false).await;
    let one = member(&net, 1, &disks[0], true).await;
    let all = [&one, &two, &three];
    // The first inode of group 0.
    let root = Ino(1);
    let (leader, first) = execute(&all, create(root, "a"), 1).await;
    done(Ok(first.clone()));
    assert!(leader.lookup(root, b"a").await.unwrap().child.is_ok());
    let verifier = leader.verifier();

    let leader_id = leader.status().group.leadership.leader.unwrap();
    net.cut(leader_id);
    let others: Vec<_> = (1..=3).zip(all).filter(|(id, _)| *id != leader_id).map(|(_, meta)| meta).collect();
    // The same request through another door gets its first answer.
    let (next, again) = execute(&others, create(root, "a"), 1).await;
    assert_eq!(again, first);
    assert_eq!(next.verifier(), verifier);
    done(Ok(execute(&others, create(root, "b"), 2).await.1));
    assert!(next.lookup(root, b"b").await.unwrap().child.is_ok());
    // Who was cut off answers nothing old.
    assert_eq!(leader.lookup(root, b"b").await, Err(FsError::Delay));
    net.mend(leader_id);
    for meta in all {
        meta.stop().await.unwrap();
    }
}
