//! Who is told of granted locks, and when again.

use super::*;
use atoll_lockd::{ByteRange, Callback, GrantId, LockMode, LockOwner, LockRequest, NlmClient, Wait};
use atoll_meta::Outcome;
use atoll_meta::lock::{LockOp, LockOutcome};
use futures_util::FutureExt;

fn owner(name: &str) -> LockOwner {
    LockOwner::nlm(NlmClient::new(name.into(), None).unwrap(), b"oh", 1).unwrap()
}

fn lock(ino: Ino, generation: u32, name: &str) -> Op {
    let request = LockRequest {
        owner: owner(name),
        range: ByteRange::from_nlm(0, 10).unwrap(),
        mode: LockMode::Exclusive,
        wait: Wait::Queue(Callback::new(name.into()).unwrap()),
    };
    Op::Lock(LockOp::Lock { ino, generation, request, client_state: 0 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_grant_is_told_once_a_life_until_it_is_settled() {
    let disk = SimDisk::new();
    let meta = Arc::new(start(&disk).await.unwrap());
    let root = root(&meta).await;
    done(meta.execute(call(create(root, "f"), None)).await);
    let attr = meta.lookup(root, b"f").await.unwrap().child.unwrap();
    let (ino, generation) = (attr.ino, attr.generation);
    done(meta.execute(call(lock(ino, generation, "a"), None)).await);
    let blocked = done(meta.execute(call(lock(ino, generation, "b"), None)).await);
    assert!(matches!(
        blocked.result,
        Ok(Outcome::Lock(LockOutcome::Lock(atoll_lockd::LockOutcome::Blocked(_))))
    ));
    assert!(meta.granted_waiters().now_or_never().is_none());
    let waiting = tokio::spawn({
        let meta = meta.clone();
        async move { meta.granted_waiters().await }
    });
    let range = ByteRange::from_nlm(0, 10).unwrap();
    let unlock = LockOp::Unlock { ino, generation, owner: owner("a"), range };
    done(meta.execute(call(Op::Lock(unlock), None)).await);
    let told = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].ino, &told[0].owner), (ino, &owner("b")));
    assert!(meta.granted_waiters().now_or_never().is_none(), "told once");
    meta.stop().await.unwrap();
    drop(meta);

    // A new life tells again: nobody knows whether the client heard.
    let meta = start(&disk.crash(4)).await.unwrap();
    let again = tokio::time::timeout(Duration::from_secs(10), meta.granted_waiters()).await.unwrap();
    assert_eq!(again, told);
    let grant: GrantId = again[0].grant;
    done(meta.execute(call(Op::Lock(LockOp::Settle { ino, grant, accepted: true }), None)).await);
    meta.stop().await.unwrap();
    drop(meta);
    let meta = start(&disk.crash(5)).await;
    drop(meta);
}
