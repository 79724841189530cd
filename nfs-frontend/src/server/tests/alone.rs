//! Who calls alone may wait in place.

use super::*;
use std::sync::mpsc;

/// Whether each of so many calls, one after the other, might wait.
async fn calls(client: &mut Client, n: u32) -> Vec<bool> {
    let mut waited = Vec::new();
    for xid in 0..n {
        waited.push(client.call(xid, procedure::WAIT, &[]).await == 1u32.to_be_bytes()[..]);
    }
    waited
}

/// Calls until one may wait.
async fn settle(client: &mut Client) {
    for _ in 0..1000 {
        if calls(client, 1).await == [true] {
            return;
        }
    }
    panic!("none may wait");
}

#[tokio::test]
async fn one_call_after_the_other_of_one_client() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let waited = calls(&mut client, 30).await;
    assert!(!waited[0] && waited.is_sorted() && waited[20], "{waited:?}");
    // Another call, of whomever and however it comes, makes company.
    server.connect().await.call(1, procedure::NULL, &[]).await;
    assert_eq!(calls(&mut client, 1).await, [false]);
    settle(&mut client).await;
    // One in progress, too.
    let mut other = server.connect().await;
    other.send(&record(1, procedure::GATED, &[])).await;
    server.until(|m| &m.calls_now, 1).await;
    assert!(calls(&mut client, 50).await.iter().all(|waited| !waited));
    server.subject.gate.open(1);
    other.reply().await;
    settle(&mut client).await;
    let datagrams = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    datagrams.send_to(&message(1, procedure::NULL, &[]), server.address).await.unwrap();
    datagrams.recv(&mut [0; 100]).await.unwrap();
    assert_eq!(calls(&mut client, 1).await, [false]);
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
}

#[tokio::test]
async fn not_beside_others_of_the_same_client() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    settle(&mut client).await;
    // One that is in progress.
    client.send(&record(1, procedure::GATED, &[])).await;
    server.subject.gate.wait_for(1).await;
    assert_eq!(calls(&mut client, 1).await, [false]);
    server.subject.gate.open(1);
    client.reply().await;
    settle(&mut client).await;
    // Two that come together.
    let both = [record(1, procedure::WAIT, &[]), record(2, procedure::WAIT, &[])].concat();
    client.send(&both).await;
    let answers = [client.reply().await.1, client.reply().await.1];
    assert_eq!(answers, [0u32.to_be_bytes(); 2].map(|no| Bytes::copy_from_slice(&no)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_while_one_waits_is_noticed() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    // Or the second call would wait at the client for the first to be acknowledged.
    client.socket.set_nodelay(true).unwrap();
    let ((begun, wait_begun), (go, wait_go)) = (mpsc::channel(), mpsc::channel());
    // Only the first that waits is held up.
    let hold = Arc::new(AtomicUsize::new(0));
    let held = hold.clone();
    *server.subject.wait.lock().unwrap() = Some(Box::new(move || {
        if held.swap(0, Ordering::SeqCst) == 1 {
            begun.send(()).unwrap();
            wait_go.recv_timeout(PATIENCE).unwrap();
        }
    }));
    // The kernel may be late with a call, though hardly each time.
    for _ in 0..20 {
        settle(&mut client).await;
        hold.store(1, Ordering::SeqCst);
        client.send(&record(1, procedure::WAIT, &[])).await;
        wait_begun.recv_timeout(PATIENCE).unwrap();
        client.send(&record(2, procedure::NULL, &[])).await;
        go.send(()).unwrap();
        assert_eq!(client.reply().await, (success(1), Bytes::copy_from_slice(&1u32.to_be_bytes())));
        client.reply().await;
        if calls(&mut client, 3).await == [false; 3] {
            return;
        }
    }
    panic!("it is not noticed");
}
