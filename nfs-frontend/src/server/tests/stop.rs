//! Stopping: what was accepted is finished, and nothing waits for ever.

use super::*;

#[tokio::test]
async fn calls_in_progress_are_finished_and_new_ones_not_begun() {
    let server = start(Limits::default());
    let mut client = server.connect().await;
    client.send(&record(1, procedure::GATED_GIVE, &(1u32 << 20).to_be_bytes())).await;
    let mut idle = server.connect().await;
    idle.call(1, procedure::NULL, &[]).await;
    server.subject.gate.wait_for(1).await;
    server.stop.cancel();
    // The idle connection ends although another has a call in progress.
    idle.expect_closed().await;
    client.send(&record(2, procedure::NULL, &[])).await;
    assert!(TcpStream::connect(server.address).await.is_err(), "nothing is accepted any more");
    server.subject.gate.open(1);
    let (header, body) = client.reply().await;
    assert_eq!((header, body.len()), (success(1), 1 << 20));
    client.expect_closed().await;
    assert_eq!(server.finish().await, Stopped { cut_off: 0 });
}

#[tokio::test]
async fn what_is_not_done_in_time_is_cut_off() {
    let server = start(Limits { stop_timeout: Duration::from_millis(200), ..Limits::default() });
    let mut client = server.connect().await;
    client.send(&record(1, procedure::GATED, &[])).await;
    server.subject.gate.wait_for(1).await;
    let metrics = server.metrics.clone();
    assert_eq!(server.finish().await, Stopped { cut_off: 1 });
    client.expect_closed().await;
    assert_eq!(metrics.connections_now.load(Ordering::Relaxed), 0);
    assert_eq!(metrics.calls_now.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_stop_before_the_start_is_a_stop() {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), Limits::default(), &[PROGRAM]).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    assert_eq!(server.run(Arc::new(Subject::default()), stop).await, Stopped { cut_off: 0 });
}
