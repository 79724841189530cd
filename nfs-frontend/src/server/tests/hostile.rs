//! What is sent badly costs nothing and nobody else.

use super::*;
use proptest::prelude::*;

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_giant_record_is_refused_by_its_mark() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(&(0x7fff_ffffu32 | 1 << 31).to_be_bytes()).await;
    client.expect_closed().await;
    server.until(|m| &m.connections_broken, 1).await;
}

#[tokio::test]
async fn a_flood_of_empty_fragments_ends() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let flood = vec![0; 4 * 100_000];
    // The server closes in the middle of it, so sending may fail.
    let _ = client.socket.write_all(&flood).await;
    client.expect_closed().await;
    let mut client = server.connect().await;
    client.send(&[0x80, 0, 0, 0]).await;
    client.expect_closed().await;
    server.until(|m| &m.connections_broken, 2).await;
}

#[tokio::test]
async fn a_reply_instead_of_a_call_closes_the_connection() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    let mut reply = record(1, procedure::NULL, &[]);
    reply[11] = 1;
    client.send(&reply).await;
    client.expect_closed().await;
    server.until(|m| &m.connections_broken, 1).await;
}

#[tokio::test]
async fn a_record_that_never_ends_is_given_up() {
    let server = start(Limits { record_timeout: SOON, ..Limits::default() });
    for begun in [1, 3, 5, 30, 1000, 100_000] {
        let mut client = server.connect().await;
        client.call(1, procedure::NULL, &[]).await;
        client.send(&record(2, procedure::ECHO, &vec![0; 200_000])[..begun]).await;
        client.expect_closed().await;
    }
    server.until(|m| &m.connections_timed_out, 6).await;
    server.until(|m| &m.connections_now, 0).await;
}

#[tokio::test]
async fn a_record_that_drips_is_given_up_too() {
    let server = start(Limits { record_timeout: SOON, ..Limits::default() });
    let client = server.connect().await;
    let (mut receive, mut send) = client.socket.into_split();
    let drip = tokio::spawn(async move {
        for byte in record(1, procedure::ECHO, &vec![0; 100_000]) {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let ended = tokio::time::timeout(PATIENCE, receive.read_u8()).await.unwrap();
    assert!(ended.is_err());
    server.until(|m| &m.connections_timed_out, 1).await;
    drip.abort();
}

#[tokio::test]
async fn an_idle_connection_is_not_an_unfinished_record() {
    let server = start(Limits { record_timeout: SOON, ..Limits::default() });
    let mut client = server.connect().await;
    // A record that was begun and completed in two parts, then silence for longer than a record may take.
    let call = record(1, procedure::NULL, &[]);
    client.send(&call[..10]).await;
    server.until(|m| &m.bytes_in, 10).await;
    client.send(&call[10..]).await;
    client.reply().await;
    tokio::time::sleep(2 * SOON).await;
    client.call(2, procedure::NULL, &[]).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_from_and_then_closed() {
    let limits = Limits { unsent_per_connection: 1 << 20, write_timeout: SOON, ..Limits::default() };
    let server = start(limits);
    let client = server.connect().await;
    let (receive, mut send) = client.socket.into_split();
    let call = record(1, procedure::GIVE, &(256u32 << 10).to_be_bytes());
    let sending = tokio::spawn(async move { while send.write_all(&call).await.is_ok() {} });
    // Somebody else is served all the while.
    let mut other = server.connect().await;
    let mut most = 0;
    while server.metrics.connections_timed_out.load(Ordering::Relaxed) == 0 {
        other.call(1, procedure::NULL, &[]).await;
        most = most.max(server.metrics.unsent_now.load(Ordering::Relaxed));
    }
    assert!(most > 0, "replies did wait");
    assert!(most < (1 << 20) + (300 << 10), "{most} bytes waited");
    sending.await.unwrap();
    drop(receive);
    server.until(|m| &m.unsent_now, 0).await;
}

#[tokio::test]
async fn under_pressure_a_client_that_does_not_read_is_closed_sooner() {
    let limits = Limits {
        unsent_per_connection: 64 << 10,
        unsent: 64 << 10,
        write_timeout: Duration::from_secs(3600),
        write_timeout_under_pressure: SOON,
        ..Limits::default()
    };
    let server = start(limits);
    let mut client = server.connect().await;
    for xid in 0..100 {
        client.send(&record(xid, procedure::GATED_GIVE, &(512u32 << 10).to_be_bytes())).await;
    }
    server.subject.gate.wait_for(100).await;
    server.subject.gate.open(100);
    server.until(|m| &m.connections_timed_out, 1).await;
    server.until(|m| &m.unsent_now, 0).await;
}

#[tokio::test]
async fn large_records_share_the_budget_and_all_get_through() {
    let limits = Limits { receive_memory: 4 << 20, receive_memory_per_address: 3 << 20, ..Limits::default() };
    let server = start(limits);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.connect().await;
        clients.push(tokio::spawn(async move {
            let body = vec![5; 1 << 20];
            for xid in 0..10 {
                assert!(client.call(xid, procedure::ECHO, &body).await == body);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn small_calls_are_served_while_large_ones_wait_for_memory() {
    let limits = Limits { receive_memory: 2 << 20, receive_memory_per_address: 2 << 20, ..Limits::default() };
    let server = start(limits);
    // One call that waits holds most of the budget.
    let mut holder = server.connect().await;
    holder.send(&record(1, procedure::GATED, &vec![1; 1 << 20])).await;
    server.subject.gate.wait_for(1).await;
    let mut waiting = server.connect().await;
    waiting.send(&record(2, procedure::ECHO, &vec![2; 1 << 20])[..200]).await;
    server.until(|m| &m.connections_now, 2).await;
    let mut small = server.connect().await;
    small.call(3, procedure::NULL, &[]).await;
    let rest = record(2, procedure::ECHO, &vec![2; 1 << 20]);
    let (mut receive, mut send) = waiting.socket.split();
    let sending = async { send.write_all(&rest[200..]).await.unwrap() };
    let opening = async {
        small.call(4, procedure::NULL, &[]).await;
        server.subject.gate.open(1);
    };
    let receiving = async { receive.read_u32().await.unwrap() };
    let (_, (), mark) = tokio::join!(sending, opening, receiving);
    assert_eq!(mark & !(1 << 31), 24 + (1 << 20));
    assert!(holder.reply().await.1.len() == 1 << 20);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let server = start(Limits { connections: 3, ..Limits::default() });
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.connect().await;
        client.call(1, procedure::NULL, &[]).await;
        clients.push(client);
    }
    server.connect().await.expect_closed().await;
    clients.pop();
    server.until(|m| &m.connections_now, 2).await;
    let mut again = server.connect().await;
    again.call(1, procedure::NULL, &[]).await;
    assert_eq!(server.metrics.connections_refused.load(Ordering::Relaxed), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever comes, the server answers or closes, and then serves the next client.
    #[test]
    fn any_bytes(
        whole in any::<bool>(),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        at in 0usize..60,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = start(Limits::default());
            let mut client = server.connect().await;
            let mut bytes = record(1, procedure::ECHO, b"abcdefghijkl");
            if whole {
                let at = 4 + at % (bytes.len() - 4);
                for (place, value) in bytes[at..].iter_mut().zip(&noise) {
                    *place = *value;
                }
            } else {
                bytes.truncate(at);
                bytes.extend_from_slice(&noise);
            }
            client.send(&bytes).await;
            client.socket.shutdown().await.unwrap();
            while client.try_reply().await.is_some() {}
            server.connect().await.call(2, procedure::NULL, &[]).await;
            server.until(|m| &m.connections_now, 0).await;
            assert_eq!(server.finish().await, Stopped { cut_off: 0 });
        });
    }
}
